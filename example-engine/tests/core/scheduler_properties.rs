//! Random requests, aborts and failures: whatever comes, blocks are accounted for and every sequence ends right.

use crate::support::{SlotRunner, assert_blocks_accounted_for, oracle, request};
use example_engine::engine::{EngineConfig, EngineCoreRequest, FinishReason, Scheduler, SchedulingPolicy};
use example_engine::model_runner::ModelRunner;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Prompts begin alike in `shared` of 4 families, so that many find cached blocks.
    Add {
        family: u32,
        shared: usize,
        own: usize,
        max_tokens: u32,
        priority: i32,
    },
    Abort(prop::sample::Index),
    Fail,
    Steps(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4u32, 0..24usize, 1..12usize, 1..20u32, 0..3i32)
            .prop_map(|(family, shared, own, max_tokens, priority)| Op::Add { family, shared, own, max_tokens, priority }),
        1 => any::<prop::sample::Index>().prop_map(Op::Abort),
        1 => Just(Op::Fail),
        4 => (1..6usize).prop_map(Op::Steps),
    ]
}

prop_compose! {
    fn config()(
        block_size in 1..6usize,
        extra_blocks in 0..30usize,
        max_num_seqs in 1..6usize,
        max_num_batched_tokens in 1..40usize,
        priority in any::<bool>(),
        enable_prefix_caching in any::<bool>(),
    ) -> EngineConfig {
        EngineConfig {
            block_size,
            // Enough for the longest sequence that `op` makes, so that none is refused.
            num_blocks: 56usize.div_ceil(block_size) + extra_blocks,
            max_num_seqs,
            max_num_batched_tokens,
            max_model_len: 64,
            policy: if priority { SchedulingPolicy::Priority } else { SchedulingPolicy::Fcfs },
            enable_prefix_caching,
            ..EngineConfig::default()
        }
    }
}

/// A sequence as the test knows it.
struct Expected {
    request: EngineCoreRequest,
    output: Vec<u32>,
    end: Option<FinishReason>,
    scheduled: bool,
}

struct Run {
    config: EngineConfig,
    scheduler: Scheduler,
    runner: SlotRunner,
    sequences: Vec<Expected>,
}

impl Run {
    fn new(config: EngineConfig) -> Self {
        let runner = SlotRunner::new(config.num_blocks, config.block_size);
        Self { scheduler: Scheduler::new(config.clone()), config, runner, sequences: Vec::new() }
    }

    fn rank(&self, number: u64) -> (i32, u64) {
        let priority = self.sequences[number as usize].request.priority;
        (if self.config.policy == SchedulingPolicy::Priority { priority } else { 0 }, number)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { family, shared, own, max_tokens, priority } => {
                let number = self.sequences.len();
                let mut prompt: Vec<u32> = (0..shared as u32).map(|index| family * 100 + index).collect();
                prompt.extend((0..own as u32).map(|index| 1000 + index * (number as u32 + 1)));
                let request = EngineCoreRequest { priority, ..request(&number.to_string(), &prompt, max_tokens) };
                assert_eq!(self.scheduler.add_request(request.clone(), 0), Ok(number as u64));
                self.sequences.push(Expected { request, output: vec![], end: None, scheduled: false });
            }
            Op::Abort(_) if self.sequences.is_empty() => {}
            Op::Abort(index) => {
                let number = index.index(self.sequences.len());
                let aborted = self.scheduler.finish_request(number as u64, &FinishReason::Abort);
                let sequence = &mut self.sequences[number];
                assert_eq!(aborted, sequence.end.is_none(), "only the unfinished can be aborted");
                sequence.end.get_or_insert(FinishReason::Abort);
            }
            Op::Fail => self.runner.failures = 1,
            Op::Steps(count) => (0..count).for_each(|_| self.step()),
        }
        assert_blocks_accounted_for(&self.scheduler);
    }

    fn step(&mut self) {
        let output = self.scheduler.schedule();
        let scheduled = &output.scheduled_seqs;
        let total: usize = scheduled.iter().map(|sequence| sequence.token_ids.len()).sum();
        assert_eq!(total, output.total_num_scheduled_tokens);
        assert!(total <= self.config.max_num_batched_tokens && scheduled.len() <= self.config.max_num_seqs);
        assert!(scheduled.iter().all(|sequence| !sequence.token_ids.is_empty()));
        assert_eq!(scheduled.is_empty(), !self.scheduler.has_unfinished_requests(), "no step is idle");
        let ranks: Vec<_> = scheduled.iter().map(|sequence| self.rank(sequence.number)).collect();
        if self.config.policy == SchedulingPolicy::Fcfs {
            assert!(ranks.is_sorted(), "first come, first served");
        }
        self.assert_admission_in_order(
            &output.scheduled_seqs.iter().map(|sequence| sequence.number).collect::<Vec<_>>(),
        );
        let results = match self.runner.execute_model(&output) {
            Ok(result) => self.scheduler.update_from_output(&output, &result),
            Err(error) => self.scheduler.fail_step(&output, &error),
        };
        for (number, result) in results {
            let sequence = &mut self.sequences[number as usize];
            assert_eq!(sequence.end, None);
            sequence.output.extend(result.new_token_ids);
            sequence.end = result.finish_reason;
        }
        assert_blocks_accounted_for(&self.scheduler);
    }

    /// Nobody is scheduled for the first time while one of a lower rank has never been.
    fn assert_admission_in_order(&mut self, scheduled: &[u64]) {
        let mut newest = None;
        for &number in scheduled {
            if !std::mem::replace(&mut self.sequences[number as usize].scheduled, true) {
                newest = newest.max(Some(self.rank(number)));
            }
        }
        let waiting = |number: &u64| {
            let sequence = &self.sequences[*number as usize];
            !sequence.scheduled && sequence.end.is_none()
        };
        let first = (0..self.sequences.len() as u64).filter(waiting).map(|number| self.rank(number)).min();
        if let (Some(newest), Some(first)) = (newest, first) {
            assert!(newest < first, "{newest:?} overtook {first:?}");
        }
    }

    /// The first in rank advances in every step, which bounds their number.
    fn finish(&mut self) {
        let tokens: usize = self
            .sequences
            .iter()
            .map(|s| s.request.prompt_token_ids.len() + s.request.sampling_params.max_tokens as usize)
            .sum();
        let mut steps = 0;
        while self.scheduler.has_unfinished_requests() {
            self.step();
            steps += 1;
            assert!(steps <= tokens, "{tokens} tokens took more than {tokens} steps");
        }
        let stats = self.scheduler.stats();
        assert_eq!(stats.num_free_blocks, stats.num_blocks);
        assert_eq!(self.scheduler.kv_cache_manager().num_requests(), 0);
        let ended = stats.finished_stop + stats.finished_length + stats.finished_abort + stats.finished_error;
        assert_eq!(ended, self.sequences.len() as u64);
        for (number, sequence) in self.sequences.iter().enumerate() {
            let whole =
                oracle(&sequence.request.prompt_token_ids, sequence.request.sampling_params.max_tokens as usize);
            match &sequence.end {
                Some(FinishReason::Length) => assert_eq!(sequence.output, whole, "sequence {number}"),
                Some(_) => assert!(whole.starts_with(&sequence.output), "sequence {number}"),
                None => panic!("sequence {number} never ended"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_budget_order_and_tokens_are_right_whatever_comes(
        config in config(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut run = Run::new(config);
        ops.into_iter().for_each(|op| run.apply(op));
        run.finish();
    }
}
