//! A finished span as the tools see it, whatever format it was read from.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use journey_schema::{Attr, Event as EventKind, SpanName};

/// A W3C trace id; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub u128);

/// A W3C span id; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one span in all traces. A client may put several requests into one trace, so a trace id alone does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanRef {
    /// Trace of the span.
    pub trace_id: TraceId,
    /// The span in that trace.
    pub span_id: SpanId,
}

impl fmt::Display for SpanRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.trace_id, self.span_id)
    }
}

impl FromStr for SpanRef {
    type Err = ParseIntError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (trace_id, span_id) = text.split_once('-').unwrap_or((text, ""));
        Ok(Self {
            trace_id: TraceId(u128::from_str_radix(trace_id, 16)?),
            span_id: SpanId(u64::from_str_radix(span_id, 16)?),
        })
    }
}

/// A name that the schema may or may not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name<K> {
    /// A name of the schema.
    Known(K),
    /// Any other name, as it stands on the wire.
    Other(Box<str>),
}

impl<K: Copy> Name<K> {
    /// The schema's item, if the name is the schema's.
    pub fn known(&self) -> Option<K> {
        match self {
            Self::Known(item) => Some(*item),
            Self::Other(_) => None,
        }
    }
}

impl<K> Name<K> {
    /// Heap bytes.
    fn footprint(&self) -> usize {
        match self {
            Self::Known(_) => 0,
            Self::Other(name) => name.len(),
        }
    }
}

impl Name<SpanName> {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(name) => name.name(),
            Self::Other(name) => name,
        }
    }
}

impl Name<EventKind> {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(event) => event.wire_name(),
            Self::Other(name) => name,
        }
    }
}

/// An attribute key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A key of the schema, under its default name.
    Known(Attr),
    /// A key of the schema, under the name that the current semantic conventions give it.
    Latest(Attr),
    /// Any other key.
    Other(Box<str>),
}

impl Key {
    /// The schema's attribute, under whichever of its names.
    pub fn attr(&self) -> Option<Attr> {
        match self {
            Self::Known(attr) | Self::Latest(attr) => Some(*attr),
            Self::Other(_) => None,
        }
    }

    /// The key on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(attr) => attr.key(),
            Self::Latest(attr) => attr.latest_key().unwrap_or(attr.key()),
            Self::Other(key) => key,
        }
    }
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Str(Box<str>),
    /// Signed 64-bit integer.
    Int(i64),
    /// IEEE 754 double.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// Bytes, an array, a map or nothing: types that no attribute of the schema has; the text names the type.
    Other(&'static str),
}

impl Value {
    /// The OTLP type's name, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Str(_) => "a string",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a double",
            Self::Bool(_) => "a boolean",
            Self::Other(name) => name,
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, whole or not.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::Other(name) => write!(f, "({name})"),
        }
    }
}

/// One attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Value,
}

/// Looks attributes up.
pub trait Attributes {
    /// The value of `attr`, under its default name or the current one.
    fn attr(&self, attr: Attr) -> Option<&Value>;
}

impl Attributes for [Attribute] {
    fn attr(&self, attr: Attr) -> Option<&Value> {
        self.iter().find(|attribute| attribute.key.attr() == Some(attr)).map(|attribute| &attribute.value)
    }
}

/// One event of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Wall clock, nanoseconds since the epoch.
    pub time: u64,
    /// Its name.
    pub name: Name<EventKind>,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

/// Status code of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusCode {
    /// Nobody set it.
    #[default]
    Unset,
    /// Success.
    Ok,
    /// Failure.
    Error,
}

/// Span kinds, as OTLP numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind(pub i32);

impl Kind {
    /// `SPAN_KIND_INTERNAL`.
    pub const INTERNAL: Self = Self(1);
    /// `SPAN_KIND_SERVER`.
    pub const SERVER: Self = Self(2);
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("UNSPECIFIED"),
            1 => f.write_str("INTERNAL"),
            2 => f.write_str("SERVER"),
            3 => f.write_str("CLIENT"),
            4 => f.write_str("PRODUCER"),
            5 => f.write_str("CONSUMER"),
            other => write!(f, "{other}"),
        }
    }
}

/// What produced the spans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Its attributes, `service.name` among them.
    pub attributes: Vec<Attribute>,
}

impl Resource {
    /// `service.name`, or nothing.
    pub fn service_name(&self) -> &str {
        self.attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == "service.name")
            .and_then(|attribute| attribute.value.as_str())
            .unwrap_or("")
    }
}

/// The instrumentation scope of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstrumentationScope {
    /// Its name; empty if the exporter gave none.
    pub name: String,
}

/// One finished span.
#[derive(Clone, Debug)]
pub struct Span {
    /// What produced it.
    pub resource: Arc<Resource>,
    /// Its instrumentation scope.
    pub scope: Arc<InstrumentationScope>,
    /// Trace and span id.
    pub id: SpanRef,
    /// Its parent in the same trace.
    pub parent: Option<SpanId>,
    /// W3C trace state.
    pub trace_state: Box<str>,
    /// Its name.
    pub name: Name<SpanName>,
    /// Its kind.
    pub kind: Kind,
    /// Wall clock at the start, nanoseconds since the epoch.
    pub start: u64,
    /// Wall clock at the end, nanoseconds since the epoch.
    pub end: u64,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Its events, in the order of the wire.
    pub events: Vec<SpanEvent>,
    /// Events that the SDK dropped for its limits.
    pub dropped_events: u32,
    /// Spans it links to.
    pub links: Vec<SpanRef>,
    /// Status code.
    pub status: StatusCode,
    /// Status text.
    pub status_message: Box<str>,
}

impl Span {
    /// The parent in full.
    pub fn parent_ref(&self) -> Option<SpanRef> {
        self.parent.map(|span_id| SpanRef { trace_id: self.id.trace_id, span_id })
    }

    /// The first event of that kind.
    pub fn event(&self, kind: EventKind) -> Option<&SpanEvent> {
        self.events.iter().find(|event| event.name.known() == Some(kind))
    }

    /// `gen_ai.request.id`, or nothing.
    pub fn request_id(&self) -> &str {
        self.attributes.attr(Attr::RequestId).and_then(Value::as_str).unwrap_or("")
    }

    /// Heap and inline bytes, about: what a bounded store counts.
    pub fn footprint(&self) -> usize {
        let attributes = |attributes: &[Attribute]| -> usize {
            attributes
                .iter()
                .map(|attribute| {
                    let key = if let Key::Other(key) = &attribute.key { key.len() } else { 0 };
                    size_of::<Attribute>() + key + attribute.value.as_str().map_or(0, str::len)
                })
                .sum()
        };
        let event = |event: &SpanEvent| size_of::<SpanEvent>() + event.name.footprint() + attributes(&event.attributes);
        size_of::<Self>()
            + self.name.footprint()
            // It is shared with the others of its export, which may be gone before it.
            + attributes(&self.resource.attributes)
            + self.events.iter().map(event).sum::<usize>()
            + attributes(&self.attributes)
            + self.links.len() * size_of::<SpanRef>()
            + self.status_message.len()
            + self.trace_state.len()
    }
}
