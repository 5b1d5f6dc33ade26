//! `config.json`: the architecture.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::LoadError;

const ARCHITECTURE: &str = "LlamaForCausalLM";

/// What `config.json` says about a `LlamaForCausalLM`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The classes that can run the weights; `LlamaForCausalLM` must be one.
    pub architectures: Vec<String>,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Size of a token's representation.
    pub hidden_size: usize,
    /// Inner size of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by an equal number of query heads; as many as query heads when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Size of a head; `hidden_size / num_attention_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Context length.
    pub max_position_embeddings: usize,
    /// Added to the variance in each norm.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary positions' wavelengths; newer files have it in `rope_parameters`.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// The activation of the MLP; `silu` alone is supported.
    #[serde(default = "default_hidden_act")]
    pub hidden_act: String,
    /// The output layer uses the embedding's weights.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Token at the beginning of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text: a number or a list in the file.
    #[serde(default, deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_hidden_act() -> String {
    "silu".to_owned()
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(token)) => vec![token],
        Some(OneOrMany::Many(tokens)) => tokens,
    })
}

impl ModelConfig {
    /// Reads `dir/config.json`, and the end tokens of `dir/generation_config.json` where there is one.
    ///
    /// # Errors
    /// The file is missing or malformed, or the model is not one that this engine runs.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let json: Value = read_json(&path)?;
        // First, because the files of other architectures have other fields.
        if let Some(reason) = unsupported(&json) {
            return Err(LoadError::Unsupported { path, reason });
        }
        let mut config = Self::deserialize(&json).map_err(|error| LoadError::broken(&path, error))?;
        if let Some(theta) = json.pointer("/rope_parameters/rope_theta").and_then(Value::as_f64) {
            config.rope_theta = theta;
        }
        config.validate().map_err(|reason| LoadError::broken(&path, reason))?;
        let path = dir.join("generation_config.json");
        if path.exists() {
            #[derive(Deserialize)]
            struct GenerationConfig {
                #[serde(default, deserialize_with = "one_or_many")]
                eos_token_id: Vec<u32>,
            }
            let tokens = GenerationConfig::deserialize(&read_json(&path)?);
            config.eos_token_id.extend(tokens.map_err(|error| LoadError::broken(&path, error))?.eos_token_id);
            config.eos_token_id.sort_unstable();
            config.eos_token_id.dedup();
        }
        Ok(config)
    }

    /// Key and value heads.
    pub fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Size of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn validate(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_kv_heads()),
            ("head_dim", self.head_size()),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        // Far above every real model; a product of several must not overflow.
        if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
            return Err(format!("{name} is {size}; it must be from 1 to {}", 1 << 24));
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_kv_heads());
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} query heads cannot share {kv_heads} key and value heads equally"));
        }
        if !self.head_size().is_multiple_of(2) {
            return Err(format!("head_dim is {}; rotary positions need an even one", self.head_size()));
        }
        if !(self.rms_norm_eps > 0.0 && self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            let (eps, theta) = (self.rms_norm_eps, self.rope_theta);
            return Err(format!("rms_norm_eps is {eps} and rope_theta is {theta}; both must be above 0"));
        }
        if let Some(token) = self.eos_token_id.iter().find(|&&token| token as usize >= self.vocab_size) {
            return Err(format!("eos_token_id {token} is outside the vocabulary of {}", self.vocab_size));
        }
        Ok(())
    }
}

/// What the model has that this engine does not run.
fn unsupported(json: &Value) -> Option<String> {
    let set = |key: &&str| json.get(key).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    if let Some(names @ Value::Array(all)) = json.get("architectures")
        && !all.iter().any(|name| name == ARCHITECTURE)
    {
        return Some(format!("unsupported architecture {names}"));
    }
    if let Some(act) = json.get("hidden_act").filter(|act| act.as_str().is_some_and(|act| act != "silu")) {
        return Some(format!("hidden_act is {act}"));
    }
    if let Some(feature) = ["attention_bias", "mlp_bias", "quantization_config"].into_iter().find(set) {
        return Some(format!("{feature} is set"));
    }
    let ropes = ["rope_scaling", "rope_parameters"].into_iter().filter_map(|key| json.get(key));
    let mut kinds = ropes.filter_map(|rope| rope.get("rope_type").or(rope.get("type")));
    let scaled = kinds.find(|kind| *kind != "default");
    scaled.map(|kind| format!("the rotary positions are scaled ({kind})"))
}

pub(super) fn read_json(path: &Path) -> Result<Value, LoadError> {
    let bytes = std::fs::read(path).map_err(LoadError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| LoadError::broken(path, error))
}
