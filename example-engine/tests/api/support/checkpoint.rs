//! A checkpoint for tests of real processes: a tiny model with random weights and one token for each byte.

use std::path::Path;

use burn::tensor::Device;
use example_engine::model::{Llama, LlamaModel, ModelConfig, save};
use serde_json::json;

use super::runner::{EOS, tokenizer_json};

/// Writes the checkpoint to `dir`.
pub fn write(dir: &Path) {
    let config: ModelConfig = serde_json::from_value(json!({
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": EOS + 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": true,
        "eos_token_id": EOS,
    }))
    .expect("a configuration");
    let model = LlamaModel::init(&config, &Device::flex());
    save(dir, &Llama { config, model }).expect("a written checkpoint");
    std::fs::write(dir.join("tokenizer.json"), tokenizer_json().to_string()).expect("a written tokenizer");
}
