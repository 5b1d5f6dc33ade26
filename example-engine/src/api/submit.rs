//! From a request's body to its sequences in the core.

use std::future::Future;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use futures_util::future::try_join_all;
use journey_layer::Carrier;
use tokio::sync::OwnedSemaphorePermit;

use super::ApiState;
use super::admission::{LiveId, wait};
use super::backend::Outputs;
use super::error::ApiError;
use super::journey::RequestJourney;
use super::metrics::RequestTimer;
use super::params::{Endpoint, MaxTokens, PromptInput, Validated, parse, validate};
use crate::engine::{EngineCoreRequest, SamplingParams};

/// What is in longer bodies is encoded on threads where it blocks nobody, bytes.
const ENCODE_INLINE: usize = 8 * 1024;

/// A request as it came in.
pub(super) struct Incoming {
    /// What it asks for.
    pub endpoint: Endpoint,
    /// `cmpl-..` or `chatcmpl-..`; further prompts have one of their own each.
    pub ids: Vec<LiveId>,
    /// When it must be answered.
    pub deadline: Instant,
    /// Its times.
    pub timer: RequestTimer,
}

/// A request that the core can take.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What the client asked for.
    pub asked: Validated,
    /// One for each journey.
    pub prompts: Vec<EncodedPrompt>,
    /// The right to wait for the core.
    pub waiting: OwnedSemaphorePermit,
}

/// A prompt after the tokenizer.
#[derive(Debug)]
pub(super) struct EncodedPrompt {
    /// At least one token.
    pub token_ids: Vec<u32>,
    /// Output tokens at most; they fit.
    pub max_tokens: u32,
}

impl Incoming {
    /// A request that arrives now.
    pub(super) fn new(state: &ApiState, endpoint: Endpoint, id: String) -> Self {
        let deadline = Instant::now() + state.limits.request_timeout;
        Self { endpoint, ids: vec![state.live_ids.take(id)], deadline, timer: state.metrics.arrived() }
    }

    /// The id towards the client, and the `gen_ai.request.id` of the first prompt's journey.
    pub(super) fn id(&self) -> &str {
        self.ids[0].as_str()
    }

    /// The `gen_ai.request.id` of another prompt's journey.
    pub(super) fn another_id(&mut self, state: &ApiState) -> &str {
        let id = state.live_ids.take(format!("{}-{}", self.id(), self.ids.len()));
        self.ids.push(id);
        self.ids[self.ids.len() - 1].as_str()
    }

    /// The id of a sequence in the core, as the Python engine forms it. The random end keeps it unique among the core's
    /// requests whatever ids clients choose.
    fn sequence_id(&self, prompt: usize, sequence: u32, n: u32) -> String {
        let child = if n > 1 { format!("{sequence}_") } else { String::new() };
        let prompt = match self.endpoint {
            Endpoint::Completions => format!("-{prompt}"),
            Endpoint::Chat => String::new(),
        };
        format!("{child}{}{prompt}-{:08x}", self.id(), rand::random::<u32>())
    }
}

/// Works on a request until it is done, its time is over, or the server stops.
///
/// # Errors
/// Those of `work`, the time-out, or the server's stop.
pub(super) async fn in_time<T>(
    state: &ApiState,
    deadline: Instant,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::select! {
        biased;
        result = work => result,
        () = state.lifecycle.stopped() => Err(ApiError::ShuttingDown),
        () = tokio::time::sleep_until(deadline.into()) => Err(state.limits.timeout()),
    }
}

/// Reads, checks and encodes a request.
///
/// # Errors
/// What is wrong with it, naming the field.
pub(super) async fn prepare(
    state: &ApiState,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
) -> Result<Prepared, ApiError> {
    let bytes = read(state, headers, body).await?;
    let waiting = wait(state)?;
    let asked = validate(endpoint, parse(&bytes)?)?;
    if let Some(model) = asked.model.as_ref().filter(|model| **model != state.model.name) {
        return Err(ApiError::ModelNotFound { asked: model.clone(), served: state.model.name.clone() });
    }
    let mut prompts = Vec::with_capacity(asked.prompts.len());
    let inline = bytes.len() <= ENCODE_INLINE;
    for prompt in &asked.prompts {
        let (field, token_ids) = encode(state, prompt, inline).await?;
        prompts.push(EncodedPrompt { max_tokens: max_tokens(state, field, &asked, token_ids.len())?, token_ids });
    }
    Ok(Prepared { asked, prompts, waiting })
}

/// What the core has taken of one prompt.
pub(super) struct Taken {
    pub(super) carrier: Carrier,
    pub(super) sequences: Vec<Outputs>,
}

/// Hands the sequences of every prompt to the core.
///
/// # Errors
/// The core does not take them all; those it had taken are aborted.
pub(super) async fn submit(
    state: &ApiState,
    incoming: &Incoming,
    request: &Prepared,
    journeys: &[RequestJourney],
) -> Result<Vec<Taken>, ApiError> {
    for (at, journey) in journeys.iter().enumerate() {
        journey.asked(request, at, &state.model.name);
    }
    // All at once: the core answers between two of its steps, and each one waited for would cost a step.
    let taken = request.prompts.iter().zip(journeys).enumerate().map(async |(at, (prompt, journey))| {
        let carrier = journey.carrier();
        let sequences = (0..request.asked.n).map(|sequence| {
            let id = incoming.sequence_id(at, sequence, request.asked.n);
            state.backend.add_request(core_request(&request.asked, prompt, id, sequence, carrier.clone()))
        });
        let sequences = try_join_all(sequences).await?;
        journey.handed_off();
        Ok(Taken { carrier, sequences })
    });
    try_join_all(taken).await
}

fn core_request(
    asked: &Validated,
    prompt: &EncodedPrompt,
    request_id: String,
    sequence: u32,
    carrier: Carrier,
) -> EngineCoreRequest {
    EngineCoreRequest {
        request_id,
        prompt_token_ids: prompt.token_ids.clone(),
        sampling_params: SamplingParams {
            max_tokens: prompt.max_tokens,
            temperature: asked.temperature,
            top_p: asked.top_p,
            top_k: asked.top_k,
            // Each sequence of one prompt has to be another.
            seed: asked.seed.map(|seed| seed.wrapping_add(u64::from(sequence))),
            stop_token_ids: Vec::new(),
            ignore_eos: asked.ignore_eos,
        },
        priority: asked.priority,
        carrier,
    }
}

async fn read(state: &ApiState, headers: &HeaderMap, body: Body) -> Result<axum::body::Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let json = kind.as_deref().and_then(|kind| kind.split(';').next());
    if !json.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        let given = kind.map_or("(none)".to_owned(), |kind| format!("`{kind}`"));
        return Err(ApiError::ContentType(given));
    }
    let (limit, time) = (state.limits.max_body_bytes, state.limits.body_timeout);
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::TooLarge { limit });
    }
    let bytes = tokio::time::timeout(time, axum::body::to_bytes(body, limit)).await;
    let bytes = bytes.map_err(|_| ApiError::SlowBody { seconds: time.as_secs_f64() })?;
    bytes.map_err(|error| {
        let cause = std::error::Error::source(&error);
        match cause.is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>()) {
            true => ApiError::TooLarge { limit },
            false => ApiError::BodyLost(error.to_string()),
        }
    })
}

/// The tokens of a prompt, and the field that it came in.
async fn encode(state: &ApiState, prompt: &PromptInput, inline: bool) -> Result<(&'static str, Vec<u32>), ApiError> {
    // A chat template writes the special tokens itself.
    let (field, text, special) = match prompt {
        PromptInput::Tokens(token_ids) => {
            let vocab_size = state.model.vocab_size;
            return match token_ids.iter().find(|id| **id as usize >= vocab_size) {
                Some(id) => Err(ApiError::invalid(
                    "prompt",
                    format!("`prompt` has the token id {id}; the model has the ids 0 to {}", vocab_size - 1),
                )),
                None => Ok(("prompt", token_ids.clone())),
            };
        }
        PromptInput::Text(text) => ("prompt", text.clone(), true),
        PromptInput::Chat(messages) => {
            let text = state.template.render(messages);
            ("messages", text.map_err(|error| ApiError::unreadable("messages", error.to_string()))?, false)
        }
    };
    let tokenizer = state.tokenizer.clone();
    let encoded = if inline {
        tokenizer.encode(&text, special)
    } else {
        let encoded = state.encoders.run(move || tokenizer.encode(&text, special)).await;
        // What a panic says may have the prompt in it.
        encoded.ok_or_else(|| ApiError::Generation("the tokenizer panicked".into()))?
    };
    Ok((field, encoded.map_err(|error| ApiError::unreadable(field, format!("`{field}`: {error}")))?))
}

/// How many tokens the answer may have.
fn max_tokens(state: &ApiState, field: &str, asked: &Validated, prompt_tokens: usize) -> Result<u32, ApiError> {
    let longest = state.model.max_model_len;
    if prompt_tokens == 0 {
        return Err(ApiError::invalid(field, format!("`{field}` is empty; at least one token is needed")));
    }
    let room = u32::try_from(longest.saturating_sub(prompt_tokens)).unwrap_or(u32::MAX);
    let (wrong, message) = match asked.max_tokens {
        _ if room == 0 => {
            let most = longest.saturating_sub(1);
            (
                field,
                format!("`{field}` has {prompt_tokens} tokens; the model takes at most {most}, and answers with one"),
            )
        }
        MaxTokens::Asked(wanted, name) if wanted > room => {
            let message = format!(
                "the model's context length is {longest} tokens, but {prompt_tokens} in `{field}` and {wanted} in \
                 `{name}` were asked for; shorten `{field}` or lower `{name}`"
            );
            (name, message)
        }
        MaxTokens::Asked(wanted, _) => return Ok(wanted),
        MaxTokens::UpTo(most) => return Ok(room.min(most)),
    };
    Err(ApiError::Invalid { param: Some(wrong.to_owned()), code: Some("context_length_exceeded"), message })
}
