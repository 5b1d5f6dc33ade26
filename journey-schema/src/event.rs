//! Lifecycle events, and the order in which they may come.

use crate::scope::Scope;

/// A lifecycle event. Names: [`Event::ident`] and [`Event::wire_name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `api.ARRIVED`
    Arrived,
    /// `api.HANDOFF_TO_CORE`
    HandoffToCore,
    /// `api.FIRST_RESPONSE_FROM_CORE`
    FirstResponseFromCore,
    /// `api.DEPARTED`
    Departed,
    /// `api.ABORTED`
    Aborted,
    /// `journey.QUEUED`
    Queued,
    /// `journey.SCHEDULED`
    Scheduled,
    /// `journey.FIRST_TOKEN`
    FirstToken,
    /// `journey.PREEMPTED`
    Preempted,
    /// `journey.FINISHED`
    Finished,
    /// `step.BATCH_SUMMARY`
    BatchSummary,
    /// `step.REQUEST_SNAPSHOT`
    RequestSnapshot,
}

impl Event {
    /// The scope of the span that owns the event.
    pub const fn scope(self) -> Scope {
        self.span().scope()
    }

    /// The events that may come next on the same span, before "once" and `schedule.kind` are looked at.
    pub const fn successors(self) -> &'static [Event] {
        match self {
            Self::Arrived => &[Self::HandoffToCore, Self::Aborted],
            Self::HandoffToCore => &[Self::FirstResponseFromCore, Self::Aborted],
            Self::FirstResponseFromCore => &[Self::Departed, Self::Aborted],
            Self::Queued => &[Self::Scheduled, Self::Finished],
            Self::Scheduled => &[Self::FirstToken, Self::Preempted, Self::Finished],
            Self::FirstToken => &[Self::Preempted, Self::Finished],
            Self::Preempted => &[Self::Scheduled, Self::Finished],
            Self::Departed | Self::Aborted | Self::Finished => &[],
            Self::BatchSummary | Self::RequestSnapshot => &[Self::BatchSummary, Self::RequestSnapshot],
        }
    }

    /// Whether the event may be the first on its span. A terminal event may: it ends a span at any point.
    pub const fn may_begin(self) -> bool {
        match self {
            Self::Arrived | Self::Queued => true,
            Self::Aborted | Self::Finished => true,
            Self::BatchSummary | Self::RequestSnapshot => true,
            Self::HandoffToCore
            | Self::FirstResponseFromCore
            | Self::Departed
            | Self::Scheduled
            | Self::FirstToken
            | Self::Preempted => false,
        }
    }

    /// Whether the event may stand only once on a span.
    pub const fn is_once(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Preempted | Self::BatchSummary | Self::RequestSnapshot)
    }

    /// All attributes that the event may carry, in the order of the wire.
    pub fn attributes(self) -> impl Iterator<Item = crate::Attr> {
        self.reserved().iter().chain(self.required()).chain(self.optional()).copied()
    }
}
