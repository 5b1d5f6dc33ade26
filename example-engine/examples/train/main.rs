//! Trains the demo model: writes its own corpus, learns a vocabulary, trains, and writes the checkpoint.
//!
//! `cargo run --release -p example-engine --example train` takes about 22 minutes of CPU time.
#![allow(clippy::print_stdout, reason = "a command line tool tells its progress")]

mod corpus;
mod vocabulary;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use example_engine::model::{self, CausalAttention, Llama, LlamaModel, ModelConfig};
use example_engine::model_runner::{
    GpuModelRunner, ModelRunner, Sampling, ScheduledSequence, SchedulerOutput, SelectedDevice,
};
use example_engine::tokenizer::Tokenizer;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::corpus::{ASSISTANT, Storyteller, USER};
use crate::vocabulary::{BOS, EOS};

/// Context length of the model.
pub(crate) const CONTEXT: usize = 512;

#[derive(Parser)]
struct Args {
    /// Where to write the checkpoint.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/model"))]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Stories in the corpus.
    #[arg(long, default_value_t = 30_000)]
    stories: usize,
    /// Seed of the corpus, the weights and the batches.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out)?;
    let mut storyteller = Storyteller::new(Xoshiro256PlusPlus::seed_from_u64(args.seed));
    let texts: Vec<String> = (0..args.stories).map(|_| storyteller.document()).collect();
    vocabulary::train(&texts, &args.out)?;
    let tokenizer = Tokenizer::load(&args.out)?;
    let token = |text| tokenizer.token_to_id(text).ok_or_else(|| format!("{text} is not in the vocabulary"));
    let (bos, eos) = (token(BOS)?, token(EOS)?);
    let mut tokens = Vec::new();
    for text in &texts {
        tokens.extend(tokenizer.encode(text, true)?);
        tokens.push(eos);
    }
    println!("{} stories, {} tokens, a vocabulary of {}", texts.len(), tokens.len(), tokenizer.vocab_size());

    let config = ModelConfig {
        architectures: vec!["LlamaForCausalLM".to_owned()],
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        head_dim: None,
        max_position_embeddings: CONTEXT,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        hidden_act: "silu".to_owned(),
        tie_word_embeddings: true,
        bos_token_id: Some(bos),
        eos_token_id: vec![eos],
    };
    let llama = train(config, &tokens, &args)?;
    model::save(&args.out, &llama)?;
    println!("written to {}", args.out.display());
    show(&args.out)
}

/// Where a part of the corpus is held back, to see that the model has learned and not only memorized.
const HELD_BACK: usize = 20;

fn train(config: ModelConfig, tokens: &[u32], args: &Args) -> Result<Llama, String> {
    let device = Device::flex().autodiff();
    device.seed(args.seed);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(args.seed);
    let bos = config.bos_token_id.ok_or("the model has no beginning token")?;
    let mut llama = Llama { model: LlamaModel::init(&config, &device), config };
    println!("{} parameters", llama.model.num_params());
    let mut optimizer: ModuleOptimizer = AdamWConfig::new()
        .with_beta_2(0.95)
        .with_epsilon(1e-8)
        .with_weight_decay(0.05)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    let (validation, training) = tokens.split_at(tokens.len() / HELD_BACK);
    let started = Instant::now();
    let mut average = None;
    for step in 0..args.steps {
        let (batch, len) = shape(step, args.steps);
        let loss = loss(&llama, &windows(training, bos, batch, len, &mut rng), batch, len, &device);
        let value = loss.clone().into_scalar::<f32>();
        if !value.is_finite() {
            return Err(format!("the loss is {value} at step {step}"));
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &llama.model);
        if step == 0 {
            check_gradients(&llama.model, &gradients)?;
        }
        llama.model = optimizer.step(learning_rate(step, args.steps), llama.model, gradients);
        let mean = average.map_or(value, |mean: f32| mean * 0.95 + value * 0.05);
        average = Some(mean);
        if step % 50 == 0 || step + 1 == args.steps {
            println!("step {step:>5}  loss {mean:.3}  {:>5.0} s", started.elapsed().as_secs_f64());
        }
    }
    llama.model = llama.model.valid();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(args.seed);
    let held_back = loss(&llama, &windows(validation, bos, 8, CONTEXT, &mut rng), 8, CONTEXT, &Device::flex());
    println!("loss on held-back stories: {:.3}", held_back.into_scalar::<f32>());
    Ok(llama)
}

/// Sequences in a step, and tokens in each. First little more than one story, where there is nothing else to look up a
/// name in; long contexts come at the end, because attention over them costs more and they take little to learn.
fn shape(step: usize, steps: usize) -> (usize, usize) {
    match step * 100 / steps.max(1) {
        0..60 => (16, CONTEXT / 4),
        60..85 => (8, CONTEXT / 2),
        _ => (4, CONTEXT),
    }
}

/// Mean cross-entropy of each next token.
fn loss(llama: &Llama, windows: &[u32], batch: usize, len: usize, device: &Device) -> Tensor<1> {
    let inputs: Vec<u32> = windows.chunks(len + 1).flat_map(|window| &window[..len]).copied().collect();
    let targets: Vec<i32> =
        windows.chunks(len + 1).flat_map(|window| &window[1..]).map(|&token| token as i32).collect();
    let positions: Vec<u32> = (0..batch).flat_map(|_| 0..len as u32).collect();
    let hidden = llama.forward(&inputs, &positions, &mut CausalAttention::new(batch, len, device));
    let targets = Tensor::<1, Int>::from_data(TensorData::from(targets.as_slice()), device);
    CrossEntropyLossConfig::new().init(device).forward(llama.logits(hidden), targets)
}

/// `batch` pieces of `len + 1` tokens, each from the beginning of a random text, as the engine sees them.
fn windows(tokens: &[u32], bos: u32, batch: usize, len: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
    let last = tokens.len().saturating_sub(len + 1);
    let is_begin = |start: &usize| tokens[*start] == bos;
    (0..batch)
        .flat_map(|_| {
            let somewhere = rng.random_range(0..=last);
            // The corpus begins with a text; the held-back part may begin in the midst of one.
            let start = (0..=somewhere).rev().find(is_begin).unwrap_or(0);
            &tokens[start..start + len + 1]
        })
        .copied()
        .collect()
}

/// Rises over the first steps, then falls as a cosine to a twentieth.
fn learning_rate(step: usize, steps: usize) -> f64 {
    const PEAK: f64 = 4e-3;
    let warmup = (steps / 20).max(1);
    if step < warmup {
        return PEAK * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    PEAK * (0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

/// A fast step may be one that trains half of the model: every parameter must have a gradient that is not zero.
fn check_gradients(model: &LlamaModel, gradients: &GradientsParams) -> Result<(), String> {
    struct Check<'a>(&'a GradientsParams, usize, usize);
    impl ModuleVisitor for Check<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let norm = self.0.get::<D>(param.id).map(|gradient| gradient.abs().sum().into_scalar::<f32>());
            self.1 += 1;
            self.2 += usize::from(norm.is_some_and(|norm| norm.is_finite() && norm > 0.0));
        }
    }
    let mut check = Check(gradients, 0, 0);
    model.visit(&mut check);
    let Check(_, parameters, trained) = check;
    println!("gradients reach {trained} of {parameters} parameters");
    if trained == parameters { Ok(()) } else { Err("some parameters are not trained".to_owned()) }
}

/// Loads what was written as the engine does, and lets it tell a few stories.
fn show(dir: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let device = SelectedDevice::cpu();
    let tokenizer = Tokenizer::load(dir)?;
    let chat = format!("{USER}Tell me a story about a fox.\n{ASSISTANT}");
    for (seed, prompt) in ["Once upon a time", "There once lived", &chat].into_iter().enumerate() {
        let mut runner = GpuModelRunner::new(model::load(dir, &device.device)?, &device, 1, CONTEXT);
        let mut tokens = tokenizer.encode(prompt, true)?;
        let prompt_len = tokens.len();
        let mut computed = 0;
        while tokens.len() < 160 {
            let sequence = ScheduledSequence {
                request_id: prompt.to_owned(),
                token_ids: tokens[computed..].to_vec(),
                num_computed_tokens: computed,
                block_ids: vec![0],
                sampling: Some(Sampling {
                    temperature: 0.7,
                    top_p: 0.95,
                    top_k: None,
                    seed: seed as u64,
                    position: tokens.len() as u64,
                }),
                ..ScheduledSequence::default()
            };
            computed = tokens.len();
            let output = runner
                .execute_model(&SchedulerOutput { scheduled_seqs: vec![sequence], ..SchedulerOutput::default() })?;
            let Some(token) = output.sampled_token_ids[0] else { break };
            if Some(token) == tokenizer.token_to_id(EOS) {
                break;
            }
            tokens.push(token);
        }
        println!("\n[{prompt}]{}", tokenizer.decode(&tokens[prompt_len..], true));
    }
    Ok(())
}
