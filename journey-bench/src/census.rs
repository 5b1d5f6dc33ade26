//! What a stack delivered, counted by name, so that stacks can be held against one another.

use std::collections::BTreeMap;

use opentelemetry::Value;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as ProtoKeyValue, any_value};
use opentelemetry_sdk::trace::SpanData;
use serde::{Deserialize, Serialize};

/// Spans, events and attributes that arrived, each with how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// By name.
    pub spans: BTreeMap<String, u64>,
    /// By name.
    pub events: BTreeMap<String, u64>,
    /// `span/event key=value`, the event left out for attributes of the span itself; text stands in backquotes.
    pub attributes: BTreeMap<String, u64>,
}

/// Keys whose values differ from journey to journey.
const VARYING: [&str; 4] = ["event.ts.monotonic", "ts.monotonic", "ts.monotonic_ns", "gen_ai.request.id"];

impl Census {
    /// Counts a span.
    pub fn span(&mut self, name: &str) {
        *self.spans.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts an event.
    pub fn event(&mut self, name: &str) {
        *self.events.entry(name.to_owned()).or_default() += 1;
    }

    /// Counts an attribute of the event `event` of the span `span`, or of the span itself.
    pub fn attribute(&mut self, span: &str, event: &str, key: &str, value: &str) {
        let value = if VARYING.contains(&key) { "*" } else { value };
        *self.attributes.entry(format!("{span}/{event} {key}={value}")).or_default() += 1;
    }

    /// Counts what an exporter of the SDK is given.
    pub fn span_data(&mut self, data: &SpanData) {
        self.span(&data.name);
        for pair in &data.attributes {
            self.attribute(&data.name, "", pair.key.as_str(), &shown(&pair.value));
        }
        for event in &data.events.events {
            self.event(&event.name);
            for pair in &event.attributes {
                self.attribute(&data.name, &event.name, pair.key.as_str(), &shown(&pair.value));
            }
        }
    }

    /// Counts what a receiver of OTLP is sent.
    pub fn otlp(&mut self, request: &ExportTraceServiceRequest) {
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        for span in scopes.flat_map(|scope| &scope.spans) {
            self.span(&span.name);
            for pair in &span.attributes {
                self.attribute(&span.name, "", &pair.key, &text(pair));
            }
            for event in &span.events {
                self.event(&event.name);
                for pair in &event.attributes {
                    self.attribute(&span.name, &event.name, &pair.key, &text(pair));
                }
            }
        }
    }

    /// Adds another census to this one, `times` over.
    pub fn add(&mut self, other: &Self, times: u64) {
        for (mine, others) in [
            (&mut self.spans, &other.spans),
            (&mut self.events, &other.events),
            (&mut self.attributes, &other.attributes),
        ] {
            for (name, count) in others {
                *mine.entry(name.clone()).or_default() += count * times;
            }
        }
    }

    /// The same census of somebody for whom every value is text.
    pub fn untyped(&self) -> Self {
        let mut untyped = Self { attributes: BTreeMap::new(), ..self.clone() };
        for (attribute, count) in &self.attributes {
            *untyped.attributes.entry(attribute.replace('`', "")).or_default() += count;
        }
        untyped
    }

    /// What is missing of `expected`, or there too often, in words.
    ///
    /// Attributes that nobody expects are a stack's own additions (`level`, derived latencies): they are no difference.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (what, mine, expected) in
            [("span", &self.spans, &expected.spans), ("event", &self.events, &expected.events)]
        {
            if mine != expected {
                differences.push(format!("{what}s {mine:?} and not {expected:?}"));
            }
        }
        for (attribute, count) in &expected.attributes {
            let mine = self.attributes.get(attribute).copied().unwrap_or(0);
            if mine != *count {
                differences.push(format!("attribute {attribute} {mine} times and not {count}"));
            }
        }
        differences
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        number => number.to_string(),
    }
}

fn text(pair: &ProtoKeyValue) -> String {
    match pair.value.as_ref().and_then(|AnyValue { value }| value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => format!("`{text}`"),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}
