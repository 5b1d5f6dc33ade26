//! The JSON of the OpenAI API, as far as this server speaks it.

use serde::{Deserialize, Serialize};

/// The body of `/v1/completions` and of `/v1/chat/completions`.
///
/// One struct for both, because they share all but their prompt; serde's `flatten` would lose the path of the field
/// that an error is about. Unknown fields are ignored, as OpenAI does; known ones that this server cannot honour are
/// refused in [`params`](super::params).
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub(super) struct RequestBody {
    /// Name of the model; the served one when left out.
    pub model: Option<String>,
    /// `/v1/completions`: what to continue.
    pub prompt: Option<Prompt>,
    /// `/v1/chat/completions`: the conversation so far.
    pub messages: Option<Vec<Message>>,
    /// Output tokens at most.
    pub max_tokens: Option<u32>,
    /// The chat API's newer name for `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    /// 0 (greedy) to 2.
    pub temperature: Option<f64>,
    /// Nucleus: above 0, to 1.
    pub top_p: Option<f64>,
    /// The k most likely tokens; 0 or -1 is all.
    pub top_k: Option<i64>,
    /// Makes sampling repeatable.
    pub seed: Option<i64>,
    /// Texts that end a sequence; they are not returned.
    pub stop: Option<Stop>,
    /// Go on after the end-of-sequence token.
    pub ignore_eos: Option<bool>,
    /// Sequences for each prompt.
    pub n: Option<u32>,
    /// Smaller is served first, where the scheduler's policy is `priority`.
    pub priority: Option<i32>,
    /// Answer by server-sent events.
    pub stream: Option<bool>,
    /// Settings of the stream.
    pub stream_options: Option<StreamOptions>,
    /// Not supported above `n`.
    pub best_of: Option<u32>,
    /// Not supported.
    pub echo: Option<bool>,
    /// Not supported. An integer in the one API, a boolean in the other.
    pub logprobs: Option<serde_json::Value>,
    /// Not supported.
    pub suffix: Option<String>,
    /// Not supported unless empty.
    pub logit_bias: Option<serde_json::Map<String, serde_json::Value>>,
    /// Not supported unless 0.
    pub presence_penalty: Option<f64>,
    /// Not supported unless 0.
    pub frequency_penalty: Option<f64>,
    /// Not supported unless empty.
    pub tools: Option<Vec<serde_json::Value>>,
    /// Only `{"type": "text"}`.
    pub response_format: Option<ResponseFormat>,
}

/// What `/v1/completions` continues.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, an array of strings, or token ids")]
pub(super) enum Prompt {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One text, as token ids.
    Tokens(Vec<u32>),
    /// Several texts, as token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// One message of a conversation.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or what else the chat template knows.
    pub role: String,
    /// What was said.
    pub content: Option<Content>,
    /// The speaker's name.
    pub name: Option<String>,
}

/// The content of a message.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of text parts")]
pub enum Content {
    /// A plain text.
    Text(String),
    /// Parts, which are joined.
    Parts(Vec<Part>),
}

/// One part of a message.
#[derive(Clone, Debug, Deserialize)]
pub struct Part {
    /// Only `text`.
    pub r#type: String,
    /// The text.
    pub text: Option<String>,
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of strings")]
pub(super) enum Stop {
    /// One text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

/// Settings of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    /// End the stream with a chunk that has the usage and no choice.
    pub include_usage: Option<bool>,
}

/// How the answer is formed.
#[derive(Debug, Deserialize)]
pub(super) struct ResponseFormat {
    /// Only `text`.
    pub r#type: String,
}

/// Tokens that a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
}

/// A whole answer, or one chunk of a streamed one.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    /// `cmpl-..` or `chatcmpl-..`.
    pub id: &'a str,
    /// `text_completion`, `chat.completion` or `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since the epoch.
    pub created: u64,
    /// The model that answered.
    pub model: &'a str,
    /// One for each sequence; in a chunk, those that have news.
    pub choices: Vec<Choice>,
    /// In a whole answer, and in the last chunk with `include_usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One sequence of an answer.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    /// Number of the sequence: prompt by prompt, `n` of each.
    pub index: usize,
    /// What was generated.
    #[serde(flatten)]
    pub content: ChoiceContent,
    /// Always null: log probabilities are not supported.
    pub logprobs: Option<()>,
    /// `stop`, `length`, or null while the sequence goes on.
    pub finish_reason: Option<&'static str>,
}

/// The generated text, where each API wants it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChoiceContent {
    /// `/v1/completions`.
    Text(String),
    /// `/v1/chat/completions`, whole.
    Message(ChatText),
    /// `/v1/chat/completions`, streamed.
    Delta(ChatText),
}

/// The assistant's message, or what comes to it.
#[derive(Debug, Default, Serialize)]
pub(super) struct ChatText {
    /// `assistant`; in a stream, only in the first chunk of a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// The fields of [`RequestBody`], as serde knows them.
#[cfg(test)]
pub(super) fn field_names() -> &'static [&'static str] {
    use serde::de::{Error, Visitor, value};
    use serde::forward_to_deserialize_any;

    /// Takes down what a struct asks for, and gives nothing.
    struct Asked<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Asked<'_> {
        type Error = value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Error::custom("only asked"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("not a struct"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    RequestBody::deserialize(Asked(&mut fields)).expect_err("nothing is given");
    fields
}
