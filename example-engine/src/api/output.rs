//! The output processor: from the core's tokens to the client's text.

use super::stop::StopMatcher;
use crate::engine::{EngineCoreOutput, FinishReason};
use crate::tokenizer::{Detokenizer, Tokenizer};

/// Turns one sequence's tokens into text, and watches for its stop strings.
pub(super) struct OutputProcessor {
    detokenizer: Detokenizer,
    stop: StopMatcher,
}

impl OutputProcessor {
    /// A processor for a new sequence after a prompt.
    pub(super) fn new(tokenizer: &Tokenizer, prompt_token_ids: &[u32], stop: Vec<String>) -> Self {
        Self { detokenizer: tokenizer.detokenizer(prompt_token_ids), stop: StopMatcher::new(stop) }
    }

    /// Takes an output: the text that is safe to return, and why the sequence ended if it did.
    pub(super) fn process(&mut self, output: &EngineCoreOutput) -> (String, Option<&'static str>) {
        let mut text = String::new();
        for token in &output.new_token_ids {
            let released = self.stop.push(&self.detokenizer.push(*token));
            text += &released.text;
            if released.stopped {
                return (text, Some("stop"));
            }
        }
        let finish_reason = match output.finish_reason {
            None => return (text, None),
            Some(FinishReason::Stop) => "stop",
            Some(FinishReason::Length) => "length",
            Some(FinishReason::Abort) => "abort",
            Some(FinishReason::Error(_)) => "error",
        };
        let released = self.stop.push(&self.detokenizer.finish());
        text += &released.text;
        if released.stopped {
            return (text, Some("stop"));
        }
        (text + &self.stop.finish(), Some(finish_reason))
    }
}
