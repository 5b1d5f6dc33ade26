//! The work: one journey, said in four vocabularies.
//!
//! Two spans, ten events and 79 attributes: eight of `llm_request`, one of `llm_core`, one on each of the four API events,
//! and 66 on the six core events. Who does not read the clock itself is given it as an engine would give it.

mod fastrace;
mod macros;
mod sdk;
mod tracing;

use crate::census::Census;

pub use fastrace::Fastrace;
pub use macros::Macros;
pub use sdk::Sdk;
pub use tracing::Tracing;

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request's id.
    pub id: String,
    /// The sequence's.
    pub sequence_id: String,
    /// Tokens in the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated, which is what was asked for.
    pub max_tokens: u64,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus sampling probability.
    pub top_p: f64,
    /// Sequences.
    pub n: u64,
}

/// The matched route of every request.
pub const ROUTE: &str = "/v1/completions";

impl Request {
    /// The `number`-th request.
    pub fn new(number: usize) -> Self {
        let id = format!("cmpl-{number:032x}");
        Self {
            sequence_id: format!("{id}-{:08x}", number ^ 0x5bd1_e995),
            id,
            prompt_tokens: 24,
            max_tokens: 96,
            temperature: 0.7,
            top_p: 0.95,
            n: 1,
        }
    }

    /// How far the sequence is: what a scheduler knows when it says an event.
    #[inline]
    pub fn progress(&self, step: u64, phase: Phase, prefill: u64, decode: u64, preemptions: u64) -> Progress {
        Progress {
            step,
            phase,
            prefill_done: prefill,
            prefill_total: self.prompt_tokens,
            recomputed: (preemptions > 0).then_some(self.prompt_tokens),
            decode_done: decode,
            decode_max: self.max_tokens,
            preemptions,
        }
    }
}

pub use journey_layer::Phase;

/// The scheduler's view of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// `scheduler.step`.
    pub step: u64,
    /// `phase`.
    pub phase: Phase,
    /// `prefill.done_tokens`.
    pub prefill_done: u64,
    /// `prefill.total_tokens`.
    pub prefill_total: u64,
    /// `prefill.recomputed_tokens`, from the first preemption on.
    pub recomputed: Option<u64>,
    /// `decode.done_tokens`.
    pub decode_done: u64,
    /// `decode.max_tokens`.
    pub decode_max: u64,
    /// `num_preemptions`.
    pub preemptions: u64,
}

/// One way of saying what happens to a request.
///
/// Progress comes as a closure: as in an engine, who does not record it does not compute it. The methods are inlined
/// without exception, so that a macro's expansion stands in the midst of its caller's code, as it does in an engine.
pub trait Vocabulary {
    /// An open span. It ends when it is dropped.
    type Span;

    /// Opens `llm_request`, with what is known on arrival: six attributes.
    fn request(&self, request: &Request) -> Self::Span;
    /// Opens `llm_core` under it: one attribute.
    fn sequence(&self, request: &Request, parent: &Self::Span) -> Self::Span;
    /// `api.ARRIVED`.
    fn arrived(&self, span: &mut Self::Span);
    /// `api.HANDOFF_TO_CORE`.
    fn handed_off(&self, span: &mut Self::Span);
    /// `api.FIRST_RESPONSE_FROM_CORE`.
    fn first_response(&self, span: &mut Self::Span);
    /// Sets the two usage attributes.
    fn usage(&self, span: &mut Self::Span, request: &Request);
    /// `api.DEPARTED`.
    fn departed(&self, span: &mut Self::Span);
    /// `journey.QUEUED`: ten attributes.
    fn queued(&self, span: &mut Self::Span, progress: impl Fn() -> Progress);
    /// `journey.SCHEDULED`, for the first time: eleven attributes.
    fn scheduled(&self, span: &mut Self::Span, progress: impl Fn() -> Progress);
    /// `journey.FIRST_TOKEN`: ten attributes.
    fn first_token(&self, span: &mut Self::Span, progress: impl Fn() -> Progress);
    /// `journey.PREEMPTED`: eleven attributes.
    fn preempted(&self, span: &mut Self::Span, progress: impl Fn() -> Progress);
    /// `journey.SCHEDULED` after a preemption: twelve attributes.
    fn resumed(&self, span: &mut Self::Span, progress: impl Fn() -> Progress);
    /// `journey.FINISHED`: twelve attributes.
    fn finished(&self, span: &mut Self::Span, progress: impl Fn() -> Progress);
}

/// A whole journey.
#[inline]
pub fn journey<V: Vocabulary>(say: &V, request: &Request) {
    let mut api = say.request(request);
    say.arrived(&mut api);
    let mut core = say.sequence(request, &api);
    say.handed_off(&mut api);
    say.queued(&mut core, || request.progress(0, Phase::Waiting, 0, 0, 0));
    say.scheduled(&mut core, || request.progress(17, Phase::Prefill, 0, 0, 0));
    say.first_token(&mut core, || request.progress(18, Phase::Decode, 24, 1, 0));
    say.first_response(&mut api);
    say.preempted(&mut core, || request.progress(40, Phase::Decode, 24, 23, 1));
    say.resumed(&mut core, || request.progress(44, Phase::Prefill, 24, 23, 1));
    say.finished(&mut core, || request.progress(118, Phase::Decode, 24, 96, 1));
    drop(core);
    say.usage(&mut api, request);
    say.departed(&mut api);
}

/// What one journey delivers, written down apart from the code that says it.
pub fn expected() -> Census {
    const REQUEST: &str = "gen_ai.request.id=* http.route=`/v1/completions` gen_ai.request.max_tokens=96 gen_ai.request.temperature=0.7 \
         gen_ai.request.top_p=0.95 gen_ai.request.n=1 gen_ai.usage.prompt_tokens=24 gen_ai.usage.completion_tokens=96";
    const API: [&str; 4] = ["ARRIVED", "HANDOFF_TO_CORE", "FIRST_RESPONSE_FROM_CORE", "DEPARTED"];
    const CORE: [(&str, &str); 6] = [
        ("QUEUED", "scheduler.step=0 phase=`WAITING` prefill.done_tokens=0 decode.done_tokens=0 num_preemptions=0"),
        (
            "SCHEDULED",
            "scheduler.step=17 phase=`PREFILL` prefill.done_tokens=0 decode.done_tokens=0 num_preemptions=0 schedule.kind=`FIRST`",
        ),
        (
            "FIRST_TOKEN",
            "scheduler.step=18 phase=`DECODE` prefill.done_tokens=24 decode.done_tokens=1 num_preemptions=0",
        ),
        (
            "PREEMPTED",
            "scheduler.step=40 phase=`DECODE` prefill.done_tokens=24 decode.done_tokens=23 num_preemptions=1 \
             prefill.recomputed_tokens=24",
        ),
        (
            "SCHEDULED",
            "scheduler.step=44 phase=`PREFILL` prefill.done_tokens=24 decode.done_tokens=23 num_preemptions=1 \
             prefill.recomputed_tokens=24 schedule.kind=`RESUME`",
        ),
        (
            "FINISHED",
            "scheduler.step=118 phase=`DECODE` prefill.done_tokens=24 decode.done_tokens=96 num_preemptions=1 \
             prefill.recomputed_tokens=24 finish.status=`length`",
        ),
    ];
    let mut census = Census::default();
    let attributes = |census: &mut Census, span: &str, event: &str, list: &str| {
        for (key, value) in list.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            census.attribute(span, event, key, value);
        }
    };
    census.span("llm_request");
    attributes(&mut census, "llm_request", "", REQUEST);
    census.span("llm_core");
    attributes(&mut census, "llm_core", "", "gen_ai.request.id=*");
    for event in API {
        let name = format!("api.{event}");
        census.event(&name);
        attributes(&mut census, "llm_request", &name, "event.ts.monotonic=*");
    }
    for (event, list) in CORE {
        let name = format!("journey.{event}");
        census.event(&name);
        attributes(&mut census, "llm_core", &name, list);
        let common = format!(
            "event.type=`{event}` ts.monotonic=* ts.monotonic_ns=* prefill.total_tokens=24 decode.max_tokens=96"
        );
        attributes(&mut census, "llm_core", &name, &common);
    }
    census
}

/// `now` as the attributes that hold seconds have it.
fn seconds(now: i64) -> f64 {
    now as f64 / 1e9
}

/// An integer attribute as the wire has it: tracing-opentelemetry makes text of a `u64`.
fn int(value: u64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journey_has_two_spans_ten_events_and_79_attributes() {
        let census = expected();
        let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
        assert_eq!((sum(&census.spans), sum(&census.events), sum(&census.attributes)), (2, 10, 79));
    }
}
