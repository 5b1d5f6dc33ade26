//! A sequence inside the core.

use journey_layer::macros::journey_span;
use journey_layer::tracing::Span;
use journey_layer::{Phase, Progress};

use crate::engine::request::{EngineCoreRequest, SamplingParams};
use crate::kv_cache::{BlockHash, hash_new_full_blocks};

/// Place in the order in which sequences are served: under FCFS all priorities are 0. Preemption takes the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: i32,
    /// Counts the sequences as they come; never used twice.
    pub(super) number: u64,
}

/// What a sequence is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestStatus {
    Waiting,
    Running,
    /// Waiting again, with its KV thrown away.
    Preempted,
}

/// An unfinished sequence.
#[derive(Debug)]
pub(super) struct Request {
    /// Its `llm_core`.
    pub(super) span: Span,
    pub(super) request_id: String,
    pub(super) rank: Rank,
    pub(super) status: RequestStatus,
    pub(super) sampling_params: SamplingParams,
    /// Seed of the sequence: the one asked for, or a random one.
    pub(super) seed: u64,
    /// Prompt, then output.
    pub(super) all_token_ids: Vec<u32>,
    pub(super) num_prompt_tokens: usize,
    /// Tokens whose KV is in the cache, from the front.
    pub(super) num_computed_tokens: usize,
    /// The highest `num_computed_tokens` so far: what lies below it and is computed again, is recomputed.
    pub(super) max_computed_tokens: usize,
    pub(super) num_recomputed_tokens: usize,
    /// Set when first scheduled.
    pub(super) num_cached_tokens: Option<usize>,
    pub(super) num_preemptions: u64,
    /// Hashes of the full blocks of `all_token_ids`.
    pub(super) block_hashes: Vec<BlockHash>,
}

impl Request {
    pub(super) fn new(request: EngineCoreRequest, rank: Rank, seed: u64) -> Self {
        let span = core_span(&request);
        Self {
            span,
            request_id: request.request_id,
            rank,
            status: RequestStatus::Waiting,
            sampling_params: request.sampling_params,
            seed,
            num_prompt_tokens: request.prompt_token_ids.len(),
            all_token_ids: request.prompt_token_ids,
            num_computed_tokens: 0,
            max_computed_tokens: 0,
            num_recomputed_tokens: 0,
            num_cached_tokens: None,
            num_preemptions: 0,
            block_hashes: Vec::new(),
        }
    }

    pub(super) fn num_tokens(&self) -> usize {
        self.all_token_ids.len()
    }

    pub(super) fn num_output_tokens(&self) -> usize {
        self.num_tokens() - self.num_prompt_tokens
    }

    pub(super) fn update_block_hashes(&mut self, block_size: usize) {
        hash_new_full_blocks(&mut self.block_hashes, &self.all_token_ids, block_size);
    }

    /// Takes note that the KV of `count` more tokens is in the cache.
    pub(super) fn advance(&mut self, count: usize) {
        let before = self.num_computed_tokens;
        self.num_computed_tokens += count;
        self.num_recomputed_tokens += self.max_computed_tokens.min(self.num_computed_tokens).saturating_sub(before);
        self.max_computed_tokens = self.max_computed_tokens.max(self.num_computed_tokens);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.num_cached_tokens {
            None => Phase::Waiting,
            Some(_) if self.num_output_tokens() == 0 => Phase::Prefill,
            Some(_) => Phase::Decode,
        }
    }

    /// What the sequence's events say about it.
    pub(super) fn progress(&self, step: u64) -> Progress {
        let prefilled = self.max_computed_tokens.min(self.num_prompt_tokens);
        Progress::new()
            .step(step)
            .phase(self.phase())
            .prefill(prefilled as u64, self.num_prompt_tokens as u64)
            .recomputed(self.num_recomputed_tokens as u64)
            .decode(self.num_output_tokens() as u64, u64::from(self.sampling_params.max_tokens))
            .num_preemptions(self.num_preemptions)
    }
}

/// The `llm_core` of a sequence that the core has looked at: a child of the `llm_request` in the carrier.
pub(super) fn core_span(request: &EngineCoreRequest) -> Span {
    journey_span!(scope = "vllm.scheduler", request_id = %request.request_id, carrier = &request.carrier)
}
