//! The state machine of one span's events: what is legal, and what can be filled in.

use crate::{Event, Phase, ScheduleKind};

/// Follows the events of one span. The layer runs one per live span; the checker one per exported span.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifecycle {
    last: Option<Event>,
    /// One bit per [`Event`] seen.
    seen: u16,
    preemptions: u32,
}

/// Why an event is illegal where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The span has already had its terminal event.
    AfterTerminal {
        /// That terminal event.
        terminal: Event,
    },
    /// The event stands once, and was seen before.
    Repeated,
    /// The event may not come first.
    NotFirst,
    /// The event may not follow the one before it.
    OutOfOrder {
        /// The event before it.
        after: Event,
    },
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::AfterTerminal { terminal } => write!(f, "after the terminal {}", terminal.ident()),
            Self::Repeated => f.write_str("a second time"),
            Self::NotFirst => f.write_str("as the first event of its span"),
            Self::OutOfOrder { after } => write!(f, "after {}", after.ident()),
        }
    }
}

impl Lifecycle {
    /// A span without events.
    pub const fn new() -> Self {
        Self { last: None, seen: 0, preemptions: 0 }
    }

    /// Takes the next event. An illegal one is taken as well, so that one mistake is reported once.
    ///
    /// # Errors
    /// The first reason why `event` is illegal here. After [`Violation::AfterTerminal`] the state is unchanged.
    #[inline]
    pub fn advance(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(terminal) = self.terminal() {
            return Err(Violation::AfterTerminal { terminal });
        }
        let bit = 1 << event as u16;
        let legal = match self.last {
            _ if ONCE & self.seen & bit != 0 => Err(Violation::Repeated),
            None if MAY_BEGIN & bit == 0 => Err(Violation::NotFirst),
            Some(after) if (ENDING | SUCCESSORS[after as usize]) & bit == 0 => Err(Violation::OutOfOrder { after }),
            _ => Ok(()),
        };
        self.last = Some(event);
        self.seen |= 1 << event as u16;
        self.preemptions += u32::from(event == Event::Preempted);
        legal
    }

    /// Whether `event` was seen.
    #[inline]
    pub const fn has(&self, event: Event) -> bool {
        self.seen & (1 << event as u16) != 0
    }

    /// The terminal event, once there was one.
    #[inline]
    pub fn terminal(&self) -> Option<Event> {
        self.last.filter(|event| TERMINAL & 1 << *event as u16 != 0)
    }

    /// PREEMPTED events seen.
    #[inline]
    pub const fn preemptions(&self) -> u32 {
        self.preemptions
    }

    /// The `schedule.kind` that a SCHEDULED has when it is the next event.
    #[inline]
    pub const fn schedule_kind(&self) -> ScheduleKind {
        if self.has(Event::Scheduled) { ScheduleKind::Resume } else { ScheduleKind::First }
    }

    /// The `phase` after the events seen so far. A preempted sequence keeps the phase it will resume in.
    #[inline]
    pub const fn phase(&self) -> Phase {
        if self.has(Event::FirstToken) {
            Phase::Decode
        } else if self.has(Event::Scheduled) {
            Phase::Prefill
        } else {
            Phase::Waiting
        }
    }
}

impl Event {
    /// Events that may end their span at any point: an abort needs no order.
    const fn is_ending(self) -> bool {
        matches!(self, Self::Aborted | Self::Finished)
    }
}

/// One bit for each of the events that `is` is true of.
macro_rules! bits {
    ($is:ident) => {{
        let (mut bits, mut at) = (0u16, 0);
        while at < Event::ALL.len() {
            bits |= (Event::ALL[at].$is() as u16) << Event::ALL[at] as u16;
            at += 1;
        }
        bits
    }};
}

// The tables of `event.rs` as sets: a request's thread asks them at every event.
const ONCE: u16 = bits!(is_once);
const MAY_BEGIN: u16 = bits!(may_begin);
const ENDING: u16 = bits!(is_ending);
const TERMINAL: u16 = bits!(is_terminal);
const SUCCESSORS: [u16; Event::ALL.len()] = {
    let mut sets = [0; Event::ALL.len()];
    let mut of = 0;
    while of < sets.len() {
        let list = Event::ALL[of].successors();
        let mut at = 0;
        while at < list.len() {
            sets[Event::ALL[of] as usize] |= 1 << list[at] as u16;
            at += 1;
        }
        of += 1;
    }
    sets
};

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[Event]) -> Vec<Option<Violation>> {
        let mut state = Lifecycle::new();
        events.iter().map(|event| state.advance(*event).err()).collect()
    }

    #[test]
    fn a_preempted_sequence_may_resume_any_number_of_times() {
        use Event::*;
        let events =
            [Queued, Scheduled, Preempted, Scheduled, FirstToken, Preempted, Scheduled, Preempted, Scheduled, Finished];
        assert!(run(&events).iter().all(Option::is_none));
    }

    #[test]
    fn a_terminal_event_may_come_at_any_point_and_nothing_follows_it() {
        use Event::*;
        assert_eq!(run(&[Aborted]), [None]);
        assert_eq!(run(&[Queued, Finished]), [None, None]);
        assert_eq!(
            run(&[Queued, Finished, Finished]),
            [None, None, Some(Violation::AfterTerminal { terminal: Finished })]
        );
        assert_eq!(
            run(&[Arrived, Departed]),
            [None, Some(Violation::OutOfOrder { after: Arrived })],
            "DEPARTED is no abort: it has its place"
        );
    }

    #[test]
    fn first_token_comes_once_and_only_while_running() {
        use Event::*;
        assert_eq!(run(&[Queued, FirstToken])[1], Some(Violation::OutOfOrder { after: Queued }));
        assert_eq!(run(&[Queued, Scheduled, FirstToken, FirstToken])[3], Some(Violation::Repeated));
        assert_eq!(run(&[FirstToken])[0], Some(Violation::NotFirst));
    }

    #[test]
    fn what_is_not_given_follows_from_the_events() {
        use Event::*;
        let mut state = Lifecycle::new();
        assert_eq!((state.phase(), state.schedule_kind()), (Phase::Waiting, ScheduleKind::First));
        for event in [Queued, Scheduled] {
            state.advance(event).unwrap();
        }
        assert_eq!((state.phase(), state.schedule_kind()), (Phase::Prefill, ScheduleKind::Resume));
        for event in [FirstToken, Preempted] {
            state.advance(event).unwrap();
        }
        assert_eq!((state.phase(), state.preemptions()), (Phase::Decode, 1));
    }
}
