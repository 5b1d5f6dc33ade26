//! One live span: its events in order, what the caller left out, the terminal guarantee, the derived latencies.

use journey_schema::{AbortReason, Attr, Event, FinishStatus, Lifecycle, SpanName, Violation};

use crate::callsites::Site;
use crate::duplicates::Keys;
use crate::record::{SpanRecord, SpanStatus, ValueRef};
use crate::visitor::{EventFields, PROGRESS};

/// How the code around a span ended, as far as it could be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing was seen.
    #[default]
    Unseen,
    /// Its future was dropped before it completed.
    Cancelled,
    /// The response body was dropped before its end.
    ClientDisconnect,
    /// It panicked.
    Panicked,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Taken,
    /// Taken, although it is illegal here.
    Illegal(Violation),
    SecondTerminal,
    EventLimit,
}

/// A span that is open.
#[derive(Debug)]
pub(crate) struct LiveSpan {
    pub(crate) record: Box<SpanRecord>,
    pub(crate) site: &'static Site,
    pub(crate) ending: Ending,
    /// Keys under which the span is known to the duplicates index.
    pub(crate) keys: Keys,
    lifecycle: Lifecycle,
    /// Progress as last given, by position in [`PROGRESS`].
    progress: [i64; PROGRESS.len()],
    given: u8,
}

impl LiveSpan {
    pub(crate) fn new(record: Box<SpanRecord>, site: &'static Site) -> Self {
        Self {
            record,
            site,
            ending: Ending::default(),
            keys: Keys::default(),
            lifecycle: Lifecycle::new(),
            progress: Default::default(),
            given: 0,
        }
    }

    /// Whether the span has had its terminal event.
    pub(crate) fn is_finished(&self) -> bool {
        self.lifecycle.terminal().is_some()
    }

    /// Takes an event, at most `max_events` with the terminal one.
    pub(crate) fn event(&mut self, event: Event, fields: EventFields, now: i64, max_events: usize) -> Outcome {
        let finished = self.is_finished();
        if event.is_terminal() && finished {
            return Outcome::SecondTerminal;
        }
        // The last place is the terminal event's.
        if !event.is_terminal() && self.record.events().len() + usize::from(!finished) >= max_events {
            self.record.dropped_events += 1;
            return Outcome::EventLimit;
        }
        // Known before the event is taken: the first SCHEDULED is FIRST.
        let kind = fields.kind.unwrap_or(self.lifecycle.schedule_kind());
        let verdict = self.lifecycle.advance(event);
        match event.span() {
            SpanName::LlmRequest => self.push_api(event, &fields, now),
            SpanName::LlmCore => self.push_core(event, &fields, kind, now),
            SpanName::SchedulerStep | SpanName::ModelForward => {
                let others = fields.others.iter().map(|(attr, value)| (*attr, value.as_ref()));
                self.record.push_event(event, now, others);
            }
        }
        if event.is_terminal() {
            self.record.end_ns = now;
        }
        verdict.map_or_else(Outcome::Illegal, |()| Outcome::Taken)
    }

    fn push_api(&mut self, event: Event, fields: &EventFields, now: i64) {
        let attributes = [
            Some((Attr::ApiTsMonotonic, ValueRef::Float(seconds(now)))),
            fields.reason.map(|reason| (Attr::Reason, ValueRef::Static(reason.as_str()))),
            fields.error.as_deref().map(|error| (Attr::Error, ValueRef::Text(error))),
        ];
        self.record.push_event(event, now, attributes.into_iter().flatten());
        if event == Event::Aborted {
            let reason = fields.reason.map_or("aborted", AbortReason::as_str);
            self.record.status = SpanStatus::Error(fields.error.as_deref().unwrap_or(reason).to_owned());
        }
    }

    fn push_core(&mut self, event: Event, fields: &EventFields, kind: journey_schema::ScheduleKind, now: i64) {
        for (index, value) in fields.progress.iter().enumerate() {
            if fields.given & 1 << index != 0 {
                self.progress[index] = *value;
            }
        }
        self.given |= fields.given;
        const PREEMPTIONS: usize = PROGRESS.len() - 1;
        if fields.given & 1 << PREEMPTIONS == 0 {
            self.progress[PREEMPTIONS] = i64::from(self.lifecycle.preemptions()).max(self.progress[PREEMPTIONS]);
            self.given |= 1 << PREEMPTIONS;
        }
        let phase = fields.phase.unwrap_or(self.lifecycle.phase());
        let known = |index: usize| {
            (self.given & 1 << index != 0).then(|| (PROGRESS[index], ValueRef::Int(self.progress[index])))
        };
        let attributes = [
            Some((Attr::EventType, ValueRef::Static(event.ident()))),
            Some((Attr::TsMonotonic, ValueRef::Float(seconds(now)))),
            Some((Attr::TsMonotonicNs, ValueRef::Int(now))),
            known(0),
            Some((Attr::Phase, ValueRef::Static(phase.as_str()))),
            known(1),
            known(2),
            known(3),
            known(4),
            known(5),
            known(6),
            (event == Event::Scheduled).then(|| (Attr::ScheduleKind, ValueRef::Static(kind.as_str()))),
            fields.status.map(|status| (Attr::FinishStatus, ValueRef::Static(status.as_str()))),
        ];
        self.record.push_event(event, now, attributes.into_iter().flatten());
        if fields.status == Some(FinishStatus::Error) {
            self.record.status = SpanStatus::Error(FinishStatus::Error.as_str().to_owned());
        }
    }

    /// Ends the span: adds the terminal event if it is missing, and derives the latencies.
    ///
    /// Returns the record, and the terminal event that was added.
    pub(crate) fn finish(mut self, now: i64) -> (Box<SpanRecord>, Option<Event>) {
        let added = if self.is_finished() { None } else { self.add_terminal(now) };
        if added.is_none() && !self.is_finished() {
            self.record.end_ns = now;
        }
        derive_latencies(&mut self.record);
        (self.record, added)
    }

    fn add_terminal(&mut self, now: i64) -> Option<Event> {
        let (event, fields) = match self.record.name {
            SpanName::LlmRequest => {
                let reason = match self.ending {
                    Ending::Unseen => AbortReason::Unfinished,
                    Ending::Cancelled => AbortReason::Cancelled,
                    Ending::ClientDisconnect => AbortReason::ClientDisconnect,
                    Ending::Panicked => AbortReason::Panic,
                };
                (Event::Aborted, EventFields { reason: Some(reason), ..Default::default() })
            }
            SpanName::LlmCore => {
                let status = if self.ending == Ending::Panicked { FinishStatus::Error } else { FinishStatus::Aborted };
                (Event::Finished, EventFields { status: Some(status), ..Default::default() })
            }
            SpanName::SchedulerStep | SpanName::ModelForward => return None,
        };
        self.event(event, fields, now, usize::MAX);
        Some(event)
    }
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

/// Sets the latencies that the span's events support, in seconds.
fn derive_latencies(record: &mut SpanRecord) {
    let mut first = [None; Event::ALL.len()];
    let mut terminal = None;
    let (mut preempted_at, mut preempted) = (None, None);
    for view in record.events() {
        let (event, now) = (view.event(), view.mono_ns());
        first[event as usize].get_or_insert(now);
        match event {
            Event::Preempted => preempted_at = Some(now),
            Event::Scheduled => {
                if let Some(since) = preempted_at.take() {
                    *preempted.get_or_insert(0) += now - since;
                }
            }
            _ if event.is_terminal() => terminal = Some(now),
            _ => {}
        }
    }
    let at = |event: Event| first[event as usize];
    let spans = match record.name {
        SpanName::LlmRequest => &[
            (Attr::LatencyE2e, at(Event::Arrived), terminal),
            (Attr::TimeToFirstToken, at(Event::Arrived), at(Event::FirstResponseFromCore)),
        ][..],
        SpanName::LlmCore => &[
            (Attr::TimeInQueue, at(Event::Queued), at(Event::Scheduled)),
            (Attr::TimeInModelPrefill, at(Event::Scheduled), at(Event::FirstToken)),
            (Attr::TimeInModelDecode, at(Event::FirstToken), terminal),
            (Attr::TimeInModelInference, at(Event::Scheduled), terminal),
            (Attr::TimePreempted, preempted.map(|_| 0), preempted),
        ],
        SpanName::SchedulerStep | SpanName::ModelForward => &[],
    };
    for (attr, from, to) in spans {
        if let (Some(from), Some(to)) = (from, to) {
            record.set_attribute(*attr, ValueRef::Float(seconds(to - from)));
        }
    }
}
