//! A request on its way through the core: all its sequences, merged into one stream of deltas.

use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, AbortHandle, SelectAll, Stream, StreamExt, abortable};
use journey_layer::tracing::Span;
use journey_layer::{Carrier, journey_event, journey_record};
use tokio::sync::OwnedSemaphorePermit;

use super::ApiState;
use super::admission::LiveId;
use super::backend::Outputs;
use super::error::ApiError;
use super::journey;
use super::metrics::RequestTimer;
use super::output::OutputProcessor;
use super::submit::Incoming;
use super::types::Usage;
use crate::engine::{EngineCoreOutput, FinishReason};

type Tagged = std::pin::Pin<Box<dyn Stream<Item = (usize, Option<EngineCoreOutput>)> + Send>>;

/// News of one sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta {
    /// Number of the sequence: prompt by prompt, `n` of each.
    pub index: usize,
    /// Text that came to it.
    pub text: String,
    /// Set with its last delta.
    pub finish_reason: Option<&'static str>,
}

/// The sequences of a request after the core has taken them.
pub(super) struct Generation {
    state: Arc<ApiState>,
    prompts: Vec<PromptProgress>,
    sequences: Vec<Sequence>,
    outputs: SelectAll<Tagged>,
    unfinished: usize,
    deadline: Instant,
    /// Held until the first output: the request no longer waits then.
    waiting: Option<OwnedSemaphorePermit>,
    timer: RequestTimer,
    /// One for each prompt, held until the end.
    ids: Vec<LiveId>,
}

/// What one prompt's journey still has to be told.
struct PromptProgress {
    span: Span,
    carrier: Carrier,
    prompt_tokens: u64,
    completion_tokens: u64,
    responded: bool,
    unfinished: usize,
}

struct Sequence {
    prompt: usize,
    processor: OutputProcessor,
    abort: AbortHandle,
    finished: bool,
}

impl Generation {
    /// No sequence yet.
    pub(super) fn new(state: Arc<ApiState>, incoming: Incoming, waiting: OwnedSemaphorePermit) -> Self {
        let Incoming { ids, deadline, timer, .. } = incoming;
        Self {
            state,
            prompts: Vec::new(),
            sequences: Vec::new(),
            outputs: SelectAll::new(),
            unfinished: 0,
            deadline,
            waiting: Some(waiting),
            timer,
            ids,
        }
    }

    /// The next prompt; the sequences that are added after it are its own.
    pub(super) fn add_prompt(&mut self, span: Span, carrier: Carrier, prompt_tokens: usize) {
        let prompt_tokens = prompt_tokens as u64;
        let progress =
            PromptProgress { span, carrier, prompt_tokens, completion_tokens: 0, responded: false, unfinished: 0 };
        self.prompts.push(progress);
    }

    /// A sequence of the last prompt.
    pub(super) fn add_sequence(&mut self, outputs: Outputs, processor: OutputProcessor) {
        let index = self.sequences.len();
        let (outputs, abort) = abortable(outputs);
        // `None` marks the end, so that a core that dies is told from one that is silent.
        let tagged = outputs.map(move |output| (index, Some(output))).chain(stream::iter([(index, None)]));
        self.outputs.push(Box::pin(tagged));
        let prompt = self.prompts.len() - 1;
        self.sequences.push(Sequence { prompt, processor, abort, finished: false });
        self.prompts[prompt].unfinished += 1;
        self.unfinished += 1;
    }

    /// Number of sequences.
    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Tokens of all prompts and sequences so far.
    pub(super) fn usage(&self) -> Usage {
        let prompt_tokens = self.prompts.iter().map(|prompt| prompt.prompt_tokens).sum();
        let completion_tokens = self.prompts.iter().map(|prompt| prompt.completion_tokens).sum();
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }

    /// The next delta; `None` after the last one.
    ///
    /// # Errors
    /// What ended the request early. Its sequences are aborted by then; its journeys are left to the caller.
    pub(super) async fn next(&mut self) -> Option<Result<Delta, ApiError>> {
        while self.unfinished > 0 {
            let step = tokio::select! {
                biased;
                () = self.state.lifecycle.stopped() => Err(ApiError::ShuttingDown),
                () = tokio::time::sleep_until(self.deadline.into()) => Err(self.state.limits.timeout()),
                next = self.outputs.next() => Ok(next.expect("an unfinished sequence's stream has an end to report")),
            };
            match step.and_then(|(index, output)| self.process(index, output)) {
                Ok(None) => {}
                Ok(Some(delta)) => return Some(Ok(delta)),
                Err(error) => {
                    self.outputs.clear();
                    self.unfinished = 0;
                    return Some(self.timer.note(Err(error)));
                }
            }
        }
        None
    }

    fn process(&mut self, index: usize, output: Option<EngineCoreOutput>) -> Result<Option<Delta>, ApiError> {
        let sequence = &mut self.sequences[index];
        if sequence.finished {
            return Ok(None);
        }
        let Some(output) = output else {
            return Err(ApiError::Generation("the engine core ended before the sequence did".into()));
        };
        let prompt = &mut self.prompts[sequence.prompt];
        self.waiting = None;
        if !std::mem::replace(&mut prompt.responded, true) {
            journey_event!(&prompt.span, FIRST_RESPONSE_FROM_CORE);
        }
        match &output.finish_reason {
            Some(FinishReason::Error(message)) => return Err(ApiError::Generation(message.clone())),
            // Not by us: an aborted sequence of ours is not listened to.
            Some(FinishReason::Abort) => return Err(ApiError::ShuttingDown),
            Some(FinishReason::Stop | FinishReason::Length) | None => {}
        }
        let new_tokens = output.new_token_ids.len();
        prompt.completion_tokens += new_tokens as u64;
        self.timer.tokens(index, new_tokens);
        let (text, finish_reason) = sequence.processor.process(&output);
        if let Some(reason) = finish_reason {
            sequence.finished = true;
            sequence.abort.abort();
            self.unfinished -= 1;
            prompt.unfinished -= 1;
            self.timer.finished(reason);
            if prompt.unfinished == 0 {
                prompt.finished(&self.state, self.ids[sequence.prompt].as_str());
            }
            if self.unfinished == 0 {
                self.timer.answered();
            }
        }
        Ok((!text.is_empty() || finish_reason.is_some()).then_some(Delta { index, text, finish_reason }))
    }

    /// The response is dropped before its end: if the server has stopped, that is why.
    pub(super) fn cut_off(&self) {
        if self.state.lifecycle.is_stopped() {
            let error = ApiError::ShuttingDown;
            self.abort_journeys(&error);
            self.timer.aborted(error.abort_reason());
        }
    }

    /// Ends all journeys of the request: for a response that has begun, and can be no other any more.
    pub(super) fn abort_journeys(&self, error: &ApiError) {
        self.prompts.iter().for_each(|prompt| journey::abort(&prompt.span, error));
    }
}

impl PromptProgress {
    fn finished(&self, state: &ApiState, request_id: &str) {
        if let Some(do_tracing) = &state.do_tracing {
            do_tracing.replay(request_id, &self.carrier, self.completion_tokens);
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // On every path, streaming or not, whole or cut short: these were lost once, on one of them.
        for prompt in &self.prompts {
            journey_record!(&prompt.span, completion_tokens = prompt.completion_tokens);
        }
    }
}
