//! The events of a record: how they are kept, and what they are as attributes.

use std::time::{Duration, SystemTime};

use journey_schema::{AbortReason, Attr, Event, FinishStatus, Phase, ScheduleKind, SpanName};

use crate::record::{Slot, SpanRecord, ValueRef};
use crate::visitor::PROGRESS;

/// One event: which, when, and those of its attributes that have few values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Monotonic clock, nanoseconds.
    pub(crate) mono_ns: i64,
    pub(crate) event: Event,
    /// One bit per counter that is known, by position in [`PROGRESS`].
    pub(crate) given: u8,
    pub(crate) phase: Option<Phase>,
    pub(crate) kind: Option<ScheduleKind>,
    pub(crate) status: Option<FinishStatus>,
    pub(crate) reason: Option<AbortReason>,
}

impl Mark {
    pub(crate) fn new(event: Event, mono_ns: i64) -> Self {
        Self { mono_ns, event, given: 0, phase: None, kind: None, status: None, reason: None }
    }
}

/// An attribute of the event with this index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Other {
    pub(crate) event: u32,
    pub(crate) slot: Slot,
}

/// An event of a record, as a sink reads it.
#[derive(Clone, Copy)]
pub(crate) struct EventView<'a> {
    pub(crate) record: &'a SpanRecord,
    pub(crate) index: usize,
}

impl<'a> EventView<'a> {
    pub(crate) fn mark(&self) -> &'a Mark {
        &self.record.marks[self.index]
    }

    pub(crate) fn event(&self) -> Event {
        self.mark().event
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn unix_ns(&self) -> u64 {
        (self.mark().mono_ns + self.record.anchor_ns).max(0) as u64
    }

    pub(crate) fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.unix_ns())
    }

    /// The counters, where it is an event of `llm_core`.
    pub(crate) fn progress(&self) -> &'a [i64; PROGRESS.len()] {
        &self.record.progress[self.index]
    }

    /// How many attributes there are.
    pub(crate) fn len(&self) -> usize {
        let mark = self.mark();
        let few = [mark.kind.is_some(), mark.status.is_some(), mark.reason.is_some(), mark.phase.is_some()];
        let own = match mark.event.span() {
            SpanName::LlmRequest => 1,
            SpanName::LlmCore => 3 + mark.given.count_ones() as usize,
            SpanName::SchedulerStep | SpanName::ModelForward => 0,
        };
        own + few.into_iter().filter(|has| *has).count() + self.others().len()
    }

    /// Shows the attributes, in the order of the wire.
    pub(crate) fn each(&self, mut show: impl FnMut(Attr, ValueRef<'a>)) {
        let mark = self.mark();
        match mark.event.span() {
            SpanName::LlmRequest => {
                show(Attr::ApiTsMonotonic, ValueRef::Float(seconds(mark.mono_ns)));
                if let Some(reason) = mark.reason {
                    show(Attr::Reason, ValueRef::Static(reason.as_str()));
                }
            }
            SpanName::LlmCore => {
                show(Attr::EventType, ValueRef::Static(mark.event.ident()));
                show(Attr::TsMonotonic, ValueRef::Float(seconds(mark.mono_ns)));
                show(Attr::TsMonotonicNs, ValueRef::Int(mark.mono_ns));
                for (index, (attr, value)) in PROGRESS.iter().zip(self.progress()).enumerate() {
                    if mark.given & 1 << index != 0 {
                        show(*attr, ValueRef::Int(*value));
                    }
                    // `phase` stands behind the step.
                    if index == 0
                        && let Some(phase) = mark.phase
                    {
                        show(Attr::Phase, ValueRef::Static(phase.as_str()));
                    }
                }
                if let Some(kind) = mark.kind {
                    show(Attr::ScheduleKind, ValueRef::Static(kind.as_str()));
                }
                if let Some(status) = mark.status {
                    show(Attr::FinishStatus, ValueRef::Static(status.as_str()));
                }
            }
            SpanName::SchedulerStep | SpanName::ModelForward => {}
        }
        for (attr, value) in self.others() {
            show(attr, value);
        }
    }

    /// The attributes that neither the mark nor the counters hold.
    pub(crate) fn others(&self) -> impl ExactSizeIterator<Item = (Attr, ValueRef<'a>)> + DoubleEndedIterator + use<'a> {
        let record = self.record;
        let all = record.rare.as_ref().map_or(&[][..], |rare| &rare.others);
        let from = all.partition_point(|other| (other.event as usize) < self.index);
        let to = all.partition_point(|other| other.event as usize <= self.index);
        all[from..to].iter().map(move |other| (other.slot.attr, record.load(other.slot)))
    }
}

/// `ns` as the attributes that hold seconds have it.
pub(crate) fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}
