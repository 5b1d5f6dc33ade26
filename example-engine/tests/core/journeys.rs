//! What the core says about each sequence: one `llm_core` with its events, at the true places and once each.

use crate::support::{SlotRunner, request};
use example_engine::engine::{EngineConfig, EngineCore, EngineCoreRequest, FinishReason, Scheduler};
use example_engine::model_runner::ModelRunner;
use journey_layer::macros::*;
use journey_layer::testing::{Capture, CapturedEvent, CapturedSpan, capture};

fn config() -> EngineConfig {
    EngineConfig {
        block_size: 4,
        num_blocks: 8,
        max_num_batched_tokens: 8,
        max_model_len: 64,
        ..EngineConfig::default()
    }
}

/// A request handed over from an `llm_request` that stays open as long as the guard.
fn handed_over(id: &str, prompt: &[u32], max_tokens: u32) -> (EngineCoreRequest, journey_layer::tracing::Span) {
    let span = journey_span!(scope = "vllm.api", request_id = %format!("api-{id}"));
    journey_event!(&span, ARRIVED);
    (EngineCoreRequest { carrier: journey_layer::handoff(&span), ..request(id, prompt, max_tokens) }, span)
}

fn run(scheduler: &mut Scheduler, runner: &mut SlotRunner, steps: usize) {
    for _ in 0..steps {
        if !scheduler.has_unfinished_requests() {
            return;
        }
        let output = scheduler.schedule();
        match runner.execute_model(&output) {
            Ok(result) => scheduler.update_from_output(&output, &result),
            Err(error) => scheduler.fail_step(&output, &error),
        };
    }
}

#[track_caller]
fn core_span(capture: &Capture, id: &str) -> CapturedSpan {
    let is_core = |span: &CapturedSpan| {
        span.name == "llm_core"
            && span.attribute("gen_ai.request.id").map(|id| id.as_str().into_owned()) == Some(id.to_owned())
    };
    capture.spans().into_iter().find(is_core).unwrap_or_else(|| panic!("no llm_core for {id}"))
}

#[track_caller]
fn int(event: &CapturedEvent, key: &str) -> i64 {
    match event.attribute(key) {
        Some(journey_layer::opentelemetry::Value::I64(value)) => *value,
        other => panic!("{key} of {} is {other:?}", event.name),
    }
}

#[track_caller]
fn text(event: &CapturedEvent, key: &str) -> String {
    event.attribute(key).unwrap_or_else(|| panic!("{} has no {key}", event.name)).as_str().into_owned()
}

#[test]
fn a_sequence_with_a_chunked_prompt_tells_its_progress() {
    let capture = capture();
    let (mut scheduler, mut runner) = (Scheduler::new(config()), SlotRunner::new(8, 4));
    let (request, api) = handed_over("a", &[7; 20], 3);
    scheduler.add_request(request, 0).unwrap();
    run(&mut scheduler, &mut runner, 100);
    let span = core_span(&capture, "a");
    assert_eq!(span.event_names(), ["journey.QUEUED", "journey.SCHEDULED", "journey.FIRST_TOKEN", "journey.FINISHED"]);
    let progress = |event: &CapturedEvent| {
        let keys = [
            "scheduler.step",
            "prefill.done_tokens",
            "prefill.total_tokens",
            "decode.done_tokens",
            "decode.max_tokens",
        ];
        (text(event, "phase"), keys.map(|key| int(event, key)))
    };
    assert_eq!(progress(&span.events[0]), ("WAITING".to_owned(), [0, 0, 20, 0, 3]));
    assert_eq!(progress(&span.events[1]), ("PREFILL".to_owned(), [1, 0, 20, 0, 3]));
    assert_eq!(progress(&span.events[2]), ("DECODE".to_owned(), [3, 20, 20, 1, 3]));
    assert_eq!(progress(&span.events[3]), ("DECODE".to_owned(), [5, 20, 20, 3, 3]));
    assert_eq!(text(&span.events[1], "schedule.kind"), "FIRST");
    assert_eq!(text(&span.events[3], "finish.status"), "length");
    drop(api);
    let request = capture.span("llm_request");
    assert_eq!((span.trace_id, span.parent_span_id), (request.trace_id, Some(request.span_id)));
    assert!(capture.stats().balances());
}

#[test]
fn a_preempted_sequence_resumes_in_the_same_span_and_says_what_it_cost() {
    let capture = capture();
    let config = EngineConfig { enable_prefix_caching: false, ..config() };
    let (mut scheduler, mut runner) = (Scheduler::new(config), SlotRunner::new(8, 4));
    let (first, _first) = handed_over("first", &[1; 8], 20);
    let (second, _second) = handed_over("second", &[2; 8], 20);
    scheduler.add_request(first, 0).unwrap();
    scheduler.add_request(second, 0).unwrap();
    run(&mut scheduler, &mut runner, 1000);
    let span = core_span(&capture, "second");
    let names = span.event_names();
    assert_eq!(
        names[..5],
        ["journey.QUEUED", "journey.SCHEDULED", "journey.FIRST_TOKEN", "journey.PREEMPTED", "journey.SCHEDULED"]
    );
    let (preempted, resumed, finished) = (&span.events[3], &span.events[4], span.events.last().unwrap());
    assert_eq!((int(preempted, "num_preemptions"), int(preempted, "prefill.done_tokens")), (1, 8));
    assert_eq!(text(resumed, "schedule.kind"), "RESUME");
    assert_eq!(int(resumed, "prefill.done_tokens"), 8, "the high-water mark survives");
    assert_eq!(int(resumed, "prefill.recomputed_tokens"), 0);
    // Its prompt, and each output token but the last, whose KV was not yet computed.
    let lost = 8 + int(preempted, "decode.done_tokens") - 1;
    assert_eq!(int(finished, "prefill.recomputed_tokens"), lost);
    assert_eq!(int(finished, "prefill.recomputed_tokens") as u64, scheduler.stats().recomputed_tokens);
}

#[test]
fn every_way_to_end_has_its_status() {
    let capture = capture();
    let (mut scheduler, mut runner) = (Scheduler::new(config()), SlotRunner::new(8, 4));
    let status = |id: &str| text(core_span(&capture, id).event("journey.FINISHED"), "finish.status");

    let (waiting, _waiting) = handed_over("waiting", &[1], 5);
    let number = scheduler.add_request(waiting, 0).unwrap();
    scheduler.finish_request(number, &FinishReason::Abort);
    assert_eq!(status("waiting"), "aborted");
    assert_eq!(core_span(&capture, "waiting").event_names(), ["journey.QUEUED", "journey.FINISHED"]);

    let (failed, _failed) = handed_over("failed", &[1], 5);
    scheduler.add_request(failed, 0).unwrap();
    runner.failures = 1;
    run(&mut scheduler, &mut runner, 1);
    assert_eq!(status("failed"), "error");

    let (mut stopped, _stopped) = handed_over("stopped", &[1], 5);
    stopped.sampling_params.stop_token_ids = (0..crate::support::VOCAB_SIZE).collect();
    scheduler.add_request(stopped, 0).unwrap();
    run(&mut scheduler, &mut runner, 100);
    assert_eq!(status("stopped"), "stopped");

    let (ignored, _ignored) = handed_over("ignored", &[1; 20], 40);
    scheduler.add_request(ignored, 0).unwrap_err();
    assert_eq!(status("ignored"), "ignored");
    assert_eq!(core_span(&capture, "ignored").event_names(), ["journey.FINISHED"]);
}

#[test]
fn a_sequence_without_a_sampled_carrier_has_no_span() {
    let capture = capture();
    let (mut scheduler, mut runner) = (Scheduler::new(config()), SlotRunner::new(8, 4));
    scheduler.add_request(request("a", &[1, 2], 3), 0).unwrap();
    run(&mut scheduler, &mut runner, 100);
    assert!(capture.spans().is_empty());
    assert!(capture.stats().balances());
}

#[tokio::test]
async fn the_core_thread_ends_the_journey_of_a_dropped_stream_and_at_shutdown() {
    let capture = capture();
    let core =
        EngineCore::start(EngineConfig { num_blocks: 64, ..config() }, Box::new(SlotRunner::new(64, 4))).unwrap();
    let (dropped, _dropped) = handed_over("dropped", &[1, 2, 3], 60);
    let mut stream = core.add_request(dropped).await.unwrap();
    stream.next().await.unwrap();
    drop(stream);
    core.shutdown(std::time::Duration::from_secs(10));
    let span = core_span(&capture, "dropped");
    assert!(matches!(text(span.event("journey.FINISHED"), "finish.status").as_str(), "aborted" | "length"));
    assert!(capture.stats().balances());
}
