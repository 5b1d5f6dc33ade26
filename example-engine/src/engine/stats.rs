//! What the core says about itself.

/// A reading of the core's gauges and counters, as of its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Steps so far.
    pub num_steps: u64,
    /// Sequences on the running list.
    pub num_running_reqs: u64,
    /// Sequences in the waiting queue.
    pub num_waiting_reqs: u64,
    /// Blocks of KV cache.
    pub num_blocks: u64,
    /// Blocks that no sequence holds. Those with reusable KV count as free.
    pub num_free_blocks: u64,
    /// Prompt tokens of all sequences that were first scheduled.
    pub prompt_tokens: u64,
    /// Of these, tokens that the prefix cache had.
    pub prefix_cached_tokens: u64,
    /// Output tokens so far.
    pub generation_tokens: u64,
    /// Tokens computed again because a preemption threw them away.
    pub recomputed_tokens: u64,
    /// Preemptions so far.
    pub num_preemptions: u64,
    /// Sequences that ended with [`FinishReason::Stop`](super::FinishReason::Stop).
    pub finished_stop: u64,
    /// Sequences that ended with [`FinishReason::Length`](super::FinishReason::Length).
    pub finished_length: u64,
    /// Sequences that ended with [`FinishReason::Abort`](super::FinishReason::Abort).
    pub finished_abort: u64,
    /// Sequences that ended with [`FinishReason::Error`](super::FinishReason::Error).
    pub finished_error: u64,
    /// Sequences that were refused because they could never fit.
    pub ignored: u64,
}

impl SchedulerStats {
    /// Sequences that ended, however they did.
    pub fn num_finished(&self) -> u64 {
        self.finished_stop + self.finished_length + self.finished_abort + self.finished_error
    }
}
