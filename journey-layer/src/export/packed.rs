//! Records that wait in a long queue, in a quarter of their room.
//!
//! ```text
//! name │ ids │ parent │ start │ end │ anchor │ dropped │ text │ n, attributes │ n, marks │ n, counters
//! ```
//!
//! Numbers are varints: signed ones zigzag, a time as what lies between it and the one before, counters as those that
//! changed. Names are the schema's discriminants. The text stays as it is, so that the places in it hold.

use journey_schema::{AbortReason, Attr, Event, FinishStatus, Phase, ScheduleKind, SpanName};
use opentelemetry::trace::{SpanId, TraceId};
use smallvec::SmallVec;

use crate::record::{ParentSpan, Rare, Slot, SpanRecord, ValueRef};
use crate::record_event::Mark;
use crate::visitor::PROGRESS;

/// A record of a span that has ended, packed.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    /// As it was: few spans have it, and most of it is other crates' types.
    rare: Option<Box<Rare>>,
    events: u32,
    /// Bytes of the record that it was.
    record_size: u32,
}

// Each has its bits.
const _: () = assert!(Attr::ALL.len() <= 1 << 6 && Event::ALL.len() <= 1 << 4 && PROGRESS.len() < 8);
const _: () = assert!(Phase::ALL.len() < 1 << 2 && ScheduleKind::ALL.len() < 1 << 2);
const _: () = assert!(FinishStatus::ALL.len() < 1 << 4 && AbortReason::ALL.len() < 1 << 4);

const INT: u8 = 0;
const FLOAT: u8 = 1 << 6;
const TEXT: u8 = 2 << 6;

impl Packed {
    /// Packs a record, and leaves it without what is rare.
    pub(crate) fn new(record: &mut SpanRecord) -> Self {
        let mut out = Writer::default();
        out.bytes(&[record.name as u8]);
        out.bytes(&record.trace_id.to_bytes());
        out.bytes(&record.span_id.to_bytes());
        out.bytes(&[record.parent.map_or(0, |parent| 1 + u8::from(parent.is_remote))]);
        if let Some(parent) = record.parent {
            out.bytes(&parent.span_id.to_bytes());
        }
        out.int(record.start_ns);
        out.int(record.end_ns.wrapping_sub(record.start_ns));
        out.int(record.anchor_ns);
        out.uint(u64::from(record.dropped_events));
        out.uint(record.text.len() as u64);
        out.bytes(record.text.as_bytes());
        out.attributes(record);
        out.marks(record);
        out.progress(record);
        Self {
            bytes: Box::from(&out.0[..]),
            events: record.marks.len() as u32,
            record_size: record.size().try_into().unwrap_or(u32::MAX),
            rare: record.rare.take(),
        }
    }

    /// Makes `record` the record that was packed.
    pub(crate) fn unpack(&self, record: &mut SpanRecord) {
        let mut from = Reader(&self.bytes);
        record.clear();
        record.name = SpanName::ALL[usize::from(from.byte())];
        record.trace_id = TraceId::from_bytes(from.array());
        record.span_id = SpanId::from_bytes(from.array());
        record.parent = match from.byte() {
            0 => None,
            some => Some(ParentSpan { span_id: SpanId::from_bytes(from.array()), is_remote: some == 2 }),
        };
        record.start_ns = from.int();
        record.end_ns = record.start_ns.wrapping_add(from.int());
        record.anchor_ns = from.int();
        record.dropped_events = from.uint() as u32;
        let length = from.uint() as usize;
        record.text.push_str(std::str::from_utf8(from.take(length)).expect("it was a text when it was packed"));
        from.attributes(record);
        from.marks(record);
        from.progress(record);
        record.rare.clone_from(&self.rare);
    }

    #[cfg(any(test, feature = "otlp-grpc", feature = "otlp-http"))]
    pub(crate) fn name(&self) -> SpanName {
        SpanName::ALL[usize::from(self.bytes[0])]
    }

    pub(crate) fn events(&self) -> u64 {
        u64::from(self.events)
    }

    /// Bytes of heap that it holds.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.rare.as_ref().map_or(0, |rare| rare.size())
    }

    /// Bytes that it holds as a record.
    pub(crate) fn record_size(&self) -> usize {
        self.record_size as usize
    }
}

/// Writes on the stack what most records need.
#[derive(Default)]
struct Writer(SmallVec<[u8; 512]>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, value: i64) {
        self.uint((value << 1 ^ value >> 63) as u64);
    }

    fn attributes(&mut self, record: &SpanRecord) {
        self.uint(record.attributes.len() as u64);
        for slot in &record.attributes {
            let attr = slot.attr as u8;
            match (slot.range(), record.load(*slot)) {
                (Some(range), _) => {
                    self.bytes(&[TEXT | attr]);
                    self.uint(range.start as u64);
                    self.uint(range.len() as u64);
                }
                (None, ValueRef::Int(value)) => {
                    self.bytes(&[INT | attr]);
                    self.int(value);
                }
                (None, ValueRef::Float(value)) => {
                    self.bytes(&[FLOAT | attr]);
                    self.bytes(&value.to_bits().to_le_bytes());
                }
                (None, ValueRef::Static(_) | ValueRef::Text(_)) => unreachable!("a text has its place"),
            }
        }
    }

    fn marks(&mut self, record: &SpanRecord) {
        self.uint(record.marks.len() as u64);
        let mut before = record.start_ns;
        for mark in &record.marks {
            let phase = mark.phase.map_or(0, |phase| phase as u8 + 1);
            let kind = mark.kind.map_or(0, |kind| kind as u8 + 1);
            let status = mark.status.map_or(0, |status| status as u8 + 1);
            let reason = mark.reason.map_or(0, |reason| reason as u8 + 1);
            self.bytes(&[mark.event as u8 | phase << 4 | kind << 6, status | reason << 4, mark.given]);
            self.int(mark.mono_ns.wrapping_sub(before));
            before = mark.mono_ns;
        }
    }

    fn progress(&mut self, record: &SpanRecord) {
        self.uint(record.progress.len() as u64);
        let mut before = [0; PROGRESS.len()];
        for values in &record.progress {
            let changed = (0..PROGRESS.len()).filter(|index| values[*index] != before[*index]);
            self.bytes(&[changed.clone().fold(0, |bits, index| bits | 1 << index)]);
            changed.for_each(|index| self.int(values[index].wrapping_sub(before[index])));
            before = *values;
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk().expect("what was packed is whole");
        self.0 = rest;
        *taken
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn uint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    fn int(&mut self) -> i64 {
        let value = self.uint();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    fn attributes(&mut self, record: &mut SpanRecord) {
        for _ in 0..self.uint() {
            let byte = self.byte();
            let attr = Attr::ALL[usize::from(byte & 0x3f)];
            record.attributes.push(match byte & !0x3f {
                INT => Slot::int(attr, self.int()),
                FLOAT => Slot::float(attr, f64::from_bits(u64::from_le_bytes(self.array()))),
                _ => {
                    let (from, length) = (self.uint() as usize, self.uint() as usize);
                    Slot::text(attr, from..from + length)
                }
            });
        }
    }

    fn marks(&mut self, record: &mut SpanRecord) {
        let mut before = record.start_ns;
        for _ in 0..self.uint() {
            let [first, second, given] = self.array();
            before = before.wrapping_add(self.int());
            record.marks.push(Mark {
                mono_ns: before,
                event: Event::ALL[usize::from(first & 0xf)],
                given,
                phase: member(Phase::ALL, first >> 4 & 3),
                kind: member(ScheduleKind::ALL, first >> 6),
                status: member(FinishStatus::ALL, second & 0xf),
                reason: member(AbortReason::ALL, second >> 4),
            });
        }
    }

    fn progress(&mut self, record: &mut SpanRecord) {
        let mut values = [0_i64; PROGRESS.len()];
        for _ in 0..self.uint() {
            let changed = self.byte();
            for (index, value) in values.iter_mut().enumerate() {
                if changed & 1 << index != 0 {
                    *value = value.wrapping_add(self.int());
                }
            }
            record.progress.push(values);
        }
    }
}

/// The member whose place is one less; 0 is none.
fn member<T: Copy>(all: &[T], place: u8) -> Option<T> {
    usize::from(place).checked_sub(1).map(|index| all[index])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lifecycle::LiveState;
    use crate::record_samples::record;

    proptest! {
        #[test]
        fn what_is_unpacked_is_what_was_packed(mut records in prop::collection::vec(record(), 1..6)) {
            // One after another into one record, as the exporters do it.
            let mut unpacked = SpanRecord::default();
            for record in &mut records {
                // An ended span has no use for it.
                record.live = LiveState::default();
                let (before, size) = (format!("{record:?}"), record.size());
                let packed = Packed::new(record);
                packed.unpack(&mut unpacked);
                prop_assert_eq!(format!("{unpacked:?}"), before);
                prop_assert_eq!((packed.name(), packed.record_size()), (unpacked.name, size));
                prop_assert_eq!(packed.events(), unpacked.event_count() as u64);
            }
        }
    }

    #[test]
    fn a_core_s_record_takes_a_quarter_of_its_room() {
        let mut record = SpanRecord::default();
        record.begin(SpanName::LlmCore, TraceId::from(u128::MAX), 1_790_000_000_000_000_000);
        record.open(SpanId::from(u64::MAX), 86_400_000_000_000);
        record.set_attribute(Attr::RequestId, ValueRef::Text("cmpl-5f0c1d3e9a7b4c62-0"));
        for step in 0..6 {
            record.marks.push(Mark::new(Event::Scheduled, record.start_ns + step * 20_000_000));
            record.progress.push([1000 + step * 10, 24, 24, 0, step, 16, 0]);
        }
        for attr in SpanName::LlmCore.derived() {
            record.set_attribute(*attr, ValueRef::Float(0.012_345_678));
        }
        let packed = Packed::new(&mut record);
        assert!(packed.size() * 4 < packed.record_size(), "{} of {}", packed.size(), packed.record_size());
    }

    #[test]
    fn the_ends_of_the_numbers_and_the_longest_texts_come_through() {
        let mut record = SpanRecord::new(SpanName::LlmCore, TraceId::from(u128::MAX), SpanId::from(1), i64::MIN, 0);
        (record.end_ns, record.anchor_ns, record.dropped_events) = (i64::MAX, i64::MIN, u32::MAX);
        for value in [i64::MIN, i64::MAX, 0, -1] {
            record.marks.push(Mark::new(Event::Scheduled, value));
            record.progress.push([value; PROGRESS.len()]);
        }
        for attr in Attr::ALL {
            record.set_attribute(*attr, ValueRef::Int(i64::MIN));
        }
        record.set_attribute(Attr::TopP, ValueRef::Float(f64::from_bits(0x7ff8_0000_dead_beef)));
        record.set_attribute(Attr::RequestId, ValueRef::Text(&"ß→🦀".repeat(20_000)));
        let before = format!("{record:?}");
        let mut unpacked = SpanRecord::default();
        Packed::new(&mut record).unpack(&mut unpacked);
        assert_eq!(format!("{unpacked:?}"), before);
    }
}
