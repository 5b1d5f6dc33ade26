//! Scheduler steps and the requests they served.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use journey_schema::{Attr, Event};
use maud::{Markup, html};

use super::super::Shared;
use super::super::store::{Step, Store, Stored};
use super::journey::span_in_full;
use super::{Here, not_found, page};
use crate::journey::Journey;
use crate::model::{Attributes, SpanRef, Value};
use crate::time::{nanos, wall};

const ROWS: usize = 200;

/// `GET /steps`.
pub(in super::super) async fn list(State(shared): State<Arc<Shared>>) -> Markup {
    let store = shared.store.lock();
    let content = html! {
        @if store.steps().next().is_none() {
            p { "No scheduler step has been received. Steps are traced when step tracing is on, which it is not by default." }
        } @else {
            div.scroll { table.journeys {
                thead { tr {
                    th { "at" } th.number { "took" } th.number { "running" } th.number { "waiting" } th.number { "tokens" }
                    th.number.wide { "prefill" } th.number.wide { "decode" } th.number.wide { "preempted" } th.number { "KV cache" } th.number { "requests" }
                } }
                tbody { @for step in store.steps().take(ROWS) { (row(step, &store)) } }
            } }
        }
    };
    page(Here::Steps, "Scheduler steps", &store, &content)
}

fn row(step: &Step, store: &Store) -> Markup {
    let last = step.span.events.iter().rev().find(|event| event.name.known() == Some(Event::BatchSummary));
    let int = |attr: Attr| last.and_then(|event| event.attributes.attr(attr)).map_or("-".to_owned(), Value::to_string);
    let usage = last.and_then(|event| event.attributes.attr(Attr::KvUsage)).and_then(Value::as_f64);
    html! {
        tr {
            td { a #{ "s" (step.span.id) } href={ "/step/" (step.span.id) } { (wall(step.span.start).get(11..23).unwrap_or("step")) } }
            td.number { (nanos(step.span.end.saturating_sub(step.span.start))) }
            @for attr in [Attr::RunningDepth, Attr::WaitingDepth, Attr::ScheduledTokens] { td.number { (int(attr)) } }
            @for attr in [Attr::NumPrefill, Attr::NumDecode, Attr::NumPreempted] { td.number.wide { (int(attr)) } }
            td.number { @match usage { Some(usage) => (format!("{:.0} %", usage * 100.0)), None => "-" } }
            td.number { (served(step, store).len()) }
        }
    }
}

/// `GET /step/{trace}-{span}`.
pub(in super::super) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let store = shared.store.lock();
    let id = id.parse::<SpanRef>().ok();
    let Some(step) = store.steps().find(|step| Some(step.span.id) == id) else { return not_found(&store) };
    let content = html! {
        h2 { "Requests it served" }
        ul.legend {
            @for stored in served(step, &store) {
                li { a.id href={ "/journey/" (stored.journey.id) } { (stored.journey.request_id()) } }
            }
        }
        p.dim { (step.span.links.len()) " links; a request that is not listed has not been received, or is no longer kept" }
        h2 { "Spans" }
        (span_in_full(&step.span, step.span.start))
        @for forward in &step.forwards { (span_in_full(forward, step.span.start)) }
    };
    page(Here::Elsewhere, &format!("Step at {}", wall(step.span.start)), &store, &content).into_response()
}

/// The journeys that a step's links lead to; of an engine that sends no links, those that its snapshots name.
fn served<'a>(step: &Step, store: &'a Store) -> Vec<&'a Stored> {
    if step.span.links.is_empty() {
        return store.latest().filter(|stored| serves(step, &stored.journey)).collect();
    }
    let mut served: Vec<&Stored> = step.span.links.iter().filter_map(|link| store.journey_of_core(*link)).collect();
    served.sort_by_key(|stored| stored.journey.id);
    served.dedup_by_key(|stored| stored.journey.id);
    served
}

/// Whether a step had one of the journey's sequences in its batch.
pub(super) fn serves(step: &Step, journey: &Journey) -> bool {
    journey.sequences.iter().any(|sequence| {
        let core = SpanRef { trace_id: journey.id.trace_id, span_id: sequence.span_id };
        step.span.links.contains(&core)
            || step.span.events.iter().any(|event| {
                event.name.known() == Some(Event::RequestSnapshot)
                    && !sequence.request_id.is_empty()
                    && event.attributes.attr(Attr::SnapshotRequestId).and_then(Value::as_str)
                        == Some(&sequence.request_id)
            })
    })
}
