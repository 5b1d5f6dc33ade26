//! The report as one self-contained page: nothing is loaded, from anywhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::{Measure, Report};
use crate::journey::Journey;
use crate::time::{nanos, wall};
use crate::view;

/// What every page begins with: maud's `DOCTYPE`.
pub(super) const BEGINNING: &[u8] = b"<!DOCTYPE html>";

const SCRIPT: &str = include_str!("page.js");

/// The page.
pub(super) fn page(report: &Report) -> String {
    let stats = &report.stats;
    let kept = stats.kept();
    let longest = kept.iter().map(|journey| journey.e2e()).max().unwrap_or(1);
    let arrival = stats.time.map_or(0, |(first, _)| first);
    // Only this style and this script: what comes from the traces could not run even if an escape were missing.
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        hash(view::STYLE),
        hash(SCRIPT)
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy);
                title { "journeys: " (report.files.join(", ")) }
                style { (PreEscaped(view::STYLE)) }
            }
            body {
                a.skip href="#journeys" { "to the journeys" }
                h1 { "Journeys " span.dim { (report.files.join(", ")) } }
                (facts(report))
                h2 { "Latency" }
                div.plots { @for measure in Measure::ALL { (view::distribution(measure, stats.distribution(measure))) } }
                h2 { "Over time" }
                (view::legend())
                (view::timeline(&stats.timeline))
                (view::parts_table(&stats.parts))
                h2 #journeys { "Journeys" }
                @if (kept.len() as u64) < stats.journeys {
                    p.dim { (kept.len()) " of " (stats.journeys) ": the slowest, and a sample of the others" }
                }
                form.filters #filters hidden {
                    label { "request, trace, model or status" input #needle type="search" autocomplete="off"; }
                    label { "order" select #order {
                        option value="arrival" { "arrival" }
                        option value="e2e" { "slowest first" }
                        option value="ttft" { "latest first token first" }
                    } }
                    label.check { input #preempted type="checkbox"; "preempted only" }
                    output #shown aria-live="polite" {}
                }
                div.journey-head {
                    span { "arrived" } span { "request" } span { "model" } span { "status" }
                    span { "end to end" } span { "first token" } span { "where the time went" }
                }
                div #list {
                    @for (index, journey) in kept.iter().enumerate() { (row(report, index, journey, arrival, longest)) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

fn facts(report: &Report) -> Markup {
    let stats = &report.stats;
    let rate = 100.0 * stats.preempted as f64 / stats.sequences.max(1) as f64;
    html! {
        dl.facts {
            dt { "journeys" } dd { (stats.journeys) " with " (stats.sequences) " sequences" }
            @if let Some((first, last)) = stats.time { dt { "time" } dd { (wall(first)) ", " (nanos(last - first)) } }
            dt { "departed" } dd { (stats.departed) }
            dt { "aborted" } dd {
                (stats.ends.values().sum::<u64>())
                @for (reason, count) in &stats.ends { ", " (reason) " " (count) }
            }
            dt { "preempted" } dd {
                (stats.preempted) " of " (stats.sequences) " sequences (" (format!("{rate:.1}")) " %), "
                @match stats.recomputed {
                    Some(tokens) => { (tokens) " tokens recomputed" }
                    None => { "at most " (stats.thrown_away) " tokens recomputed" }
                }
            }
            dt { "tokens" } dd { (stats.prompt_tokens) " prompt, " (stats.completion_tokens) " completion" }
            @if report.steps.count > 0 {
                dt { "steps" } dd {
                    (report.steps.count) " traced, p50 " (nanos(report.steps.duration.quantile(0.5)))
                    ", p99 " (nanos(report.steps.duration.quantile(0.99)))
                }
            }
            @if report.problem_count > 0 { dt { "unreadable" } dd.bad { (report.problem_count) } }
        }
    }
}

fn row(report: &Report, index: usize, journey: &Journey, arrival: u64, longest: u64) -> Markup {
    let ttft = journey.time_to_first_token();
    let model = journey.request.as_ref().map_or("", |request| &request.model);
    let aborted = journey.status() != "departed";
    html! {
        details.journey data-index=(index) data-e2e=(journey.e2e()) data-ttft=(ttft.unwrap_or(0)) data-preemptions=(journey.preemptions()) {
            summary {
                span.dim { "+ " (nanos(journey.time().start.saturating_sub(arrival))) }
                span.id { (journey.request_id()) }
                span { (model) }
                span.bad[aborted] { (journey.status()) }
                span { (nanos(journey.e2e())) }
                span { @match ttft { Some(ttft) => (nanos(ttft)), None => "-" } }
                (view::mini_bar(journey, longest))
            }
            div {
                p.id.dim {
                    "trace " (journey.id.trace_id)
                    @if let Some(link) = &report.options.link {
                        " " a href=(link.link(journey.id)) rel="noreferrer" { "open in your backend" }
                    }
                }
                (view::waterfall(journey))
            }
        }
    }
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}
