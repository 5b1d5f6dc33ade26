//! OTLP protobuf, decoded: its messages as the spans of this crate.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope as OtlpScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1 as otlp;

use super::{At, Problem, ReadError, Sink};
use crate::model::{
    Attribute, InstrumentationScope, Kind, Resource, Span, SpanEvent, SpanId, SpanRef, StatusCode, TraceId, Value,
};
use crate::names;

/// Hands each span of a decoded message to `sink`.
pub fn resource_spans(message: otlp::ResourceSpans, at: At, sink: &mut dyn Sink) {
    let resource = Arc::new(message.resource.map(resource).unwrap_or_default());
    for spans in message.scope_spans {
        let scope = Arc::new(spans.scope.map(scope).unwrap_or_default());
        for span in spans.spans {
            match convert(span, &resource, &scope) {
                Ok(span) => sink.span(span, at),
                Err(error) => sink.problem(Problem { at, error }),
            }
        }
    }
}

pub(super) fn resource(resource: OtlpResource) -> Resource {
    Resource { attributes: attributes(resource.attributes) }
}

pub(super) fn scope(scope: OtlpScope) -> InstrumentationScope {
    InstrumentationScope { name: scope.name }
}

pub(super) fn convert(
    span: otlp::Span,
    resource: &Arc<Resource>,
    scope: &Arc<InstrumentationScope>,
) -> Result<Span, ReadError> {
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
