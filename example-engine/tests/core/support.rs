//! A model runner whose model is a hash, and whose KV cache can be checked slot by slot.

use std::collections::HashSet;

use example_engine::engine::{EngineCoreRequest, Scheduler};
use example_engine::model_runner::{ModelError, ModelRunner, ModelRunnerOutput, SchedulerOutput};

/// Tokens are below this.
pub(crate) const VOCAB_SIZE: u32 = 97;

/// The token that the fake model puts after `context`.
pub(crate) fn next_token(context: &[u32]) -> u32 {
    let hash = context.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, token| {
        (hash ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
    });
    (hash % u64::from(VOCAB_SIZE)) as u32
}

/// What the fake model makes of a prompt when nothing disturbs it.
pub(crate) fn oracle(prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..max_tokens {
        tokens.push(next_token(&tokens));
    }
    tokens.split_off(prompt.len())
}

/// Keeps a token in each slot where a real runner keeps its KV, and reads its context back through the block table. A
/// block that is given to two sequences, or shared without the same content, therefore gives wrong tokens.
pub(crate) struct SlotRunner {
    slots: Vec<Option<u32>>,
    block_size: usize,
    /// Steps from now on that fail.
    pub(crate) failures: usize,
}

impl SlotRunner {
    pub(crate) fn new(num_blocks: usize, block_size: usize) -> Self {
        Self { slots: vec![None; num_blocks * block_size], block_size, failures: 0 }
    }

    fn slot(&self, block_ids: &[u32], position: usize) -> usize {
        block_ids[position / self.block_size] as usize * self.block_size + position % self.block_size
    }
}

impl ModelRunner for SlotRunner {
    fn execute_model(&mut self, scheduler_output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(ModelError::Execution("as the test wants it".to_owned()));
        }
        let mut written = HashSet::new();
        for sequence in &scheduler_output.scheduled_seqs {
            for (index, token) in sequence.token_ids.iter().enumerate() {
                let slot = self.slot(&sequence.block_ids, sequence.num_computed_tokens + index);
                assert!(written.insert(slot), "slot {slot} is written twice in step {}", scheduler_output.step);
                self.slots[slot] = Some(*token);
            }
        }
        let tokens = scheduler_output.scheduled_seqs.iter().map(|sequence| {
            sequence.sampling.map(|_| {
                let len = sequence.num_computed_tokens + sequence.token_ids.len();
                let context = (0..len).map(|position| self.slots[self.slot(&sequence.block_ids, position)]);
                next_token(&context.collect::<Option<Vec<_>>>().expect("every slot of the context was written"))
            })
        });
        Ok(ModelRunnerOutput { sampled_token_ids: tokens.collect() })
    }
}

/// A request whose prompt is `prompt`.
pub(crate) fn request(id: &str, prompt: &[u32], max_tokens: u32) -> EngineCoreRequest {
    let mut request =
        EngineCoreRequest { request_id: id.to_owned(), prompt_token_ids: prompt.to_vec(), ..Default::default() };
    request.sampling_params.max_tokens = max_tokens;
    request
}

/// Every block is free or held by exactly the sequences that list it.
#[track_caller]
pub(crate) fn assert_blocks_accounted_for(scheduler: &Scheduler) {
    let manager = scheduler.kv_cache_manager();
    let pool = manager.block_pool();
    let mut holders = vec![0; pool.num_blocks()];
    for number in scheduler.unfinished() {
        let blocks = manager.block_ids(number);
        assert_eq!(blocks.iter().collect::<HashSet<_>>().len(), blocks.len(), "a sequence lists a block twice");
        blocks.iter().for_each(|&block| holders[block as usize] += 1);
    }
    for (block, holders) in holders.iter().enumerate() {
        assert_eq!(pool.ref_cnt(block as u32), *holders, "holders of block {block}");
    }
    assert_eq!(pool.num_free_blocks(), holders.iter().filter(|&&holders| holders == 0).count());
}
