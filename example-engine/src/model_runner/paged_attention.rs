//! The KV cache on the device, and attention over it.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::input_batch::InputBatch;
use crate::model::{Attention, MASKED, ModelConfig, grouped_attention};

/// Keys and values of all blocks, one row per slot: `[num_blocks * block_size, kv_heads * head_dim]` for each layer.
#[derive(Debug)]
pub(super) struct PagedKvCache {
    layers: Vec<LayerCache>,
}

#[derive(Debug)]
struct LayerCache {
    key: Tensor<2>,
    value: Tensor<2>,
}

impl PagedKvCache {
    pub(super) fn new(config: &ModelConfig, num_slots: usize, device: &Device) -> Self {
        let zeros = || Tensor::zeros([num_slots, config.num_kv_heads() * config.head_size()], device);
        let layers = (0..config.num_hidden_layers).map(|_| LayerCache { key: zeros(), value: zeros() });
        Self { layers: layers.collect() }
    }
}

/// One step's attention: writes the step's keys and values into the cache, then lets each sequence attend to its own.
///
/// Sequences with one token are padded to the longest context among them and computed together; the others one by one,
/// because padding a long chunk next to a short one costs more than it saves.
pub(super) struct PagedAttention<'a> {
    cache: &'a mut PagedKvCache,
    slot_mapping: Tensor<1, Int>,
    decodes: Option<Decodes>,
    prefills: Vec<Prefill>,
}

struct Decodes {
    count: usize,
    /// Longest context.
    len: usize,
    /// `[count * len]`
    context: Tensor<1, Int>,
    /// `[count, 1, 1, 1, len]`
    bias: Tensor<5>,
}

struct Prefill {
    start: usize,
    num_tokens: usize,
    /// `[len]`
    context: Tensor<1, Int>,
    len: usize,
    /// `[1, 1, 1, num_tokens, len]`
    bias: Tensor<5>,
}

impl<'a> PagedAttention<'a> {
    pub(super) fn new(cache: &'a mut PagedKvCache, batch: &InputBatch, device: &Device) -> Self {
        let ints = |values: &[i32]| Tensor::<1, Int>::from_data(TensorData::from(values), device);
        let decodes = batch.decodes.iter().map(Vec::len).max().map(|len| {
            let count = batch.decodes.len();
            let mut context = Vec::with_capacity(count * len);
            let mut bias = Vec::with_capacity(count * len);
            for slots in &batch.decodes {
                let padding = len - slots.len();
                context.extend(slots.iter().copied().chain(std::iter::repeat_n(0, padding)));
                bias.extend(std::iter::repeat_n(0.0, slots.len()).chain(std::iter::repeat_n(MASKED, padding)));
            }
            let bias = Tensor::from_data(TensorData::new(bias, [count, 1, 1, 1, len]), device);
            Decodes { count, len, context: ints(&context), bias }
        });
        let prefills = batch.prefills.iter().map(|prefill| {
            let (num_tokens, len) = (prefill.num_tokens, prefill.context.len());
            let before = len - num_tokens;
            let bias = (0..num_tokens)
                .flat_map(|query| (0..len).map(move |key| if key > before + query { MASKED } else { 0.0 }));
            let bias = TensorData::new(bias.collect::<Vec<f32>>(), [1, 1, 1, num_tokens, len]);
            let bias = Tensor::from_data(bias, device);
            Prefill { start: prefill.start, num_tokens, context: ints(&prefill.context), len, bias }
        });
        Self { cache, slot_mapping: ints(&batch.slot_mapping), decodes, prefills: prefills.collect() }
    }
}

impl Attention for PagedAttention<'_> {
    fn attend(&mut self, layer: usize, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
        let [tokens, heads, head_dim] = query.dims();
        let [_, kv_heads, _] = key.dims();
        let row = kv_heads * head_dim;
        let cache = &mut self.cache.layers[layer];
        // All rows are written before any is read: a sequence may share blocks that another fills in this step.
        // `inplace` leaves the cache with one owner, without which every write would copy it whole.
        let slots = &self.slot_mapping;
        let write = |rows: Tensor<3>| {
            let (slots, rows) = (slots.clone(), rows.reshape([tokens, row]));
            move |cache: Tensor<2>| cache.select_assign(0, slots, rows, IndexingUpdateOp::Assign)
        };
        cache.key.inplace(write(key));
        cache.value.inplace(write(value));
        let read = |cache: &Tensor<2>, slots: &Tensor<1, Int>, batch: usize, len: usize| {
            cache.clone().select(0, slots.clone()).reshape([batch, len, kv_heads, head_dim]).swap_dims(1, 2)
        };
        let mut outputs = Vec::with_capacity(1 + self.prefills.len());
        if let Some(Decodes { count, len, context, bias }) = &self.decodes {
            let query = query.clone().narrow(0, 0, *count).reshape([*count, heads, 1, head_dim]);
            let (key, value) = (read(&cache.key, context, *count, *len), read(&cache.value, context, *count, *len));
            outputs.push(grouped_attention(query, key, value, bias.clone()).reshape([*count, heads, head_dim]));
        }
        for Prefill { start, num_tokens, context, len, bias } in &self.prefills {
            let query = query.clone().narrow(0, *start, *num_tokens).swap_dims(0, 1).unsqueeze_dim::<4>(0);
            let (key, value) = (read(&cache.key, context, 1, *len), read(&cache.value, context, 1, *len));
            let output = grouped_attention(query, key, value, bias.clone());
            outputs.push(output.swap_dims(1, 2).reshape([*num_tokens, heads, head_dim]));
        }
        Tensor::cat(outputs, 0)
    }
}
