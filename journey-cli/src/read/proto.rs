//! OTLP protobuf: bodies as exporters send them, and files of length-prefixed ones.

use std::io::{self, Read};
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;

use super::{At, Place, Problem, ReadError, Sink, split::MAX_PIECE};
use crate::model::{
    Attribute, InstrumentationScope, Kind, Resource, Span, SpanEvent, SpanId, SpanRef, StatusCode, TraceId, Value,
};
use crate::names;

/// Tag of `resource_spans`, the one field of an export request: field 1, length-delimited.
pub(super) const RESOURCE_SPANS: u8 = 0x0a;

/// Reads `ResourceSpans` one by one. One body after another reads as one long body, so that a file of several is fine.
pub(super) fn read(mut input: impl Read, file: u32, sink: &mut dyn Sink) {
    let mut number = 0;
    let mut buffer = Vec::new();
    loop {
        number += 1;
        let at = At { file, place: Place::Message(number) };
        match next_message(&mut input, &mut buffer) {
            Ok(true) => match otlp::ResourceSpans::decode(buffer.as_slice()) {
                Ok(message) => resource_spans(message, at, sink),
                Err(error) => sink.problem(Problem { at, error: ReadError::Proto(error) }),
            },
            Ok(false) => return,
            Err(error) => return sink.problem(Problem { at, error }),
        }
    }
}

/// Reads the next `resource_spans` field into `buffer`; `false` at the end.
fn next_message(input: &mut impl Read, buffer: &mut Vec<u8>) -> Result<bool, ReadError> {
    let mut tag = [0];
    loop {
        if input.read(&mut tag).map_err(ReadError::Io)? == 0 {
            return Ok(false);
        }
        match tag[0] {
            RESOURCE_SPANS => break,
            // The Collector's file exporter puts each body's length before it: four bytes, most significant first.
            0 => input.read_exact(&mut [0; 3]).map_err(cut_off)?,
            other => return Err(ReadError::NotProto(other)),
        }
    }
    let mut length = 0u64;
    for shift in (0..).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte).map_err(cut_off)?;
        length |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
        if shift >= 28 {
            return Err(ReadError::MessageTooLarge);
        }
    }
    if length > MAX_PIECE as u64 {
        return Err(ReadError::MessageTooLarge);
    }
    buffer.clear();
    let got = input.take(length).read_to_end(buffer).map_err(ReadError::Io)?;
    if (got as u64) < length { Err(cut_off(io::ErrorKind::UnexpectedEof.into())) } else { Ok(true) }
}

fn cut_off(error: io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::UnexpectedEof { ReadError::CutOff } else { ReadError::Io(error) }
}

/// Hands each span of a decoded message to `sink`.
pub fn resource_spans(message: otlp::ResourceSpans, at: At, sink: &mut dyn Sink) {
    let resource = message.resource.map(|resource| Resource { attributes: attributes(resource.attributes) });
    let resource = Arc::new(resource.unwrap_or_default());
    for spans in message.scope_spans {
        let scope = spans.scope.map(|scope| InstrumentationScope { name: scope.name }).unwrap_or_default();
        let scope = Arc::new(scope);
        for span in spans.spans {
            match convert(span, &resource, &scope) {
                Ok(span) => sink.span(span, at),
                Err(error) => sink.problem(Problem { at, error }),
            }
        }
    }
}

fn convert(span: otlp::Span, resource: &Arc<Resource>, scope: &Arc<InstrumentationScope>) -> Result<Span, ReadError> {
    let parent = match span.parent_span_id.as_slice() {
        [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
        bytes => Some(span_id("parent span", bytes)?),
    };
    let status = span.status.unwrap_or_default();
    Ok(Span {
        resource: resource.clone(),
        scope: scope.clone(),
        id: SpanRef { trace_id: trace_id(&span.trace_id)?, span_id: span_id("span", &span.span_id)? },
        parent,
        trace_state: span.trace_state.into(),
        name: names::span_name(&span.name),
        kind: Kind(span.kind),
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        events: span
            .events
            .into_iter()
            .map(|event| SpanEvent {
                time: event.time_unix_nano,
                name: names::event(&event.name),
                attributes: attributes(event.attributes),
            })
            .collect(),
        dropped_events: span.dropped_events_count,
        links: span
            .links
            .iter()
            .map(|link| Ok(SpanRef { trace_id: trace_id(&link.trace_id)?, span_id: span_id("span", &link.span_id)? }))
            .collect::<Result<_, ReadError>>()?,
        status: match status.code {
            1 => StatusCode::Ok,
            2 => StatusCode::Error,
            _ => StatusCode::Unset,
        },
        status_message: status.message.into(),
    })
}

fn trace_id(bytes: &[u8]) -> Result<TraceId, ReadError> {
    let id = bytes.try_into().map_err(|_| ReadError::IdLength { what: "trace", length: bytes.len(), want: 16 })?;
    match u128::from_be_bytes(id) {
        0 => Err(ReadError::ZeroId("trace")),
        id => Ok(TraceId(id)),
    }
}

fn span_id(what: &'static str, bytes: &[u8]) -> Result<SpanId, ReadError> {
    let id = bytes.try_into().map_err(|_| ReadError::IdLength { what, length: bytes.len(), want: 8 })?;
    match u64::from_be_bytes(id) {
        0 => Err(ReadError::ZeroId(what)),
        id => Ok(SpanId(id)),
    }
}

fn attributes(list: Vec<KeyValue>) -> Vec<Attribute> {
    list.into_iter().map(|pair| Attribute { key: names::key(&pair.key), value: value(pair.value) }).collect()
}

fn value(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => Value::Str(text.into()),
        Some(any_value::Value::IntValue(number)) => Value::Int(number),
        Some(any_value::Value::DoubleValue(number)) => Value::Float(number),
        Some(any_value::Value::BoolValue(truth)) => Value::Bool(truth),
        Some(any_value::Value::ArrayValue(_)) => Value::Other("an array"),
        Some(any_value::Value::KvlistValue(_)) => Value::Other("a map"),
        Some(any_value::Value::BytesValue(_)) => Value::Other("bytes"),
        _ => Value::Other("nothing"),
    }
}
