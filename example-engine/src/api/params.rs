//! From a request's bytes to settings the engine can use; every refusal names its field.

use super::error::ApiError;
use super::types::{Content, Message, Prompt, RequestBody, Stop};

/// Stop strings of one request at most.
const MAX_STOPS: usize = 16;
/// Bytes of one stop string at most.
const MAX_STOP_BYTES: usize = 1024;
/// Prompts of one request at most.
const MAX_PROMPTS: usize = 64;
/// Sequences for each prompt at most.
const MAX_N: u32 = 64;
/// Sequences of one request at most: the core takes all of them or none, and more than may wait there it could never take.
const MAX_SEQUENCES: usize = 256;
/// `max_tokens` of a completion that gives none (OpenAI's default).
const DEFAULT_MAX_TOKENS: u32 = 16;

/// The two ways to ask for text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

/// One prompt, before the tokenizer.
#[derive(Debug)]
pub(super) enum PromptInput {
    /// A text to encode.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
    /// A conversation for the chat template.
    Chat(Vec<Message>),
}

/// How many tokens an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxTokens {
    /// No more than fit the context, and than this.
    UpTo(u32),
    /// So many, or the request is refused; and the field that says so.
    Asked(u32, &'static str),
}

/// A request that has passed every check that needs no tokenizer.
#[derive(Debug)]
pub(super) struct Validated {
    /// The model that was asked for, if any.
    pub model: Option<String>,
    /// At least one.
    pub prompts: Vec<PromptInput>,
    /// Sequences for each prompt, at least 1.
    pub n: u32,
    /// Output tokens at most.
    pub max_tokens: MaxTokens,
    /// 0 to 2.
    pub temperature: f64,
    /// In (0, 1].
    pub top_p: f64,
    /// `None` is all.
    pub top_k: Option<u32>,
    /// Makes sampling repeatable.
    pub seed: Option<u64>,
    /// Texts that end a sequence, none of them empty.
    pub stop: Vec<String>,
    /// Go on after the end-of-sequence token.
    pub ignore_eos: bool,
    /// For the scheduler's priority policy.
    pub priority: i32,
    /// Answer by server-sent events.
    pub stream: bool,
    /// End the stream with the usage.
    pub include_usage: bool,
}

/// Reads the JSON.
///
/// # Errors
/// What is not JSON or has a wrong type, with the path of the field.
pub(super) fn parse(bytes: &[u8]) -> Result<RequestBody, ApiError> {
    // serde would take an array for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let message = "invalid JSON: the body is not an object".to_owned();
        return Err(ApiError::Unreadable { param: None, message });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match path.as_str() {
            "." | "?" => ApiError::Unreadable { param: None, message: format!("invalid JSON: {error}") },
            // A number beyond f64 is a syntax error to serde_json; its field is worth naming all the same.
            _ => ApiError::unreadable(&path, format!("`{path}`: {error}")),
        }
    })?;
    json.end().map_err(|error| ApiError::Unreadable { param: None, message: format!("invalid JSON: {error}") })?;
    Ok(body)
}

/// Checks ranges, and that nothing is asked for that this server cannot do.
///
/// # Errors
/// The first field that is wrong.
pub(super) fn validate(endpoint: Endpoint, body: RequestBody) -> Result<Validated, ApiError> {
    refuse_unsupported(&body)?;
    let n = within("n", body.n.unwrap_or(1), 1, MAX_N)?;
    if let Some(best_of) = body.best_of.filter(|best_of| *best_of != n) {
        return Err(ApiError::invalid(
            "best_of",
            format!("`best_of` is {best_of}; only the value of `n`, {n}, is supported"),
        ));
    }
    let top_k = match body.top_k.unwrap_or(0) {
        -1 | 0 => None,
        k => Some(u32::try_from(k).map_err(|_| {
            ApiError::invalid("top_k", format!("`top_k` is {k}; it must be at least 1, or 0 or -1 for all tokens"))
        })?),
    };
    let top_p = within("top_p", body.top_p.unwrap_or(1.0), 0.0, 1.0)?;
    if top_p == 0.0 {
        return Err(ApiError::invalid("top_p", "`top_p` is 0; it must be above 0, and at most 1"));
    }
    let max_tokens = match (body.max_completion_tokens, body.max_tokens, endpoint) {
        (Some(asked), _, _) => MaxTokens::Asked(asked, "max_completion_tokens"),
        (None, Some(asked), _) => MaxTokens::Asked(asked, "max_tokens"),
        (None, None, Endpoint::Completions) => MaxTokens::UpTo(DEFAULT_MAX_TOKENS),
        (None, None, Endpoint::Chat) => MaxTokens::UpTo(u32::MAX),
    };
    if let MaxTokens::Asked(0, field) = max_tokens {
        return Err(ApiError::invalid(field, format!("`{field}` is 0; it must be at least 1")));
    }
    let prompts = prompts(endpoint, body.prompt, body.messages)?;
    if prompts.len() * n as usize > MAX_SEQUENCES {
        let message =
            format!("`n` is {n} for each of {} prompts; a request may have {MAX_SEQUENCES} sequences", prompts.len());
        return Err(ApiError::invalid("n", message));
    }
    let stream = body.stream.unwrap_or(false);
    if body.stream_options.is_some() && !stream {
        return Err(ApiError::invalid("stream_options", "`stream_options` needs `stream: true`"));
    }
    Ok(Validated {
        model: body.model,
        prompts,
        n,
        max_tokens,
        temperature: within("temperature", body.temperature.unwrap_or(1.0), 0.0, 2.0)?,
        top_p,
        top_k,
        // Any 64-bit seed is as good as another; the sign has no meaning.
        seed: body.seed.map(i64::cast_unsigned),
        stop: stops(body.stop)?,
        ignore_eos: body.ignore_eos.unwrap_or(false),
        priority: body.priority.unwrap_or(0),
        stream,
        include_usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
    })
}

fn refuse_unsupported(body: &RequestBody) -> Result<(), ApiError> {
    let asked = [
        ("echo", body.echo == Some(true)),
        ("logprobs", !matches!(body.logprobs, None | Some(serde_json::Value::Bool(false) | serde_json::Value::Null))),
        ("suffix", body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty())),
        ("logit_bias", body.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
        ("presence_penalty", body.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
        ("frequency_penalty", body.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
        ("tools", body.tools.as_ref().is_some_and(|tools| !tools.is_empty())),
        ("response_format", body.response_format.as_ref().is_some_and(|format| format.r#type != "text")),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(ApiError::invalid(*name, format!("`{name}` is not supported; leave it out"))),
        None => Ok(()),
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(name: &str, value: T, least: T, most: T) -> Result<T, ApiError> {
    // Written so that NaN, which no comparison holds for, is refused.
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(ApiError::invalid(name, format!("`{name}` is {value}; it must be from {least} to {most}")))
}

fn stops(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > MAX_STOPS {
        return Err(ApiError::invalid(
            "stop",
            format!("`stop` has {} texts; at most {MAX_STOPS} are allowed", stops.len()),
        ));
    }
    match stops.iter().position(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
        Some(at) => {
            let len = stops[at].len();
            Err(ApiError::invalid("stop", format!("`stop[{at}]` has {len} bytes; it must have 1 to {MAX_STOP_BYTES}")))
        }
        None => Ok(stops),
    }
}

fn prompts(
    endpoint: Endpoint,
    prompt: Option<Prompt>,
    messages: Option<Vec<Message>>,
) -> Result<Vec<PromptInput>, ApiError> {
    if endpoint == Endpoint::Chat {
        let messages = messages.ok_or_else(|| ApiError::invalid("messages", "`messages` is missing"))?;
        if messages.is_empty() {
            return Err(ApiError::invalid("messages", "`messages` is empty; at least one message is needed"));
        }
        check_parts(&messages)?;
        return Ok(vec![PromptInput::Chat(messages)]);
    }
    let prompts: Vec<_> = match prompt.ok_or_else(|| ApiError::invalid("prompt", "`prompt` is missing"))? {
        Prompt::Text(text) => vec![PromptInput::Text(text)],
        Prompt::Texts(texts) => texts.into_iter().map(PromptInput::Text).collect(),
        Prompt::Tokens(tokens) => vec![PromptInput::Tokens(tokens)],
        Prompt::TokenLists(lists) => lists.into_iter().map(PromptInput::Tokens).collect(),
    };
    if prompts.is_empty() || prompts.len() > MAX_PROMPTS {
        let len = prompts.len();
        return Err(ApiError::invalid(
            "prompt",
            format!("`prompt` has {len} prompts; it must have 1 to {MAX_PROMPTS}"),
        ));
    }
    Ok(prompts)
}

fn check_parts(messages: &[Message]) -> Result<(), ApiError> {
    for (at, message) in messages.iter().enumerate() {
        let Some(Content::Parts(parts)) = &message.content else { continue };
        if let Some(part) = parts.iter().find(|part| part.r#type != "text" || part.text.is_none()) {
            let field = format!("messages[{at}].content");
            let message = format!("`{field}` has a part of type `{}`; only `text` is supported", part.r#type);
            return Err(ApiError::unreadable(field, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(endpoint: Endpoint, json: &str) -> (Option<String>, String) {
        match parse(json.as_bytes()).and_then(|body| validate(endpoint, body)) {
            Err(ApiError::Invalid { param, message, .. } | ApiError::Unreadable { param, message }) => (param, message),
            other => panic!("{json} gave {other:?}"),
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (json, field) in [
            (r#"{"prompt": "a", "temperature": 3}"#, "temperature"),
            (r#"{"prompt": "a", "temperature": "hot"}"#, "temperature"),
            (r#"{"prompt": "a", "temperature": 1e999}"#, "temperature"),
            (r#"{"prompt": "a", "temperature": NaN}"#, "temperature"),
            (r#"{"prompt": "a", "top_p": 0}"#, "top_p"),
            (r#"{"prompt": "a", "top_p": 1.1}"#, "top_p"),
            (r#"{"prompt": "a", "top_k": -2}"#, "top_k"),
            (r#"{"prompt": "a", "top_k": 9999999999}"#, "top_k"),
            (r#"{"prompt": "a", "max_tokens": 0}"#, "max_tokens"),
            (r#"{"prompt": "a", "max_tokens": -1}"#, "max_tokens"),
            (r#"{"prompt": "a", "max_tokens": 1, "max_completion_tokens": 0}"#, "max_completion_tokens"),
            (r#"{"prompt": "a", "n": 0}"#, "n"),
            (r#"{"prompt": "a", "n": 1000}"#, "n"),
            (r#"{"prompt": ["a", "b", "c", "d", "e"], "n": 64}"#, "n"),
            (r#"{"prompt": "a", "n": 2, "best_of": 3}"#, "best_of"),
            (r#"{"prompt": "a", "stop": ["x", ""]}"#, "stop"),
            (r#"{"prompt": "a", "stop": 1}"#, "stop"),
            (r#"{"prompt": "a", "stream_options": {}}"#, "stream_options"),
            (r#"{"prompt": "a", "logprobs": 3}"#, "logprobs"),
            (r#"{"prompt": "a", "echo": true}"#, "echo"),
            (r#"{"prompt": {"a": 1}}"#, "prompt"),
            (r#"{"prompt": [1, -2]}"#, "prompt"),
            (r#"{"prompt": []}"#, "prompt"),
            ("{\"prompt\": \"\u{1}\"}", "prompt"),
            (r#"{}"#, "prompt"),
        ] {
            let (param, message) = refused(Endpoint::Completions, json);
            assert_eq!(param.as_deref(), Some(field), "{json}: {message}");
            assert!(message.contains(field), "{json}: {message}");
        }
        for (json, field) in [
            (r#"{"messages": []}"#, "messages"),
            (r#"{"messages": [{"content": "a"}]}"#, "messages[0]"),
            (r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#, "messages[0].content"),
            (r#"{"prompt": "a"}"#, "messages"),
        ] {
            let (param, message) = refused(Endpoint::Chat, json);
            assert_eq!(param.as_deref(), Some(field), "{json}: {message}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_as_such() {
        for json in ["", "{", "[1]", r#"[null, "a"]"#, "nul", r#"{"prompt": "a"} x"#] {
            let (_, message) = refused(Endpoint::Completions, json);
            assert!(message.contains("JSON"), "{json}: {message}");
        }
    }

    #[test]
    fn defaults_are_openai_s() {
        let body = parse(br#"{"prompt": ["a", "b"], "top_k": -1, "unknown": 1, "seed": null}"#).expect("valid");
        let valid = validate(Endpoint::Completions, body).expect("valid");
        assert_eq!((valid.prompts.len(), valid.n, valid.max_tokens), (2, 1, MaxTokens::UpTo(16)));
        assert_eq!((valid.temperature, valid.top_p, valid.top_k, valid.stream), (1.0, 1.0, None, false));
    }
}
