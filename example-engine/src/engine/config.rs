//! The settings of a core.

use super::error::StartError;

/// Settings of one core; names and defaults as vLLM's where they exist there.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Tokens per block of KV cache.
    pub block_size: usize,
    /// Blocks in the KV cache. The model runner must have been built with the same number.
    pub num_blocks: usize,
    /// Most sequences that run at once.
    pub max_num_seqs: usize,
    /// Most tokens computed in one step: a longer prompt is computed in chunks.
    pub max_num_batched_tokens: usize,
    /// Most tokens of one sequence, prompt and output together.
    pub max_model_len: usize,
    /// Most sequences that may wait before [`QueueFull`](super::EngineError::QueueFull).
    pub max_waiting: usize,
    /// Who is served first, and who is preempted first.
    pub policy: SchedulingPolicy,
    /// Reuse the KV of equal prompt beginnings.
    pub enable_prefix_caching: bool,
    /// Tokens of the model's vocabulary; a prompt with another token is refused.
    pub vocab_size: usize,
    /// The tokens that end a sequence: the model's `eos_token_id`.
    pub eos_token_ids: Vec<u32>,
    /// Share of the sequences in a traced step that get a REQUEST_SNAPSHOT, 0 to 1. Which steps are traced, the layer
    /// decides: `Builder::step_sample_rate`.
    pub step_tracing_snapshot_rate: f64,
}

/// The order of the waiting queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// First come, first served.
    #[default]
    Fcfs,
    /// Lowest `priority` first, then first come; the last of this order is preempted first.
    Priority,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            block_size: 16,
            num_blocks: 512,
            max_num_seqs: 64,
            max_num_batched_tokens: 512,
            max_model_len: 512,
            max_waiting: 1024,
            policy: SchedulingPolicy::Fcfs,
            enable_prefix_caching: true,
            vocab_size: u32::MAX as usize,
            eos_token_ids: Vec::new(),
            step_tracing_snapshot_rate: 0.0,
        }
    }
}

impl EngineConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first setting that cannot work, with the value that would.
    pub fn validate(&self) -> Result<(), StartError> {
        let positive = [
            ("block_size", self.block_size),
            ("num_blocks", self.num_blocks),
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_waiting", self.max_waiting),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(StartError::Config(format!("{name} is 0; it must be at least 1")));
        }
        if self.max_model_len < 2 {
            let len = self.max_model_len;
            return Err(StartError::Config(format!("max_model_len is {len}; a prompt and an output token need 2")));
        }
        let rate = self.step_tracing_snapshot_rate;
        if !(0.0..=1.0).contains(&rate) {
            return Err(StartError::Config(format!("step_tracing_snapshot_rate is {rate}; it must be from 0 to 1")));
        }
        Ok(())
    }
}
