//! The model runner against the plain forward pass, and against itself in every kind of batch.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use example_engine::engine::{EngineConfig, EngineCoreRequest, SamplingParams, Scheduler, SchedulerStats};
use example_engine::model::{CausalAttention, Llama, LlamaModel, ModelConfig};
use example_engine::model_runner::{
    DeviceChoice, GpuModelRunner, ModelRunner, Sampling, ScheduledSequence, SchedulerOutput, SelectedDevice,
};

const BLOCK_SIZE: usize = 4;

fn config() -> ModelConfig {
    serde_json::from_value(serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    }))
    .unwrap()
}

/// Random weights of a size at which the context decides about the next token, as in a trained model; the same on every
/// device.
fn llama(device: &Device) -> Llama {
    struct Louder;
    impl ModuleMapper for Louder {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| if D == 2 { tensor * 4.0 } else { tensor })
        }
    }
    // One for all: the random numbers are the whole process's, and tests that run beside draw some of them.
    static LLAMA: Mutex<Option<Llama>> = Mutex::new(None);
    let make = || {
        let (cpu, config) = (SelectedDevice::cpu().device, config());
        cpu.seed(3);
        Llama { model: LlamaModel::init(&config, &cpu).map(&mut Louder), config }
    };
    let mut llama = LLAMA.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(make).clone();
    llama.model = llama.model.to_device(device);
    llama
}

/// The CPU, and in a build with the feature `gpu` a GPU as well: Mesa's software Vulkan will do.
fn devices() -> Vec<SelectedDevice> {
    let gpu = cfg!(feature = "gpu").then(|| SelectedDevice::select(DeviceChoice::Gpu).expect("a Vulkan driver"));
    gpu.into_iter().chain([SelectedDevice::cpu()]).collect()
}

fn prompt(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|index| (seed * 7 + index * index * 3 + index) % 61).collect()
}

fn sequence(token_ids: &[u32], num_computed_tokens: usize, block_ids: &[u32]) -> ScheduledSequence {
    ScheduledSequence {
        token_ids: token_ids[num_computed_tokens..].to_vec(),
        num_computed_tokens,
        block_ids: block_ids.to_vec(),
        sampling: Some(Sampling { temperature: 0.0, top_p: 1.0, top_k: None, seed: 0, position: 0 }),
        ..ScheduledSequence::default()
    }
}

fn logits(runner: &mut GpuModelRunner, scheduled_seqs: Vec<ScheduledSequence>) -> Vec<Vec<f32>> {
    let output = SchedulerOutput { scheduled_seqs, ..SchedulerOutput::default() };
    let logits = runner.logits(&output).unwrap().expect("every sequence here has a token to choose");
    logits.try_to_vec_as::<f32>().unwrap().chunks(61).map(<[f32]>::to_vec).collect()
}

/// Logits after the last token, by the forward pass without any cache on the CPU.
fn reference(tokens: &[u32]) -> Vec<f32> {
    let cpu = SelectedDevice::cpu().device;
    let llama = llama(&cpu);
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let mut attention = CausalAttention::new(1, tokens.len(), &cpu);
    let hidden = llama.forward(tokens, &positions, &mut attention);
    llama.logits(hidden.narrow(0, tokens.len() - 1, 1)).try_to_vec_as::<f32>().unwrap()
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32]) {
    let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && difference < 2e-3, "logits differ by {difference}");
}

#[test]
fn paged_attention_gives_the_logits_of_the_plain_forward_pass_whole_and_in_chunks() {
    let tokens = prompt(1, 23);
    let expected = reference(&tokens);
    let spread = expected.iter().copied().fold(f32::MIN, f32::max) - expected.iter().copied().fold(f32::MAX, f32::min);
    assert!(spread > 0.5, "logits this flat would show no mistake");
    let blocks = [9, 2, 7, 0, 5, 3];
    for device in devices() {
        let runner = || GpuModelRunner::new(llama(&device.device), &device, 10, BLOCK_SIZE);
        assert_close(&logits(&mut runner(), vec![sequence(&tokens, 0, &blocks)])[0], &expected);
        for chunk in [1, 3, 4, 11, 22] {
            let mut runner = runner();
            let mut last = Vec::new();
            for end in (0..tokens.len()).step_by(chunk).skip(1).chain([tokens.len()]) {
                let start = (end - 1) / chunk * chunk;
                last = logits(&mut runner, vec![sequence(&tokens[..end], start, &blocks)]);
            }
            assert_close(&last[0], &expected);
        }
    }
}

#[test]
fn a_mixed_batch_gives_each_sequence_the_logits_it_gets_alone() {
    let tokens: Vec<Vec<u32>> = [17, 5, 12, 9].iter().zip(0..).map(|(len, seed)| prompt(seed, *len)).collect();
    let blocks: Vec<Vec<u32>> = (0..4).map(|index| (index * 8..index * 8 + 8).rev().collect()).collect();
    for device in devices() {
        let mut runner = GpuModelRunner::new(llama(&device.device), &device, 32, BLOCK_SIZE);
        // Two are put into the cache but for their last token, so that the batch has decodes and prefills.
        for index in [0, 2] {
            let end = tokens[index].len() - 1;
            logits(&mut runner, vec![sequence(&tokens[index][..end], 0, &blocks[index])]);
        }
        let batch = (0..4).map(|index| {
            let computed = if index % 2 == 0 { tokens[index].len() - 1 } else { 0 };
            sequence(&tokens[index], computed, &blocks[index])
        });
        for (index, logits) in logits(&mut runner, batch.collect()).iter().enumerate() {
            assert_close(logits, &reference(&tokens[index]));
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_the_model_is_refused() {
    let device = SelectedDevice::cpu();
    let mut runner = GpuModelRunner::new(llama(&device.device), &device, 2, BLOCK_SIZE);
    let mut refused = |sequence| {
        let output = SchedulerOutput { scheduled_seqs: vec![sequence], ..SchedulerOutput::default() };
        runner.execute_model(&output).unwrap_err().to_string()
    };
    assert!(refused(sequence(&[61], 0, &[0])).contains("token 61 is outside the vocabulary of 61"));
    assert!(refused(sequence(&[1], 0, &[2])).contains("block 2 is outside the KV cache of 2 blocks"));
    assert!(refused(sequence(&[1; 5], 0, &[0])).contains("do not fit"));
}

/// Runs requests to their end; gives each one's output, and the scheduler's counts.
fn generate(
    device: &SelectedDevice,
    config: EngineConfig,
    requests: &[EngineCoreRequest],
) -> (Vec<Vec<u32>>, SchedulerStats) {
    let mut runner = GpuModelRunner::new(llama(&device.device), device, config.num_blocks, config.block_size);
    let mut scheduler = Scheduler::new(config);
    for request in requests {
        scheduler.add_request(request.clone(), 0).unwrap();
    }
    let mut outputs = vec![Vec::new(); requests.len()];
    while scheduler.has_unfinished_requests() {
        let output = scheduler.schedule();
        let result = runner.execute_model(&output).unwrap();
        for (number, output) in scheduler.update_from_output(&output, &result) {
            outputs[number as usize].extend(output.new_token_ids);
        }
    }
    (outputs, scheduler.stats())
}

#[test]
fn batched_chunked_cached_and_preempted_sequences_get_the_tokens_they_get_alone() {
    let requests: Vec<EngineCoreRequest> = (0..6)
        .map(|index| EngineCoreRequest {
            request_id: index.to_string(),
            // The first half of the prompts begin alike, so that there is something to share.
            prompt_token_ids: if index < 3 { [prompt(9, 13), prompt(index, 3)].concat() } else { prompt(index, 11) },
            sampling_params: SamplingParams {
                max_tokens: 9,
                temperature: if index % 2 == 0 { 0.0 } else { 0.8 },
                top_p: 0.95,
                seed: Some(u64::from(index)),
                ..SamplingParams::default()
            },
            ..EngineCoreRequest::default()
        })
        .collect();
    let alone = EngineConfig {
        block_size: BLOCK_SIZE,
        num_blocks: 100,
        max_num_seqs: 1,
        max_model_len: 64,
        enable_prefix_caching: false,
        ..EngineConfig::default()
    };
    let batched = EngineConfig { max_num_seqs: 8, ..alone.clone() };
    let chunked = EngineConfig { max_num_batched_tokens: 7, ..batched.clone() };
    let cached = EngineConfig { enable_prefix_caching: true, ..batched.clone() };
    let preempted = EngineConfig { num_blocks: 14, max_num_batched_tokens: 20, ..batched.clone() };
    for device in devices() {
        let generate = |config: &EngineConfig| generate(&device, config.clone(), &requests);
        let (expected, _) = generate(&alone);
        assert!(expected.iter().all(|output| output.iter().collect::<HashSet<_>>().len() > 3), "{expected:?}");
        assert_eq!(generate(&batched).0, expected, "batched");
        assert_eq!(generate(&chunked).0, expected, "chunked");
        let (outputs, stats) = generate(&cached);
        assert_eq!(outputs, expected, "cached");
        assert_eq!(stats.prefix_cached_tokens, 24);
        let (outputs, stats) = generate(&preempted);
        assert_eq!(outputs, expected, "preempted");
        assert!(stats.num_preemptions > 0 && stats.recomputed_tokens > 0, "{stats:?}");
    }
}
