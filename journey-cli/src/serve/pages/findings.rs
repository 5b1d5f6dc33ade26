//! What `check` finds in the journeys as they arrive.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};

use super::super::Shared;
use super::{Here, page};
use crate::check::{Finding, Level, Rule};
use crate::model::SpanRef;

/// Findings of one rule that are listed.
const SHOWN: usize = 20;

/// `GET /findings`.
pub(in super::super) async fn list(State(shared): State<Arc<Shared>>) -> Markup {
    let store = shared.store.lock();
    let mut by_rule: BTreeMap<Rule, Vec<(&Finding, Option<SpanRef>)>> = BTreeMap::new();
    for stored in store.latest() {
        for finding in stored.findings() {
            by_rule.entry(finding.rule).or_default().push((finding, Some(stored.journey.id)));
        }
    }
    for finding in store.stray_findings() {
        by_rule.entry(finding.rule).or_default().push((finding, None));
    }
    let content = html! {
        @if by_rule.is_empty() { p.good { "No findings in what is kept." } }
        @for (rule, findings) in &by_rule {
            section {
                h2 { (weight(rule.info().level)) " " code { (rule.info().id) } " " span.dim { (findings.len()) } }
                p { (rule.info().title) ". " span.dim { "Way out: " (rule.info().help) "." } }
                ul.findings { @for (finding, journey) in findings.iter().take(SHOWN) { (item(finding, Some(*journey))) } }
                @if findings.len() > SHOWN { p.dim { "and " (findings.len() - SHOWN) " more" } }
            }
        }
    };
    page(Here::Findings, "Findings", &store, &content)
}

/// One finding; on the journey's own page without a link to it, but with the way out.
pub(super) fn item(finding: &Finding, journey: Option<Option<SpanRef>>) -> Markup {
    html! {
        li {
            @match journey {
                Some(Some(id)) => { a.id href={ "/journey/" (id) } { @if finding.request_id.is_empty() { (id.span_id) } @else { (finding.request_id) } } }
                Some(None) => span.id { "trace " (finding.span.trace_id) },
                None => { (weight(finding.rule.info().level)) " " code { (finding.rule.info().id) } }
            }
            " " (finding.message) " " span.dim { (finding.span_name) " " span.id { (finding.span.span_id) } }
            @if journey.is_none() { br; span.dim { "Way out: " (finding.rule.info().help) "." } }
        }
    }
}

fn weight(level: Level) -> Markup {
    match level {
        Level::Error => html! { span.bad { "error" } },
        Level::Warning => html! { span.warn { "warning" } },
    }
}
