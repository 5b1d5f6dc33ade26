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

    fn sequence(&self, request: &Request, parent: &Span) -> Span {
        journey_span!(scope = "vllm.scheduler", parent = parent, request_id = request.sequence_id)
    }

    fn arrived(&self, span: &mut Span) {
        journey_event!(&*span, ARRIVED);
    }

    fn handed_off(&self, span: &mut Span) {
        journey_event!(&*span, HANDOFF_TO_CORE);
    }

    fn first_response(&self, span: &mut Span) {
        journey_event!(&*span, FIRST_RESPONSE_FROM_CORE);
    }

    fn usage(&self, span: &mut Span, request: &Request) {
        journey_record!(&*span, prompt_tokens = request.prompt_tokens, completion_tokens = request.max_tokens);
    }

    fn departed(&self, span: &mut Span) {
        journey_event!(&*span, DEPARTED);
    }

    fn queued(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, QUEUED, ..snapshot(progress()));
    }

    fn scheduled(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, SCHEDULED, ..snapshot(progress()));
    }

    fn first_token(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, FIRST_TOKEN, ..snapshot(progress()));
    }

    fn preempted(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, PREEMPTED, ..snapshot(progress()));
    }

    fn resumed(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, SCHEDULED, ..snapshot(progress()));
    }

    fn finished(&self, span: &mut Span, progress: impl Fn() -> Progress) {
        journey_event!(&*span, FINISHED, status = length, ..snapshot(progress()));
    }
}
