//! Sequences come and go: what is taken, what is refused, what is aborted.

use journey_layer::FinishStatus;
use journey_layer::macros::journey_event;

use super::Scheduler;
use super::request::{Rank, Request, RequestStatus, core_span};
use crate::engine::config::SchedulingPolicy;
use crate::engine::error::EngineError;
use crate::engine::request::{EngineCoreRequest, FinishReason, SamplingParams};

/// Bytes of a request id at most: that of a client, what the API adds, and room.
const MAX_ID_BYTES: usize = 1024;
/// Stop tokens of one sequence at most.
const MAX_STOP_TOKENS: usize = 1024;

impl Scheduler {
    /// Puts a sequence into the waiting queue and gives it its number. `seed` is its seed when it brings none.
    ///
    /// # Errors
    /// Why it was not taken; nothing has changed then.
    pub fn add_request(&mut self, request: EngineCoreRequest, seed: u64) -> Result<u64, EngineError> {
        if let Err(refusal) = self.validate(&request) {
            if refusal.is_never() {
                self.stats.ignored += 1;
                journey_event!(&core_span(&request), FINISHED, status = ignored);
            }
            return Err(refusal);
        }
        let priority = match self.config.policy {
            SchedulingPolicy::Fcfs => 0,
            SchedulingPolicy::Priority => request.priority,
        };
        let rank = Rank { priority, number: self.next_number };
        self.next_number += 1;
        let seed = request.sampling_params.seed.unwrap_or(seed);
        self.ids.insert(request.request_id.clone());
        let request = Request::new(request, rank, seed);
        journey_event!(&request.span, QUEUED, ..request.progress(self.stats.num_steps));
        self.requests.insert(rank.number, request);
        self.waiting.insert(rank);
        Ok(rank.number)
    }

    fn validate(&self, request: &EngineCoreRequest) -> Result<(), EngineError> {
        validate_sampling_params(&request.sampling_params).map_err(EngineError::Invalid)?;
        let len = request.request_id.len();
        if len > MAX_ID_BYTES {
            return Err(EngineError::Invalid(format!(
                "the request id has {len} bytes; at most {MAX_ID_BYTES} are kept"
            )));
        }
        let len = request.prompt_token_ids.len();
        if len == 0 {
            return Err(EngineError::Invalid("the prompt has no tokens; give it at least one".to_owned()));
        }
        let vocab_size = self.config.vocab_size;
        if let Some(token) = request.prompt_token_ids.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(EngineError::Invalid(format!(
                "token {token} is outside the model's vocabulary of {vocab_size}"
            )));
        }
        if self.ids.contains(&request.request_id) {
            let id = &request.request_id;
            return Err(EngineError::Invalid(format!(
                "request id {id:?} is in use; wait for its end or choose another"
            )));
        }
        let max = self.config.max_model_len;
        if len >= max {
            return Err(EngineError::PromptTooLong { len, max: max - 1 });
        }
        // The last output token is never computed, so it needs no room.
        let needed = (len + request.sampling_params.max_tokens as usize).min(max) - 1;
        let available = self.config.num_blocks * self.config.block_size;
        if needed > available {
            return Err(EngineError::NeverFits { needed, available });
        }
        match self.waiting.len() {
            waiting if waiting >= self.config.max_waiting => Err(EngineError::QueueFull { waiting }),
            _ => Ok(()),
        }
    }

    /// Numbers of all unfinished sequences.
    pub fn unfinished(&self) -> Vec<u64> {
        self.requests.keys().copied().collect()
    }

    /// Ends a sequence in whatever state it is and frees its blocks. False when it has ended before.
    pub fn finish_request(&mut self, number: u64, reason: &FinishReason) -> bool {
        let Some(request) = self.requests.remove(&number) else { return false };
        self.ids.remove(&request.request_id);
        match request.status {
            RequestStatus::Running => self.running.remove(&request.rank),
            RequestStatus::Waiting | RequestStatus::Preempted => self.waiting.remove(&request.rank),
        };
        self.kv_cache_manager.free(number);
        let (count, status) = match reason {
            FinishReason::Stop => (&mut self.stats.finished_stop, FinishStatus::Stopped),
            FinishReason::Length => (&mut self.stats.finished_length, FinishStatus::Length),
            FinishReason::Abort => (&mut self.stats.finished_abort, FinishStatus::Aborted),
            FinishReason::Error(_) => (&mut self.stats.finished_error, FinishStatus::Error),
        };
        *count += 1;
        journey_event!(&request.span, FINISHED, status = (status), ..request.progress(self.stats.num_steps));
        true
    }
}

fn validate_sampling_params(params: &SamplingParams) -> Result<(), String> {
    let SamplingParams { max_tokens, temperature, top_p, top_k, .. } = *params;
    if max_tokens == 0 {
        return Err("max_tokens is 0; it must be at least 1".to_owned());
    }
    if !(temperature.is_finite() && temperature >= 0.0) {
        return Err(format!("temperature is {temperature}; it must be a number from 0 up"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(format!("top_p is {top_p}; it must be above 0 and at most 1"));
    }
    if top_k == Some(0) {
        return Err("top_k is 0; it must be at least 1, or left out to consider all tokens".to_owned());
    }
    let len = params.stop_token_ids.len();
    if len > MAX_STOP_TOKENS {
        return Err(format!("there are {len} stop tokens; at most {MAX_STOP_TOKENS} are allowed"));
    }
    Ok(())
}
