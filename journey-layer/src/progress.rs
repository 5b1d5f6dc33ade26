//! The progress snapshot that core events carry.

use journey_schema::Phase;

/// How far a sequence is: what `..progress` in `journey_event!` takes.
///
/// Only what the engine knows is set. What is left out, the layer fills in: `phase` from the events seen,
/// the other values as last given on the same span.
///
/// ```
/// use journey_layer::{Phase, Progress};
///
/// let progress = Progress::new().step(17).prefill(24, 24).decode(3, 96).phase(Phase::Decode);
/// assert_eq!(progress.decode_done_tokens, Some(3));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// `scheduler.step`: number of the scheduler step, 0 before the first.
    pub scheduler_step: Option<u64>,
    /// `phase`.
    pub phase: Option<Phase>,
    /// `prefill.done_tokens`: prompt tokens computed so far, a high-water mark that survives preemption.
    pub prefill_done_tokens: Option<u64>,
    /// `prefill.total_tokens`: prompt tokens to compute.
    pub prefill_total_tokens: Option<u64>,
    /// `prefill.recomputed_tokens`: tokens computed again because of preemptions.
    pub prefill_recomputed_tokens: Option<u64>,
    /// `decode.done_tokens`: output tokens so far.
    pub decode_done_tokens: Option<u64>,
    /// `decode.max_tokens`: most output tokens the sequence may produce.
    pub decode_max_tokens: Option<u64>,
    /// `num_preemptions`: preemptions so far, the present one included.
    pub num_preemptions: Option<u64>,
}

impl Progress {
    /// Nothing known.
    pub const fn new() -> Self {
        Self {
            scheduler_step: None,
            phase: None,
            prefill_done_tokens: None,
            prefill_total_tokens: None,
            prefill_recomputed_tokens: None,
            decode_done_tokens: None,
            decode_max_tokens: None,
            num_preemptions: None,
        }
    }

    /// Sets the scheduler step.
    #[must_use]
    pub const fn step(mut self, step: u64) -> Self {
        self.scheduler_step = Some(step);
        self
    }

    /// Sets the phase.
    #[must_use]
    pub const fn phase(mut self, phase: Phase) -> Self {
        self.phase = Some(phase);
        self
    }

    /// Sets the prompt tokens computed and to compute.
    #[must_use]
    pub const fn prefill(mut self, done: u64, total: u64) -> Self {
        self.prefill_done_tokens = Some(done);
        self.prefill_total_tokens = Some(total);
        self
    }

    /// Sets the tokens that were computed again.
    #[must_use]
    pub const fn recomputed(mut self, tokens: u64) -> Self {
        self.prefill_recomputed_tokens = Some(tokens);
        self
    }

    /// Sets the output tokens so far and at most.
    #[must_use]
    pub const fn decode(mut self, done: u64, max: u64) -> Self {
        self.decode_done_tokens = Some(done);
        self.decode_max_tokens = Some(max);
        self
    }

    /// Sets the preemptions so far.
    #[must_use]
    pub const fn num_preemptions(mut self, n: u64) -> Self {
        self.num_preemptions = Some(n);
        self
    }
}
