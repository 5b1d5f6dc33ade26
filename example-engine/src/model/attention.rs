//! The seam between the model and whoever keeps its keys and values.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

/// Attention over whatever context the implementation has.
///
/// The model computes everything on flat tokens, in whatever batch they come; this alone knows which tokens belong
/// together and what came before them.
pub trait Attention {
    /// Takes the step's queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`, gives
    /// `[tokens, heads, head_dim]`. Called once for each layer, from 0 up.
    fn attend(&mut self, layer: usize, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3>;
}

/// Softmax attention with query heads in groups that share a key and value head.
///
/// `query` is `[batch, heads, queries, head_dim]`, `key` and `value` are `[batch, kv_heads, context, head_dim]`; `bias`
/// is added to the scores and broadcasts to `[batch, 1, 1, queries, context]`.
pub fn grouped_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, bias: Tensor<5>) -> Tensor<4> {
    let [batch, heads, queries, head_dim] = query.dims();
    let [_, kv_heads, context, _] = key.dims();
    let group = heads / kv_heads;
    // One matrix product per key head instead of one per query head.
    let query = query.reshape([batch, kv_heads, group * queries, head_dim]) * (head_dim as f64).powf(-0.5);
    let scores = query.matmul(key.transpose()).reshape([batch, kv_heads, group, queries, context]) + bias;
    let weights = softmax(scores, 4).reshape([batch, kv_heads, group * queries, context]);
    weights.matmul(value).reshape([batch, heads, queries, head_dim])
}

/// What is added to a score that must not count: finite, so that no device makes a NaN of it.
pub(crate) const MASKED: f32 = -1e30;

/// Plain causal attention over sequences of equal length without a cache: for training, and to compare with.
#[derive(Clone, Debug)]
pub struct CausalAttention {
    batch: usize,
    bias: Tensor<5>,
}

impl CausalAttention {
    /// For `batch` sequences of `len` tokens.
    pub fn new(batch: usize, len: usize, device: &burn::tensor::Device) -> Self {
        let bias = (0..len).flat_map(|query| (0..len).map(move |key| if key > query { MASKED } else { 0.0 }));
        let bias = TensorData::new(bias.collect::<Vec<f32>>(), [1, 1, 1, len, len]);
        Self { batch, bias: Tensor::from_data(bias, device) }
    }
}

impl Attention for CausalAttention {
    fn attend(&mut self, _layer: usize, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
        let [tokens, heads, head_dim] = query.dims();
        let split = |x: Tensor<3>| {
            let [_, heads, _] = x.dims();
            x.reshape([self.batch, tokens / self.batch, heads, head_dim]).swap_dims(1, 2)
        };
        let output = grouped_attention(split(query), split(key), split(value), self.bias.clone());
        output.swap_dims(1, 2).reshape([tokens, heads, head_dim])
    }
}
