//! Takes back what a step brought.

use journey_layer::macros::journey_event;

use super::Scheduler;
use crate::engine::request::{EngineCoreOutput, FinishReason};
use crate::model_runner::{ModelError, ModelRunnerOutput, SchedulerOutput};

impl Scheduler {
    /// Takes the outcome of a step: its tokens, and who is finished. What it returns goes to the sequences, by number.
    pub fn update_from_output(
        &mut self,
        scheduler_output: &SchedulerOutput,
        runner_output: &ModelRunnerOutput,
    ) -> Vec<(u64, EngineCoreOutput)> {
        let mut outputs = Vec::new();
        for (scheduled, token) in scheduler_output.scheduled_seqs.iter().zip(&runner_output.sampled_token_ids) {
            let Some(request) = self.requests.get_mut(&scheduled.number) else { continue };
            let recomputed = request.num_recomputed_tokens;
            request.advance(scheduled.token_ids.len());
            self.stats.recomputed_tokens += (request.num_recomputed_tokens - recomputed) as u64;
            let Some(token) = *token else { continue };
            request.all_token_ids.push(token);
            self.stats.generation_tokens += 1;
            if request.num_output_tokens() == 1 {
                journey_event!(&request.span, FIRST_TOKEN, ..request.progress(scheduler_output.step));
            }
            let finish_reason = self.finish_reason(scheduled.number, token);
            if let Some(reason) = &finish_reason {
                self.finish_request(scheduled.number, reason);
            }
            outputs.push((scheduled.number, EngineCoreOutput { new_token_ids: vec![token], finish_reason }));
        }
        outputs
    }

    /// Takes a failed step: its sequences end with the error, and nothing that it may have written is shared.
    pub fn fail_step(&mut self, output: &SchedulerOutput, error: &ModelError) -> Vec<(u64, EngineCoreOutput)> {
        self.kv_cache_manager.reset_prefix_cache();
        let reason = FinishReason::Error(error.to_string());
        let failed = output.scheduled_seqs.iter().map(|scheduled| scheduled.number);
        let failed: Vec<u64> = failed.filter(|&number| self.finish_request(number, &reason)).collect();
        let ended = EngineCoreOutput { finish_reason: Some(reason), ..EngineCoreOutput::default() };
        failed.into_iter().map(|number| (number, ended.clone())).collect()
    }

    fn finish_reason(&self, number: u64, token: u32) -> Option<FinishReason> {
        let request = &self.requests[&number];
        let params = &request.sampling_params;
        let eos = !params.ignore_eos && self.config.eos_token_ids.contains(&token);
        if eos || params.stop_token_ids.contains(&token) {
            return Some(FinishReason::Stop);
        }
        let full = request.num_output_tokens() >= params.max_tokens as usize
            || request.num_tokens() >= self.config.max_model_len;
        full.then_some(FinishReason::Length)
    }
}
