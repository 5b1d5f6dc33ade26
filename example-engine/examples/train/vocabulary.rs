//! Makes `tokenizer.json` and `tokenizer_config.json` for the corpus.

use std::error::Error;
use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::corpus::{ASSISTANT, SYSTEM, USER};

/// Token before every text.
pub(crate) const BOS: &str = "<|begin|>";
/// Token after every text.
pub(crate) const EOS: &str = "<|end|>";
/// Most tokens in the vocabulary; fewer when the corpus has no more words.
const VOCAB_SIZE: usize = 1024;

/// Puts each message behind its role's token, and ends where the assistant is to speak.
const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}\
    {% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Learns a byte-level BPE from `texts`: words of the corpus become one token, and any other text can still be written.
pub(crate) fn train(texts: &[String], dir: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let special = [BOS, EOS, SYSTEM, USER, ASSISTANT].map(|token| AddedToken::from(token, true));
    let byte_level = ByteLevel::new(false, false, true);
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(VOCAB_SIZE)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let mut tokenizer = TokenizerBuilder::default()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::normalizers::NFC>)
        .with_pre_tokenizer(Some(byte_level))
        .with_post_processor(None::<TemplateProcessing>)
        .with_decoder(Some(byte_level))
        .build()?;
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str))?;
    let bos = tokenizer.token_to_id(BOS).ok_or("the beginning token is not in the vocabulary")?;
    let template =
        TemplateProcessing::builder().try_single(format!("{BOS} $A"))?.special_tokens(vec![(BOS, bos)]).build()?;
    tokenizer.with_post_processor(Some(template));
    tokenizer.save(dir.join("tokenizer.json"), false)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "model_max_length": crate::CONTEXT,
    });
    std::fs::write(dir.join("tokenizer_config.json"), serde_json::to_string_pretty(&config)? + "\n")?;
    Ok(())
}
