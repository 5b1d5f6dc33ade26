//! The demo's requests: a mix in which everything that can happen to a request happens.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Client, LoadError, has_text};
use crate::tokenizer::Tokenizer;

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const STORY: &str = "Once upon a time there was a little fox. The fox lived in the woods and had a friend. ";
/// Chunks that a client reads before it closes its connection.
const READ_BEFORE_CANCEL: usize = 3;

/// One request, and what is to become of it.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    route: &'static str,
    body: String,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Answered whole.
    Whole,
    /// Answered as a stream, and read to its end.
    Stream,
    /// Its client closes the connection in the middle of the stream.
    CancelledMidStream,
    /// Its client gives up before an answer begins.
    CancelledEarly,
    /// Refused with this status.
    Refused(u16),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Answered.
    Answered,
    /// Given up by the client, as planned.
    Cancelled,
    /// Refused, as planned.
    Refused,
}

/// The shapes of prompts that make the engine's queue, chunks and preemptions show.
#[derive(Debug)]
pub(super) struct Shapes {
    /// A prompt that is computed in several chunks, as token ids.
    pub(super) long_prompt: Vec<u32>,
    /// An answer that is long enough for the KV cache to run out.
    pub(super) long_answer: u32,
    /// Tokens that no prompt may have.
    pub(super) max_model_len: usize,
}

impl Shapes {
    /// Shapes for a model that sees `max_model_len` tokens.
    pub(super) fn new(tokenizer: &Tokenizer, max_model_len: usize) -> Self {
        let story = tokenizer.encode(STORY, false).unwrap_or_default();
        let long = max_model_len * 2 / 3;
        Self {
            long_prompt: story.iter().copied().cycle().take(long).collect(),
            long_answer: u32::try_from(max_model_len / 2).unwrap_or(u32::MAX),
            max_model_len,
        }
    }
}

/// The requests of a demo, `count` of them.
pub(super) fn plan(count: u32, shapes: &Shapes) -> Vec<Planned> {
    (0..count).map(|at| one(at, shapes)).collect()
}

fn one(at: u32, shapes: &Shapes) -> Planned {
    let prompt = format!("Day {at}. Once upon a time");
    let chat = json!([{"role": "user", "content": format!("Tell me story number {at}.")}]);
    let planned = |route, body: Value, fate| Planned { route, body: body.to_string(), fate };
    match at % 12 {
        0 => planned(COMPLETIONS, json!({"prompt": prompt, "max_tokens": 24}), Fate::Whole),
        1 => planned(
            COMPLETIONS,
            json!({"prompt": prompt, "max_tokens": shapes.long_answer, "ignore_eos": true, "stream": true}),
            Fate::Stream,
        ),
        2 => planned(CHAT, json!({"messages": chat, "max_tokens": 24, "temperature": 0.7, "top_p": 0.9}), Fate::Whole),
        3 => planned(
            CHAT,
            json!({"messages": chat, "max_tokens": shapes.long_answer, "ignore_eos": true, "seed": at, "stream": true,
                   "stream_options": {"include_usage": true}}),
            Fate::Stream,
        ),
        4 => planned(
            COMPLETIONS,
            json!({"prompt": shapes.long_prompt, "max_tokens": 16, "ignore_eos": true}),
            Fate::Whole,
        ),
        5 => planned(CHAT, json!({"messages": chat, "max_tokens": 16, "n": 3, "top_k": 20}), Fate::Whole),
        6 => planned(COMPLETIONS, json!({"prompt": [prompt, "The end of"], "max_tokens": 12}), Fate::Whole),
        7 => planned(
            COMPLETIONS,
            json!({"prompt": prompt, "max_tokens": 48, "ignore_eos": true, "stop": ["e", "."], "stream": true}),
            Fate::Stream,
        ),
        8 => planned(
            COMPLETIONS,
            json!({"prompt": prompt, "max_tokens": shapes.long_answer, "ignore_eos": true, "stream": true}),
            Fate::CancelledMidStream,
        ),
        9 => refused(at, shapes),
        10 => planned(
            COMPLETIONS,
            json!({"prompt": prompt, "max_tokens": shapes.long_answer, "ignore_eos": true, "priority": 1}),
            // Every second one of these is given up while it waits.
            if at % 24 == 10 { Fate::Whole } else { Fate::CancelledEarly },
        ),
        _ => planned(CHAT, json!({"messages": chat, "max_tokens": 32, "temperature": 0.0}), Fate::Whole),
    }
}

fn refused(at: u32, shapes: &Shapes) -> Planned {
    let (body, status) = match at / 12 % 4 {
        0 => (r#"{"prompt": "hot", "temperature": 99}"#.to_owned(), 400),
        1 => (r#"{"prompt": "#.to_owned(), 400),
        2 => (json!({"prompt": vec![11; shapes.max_model_len + 1]}).to_string(), 400),
        _ => (r#"{"model": "no-such-model", "prompt": "x"}"#.to_owned(), 404),
    };
    Planned { route: COMPLETIONS, body, fate: Fate::Refused(status) }
}

impl Planned {
    /// Sends the request, and does with its answer what was planned.
    ///
    /// # Errors
    /// Something else came of it, in words.
    pub(super) async fn run(&self, client: &Client) -> Result<Outcome, String> {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let words = |error: LoadError| error.to_string();
        match self.fate {
            Fate::Whole => client.whole(self.route, &body).await.map(|_| Outcome::Answered).map_err(words),
            Fate::Stream => {
                let mut events = client.stream(self.route, &body).await.map_err(words)?;
                while events.next().await.map_err(words)?.is_some() {}
                Ok(Outcome::Answered)
            }
            Fate::CancelledMidStream => {
                let mut events = client.stream(self.route, &body).await.map_err(words)?;
                let mut read = 0;
                while read < READ_BEFORE_CANCEL {
                    match events.next().await.map_err(words)? {
                        Some(chunk) => read += usize::from(has_text(&chunk)),
                        None => return Err("the stream ended before it could be cancelled".to_owned()),
                    }
                }
                Ok(Outcome::Cancelled)
            }
            Fate::CancelledEarly => {
                let sent = client.post(self.route, self.body.clone()).timeout(Duration::from_millis(30)).send().await;
                match sent {
                    Err(error) if error.is_timeout() => Ok(Outcome::Cancelled),
                    Err(error) => Err(error.to_string()),
                    // A fast machine may be done by then.
                    Ok(_) => Ok(Outcome::Answered),
                }
            }
            Fate::Refused(status) => {
                let response =
                    client.post(self.route, self.body.clone()).send().await.map_err(|error| error.to_string())?;
                match response.status().as_u16() {
                    answered if answered == status => Ok(Outcome::Refused),
                    answered => Err(format!("status {answered} in place of {status}")),
                }
            }
        }
    }
}
