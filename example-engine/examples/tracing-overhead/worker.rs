//! One engine, which answers a round of requests for each line it reads.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use example_engine::commands::FLUSH;
use example_engine::config::{Cli, EngineArgs};
use example_engine::engine::{EngineCore, EngineCoreRequest, SamplingParams};
use example_engine::model;
use example_engine::model_runner::{
    DeviceChoice, GpuModelRunner, ModelError, ModelRunner, ModelRunnerOutput, SchedulerOutput, SelectedDevice,
};
use example_engine::startup::Front;
use example_engine::telemetry::{Options, Telemetry};
use journey_layer::{handoff, journey_event, journey_record, macros::journey_span};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::{Args, Round};

const PROMPT_TOKENS: u32 = 32;
/// Token ids that every vocabulary has.
const FIRST_TOKEN_ID: u32 = 10;

/// Runs rounds until standard input ends.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let telemetry = Telemetry::start(Options {
        file: None,
        console: false,
        memory: None,
        receiver: None,
        sample_rate: None,
        step_sample_rate: 0.0,
    })?;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let core = start_core(args, steps.clone())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let served = Arc::new(AtomicU32::new(0));
    for line in io::stdin().lines() {
        line?;
        steps.lock().clear();
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let tokens = runtime.block_on(round(args, &core, &served))?;
        let seconds = began.elapsed().as_secs_f64();
        // Nobody waits for what is left to export, but its CPU time is part of the round's.
        runtime.block_on(telemetry.flush(FLUSH))?;
        let cpu_seconds = cpu_seconds() - cpu;
        let step_seconds = steps.lock().windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let spans = telemetry.stats().spans;
        let (spans_started, spans_exported) = (spans.started, spans.exported);
        let round = Round { tokens, seconds, cpu_seconds, step_seconds, spans_started, spans_exported };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&round)?)?;
        out.flush()?;
    }
    core.shutdown(Duration::ZERO);
    Ok(telemetry.shutdown(FLUSH)?)
}

fn start_core(args: &Args, steps: Arc<Mutex<Vec<Instant>>>) -> Result<EngineCore, Box<dyn Error>> {
    let seqs = (args.concurrency / 2).to_string();
    let cli = Cli::try_parse_from(["example-engine", "--max-num-seqs", &seqs, "--no-prefix-caching"])?;
    let engine: EngineArgs = cli.serve.engine;
    let front = Front::load(&engine, None)?;
    let config = engine.engine_config(&front.config);
    let device = SelectedDevice::select(DeviceChoice::Cpu)?;
    let llama = model::load(&front.dir, &device.device)?;
    let runner = GpuModelRunner::new(llama, &device, config.num_blocks, config.block_size);
    Ok(EngineCore::start(config, Box::new(Timed { runner, steps }))?)
}

/// Notes when each step begins to execute.
struct Timed {
    runner: GpuModelRunner,
    steps: Arc<Mutex<Vec<Instant>>>,
}

impl ModelRunner for Timed {
    fn execute_model(&mut self, scheduler_output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
        self.steps.lock().push(Instant::now());
        self.runner.execute_model(scheduler_output)
    }
}

async fn round(args: &Args, core: &EngineCore, served: &Arc<AtomicU32>) -> Result<u64, Box<dyn Error>> {
    let left = Arc::new(AtomicU32::new(args.requests));
    let clients: Vec<_> = (0..args.concurrency)
        .map(|_| {
            let (core, left, served, max_tokens) = (core.clone(), left.clone(), served.clone(), args.max_tokens);
            tokio::spawn(async move {
                let mut tokens = 0;
                while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let number = served.fetch_add(1, Relaxed);
                    tokens += request(&core, number, max_tokens).await.map_err(|error| error.to_string())?;
                }
                Ok::<u64, String>(tokens)
            })
        })
        .collect();
    let mut tokens = 0;
    for client in clients {
        tokens += client.await??;
    }
    Ok(tokens)
}

/// A request as the API says it, without the HTTP.
async fn request(core: &EngineCore, number: u32, max_tokens: u32) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let id = format!("cmpl-{number}");
    let span = journey_span!(scope = "vllm.api", request_id = id.as_str(), fields(http.route = "/v1/completions"));
    journey_event!(&span, ARRIVED);
    let sampling_params = SamplingParams { max_tokens, ignore_eos: true, ..SamplingParams::default() };
    journey_record!(
        &span,
        prompt_tokens = PROMPT_TOKENS,
        top_p = sampling_params.top_p,
        max_tokens = max_tokens,
        temperature = sampling_params.temperature,
        n = 1_u32,
        model = "demo",
    );
    let mut outputs = core
        .add_request(EngineCoreRequest {
            request_id: format!("{id}-0"),
            // Another prompt each time, and the same ones in both processes.
            prompt_token_ids: (0..PROMPT_TOKENS).map(|at| FIRST_TOKEN_ID + (number * 7 + at * 13) % 200).collect(),
            sampling_params,
            priority: 0,
            carrier: handoff(&span),
        })
        .await?;
    journey_event!(&span, HANDOFF_TO_CORE);
    let mut tokens = 0;
    while let Some(output) = outputs.next().await {
        if tokens == 0 {
            journey_event!(&span, FIRST_RESPONSE_FROM_CORE);
        }
        tokens += output.new_token_ids.len() as u64;
    }
    journey_record!(&span, completion_tokens = tokens);
    journey_event!(&span, DEPARTED);
    Ok(tokens)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
