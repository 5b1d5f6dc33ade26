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
    /// The text of a string value.
    pub(crate) fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::Static(text) => Some(text),
            Self::Text(text) => Some(text),
            Self::Int(_) | Self::Float(_) => None,
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

impl SpanRecord {
    pub(crate) fn new(name: SpanName, trace_id: TraceId, span_id: SpanId, start_ns: i64, anchor_ns: i64) -> Self {
        Self {
            name,
            trace_id,
            span_id,
            parent: None,
            trace_state: TraceState::NONE,
            start_ns,
            end_ns: start_ns,
            anchor_ns,
            status: SpanStatus::Unset,
            links: Vec::new(),
            dropped_events: 0,
            attributes: Vec::with_capacity(12),
            events: Vec::with_capacity(6),
            event_attributes: Vec::with_capacity(64),
            text: String::with_capacity(64),
        }
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
        match self.attributes.iter_mut().find(|(key, _)| *key == attr) {
            Some(slot) => slot.1 = value,
            None => self.attributes.push((attr, value)),
        }
    }

    pub(crate) fn attribute(&self, attr: Attr) -> Option<ValueRef<'_>> {
        self.attributes.iter().find(|(key, _)| *key == attr).map(|(_, value)| self.load(value))
    }

    /// The span's own attributes, in the order in which they were first set.
    pub(crate) fn attributes(&self) -> impl ExactSizeIterator<Item = (Attr, ValueRef<'_>)> {
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
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = EventView<'_>> {
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

    pub(crate) fn time(&self) -> SystemTime {
        system_time(self.inner.mono_ns + self.record.anchor_ns)
    }

    pub(crate) fn attributes(&self) -> impl ExactSizeIterator<Item = (Attr, ValueRef<'a>)> + use<'a> {
        let record = self.record;
        let range = self.inner.attributes.start as usize..self.inner.attributes.end as usize;
        record.event_attributes[range].iter().map(move |(key, value)| (*key, record.load(value)))
    }
}

fn system_time(unix_ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns.max(0) as u64)
}
