//! The forward pass.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention::Attention;
use super::config::ModelConfig;
use super::rope::Rotation;

/// A model that can run: its parameters and its architecture.
#[derive(Clone, Debug)]
pub struct Llama {
    /// The architecture.
    pub config: ModelConfig,
    /// The parameters.
    pub model: LlamaModel,
}

/// The parameters, as Hugging Face names them.
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// Token embeddings, `[vocab_size, hidden_size]`.
    pub embed_tokens: Embedding,
    /// From the input to the output.
    pub layers: Vec<DecoderLayer>,
    /// Before the output layer.
    pub norm: RmsNorm,
    /// The output layer, `[vocab_size, hidden_size]`; `None` when it uses the embeddings.
    pub lm_head: Option<Param<Tensor<2>>>,
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// The attention.
    pub self_attn: SelfAttention,
    /// Before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// The MLP.
    pub mlp: Mlp,
}

/// Projections around the attention.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// To the queries.
    pub q_proj: Linear,
    /// To the keys.
    pub k_proj: Linear,
    /// To the values.
    pub v_proj: Linear,
    /// Back to the hidden size.
    pub o_proj: Linear,
    head_dim: usize,
}

/// The gated MLP.
#[derive(Module, Debug)]
pub struct Mlp {
    /// To the gate.
    pub gate_proj: Linear,
    /// To what the gate lets through.
    pub up_proj: Linear,
    /// Back to the hidden size.
    pub down_proj: Linear,
}

impl LlamaModel {
    /// Parameters drawn at random, of a size that keeps that of what they are applied to, less in front of the residual sums.
    pub fn init(config: &ModelConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let normal = |std| Initializer::Normal { mean: 0.0, std };
        let residual = (2.0 * config.num_hidden_layers as f64).powf(-0.5);
        let linear = |from: usize, to, scale: f64| {
            let std = scale * (from as f64).powf(-0.5);
            LinearConfig::new(from, to).with_bias(false).with_initializer(normal(std)).init(device)
        };
        let norm = || RmsNormConfig::new(hidden).with_epsilon(config.rms_norm_eps).init(device);
        let (queries, keys) =
            (config.num_attention_heads * config.head_size(), config.num_kv_heads() * config.head_size());
        let layer = |_| DecoderLayer {
            input_layernorm: norm(),
            self_attn: SelfAttention {
                q_proj: linear(hidden, queries, 1.0),
                k_proj: linear(hidden, keys, 1.0),
                v_proj: linear(hidden, keys, 1.0),
                o_proj: linear(queries, hidden, residual),
                head_dim: config.head_size(),
            },
            post_attention_layernorm: norm(),
            mlp: Mlp {
                gate_proj: linear(hidden, config.intermediate_size, 1.0),
                up_proj: linear(hidden, config.intermediate_size, 1.0),
                down_proj: linear(config.intermediate_size, hidden, residual),
            },
        };
        let embedding = EmbeddingConfig::new(config.vocab_size, hidden).with_initializer(normal(0.02));
        Self {
            embed_tokens: embedding.init(device),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: norm(),
            lm_head: (!config.tie_word_embeddings).then(|| normal(0.02).init([config.vocab_size, hidden], device)),
        }
    }
}

impl Llama {
    /// Gives the hidden states `[tokens, hidden_size]` of flat tokens, each at its position in its own sequence.
    ///
    /// # Panics
    /// When `token_ids` and `positions` differ in length, or a token is outside the vocabulary.
    pub fn forward(&self, token_ids: &[u32], positions: &[u32], attention: &mut impl Attention) -> Tensor<2> {
        assert_eq!(token_ids.len(), positions.len(), "each token has a position");
        let config = &self.config;
        let device = self.model.norm.gamma.device();
        let rotation = Rotation::new(positions, config.head_size(), config.rope_theta, &device);
        let token_ids: Vec<i32> = token_ids.iter().map(|&token| token as i32).collect();
        let token_ids = Tensor::<1, Int>::from_data(TensorData::from(token_ids.as_slice()), &device);
        let mut hidden = self.model.embed_tokens.weight.val().select(0, token_ids);
        for (index, layer) in self.model.layers.iter().enumerate() {
            let normed = layer.input_layernorm.forward(hidden.clone());
            hidden = hidden + layer.self_attn.forward(index, normed, &rotation, attention);
            let normed = layer.post_attention_layernorm.forward(hidden.clone());
            hidden = hidden + layer.mlp.forward(normed);
        }
        self.model.norm.forward(hidden)
    }

    /// Gives the logits `[tokens, vocab_size]` of hidden states.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let weight = self.model.lm_head.as_ref().unwrap_or(&self.model.embed_tokens.weight);
        hidden.matmul(weight.val().transpose())
    }
}

impl SelfAttention {
    fn forward(&self, layer: usize, x: Tensor<2>, rotation: &Rotation, attention: &mut impl Attention) -> Tensor<2> {
        let [tokens, _] = x.dims();
        let heads = |projection: &Linear| {
            let flat = projection.forward(x.clone());
            let heads = flat.dims()[1] / self.head_dim;
            flat.reshape([tokens, heads, self.head_dim])
        };
        let (query, key) = (rotation.apply(heads(&self.q_proj)), rotation.apply(heads(&self.k_proj)));
        let output = attention.attend(layer, query, key, heads(&self.v_proj));
        let [_, num_heads, _] = output.dims();
        self.o_proj.forward(output.reshape([tokens, num_heads * self.head_dim]))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down_proj.forward(silu(self.gate_proj.forward(x.clone())) * self.up_proj.forward(x))
    }
}
