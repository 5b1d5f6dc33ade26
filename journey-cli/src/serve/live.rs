//! Tells pages that something changed, by server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use super::{Shared, TICK};

/// `GET /live`.
pub(super) async fn live(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(watcher) = shared.watchers.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let changes = shared.version.subscribe();
    let events = stream::unfold((changes, shared, watcher), |(mut changes, shared, watcher)| async move {
        changes.changed().await.ok()?;
        // A burst of exports is one change: the page is read again as a whole anyway.
        tokio::time::sleep(TICK).await;
        let version = *changes.borrow_and_update();
        let event = {
            let store = shared.store.lock();
            json!({ "version": version, "journeys": store.len(), "findings": store.findings_count() })
        };
        let event = Event::default().event("change").data(event.to_string());
        Some((Ok::<_, Infallible>(event), (changes, shared, watcher)))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
