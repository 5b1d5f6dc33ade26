//! OTLP-JSON: one `ExportTraceServiceRequest` per line, as the OTLP specification ("JSON Protobuf Encoding") and the
//! Collector write it: ids in hex, 64-bit integers as strings, enumerations as integers, defaults left out.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Event, Link, SpanId, SpanKind, Status};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;

/// Writes one line, newline included.
pub(crate) fn write_request(out: &mut Vec<u8>, resource: &Resource, spans: &[SpanData]) {
    let mut json = Writer { out };
    json.raw("{\"resourceSpans\":[{\"resource\":{");
    // Sorted: the resource keeps its attributes in a map, and one resource should look the same on every line.
    let mut attributes: Vec<_> = resource.iter().map(|(key, value)| (key.as_str(), value)).collect();
    attributes.sort_unstable_by_key(|(key, _)| *key);
    json.attributes(attributes.into_iter());
    json.raw("},\"scopeSpans\":[");
    let mut scopes = Vec::new();
    for span in spans {
        if !scopes.contains(&&span.instrumentation_scope) {
            scopes.push(&span.instrumentation_scope);
        }
    }
    json.list(&scopes, |json, scope| {
        json.raw("{\"scope\":{\"name\":");
        json.text(scope.name());
        if let Some(version) = scope.version() {
            json.raw(",\"version\":");
            json.text(version);
        }
        if scope.attributes().next().is_some() {
            json.raw(",");
            json.attributes(scope.attributes().map(|pair| (pair.key.as_str(), &pair.value)));
        }
        json.raw("},\"spans\":[");
        let own: Vec<_> = spans.iter().filter(|span| span.instrumentation_scope == **scope).collect();
        json.list(&own, |json, span| json.span(span));
        json.raw("]");
        if let Some(url) = scope.schema_url() {
            json.raw(",\"schemaUrl\":");
            json.text(url);
        }
        json.raw("}");
    });
    json.raw("]");
    if let Some(url) = resource.schema_url() {
        json.raw(",\"schemaUrl\":");
        json.text(url);
    }
    json.raw("}]}\n");
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut *self.out, text).expect("a string in memory");
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            each(self, item);
        }
    }

    fn span(&mut self, span: &SpanData) {
        let context = &span.span_context;
        self.raw(&format!("{{\"traceId\":\"{}\",\"spanId\":\"{}\"", context.trace_id(), context.span_id()));
        self.trace_state(&context.trace_state().header());
        if span.parent_span_id != SpanId::INVALID {
            self.raw(&format!(",\"parentSpanId\":\"{}\"", span.parent_span_id));
        }
        self.raw(&format!(",\"flags\":{}", flags(context.trace_flags().to_u8(), span.parent_span_is_remote)));
        self.raw(",\"name\":");
        self.text(&span.name);
        let (start, end) = (nanos(span.start_time), nanos(span.end_time));
        let kind = kind(&span.span_kind);
        self.raw(&format!(",\"kind\":{kind},\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{end}\""));
        self.pairs(&span.attributes);
        self.dropped("droppedAttributesCount", span.dropped_attributes_count);
        if !span.events.is_empty() {
            self.raw(",\"events\":[");
            self.list(&span.events, |json, event| json.event(event));
            self.raw("]");
        }
        self.dropped("droppedEventsCount", span.events.dropped_count);
        if !span.links.is_empty() {
            self.raw(",\"links\":[");
            self.list(&span.links, |json, link| json.link(link));
            self.raw("]");
        }
        self.dropped("droppedLinksCount", span.links.dropped_count);
        match &span.status {
            Status::Unset => self.raw(",\"status\":{}"),
            Status::Ok => self.raw(",\"status\":{\"code\":1}"),
            Status::Error { description } => {
                self.raw(",\"status\":{\"message\":");
                self.text(description);
                self.raw(",\"code\":2}");
            }
        }
        self.raw("}");
    }

    fn event(&mut self, event: &Event) {
        self.raw(&format!("{{\"timeUnixNano\":\"{}\",\"name\":", nanos(event.timestamp)));
        self.text(&event.name);
        self.pairs(&event.attributes);
        self.dropped("droppedAttributesCount", event.dropped_attributes_count);
        self.raw("}");
    }

    fn link(&mut self, link: &Link) {
        let context = &link.span_context;
        self.raw(&format!("{{\"traceId\":\"{}\",\"spanId\":\"{}\"", context.trace_id(), context.span_id()));
        self.trace_state(&context.trace_state().header());
        self.pairs(&link.attributes);
        self.dropped("droppedAttributesCount", link.dropped_attributes_count);
        self.raw(&format!(",\"flags\":{}}}", flags(context.trace_flags().to_u8(), context.is_remote())));
    }

    fn trace_state(&mut self, header: &str) {
        if !header.is_empty() {
            self.raw(",\"traceState\":");
            self.text(header);
        }
    }

    fn dropped(&mut self, key: &str, count: u32) {
        if count > 0 {
            self.raw(&format!(",\"{key}\":{count}"));
        }
    }

    fn pairs(&mut self, pairs: &[KeyValue]) {
        if !pairs.is_empty() {
            self.raw(",");
            self.attributes(pairs.iter().map(|pair| (pair.key.as_str(), &pair.value)));
        }
    }

    fn attributes<'a>(&mut self, attributes: impl Iterator<Item = (&'a str, &'a Value)>) {
        let attributes: Vec<_> = attributes.collect();
        self.raw("\"attributes\":[");
        self.list(&attributes, |json, (key, value)| {
            json.raw("{\"key\":");
            json.text(key);
            json.raw(",\"value\":");
            json.value(value);
            json.raw("}");
        });
        self.raw("]");
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.raw(&format!("{{\"boolValue\":{value}}}")),
            Value::I64(value) => self.raw(&format!("{{\"intValue\":\"{value}\"}}")),
            Value::F64(value) => self.double(*value),
            Value::String(value) => self.string(value),
            Value::Array(array) => {
                self.raw("{\"arrayValue\":{\"values\":[");
                match array {
                    Array::Bool(values) => self.list(values, |json, value| json.value(&Value::Bool(*value))),
                    Array::I64(values) => self.list(values, |json, value| json.value(&Value::I64(*value))),
                    Array::F64(values) => self.list(values, |json, value| json.double(*value)),
                    Array::String(values) => self.list(values, |json, value| json.string(value)),
                    _ => {}
                }
                self.raw("]}}");
            }
            // A kind that a later version of the API may add.
            other => self.string(&other.as_str().into_owned().into()),
        }
    }

    fn string(&mut self, value: &StringValue) {
        self.raw("{\"stringValue\":");
        self.text(value.as_str());
        self.raw("}");
    }

    fn double(&mut self, value: f64) {
        self.raw("{\"doubleValue\":");
        match value {
            value if value.is_nan() => self.raw("\"NaN\""),
            f64::INFINITY => self.raw("\"Infinity\""),
            f64::NEG_INFINITY => self.raw("\"-Infinity\""),
            value => serde_json::to_writer(&mut *self.out, &value).expect("a number in memory"),
        }
        self.raw("}");
    }
}

/// `Span.flags`: the trace flags, and whether it is known that the parent is remote (bit 8), and is (bit 9).
fn flags(trace_flags: u8, is_remote: bool) -> u32 {
    u32::from(trace_flags) | 0x100 | if is_remote { 0x200 } else { 0 }
}

fn kind(kind: &SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
