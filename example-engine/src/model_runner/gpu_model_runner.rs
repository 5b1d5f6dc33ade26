//! The model runner.

use burn::tensor::{Device, Int, Tensor, TensorData};

use journey_layer::journey_span;

use super::device::SelectedDevice;
use super::input_batch::{InputBatch, Limits};
use super::io::{ModelRunnerOutput, SchedulerOutput};
use super::paged_attention::{PagedAttention, PagedKvCache};
use super::sampler::sample;
use super::{ModelError, ModelRunner};
use crate::model::Llama;

/// Runs a Llama on a device, with a paged KV cache there. The name is vLLM's; the device may be the CPU.
#[derive(Debug)]
pub struct GpuModelRunner {
    llama: Llama,
    cache: PagedKvCache,
    limits: Limits,
    device: Device,
}

impl GpuModelRunner {
    /// A runner for `llama`, whose weights are on `device`, with `num_blocks` blocks of `block_size` tokens.
    pub fn new(llama: Llama, device: &SelectedDevice, num_blocks: usize, block_size: usize) -> Self {
        let device = device.device.clone();
        let limits = Limits {
            vocab_size: llama.config.vocab_size,
            max_position: llama.config.max_position_embeddings,
            num_blocks,
            block_size,
        };
        let cache = PagedKvCache::new(&llama.config, num_blocks * block_size, &device);
        Self { llama, cache, limits, device }
    }

    /// Computes the scheduled tokens and gives the logits `[.., vocab_size]` to choose from: one row for each sequence that
    /// has a token to choose, in the scheduler's order. `None` where no sequence has.
    ///
    /// # Errors
    /// The batch does not fit the model or its cache.
    pub fn logits(&mut self, scheduler_output: &SchedulerOutput) -> Result<Option<Tensor<2>>, ModelError> {
        let batch = InputBatch::new(scheduler_output, self.limits)?;
        Ok(self.forward(&batch))
    }

    fn forward(&mut self, batch: &InputBatch) -> Option<Tensor<2>> {
        if batch.token_ids.is_empty() {
            return None;
        }
        let mut attention = PagedAttention::new(&mut self.cache, batch, &self.device);
        let hidden = self.llama.forward(&batch.token_ids, &batch.positions, &mut attention);
        let rows: Vec<i32> = batch.samples.iter().map(|sample| sample.token as i32).collect();
        let rows =
            (!rows.is_empty()).then(|| Tensor::<1, Int>::from_data(TensorData::from(rows.as_slice()), &self.device));
        rows.map(|rows| self.llama.logits(hidden.select(0, rows)))
    }
}

impl ModelRunner for GpuModelRunner {
    #[journey_span(scope = "vllm.scheduler", name = "model_forward")]
    fn execute_model(&mut self, scheduler_output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
        let batch = InputBatch::new(scheduler_output, self.limits)?;
        let mut sampled_token_ids = vec![None; scheduler_output.scheduled_seqs.len()];
        if let Some(logits) = self.forward(&batch) {
            let samplings: Vec<_> = batch.samples.iter().map(|sample| sample.sampling).collect();
            for (sample, token) in batch.samples.iter().zip(sample(logits, &samplings)?) {
                sampled_token_ids[sample.sequence] = Some(token);
            }
        }
        Ok(ModelRunnerOutput { sampled_token_ids })
    }
}
