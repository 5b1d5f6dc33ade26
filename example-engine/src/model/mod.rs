//! `LlamaForCausalLM` from a directory in Hugging Face layout.
//!
//! ```text
//! DIR/config.json         ModelConfig     what the architecture is; anything else is refused
//! DIR/model.safetensors   checkpoint      the weights, f16, bf16 or f32
//! DIR/tokenizer.json      crate::tokenizer
//! ```

mod attention;
mod checkpoint;
mod config;
mod error;
mod llama;
mod rope;

pub(crate) use attention::MASKED;
pub use attention::{Attention, CausalAttention, grouped_attention};
pub use checkpoint::{load, save};
pub use config::ModelConfig;
pub use error::LoadError;
pub use llama::{DecoderLayer, Llama, LlamaModel, Mlp, SelfAttention};
