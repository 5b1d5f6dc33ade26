//! A step's sequences as flat tokens.

use super::ModelError;
use super::io::{Sampling, ScheduledSequence, SchedulerOutput};

/// What the model can take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) vocab_size: usize,
    pub(super) max_position: usize,
    pub(super) num_blocks: usize,
    pub(super) block_size: usize,
}

/// The tokens of a step, one after another: first the sequences with one token, then those with more.
///
/// ```text
/// token_ids   d0 d1 d2 | p0 p0 p0 p0 p0 | p1 p1 p1
///             decodes    prefill chunks
/// ```
#[derive(Debug, Default)]
pub(super) struct InputBatch {
    pub(super) token_ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    /// Slot of the KV cache for each token.
    pub(super) slot_mapping: Vec<i32>,
    /// Context slots of each sequence with one token, that token included.
    pub(super) decodes: Vec<Vec<i32>>,
    pub(super) prefills: Vec<Prefill>,
    /// For each token to sample: its index in the flat tokens, in the scheduler's list, and how.
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(super) struct Prefill {
    /// Index of its first token in the flat tokens.
    pub(super) start: usize,
    pub(super) num_tokens: usize,
    /// Slots of the whole context, the tokens of this step included.
    pub(super) context: Vec<i32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) token: usize,
    pub(super) sequence: usize,
    pub(super) sampling: Sampling,
}

impl InputBatch {
    pub(super) fn new(scheduler_output: &SchedulerOutput, limits: Limits) -> Result<Self, ModelError> {
        let mut batch = Self::default();
        let is_decode = |sequence: &ScheduledSequence| sequence.token_ids.len() == 1;
        let (decodes, prefills): (Vec<_>, Vec<_>) =
            scheduler_output.scheduled_seqs.iter().enumerate().partition(|(_, sequence)| is_decode(sequence));
        for (index, sequence) in decodes.into_iter().chain(prefills) {
            batch
                .push(index, sequence, limits)
                .map_err(|reason| ModelError::Batch(format!("sequence {}: {reason}", sequence.request_id)))?;
        }
        // Back to the scheduler's order.
        batch.samples.sort_unstable_by_key(|sample| sample.sequence);
        Ok(batch)
    }

    fn push(&mut self, index: usize, sequence: &ScheduledSequence, limits: Limits) -> Result<(), String> {
        let num_tokens = sequence.token_ids.len();
        let len = sequence.num_computed_tokens + num_tokens;
        if let Some(token) = sequence.token_ids.iter().find(|&&token| token as usize >= limits.vocab_size) {
            return Err(format!("token {token} is outside the vocabulary of {}", limits.vocab_size));
        }
        if let Some(block) = sequence.block_ids.iter().find(|&&block| block as usize >= limits.num_blocks) {
            return Err(format!("block {block} is outside the KV cache of {} blocks", limits.num_blocks));
        }
        if num_tokens == 0 || len > limits.max_position || len > sequence.block_ids.len() * limits.block_size {
            let (blocks, most) = (sequence.block_ids.len(), limits.max_position);
            return Err(format!("{num_tokens} tokens up to {len} do not fit {blocks} blocks and {most} positions"));
        }
        let block_size = limits.block_size;
        let slot = |at: usize| (sequence.block_ids[at / block_size] as usize * block_size + at % block_size) as i32;
        let context: Vec<i32> = (0..len).map(slot).collect();
        let start = self.token_ids.len();
        self.token_ids.extend(&sequence.token_ids);
        self.positions.extend(sequence.num_computed_tokens as u32..len as u32);
        self.slot_mapping.extend(&context[sequence.num_computed_tokens..]);
        match num_tokens {
            1 => self.decodes.push(context),
            _ => self.prefills.push(Prefill { start, num_tokens, context }),
        }
        if let Some(sampling) = sequence.sampling {
            self.samples.push(Sample { token: start + num_tokens - 1, sequence: index, sampling });
        }
        Ok(())
    }
}
