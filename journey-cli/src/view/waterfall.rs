//! One journey drawn over time.

use std::ops::Range;

use maud::{Markup, html};

use super::class;
use crate::journey::{Journey, Part, Parts, Segment};
use crate::time::nanos;

/// Width of the drawings, in their own units.
const WIDTH: f64 = 1_000.0;

/// The journey's parts as one bar; `whole` is what the full width stands for.
pub(crate) fn mini_bar(journey: &Journey, whole: u64) -> Markup {
    let from = journey.time().start;
    let range = from..from.saturating_add(whole.max(1));
    html! {
        svg.mini viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            @for segment in journey.segments() { (bar(segment, &range, 10)) }
        }
    }
}

/// A row for the request, one for each sequence, an axis, and the parts in figures.
pub(crate) fn waterfall(journey: &Journey) -> Markup {
    let mut range = journey.time();
    for sequence in &journey.sequences {
        range.start = range.start.min(sequence.time.start);
        range.end = range.end.max(sequence.time.end);
    }
    html! {
        div.waterfall {
            @if let Some(request) = &journey.request {
                div.label { "llm_request" }
                div.track {
                    svg viewBox={ "0 0 " (WIDTH) " 18" } preserveAspectRatio="none" role="img"
                        aria-label={ "llm_request " (nanos(journey.e2e())) } {
                        @let (x, width) = place(&request.time, &range);
                        rect.request x=(x) y="6" width=(width) height="6" { title { "llm_request " (nanos(journey.e2e())) } }
                        @if let Some(first) = request.first_response {
                            @let (x, _) = place(&(first..first), &range);
                            line.mark x1=(x) x2=(x) y1="1" y2="17" {
                                title { "FIRST_RESPONSE_FROM_CORE + " (nanos(first.saturating_sub(request.time.start))) }
                            }
                        }
                    }
                }
            }
            @for sequence in &journey.sequences {
                div.label { "llm_core " span.dim { (sequence.status.map_or("", |status| status.as_str())) } }
                div.track {
                    svg viewBox={ "0 0 " (WIDTH) " 18" } preserveAspectRatio="none" role="img"
                        aria-label={ "llm_core " (sequence.request_id) } {
                        @for segment in &sequence.segments { (bar(*segment, &range, 18)) }
                    }
                }
            }
            div.label {}
            div.axis aria-hidden="true" {
                @for quarter in 0..=4u64 { span { (nanos((range.end - range.start) / 4 * quarter)) } }
            }
        }
        (parts_table(&journey.parts()))
    }
}

/// The parts in figures; they add up to the whole that the caption names.
pub(crate) fn parts_table(parts: &Parts) -> Markup {
    let whole = parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
    html! {
        table.parts {
            caption { "where " (nanos(whole)) " went" }
            tbody {
                @for part in Part::ALL.into_iter().filter(|part| parts[*part as usize] > 0) {
                    tr {
                        th scope="row" {
                            svg.swatch viewBox="0 0 10 10" aria-hidden="true" { rect class=(class(part)) width="10" height="10" {} }
                            (part.name())
                        }
                        td { (nanos(parts[part as usize])) }
                        td.dim { (format!("{:.1} %", 100.0 * parts[part as usize] as f64 / whole.max(1) as f64)) }
                        td.dim { (part.meaning()) }
                    }
                }
            }
        }
    }
}

fn bar(segment: Segment, range: &Range<u64>, height: u32) -> Markup {
    let (x, width) = place(&(segment.from..segment.to), range);
    html! {
        rect class=(class(segment.part)) x=(x) y="0" width=(width) height=(height) {
            title { (segment.part.name()) " " (nanos(segment.to - segment.from)) }
        }
    }
}

/// Where a stretch stands, and how wide it is: at least wide enough to be seen.
fn place(stretch: &Range<u64>, range: &Range<u64>) -> (f64, f64) {
    let whole = (range.end - range.start).max(1) as f64;
    let x = |at: u64| at.saturating_sub(range.start) as f64 / whole * WIDTH;
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let from = x(stretch.start).min(WIDTH - 1.5);
    (round(from), round((x(stretch.end) - from).max(1.5)))
}
