//! A tiny model with random weights and one token for each byte, as a checkpoint for real processes and as a model runner.

use std::path::Path;

use burn::tensor::Device;
use example_engine::engine::EngineConfig;
use example_engine::model::{Llama, LlamaModel, ModelConfig, save};
use example_engine::model_runner::{GpuModelRunner, SelectedDevice};
use serde_json::json;

use super::runner::{EOS, tokenizer_json};

/// Writes the checkpoint to `dir`.
pub fn write(dir: &Path) {
    save(dir, &llama(&Device::flex())).expect("a written checkpoint");
    std::fs::write(dir.join("tokenizer.json"), tokenizer_json().to_string()).expect("a written tokenizer");
}

/// Runs the model on the CPU.
pub fn model_runner(config: &EngineConfig) -> GpuModelRunner {
    let device = SelectedDevice::cpu();
    GpuModelRunner::new(llama(&device.device), &device, config.num_blocks, config.block_size)
}

fn llama(device: &Device) -> Llama {
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
    Llama { model: LlamaModel::init(&config, device), config }
}
