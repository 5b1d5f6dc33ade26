//! How much memory a record takes, and how that is kept bounded.

use opentelemetry::trace::{SpanContext, TraceState};

use crate::propagation::MAX_TRACESTATE;
use crate::record::{Rare, Slot, SpanRecord};
use crate::record_event::{Mark, Other};
use crate::visitor::PROGRESS;

/// Below this many bytes of text, what replaced values leave behind is not worth a look.
pub(crate) const COMPACT_AT: usize = 64 << 10;

impl SpanRecord {
    /// Bytes of heap and struct that the record holds, for bounds in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + self.attributes.capacity() * size_of::<Slot>()
            + self.marks.capacity() * size_of::<Mark>()
            + self.progress.capacity() * size_of::<[i64; PROGRESS.len()]>()
            + self.text.capacity()
            + self.rare.as_ref().map_or(0, |rare| rare.size())
    }

    /// Forgets texts that were replaced, where they are most of all: an attribute that is set for ever takes a bounded room.
    #[cold]
    pub(crate) fn compact(&mut self) {
        let others = self.rare.iter_mut().flat_map(|rare| rare.others.iter_mut().map(|other| &mut other.slot));
        let mut slots: Vec<_> =
            self.attributes.iter_mut().chain(others).filter(|slot| slot.range().is_some()).collect();
        let live: usize = slots.iter().filter_map(|slot| slot.range()).map(|range| range.len()).sum();
        if self.text.len() <= 2 * live {
            return;
        }
        let mut text = String::with_capacity(live);
        for slot in &mut slots {
            let from = text.len();
            text.push_str(&self.text[slot.range().expect("the others were left out")]);
            **slot = Slot::text(slot.attr, from..text.len());
        }
        self.text = text;
    }
}

impl Rare {
    /// Bytes of heap and struct that it holds.
    pub(crate) fn size(&self) -> usize {
        // As long as a trace state may be: how long this one is, only a copy would tell.
        let state = |state: &TraceState| if *state == TraceState::NONE { 0 } else { MAX_TRACESTATE };
        size_of::<Self>()
            + state(&self.trace_state)
            + self.links.capacity() * size_of::<SpanContext>()
            + self.links.iter().map(|link| state(link.trace_state())).sum::<usize>()
            + self.others.capacity() * size_of::<Other>()
            + self.error.as_ref().map_or(0, String::capacity)
    }
}

#[cfg(test)]
mod tests {
    use journey_schema::{Attr, Event};

    use super::*;
    use crate::record::{OwnedValue, ValueRef};

    #[test]
    fn an_attribute_that_is_set_again_and_again_takes_a_bounded_room() {
        let mut record = SpanRecord::default();
        record.set_attribute(Attr::RequestId, ValueRef::Text("cmpl-1"));
        record.marks.push(Mark::new(Event::Aborted, 0));
        record.push_others(&[(Attr::Error, OwnedValue::Text("gone".into()))]);
        for round in 0..10_000 {
            let model = format!("{round}-{}", "x".repeat(4000));
            record.set_attribute(Attr::ResponseModel, ValueRef::Text(&model));
            record.set_attribute_fmt(Attr::HttpRoute, &format_args!("/{round}"), 4096);
            assert_eq!(record.attribute(Attr::ResponseModel), Some(ValueRef::Text(&model)));
        }
        assert!(record.size() < 3 * COMPACT_AT, "{}", record.size());
        assert_eq!(record.attribute(Attr::RequestId), Some(ValueRef::Text("cmpl-1")));
        assert_eq!(record.attribute(Attr::HttpRoute), Some(ValueRef::Text("/9999")));
        let error = record.rare.as_ref().map(|rare| record.load(rare.others[0].slot));
        assert_eq!(error, Some(ValueRef::Text("gone")));
    }
}
