//! Journeys that the layer of this repository writes: clean to `check`, whole in `report`, live in `serve`.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::collections::HashMap;
use std::time::Duration;

use common::{check_json, run_in, stdout};
use journey_layer::tracing::{Span, subscriber};
use journey_layer::{Exporter, Journey, Progress, Protocol, handoff, macros::*};
use serde_json::json;
use server::Server;
use tracing_subscriber::layer::SubscriberExt;

/// Runs `work` under a layer of its own and delivers all of it.
fn traced(exporter: impl Into<Exporter>, work: impl FnOnce()) {
    let builder = Journey::builder().environment(|_| None).step_sample_rate(1.0);
    let journey = builder.exporter(exporter.into()).build().unwrap();
    subscriber::with_default(tracing_subscriber::registry().with(journey.layer()), work);
    journey.shutdown(Duration::from_secs(10)).unwrap();
}

fn request(id: &str, n: u32) -> Span {
    let headers = HashMap::<String, String>::new();
    let request = journey_span!(scope = "vllm.api", request_id = %id, headers = &headers, route = "/v1/completions");
    journey_event!(&request, ARRIVED);
    let tokens = 24;
    journey_record!(
        &request,
        prompt_tokens = tokens,
        temperature = 0.7,
        top_p = 0.95,
        max_tokens = 16,
        n = n,
        model = "tiny"
    );
    request
}

fn sequence(request: &Span, id: &str) -> Span {
    let core = journey_span!(scope = "vllm.scheduler", request_id = %id, carrier = &handoff(request));
    journey_event!(&core, QUEUED, ..Progress::new().step(0).prefill(0, 24).decode(0, 16));
    core
}

/// A request of `n` sequences, each preempted once, with a step that served them all.
fn completion(id: &str, n: u32) {
    let request = request(id, n);
    let cores: Vec<Span> = (0..n).map(|index| sequence(&request, &format!("{index}_{id}-5f2c"))).collect();
    journey_event!(&request, HANDOFF_TO_CORE);
    let progress = Progress::new().prefill(24, 24).decode(1, 16);
    for core in &cores {
        journey_event!(core, SCHEDULED, ..Progress::new().prefill(0, 24).decode(0, 16).step(1));
        journey_event!(core, FIRST_TOKEN, ..progress.step(2));
        journey_event!(core, PREEMPTED, ..progress.step(3));
        journey_event!(core, SCHEDULED, ..progress.step(5));
    }
    let step = journey_span!(scope = "vllm.scheduler", name = "scheduler_step");
    for core in &cores {
        step.follows_from(core);
    }
    drop(journey_span!(scope = "vllm.scheduler", name = "model_forward", parent = &step));
    journey_event!(
        &step,
        BATCH_SUMMARY,
        step_id = 5,
        scheduled_tokens = n,
        running_depth = n,
        kv_usage_gpu_ratio = 0.25
    );
    drop(step);
    for core in &cores {
        journey_event!(core, FINISHED, status = stopped, step = 17, decode_done_tokens = 16);
    }
    journey_event!(&request, FIRST_RESPONSE);
    journey_record!(&request, completion_tokens = 16 * n);
    journey_event!(&request, DEPARTED);
}

fn everything() {
    completion("cmpl-one", 1);
    completion("cmpl-\"three\"\n\\", 3);
    let refused = request("cmpl-refused", 1);
    journey_event!(&refused, ABORTED, reason = validation_error, error = "prompt too long");
    drop(refused);
    // A client that went away while its request was waiting.
    let gone = request("cmpl-gone", 1);
    let core = sequence(&gone, "cmpl-gone-0");
    journey_event!(&gone, HANDOFF_TO_CORE);
    journey_event!(&gone, ABORTED, reason = client_disconnect);
    journey_event!(&core, FINISHED, status = aborted);
    // One that was forgotten: the layer ends it.
    drop(request("cmpl-forgotten", 1));
}

#[test]
fn what_the_layer_writes_is_clean_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    traced(Exporter::file(dir.path().join("journeys.jsonl")), everything);
    let (report, code) = check_json(&[], &std::fs::read(dir.path().join("journeys.jsonl")).unwrap());
    assert_eq!((code, &report["findings"]), (0, &json!([])), "{report:#}");
    assert_eq!(
        (&report["llm_request"], &report["llm_core"], &report["scheduler_step"]),
        (&json!(5), &json!(5), &json!(2))
    );

    let output = run_in(dir.path(), &["report", "journeys.jsonl"], b"");
    let text = stdout(&output);
    for says in [
        "journeys     5 (5 sequences",
        "departed 2, aborted 3: client_disconnect 1, unfinished 1, validation_error 1",
        "stopped 4, aborted 1",
        "preempted    4 of 5 sequences (80.0 %), 4 times",
        "steps        2 traced",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[tokio::test]
async fn the_layers_exporters_deliver_to_the_live_page() {
    let server = Server::start(&["--settle", "0.1"]);
    let roads = [
        ("http", Exporter::otlp().protocol(Protocol::HttpProtobuf).endpoint(server.otlp.clone()).gzip(true)),
        ("grpc", Exporter::otlp().protocol(Protocol::Grpc).endpoint(server.grpc.clone())),
    ];
    for (name, exporter) in roads {
        tokio::task::spawn_blocking(move || traced(exporter, || completion(&format!("cmpl-{name}"), 2))).await.unwrap();
        let page = server.until(&format!("?q=cmpl-{name}&preempted=1"), |page| page.contains("1 of ")).await;
        assert!(page.contains("departed"), "{page}");
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(server.get("findings").await.contains("No findings"));
    let steps = server.get("steps").await;
    assert_eq!(steps.matches("/step/").count(), 2, "{steps}");
}
