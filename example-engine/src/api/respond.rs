//! The two forms of an answer: one JSON document, or server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::error::ApiError;
use super::generation::{Delta, Generation};
use super::journey::RequestJourney;
use super::output::OutputProcessor;
use super::params::Endpoint;
use super::submit::{Incoming, Prepared, Taken, in_time, submit};
use super::types::{Answer, ChatText, Choice, ChoiceContent, Usage};
use super::{ApiState, unix_seconds};

/// What every chunk of one answer has in common.
struct Head {
    endpoint: Endpoint,
    id: String,
    created: u64,
    model: String,
}

/// Has a request generated, and answers in the form that it asked for.
///
/// # Errors
/// What ended the request before its response began.
pub(super) async fn respond(
    state: Arc<ApiState>,
    incoming: Incoming,
    request: Prepared,
    journeys: &[RequestJourney],
) -> Result<Response, ApiError> {
    let (id, model) = (incoming.id().to_owned(), state.model.name.clone());
    let head = Head { endpoint: incoming.endpoint, id, created: unix_seconds(), model };
    let taken = in_time(&state, incoming.deadline, submit(&state, &incoming, &request, journeys)).await;
    let taken = incoming.timer.note(taken)?;
    let (stream, include_usage) = (request.asked.stream, request.asked.include_usage);
    let generation = generation(state, incoming, request, journeys, taken);
    match stream {
        true => Ok(streamed(head, generation, include_usage)),
        false => whole(head, generation).await,
    }
}

fn generation(
    state: Arc<ApiState>,
    incoming: Incoming,
    request: Prepared,
    journeys: &[RequestJourney],
    taken: Vec<Taken>,
) -> Generation {
    let Prepared { asked, prompts, waiting } = request;
    let mut generation = Generation::new(state.clone(), incoming, waiting);
    for ((prompt, journey), Taken { carrier, sequences }) in prompts.iter().zip(journeys).zip(taken) {
        generation.add_prompt(journey.span(), carrier, prompt.token_ids.len());
        for outputs in sequences {
            let stop = asked.stop.clone();
            generation.add_sequence(outputs, OutputProcessor::new(&state.tokenizer, &prompt.token_ids, stop));
        }
    }
    generation
}

async fn whole(head: Head, mut generation: Generation) -> Result<Response, ApiError> {
    let mut sequences = vec![(String::new(), None); generation.len()];
    while let Some(delta) = generation.next().await {
        let delta = delta?;
        let (text, finish_reason) = &mut sequences[delta.index];
        text.push_str(&delta.text);
        *finish_reason = delta.finish_reason;
    }
    let choice = |(index, (text, finish_reason)): (usize, (String, Option<&'static str>))| {
        let content = match head.endpoint {
            Endpoint::Completions => ChoiceContent::Text(text),
            Endpoint::Chat => ChoiceContent::Message(ChatText { role: Some("assistant"), content: Some(text) }),
        };
        Choice { index, content, logprobs: None, finish_reason }
    };
    let object = match head.endpoint {
        Endpoint::Completions => "text_completion",
        Endpoint::Chat => "chat.completion",
    };
    let choices = sequences.into_iter().enumerate().map(choice).collect();
    Ok(Json(head.answer(object, choices, Some(generation.usage()))).into_response())
}

/// Where a stream is.
enum Stage {
    /// Chat: each sequence begins with its role.
    Roles(usize),
    Deltas,
    Usage,
    Done,
    /// An error was said, and the journeys have ended with it.
    Failed,
    Ended,
}

struct Streaming {
    head: Head,
    generation: Generation,
    include_usage: bool,
    stage: Stage,
}

fn streamed(head: Head, generation: Generation, include_usage: bool) -> Response {
    let stage = match head.endpoint {
        Endpoint::Completions => Stage::Deltas,
        Endpoint::Chat => Stage::Roles(0),
    };
    let streaming = Streaming { head, generation, include_usage, stage };
    let events = stream::unfold(streaming, |mut streaming| async {
        let event = streaming.next().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Streaming {
    async fn next(&mut self) -> Option<Event> {
        loop {
            match self.stage {
                Stage::Roles(index) if index < self.generation.len() => {
                    self.stage = Stage::Roles(index + 1);
                    let role = ChatText { role: Some("assistant"), content: Some(String::new()) };
                    return Some(self.head.chunk(index, ChoiceContent::Delta(role), None));
                }
                Stage::Roles(_) => self.stage = Stage::Deltas,
                Stage::Deltas => match self.generation.next().await {
                    Some(Ok(delta)) => return Some(self.head.delta(delta)),
                    Some(Err(error)) => {
                        // The status has long been sent; the body alone can still say it.
                        self.generation.abort_journeys(&error);
                        self.stage = Stage::Failed;
                        return Some(Event::default().data(error.to_json()));
                    }
                    None => self.stage = if self.include_usage { Stage::Usage } else { Stage::Done },
                },
                Stage::Usage => {
                    self.stage = Stage::Done;
                    return Some(self.head.usage(self.generation.usage()));
                }
                Stage::Done | Stage::Failed => {
                    self.stage = Stage::Ended;
                    return Some(Event::default().data("[DONE]"));
                }
                Stage::Ended => return None,
            }
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // A client that does not read cannot be told of the server's end, and is cut off: it has not gone away.
        if !matches!(self.stage, Stage::Failed | Stage::Ended) {
            self.generation.cut_off();
        }
    }
}

impl Head {
    fn answer(&self, object: &'static str, choices: Vec<Choice>, usage: Option<Usage>) -> Answer<'_> {
        Answer { id: &self.id, object, created: self.created, model: &self.model, choices, usage }
    }

    fn event(&self, choices: Vec<Choice>, usage: Option<Usage>) -> Event {
        let object = match self.endpoint {
            Endpoint::Completions => "text_completion",
            Endpoint::Chat => "chat.completion.chunk",
        };
        let json = serde_json::to_string(&self.answer(object, choices, usage));
        Event::default().data(json.expect("an answer has string keys only"))
    }

    fn chunk(&self, index: usize, content: ChoiceContent, finish_reason: Option<&'static str>) -> Event {
        self.event(vec![Choice { index, content, logprobs: None, finish_reason }], None)
    }

    fn delta(&self, delta: Delta) -> Event {
        let content = match self.endpoint {
            Endpoint::Completions => ChoiceContent::Text(delta.text),
            Endpoint::Chat => {
                let content = Some(delta.text).filter(|text| !text.is_empty());
                ChoiceContent::Delta(ChatText { role: None, content })
            }
        };
        self.chunk(delta.index, content, delta.finish_reason)
    }

    fn usage(&self, usage: Usage) -> Event {
        self.event(Vec::new(), Some(usage))
    }
}
