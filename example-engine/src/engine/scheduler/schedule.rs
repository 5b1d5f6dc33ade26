//! One step's plan: who computes how many tokens, who is admitted, who must give up its blocks.

use std::ops::Bound::{Excluded, Unbounded};

use journey_layer::ScheduleKind;
use journey_layer::macros::journey_event;

use super::Scheduler;
use super::request::{Rank, RequestStatus};
use crate::model_runner::{Sampling, ScheduledSequence, SchedulerOutput};

impl Scheduler {
    /// Plans the next step. The running sequences come first, in rank order; what is left of the token budget admits
    /// waiting ones. When blocks run out, the last of the running ones is preempted, and none is admitted.
    pub fn schedule(&mut self) -> SchedulerOutput {
        self.stats.num_steps += 1;
        let mut token_budget = self.config.max_num_batched_tokens;
        let mut output = SchedulerOutput { step: self.stats.num_steps, ..SchedulerOutput::default() };
        let preemptions = self.stats.num_preemptions;
        self.schedule_running(&mut token_budget, &mut output);
        if self.stats.num_preemptions == preemptions {
            self.schedule_waiting(&mut token_budget, &mut output);
        }
        output.total_num_scheduled_tokens = self.config.max_num_batched_tokens - token_budget;
        output
    }

    fn schedule_running(&mut self, token_budget: &mut usize, output: &mut SchedulerOutput) {
        let mut next = self.running.first().copied();
        while let Some(rank) = next
            && *token_budget > 0
        {
            let request = self.request(rank);
            let num_computed_tokens = request.num_computed_tokens;
            let num_new_tokens = (request.num_tokens() - num_computed_tokens).min(*token_budget);
            while !self.kv_cache_manager.allocate_slots(rank.number, num_computed_tokens + num_new_tokens) {
                let victim = *self.running.last().expect("the sequence that lacks a block runs itself");
                self.preempt(victim);
                if victim == rank {
                    return;
                }
            }
            *token_budget -= num_new_tokens;
            self.push_scheduled(rank, num_new_tokens, output);
            next = self.running.range((Excluded(rank), Unbounded)).next().copied();
        }
    }

    fn schedule_waiting(&mut self, token_budget: &mut usize, output: &mut SchedulerOutput) {
        let block_size = self.config.block_size;
        while *token_budget > 0
            && self.running.len() < self.config.max_num_seqs
            && let Some(rank) = self.waiting.first().copied()
        {
            let request = self.request(rank);
            request.update_block_hashes(block_size);
            let num_tokens = request.num_tokens();
            let computed_blocks =
                self.kv_cache_manager.get_computed_blocks(&self.requests[&rank.number].block_hashes, num_tokens);
            // All its tokens must fit, not only those of this step: it would be the first to be preempted.
            if !self.kv_cache_manager.fits(num_tokens, &computed_blocks) {
                return;
            }
            let num_cached_tokens = computed_blocks.len() * block_size;
            let num_new_tokens = (num_tokens - num_cached_tokens).min(*token_budget);
            self.kv_cache_manager.allocate_computed_blocks(rank.number, &computed_blocks);
            let allocated = self.kv_cache_manager.allocate_slots(rank.number, num_cached_tokens + num_new_tokens);
            assert!(allocated, "what fits can be allocated");
            self.admit(rank, num_cached_tokens);
            *token_budget -= num_new_tokens;
            self.push_scheduled(rank, num_new_tokens, output);
        }
    }

    /// Waiting to running.
    fn admit(&mut self, rank: Rank, num_cached_tokens: usize) {
        self.waiting.remove(&rank);
        self.running.insert(rank);
        let step = self.stats.num_steps;
        let request = self.request(rank);
        let kind = match request.status {
            RequestStatus::Preempted => ScheduleKind::Resume,
            RequestStatus::Waiting | RequestStatus::Running => ScheduleKind::First,
        };
        request.status = RequestStatus::Running;
        // Not `advance`: what the prefix cache had is neither computed nor recomputed.
        request.num_computed_tokens = num_cached_tokens;
        request.max_computed_tokens = request.max_computed_tokens.max(num_cached_tokens);
        let first = request.num_cached_tokens.is_none();
        request.num_cached_tokens.get_or_insert(num_cached_tokens);
        journey_event!(&request.span, SCHEDULED, kind = (kind), ..request.progress(step));
        if first {
            self.stats.prompt_tokens += self.requests[&rank.number].num_prompt_tokens as u64;
            self.stats.prefix_cached_tokens += num_cached_tokens as u64;
        }
    }

    /// Running to waiting: its blocks go to others, and its KV is computed again when it resumes.
    fn preempt(&mut self, rank: Rank) {
        self.running.remove(&rank);
        self.waiting.insert(rank);
        self.kv_cache_manager.free(rank.number);
        self.stats.num_preemptions += 1;
        let step = self.stats.num_steps;
        let request = self.request(rank);
        request.status = RequestStatus::Preempted;
        request.num_computed_tokens = 0;
        request.num_preemptions += 1;
        journey_event!(&request.span, PREEMPTED, ..request.progress(step));
    }

    /// Plans the sequence's next tokens, and lets others share the blocks that they fill. A step writes all KV of a layer
    /// before it reads any, so even a sequence of the same step may; and what is planned is never preempted in that step.
    fn push_scheduled(&mut self, rank: Rank, num_new_tokens: usize, output: &mut SchedulerOutput) {
        let request = self.requests.get_mut(&rank.number).expect("what is scheduled is unfinished");
        let start = request.num_computed_tokens;
        let end = start + num_new_tokens;
        request.update_block_hashes(self.config.block_size);
        self.kv_cache_manager.cache_blocks(rank.number, &request.block_hashes, end);
        let params = &request.sampling_params;
        let sampling = (end == request.num_tokens()).then(|| Sampling {
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            seed: request.seed,
            position: request.num_output_tokens() as u64,
        });
        output.scheduled_seqs.push(ScheduledSequence {
            number: rank.number,
            request_id: request.request_id.clone(),
            token_ids: request.all_token_ids[start..end].to_vec(),
            num_computed_tokens: start,
            block_ids: self.kv_cache_manager.block_ids(rank.number).to_vec(),
            sampling,
        });
    }
}
