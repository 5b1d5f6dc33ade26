//! What the scheduler tells the model runner, and what comes back: plain data.

use crate::kv_cache::BlockId;

/// One step's work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulerOutput {
    /// Number of the step, from 1.
    pub step: u64,
    /// The sequences to compute, with the tokens of each.
    pub scheduled_seqs: Vec<ScheduledSequence>,
    /// Sum of `scheduled_seqs[..].token_ids.len()`; at most `max_num_batched_tokens`.
    pub total_num_scheduled_tokens: usize,
}

/// One sequence's share of a step. It says all that the runner needs, so the runner remembers nothing about sequences.
///
/// ```text
/// tokens:     0 ... num_computed_tokens ... num_computed_tokens + token_ids.len()
///             |------ KV in blocks ------|--- computed in this step ---|
/// block_ids:  [ b0 ][ b1 ][ b2 ][ b3 ]...   token t is in slot t % block_size of block t / block_size
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScheduledSequence {
    /// The scheduler's number of the sequence, never used twice.
    pub number: u64,
    /// The sequence's id, for messages alone.
    pub request_id: String,
    /// The tokens to compute.
    pub token_ids: Vec<u32>,
    /// Tokens before them, whose KV is in the cache.
    pub num_computed_tokens: usize,
    /// The blocks that hold its KV, those for this step's tokens included.
    pub block_ids: Vec<BlockId>,
    /// How to choose the token after the last one; `None` while more of the prompt is to come.
    pub sampling: Option<Sampling>,
}

/// How to choose one token. The same values and the same logits always choose the same token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Probability mass to choose from, in (0, 1].
    pub top_p: f64,
    /// Number of tokens to choose from; `None` for all.
    pub top_k: Option<u32>,
    /// Of the sequence.
    pub seed: u64,
    /// Number of the output token, so that each draws its own random number and a resumed sequence draws the same.
    pub position: u64,
}

impl Sampling {
    /// Whether the likeliest token is taken, with no drawing.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 || self.top_k == Some(1)
    }
}

/// What a step brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelRunnerOutput {
    /// For each of `scheduled_seqs`, in its order: the token chosen, where one was asked for.
    pub sampled_token_ids: Vec<Option<u32>>,
}
