//! The tests that guard the Python engine's fix, by their names there, run against a real server.
//!
//! The Python tests read source files and mock tracers; here each name's promise is looked for in what was exported.
//!
//! | in the Python engine | here |
//! |---|---|
//! | `test_async_llm_does_not_init_llm_engine_tracer`, `test_no_llm_engine_in_async_llm` | [`no_third_scope_from_the_async_front`] |
//! | `test_llm_engine_does_not_init_llm_engine_tracer`, `test_no_llm_engine_in_llm_engine` | [`no_third_scope_from_the_engine`] |
//! | `test_output_processor_does_not_call_do_tracing`, `test_output_processor_tracing_disabled` | [`no_third_scope_from_the_output_processor`] |
//! | completion tokens on the full path | [`completion_tokens_on_the_full_path`] |
//! | completion tokens on the streaming path | [`completion_tokens_on_the_streaming_path`] |
//! | all seven attributes of `do_tracing()` accounted for | [`all_seven_attributes_are_accounted_for`] |
//! | `test_only_expected_scopes_initialized` | [`only_the_expected_scopes`] |
//! | journey events come from the scheduler only | [`journey_events_come_from_the_scheduler_only`] |
//! | `test_singleton_prevents_overwrites`, `test_global_provider_flow` | [`one_provider_under_concurrent_first_use`] |
//! | `test_inject_trace_context` | [`inject_trace_context`] |
//! | `test_extract_trace_context` | [`extract_trace_context`] |
//! | `test_api_span_with_arrived_event` | [`arrived_is_the_first_event_of_a_new_api_span`] |
//! | sampling: the API decides | [`a_request_that_is_sampled_out_has_no_span_at_all`] |
//! | sampling: the core obeys the header | [`the_core_obeys_the_sampled_header`] |
//! | atomicity: a failed request ends both spans | [`a_failed_request_ends_both_spans`] |
//! | atomicity: a refused request has its span, and no other | [`a_refused_request_has_an_api_span_only`] |
//! | headers: the client's trace goes on | [`the_clients_trace_goes_on`] |
//! | headers: forged from outside | [`journey_headers_from_outside_are_not_trusted`] |
//!
//! `test_output_processor_do_tracing_method_still_exists` has no counterpart: nothing of it exists here. The four
//! `TestDebugLogging` tests look for texts of log lines.

#[path = "api/support/mod.rs"]
mod support;

use std::collections::{BTreeSet, HashMap};

use example_engine::telemetry::DoTracing;
use journey_layer::macros::{journey_event, journey_span};
use journey_layer::testing::{self, CapturedSpan};
use journey_layer::{Exporter, Journey, Reason, handoff};
use serde_json::{Value, json};
use support::{Setup, TestServer, abort_reason, finish_status, serve};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn body(stream: bool) -> Value {
    json!({
        "prompt": "Hello", "messages": [{"role": "user", "content": "x"}], "stream": stream,
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.75, "n": 2,
    })
}

fn scopes(spans: &[CapturedSpan]) -> BTreeSet<(&str, &str)> {
    spans.iter().map(|span| (span.scope, span.name)).collect()
}

fn both_scopes() -> BTreeSet<(&'static str, &'static str)> {
    BTreeSet::from([("vllm.api", "llm_request"), ("vllm.scheduler", "llm_core")])
}

async fn served(route: &str, stream: bool) -> (TestServer, CapturedSpan, Vec<CapturedSpan>) {
    let server = serve().await;
    server.ask_streaming(route, &body(stream)).await;
    let (request, cores) = server.journey().await;
    (server, request, cores)
}

#[tokio::test]
async fn no_third_scope_from_the_async_front() {
    let server = serve().await;
    let requests = (0..8).map(|n| server.ask_streaming(if n % 2 == 0 { CHAT } else { COMPLETIONS }, &body(n % 3 == 0)));
    for request in requests.collect::<Vec<_>>() {
        request.await;
    }
    assert_eq!(scopes(&server.journeys().await), both_scopes());
}

#[tokio::test]
async fn no_third_scope_from_the_engine() {
    let (_server, request, cores) = served(COMPLETIONS, false).await;
    assert_eq!(cores.len(), 2, "one for each sequence");
    let mut spans = cores;
    spans.push(request);
    assert_eq!(scopes(&spans), both_scopes());
}

#[tokio::test]
async fn no_third_scope_from_the_output_processor() {
    let memory = Exporter::memory();
    let journey = Journey::builder().environment(|_| None).exporter(memory.clone()).build().expect("a pipeline");
    let do_tracing = DoTracing::new(&journey);
    {
        use tracing_subscriber::layer::SubscriberExt;
        use tracing_subscriber::util::SubscriberInitExt;
        let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
        let span = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
        journey_event!(&span, ARRIVED);
        let carrier = handoff(&span);
        journey_event!(&span, ABORTED, reason = timeout);
        drop(span);
        // When the Python engine's output processor did it: after the request had finished.
        do_tracing.replay("cmpl-1", &carrier, 9);
    }
    journey.flush(std::time::Duration::from_secs(5)).expect("memory takes everything");
    let spans = memory.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].instrumentation_scope.name(), "vllm.api");
    let rejected = journey.stats().spans.rejected;
    assert_eq!(rejected.values().sum::<u64>(), DoTracing::PER_REQUEST, "{rejected:?}");
    assert_eq!((rejected[&Reason::UnknownScope], rejected[&Reason::HandedOff]), (2, 1));
}

#[tokio::test]
async fn completion_tokens_on_the_full_path() {
    for route in [COMPLETIONS, CHAT] {
        let (_server, request, _) = served(route, false).await;
        assert_eq!(request.attribute("gen_ai.usage.completion_tokens"), Some(&18.into()), "{route}: two of nine");
    }
}

#[tokio::test]
async fn completion_tokens_on_the_streaming_path() {
    for route in [COMPLETIONS, CHAT] {
        let (_server, request, _) = served(route, true).await;
        assert_eq!(request.attribute("gen_ai.usage.completion_tokens"), Some(&18.into()), "{route}: two of nine");
    }
}

#[tokio::test]
async fn all_seven_attributes_are_accounted_for() {
    let (_server, request, _) = served(COMPLETIONS, false).await;
    for (key, value) in [
        ("gen_ai.usage.prompt_tokens", 5.into()),
        ("gen_ai.usage.completion_tokens", 18.into()),
        ("gen_ai.request.top_p", 0.75.into()),
        ("gen_ai.request.max_tokens", 9.into()),
        ("gen_ai.request.temperature", 0.5.into()),
        ("gen_ai.request.n", 2.into()),
    ] {
        assert_eq!(request.attribute(key), Some(&value), "{key}");
    }
    assert!(request.attribute("gen_ai.request.id").is_some());
}

#[tokio::test]
async fn only_the_expected_scopes() {
    let server = serve().await;
    server.ask(COMPLETIONS, &body(false)).await;
    server.ask(COMPLETIONS, &json!({"prompt": 7})).await;
    server.ask(COMPLETIONS, &json!({"prompt": "!", "max_tokens": 3})).await;
    assert_eq!(scopes(&server.journeys().await), both_scopes(), "errors and all");
}

#[tokio::test]
async fn journey_events_come_from_the_scheduler_only() {
    let (_server, request, cores) = served(CHAT, true).await;
    assert!(request.event_names().iter().all(|name| name.starts_with("api.")));
    for core in cores {
        assert!(core.event_names().iter().all(|name| name.starts_with("journey.")));
    }
}

#[test]
fn one_provider_under_concurrent_first_use() {
    let memory = Exporter::memory();
    let exporter = || Journey::builder().environment(|_| None).exporter(memory.clone());
    let journeys: Vec<Journey> = std::thread::scope(|scope| {
        let first_users: Vec<_> =
            (0..8).map(|_| scope.spawn(|| exporter().install().expect("the same for all"))).collect();
        first_users.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    drop(journey_span!(scope = "vllm.api"));
    journeys[7].flush(std::time::Duration::from_secs(5)).expect("memory takes everything");
    assert_eq!(memory.spans().len(), 1, "exported once");
    assert!(journeys.iter().all(|journey| journey.stats() == journeys[0].stats()), "one ledger");
    let other = exporter().service_name("another").install().expect_err("another configuration");
    assert!(other.to_string().contains("memory"), "{other}");
}

#[test]
fn inject_trace_context() {
    let capture = testing::capture();
    let span = journey_span!(scope = "vllm.api");
    let carrier = handoff(&span);
    drop(span);
    let request = capture.span("llm_request");
    assert_eq!(carrier["traceparent"], format!("00-{}-{}-01", request.trace_id, request.span_id));
    assert_eq!(
        (carrier["x-vllm-journey-sampled"].as_str(), carrier["tracestate"].as_str()),
        ("1", "journey=llm_request")
    );
}

#[test]
fn extract_trace_context() {
    let capture = testing::capture();
    let headers = HashMap::from([("traceparent".to_owned(), TRACEPARENT.to_owned())]);
    drop(journey_span!(scope = "vllm.api", headers = &headers));
    let request = capture.span("llm_request");
    assert_eq!(request.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(request.parent_span_id.map(|id| id.to_string()).as_deref(), Some("b7ad6b7169203331"));
}

#[tokio::test]
async fn arrived_is_the_first_event_of_a_new_api_span() {
    let (_server, request, _) = served(COMPLETIONS, false).await;
    assert_eq!(request.events[0].name, "api.ARRIVED");
    let delay = request.events[0].time.duration_since(request.start_time).expect("not before the span");
    assert!(delay.as_secs() < 1, "{delay:?}");
}

#[tokio::test]
async fn a_request_that_is_sampled_out_has_no_span_at_all() {
    let server = serve().await;
    let unsampled = TRACEPARENT.replace("-01", "-00");
    let request = server.post(COMPLETIONS, &body(true)).header("traceparent", unsampled);
    assert_eq!(request.send().await.expect("an answer").text().await.expect("a body").matches("[DONE]").count(), 1);
    server.assert_core_is_idle().await;
    let stats = server.capture.stats();
    assert_eq!((stats.spans.started, stats.events.started), (0, 0), "{stats}");
    assert_eq!(stats.noted[&Reason::SampledOut], 3, "the request, and its two sequences");
}

#[test]
fn the_core_obeys_the_sampled_header() {
    let capture = testing::capture();
    for (header, spans) in [(None, 0), (Some("0"), 0), (Some("true"), 0), (Some("1"), 1)] {
        let mut carrier = HashMap::from([("traceparent".to_owned(), TRACEPARENT.to_owned())]);
        carrier.extend(header.map(|value| ("x-vllm-journey-sampled".to_owned(), value.to_owned())));
        drop(journey_span!(scope = "vllm.scheduler", carrier = &carrier));
        assert_eq!(capture.spans().len(), spans, "{header:?}");
    }
}

#[tokio::test]
async fn a_failed_request_ends_both_spans() {
    let server = serve().await;
    let (status, _) = server.ask(COMPLETIONS, &json!({"prompt": "!", "max_tokens": 3})).await;
    assert_eq!(status, 500);
    let (request, cores) = server.journey().await;
    assert_eq!(abort_reason(&request), "generation_error");
    assert_eq!(finish_status(&cores[0]), "error");
}

#[tokio::test]
async fn a_refused_request_has_an_api_span_only() {
    let server = serve().await;
    let (status, _) = server.ask(COMPLETIONS, &json!({"prompt": "a", "temperature": -1})).await;
    assert_eq!(status, 400);
    let (request, cores) = server.journey().await;
    assert_eq!((abort_reason(&request).as_str(), cores.len()), ("validation_error", 0));
}

#[tokio::test]
async fn the_clients_trace_goes_on() {
    let server = serve().await;
    let request = server.post(COMPLETIONS, &body(false)).header("traceparent", TRACEPARENT);
    request.send().await.expect("an answer");
    let (request, cores) = server.journey().await;
    assert_eq!(request.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(request.parent_span_id.map(|id| id.to_string()).as_deref(), Some("b7ad6b7169203331"));
    assert_eq!(cores.len(), 2);
}

#[tokio::test]
async fn journey_headers_from_outside_are_not_trusted() {
    let server = Setup::default().start().await;
    let forged = server
        .post(COMPLETIONS, &body(false))
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "journey=llm_request,rojo=1")
        .header("x-vllm-journey-sampled", "1");
    forged.send().await.expect("an answer");
    let (request, _) = server.journey().await;
    assert_eq!(request.trace_state, "rojo=1");
    let stats = server.capture.stats();
    assert_eq!(stats.noted[&Reason::ForgedHeader], 2);
    assert_eq!(stats.spans.rejected(), 0, "a client cannot make its own request look like a duplicate");
}
