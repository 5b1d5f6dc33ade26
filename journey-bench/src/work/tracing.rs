//! Plain `tracing`, as one writes it by hand.

use tracing::field::Empty;
use tracing::{Level, Span};

use super::{Progress, ROUTE, Request, Vocabulary, int, seconds};
use crate::cpu::monotonic_ns;

/// `tracing` macros with explicit spans. With `CLOCK` the engine reads the clock for each event, as it must for a layer
/// that does not; without it the calls say what ours say.
#[derive(Clone, Copy, Debug)]
pub struct Tracing<const CLOCK: bool>;

macro_rules! api_event {
    ($span:expr, $name:literal) => {{
        let now = CLOCK.then(monotonic_ns);
        tracing::event!(name: $name, target: "vllm.api", parent: &*$span, Level::INFO, {
            "event.ts.monotonic" = now.map(seconds)
        })
    }};
}

macro_rules! core_event {
    ($span:expr, $ident:literal, $progress:ident $(, $key:literal = $value:literal)?) => {{
        let now = CLOCK.then(monotonic_ns);
        tracing::event!(
            name: concat!("journey.", $ident), target: "vllm.scheduler", parent: &*$span, Level::INFO, {
                "event.type" = $ident,
                "ts.monotonic" = now.map(seconds),
                "ts.monotonic_ns" = now,
                "scheduler.step" = int($progress().step),
                "phase" = $progress().phase.as_str(),
                "prefill.done_tokens" = int($progress().prefill_done),
                "prefill.total_tokens" = int($progress().prefill_total),
                "prefill.recomputed_tokens" = $progress().recomputed.map(int),
                "decode.done_tokens" = int($progress().decode_done),
                "decode.max_tokens" = int($progress().decode_max),
                "num_preemptions" = int($progress().preemptions)
                $(, $key = $value)?
            }
        )
    }};
}

impl<const CLOCK: bool> Vocabulary for Tracing<CLOCK> {
    type Span = Span;

    #[inline(always)]
    fn request(&self, request: &Request) -> Span {
        tracing::span!(
            target: "vllm.api",
            parent: None,
            Level::INFO,
            "llm_request",
            "gen_ai.request.id" = request.id,
            "http.route" = ROUTE,
            "gen_ai.request.max_tokens" = int(request.max_tokens),
            "gen_ai.request.temperature" = request.temperature,
            "gen_ai.request.top_p" = request.top_p,
            "gen_ai.request.n" = int(request.n),
            "gen_ai.usage.prompt_tokens" = Empty,
            "gen_ai.usage.completion_tokens" = Empty
        )
    }

    #[inline(always)]
    fn sequence(&self, request: &Request, parent: &Span) -> Span {
        tracing::span!(
            target: "vllm.scheduler",
            parent: parent,
            Level::INFO,
            "llm_core",
            "gen_ai.request.id" = request.sequence_id
        )
    }

    #[inline(always)]
    fn arrived(&self, span: &mut Span) {
        api_event!(span, "api.ARRIVED");
    }

    #[inline(always)]
    fn handed_off(&self, span: &mut Span) {
        api_event!(span, "api.HANDOFF_TO_CORE");
    }

    #[inline(always)]
    fn first_response(&self, span: &mut Span) {
        api_event!(span, "api.FIRST_RESPONSE_FROM_CORE");
    }

    #[inline(always)]
    fn usage(&self, span: &mut Span, request: &Request) {
        span.record("gen_ai.usage.prompt_tokens", int(request.prompt_tokens));
        span.record("gen_ai.usage.completion_tokens", int(request.max_tokens));
    }

    #[inline(always)]
    fn departed(&self, span: &mut Span) {
        api_event!(span, "api.DEPARTED");
    }

    #[inline(always)]
    fn queued(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event!(span, "QUEUED", progress);
    }

    #[inline(always)]
    fn scheduled(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event!(span, "SCHEDULED", progress, "schedule.kind" = "FIRST");
    }

    #[inline(always)]
    fn first_token(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event!(span, "FIRST_TOKEN", progress);
    }

    #[inline(always)]
    fn preempted(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event!(span, "PREEMPTED", progress);
    }

    #[inline(always)]
    fn resumed(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event!(span, "SCHEDULED", progress, "schedule.kind" = "RESUME");
    }

    #[inline(always)]
    fn finished(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        core_event!(span, "FINISHED", progress, "finish.status" = "length");
    }
}
