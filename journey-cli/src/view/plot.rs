//! Distributions and the timeline of concurrent journeys.

use std::fmt::Write;

use maud::{Markup, html};

use super::class;
use crate::journey::Part;
use crate::report::{Distribution, Measure, Timeline};
use crate::time::{nanos, wall};

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;
const BARS: usize = 48;

/// A histogram over the logarithm of the duration, with its quantiles in words.
pub(crate) fn distribution(measure: Measure, of: &Distribution) -> Markup {
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)].map(|(name, q)| (name, of.quantile(q)));
    let recorded: Vec<(u64, u64)> = of.recorded().collect();
    // A microsecond is the least that the axis shows: nothing a request waits for is shorter.
    let low = recorded.first().map_or(1_000, |(value, _)| (*value).max(1_000)) as f64;
    let high = (of.max() as f64).max(low * 1.2);
    let place = |value: u64| ((value as f64).max(low).ln() - low.ln()) / (high.ln() - low.ln());
    let mut bars = [0u64; BARS];
    for (value, count) in &recorded {
        bars[((place(*value) * BARS as f64) as usize).min(BARS - 1)] += count;
    }
    let most = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
    let width = WIDTH / BARS as f64;
    let words: Vec<String> = quantiles.iter().map(|(name, value)| format!("{name} {}", nanos(*value))).collect();
    html! {
        figure.plot {
            figcaption { strong { (measure.name()) } " " span.dim { (of.count()) } }
            @if of.count() == 0 {
                p.dim { "none" }
            } @else {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label={ (measure.name()) ": " (words.join(", ")) } {
                    @for (index, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
                        // A single journey among millions is the one that is looked for: it stays visible.
                        @let height = (*count as f64 / most * (HEIGHT - 4.0)).max(2.0);
                        rect.bar x=(round(index as f64 * width)) y=(round(HEIGHT - height)) width=(round(width - 1.0)) height=(round(height)) {
                            title { (count) }
                        }
                    }
                    @for (name, value) in &quantiles {
                        @let x = round(place(*value).clamp(0.0, 1.0) * WIDTH);
                        line.quantile x1=(x) x2=(x) y1="0" y2=(HEIGHT) { title { (name) " " (nanos(*value)) } }
                    }
                }
                div.axis aria-hidden="true" {
                    span { (nanos(low as u64)) }
                    span { (nanos((low * high).sqrt() as u64)) }
                    span { (nanos(high as u64)) }
                }
                p.words { @for word in &words { span { (word) } " " } span { "max " (nanos(of.max())) } }
            }
        }
    }
}

/// Concurrent journeys over time, stacked by what they were doing.
pub(crate) fn timeline(timeline: &Timeline) -> Markup {
    let bins: Vec<_> = timeline.concurrency().collect();
    let range = timeline.range();
    let most = bins.iter().map(|bin| bin.iter().sum::<f64>()).fold(0.0, f64::max).max(1.0);
    let width = WIDTH / bins.len().max(1) as f64;
    let mut floor = vec![0.0; bins.len()];
    let mut areas = Vec::new();
    for part in Part::ALL {
        let top: Vec<f64> = floor.iter().zip(&bins).map(|(floor, bin)| floor + bin[part as usize]).collect();
        if top != floor {
            areas.push((part, area(&floor, &top, width, most)));
        }
        floor = top;
    }
    html! {
        figure.plot.timeline {
            figcaption { strong { "concurrent journeys" } " " span.dim { "up to " (format!("{most:.1}")) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label={ "concurrent journeys by phase, up to " (format!("{most:.1}")) } {
                @for (part, path) in &areas {
                    path class=(class(*part)) d=(path) { title { (part.name()) } }
                }
            }
            div.axis aria-hidden="true" {
                span { (wall(range.start)) }
                span { "+ " (nanos((range.end - range.start) / 2)) }
                span { "+ " (nanos(range.end - range.start)) }
            }
        }
    }
}

/// A closed path of steps: along the top from left to right, back along the floor.
fn area(floor: &[f64], top: &[f64], width: f64, most: f64) -> String {
    let y = |value: f64| round(HEIGHT - value / most * HEIGHT);
    let mut path = String::new();
    for (index, value) in top.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{command}{} {}H{}",
            round(index as f64 * width),
            y(*value),
            round((index + 1) as f64 * width)
        );
    }
    for (index, value) in floor.iter().enumerate().rev() {
        let _ = write!(path, "L{} {}H{}", round((index + 1) as f64 * width), y(*value), round(index as f64 * width));
    }
    path.push('Z');
    path
}

/// Two decimals: a page of plots should not be mostly digits.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
