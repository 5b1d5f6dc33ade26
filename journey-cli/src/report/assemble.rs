//! Puts journeys together from spans in any order, in bounded memory.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use journey_schema::SpanName;

use crate::journey::{Journey, Request, Sequence, journey_of};
use crate::model::{Name, Span, SpanRef};

/// Complete journeys wait for this many more, in case there is one more sequence than `gen_ai.request.n` says.
const GRACE: usize = 4_096;

/// Journeys whose spans are not all here yet.
#[derive(Debug)]
pub(super) struct Assembler {
    open: HashMap<SpanRef, Journey, RandomState>,
    /// Keys in the order in which they were first seen; those already closed are skipped.
    order: VecDeque<SpanRef>,
    complete: VecDeque<SpanRef>,
    limit: usize,
    /// Journeys that had to be closed before they were complete.
    pub(super) evicted: u64,
}

impl Assembler {
    /// At most about `limit` journeys are kept open.
    pub(super) fn new(limit: usize) -> Self {
        Self { open: HashMap::default(), order: VecDeque::new(), complete: VecDeque::new(), limit, evicted: 0 }
    }

    /// Adds a span; hands journeys that are closed to `closed`. `false` if the span is part of no journey.
    pub(super) fn add(&mut self, span: &Span, closed: &mut dyn FnMut(Journey)) -> bool {
        let Some(id) = journey_of(span) else { return false };
        let journey = self.open.entry(id).or_insert_with(|| {
            self.order.push_back(id);
            Journey::new(id)
        });
        if span.name == Name::Known(SpanName::LlmRequest) {
            journey.request = Some(Request::from_span(span));
        } else {
            let sequence = Sequence::from_span(span);
            // The same span exported twice is one sequence.
            if journey.sequences.iter().all(|other| other.span_id != sequence.span_id) {
                journey.sequences.push(sequence);
            }
        }
        if journey.is_complete() {
            self.complete.push_back(id);
        }
        if self.complete.len() > GRACE
            && let Some(journey) = self.complete.pop_front().and_then(|id| self.open.remove(&id))
        {
            closed(journey);
        }
        while self.open.len() > self.limit {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(journey) = self.open.remove(&oldest) {
                self.evicted += u64::from(!journey.is_complete());
                closed(journey);
            }
        }
        // Closed keys would otherwise pile up behind a journey that stays open.
        if self.order.len() > 2 * self.limit.max(GRACE) {
            self.order.retain(|id| self.open.contains_key(id));
        }
        true
    }

    /// Closes what is left, in the order of the input.
    pub(super) fn finish(&mut self, closed: &mut dyn FnMut(Journey)) {
        for id in std::mem::take(&mut self.order) {
            if let Some(journey) = self.open.remove(&id) {
                closed(journey);
            }
        }
    }
}
