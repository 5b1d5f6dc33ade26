//! The core's thread, through its handle.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::{SlotRunner, oracle, request};
use example_engine::engine::{EngineConfig, EngineCore, EngineError, FinishReason, OutputStream};
use example_engine::model_runner::{ModelError, ModelRunner, ModelRunnerOutput, SchedulerOutput};

fn config() -> EngineConfig {
    EngineConfig { block_size: 4, num_blocks: 64, max_model_len: 256, ..EngineConfig::default() }
}

/// A runner that takes a step only when the test lets it, so that the test knows where the core stands.
struct Gated {
    inner: SlotRunner,
    gate: mpsc::Receiver<()>,
    /// Hears of each step that begins.
    begun: mpsc::Sender<()>,
}

impl ModelRunner for Gated {
    fn execute_model(&mut self, scheduler_output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
        // Not every test listens, and a gate that is gone stays open.
        let _ = self.begun.send(());
        let _ = self.gate.recv();
        self.inner.execute_model(scheduler_output)
    }
}

fn gated(config: EngineConfig) -> (EngineCore, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (open, gate) = mpsc::channel();
    let (begun, steps) = mpsc::channel();
    let inner = SlotRunner::new(config.num_blocks, config.block_size);
    (EngineCore::start(config, Box::new(Gated { inner, gate, begun })).unwrap(), open, steps)
}

/// A step every 5 ms, as long as the core lives: while it waits for its runner it takes no request.
fn open_slowly(open: mpsc::Sender<()>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while open.send(()).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

fn start(config: EngineConfig) -> EngineCore {
    let runner = SlotRunner::new(config.num_blocks, config.block_size);
    EngineCore::start(config, Box::new(runner)).unwrap()
}

async fn collect(mut stream: OutputStream) -> (Vec<u32>, Option<FinishReason>) {
    let (mut tokens, mut end) = (Vec::new(), None);
    while let Some(output) = stream.next().await {
        tokens.extend(output.new_token_ids);
        end = output.finish_reason;
    }
    (tokens, end)
}

/// Waits until the core has no sequence left and holds no block. The core publishes its numbers after each step.
async fn assert_idle(core: &EngineCore) {
    let idle = async {
        loop {
            let stats = core.stats();
            if stats.num_running_reqs + stats.num_waiting_reqs == 0 && stats.num_free_blocks == stats.num_blocks {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), idle).await.expect("the core becomes idle");
}

#[tokio::test]
async fn many_sequences_at_once_each_get_their_own_tokens() {
    let core = start(config());
    let prompts: Vec<Vec<u32>> = (1..40).map(|len| (0..len).map(|index| index % 7).collect()).collect();
    let mut streams = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        streams.push(core.add_request(request(&index.to_string(), prompt, 9)).await.unwrap());
    }
    for (stream, prompt) in streams.into_iter().zip(&prompts) {
        assert_eq!(collect(stream).await, (oracle(prompt, 9), Some(FinishReason::Length)));
    }
    assert_idle(&core).await;
    assert_eq!(core.stats().finished_length, 39);
}

#[tokio::test]
async fn streams_that_are_dropped_free_their_blocks() {
    let (core, open, _steps) = gated(config());
    open_slowly(open);
    let mut dropped = core.add_request(request("dropped", &[1, 2, 3], 200)).await.unwrap();
    assert!(dropped.next().await.is_some());
    let unread = core.add_request(request("unread", &[4, 5], 200)).await.unwrap();
    drop((dropped, unread));
    assert_idle(&core).await;
    assert_eq!(core.stats().finished_abort, 2);
}

#[tokio::test]
async fn a_request_given_up_before_the_answer_is_aborted() {
    let (core, open, steps) = gated(config());
    let stream = core.add_request(request("busy", &[1], 2)).await.unwrap();
    // While the core is inside a step, nothing is answered.
    steps.recv().unwrap();
    let given_up = core.add_request(request("given up", &[2], 200));
    assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
    drop(open);
    collect(stream).await;
    assert_idle(&core).await;
    assert_eq!(core.stats().finished_abort, 1);
}

#[tokio::test]
async fn shutdown_refuses_new_work_drains_and_aborts_what_is_left() {
    let (core, open, _steps) = gated(config());
    let slowly = open_slowly(open);
    let short = core.add_request(request("short", &[1], 10)).await.unwrap();
    let endless = core.add_request(request("endless", &[2], 250)).await.unwrap();
    let stopping = {
        let core = core.clone();
        tokio::task::spawn_blocking(move || core.shutdown(Duration::from_millis(1500)))
    };
    let refused = tokio::spawn({
        let core = core.clone();
        async move {
            // The order of the two is not known, but sooner or later the core shuts down.
            loop {
                match core.add_request(request("late", &[3], 1)).await {
                    Err(error) => return error,
                    Ok(stream) => drop(collect(stream).await),
                }
            }
        }
    });
    assert_eq!(collect(short).await.1, Some(FinishReason::Length));
    assert_eq!(collect(endless).await.1, Some(FinishReason::Abort));
    stopping.await.unwrap();
    slowly.join().unwrap();
    assert!(matches!(refused.await.unwrap(), EngineError::ShuttingDown | EngineError::Dead(_)));
    let error = core.add_request(request("after", &[1], 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the engine core is dead: it was shut down");
    assert_eq!(core.health(), Err(error));
    core.shutdown(Duration::MAX);
}

#[tokio::test]
async fn a_runner_that_panics_ends_every_sequence_with_the_reason() {
    struct Panics;
    impl ModelRunner for Panics {
        fn execute_model(&mut self, _: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
            panic!("the device is gone");
        }
    }
    let core = EngineCore::start(config(), Box::new(Panics)).unwrap();
    let stream = core.add_request(request("a", &[1], 5)).await.unwrap();
    let reason = "it panicked: the device is gone".to_owned();
    assert_eq!(collect(stream).await, (vec![], Some(FinishReason::Error(reason.clone()))));
    core.shutdown(Duration::ZERO);
    assert_eq!(core.add_request(request("b", &[1], 5)).await.unwrap_err(), EngineError::Dead(reason));
}

#[tokio::test]
async fn a_failed_step_costs_its_own_sequences_only() {
    let mut runner = SlotRunner::new(64, 4);
    runner.failures = 1;
    let core = EngineCore::start(config(), Box::new(runner)).unwrap();
    let stream = core.add_request(request("a", &[1], 5)).await.unwrap();
    assert!(
        matches!(collect(stream).await.1, Some(FinishReason::Error(text)) if text.contains("as the test wants it"))
    );
    let stream = core.add_request(request("b", &[1], 5)).await.unwrap();
    assert_eq!(collect(stream).await.0, oracle(&[1], 5));
}

#[tokio::test]
async fn the_core_ends_with_its_last_handle() {
    struct Watched(SlotRunner, #[expect(dead_code, reason = "its drop is what is watched")] mpsc::Sender<()>);
    impl ModelRunner for Watched {
        fn execute_model(&mut self, output: &SchedulerOutput) -> Result<ModelRunnerOutput, ModelError> {
            self.0.execute_model(output)
        }
    }
    let (alive, ended) = mpsc::channel();
    let core = EngineCore::start(config(), Box::new(Watched(SlotRunner::new(64, 4), alive))).unwrap();
    let stream = core.add_request(request("a", &[1], 200)).await.unwrap();
    drop(core);
    assert_eq!(collect(stream).await.0.len(), 200, "a stream keeps it alive");
    assert_eq!(ended.recv_timeout(Duration::from_secs(10)), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let config = EngineConfig { max_num_seqs: 0, ..config() };
    let error = EngineCore::start(config, Box::new(SlotRunner::new(1, 1))).unwrap_err();
    assert_eq!(error.to_string(), "max_num_seqs is 0; it must be at least 1");
}
