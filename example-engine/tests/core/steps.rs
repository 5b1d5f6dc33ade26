//! What a traced scheduler step says.

use std::path::Path;
use std::time::Duration;

use crate::support::request;
use example_engine::engine::{EngineConfig, EngineCore, EngineCoreRequest};
use example_engine::model;
use example_engine::model_runner::{GpuModelRunner, SelectedDevice};
use journey_layer::macros::*;
use journey_layer::opentelemetry::Value;
use journey_layer::testing::{CapturedEvent, CapturedSpan, capture, capture_with};

fn start(snapshot_rate: f64) -> EngineCore {
    let device = SelectedDevice::cpu();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("model");
    let llama = model::load(&dir, &device.device).expect("the demo model is in the repository");
    let config = EngineConfig {
        num_blocks: 16,
        max_num_batched_tokens: 24,
        max_model_len: 128,
        step_tracing_snapshot_rate: snapshot_rate,
        ..EngineConfig::default()
    };
    let runner = GpuModelRunner::new(llama, &device, config.num_blocks, config.block_size);
    EngineCore::start(config, Box::new(runner)).unwrap()
}

async fn generate(core: &EngineCore, id: &str, prompt_len: u32) {
    let span = journey_span!(scope = "vllm.api", request_id = %format!("api-{id}"));
    journey_event!(&span, ARRIVED);
    let prompt: Vec<u32> = (10..10 + prompt_len).collect();
    let mut request = EngineCoreRequest { carrier: journey_layer::handoff(&span), ..request(id, &prompt, 3) };
    request.sampling_params.ignore_eos = true;
    let mut stream = core.add_request(request).await.unwrap();
    while stream.next().await.is_some() {}
    journey_event!(&span, ABORTED, reason = cancelled);
}

#[track_caller]
fn int(event: &CapturedEvent, key: &str) -> i64 {
    match event.attribute(key) {
        Some(Value::I64(value)) => *value,
        other => panic!("{key} of {} is {other:?}", event.name),
    }
}

fn named(spans: &[CapturedSpan], name: &str) -> Vec<CapturedSpan> {
    spans.iter().filter(|span| span.name == name).cloned().collect()
}

#[tokio::test]
async fn a_step_sums_up_its_batch_and_links_to_the_sequences_in_it() {
    let capture = capture();
    let core = start(1.0);
    generate(&core, "a", 40).await;
    core.shutdown(Duration::from_secs(10));
    let spans = capture.spans();
    let (steps, core_span) = (named(&spans, "scheduler_step"), capture.span("llm_core"));
    assert_eq!(steps.len(), 4, "two for the prompt, the second of which brings a token, and two more");
    for step in &steps {
        assert_eq!((step.scope, step.parent_span_id), ("vllm.scheduler", None));
        assert_eq!(step.links.iter().map(|link| link.span_id()).collect::<Vec<_>>(), [core_span.span_id]);
        assert_eq!(step.event_names(), ["step.REQUEST_SNAPSHOT", "step.BATCH_SUMMARY"]);
    }
    let summary = |index: usize| {
        let event: &CapturedEvent = steps[index].event("step.BATCH_SUMMARY");
        let keys = [
            "step.id",
            "batch.num_prefill_reqs",
            "batch.num_decode_reqs",
            "batch.scheduled_tokens",
            "batch.prefill_tokens",
            "batch.decode_tokens",
            "batch.num_finished",
            "queue.running_depth",
            "kv.blocks_free_gpu",
        ];
        keys.map(|key| int(event, key))
    };
    assert_eq!(summary(0), [1, 1, 0, 24, 24, 0, 0, 1, 14]);
    assert_eq!(summary(1), [2, 1, 0, 16, 16, 0, 0, 1, 13]);
    assert_eq!(summary(3), [4, 0, 1, 1, 0, 1, 1, 1, 13]);
    let snapshot = steps[1].event("step.REQUEST_SNAPSHOT");
    assert_eq!(snapshot.attribute("request.id"), Some(&Value::from("a")));
    assert_eq!(snapshot.attribute("request.phase"), Some(&Value::from("PREFILL")));
    let keys = [
        "request.num_prompt_tokens",
        "request.num_computed_tokens",
        "request.scheduled_tokens_this_step",
        "kv.blocks_allocated_gpu",
    ];
    assert_eq!(keys.map(|key| int(snapshot, key)), [40, 24, 16, 3]);
    let summary = steps[0].event("step.BATCH_SUMMARY");
    let (start, end) = (int(summary, "step.ts_start_ns"), int(summary, "step.ts_end_ns"));
    assert_eq!(int(summary, "step.duration_us"), (end - start) / 1000);
    assert!(end > start);
}

#[tokio::test]
async fn the_forward_pass_of_a_traced_step_is_its_child() {
    let capture = capture();
    let core = start(0.0);
    generate(&core, "a", 5).await;
    core.shutdown(Duration::from_secs(10));
    let spans = capture.spans();
    let (steps, forwards) = (named(&spans, "scheduler_step"), named(&spans, "model_forward"));
    assert_eq!(forwards.len(), 3);
    for (step, forward) in steps.iter().zip(&forwards) {
        assert_eq!((forward.trace_id, forward.parent_span_id), (step.trace_id, Some(step.span_id)));
        assert!(forward.duration() <= step.duration());
        assert_eq!(step.event_names(), ["step.BATCH_SUMMARY"], "no snapshot is taken at rate 0");
    }
    assert!(capture.stats().balances());
}

#[tokio::test]
async fn a_step_that_is_not_sampled_leaves_nothing() {
    let capture = capture_with(journey_layer::Journey::builder().step_sample_rate(0.0));
    let core = start(1.0);
    generate(&core, "a", 5).await;
    core.shutdown(Duration::from_secs(10));
    let names: Vec<_> = capture.spans().iter().map(|span| span.name).collect();
    assert!(names.iter().all(|name| ["llm_core", "llm_request"].contains(name)), "{names:?}");
    assert!(capture.stats().balances());
}
