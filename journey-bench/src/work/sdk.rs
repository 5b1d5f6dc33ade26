//! The OpenTelemetry API, called directly.

use opentelemetry::trace::{Span as _, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use super::{Progress, ROUTE, Request, Vocabulary, int, seconds};
use crate::cpu::monotonic_ns;

/// One tracer for each scope.
#[derive(Clone, Debug)]
pub struct Sdk {
    api: SdkTracer,
    scheduler: SdkTracer,
}

impl Sdk {
    /// The tracers of `provider`.
    pub fn new(provider: &SdkTracerProvider) -> Self {
        Self { api: provider.tracer("vllm.api"), scheduler: provider.tracer("vllm.scheduler") }
    }
}

fn api_event(span: &mut Span, name: &'static str) {
    span.add_event(name, vec![KeyValue::new("event.ts.monotonic", seconds(monotonic_ns()))]);
}

fn core_event(span: &mut Span, name: &'static str, ident: &'static str, progress: Progress, more: Option<KeyValue>) {
    let now = monotonic_ns();
    let mut attributes = Vec::with_capacity(12);
    attributes.extend([
        KeyValue::new("event.type", ident),
        KeyValue::new("ts.monotonic", seconds(now)),
        KeyValue::new("ts.monotonic_ns", now),
        KeyValue::new("scheduler.step", int(progress.step)),
        KeyValue::new("phase", progress.phase.as_str()),
        KeyValue::new("prefill.done_tokens", int(progress.prefill_done)),
        KeyValue::new("prefill.total_tokens", int(progress.prefill_total)),
        KeyValue::new("decode.done_tokens", int(progress.decode_done)),
        KeyValue::new("decode.max_tokens", int(progress.decode_max)),
        KeyValue::new("num_preemptions", int(progress.preemptions)),
    ]);
    attributes.extend(progress.recomputed.map(|tokens| KeyValue::new("prefill.recomputed_tokens", int(tokens))));
    attributes.extend(more);
    span.add_event(name, attributes);
}

impl Vocabulary for Sdk {
    type Span = Span;

    #[inline(always)]
    fn request(&self, request: &Request) -> Span {
        self.api
            .span_builder("llm_request")
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("gen_ai.request.id", request.id.clone()),
                KeyValue::new("http.route", ROUTE),
                KeyValue::new("gen_ai.request.max_tokens", int(request.max_tokens)),
                KeyValue::new("gen_ai.request.temperature", request.temperature),
                KeyValue::new("gen_ai.request.top_p", request.top_p),
                KeyValue::new("gen_ai.request.n", int(request.n)),
            ])
            .start_with_context(&self.api, &Context::new())
    }

    #[inline(always)]
    fn sequence(&self, request: &Request, parent: &Span) -> Span {
        self.scheduler
            .span_builder("llm_core")
            .with_attributes([KeyValue::new("gen_ai.request.id", request.sequence_id.clone())])
            .start_with_context(
                &self.scheduler,
                &Context::new().with_remote_span_context(parent.span_context().clone()),
            )
    }

    #[inline(always)]
    fn arrived(&self, span: &mut Span) {
        api_event(span, "api.ARRIVED");
    }

    #[inline(always)]
    fn handed_off(&self, span: &mut Span) {
        api_event(span, "api.HANDOFF_TO_CORE");
    }

    #[inline(always)]
    fn first_response(&self, span: &mut Span) {
        api_event(span, "api.FIRST_RESPONSE_FROM_CORE");
    }

    #[inline(always)]
    fn usage(&self, span: &mut Span, request: &Request) {
        span.set_attribute(KeyValue::new("gen_ai.usage.prompt_tokens", int(request.prompt_tokens)));
        span.set_attribute(KeyValue::new("gen_ai.usage.completion_tokens", int(request.max_tokens)));
    }

    #[inline(always)]
    fn departed(&self, span: &mut Span) {
        api_event(span, "api.DEPARTED");
    }

    #[inline(always)]
    fn queued(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.QUEUED", "QUEUED", progress(), None);
    }

    #[inline(always)]
    fn scheduled(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.SCHEDULED", "SCHEDULED", progress(), Some(KeyValue::new("schedule.kind", "FIRST")));
    }

    #[inline(always)]
    fn first_token(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.FIRST_TOKEN", "FIRST_TOKEN", progress(), None);
    }

    #[inline(always)]
    fn preempted(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.PREEMPTED", "PREEMPTED", progress(), None);
    }

    #[inline(always)]
    fn resumed(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.SCHEDULED", "SCHEDULED", progress(), Some(KeyValue::new("schedule.kind", "RESUME")));
    }

    #[inline(always)]
    fn finished(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.FINISHED", "FINISHED", progress(), Some(KeyValue::new("finish.status", "length")));
    }
}
