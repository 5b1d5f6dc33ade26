//! Rules about the events of one span: names, order, clocks, progress.

use journey_schema::{Attr, Event, Lifecycle, Phase, ScheduleKind, SpanName, Violation, nearest};

use super::attributes;
use super::local::Local;
use super::rules::Rule;
use crate::model::{Attributes, SpanEvent, Value};
use crate::time::nanos;

/// OpenTelemetry's own event, which any span may carry.
const EXCEPTION: &str = "exception";

/// Wall clock readings may differ by this much from what the order says, for clocks are adjusted.
const WALL_SLACK: u64 = 1_000_000;

/// Checks the events of a journey or step span.
pub(super) fn check(local: &mut Local<'_>, name: SpanName) {
    let span = local.span;
    let complete = span.dropped_events == 0;
    if !complete && name.is_journey() {
        local.find(Rule::DroppedEvents, format!("{} events of this span were dropped", span.dropped_events));
    }
    let mut lifecycle = Lifecycle::new();
    let mut progress = Progress::default();
    let mut clock = Clock::default();
    let mut lacking = attributes::Lacking::default();
    let mut before: Option<&SpanEvent> = None;
    for event in &span.events {
        let Some(kind) = event.name.known() else {
            unknown(local, event.name.as_str());
            continue;
        };
        if kind.span() != name {
            local.find(
                Rule::WrongSpanForEvent,
                format!("{} is an event of {}, not of {}", kind.wire_name(), kind.span().name(), name.name()),
            );
            continue;
        }
        if name.is_journey() && complete {
            order(local, &mut lifecycle, kind, before.and_then(|event| event.name.known()));
        } else {
            let _ = lifecycle.advance(kind);
        }
        times(local, event, before);
        attributes::check_event(local, event, kind, &mut lacking);
        if kind.span() == SpanName::LlmCore {
            progress.check(local, event, kind, &lifecycle, complete);
        }
        clock.check(local, event, kind);
        before = Some(event);
    }
    lacking.report(local);
    if name.is_journey() {
        end(local, &lifecycle, name);
    }
}

fn unknown(local: &mut Local<'_>, name: &str) {
    if name == EXCEPTION {
        return;
    }
    let near = nearest(name, Event::ALL.iter().map(|event| event.wire_name()))
        .or_else(|| Event::from_ident(name).map(Event::wire_name));
    let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
    local.find(Rule::UnknownEvent, format!("unknown event `{}`{hint}", local.shorten(name)));
}

/// The end of a span that must have a terminal event.
fn end(local: &mut Local<'_>, lifecycle: &Lifecycle, name: SpanName) {
    if lifecycle.terminal().is_none() {
        let wanted: Vec<&str> = Event::ALL
            .iter()
            .filter(|event| event.is_terminal() && event.span() == name)
            .map(|event| event.wire_name())
            .collect();
        let last = local.span.events.last().map_or("no event at all", |event| event.name.as_str()).to_owned();
        local.find(
            Rule::MissingTerminal,
            format!("ends after {}, without {}", local.shorten(&last), wanted.join(" or ")),
        );
    }
    let finish = local.span.event(Event::Finished).and_then(|event| event.attributes.attr(Attr::FinishStatus));
    let ran = matches!(finish.and_then(Value::as_str), Some("stopped" | "length"));
    if ran && local.span.dropped_events == 0 && !lifecycle.has(Event::FirstToken) {
        local.find(
            Rule::MissingEvent,
            "a sequence that stopped or reached its length has had a journey.FIRST_TOKEN; there is none".to_owned(),
        );
    }
}

fn order(local: &mut Local<'_>, lifecycle: &mut Lifecycle, event: Event, before: Option<Event>) {
    let Err(violation) = lifecycle.advance(event) else { return };
    let name = event.wire_name();
    match violation {
        Violation::AfterTerminal { terminal } => {
            local.find(Rule::AfterTerminal, format!("{name} stands after the terminal {}", terminal.wire_name()));
        }
        Violation::Repeated => local.find(Rule::EventOrder, format!("{name} stands a second time")),
        Violation::NotFirst | Violation::OutOfOrder { .. } => {
            let between = between(before, event);
            let position = before.map_or("first".to_owned(), |before| format!("right after {}", before.wire_name()));
            // What was never seen is missing; what is there, but elsewhere, is out of order.
            let missing: Vec<&str> = between
                .iter()
                .filter(|between| !between.is_once() || local.span.event(**between).is_none())
                .map(|between| between.wire_name())
                .collect();
            if missing.is_empty() || missing.len() < between.len() {
                local.find(Rule::EventOrder, format!("{name} comes {position}"));
            } else {
                local.find(Rule::MissingEvent, format!("{name} comes {position}: {} missing", missing.join(" and ")));
            }
        }
    }
}

/// The events that legally lead from `before` (or from the start) to `event`, both excluded.
fn between(before: Option<Event>, event: Event) -> Vec<Event> {
    let starts: Vec<Event> = match before {
        Some(before) => before.successors().to_vec(),
        None => Event::ALL
            .iter()
            .copied()
            .filter(|start| start.may_begin() && !start.is_terminal() && start.span() == event.span())
            .collect(),
    };
    let mut paths: std::collections::VecDeque<Vec<Event>> = starts.into_iter().map(|start| vec![start]).collect();
    while let Some(path) = paths.pop_front() {
        let last = path[path.len() - 1];
        if last == event {
            return path[..path.len() - 1].to_vec();
        }
        for next in last.successors() {
            if !path.contains(next) {
                paths.push_back(path.iter().copied().chain([*next]).collect());
            }
        }
    }
    Vec::new()
}

fn times(local: &mut Local<'_>, event: &SpanEvent, before: Option<&SpanEvent>) {
    let (start, end) = (local.span.start, local.span.end);
    let name = event.name.as_str();
    if let Some(before) = before
        && event.time.saturating_add(WALL_SLACK) < before.time
    {
        let back = nanos(before.time - event.time);
        local.find(Rule::BadTime, format!("{name} is {back} before {}, which it follows", before.name.as_str()));
    }
    if event.time.saturating_add(WALL_SLACK) < start {
        local.find(Rule::BadTime, format!("{name} is {} before the span's start", nanos(start - event.time)));
    } else if event.time > end.saturating_add(WALL_SLACK) && end >= start {
        local.find(Rule::BadTime, format!("{name} is {} after the span's end", nanos(event.time - end)));
    }
}

/// Follows the monotonic clock beside the wall clock.
#[derive(Default)]
struct Clock {
    first: Option<(u64, f64)>,
    last: f64,
    reported: bool,
}

impl Clock {
    fn check(&mut self, local: &mut Local<'_>, event: &SpanEvent, kind: Event) {
        let name = kind.wire_name();
        let seconds = event.attributes.attr(Attr::TsMonotonic).or_else(|| event.attributes.attr(Attr::ApiTsMonotonic));
        let Some(seconds) = seconds.and_then(Value::as_f64).filter(|seconds| seconds.is_finite()) else { return };
        if let Some(Value::Int(ns)) = event.attributes.attr(Attr::TsMonotonicNs)
            && (*ns as f64 / 1e9 - seconds).abs() > 1e-6
        {
            local.find(
                Rule::ClockMismatch,
                format!("{name}: ts.monotonic {seconds} s and ts.monotonic_ns {ns} are not one reading"),
            );
        }
        let Some((wall, monotonic)) = self.first else {
            self.first = Some((event.time, seconds));
            self.last = seconds;
            return;
        };
        if self.reported {
            return;
        }
        let on_wall = (event.time as i128 - wall as i128) as f64 / 1e9;
        let on_monotonic = seconds - monotonic;
        // Slewing moves the wall clock by up to 0.05 %; reading two clocks takes time on a busy host.
        let slack = 0.005 + 0.001 * on_monotonic.abs();
        if seconds + 1e-6 < self.last {
            self.reported = true;
            local.find(
                Rule::ClockMismatch,
                format!("{name}: the monotonic clock runs backwards, from {} to {seconds} s", self.last),
            );
        } else if (on_wall - on_monotonic).abs() > slack {
            self.reported = true;
            local.find(
                Rule::ClockMismatch,
                format!("{name} is {on_monotonic:.6} s after the first event on the monotonic clock, {on_wall:.6} s on the wall clock"),
            );
        }
        self.last = self.last.max(seconds);
    }
}

/// Follows the progress counters of one sequence.
#[derive(Default)]
struct Progress {
    highest: [Option<i64>; 4],
}

const RISING: [Attr; 4] = [Attr::SchedulerStep, Attr::PrefillDone, Attr::DecodeDone, Attr::NumPreemptions];

impl Progress {
    fn check(&mut self, local: &mut Local<'_>, event: &SpanEvent, kind: Event, lifecycle: &Lifecycle, complete: bool) {
        let name = kind.wire_name();
        let int = |attr: Attr| event.attributes.attr(attr).and_then(Value::as_int);
        for (attr, highest) in RISING.into_iter().zip(&mut self.highest) {
            let Some(value) = int(attr) else { continue };
            if let Some(before) = highest.filter(|before| value < *before) {
                local.find(Rule::CounterMismatch, format!("{name}: {} falls from {before} to {value}", attr.key()));
            }
            *highest = Some(highest.map_or(value, |before| before.max(value)));
        }
        for (done, total) in [(Attr::PrefillDone, Attr::PrefillTotal), (Attr::DecodeDone, Attr::DecodeMax)] {
            if let (Some(value), Some(most)) = (int(done), int(total))
                && value > most
            {
                local.find(
                    Rule::CounterMismatch,
                    format!("{name}: {} {value} is more than {} {most}", done.key(), total.key()),
                );
            }
        }
        if let Some(value) = int(Attr::NumPreemptions)
            && complete
            && value != i64::from(lifecycle.preemptions())
        {
            let seen = lifecycle.preemptions();
            local.find(
                Rule::CounterMismatch,
                format!("{name}: num_preemptions {value}, but {seen} PREEMPTED events so far"),
            );
        }
        if complete {
            labels(local, event, kind, lifecycle);
        }
    }
}

/// `schedule.kind` and `phase`, where the events before leave no doubt.
fn labels(local: &mut Local<'_>, event: &SpanEvent, kind: Event, lifecycle: &Lifecycle) {
    let text = |attr: Attr| event.attributes.attr(attr).and_then(Value::as_str);
    if kind == Event::Scheduled
        && let Some(given) = text(Attr::ScheduleKind).and_then(ScheduleKind::from_value)
    {
        let before = local.span.events.iter().take_while(|other| !std::ptr::eq(*other, event));
        let first = !before.into_iter().any(|other| other.name.known() == Some(Event::Scheduled));
        let expected = if first { ScheduleKind::First } else { ScheduleKind::Resume };
        if given != expected {
            local.find(Rule::WrongScheduleKind, format!("journey.SCHEDULED is {given}, its place says {expected}"));
        }
    }
    // A sequence that ends while it waits is called PREFILL by some engines: only the plain contradictions count.
    let expected = match kind {
        Event::Queued => Some(Phase::Waiting),
        Event::FirstToken => Some(Phase::Decode),
        _ => None,
    };
    if let Some(given) = text(Attr::Phase).and_then(Phase::from_value) {
        let early = given == Phase::Decode && !lifecycle.has(Event::FirstToken);
        if early || expected.is_some_and(|expected| expected != given) {
            let expected = expected.unwrap_or(Phase::Prefill);
            local.find(Rule::WrongPhase, format!("{} says {given}, its place says {expected}", kind.wire_name()));
        }
    }
}
