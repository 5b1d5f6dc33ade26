//! `tokenizer.json`: text to tokens and back, whole or token by token.

use std::path::Path;
use std::sync::Arc;

use crate::model::LoadError;

/// A tokenizer. A clone is another handle to the same one.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
}

/// Text that the tokenizer does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text cannot be tokenized: {0}")]
pub struct TokenizeError(String);

impl Tokenizer {
    /// Loads `dir/tokenizer.json`. Its own padding and truncation are switched off: a prompt is taken as it is.
    ///
    /// # Errors
    /// The file is missing or malformed.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(LoadError::io(&path))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| LoadError::broken(&path, error))?;
        inner.with_padding(None).with_truncation(None).map_err(|error| LoadError::broken(&path, error))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Text to tokens. `add_special_tokens` adds what the file says belongs around a text, such as a beginning token.
    ///
    /// # Errors
    /// The tokenizer has no token for some of the text, and none for the unknown.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizeError> {
        let encoding = self.inner.encode_fast(text, add_special_tokens);
        encoding.map(|encoding| encoding.get_ids().to_vec()).map_err(|error| TokenizeError(error.to_string()))
    }

    /// Tokens to text. Tokens outside the vocabulary are left out, special ones when `skip_special_tokens`.
    pub fn decode(&self, token_ids: &[u32], skip_special_tokens: bool) -> String {
        self.inner.decode(token_ids, skip_special_tokens).unwrap_or_default()
    }

    /// Tokens in the vocabulary, the added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that is written `token`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A detokenizer for what follows `prompt_token_ids`. Special tokens give no text.
    pub fn detokenizer(&self, prompt_token_ids: &[u32]) -> Detokenizer {
        let context = &prompt_token_ids[prompt_token_ids.len().saturating_sub(CONTEXT_TOKENS)..];
        let (read_offset, token_ids) = (context.len(), context.to_vec());
        Detokenizer { tokenizer: self.clone(), token_ids, prefix_offset: 0, read_offset }
    }
}

/// Tokens of the prompt that decide how the first output token is written, such as whether a space belongs before it.
const CONTEXT_TOKENS: usize = 6;

/// Turns the tokens of one sequence into text as they come.
///
/// A character may take several tokens, and the text of a token may depend on those before it. So each text is the
/// difference between two decodings that begin at the same token, and is held back while its last character is not whole.
///
/// ```text
/// token_ids   |---- gone ----|-- context --|-- new --|
///                            prefix_offset  read_offset
/// ```
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    token_ids: Vec<u32>,
    prefix_offset: usize,
    read_offset: usize,
}

impl Detokenizer {
    /// Takes the next token and gives the text that is complete now, which may be empty.
    pub fn push(&mut self, token_id: u32) -> String {
        self.token_ids.push(token_id);
        let text = self.new_text();
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        self.prefix_offset = self.read_offset;
        self.read_offset = self.token_ids.len();
        text
    }

    /// Gives what was held back, after the last token. A character that never became whole is U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = self.new_text();
        self.prefix_offset = self.read_offset;
        self.read_offset = self.token_ids.len();
        text
    }

    fn new_text(&self) -> String {
        let decode = |token_ids| self.tokenizer.decode(token_ids, true);
        let before = decode(&self.token_ids[self.prefix_offset..self.read_offset]);
        let mut text = decode(&self.token_ids[self.prefix_offset..]);
        // Normally all of `before`; less where later tokens change how earlier ones are written.
        let common = text.char_indices().zip(before.chars()).find(|((_, a), b)| a != b);
        let common = common.map_or(before.len().min(text.len()), |((index, _), _)| index);
        text.split_off(common)
    }
}
