//! The typed record of one span, from its creation to its export: what the layer hands to a sink.
//!
//! ```text
//! SpanRecord ─┬─ attributes ─► [Slot]                    the span's own, 16 bytes each
//!             ├─ marks ──────► [Mark]                    one per event, 16 bytes: which, when, its few-valued attributes
//!             ├─ progress ───► [[i64; 7]]                one per event of `llm_core`: the counters
//!             ├─ text ───────► "chatcmpl-1…"             every string that is not 'static
//!             └─ rare ───────► links, trace state, error text, attributes of events that have no place above
//! ```
//!
//! An event is kept as what was said, and becomes attributes only where a sink reads it
//! ([`EventView::each`](crate::record_event::EventView::each)): names, clock readings in three forms and texts of
//! enumerations take no memory and no time on a request's thread.

use std::fmt::{self, Write};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use journey_schema::{Attr, SpanName};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::emit::Problem;
use crate::lifecycle::LiveState;
use crate::record_event::{EventView, Mark, Other};
use crate::record_room::COMPACT_AT;
use crate::visitor::PROGRESS;

/// A value as a sink reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ValueRef<'a> {
    Int(i64),
    Float(f64),
    Static(&'static str),
    Text(&'a str),
}

impl<'a> ValueRef<'a> {
    pub(crate) fn to_owned(self) -> OwnedValue {
        match self {
            Self::Int(value) => OwnedValue::Int(value),
            Self::Float(value) => OwnedValue::Float(value),
            Self::Static(text) => OwnedValue::Text(text.into()),
            Self::Text(text) => OwnedValue::Text(text.into()),
        }
    }

    /// The text of a string value.
    pub(crate) fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::Static(text) => Some(text),
            Self::Text(text) => Some(text),
            Self::Int(_) | Self::Float(_) => None,
        }
    }
}

/// A value on its own, while no record is at hand.
#[derive(Clone, Debug)]
pub(crate) enum OwnedValue {
    Int(i64),
    Float(f64),
    Text(Box<str>),
}

impl OwnedValue {
    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Text(text) => ValueRef::Text(text),
        }
    }
}

/// What the payload of a [`Slot`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Int,
    Float,
    /// Where its text begins and ends in the record's buffer, 32 bits each.
    Text,
}

/// An attribute with its value, its text still inside the record's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    payload: u64,
    pub(crate) attr: Attr,
    tag: Tag,
}

impl Slot {
    pub(crate) fn int(attr: Attr, value: i64) -> Self {
        Self { payload: value as u64, attr, tag: Tag::Int }
    }

    pub(crate) fn float(attr: Attr, value: f64) -> Self {
        Self { payload: value.to_bits(), attr, tag: Tag::Float }
    }

    pub(crate) fn text(attr: Attr, range: Range<usize>) -> Self {
        Self { payload: (range.start as u64) << 32 | range.end as u64, attr, tag: Tag::Text }
    }

    /// Where a text stands in the record's buffer.
    pub(crate) fn range(self) -> Option<Range<usize>> {
        (self.tag == Tag::Text).then(|| self.bounds())
    }

    fn bounds(self) -> Range<usize> {
        (self.payload >> 32) as usize..(self.payload & u64::from(u32::MAX)) as usize
    }
}

/// Where a span's parent lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParentSpan {
    pub(crate) span_id: SpanId,
    pub(crate) is_remote: bool,
}

/// What most spans do not have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    pub(crate) trace_state: TraceState,
    pub(crate) links: Vec<SpanContext>,
    /// The text of status ERROR.
    pub(crate) error: Option<String>,
    /// Attributes of events beyond those that [`Mark`] and the counters hold; in the order of the events.
    pub(crate) others: Vec<Other>,
}

/// One span, from its creation to its export.
#[derive(Debug)]
pub(crate) struct SpanRecord {
    pub(crate) name: SpanName,
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) parent: Option<ParentSpan>,
    /// Monotonic clock, nanoseconds; add [`Self::anchor_ns`] for Unix time.
    pub(crate) start_ns: i64,
    /// Monotonic clock, nanoseconds; the terminal event's reading where there was one.
    pub(crate) end_ns: i64,
    /// Wall clock minus monotonic clock when the journey began. One anchor per journey: its times never step back.
    pub(crate) anchor_ns: i64,
    /// Events that the limit did not let in (`droppedEventsCount`).
    pub(crate) dropped_events: u32,
    /// What only an open span needs.
    pub(crate) live: LiveState,
    pub(crate) attributes: Vec<Slot>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) progress: Vec<[i64; PROGRESS.len()]>,
    pub(crate) text: String,
    pub(crate) rare: Option<Box<Rare>>,
}

impl Default for SpanRecord {
    /// An empty record; [`Self::begin`] makes room.
    fn default() -> Self {
        Self {
            name: SpanName::LlmRequest,
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
            parent: None,
            start_ns: 0,
            end_ns: 0,
            anchor_ns: 0,
            dropped_events: 0,
            live: LiveState::default(),
            attributes: Vec::new(),
            marks: Vec::new(),
            progress: Vec::new(),
            text: String::new(),
            rare: None,
        }
    }
}

impl SpanRecord {
    #[cfg(test)]
    pub(crate) fn new(name: SpanName, trace_id: TraceId, span_id: SpanId, start_ns: i64, anchor_ns: i64) -> Self {
        let mut record = Self::default();
        record.begin(name, trace_id, anchor_ns);
        record.open(span_id, start_ns);
        record
    }

    /// Makes an empty record one of a span of this name, with room for the usual number of events.
    pub(crate) fn begin(&mut self, name: SpanName, trace_id: TraceId, anchor_ns: i64) {
        self.name = name;
        self.trace_id = trace_id;
        self.anchor_ns = anchor_ns;
        // Empty: only a record that is new or was used for the other kind of span grows here.
        match name {
            SpanName::LlmRequest => {
                self.attributes.reserve(10);
                self.marks.reserve(4);
                self.text.reserve(64);
            }
            SpanName::LlmCore => {
                self.attributes.reserve(6);
                self.marks.reserve(8);
                self.progress.reserve(8);
                self.text.reserve(64);
            }
            SpanName::SchedulerStep | SpanName::ModelForward => {}
        }
    }

    /// The span begins.
    pub(crate) fn open(&mut self, span_id: SpanId, start_ns: i64) {
        self.span_id = span_id;
        self.start_ns = start_ns;
        self.end_ns = start_ns;
    }

    /// Notes what is to be told of an attribute when the span is opened.
    #[cold]
    pub(crate) fn problem(&mut self, problem: Problem) {
        self.live.opening.get_or_insert_default().problems.push(problem);
    }

    /// Empties the record and keeps its buffers.
    pub(crate) fn clear(&mut self) {
        self.parent = None;
        self.dropped_events = 0;
        self.live = LiveState::default();
        self.attributes.clear();
        self.marks.clear();
        self.progress.clear();
        self.text.clear();
        self.rare = None;
    }

    /// The span's context as its children see it.
    pub(crate) fn context(&self) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, TraceFlags::SAMPLED, false, self.trace_state().clone())
    }

    pub(crate) fn trace_state(&self) -> &TraceState {
        self.rare.as_ref().map_or(&TraceState::NONE, |rare| &rare.trace_state)
    }

    pub(crate) fn set_trace_state(&mut self, state: &TraceState) {
        if *state != TraceState::NONE {
            self.rare().trace_state = state.clone();
        }
    }

    pub(crate) fn links(&self) -> &[SpanContext] {
        self.rare.as_ref().map_or(&[], |rare| &rare.links)
    }

    pub(crate) fn push_link(&mut self, context: SpanContext) {
        self.rare().links.push(context);
    }

    /// The text of status ERROR; without one the status is UNSET (`Ok` is never set by instrumentation: trace
    /// specification, "Set Status").
    pub(crate) fn error(&self) -> Option<&str> {
        self.rare.as_ref()?.error.as_deref()
    }

    pub(crate) fn set_error(&mut self, text: impl Into<String>) {
        self.rare().error = Some(text.into());
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn start_time(&self) -> SystemTime {
        system_time(self.start_ns + self.anchor_ns)
    }

    pub(crate) fn end_time(&self) -> SystemTime {
        system_time(self.end_ns + self.anchor_ns)
    }

    /// Sets a span attribute; a second value for the same key replaces the first.
    pub(crate) fn set_attribute(&mut self, attr: Attr, value: ValueRef<'_>) {
        let slot = self.store(attr, value);
        self.put(slot);
    }

    #[inline]
    pub(crate) fn put(&mut self, new: Slot) {
        match self.attributes.iter_mut().find(|slot| slot.attr == new.attr) {
            Some(slot) => {
                *slot = new;
                if self.text.len() > COMPACT_AT {
                    self.compact();
                }
            }
            None => self.attributes.push(new),
        }
    }

    /// Appends an attribute that the record does not have.
    #[inline]
    pub(crate) fn push_attribute(&mut self, attr: Attr, value: ValueRef<'_>) {
        debug_assert!(self.attribute(attr).is_none(), "{attr:?} a second time");
        let slot = self.store(attr, value);
        self.attributes.push(slot);
    }

    /// Appends an attribute that only the layer sets, and sets once.
    pub(crate) fn push_derived(&mut self, attr: Attr, value: f64) {
        self.attributes.push(Slot::float(attr, value));
    }

    /// Sets a span attribute to what `value` prints, cut after `limit` bytes. Returns whether it was cut.
    pub(crate) fn set_attribute_fmt(&mut self, attr: Attr, value: &dyn fmt::Debug, limit: usize) -> bool {
        let from = self.text.len();
        let mut writer = Bounded { text: &mut self.text, end: from.saturating_add(limit), cut: false };
        // A `Debug` that fails has printed what it could.
        let _ = write!(writer, "{value:?}");
        let cut = writer.cut;
        self.put(Slot::text(attr, from..self.text.len()));
        cut
    }

    pub(crate) fn attribute(&self, attr: Attr) -> Option<ValueRef<'_>> {
        self.attributes.iter().find(|slot| slot.attr == attr).map(|slot| self.load(*slot))
    }

    /// The span's own attributes, in the order in which they were first set.
    pub(crate) fn attributes(&self) -> impl ExactSizeIterator<Item = (Attr, ValueRef<'_>)> + DoubleEndedIterator {
        self.attributes.iter().map(|slot| (slot.attr, self.load(*slot)))
    }

    /// The events, in the order in which they were emitted.
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = EventView<'_>> + DoubleEndedIterator {
        (0..self.marks.len()).map(|index| EventView { record: self, index })
    }

    /// How many events there are.
    pub(crate) fn event_count(&self) -> usize {
        self.marks.len()
    }

    /// Adds attributes to the latest event.
    #[cold]
    pub(crate) fn push_others(&mut self, others: &[(Attr, OwnedValue)]) {
        let event = self.marks.len() as u32 - 1;
        for (attr, value) in others {
            let slot = self.store(*attr, value.as_ref());
            self.rare().others.push(Other { event, slot });
        }
    }

    fn store(&mut self, attr: Attr, value: ValueRef<'_>) -> Slot {
        match value {
            ValueRef::Int(value) => Slot::int(attr, value),
            ValueRef::Float(value) => Slot::float(attr, value),
            ValueRef::Static(text) | ValueRef::Text(text) => {
                let from = self.text.len();
                self.text.push_str(text);
                Slot::text(attr, from..self.text.len())
            }
        }
    }

    pub(crate) fn load(&self, slot: Slot) -> ValueRef<'_> {
        match slot.tag {
            Tag::Int => ValueRef::Int(slot.payload as i64),
            Tag::Float => ValueRef::Float(f64::from_bits(slot.payload)),
            Tag::Text => ValueRef::Text(&self.text[slot.bounds()]),
        }
    }
}

/// Appends to `text` up to the byte `end`, at a character's border; takes and forgets the rest.
pub(crate) struct Bounded<'a> {
    pub(crate) text: &'a mut String,
    pub(crate) end: usize,
    pub(crate) cut: bool,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let kept = if self.cut { "" } else { truncate(part, self.end - self.text.len()) };
        self.text.push_str(kept);
        self.cut |= kept.len() < part.len();
        Ok(())
    }
}

/// The longest prefix of `text` that has at most `limit` bytes and ends at a character's border.
pub(crate) fn truncate(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

fn system_time(unix_ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns.max(0) as u64)
}

// The target of 2,560 bytes for a live journey rests on these.
const _: () = assert!(size_of::<Slot>() == 16 && size_of::<Mark>() == 16 && size_of::<SpanRecord>() <= 224);
