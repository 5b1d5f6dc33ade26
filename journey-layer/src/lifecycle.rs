//! One live span: its events in order, what the caller left out, the terminal guarantee, the derived latencies.

use journey_schema::{AbortReason, Attr, Event, FinishStatus, Lifecycle, SpanName, Violation};

use crate::callsites::Site;
use crate::decide::Duplicate;
use crate::emit::Problem;
use crate::record::SpanRecord;
use crate::record_event::{Mark, seconds};
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

/// What only an open span needs. It lies in the record, so that a span is one block of memory from its opening to its
/// export.
#[derive(Debug, Default)]
pub(crate) struct LiveState {
    /// Set when the span is opened.
    pub(crate) site: Option<&'static Site>,
    pub(crate) ending: Ending,
    /// The key that the span's `gen_ai.request.id` stands for, while the span has it.
    pub(crate) id_key: Option<u64>,
    /// What is known before the span is opened.
    pub(crate) opening: Option<Box<Opening>>,
    lifecycle: Lifecycle,
}

/// What few spans have to tell when they are opened.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    /// It is a duplicate, of that span.
    pub(crate) duplicate: Option<Box<Duplicate>>,
    /// The `llm_core` around a nested `llm_core`.
    pub(crate) around: Option<u64>,
    pub(crate) problems: Vec<Problem>,
}

/// A span that is open.
#[derive(Debug)]
pub(crate) struct LiveSpan {
    pub(crate) record: Box<SpanRecord>,
}

/// `num_preemptions` is the last of [`PROGRESS`].
const PREEMPTIONS: usize = PROGRESS.len() - 1;

impl LiveSpan {
    pub(crate) fn new(mut record: Box<SpanRecord>, site: &'static Site) -> Self {
        record.live.site = Some(site);
        Self { record }
    }

    pub(crate) fn site(&self) -> &'static Site {
        self.record.live.site.expect("an open span has a callsite")
    }

    /// Whether the span has had its terminal event.
    pub(crate) fn is_finished(&self) -> bool {
        self.record.live.lifecycle.terminal().is_some()
    }

    /// The code around the span has ended, and has not said how. Returns the key of its id, if that is free now.
    pub(crate) fn ends_without_event(&mut self, ending: Ending, now: i64) -> Option<u64> {
        let is_finished = self.is_finished();
        let record = &mut *self.record;
        // What has panicked is dropped later, and that is not how it ended.
        if record.live.ending != Ending::Panicked {
            record.live.ending = ending;
        }
        if is_finished {
            return None;
        }
        record.end_ns = now;
        record.live.id_key.take_if(|_| record.name == SpanName::LlmRequest)
    }

    /// When the span has ended, as far as it can be known while it is open.
    pub(crate) fn ended_ns(&self) -> Option<i64> {
        let has_ended = self.is_finished() || self.record.end_ns > self.record.start_ns;
        has_ended.then_some(self.record.end_ns)
    }

    /// Takes an event, at most `max_events` with the terminal one.
    pub(crate) fn event(&mut self, event: Event, fields: &EventFields, now: i64, max_events: usize) -> Outcome {
        let finished = self.is_finished();
        if event.is_terminal() && finished {
            return Outcome::SecondTerminal;
        }
        let record = &mut *self.record;
        // The last place is the terminal event's.
        if !event.is_terminal() && record.event_count() + usize::from(!finished) >= max_events {
            record.dropped_events += 1;
            // What comes later counts it, and knows what it led to.
            let _ = record.live.lifecycle.advance(event);
            return Outcome::EventLimit;
        }
        // Whatever was dropped, it goes on.
        if record.live.ending != Ending::Unseen {
            record.end_ns = record.start_ns;
        }
        // Known before the event is taken: the first SCHEDULED is FIRST.
        let kind = fields.kind.unwrap_or(record.live.lifecycle.schedule_kind());
        let verdict = record.live.lifecycle.advance(event);
        // Two threads may come here in another order than that of their clock readings.
        let now = now.max(record.marks.last().map_or(record.start_ns, |mark| mark.mono_ns));
        let mut mark = Mark::new(event, now);
        match event.span() {
            SpanName::LlmRequest => mark.reason = fields.reason,
            SpanName::LlmCore => {
                mark.phase = Some(fields.phase.unwrap_or(record.live.lifecycle.phase()));
                mark.kind = (event == Event::Scheduled).then_some(kind);
                mark.status = fields.status;
                mark.given = record.push_progress(fields);
            }
            SpanName::SchedulerStep | SpanName::ModelForward => {}
        }
        record.marks.push(mark);
        if let Some(more) = &fields.more {
            record.push_others(&more.others);
        }
        if event.is_terminal() {
            record.end_ns = now;
            if event == Event::Aborted || fields.status == Some(FinishStatus::Error) {
                record.set_error_of(event, fields);
            }
        }
        verdict.map_or_else(Outcome::Illegal, |()| Outcome::Taken)
    }

    /// Ends the span: adds the terminal event if it is missing, and derives the latencies.
    ///
    /// Returns the record, and the terminal event that was added.
    pub(crate) fn finish(mut self, now: i64) -> (Box<SpanRecord>, Option<Event>) {
        let added = if self.is_finished() { None } else { self.add_terminal(now) };
        if added.is_none() && !self.is_finished() {
            self.record.end_ns = now;
        }
        self.record.derive_latencies();
        (self.record, added)
    }

    fn add_terminal(&mut self, now: i64) -> Option<Event> {
        let (event, fields) = match self.record.name {
            SpanName::LlmRequest => {
                let reason = match self.record.live.ending {
                    Ending::Unseen => AbortReason::Unfinished,
                    Ending::Cancelled => AbortReason::Cancelled,
                    Ending::ClientDisconnect => AbortReason::ClientDisconnect,
                    Ending::Panicked => AbortReason::Panic,
                };
                (Event::Aborted, EventFields { reason: Some(reason), ..Default::default() })
            }
            SpanName::LlmCore => {
                let status = if self.record.live.ending == Ending::Panicked {
                    FinishStatus::Error
                } else {
                    FinishStatus::Aborted
                };
                (Event::Finished, EventFields { status: Some(status), ..Default::default() })
            }
            SpanName::SchedulerStep | SpanName::ModelForward => return None,
        };
        self.event(event, &fields, now, usize::MAX);
        Some(event)
    }
}

impl SpanRecord {
    /// Appends the counters of the next event of `llm_core`: what is given, else as last given. Returns which are known.
    #[inline]
    fn push_progress(&mut self, fields: &EventFields) -> u8 {
        let (given, mut known) = (fields.given, 0);
        let mut values = fields.progress;
        if let (Some(before), Some(mark)) = (self.progress.last(), self.marks.last()) {
            known = mark.given;
            // Most often there is nothing left to take from before, or one counter.
            let mut missing = known & !given;
            while missing != 0 {
                let index = missing.trailing_zeros() as usize;
                values[index] = before[index];
                missing &= missing - 1;
            }
        }
        if given & 1 << PREEMPTIONS == 0 {
            values[PREEMPTIONS] = i64::from(self.live.lifecycle.preemptions()).max(values[PREEMPTIONS]);
        }
        self.progress.push(values);
        given | known | 1 << PREEMPTIONS
    }

    /// Status ERROR, as a terminal event says.
    #[cold]
    fn set_error_of(&mut self, event: Event, fields: &EventFields) {
        if event == Event::Aborted {
            let others = fields.more.as_ref().map_or(&[][..], |more| &more.others);
            let error = others.iter().find(|(attr, _)| *attr == Attr::Error);
            let text = error.and_then(|(_, value)| value.as_ref().as_str());
            self.set_error(text.unwrap_or(fields.reason.map_or("aborted", AbortReason::as_str)));
        } else {
            self.set_error(FinishStatus::Error.as_str());
        }
    }

    /// Sets the latencies that the span's events support, in seconds.
    fn derive_latencies(&mut self) {
        let at = |event| self.marks.iter().find(|mark| mark.event == event).map(|mark| mark.mono_ns);
        let terminal = self.marks.iter().rfind(|mark| mark.event.is_terminal()).map(|mark| mark.mono_ns);
        match self.name {
            SpanName::LlmRequest => {
                let (arrived, token) = (at(Event::Arrived), at(Event::FirstResponseFromCore));
                self.latency(Attr::LatencyE2e, arrived, terminal);
                self.latency(Attr::TimeToFirstToken, arrived, token);
            }
            SpanName::LlmCore => {
                let (queued, scheduled, token) = (at(Event::Queued), at(Event::Scheduled), at(Event::FirstToken));
                let preempted = self.time_preempted();
                self.latency(Attr::TimeInQueue, queued, scheduled);
                self.latency(Attr::TimeInModelPrefill, scheduled, token);
                self.latency(Attr::TimeInModelDecode, token, terminal);
                self.latency(Attr::TimeInModelInference, scheduled, terminal);
                self.latency(Attr::TimePreempted, preempted.map(|_| 0), preempted);
            }
            SpanName::SchedulerStep | SpanName::ModelForward => {}
        }
    }

    /// Sum of the times from PREEMPTED to SCHEDULED, where the sequence was resumed.
    fn time_preempted(&self) -> Option<i64> {
        let (mut since, mut sum) = (None, None);
        for mark in &self.marks {
            match mark.event {
                Event::Preempted => since = Some(mark.mono_ns),
                Event::Scheduled => {
                    if let Some(since) = since.take() {
                        *sum.get_or_insert(0) += mark.mono_ns - since;
                    }
                }
                _ => {}
            }
        }
        sum
    }

    fn latency(&mut self, attr: Attr, from: Option<i64>, to: Option<i64>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.push_derived(attr, seconds(to - from));
        }
    }
}
