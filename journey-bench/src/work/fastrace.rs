//! fastrace, whose properties are strings.

use std::borrow::Cow;

use fastrace::prelude::{Event, Span, SpanContext};

use super::{Progress, ROUTE, Request, Vocabulary, seconds};
use crate::cpu::monotonic_ns;

/// Explicit spans, each request the root of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Fastrace {
    /// Whether the requests are sampled.
    pub sampled: bool,
}

type Property = (&'static str, Cow<'static, str>);

fn number(value: u64) -> Cow<'static, str> {
    value.to_string().into()
}

fn api_event(span: &Span, name: &'static str) {
    let now = monotonic_ns();
    span.add_event(Event::new(name).with_property(|| ("event.ts.monotonic", seconds(now).to_string())));
}

fn core_event(span: &Span, name: &'static str, ident: &'static str, progress: Progress, more: Option<Property>) {
    let now = monotonic_ns();
    let event = Event::new(name).with_properties(|| -> [Property; 10] {
        [
            ("event.type", ident.into()),
            ("ts.monotonic", seconds(now).to_string().into()),
            ("ts.monotonic_ns", now.to_string().into()),
            ("scheduler.step", number(progress.step)),
            ("phase", progress.phase.as_str().into()),
            ("prefill.done_tokens", number(progress.prefill_done)),
            ("prefill.total_tokens", number(progress.prefill_total)),
            ("decode.done_tokens", number(progress.decode_done)),
            ("decode.max_tokens", number(progress.decode_max)),
            ("num_preemptions", number(progress.preemptions)),
        ]
    });
    let recomputed = progress.recomputed.map(|tokens| ("prefill.recomputed_tokens", number(tokens)));
    span.add_event(event.with_properties(|| recomputed.into_iter().chain(more)));
}

impl Vocabulary for Fastrace {
    type Span = Span;

    #[inline(always)]
    fn request(&self, request: &Request) -> Span {
        let context = SpanContext::random().sampled(self.sampled);
        Span::root("llm_request", context).with_properties(|| -> [Property; 7] {
            [
                ("span.kind", "server".into()),
                ("gen_ai.request.id", request.id.clone().into()),
                ("http.route", ROUTE.into()),
                ("gen_ai.request.max_tokens", number(request.max_tokens)),
                ("gen_ai.request.temperature", request.temperature.to_string().into()),
                ("gen_ai.request.top_p", request.top_p.to_string().into()),
                ("gen_ai.request.n", number(request.n)),
            ]
        })
    }

    #[inline(always)]
    fn sequence(&self, request: &Request, parent: &Span) -> Span {
        Span::enter_with_parent("llm_core", parent).with_property(|| ("gen_ai.request.id", request.sequence_id.clone()))
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
        span.add_properties(|| {
            [
                ("gen_ai.usage.prompt_tokens", number(request.prompt_tokens)),
                ("gen_ai.usage.completion_tokens", number(request.max_tokens)),
            ]
        });
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
        core_event(span, "journey.SCHEDULED", "SCHEDULED", progress(), Some(("schedule.kind", "FIRST".into())));
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
        core_event(span, "journey.SCHEDULED", "SCHEDULED", progress(), Some(("schedule.kind", "RESUME".into())));
    }

    #[inline(always)]
    fn finished(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event(span, "journey.FINISHED", "FINISHED", progress(), Some(("finish.status", "length".into())));
    }
}
