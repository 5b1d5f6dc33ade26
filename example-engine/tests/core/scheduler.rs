//! The scheduler and its KV cache, with a model that is a hash.

use crate::support::{SlotRunner, assert_blocks_accounted_for, oracle, request};
use example_engine::engine::{EngineConfig, EngineError, FinishReason, Scheduler, SchedulingPolicy};
use example_engine::model_runner::{ModelRunner, SchedulerOutput};

const BLOCK_SIZE: usize = 4;

fn config(num_blocks: usize) -> EngineConfig {
    EngineConfig {
        block_size: BLOCK_SIZE,
        num_blocks,
        max_num_seqs: 4,
        max_num_batched_tokens: 16,
        max_model_len: 64,
        ..EngineConfig::default()
    }
}

struct Harness {
    scheduler: Scheduler,
    runner: SlotRunner,
    /// Of each sequence, by number: its output and its end.
    outputs: Vec<(Vec<u32>, Option<FinishReason>)>,
}

impl Harness {
    fn new(config: EngineConfig) -> Self {
        let runner = SlotRunner::new(config.num_blocks, config.block_size);
        Self { scheduler: Scheduler::new(config), runner, outputs: Vec::new() }
    }

    #[track_caller]
    fn add(&mut self, prompt: &[u32], max_tokens: u32, priority: i32) -> usize {
        let id = self.outputs.len().to_string();
        let request = example_engine::engine::EngineCoreRequest { priority, ..request(&id, prompt, max_tokens) };
        assert_eq!(self.scheduler.add_request(request, 0).unwrap(), self.outputs.len() as u64);
        self.outputs.push((Vec::new(), None));
        self.outputs.len() - 1
    }

    fn step(&mut self) -> SchedulerOutput {
        let output = self.scheduler.schedule();
        let results = match self.runner.execute_model(&output) {
            Ok(result) => self.scheduler.update_from_output(&output, &result),
            Err(error) => self.scheduler.fail_step(&output, &error),
        };
        for (number, result) in results {
            let (tokens, end) = &mut self.outputs[number as usize];
            assert_eq!(*end, None, "nothing comes after the end");
            tokens.extend(result.new_token_ids);
            *end = result.finish_reason;
        }
        assert_blocks_accounted_for(&self.scheduler);
        output
    }

    fn run(&mut self) -> Vec<SchedulerOutput> {
        let mut steps = Vec::new();
        while self.scheduler.has_unfinished_requests() {
            steps.push(self.step());
            assert!(steps.len() < 10_000, "it never ends");
        }
        steps
    }
}

fn prompt(first: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|index| first + index).collect()
}

#[test]
fn a_long_prompt_is_computed_in_chunks_beside_the_decodes_of_others() {
    let mut harness = Harness::new(config(32));
    let short = harness.add(&prompt(0, 3), 8, 0);
    harness.step();
    let long = harness.add(&prompt(10, 40), 2, 0);
    let steps = harness.run();
    let lens: Vec<Vec<usize>> = steps
        .iter()
        .map(|step| step.scheduled_seqs.iter().map(|sequence| sequence.token_ids.len()).collect())
        .collect();
    assert_eq!(lens[..3], [vec![1, 15], vec![1, 15], vec![1, 10]]);
    assert_eq!(harness.outputs[short].0, oracle(&prompt(0, 3), 8));
    assert_eq!(harness.outputs[long], (oracle(&prompt(10, 40), 2), Some(FinishReason::Length)));
}

#[test]
fn when_blocks_run_out_the_last_comer_is_preempted_and_resumes_with_the_same_tokens() {
    let mut harness = Harness::new(config(8));
    let first = harness.add(&prompt(0, 8), 20, 0);
    let second = harness.add(&prompt(50, 8), 20, 0);
    harness.run();
    let stats = harness.scheduler.stats();
    assert!(stats.num_preemptions > 0);
    assert!(stats.recomputed_tokens > 0, "what was thrown away is counted when it is computed again");
    assert_eq!(harness.outputs[first].0, oracle(&prompt(0, 8), 20));
    assert_eq!(harness.outputs[second].0, oracle(&prompt(50, 8), 20));
    assert_eq!(stats.num_free_blocks, stats.num_blocks);
}

#[test]
fn equal_prompt_beginnings_share_blocks_even_within_one_step() {
    let mut harness = Harness::new(EngineConfig { max_num_batched_tokens: 64, ..config(32) });
    let (a, b) = (harness.add(&prompt(0, 10), 4, 0), harness.add(&prompt(0, 10), 4, 0));
    let step = harness.step();
    assert_eq!(step.scheduled_seqs[0].block_ids[..2], step.scheduled_seqs[1].block_ids[..2]);
    assert_ne!(step.scheduled_seqs[0].block_ids[2], step.scheduled_seqs[1].block_ids[2], "the last block is not full");
    assert_eq!(step.scheduled_seqs[1].token_ids, [8, 9]);
    harness.run();
    assert_eq!(harness.scheduler.stats().prefix_cached_tokens, 8);
    assert_eq!(harness.outputs[a], harness.outputs[b]);
    let c = harness.add(&prompt(0, 8), 4, 0);
    harness.run();
    assert_eq!(harness.scheduler.stats().prefix_cached_tokens, 12, "a wholly cached prompt computes its last block");
    assert_eq!(harness.outputs[c].0, oracle(&prompt(0, 8), 4));
}

#[test]
fn without_prefix_caching_nothing_is_shared() {
    let mut harness = Harness::new(EngineConfig { enable_prefix_caching: false, ..config(32) });
    for _ in 0..2 {
        harness.add(&prompt(0, 10), 4, 0);
    }
    harness.run();
    assert_eq!(harness.scheduler.stats().prefix_cached_tokens, 0);
}

#[test]
fn priority_decides_who_is_admitted_and_who_is_preempted() {
    let config = EngineConfig { policy: SchedulingPolicy::Priority, max_num_seqs: 1, ..config(32) };
    let mut harness = Harness::new(config.clone());
    harness.add(&prompt(0, 4), 2, 5);
    harness.add(&prompt(20, 4), 2, 1);
    harness.add(&prompt(40, 4), 2, 1);
    let order: Vec<u64> = harness.run().iter().map(|step| step.scheduled_seqs[0].number).collect();
    assert_eq!(order, [1, 1, 2, 2, 0, 0]);

    let mut harness = Harness::new(EngineConfig { max_num_seqs: 4, num_blocks: 8, ..config });
    harness.add(&prompt(0, 8), 20, 1);
    harness.add(&prompt(50, 8), 20, 0);
    let steps = harness.run();
    let alone = steps.iter().find(|step| step.scheduled_seqs.len() == 1).unwrap();
    assert_eq!(alone.scheduled_seqs[0].number, 1, "the less urgent one had to go, though it came first");
}

#[test]
fn a_sequence_ends_at_an_end_token_a_stop_token_or_its_length() {
    let tokens = oracle(&prompt(0, 4), 6);
    let distinct = (1..6).find(|&index| !tokens[..index].contains(&tokens[index])).unwrap();
    let eos = tokens[distinct];
    let mut harness = Harness::new(EngineConfig { eos_token_ids: vec![eos], ..config(32) });
    let stopped = harness.add(&prompt(0, 4), 6, 0);
    let mut ignoring = request("ignoring", &prompt(0, 4), 6);
    ignoring.sampling_params.ignore_eos = true;
    harness.scheduler.add_request(ignoring.clone(), 0).unwrap();
    harness.outputs.push((Vec::new(), None));
    ignoring.request_id = "stop token".to_owned();
    ignoring.sampling_params.stop_token_ids = vec![eos];
    harness.scheduler.add_request(ignoring, 0).unwrap();
    harness.outputs.push((Vec::new(), None));
    let full = harness.add(&prompt(0, 60), 50, 0);
    harness.run();
    assert_eq!(harness.outputs[stopped], (tokens[..=distinct].to_vec(), Some(FinishReason::Stop)));
    assert_eq!(harness.outputs[1], (tokens.clone(), Some(FinishReason::Length)));
    assert_eq!(harness.outputs[2], (tokens[..=distinct].to_vec(), Some(FinishReason::Stop)));
    assert_eq!(harness.outputs[full].0.len(), 4, "the context is full");
}

#[test]
fn a_failed_step_ends_its_sequences_and_shares_nothing_that_it_wrote() {
    let mut harness = Harness::new(config(32));
    let failed = harness.add(&prompt(0, 9), 4, 0);
    harness.runner.failures = 1;
    harness.step();
    let error = "the model failed: as the test wants it".to_owned();
    assert_eq!(harness.outputs[failed], (vec![], Some(FinishReason::Error(error))));
    let next = harness.add(&prompt(0, 9), 4, 0);
    harness.run();
    assert_eq!(harness.scheduler.stats().prefix_cached_tokens, 0);
    assert_eq!(harness.outputs[next].0, oracle(&prompt(0, 9), 4));
}

#[test]
fn what_can_never_run_is_refused_with_the_reason() {
    let mut scheduler = Scheduler::new(EngineConfig { max_waiting: 1, ..config(4) });
    let mut refuse = |request| scheduler.add_request(request, 0).unwrap_err();
    assert_eq!(refuse(request("a", &[], 4)).to_string(), "the prompt has no tokens; give it at least one");
    assert_eq!(refuse(request("a", &prompt(0, 64), 4)), EngineError::PromptTooLong { len: 64, max: 63 });
    assert_eq!(refuse(request("a", &prompt(0, 10), 8)), EngineError::NeverFits { needed: 17, available: 16 });
    let mut wrong = request("a", &[1], 4);
    wrong.sampling_params.temperature = f64::NAN;
    assert_eq!(refuse(wrong).to_string(), "temperature is NaN; it must be a number from 0 up");
    let mut wrong = request("a", &[1], 4);
    wrong.sampling_params.stop_token_ids = vec![1; 1025];
    assert_eq!(refuse(wrong).to_string(), "there are 1025 stop tokens; at most 1024 are allowed");
    let endless = refuse(request(&"a".repeat(1 << 20), &[1], 4)).to_string();
    assert_eq!(endless, "the request id has 1048576 bytes; at most 1024 are kept");
    scheduler.add_request(request("a", &prompt(0, 10), 7), 0).expect("the last output token needs no room");
    let mut refuse = |request| scheduler.add_request(request, 0).unwrap_err();
    assert_eq!(refuse(request("b", &[1], 4)), EngineError::QueueFull { waiting: 1 });
    assert!(matches!(refuse(request("a", &[1], 4)), EngineError::Invalid(text) if text.contains("in use")));
    assert_eq!(scheduler.stats().ignored, 2);
}
