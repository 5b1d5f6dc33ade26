//! The finished, typed record of one span: what the layer hands to a sink.
//!
//! ```text
//! SpanRecord ─┬─ attributes ───────► [(Attr, Value)]            the span's own
//!             ├─ events ───────────► [EventRecord { from..to }] ranges of
//!             ├─ event_attributes ─► [(Attr, Value)]            all events' attributes, in one buffer
//!             └─ text ─────────────► "chatcmpl-1…"              every string that is not 'static
//! ```
//!
//! Attributes of all events lie in one buffer and their strings in another, so that a record is a handful of
//! allocations however many events it has.

use std::fmt::{self, Write};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use journey_schema::{Attr, Event, SpanName};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A value, with its text still inside the record's buffer.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(i64),
    Float(f64),
    Static(&'static str),
    Text(Range<u32>),
}

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

/// Where a span's parent lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParentSpan {
    pub(crate) span_id: SpanId,
    pub(crate) is_remote: bool,
}

/// The status a span ends with; `Ok` is never set by instrumentation (trace specification, "Set Status").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SpanStatus {
    #[default]
    Unset,
    Error(String),
}

#[derive(Clone, Debug)]
struct EventRecord {
    event: Event,
    mono_ns: i64,
    attributes: Range<u32>,
}

/// One span, from its creation to its export.
#[derive(Debug)]
pub(crate) struct SpanRecord {
    pub(crate) name: SpanName,
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) parent: Option<ParentSpan>,
    pub(crate) trace_state: TraceState,
    /// Monotonic clock, nanoseconds; add [`Self::anchor_ns`] for Unix time.
    pub(crate) start_ns: i64,
    /// Monotonic clock, nanoseconds; the terminal event's reading where there was one.
    pub(crate) end_ns: i64,
    /// Wall clock minus monotonic clock when the journey began. One anchor per journey: its times never step back.
    pub(crate) anchor_ns: i64,
    pub(crate) status: SpanStatus,
    pub(crate) links: Vec<SpanContext>,
    /// Events that the limit did not let in (`droppedEventsCount`).
    pub(crate) dropped_events: u32,
    attributes: Vec<(Attr, Value)>,
    events: Vec<EventRecord>,
    event_attributes: Vec<(Attr, Value)>,
    text: String,
}

/// An event of a record, as a sink reads it.
#[derive(Clone, Copy)]
pub(crate) struct EventView<'a> {
    record: &'a SpanRecord,
    inner: &'a EventRecord,
}

impl Default for SpanRecord {
    /// An empty record, with room for a journey of the usual length.
    fn default() -> Self {
        Self {
            name: SpanName::LlmRequest,
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
            parent: None,
            trace_state: TraceState::NONE,
            start_ns: 0,
            end_ns: 0,
            anchor_ns: 0,
            status: SpanStatus::Unset,
            links: Vec::new(),
            dropped_events: 0,
            attributes: Vec::with_capacity(12),
            events: Vec::with_capacity(8),
            event_attributes: Vec::with_capacity(80),
            text: String::with_capacity(64),
        }
    }
}

impl SpanRecord {
    pub(crate) fn new(name: SpanName, trace_id: TraceId, span_id: SpanId, start_ns: i64, anchor_ns: i64) -> Self {
        let mut record = Self::default();
        record.begin(name, trace_id, span_id, start_ns, anchor_ns);
        record
    }

    /// Makes an empty record one of a span that begins at `start_ns`.
    pub(crate) fn begin(&mut self, name: SpanName, trace_id: TraceId, span_id: SpanId, start_ns: i64, anchor_ns: i64) {
        self.name = name;
        self.trace_id = trace_id;
        self.span_id = span_id;
        self.start_ns = start_ns;
        self.end_ns = start_ns;
        self.anchor_ns = anchor_ns;
    }

    /// Empties the record and keeps its buffers.
    pub(crate) fn clear(&mut self) {
        self.parent = None;
        self.trace_state = TraceState::NONE;
        self.status = SpanStatus::Unset;
        self.links.clear();
        self.dropped_events = 0;
        self.attributes.clear();
        self.events.clear();
        self.event_attributes.clear();
        self.text.clear();
    }

    /// The span's context as its children see it.
    pub(crate) fn context(&self) -> SpanContext {
        SpanContext::new(self.trace_id, self.span_id, TraceFlags::SAMPLED, false, self.trace_state.clone())
    }

    pub(crate) fn start_time(&self) -> SystemTime {
        system_time(self.start_ns + self.anchor_ns)
    }

    pub(crate) fn end_time(&self) -> SystemTime {
        system_time(self.end_ns + self.anchor_ns)
    }

    /// Sets a span attribute; a second value for the same key replaces the first.
    pub(crate) fn set_attribute(&mut self, attr: Attr, value: ValueRef<'_>) {
        let value = self.store(value);
        self.put(attr, value);
    }

    fn put(&mut self, attr: Attr, value: Value) {
        match self.attributes.iter_mut().find(|(key, _)| *key == attr) {
            Some(slot) => slot.1 = value,
            None => self.attributes.push((attr, value)),
        }
    }

    /// Sets a span attribute to what `value` prints, cut after `limit` bytes. Returns whether it was cut.
    pub(crate) fn set_attribute_fmt(&mut self, attr: Attr, value: &dyn fmt::Debug, limit: usize) -> bool {
        let from = self.text.len();
        let mut writer = Bounded { text: &mut self.text, end: from + limit, cut: false };
        // A `Debug` that fails has printed what it could.
        let _ = write!(writer, "{value:?}");
        let cut = writer.cut;
        let value = Value::Text(from as u32..self.text.len() as u32);
        self.put(attr, value);
        cut
    }

    pub(crate) fn attribute(&self, attr: Attr) -> Option<ValueRef<'_>> {
        self.attributes.iter().find(|(key, _)| *key == attr).map(|(_, value)| self.load(value))
    }

    /// The span's own attributes, in the order in which they were first set.
    pub(crate) fn attributes(&self) -> impl ExactSizeIterator<Item = (Attr, ValueRef<'_>)> + DoubleEndedIterator {
        self.attributes.iter().map(|(key, value)| (*key, self.load(value)))
    }

    /// Appends an event.
    pub(crate) fn push_event<'a>(
        &mut self,
        event: Event,
        mono_ns: i64,
        attributes: impl IntoIterator<Item = (Attr, ValueRef<'a>)>,
    ) {
        let from = self.event_attributes.len() as u32;
        for (attr, value) in attributes {
            let value = self.store(value);
            self.event_attributes.push((attr, value));
        }
        let to = self.event_attributes.len() as u32;
        self.events.push(EventRecord { event, mono_ns, attributes: from..to });
    }

    /// The events, in the order in which they were emitted.
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = EventView<'_>> + DoubleEndedIterator {
        self.events.iter().map(|inner| EventView { record: self, inner })
    }

    /// Bytes of heap and struct that the record holds, for bounds in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + self.attributes.capacity() * size_of::<(Attr, Value)>()
            + self.event_attributes.capacity() * size_of::<(Attr, Value)>()
            + self.events.capacity() * size_of::<EventRecord>()
            + self.text.capacity()
            + self.links.capacity() * size_of::<SpanContext>()
    }

    fn store(&mut self, value: ValueRef<'_>) -> Value {
        match value {
            ValueRef::Int(value) => Value::Int(value),
            ValueRef::Float(value) => Value::Float(value),
            ValueRef::Static(text) => Value::Static(text),
            ValueRef::Text(text) => {
                let from = self.text.len() as u32;
                self.text.push_str(text);
                Value::Text(from..self.text.len() as u32)
            }
        }
    }

    fn load(&self, value: &Value) -> ValueRef<'_> {
        match value {
            Value::Int(value) => ValueRef::Int(*value),
            Value::Float(value) => ValueRef::Float(*value),
            Value::Static(text) => ValueRef::Static(text),
            Value::Text(range) => ValueRef::Text(&self.text[range.start as usize..range.end as usize]),
        }
    }
}

impl<'a> EventView<'a> {
    pub(crate) fn event(&self) -> Event {
        self.inner.event
    }

    /// Monotonic clock, nanoseconds.
    pub(crate) fn mono_ns(&self) -> i64 {
        self.inner.mono_ns
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn unix_ns(&self) -> u64 {
        (self.inner.mono_ns + self.record.anchor_ns).max(0) as u64
    }

    pub(crate) fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.unix_ns())
    }

    pub(crate) fn attributes(
        &self,
    ) -> impl ExactSizeIterator<Item = (Attr, ValueRef<'a>)> + DoubleEndedIterator + use<'a> {
        let record = self.record;
        let range = self.inner.attributes.start as usize..self.inner.attributes.end as usize;
        record.event_attributes[range].iter().map(move |(key, value)| (*key, record.load(value)))
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
