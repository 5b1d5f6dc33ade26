//! Records straight to OTLP protobuf (`opentelemetry/proto/trace/v1/trace.proto`), with no message in between.
//!
//! opentelemetry-proto's own way builds a tree of messages from a tree of `SpanData`, and costs more than all the rest
//! of a journey's tracing. What is written here is, byte for byte, what that way writes: a property test holds the two
//! together.

use std::sync::Arc;

use bytes::Bytes;
use journey_schema::{Attr, Scope, SpanKind, SpanName};
use opentelemetry::trace::{SpanContext, TraceState};
use opentelemetry_proto::tonic::trace::v1::SpanFlags;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as WireKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message;

use crate::export::batch::Item;
use crate::export::convert::Semconv;
use crate::export::otlp::template::{Prefix, Templates};
use crate::export::otlp::wire::Reverse;
use crate::record::{SpanRecord, ValueRef};
use crate::record_event::{EventView, seconds};
use crate::visitor::PROGRESS;

/// Writes `ExportTraceServiceRequest`s into a buffer that is lent to whoever sends it, and used again when it is back.
#[derive(Debug)]
pub(crate) struct Encoder {
    out: Arc<Reverse>,
    templates: Box<Templates>,
    /// The `Resource` message.
    resource: Vec<u8>,
    schema_url: String,
    /// Where packed records are unpacked.
    unpacked: Box<SpanRecord>,
}

/// A buffer on its way.
struct Lent(Arc<Reverse>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl Encoder {
    pub(crate) fn new(resource: &Resource, semconv: Semconv) -> Self {
        let with_schema = ResourceAttributesWithSchema::from(resource);
        let message = opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: with_schema.attributes.0,
            ..Default::default()
        };
        Self {
            out: Arc::default(),
            templates: Box::new(Templates::new(semconv)),
            resource: message.encode_to_vec(),
            schema_url: with_schema.schema_url.unwrap_or_default(),
            unpacked: Box::default(),
        }
    }

    /// Encodes a batch: one resource, its spans by scope.
    pub(crate) fn encode(&mut self, items: &[Item]) -> Bytes {
        if Arc::get_mut(&mut self.out).is_none() {
            self.out = Arc::default();
        }
        let out = Arc::get_mut(&mut self.out).expect("nobody else has a buffer that is new or back");
        out.clear();
        let mut writer = Writer { out, templates: &self.templates };
        // ResourceSpans: schema_url = 3, scope_spans = 2, resource = 1.
        let resource_spans = writer.out.len();
        writer.out.bytes_unless_empty(3, self.schema_url.as_bytes());
        for scope in Scope::ALL.iter().rev() {
            writer.scope_spans(*scope, items, &mut self.unpacked);
        }
        writer.out.bytes(1, &self.resource);
        writer.out.message(1, resource_spans);
        Bytes::from_owner(Lent(self.out.clone()))
    }
}

struct Writer<'a> {
    out: &'a mut Reverse,
    templates: &'a Templates,
}

impl Writer<'_> {
    fn scope_spans(&mut self, scope: Scope, items: &[Item], unpacked: &mut SpanRecord) {
        let mark = self.out.len();
        for item in items.iter().rev() {
            match item {
                Item::Record(record) if record.name.scope() == scope => self.span(record),
                Item::Packed(packed) if packed.name().scope() == scope => {
                    packed.unpack(unpacked);
                    self.span(unpacked);
                }
                Item::Raw(span) if span.instrumentation_scope.name() == scope.name() => {
                    let span = opentelemetry_proto::tonic::trace::v1::Span::from((**span).clone());
                    self.out.bytes(2, &span.encode_to_vec());
                }
                Item::Record(_) | Item::Packed(_) | Item::Raw(_) => {}
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
        for (attr, value) in record.attributes().rev() {
            self.attribute(&self.templates.span[attr as usize], value);
        }
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
        let (templates, view) = (self.templates, event.mark());
        for (attr, value) in event.others().rev() {
            self.attribute(&templates.event[attr as usize], value);
        }
        let time = match view.event.span() {
            SpanName::LlmRequest => {
                if let Some(reason) = view.reason {
                    self.out.block(&templates.reasons[reason as usize]);
                }
                true
            }
            SpanName::LlmCore => {
                self.core_attributes(event);
                true
            }
            SpanName::SchedulerStep | SpanName::ModelForward => false,
        };
        if time {
            self.out.raw(&seconds(view.mono_ns).to_le_bytes());
        }
        self.out.block(&templates.names[view.event as usize]);
        self.out.fixed64(1, event.unix_ns());
        self.out.message(11, mark);
    }

    /// The attributes of an event of `llm_core` behind the one that holds seconds, from the last to the first.
    fn core_attributes(&mut self, event: &EventView<'_>) {
        let (templates, mark, values) = (self.templates, event.mark(), event.progress());
        if let Some(status) = mark.status {
            self.out.block(&templates.statuses[status as usize]);
        }
        if let Some(kind) = mark.kind {
            self.out.block(&templates.kinds[kind as usize]);
        }
        for index in (0..PROGRESS.len()).rev() {
            if index == 0
                && let Some(phase) = mark.phase
            {
                self.out.block(&templates.phases[phase as usize]);
            }
            if mark.given & 1 << index != 0 {
                self.out.int_attribute(&templates.event[PROGRESS[index] as usize].0, values[index]);
            }
        }
        self.out.int_attribute(&templates.event[Attr::TsMonotonicNs as usize].0, mark.mono_ns);
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

    #[inline]
    fn attribute(&mut self, (first, second): &(Prefix, Option<Prefix>), value: ValueRef<'_>) {
        for prefix in second.iter().chain([first]) {
            match value {
                ValueRef::Int(value) => self.out.int_attribute(prefix, value),
                ValueRef::Float(value) => self.out.float_attribute(prefix, value),
                ValueRef::Static(text) | ValueRef::Text(text) => self.out.text_attribute(prefix, text),
            }
        }
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
    use opentelemetry::{Array, KeyValue, Value};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use proptest::prelude::*;

    use super::*;
    use crate::export::convert::Conversion;
    use crate::export::packed::Packed;
    use crate::record_samples::record;

    #[test]
    fn spans_of_the_api_take_no_more_bytes_than_they_are_counted_for() {
        let conversion = Conversion::new(Semconv::Frozen);
        let resource = Resource::builder_empty().build();
        let arrays = [
            Array::I64(vec![-1; 1000]),
            Array::F64(vec![0.5; 1000]),
            Array::Bool(vec![true; 1000]),
            Array::String(vec!["x".into(); 1000]),
        ];
        for array in arrays {
            let mut span = conversion.span_data(&SpanRecord::default());
            span.attributes.push(KeyValue::new("array", Value::Array(array)));
            let item = Item::Raw(Box::new(span));
            let counted = item.wire_size();
            let encoded = Encoder::new(&resource, Semconv::Frozen).encode(&[item]);
            assert!(encoded.len() <= counted, "{} bytes, counted as {counted}", encoded.len());
        }
    }

    proptest! {
        #[test]
        fn it_writes_what_opentelemetry_proto_writes(
            records in prop::collection::vec(record(), 1..6),
            packed in any::<[bool; 6]>(),
            semconv in prop::sample::select(vec![Semconv::Frozen, Semconv::Latest, Semconv::Both]),
        ) {
            let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "vllm")).build();
            let conversion = Conversion::new(semconv);
            let mut encoder = Encoder::new(&resource, semconv);
            let spans: Vec<_> = records.iter().map(|record| conversion.span_data(record)).collect();
            let items = records.into_iter().zip(packed).map(|(mut record, packed)| {
                if packed { Item::Packed(Packed::new(&mut record)) } else { Item::Record(record) }
            });
            let items: Vec<_> = items.collect();
            for some in [items.len(), 1] {
                let spans = spans[..some].to_vec();
                let mut expected =
                    ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &(&resource).into()) };
                // Grouped in a hash map there.
                for resource_spans in &mut expected.resource_spans {
                    resource_spans.scope_spans.sort_by_key(|spans| spans.scope.as_ref().map(|scope| scope.name.clone()));
                }
                let encoded = encoder.encode(&items[..some]);
                prop_assert_eq!(&ExportTraceServiceRequest::decode(encoded.clone()).unwrap(), &expected);
                let bound = 1024 + items[..some].iter().map(Item::wire_size).sum::<usize>();
                prop_assert!(encoded.len() <= bound, "{} of {bound} bytes", encoded.len());
                prop_assert_eq!(encoded, expected.encode_to_vec());
            }
        }
    }
}
