//! What was exported, as plain data: the demo checks and draws it.

use std::time::{SystemTime, UNIX_EPOCH};

use journey_layer::Memory;
use journey_layer::opentelemetry::trace::SpanId;
use journey_layer::opentelemetry::{KeyValue, Value};
use journey_layer::opentelemetry_sdk::trace::SpanData;

/// An exported span.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedSpan {
    /// Its trace, in hex.
    pub trace_id: String,
    /// Itself, in hex.
    pub span_id: String,
    /// Its parent, in hex.
    pub parent_span_id: Option<String>,
    /// Its instrumentation scope.
    pub scope: String,
    /// Its name.
    pub name: String,
    /// `gen_ai.request.id`.
    pub request_id: Option<String>,
    /// `gen_ai.request.n`.
    pub n: Option<i64>,
    /// Seconds since the epoch.
    pub start: f64,
    /// Seconds since the epoch.
    pub end: f64,
    /// Its events, in order.
    pub events: Vec<RecordedEvent>,
}

/// An event of an exported span.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    /// Its name on the wire.
    pub name: String,
    /// Seconds since the epoch.
    pub time: f64,
    /// `scheduler.step`.
    pub step: Option<i64>,
}

impl RecordedEvent {
    /// Whether it ends its span.
    pub fn is_terminal(&self) -> bool {
        matches!(self.name.as_str(), "api.DEPARTED" | "api.ABORTED" | "journey.FINISHED")
    }
}

/// The spans that an in-memory exporter has.
pub fn recorded(memory: &Memory) -> Vec<RecordedSpan> {
    memory.spans().iter().map(record).collect()
}

fn record(span: &SpanData) -> RecordedSpan {
    RecordedSpan {
        trace_id: span.span_context.trace_id().to_string(),
        span_id: span.span_context.span_id().to_string(),
        parent_span_id: (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string()),
        scope: span.instrumentation_scope.name().to_owned(),
        name: span.name.to_string(),
        request_id: find(&span.attributes, "gen_ai.request.id").map(|value| value.as_str().into_owned()),
        n: int(&span.attributes, "gen_ai.request.n"),
        start: seconds(span.start_time),
        end: seconds(span.end_time),
        events: span
            .events
            .iter()
            .map(|event| RecordedEvent {
                name: event.name.to_string(),
                time: seconds(event.timestamp),
                step: int(&event.attributes, "scheduler.step"),
            })
            .collect(),
    }
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| &attribute.value)
}

fn int(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match find(attributes, key) {
        Some(Value::I64(value)) => Some(*value),
        _ => None,
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
