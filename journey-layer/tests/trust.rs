//! What clients may say in their headers, and what it changes.

use std::collections::HashMap;

use journey_layer::testing::{self, Capture};
use journey_layer::{Journey, Reason, Sampling, handoff, macros::*};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn headers(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A request with these headers, and its sequence.
fn journey(headers: &HashMap<String, String>) {
    let request = journey_span!(scope = "vllm.api", headers = headers);
    journey_event!(&request, ARRIVED);
    let carrier = handoff(&request);
    let core = journey_span!(scope = "vllm.scheduler", carrier = &carrier);
    journey_event!(&core, QUEUED);
}

fn spans_under(sampling: Sampling, headers: &HashMap<String, String>) -> usize {
    let capture = testing::capture_with(Journey::builder().environment(|_| None).sampling(sampling));
    journey(headers);
    let stats = capture.stats();
    assert!(stats.balances(), "{stats}");
    capture.spans().len()
}

#[test]
fn the_journey_header_from_outside_cannot_force_sampling() {
    let forged = headers(&[("x-vllm-journey-sampled", "1"), ("tracestate", "journey=llm_request")]);
    for sampling in [Sampling::ParentBased { root: 0.0 }, Sampling::Rate(0.0), Sampling::TraceIdRatio(0.0)] {
        assert_eq!(spans_under(sampling, &forged), 0, "{sampling:?}");
    }
}

#[test]
fn under_a_rate_neither_the_flag_nor_the_trace_id_of_a_client_counts() {
    let [none, all] = ["00000000000000000000000000000001", "ffffffffffffffffffffffffffffffff"];
    for trace in [TRACE, none, all] {
        for flags in ["00", "01", "ff"] {
            let traceparent = format!("00-{trace}-b7ad6b7169203331-{flags}");
            let headers = headers(&[("traceparent", &traceparent), ("x-vllm-journey-sampled", "1")]);
            assert_eq!(spans_under(Sampling::Rate(0.0), &headers), 0, "{traceparent} is not traced");
            assert_eq!(spans_under(Sampling::Rate(1.0), &headers), 2, "{traceparent} does not hide");
        }
    }
}

#[test]
fn by_default_a_parent_decides_as_the_specification_has_it() {
    for (flags, spans) in [("00", 0), ("01", 2)] {
        let headers = headers(&[("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-{flags}"))]);
        for root in [0.0, 1.0] {
            assert_eq!(spans_under(Sampling::ParentBased { root }, &headers), spans, "{flags} {root}");
        }
    }
}

#[test]
fn a_client_cannot_forge_a_handoff() {
    let capture = testing::capture();
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let forged = [("traceparent", &*traceparent), ("tracestate", "journey=llm_request,rojo=1")];
    journey(&headers(&forged));
    let request = capture.span("llm_request");
    assert_eq!(request.trace_state, "rojo=1");
    assert_eq!(capture.stats().spans.rejected(), 0, "a request is not refused for what its client claims");
    assert_eq!(capture.stats().noted[&Reason::ForgedHeader], 1);
    assert_balanced(&capture);
}

#[test]
fn what_a_propagator_made_of_the_headers_is_held_to_the_same_bounds() {
    let capture = testing::capture();
    let state = (0..32).map(|i| format!("k{i}={}", "x".repeat(200))).collect::<Vec<_>>().join(",");
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let headers = headers(&[("traceparent", &traceparent), ("tracestate", &format!("journey=llm_request,{state}"))]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    {
        let _active = context.attach();
        drop(journey_span!(scope = "vllm.api"));
    }
    let request = capture.span("llm_request");
    assert_eq!((request.trace_id.to_string().as_str(), request.trace_state.len() <= 512), (TRACE, true));
    assert!(request.trace_state.contains("k0=") && !request.trace_state.contains("journey"), "{}", request.trace_state);
    let stats = capture.stats();
    assert_eq!((stats.noted[&Reason::Truncated], stats.noted[&Reason::ForgedHeader]), (1, 1));
    assert_balanced(&capture);
}

#[test]
fn no_header_is_kept_beyond_its_bound() {
    let capture = testing::capture();
    let state = (0..32).map(|i| format!("k{i}={}", "x".repeat(200))).collect::<Vec<_>>().join(",");
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let id = "i".repeat(1 << 20);
    let headers = headers(&[("traceparent", &traceparent), ("tracestate", &state), ("baggage", &id)]);
    let request = journey_span!(scope = "vllm.api", request_id = id.as_str(), headers = &headers);
    let carrier = handoff(&request);
    assert!(carrier["tracestate"].len() <= 512 + "journey=llm_request,".len(), "{}", carrier["tracestate"].len());
    assert!(!carrier.contains_key("baggage"));
    journey_event!(&request, ABORTED, reason = validation_error, error = id.as_str());
    drop(request);
    let request = capture.span("llm_request");
    assert!(request.trace_state.len() <= 512);
    assert_eq!(request.attribute("gen_ai.request.id").expect("an id").as_str().len(), 4096);
    assert_eq!(request.event("api.ABORTED").attribute("error").expect("an error").as_str().len(), 4096);
    assert_eq!(capture.stats().noted[&Reason::Truncated], 3, "the tracestate, the id and the error");
    assert_balanced(&capture);
}

#[test]
fn spans_beyond_the_bound_on_open_ones_are_dropped_and_counted() {
    let capture = testing::capture_with(Journey::builder().environment(|_| None).max_live_spans(2));
    let mut open: Vec<_> = (0..5).map(|_| journey_span!(scope = "vllm.api")).collect();
    assert_eq!(capture.stats().spans.dropped[&Reason::LiveLimit], 3);
    open.clear();
    drop(journey_span!(scope = "vllm.api"));
    assert_eq!(capture.spans().len(), 3, "there is room again");
    assert_balanced(&capture);
}

#[track_caller]
fn assert_balanced(capture: &Capture) {
    let stats = capture.stats();
    assert!(stats.balances(), "{stats}");
}
