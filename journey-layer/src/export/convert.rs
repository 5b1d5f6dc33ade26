//! Records as the SDK's `SpanData`.

use std::borrow::Cow;

use journey_schema::{Attr, Scope, SpanKind};
use opentelemetry::trace::{Event, Link, SpanContext, SpanId, Status, TraceFlags};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::record::{SpanRecord, ValueRef};

/// Which names the attributes get that the semantic conventions renamed (`gen_ai.usage.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Semconv {
    /// The names that the Python engine used: `gen_ai.usage.prompt_tokens`.
    #[default]
    Frozen,
    /// The current names: `gen_ai.usage.input_tokens`. `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental`.
    Latest,
    /// Both. `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental/dup`.
    Both,
}

/// Turns records into `SpanData`.
#[derive(Debug)]
pub(crate) struct Conversion {
    pub(crate) semconv: Semconv,
    api: InstrumentationScope,
    scheduler: InstrumentationScope,
}

impl Conversion {
    pub(crate) fn new(semconv: Semconv) -> Self {
        let scope = |scope: Scope| InstrumentationScope::builder(scope.name()).build();
        Self { semconv, api: scope(Scope::Api), scheduler: scope(Scope::Scheduler) }
    }

    pub(crate) fn span_data(&self, record: &SpanRecord) -> SpanData {
        let scope = match record.name.scope() {
            Scope::Api => &self.api,
            Scope::Scheduler => &self.scheduler,
        };
        let mut events = SpanEvents::default();
        events.dropped_count = record.dropped_events;
        events.events.reserve_exact(record.events().len());
        for event in record.events() {
            let mut attributes = Vec::with_capacity(event.len());
            event.each(|attr, value| self.attribute(&mut attributes, attr, value));
            events.events.push(Event::new(event.event().wire_name(), event.time(), attributes, 0));
        }
        let mut links = SpanLinks::default();
        links.links = record.links().iter().map(|context| Link::new(context.clone(), Vec::new(), 0)).collect();
        SpanData {
            span_context: SpanContext::new(
                record.trace_id,
                record.span_id,
                TraceFlags::SAMPLED,
                false,
                record.trace_state().clone(),
            ),
            parent_span_id: record.parent.map_or(SpanId::INVALID, |parent| parent.span_id),
            parent_span_is_remote: record.parent.is_some_and(|parent| parent.is_remote),
            span_kind: match record.name.kind() {
                SpanKind::Server => opentelemetry::trace::SpanKind::Server,
                SpanKind::Internal => opentelemetry::trace::SpanKind::Internal,
            },
            name: Cow::Borrowed(record.name.name()),
            start_time: record.start_time(),
            end_time: record.end_time(),
            attributes: self.attributes(record.attributes()),
            dropped_attributes_count: 0,
            events,
            links,
            status: record.error().map_or(Status::Unset, |text| Status::error(text.to_owned())),
            instrumentation_scope: scope.clone(),
        }
    }

    fn attributes<'a>(&self, attributes: impl ExactSizeIterator<Item = (Attr, ValueRef<'a>)>) -> Vec<KeyValue> {
        let mut pairs = Vec::with_capacity(attributes.len());
        attributes.for_each(|(attr, value)| self.attribute(&mut pairs, attr, value));
        pairs
    }

    fn attribute(&self, pairs: &mut Vec<KeyValue>, attr: Attr, value: ValueRef<'_>) {
        let latest = if self.semconv == Semconv::Frozen { None } else { attr.latest_key() };
        if latest.is_none() || self.semconv == Semconv::Both {
            pairs.push(KeyValue::new(attr.key(), owned(value)));
        }
        if let Some(latest) = latest {
            pairs.push(KeyValue::new(latest, owned(value)));
        }
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Int(value) => value.into(),
        ValueRef::Float(value) => value.into(),
        ValueRef::Static(text) => text.into(),
        ValueRef::Text(text) => text.to_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use journey_schema::SpanName;
    use opentelemetry::trace::TraceId;

    use super::*;

    fn keys(semconv: Semconv) -> Vec<String> {
        let mut record = SpanRecord::new(SpanName::LlmRequest, TraceId::from(1), SpanId::from(2), 0, 0);
        record.set_attribute(Attr::PromptTokens, ValueRef::Int(3));
        record.set_attribute(Attr::TopP, ValueRef::Float(0.5));
        let span = Conversion::new(semconv).span_data(&record);
        span.attributes.iter().map(|pair| pair.key.to_string()).collect()
    }

    #[test]
    fn renamed_attributes_go_by_the_chosen_convention() {
        assert_eq!(keys(Semconv::Frozen), ["gen_ai.usage.prompt_tokens", "gen_ai.request.top_p"]);
        assert_eq!(keys(Semconv::Latest), ["gen_ai.usage.input_tokens", "gen_ai.request.top_p"]);
        assert_eq!(
            keys(Semconv::Both),
            ["gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens", "gen_ai.request.top_p"]
        );
    }
}
