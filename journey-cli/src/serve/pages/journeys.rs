//! The table of journeys with its filters, and the distributions of what they take.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Query, State};
use maud::{Markup, html};

use super::super::Shared;
use super::super::filter::Filter;
use super::super::store::{Store, Stored};
use super::{Here, page};
use crate::journey::Part;
use crate::report::{Measure, Stats};
use crate::time::{nanos, wall};
use crate::view;

/// Rows of one page of the table.
const ROWS: usize = 100;

/// `GET /`.
pub(in super::super) async fn list(State(shared): State<Arc<Shared>>, Query(filter): Query<Filter>) -> Markup {
    let store = shared.store.lock();
    let taken: Vec<&Stored> = store.latest().filter(|stored| filter.takes(stored)).collect();
    let from = filter.page.saturating_mul(ROWS).min(taken.len());
    let rows = &taken[from..taken.len().min(from + ROWS)];
    let longest = rows.iter().map(|stored| stored.journey.e2e()).max().unwrap_or(1);
    let content = html! {
        (form("/", &filter, &store))
        p.dim { (taken.len()) " of " (store.len()) " journeys" @if taken.len() > ROWS { ", " (from + 1) " to " (from + rows.len()) } ", the latest first" }
        (view::legend())
        div.scroll { table.journeys {
            thead { tr {
                th.wide { "arrived" } th { "request" } th.wide { "model" } th { "status" }
                th.number { "end to end" } th.number.wide { "first token" } th.number.wide { "queue" } th.number.wide { "preempted" } th.wide { "where the time went" } th.number { "findings" }
            } }
            tbody { @for stored in rows { (row(stored, longest)) } }
        } }
        @if rows.is_empty() {
            p { @if store.len() == 0 { "Nothing has been received yet. Point an OTLP exporter here." } @else { "No journey passes the filter." } }
        }
        p.pages {
            @if filter.page > 0 { a href={ "/?" (filter.query(filter.page - 1)) } { "later" } " " }
            @if from + rows.len() < taken.len() { a href={ "/?" (filter.query(filter.page + 1)) } { "earlier" } }
        }
    };
    page(Here::Journeys, "Journeys", &store, &content)
}

/// `GET /distributions`.
pub(in super::super) async fn distributions(State(shared): State<Arc<Shared>>, Query(filter): Query<Filter>) -> Markup {
    let store = shared.store.lock();
    let mut stats = Stats::default();
    for stored in store.latest().filter(|stored| filter.takes(stored)) {
        stats.measure(&stored.journey);
    }
    let content = html! {
        (form("/distributions", &filter, &store))
        p.dim { (stats.journeys) " of " (store.len()) " journeys" }
        div.plots { @for measure in Measure::ALL { (view::distribution(measure, stats.distribution(measure))) } }
        h2 { "Over time" }
        (view::legend())
        (view::timeline(&stats.timeline))
        (view::parts_table(&stats.parts))
    };
    page(Here::Distributions, "Distributions", &store, &content)
}

fn form(action: &str, filter: &Filter, store: &Store) -> Markup {
    let mut models: BTreeSet<&str> = BTreeSet::from([filter.model.as_str()]);
    let mut statuses: BTreeSet<&str> = BTreeSet::from([filter.status.as_str(), "departed", "aborted"]);
    for stored in store.latest() {
        models.extend(stored.journey.request.as_ref().map(|request| &*request.model));
        statuses.insert(stored.journey.status());
    }
    let option = |value: &str, chosen: &str| {
        html! { option value=(value) selected[value == chosen] { @if value.is_empty() { "any" } @else { (value) } } }
    };
    html! {
        form.filters #filters action=(action) method="get" {
            label { "request or trace id" input #q name="q" type="search" value=(filter.q) autocomplete="off" maxlength="200"; }
            label { "model" select #model name="model" {
                (option("", &filter.model)) @for model in models.iter().filter(|model| !model.is_empty()) { (option(model, &filter.model)) }
            } }
            label { "status" select #status name="status" {
                (option("", &filter.status)) @for status in statuses.iter().filter(|status| !status.is_empty()) { (option(status, &filter.status)) }
            } }
            label { "first token after (ms)" input #ttft name="ttft" type="number" min="0" step="any" value=(filter.ttft); }
            label.check { input #preempted name="preempted" type="checkbox" value="1" checked[!filter.preempted.is_empty()]; "preempted only" }
            label.check { input #findings name="findings" type="checkbox" value="1" checked[!filter.findings.is_empty()]; "with findings" }
            button type="submit" { "filter" }
            a href=(action) { "clear" }
        }
    }
}

fn row(stored: &Stored, longest: u64) -> Markup {
    let journey = &stored.journey;
    let model = journey.request.as_ref().map_or("", |request| &request.model);
    let queue = journey.parts()[Part::Queue as usize];
    let departed = journey.status() == "departed";
    let arrived = wall(journey.time().start);
    html! {
        tr {
            td.dim.wide title=(arrived) { (arrived.get(11..23).unwrap_or(&arrived)) }
            td { a.id #{ "j" (journey.id) } href={ "/journey/" (journey.id) } { @if journey.request_id().is_empty() { (journey.id.span_id) } @else { (short(journey.request_id())) } } }
            td.wide { (short(model)) }
            td.bad[!departed] { (short(journey.status())) }
            td.number { (nanos(journey.e2e())) }
            td.number.wide { @match journey.time_to_first_token() { Some(ttft) => (nanos(ttft)), None => "-" } }
            td.number.wide { (nanos(queue)) }
            td.number.wide { @if journey.preemptions() > 0 { (journey.preemptions()) "×" } @else { "-" } }
            td.wide.drawn { (view::mini_bar(journey, longest)) }
            td.number.bad[stored.finding_count() > 0] { @if stored.finding_count() > 0 { (stored.finding_count()) } @else { "-" } }
        }
    }
}

/// A table cell is no place for a kilobyte of id.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
