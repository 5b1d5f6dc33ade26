//! Records straight to OTLP protobuf (`opentelemetry/proto/trace/v1/trace.proto`), with no message in between.
//!
//! opentelemetry-proto's own way builds a tree of messages from a tree of `SpanData`, and costs more than all the rest
//! of a journey's tracing. What is written here is, byte for byte, what that way writes: a property test holds the two
//! together.

use journey_schema::{Attr, Scope, SpanKind};
use opentelemetry::trace::{SpanContext, TraceState};
use opentelemetry_proto::tonic::trace::v1::SpanFlags;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as WireKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message;

use crate::export::batch::Item;
use crate::export::convert::Semconv;
use crate::export::otlp::wire::Reverse;
use crate::record::{SpanRecord, ValueRef};
use crate::record_event::EventView;

/// Writes `ExportTraceServiceRequest`s into one reused buffer.
#[derive(Debug)]
pub(crate) struct Encoder {
    out: Reverse,
    semconv: Semconv,
    /// The `Resource` message.
    resource: Vec<u8>,
    schema_url: String,
}

impl Encoder {
    pub(crate) fn new(resource: &Resource, semconv: Semconv) -> Self {
        let with_schema = ResourceAttributesWithSchema::from(resource);
        let message = opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: with_schema.attributes.0,
            ..Default::default()
        };
        Self {
            out: Reverse::default(),
            semconv,
            resource: message.encode_to_vec(),
            schema_url: with_schema.schema_url.unwrap_or_default(),
        }
    }

    /// Encodes a batch: one resource, its spans by scope.
    pub(crate) fn encode(&mut self, items: &[Item]) -> &[u8] {
        self.out.clear();
        // ResourceSpans: schema_url = 3, scope_spans = 2, resource = 1.
        let resource_spans = self.out.len();
        self.out.bytes_unless_empty(3, self.schema_url.as_bytes());
        for scope in Scope::ALL.iter().rev() {
            self.scope_spans(*scope, items);
        }
        self.out.bytes(1, &self.resource);
        self.out.message(1, resource_spans);
        self.out.as_slice()
    }

    fn scope_spans(&mut self, scope: Scope, items: &[Item]) {
        let mark = self.out.len();
        for item in items.iter().rev() {
            match item {
                Item::Record(record) if record.name.scope() == scope => self.span(record),
                Item::Raw(span) if span.instrumentation_scope.name() == scope.name() => {
                    let span = opentelemetry_proto::tonic::trace::v1::Span::from((**span).clone());
                    self.out.bytes(2, &span.encode_to_vec());
                }
                Item::Record(_) | Item::Raw(_) => {}
            }
        }
        if self.out.len() == mark {
            return;
        }
        // InstrumentationScope: name = 1.
        let name = self.out.len();
        self.out.bytes(1, scope.name().as_bytes());
        self.out.message(1, name);
        self.out.message(2, mark);
    }

    /// Span, its fields from the last to the first.
    fn span(&mut self, record: &SpanRecord) {
        let mark = self.out.len();
        self.out.fixed32(16, flags(record.parent.is_some_and(|parent| parent.is_remote)));
        let status = self.out.len();
        if let Some(text) = record.error() {
            self.out.uint(3, StatusCode::Error as u64);
            self.out.bytes_unless_empty(2, text.as_bytes());
        }
        self.out.message(15, status);
        for link in record.links().iter().rev() {
            self.link(link);
        }
        self.out.uint_unless_zero(12, u64::from(record.dropped_events));
        for event in record.events().rev() {
            self.event(&event);
        }
        self.attributes(9, record.attributes());
        self.out.fixed64(8, unix_ns(record.end_ns, record));
        self.out.fixed64(7, unix_ns(record.start_ns, record));
        let kind = match record.name.kind() {
            SpanKind::Server => WireKind::Server,
            SpanKind::Internal => WireKind::Internal,
        };
        self.out.uint(6, kind as u64);
        self.out.bytes(5, record.name.name().as_bytes());
        if let Some(parent) = record.parent {
            self.out.bytes(4, &parent.span_id.to_bytes());
        }
        self.trace_state(record.trace_state());
        self.out.bytes(2, &record.span_id.to_bytes());
        self.out.bytes(1, &record.trace_id.to_bytes());
        self.out.message(2, mark);
    }

    /// Event: attributes = 3, name = 2, time = 1.
    fn event(&mut self, event: &EventView<'_>) {
        let mark = self.out.len();
        let mut attributes = Vec::with_capacity(event.len());
        event.each(|attr, value| attributes.push((attr, value)));
        self.attributes(3, attributes.into_iter());
        self.out.bytes(2, event.event().wire_name().as_bytes());
        self.out.fixed64(1, event.unix_ns());
        self.out.message(11, mark);
    }

    /// Link: flags = 6, trace_state = 3, span_id = 2, trace_id = 1.
    fn link(&mut self, context: &SpanContext) {
        let mark = self.out.len();
        self.out.fixed32(6, flags(context.is_remote()));
        self.trace_state(context.trace_state());
        self.out.bytes(2, &context.span_id().to_bytes());
        self.out.bytes(1, &context.trace_id().to_bytes());
        self.out.message(13, mark);
    }

    fn trace_state(&mut self, state: &TraceState) {
        if *state != TraceState::NONE {
            self.out.bytes(3, state.header().as_bytes());
        }
    }

    fn attributes<'a>(&mut self, field: u32, attributes: impl DoubleEndedIterator<Item = (Attr, ValueRef<'a>)>) {
        for (attr, value) in attributes.rev() {
            match (self.semconv, attr.latest_key()) {
                (Semconv::Frozen, _) | (_, None) => self.attribute(field, attr.key(), value),
                (Semconv::Latest, Some(latest)) => self.attribute(field, latest, value),
                (Semconv::Both, Some(latest)) => {
                    self.attribute(field, latest, value);
                    self.attribute(field, attr.key(), value);
                }
            }
        }
    }

    /// KeyValue: value = 2, key = 1. AnyValue: string = 1, int = 3, double = 4; a member of a `oneof` is never left out.
    #[inline]
    fn attribute(&mut self, field: u32, key: &str, value: ValueRef<'_>) {
        let out = &mut self.out;
        let mark = out.len();
        match value {
            ValueRef::Int(value) => out.uint(3, value as u64),
            ValueRef::Float(value) => out.fixed64(4, value.to_bits()),
            ValueRef::Static(text) => out.bytes(1, text.as_bytes()),
            ValueRef::Text(text) => out.bytes(1, text.as_bytes()),
        }
        out.message(2, mark);
        out.bytes(1, key.as_bytes());
        out.message(field, mark);
    }
}

fn unix_ns(mono_ns: i64, record: &SpanRecord) -> u64 {
    (mono_ns + record.anchor_ns).max(0) as u64
}

/// Sampled, and whether the parent (or the linked span) is another process's (`SpanFlags`).
fn flags(is_remote: bool) -> u32 {
    let remote = if is_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    1 | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

#[cfg(test)]
mod tests {
    use journey_schema::{AbortReason, Event, FinishStatus, Phase, SpanName};
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use proptest::prelude::*;

    use super::*;
    use crate::export::convert::Conversion;
    use crate::lifecycle::LiveSpan;
    use crate::record::ParentSpan;
    use crate::visitor::EventFields;

    fn value() -> impl Strategy<Value = (Attr, OwnedValue)> {
        use crate::record::OwnedValue::{Float, Int, Text};
        let attr = prop::sample::select(Attr::ALL);
        let value = prop_oneof![
            any::<i64>().prop_map(Int),
            (-1e12..1e12f64).prop_map(Float),
            Just(Float(0.0)),
            ".{0,200}".prop_map(|text| Text(text.into())),
        ];
        (attr, value)
    }

    use crate::record::OwnedValue;

    type Said = (Event, i64, EventFields);

    /// What an event of a span of this name may say, and some attributes that it may not.
    fn said(name: SpanName) -> impl Strategy<Value = Said> {
        let events: Vec<_> = Event::ALL.iter().copied().filter(|event| event.span() == name).collect();
        let events = if events.is_empty() { vec![Event::BatchSummary] } else { events };
        let few = (
            prop::option::of(prop::sample::select(Phase::ALL)),
            prop::option::of(prop::sample::select(FinishStatus::ALL)),
            prop::option::of(prop::sample::select(AbortReason::ALL)),
        );
        let counters = (any::<[i64; 7]>(), any::<u8>());
        let others = prop::collection::vec(value(), 0..12);
        (prop::sample::select(events), 0..i64::MAX / 4, few, counters, others).prop_map(
            |(event, at, (phase, status, reason), (progress, given), others)| {
                let given = given & 0x7f;
                (event, at, EventFields { progress, given, phase, kind: None, status, reason, others })
            },
        )
    }

    prop_compose! {
        fn record()(name in prop::sample::select(SpanName::ALL))(
            name in Just(name),
            ids in any::<(u128, u64, Option<(u64, bool)>)>(),
            times in (0..i64::MAX / 4, 0..i64::MAX / 4, 0..i64::MAX / 4),
            attributes in prop::collection::vec(value(), 0..9),
            events in prop::collection::vec(said(name), 0..8),
            links in prop::collection::vec(any::<(u128, u64, bool)>(), 0..3),
            error in prop::option::of(".{0,40}"),
            state in prop::option::of(Just("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")),
            dropped in 0..3u32,
        ) -> Item {
            let record = SpanRecord::new(name, TraceId::from(ids.0), SpanId::from(ids.1), times.0, times.2);
            let mut live = LiveSpan { record: Box::new(record) };
            for (event, at, fields) in &events {
                live.event(*event, fields, *at, usize::MAX);
            }
            let mut record = live.record;
            record.end_ns = times.1;
            record.parent = ids.2.filter(|(id, _)| *id != 0).map(|(id, is_remote)| ParentSpan { span_id: SpanId::from(id), is_remote });
            record.set_trace_state(&state.map_or(TraceState::NONE, |state| state.parse().unwrap()));
            record.dropped_events = dropped;
            if let Some(error) = error {
                record.set_error(error);
            }
            for (attr, value) in &attributes {
                record.set_attribute(*attr, value.as_ref());
            }
            for (trace, span, remote) in links {
                let (trace, span) = (TraceId::from(trace), SpanId::from(span));
                record.push_link(SpanContext::new(trace, span, TraceFlags::SAMPLED, remote, TraceState::NONE));
            }
            Item::Record(record)
        }
    }

    proptest! {
        #[test]
        fn it_writes_what_opentelemetry_proto_writes(
            items in prop::collection::vec(record(), 1..6),
            semconv in prop::sample::select(vec![Semconv::Frozen, Semconv::Latest, Semconv::Both]),
        ) {
            let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "vllm")).build();
            let conversion = Conversion::new(semconv);
            let mut encoder = Encoder::new(&resource, semconv);
            for items in [&items[..], &items[..1]] {
                let spans = items.iter().map(|item| item.to_span_data(&conversion)).collect();
                let mut expected =
                    ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &(&resource).into()) };
                // Grouped in a hash map there.
                for resource_spans in &mut expected.resource_spans {
                    resource_spans.scope_spans.sort_by_key(|spans| spans.scope.as_ref().map(|scope| scope.name.clone()));
                }
                prop_assert_eq!(&ExportTraceServiceRequest::decode(encoder.encode(items)).unwrap(), &expected);
                prop_assert_eq!(encoder.encode(items), expected.encode_to_vec());
            }
        }
    }
}
