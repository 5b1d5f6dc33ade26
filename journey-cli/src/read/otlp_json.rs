//! The OTLP-JSON encoding of one span, resource or scope.
//!
//! Lenient where writers differ (numbers as text or not, enums by number or by name, `null` for what is absent),
//! strict where leniency would hide a fault: ids are hex of the right length.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::json_scalars::{JsonKind, JsonStatusCode, Number};
use crate::model::{
    Attribute, InstrumentationScope, Key, Name, Resource, Span, SpanEvent, SpanId, SpanRef, TraceId, Value,
};
use crate::names;

/// A span without the resource and scope around it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JsonSpan {
    trace_id: TraceId,
    span_id: SpanId,
    #[serde(default)]
    parent_span_id: ParentId,
    #[serde(default, deserialize_with = "null_as_default")]
    trace_state: Box<str>,
    name: Box<str>,
    #[serde(default)]
    kind: JsonKind,
    start_time_unix_nano: Number<u64>,
    end_time_unix_nano: Number<u64>,
    #[serde(default, deserialize_with = "null_as_default")]
    attributes: Vec<Attribute>,
    #[serde(default, deserialize_with = "null_as_default")]
    events: Vec<JsonEvent>,
    #[serde(default)]
    dropped_events_count: Number<u32>,
    #[serde(default, deserialize_with = "null_as_default")]
    links: Vec<JsonLink>,
    #[serde(default, deserialize_with = "null_as_default")]
    status: JsonStatus,
}

impl JsonSpan {
    /// The span, in its scope and resource.
    pub(super) fn into_span(self, resource: super::SharedResource, scope: super::SharedScope) -> Span {
        Span {
            resource,
            scope,
            id: SpanRef { trace_id: self.trace_id, span_id: self.span_id },
            parent: self.parent_span_id.0,
            trace_state: self.trace_state,
            name: names::span_name(&self.name),
            kind: self.kind.0,
            start: self.start_time_unix_nano.0,
            end: self.end_time_unix_nano.0,
            attributes: self.attributes,
            events: self
                .events
                .into_iter()
                .map(|event| SpanEvent {
                    time: event.time_unix_nano.0,
                    name: event.name.0,
                    attributes: event.attributes,
                })
                .collect(),
            dropped_events: self.dropped_events_count.0,
            links: self
                .links
                .into_iter()
                .map(|link| SpanRef { trace_id: link.trace_id, span_id: link.span_id })
                .collect(),
            status: self.status.code.0,
            status_message: self.status.message,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonEvent {
    #[serde(default)]
    time_unix_nano: Number<u64>,
    name: EventName,
    #[serde(default, deserialize_with = "null_as_default")]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonLink {
    trace_id: TraceId,
    span_id: SpanId,
}

#[derive(Default, Deserialize)]
struct JsonStatus {
    #[serde(default)]
    code: JsonStatusCode,
    #[serde(default, deserialize_with = "null_as_default")]
    message: Box<str>,
}

#[derive(Deserialize)]
struct JsonResource {
    #[serde(default, deserialize_with = "null_as_default")]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct JsonScope {
    #[serde(default, deserialize_with = "null_as_default")]
    name: String,
}

pub(super) fn span(bytes: &[u8]) -> Result<JsonSpan, serde_json::Error> {
    serde_json::from_slice(bytes)
}

pub(super) fn resource(bytes: &[u8]) -> Result<Resource, serde_json::Error> {
    let resource: Option<JsonResource> = serde_json::from_slice(bytes)?;
    Ok(resource.map_or_else(Resource::default, |resource| Resource { attributes: resource.attributes }))
}

pub(super) fn scope(bytes: &[u8]) -> Result<InstrumentationScope, serde_json::Error> {
    let scope: Option<JsonScope> = serde_json::from_slice(bytes)?;
    Ok(scope.map_or_else(InstrumentationScope::default, |scope| InstrumentationScope { name: scope.name }))
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The hex digits of an id: two to a byte, and not all zero.
fn hex_id<E: Error>(what: &str, text: &str, digits: usize) -> Result<u128, E> {
    if text.len() != digits {
        let hint = if text.len() == digits * 2 / 3 + 2 && text.ends_with('=') || text.len() == 24 && digits == 32 {
            ", it looks like base64: OTLP-JSON wants hex"
        } else {
            ""
        };
        return Err(E::custom(format_args!("{what} id of {} characters, not {digits} hex digits{hint}", text.len())));
    }
    let value = text
        .bytes()
        .try_fold(0u128, |value, byte| Some(value << 4 | u128::from((byte as char).to_digit(16)?)))
        .ok_or_else(|| E::custom(format_args!("{what} id {text:?} is not hex")))?;
    if value == 0 { Err(E::custom(format_args!("{what} id is all zero"))) } else { Ok(value) }
}

/// Deserializes a type from text alone.
struct FromText<T>(PhantomData<T>);

trait TextField: Sized {
    const EXPECTED: &'static str;
    fn from_text<E: Error>(text: &str) -> Result<Self, E>;
}

impl<T: TextField> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text)
    }
}

macro_rules! from_text {
    ($($ty:ty: $expected:literal, |$text:ident| $body:expr;)+) => {$(
        impl TextField for $ty {
            const EXPECTED: &'static str = $expected;
            fn from_text<E: Error>($text: &str) -> Result<Self, E> { $body }
        }
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText::<$ty>(PhantomData))
            }
        }
    )+};
}

struct EventName(Name<journey_schema::Event>);

from_text! {
    TraceId: "a trace id in hex", |text| hex_id("trace", text, 32).map(TraceId);
    SpanId: "a span id in hex", |text| hex_id("span", text, 16).map(|id| SpanId(id as u64));
    Key: "an attribute key", |text| Ok(names::key(text));
    EventName: "an event name", |text| Ok(EventName(names::event(text)));
}

/// Absent, `null`, empty or all zeros: no parent.
#[derive(Default)]
struct ParentId(Option<SpanId>);

impl<'de> Deserialize<'de> for ParentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parent;
        impl<'de> Visitor<'de> for Parent {
            type Value = ParentId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span id in hex")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<ParentId, E> {
                if text.bytes().all(|byte| byte == b'0') && matches!(text.len(), 0 | 16) {
                    return Ok(ParentId(None));
                }
                hex_id("parent span", text, 16).map(|id| ParentId(Some(SpanId(id as u64))))
            }
            fn visit_none<E: Error>(self) -> Result<ParentId, E> {
                Ok(ParentId(None))
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ParentId, D::Error> {
                deserializer.deserialize_str(self)
            }
        }
        deserializer.deserialize_option(Parent)
    }
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct KeyValue {
            key: Key,
            #[serde(default)]
            value: JsonValue,
        }
        KeyValue::deserialize(deserializer).map(|pair| Self { key: pair.key, value: pair.value.0 })
    }
}

struct JsonValue(Value);

impl Default for JsonValue {
    fn default() -> Self {
        Self(Value::Other("nothing"))
    }
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(field_identifier)]
        enum Type {
            #[serde(rename = "stringValue")]
            String,
            #[serde(rename = "boolValue")]
            Bool,
            #[serde(rename = "intValue")]
            Int,
            #[serde(rename = "doubleValue")]
            Double,
            #[serde(rename = "arrayValue")]
            Array,
            #[serde(rename = "kvlistValue")]
            Kvlist,
            #[serde(rename = "bytesValue")]
            Bytes,
            #[serde(other)]
            Unknown,
        }
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = JsonValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute value such as {\"stringValue\": ..}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonValue, A::Error> {
                let mut value = JsonValue::default();
                while let Some(ty) = map.next_key::<Type>()? {
                    value.0 = match ty {
                        Type::String => Value::Str(map.next_value()?),
                        Type::Bool => Value::Bool(map.next_value()?),
                        Type::Int => Value::Int(map.next_value::<Number<i64>>()?.0),
                        Type::Double => Value::Float(map.next_value::<Number<f64>>()?.0),
                        Type::Array => map.next_value::<IgnoredAny>().map(|_| Value::Other("an array"))?,
                        Type::Kvlist => map.next_value::<IgnoredAny>().map(|_| Value::Other("a map"))?,
                        Type::Unknown => map.next_value::<IgnoredAny>().map(|_| Value::Other("a type unknown here"))?,
                        Type::Bytes => map.next_value::<IgnoredAny>().map(|_| Value::Other("bytes"))?,
                    };
                }
                Ok(value)
            }
        }
        deserializer.deserialize_map(AnyValue)
    }
}
