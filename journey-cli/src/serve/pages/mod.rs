//! The live page: read-only, rendered here, refreshed by a little script where there is one.

mod findings;
mod journey;
mod journeys;
mod steps;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};

use super::store::Store;
use super::{Shared, guard, live};
use crate::view;

const SCRIPT: &str = include_str!("live.js");

pub(super) fn router(shared: Arc<Shared>, listening: SocketAddr) -> Router {
    Router::new()
        .route("/", get(journeys::list))
        .route("/distributions", get(journeys::distributions))
        .route("/journey/{id}", get(journey::one))
        .route("/steps", get(steps::list))
        .route("/step/{id}", get(steps::one))
        .route("/findings", get(findings::list))
        .route("/live", get(live::live))
        .route("/style.css", get(|| async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], view::STYLE) }))
        .route("/live.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT) }))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(missing)
        .layer(middleware::from_fn(guard::headers))
        .layer(middleware::from_fn_with_state(listening, guard::host))
        .with_state(shared)
}

/// Which page is open, for the navigation.
#[derive(Clone, Copy, PartialEq)]
enum Here {
    Journeys,
    Distributions,
    Steps,
    Findings,
    Elsewhere,
}

/// A whole page around its content.
fn page(here: Here, title: &str, store: &Store, content: &Markup) -> Markup {
    let links = [
        (Here::Journeys, "/", "Journeys"),
        (Here::Distributions, "/distributions", "Distributions"),
        (Here::Steps, "/steps", "Steps"),
        (Here::Findings, "/findings", "Findings"),
    ];
    let totals = store.totals();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · journey" }
                link rel="stylesheet" href="/style.css";
                script src="/live.js" defer {}
            }
            body {
                a.skip href="#content" { "to the content" }
                nav aria-label="pages" {
                    @for (target, href, name) in links {
                        a href=(href) aria-current=[(target == here).then_some("page")] {
                            (name)
                            @if target == Here::Findings && store.findings_count() > 0 { " (" (store.findings_count()) ")" }
                        }
                    }
                    span.live {
                        span #state.dim role="status" { "reload to refresh" }
                        " " button #pause type="button" aria-pressed="false" hidden { "pause" }
                    }
                }
                main #content data-live="" { h1 { (title) } (content) }
                footer.dim #totals data-live="" {
                    (totals.spans) " spans received, " (store.len()) " journeys kept in "
                    (format!("{:.1}", store.bytes() as f64 / (1 << 20) as f64)) " MiB"
                    @if totals.evicted > 0 { ", " (totals.evicted) " dropped for the bounds" }
                    @if totals.foreign > 0 { ", " (totals.foreign) " spans of other scopes" }
                    @if totals.unreadable > 0 { ", " span.bad { (totals.unreadable) " unreadable" } }
                    ". Keys: / filter, j k move, Enter open, Esc back, p pause."
                }
            }
        }
    }
}

async fn missing(State(shared): State<Arc<Shared>>) -> Response {
    not_found(&shared.store.lock())
}

/// A page for what is not there, or not any more.
fn not_found(store: &Store) -> Response {
    let content = html! {
        p { "It is not here, or no longer: the store is bounded, and the oldest go first." }
        p { a href="/" { "all journeys" } }
    };
    (StatusCode::NOT_FOUND, page(Here::Elsewhere, "Not found", store, &content)).into_response()
}
