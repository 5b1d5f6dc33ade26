//! What a traced step may know about the sequences in it.

use journey_layer::Phase;
use journey_layer::tracing::Span;

use super::Scheduler;
use crate::model_runner::SchedulerOutput;

/// A sequence as it stands right after a step was planned.
pub(crate) struct StepView<'a> {
    pub(crate) span: &'a Span,
    pub(crate) request_id: &'a str,
    pub(crate) phase: Phase,
    /// The step computes tokens of its prompt.
    pub(crate) is_prefill: bool,
    pub(crate) num_prompt_tokens: u64,
    pub(crate) num_computed_tokens: u64,
    pub(crate) num_output_tokens: u64,
    pub(crate) num_preemptions: u64,
    pub(crate) num_scheduled_tokens: u64,
    pub(crate) num_blocks: u64,
    pub(crate) num_blocks_from_cache: u64,
    /// Prompt tokens that the prefix cache did not have, where there is one.
    pub(crate) effective_prompt_len: Option<u64>,
}

impl Scheduler {
    /// The sequences of a step that was planned and not yet taken back.
    pub(crate) fn step_views<'a>(&'a self, output: &'a SchedulerOutput) -> impl Iterator<Item = StepView<'a>> {
        output.scheduled_seqs.iter().map(|scheduled| {
            let request = &self.requests[&scheduled.number];
            let num_cached_tokens = request.num_cached_tokens.unwrap_or(0);
            let effective_prompt_len = (request.num_prompt_tokens - num_cached_tokens) as u64;
            StepView {
                span: &request.span,
                request_id: &request.request_id,
                phase: request.phase(),
                is_prefill: scheduled.num_computed_tokens < request.num_prompt_tokens,
                num_prompt_tokens: request.num_prompt_tokens as u64,
                num_computed_tokens: request.num_computed_tokens as u64,
                num_output_tokens: request.num_output_tokens() as u64,
                num_preemptions: request.num_preemptions,
                num_scheduled_tokens: scheduled.token_ids.len() as u64,
                num_blocks: scheduled.block_ids.len() as u64,
                num_blocks_from_cache: self.kv_cache_manager.num_blocks_from_cache(scheduled.number) as u64,
                effective_prompt_len: self.config.enable_prefix_caching.then_some(effective_prompt_len),
            }
        })
    }
}
