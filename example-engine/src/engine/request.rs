//! What goes into the core and what comes out of it: plain data, one request per sequence.

use std::collections::HashMap;

/// How the next token of a sequence is chosen, and when the sequence ends.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Most output tokens; at least 1. The context length may end the sequence earlier.
    pub max_tokens: u32,
    /// 0 takes the likeliest token; higher is more random.
    pub temperature: f64,
    /// Only the likeliest tokens that together reach this probability are considered; in (0, 1].
    pub top_p: f64,
    /// Only this many of the likeliest tokens are considered.
    pub top_k: Option<u32>,
    /// Makes the sequence repeatable: the same request draws the same tokens, in whatever batch it runs.
    pub seed: Option<u64>,
    /// Tokens that end the sequence, beside the model's end-of-sequence tokens.
    pub stop_token_ids: Vec<u32>,
    /// Go on past end-of-sequence tokens; stop tokens still end the sequence.
    pub ignore_eos: bool,
}

impl Default for SamplingParams {
    /// vLLM's defaults.
    fn default() -> Self {
        Self {
            max_tokens: 16,
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            seed: None,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        }
    }
}

/// One sequence for the core. A request with `n` sequences is `n` of these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineCoreRequest {
    /// The sequence's own id, unique among the unfinished ones.
    pub request_id: String,
    /// The prompt; at least one token.
    pub prompt_token_ids: Vec<u32>,
    /// How to generate.
    pub sampling_params: SamplingParams,
    /// Lower is served first, under the priority policy alone.
    pub priority: i32,
    /// What `journey_layer::handoff` made of the request's span.
    pub carrier: HashMap<String, String>,
}

/// What one step brought for one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineCoreOutput {
    /// The tokens it produced, the one that ended it included.
    pub new_token_ids: Vec<u32>,
    /// Set on the last output of the sequence.
    pub finish_reason: Option<FinishReason>,
}

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence or stop token.
    Stop,
    /// `max_tokens` or the context length was reached.
    Length,
    /// Its stream was dropped, or the core was shut down.
    Abort,
    /// The model failed; the text says how.
    Error(String),
}
