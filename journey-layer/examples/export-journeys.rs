//! Exports a set of journeys that have one of everything, to OTLP and to a file at once.
//!
//! `export-journeys FILE` sends to where the `OTEL_EXPORTER_OTLP_*` variables say, writes the same as OTLP-JSON lines to
//! FILE, and succeeds only if the ledger balances and nothing was lost. What a receiver got can then be compared with
//! the file.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use journey_layer::tracing::Span;
use journey_layer::{Exporter, Journey, JourneyStats, Progress, handoff, macros::*};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: export-journeys FILE")?;
    let journey = Journey::builder()
        .step_sample_rate(1.0)
        .max_events_per_span(12)
        .exporter(Exporter::otlp())
        .exporter(Exporter::file(file))
        .build()?;
    {
        let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
        completion("cmpl-plain", &HashMap::new(), 1);
        completion("cmpl-größe-\u{1f680}", &upstream(), 3);
        preempted();
        aborted();
        for n in 0..50 {
            completion(&format!("cmpl-{n}"), &HashMap::new(), 1);
        }
    }
    journey.shutdown(Duration::from_secs(20))?;
    let stats: JourneyStats = journey.stats();
    if stats.spans.exported == stats.spans.started && stats.events.dropped() <= 1 && stats.balances() {
        return Ok(());
    }
    Err(format!("not everything was exported:\n{stats}").into())
}

/// Headers of a client that traces, through a proxy that does as well.
fn upstream() -> HashMap<String, String> {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    [("traceparent", parent), ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn request(id: &str, headers: &HashMap<String, String>) -> Span {
    let request = journey_span!(scope = "vllm.api", request_id = %id, headers = headers, route = "/v1/completions");
    journey_event!(&request, ARRIVED);
    request
}

fn sequence(request: &Span, id: &str) -> Span {
    let core = journey_span!(scope = "vllm.scheduler", request_id = %id, carrier = &handoff(request));
    journey_event!(&core, QUEUED, ..Progress::new().step(0).prefill(0, 24).decode(0, 16));
    core
}

/// A request that goes through, with its seven attributes and all that is derived.
fn completion(id: &str, headers: &HashMap<String, String>, n: u32) {
    let request = request(id, headers);
    journey_record!(
        &request,
        prompt_tokens = 24,
        temperature = 0.7,
        top_p = 0.95,
        max_tokens = 16,
        n = n,
        model = "tiny"
    );
    let cores: Vec<Span> = (0..n).map(|index| sequence(&request, &format!("{index}_{id}-5f2c"))).collect();
    journey_event!(&request, HANDOFF_TO_CORE);
    for core in &cores {
        let progress = Progress::new().prefill(24, 24).decode(1, 16);
        journey_event!(core, SCHEDULED, ..progress.step(1));
        journey_event!(core, FIRST_TOKEN, ..progress.step(2));
        journey_event!(core, FINISHED, status = stopped, step = 17, decode_done_tokens = 16);
    }
    journey_event!(&request, FIRST_RESPONSE);
    journey_record!(&request, completion_tokens = 16 * n);
    journey_event!(&request, DEPARTED);
}

/// A sequence with more preemptions than its span has room for events, under a step that links to it.
fn preempted() {
    let request = request("cmpl-preempted", &HashMap::new());
    let core = sequence(&request, "cmpl-preempted-0");
    journey_event!(&core, SCHEDULED, step = 1);
    for step in [3, 9, 12, 20] {
        journey_event!(&core, PREEMPTED, step = step);
        journey_event!(&core, SCHEDULED, step = step + 2);
    }
    let scheduler_step = journey_span!(scope = "vllm.scheduler", name = "scheduler_step");
    scheduler_step.follows_from(&core);
    journey_event!(&scheduler_step, BATCH_SUMMARY, step_id = 22, scheduled_tokens = 7, kv_usage_gpu_ratio = 0.25);
    journey_event!(&scheduler_step, REQUEST_SNAPSHOT, step_id = 22, snapshot_request_id = "cmpl-preempted-0");
    drop(journey_span!(scope = "vllm.scheduler", name = "model_forward", parent = &scheduler_step));
    drop(scheduler_step);
    journey_event!(&core, FIRST_TOKEN, step = 23);
    journey_event!(&core, PREEMPTED, step = 24);
    journey_event!(&core, FINISHED, status = length, step = 30);
    journey_event!(&request, DEPARTED);
}

/// A request that fails, with an error that JSON has to escape.
fn aborted() {
    let request = request("cmpl-aborted", &upstream());
    let error = "out of memory:\n\t\"KV\" \\ \u{1}";
    journey_event!(&request, ABORTED, reason = generation_error, error = error);
}
