//! Tells pages that something changed, by server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use super::{Shared, TICK};

/// Pages that may be open at once.
const MAX_WATCHERS: usize = 64;

static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// Counts a watcher for as long as its connection lives.
struct Watcher;

impl Watcher {
    fn enter() -> Option<Self> {
        let admitted = WATCHERS.fetch_add(1, Ordering::Relaxed) < MAX_WATCHERS;
        let watcher = Self;
        admitted.then_some(watcher)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `GET /live`.
pub(super) async fn live(State(shared): State<Arc<Shared>>) -> Response {
    let Some(watcher) = Watcher::enter() else {
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
