//! One journey: its waterfall, what is wrong with it, the steps that served it, its spans in full.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::super::Shared;
use super::super::store::{Store, Stored};
use super::steps::serves;
use super::{Here, findings, not_found, page};
use crate::model::{Attribute, Span, SpanRef, StatusCode};
use crate::time::{nanos, wall};
use crate::view;

/// Steps that are listed; a long journey is served by thousands.
const STEPS: usize = 50;

/// `GET /journey/{trace}-{span}`.
pub(in super::super) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let store = shared.store.lock();
    let Some(stored) = id.parse::<SpanRef>().ok().and_then(|id| store.get(id)) else { return not_found(&store) };
    let journey = &stored.journey;
    let title =
        if journey.request_id().is_empty() { journey.id.span_id.to_string() } else { journey.request_id().to_owned() };
    let mut spans: Vec<&Span> = stored.spans.iter().map(|span| &**span).collect();
    spans.sort_by_key(|span| (span.id != journey.id, span.start));
    let content = html! {
        (facts(&shared, stored))
        (view::legend())
        (view::waterfall(journey))
        @if stored.finding_count() > 0 {
            h2 { "Findings" }
            ul.findings { @for finding in stored.findings() { (findings::item(finding, None)) } }
        }
        (steps(&store, stored))
        h2 { "Spans" }
        @for span in spans { (span_in_full(span, journey.time().start)) }
    };
    page(Here::Elsewhere, &title, &store, &content).into_response()
}

fn facts(shared: &Shared, stored: &Stored) -> Markup {
    let journey = &stored.journey;
    html! {
        dl.facts {
            dt { "trace" } dd.id {
                (journey.id.trace_id)
                @if let Some(link) = &shared.link { " " a #backend href=(link.link(journey.id)) rel="noreferrer" { "open in your backend" } }
            }
            dt { "arrived" } dd { (wall(journey.time().start)) }
            dt { "status" } dd.bad[journey.status() != "departed"] { (journey.status()) }
            dt { "end to end" } dd { (nanos(journey.e2e())) }
            @if let Some(ttft) = journey.time_to_first_token() { dt { "first token" } dd { (nanos(ttft)) } }
            @if let Some(request) = &journey.request {
                dt { "model" } dd { (request.model) }
                @if !request.route.is_empty() { dt { "route" } dd { (request.route) } }
                dt { "tokens" } dd { (count(request.prompt_tokens)) " prompt, " (count(request.completion_tokens)) " completion" }
            } @else {
                dt { "request" } dd.bad { "its llm_request has not been received" }
            }
            @if journey.preemptions() > 0 { dt { "preempted" } dd { @if journey.preemptions() == 1 { "once" } @else { (journey.preemptions()) " times" } } }
        }
    }
}

fn count(tokens: Option<i64>) -> String {
    tokens.map_or("?".to_owned(), |tokens| tokens.to_string())
}

fn steps(store: &Store, stored: &Stored) -> Markup {
    let served: Vec<_> = store.steps().filter(|step| serves(step, &stored.journey)).take(STEPS + 1).collect();
    html! {
        @if !served.is_empty() {
            h2 { "Scheduler steps" }
            ul.legend {
                @for step in served.iter().take(STEPS) {
                    li { a href={ "/step/" (step.span.id) } { (wall(step.span.start).get(11..23).unwrap_or("step")) } " " span.dim { (nanos(step.span.end.saturating_sub(step.span.start))) } }
                }
                @if served.len() > STEPS { li.dim { "and earlier ones" } }
            }
        }
    }
}

/// A span with its attributes and events.
pub(super) fn span_in_full(span: &Span, zero: u64) -> Markup {
    let status = match span.status {
        StatusCode::Unset => "status unset",
        StatusCode::Ok => "status OK",
        StatusCode::Error => "status ERROR",
    };
    html! {
        section.span {
            h3 { (span.name.as_str()) " " span.dim { (span.scope.name) ", " (span.kind) ", " (span.resource.service_name()) } }
            p.dim {
                span.id { "span " (span.id.span_id) @if let Some(parent) = span.parent { ", parent " (parent) } }
                ", " (nanos(span.end.saturating_sub(span.start))) ", " span.bad[span.status == StatusCode::Error] { (status) }
                @if !span.status_message.is_empty() { ": " (span.status_message) }
            }
            (attributes(&span.attributes))
            @if !span.events.is_empty() {
                div.scroll { table.events {
                    thead { tr { th { "after" } th { "event" } th { "attributes" } } }
                    tbody { @for event in &span.events { tr {
                        td.number { (nanos(event.time.saturating_sub(zero))) }
                        td.event { (event.name.as_str()) }
                        td { (attributes(&event.attributes)) }
                    } } }
                } }
            }
        }
    }
}

fn attributes(list: &[Attribute]) -> Markup {
    html! {
        ul.attributes { @for attribute in list { li { span.dim { (attribute.key.as_str()) } " " code { (attribute.value) } } } }
    }
}
