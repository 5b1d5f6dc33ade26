//! Latencies as the schema derives them from one span's events.

use journey_schema::{Attr, Event};

use crate::model::{Span, SpanEvent};

/// Seconds between the events that define `attr`, if the span has them.
pub fn derive(span: &Span, attr: Attr) -> Option<f64> {
    let time = |kind: Event| span.event(kind).map(|event| event.time);
    let (from, to) = match attr {
        Attr::LatencyE2e => (time(Event::Arrived)?, time(Event::Departed).or_else(|| time(Event::Aborted))?),
        Attr::TimeToFirstToken => (time(Event::Arrived)?, time(Event::FirstResponseFromCore)?),
        Attr::TimeInQueue => (time(Event::Queued)?, time(Event::Scheduled)?),
        Attr::TimeInModelPrefill => (time(Event::Scheduled)?, time(Event::FirstToken)?),
        Attr::TimeInModelDecode => (time(Event::FirstToken)?, time(Event::Finished)?),
        Attr::TimeInModelInference => (time(Event::Scheduled)?, time(Event::Finished)?),
        Attr::TimePreempted => return Some(preempted(&span.events) as f64 / 1e9),
        _ => return None,
    };
    Some((to as f64 - from as f64) / 1e9)
}

/// Nanoseconds between each PREEMPTED and the SCHEDULED that resumes it.
fn preempted(events: &[SpanEvent]) -> u64 {
    let mut since = None;
    let mut sum = 0;
    for event in events {
        match (event.name.known(), since) {
            (Some(Event::Preempted), _) => since = Some(event.time),
            (Some(Event::Scheduled), Some(from)) => {
                sum += event.time.saturating_sub(from);
                since = None;
            }
            _ => {}
        }
    }
    sum
}
