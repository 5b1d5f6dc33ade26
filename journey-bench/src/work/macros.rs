//! Our macros, with explicit spans.

use journey_layer::macros::*;
use tracing::Span;

use super::{Progress, ROUTE, Request, Vocabulary};

/// `journey_span!`, `journey_event!` and `journey_record!`. The layer reads the clock.
#[derive(Clone, Copy, Debug)]
pub struct Macros;

/// What an engine hands to `..progress`.
#[inline]
fn snapshot(progress: Progress) -> journey_layer::Progress {
    let mut snapshot = journey_layer::Progress::new()
        .step(progress.step)
        .phase(progress.phase)
        .prefill(progress.prefill_done, progress.prefill_total)
        .decode(progress.decode_done, progress.decode_max)
        .num_preemptions(progress.preemptions);
    snapshot.prefill_recomputed_tokens = progress.recomputed;
    snapshot
}

impl Vocabulary for Macros {
    type Span = Span;

    #[inline(always)]
    fn request(&self, request: &Request) -> Span {
        journey_span!(
            scope = "vllm.api",
            request_id = request.id,
            route = ROUTE,
            max_tokens = request.max_tokens,
            temperature = request.temperature,
            top_p = request.top_p,
            n = request.n
        )
    }

    #[inline(always)]
    fn sequence(&self, request: &Request, parent: &Span) -> Span {
        journey_span!(scope = "vllm.scheduler", parent = parent, request_id = request.sequence_id)
    }

    #[inline(always)]
    fn arrived(&self, span: &mut Span) {
        journey_event!(&*span, ARRIVED);
    }

    #[inline(always)]
    fn handed_off(&self, span: &mut Span) {
        journey_event!(&*span, HANDOFF_TO_CORE);
    }

    #[inline(always)]
    fn first_response(&self, span: &mut Span) {
        journey_event!(&*span, FIRST_RESPONSE_FROM_CORE);
    }

    #[inline(always)]
    fn usage(&self, span: &mut Span, request: &Request) {
        journey_record!(&*span, prompt_tokens = request.prompt_tokens, completion_tokens = request.max_tokens);
    }

    #[inline(always)]
    fn departed(&self, span: &mut Span) {
        journey_event!(&*span, DEPARTED);
    }

    #[inline(always)]
    fn queued(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, QUEUED, ..snapshot(progress()));
    }

    #[inline(always)]
    fn scheduled(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, SCHEDULED, ..snapshot(progress()));
    }

    #[inline(always)]
    fn first_token(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, FIRST_TOKEN, ..snapshot(progress()));
    }

    #[inline(always)]
    fn preempted(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, PREEMPTED, ..snapshot(progress()));
    }

    #[inline(always)]
    fn resumed(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, SCHEDULED, ..snapshot(progress()));
    }

    #[inline(always)]
    fn finished(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, FINISHED, status = length, ..snapshot(progress()));
    }
}
