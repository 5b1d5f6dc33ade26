//! OTLP against real receivers: what arrives, and what happens when it does not.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use journey_layer::macros::*;
use journey_layer::{Exporter, FlushError, Protocol, Reason};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use pipeline_support::*;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()?.value)
}

#[test]
fn every_field_arrives_over_both_protocols() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let journey = builder().service_name("engine").exporter(receiver.exporter()).build().unwrap();
        journeys(&journey, 1);
        journey.flush(LONG).unwrap();

        let spans = receiver.spans();
        let find = |name: &str| spans.iter().find(|(_, span)| span.name == name).unwrap();
        let (api, request) = find("llm_request");
        let (scheduler, core) = find("llm_core");
        assert_eq!((spans.len(), api.as_str(), scheduler.as_str()), (2, "vllm.api", "vllm.scheduler"));
        assert_eq!(request.trace_id, core.trace_id);
        assert_eq!(core.parent_span_id, request.span_id);
        assert_eq!((request.kind, core.kind), (2, 1), "SERVER and INTERNAL");
        assert_eq!((request.flags, core.flags & 1), (0x101, 1));
        assert_eq!(attribute(request, "gen_ai.usage.prompt_tokens"), Some(Value::IntValue(3)));
        assert_eq!(attribute(request, "gen_ai.request.temperature"), Some(Value::DoubleValue(0.5)));
        assert_eq!(attribute(request, "gen_ai.request.id"), Some(Value::StringValue("cmpl-0".into())));
        assert!(matches!(attribute(request, "gen_ai.latency.e2e"), Some(Value::DoubleValue(e2e)) if e2e > 0.0));
        let events: Vec<_> = core.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["journey.QUEUED", "journey.SCHEDULED", "journey.FIRST_TOKEN", "journey.FINISHED"]);
        assert!(core.start_time_unix_nano <= core.events[0].time_unix_nano);
        assert_eq!(core.events[3].time_unix_nano, core.end_time_unix_nano, "the terminal event ends the span");
        let resource = receiver.resource();
        let service = resource.attributes.iter().find(|pair| pair.key == "service.name").unwrap();
        assert_eq!(service.value.as_ref().unwrap().value, Some(Value::StringValue("engine".into())));
        let stats = journey.stats();
        assert_eq!((stats.spans.exported, stats.events.exported, stats.spans.live), (2, 8, 0));
        assert!(stats.balances(), "{stats}");
    }
}

#[test]
fn gzip_and_headers_are_sent_and_the_signals_path_appended() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let exporter = receiver.exporter().gzip(true).header("X-Tenant", "blue");
        let journey = builder().exporter(exporter).build().unwrap();
        journeys(&journey, 1);
        journey.flush(LONG).unwrap();
        assert_eq!(receiver.spans().len(), 2);
        let headers = receiver.headers();
        let encoding = if protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" };
        assert_eq!((&headers[encoding], &headers["x-tenant"]), (&"gzip".parse().unwrap(), &"blue".parse().unwrap()));
        assert!(headers["user-agent"].to_str().unwrap().starts_with("journey-layer/"), "{headers:?}");
        if protocol == Protocol::HttpProtobuf {
            assert_eq!(
                (receiver.path().as_str(), &headers["content-type"]),
                ("/v1/traces", &"application/x-protobuf".parse().unwrap())
            );
        }
    }
}

#[test]
fn a_burst_of_twenty_thousand_spans_loses_none() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let journey = builder().exporter(receiver.exporter()).build().unwrap();
        journeys(&journey, 10_000);
        journey.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(receiver.spans().len(), 20_000);
        let stats = journey.stats();
        assert_eq!((stats.spans.exported, stats.spans.dropped(), stats.balances()), (20_000, 0, true), "{stats}");
    }
}

#[test]
fn spans_with_as_many_events_as_they_may_have_fit_the_messages_that_a_receiver_takes() {
    for protocol in PROTOCOLS {
        // Takes 4 MiB with gRPC and 2 MiB with HTTP, as such servers do by default.
        let receiver = Receiver::start(protocol);
        let journey = builder().exporter(receiver.exporter()).build().unwrap();
        traced(&journey, || {
            for _ in 0..400 {
                let request = journey_span!(scope = "vllm.api");
                journey_event!(&request, ARRIVED);
                let carrier = journey_layer::handoff(&request);
                let core = journey_span!(scope = "vllm.scheduler", carrier = &carrier);
                journey_event!(&core, QUEUED);
                for step in 1..=63 {
                    journey_event!(&core, SCHEDULED, step = step, prefill_done_tokens = 7, prefill_total_tokens = 9);
                    journey_event!(&core, PREEMPTED, step = step, num_preemptions = step);
                }
            }
        });
        journey.flush(LONG).unwrap();
        let stats = journey.stats();
        assert_eq!((receiver.spans().len(), stats.spans.exported, stats.spans.dropped()), (800, 800, 0), "{stats}");
    }
}

#[test]
fn an_outage_loses_nothing_before_the_shutdown_and_counts_everything_then() {
    let listener = silent();
    for protocol in PROTOCOLS {
        for address in [listener.local_addr().unwrap(), dead()] {
            let exporter = Exporter::otlp().protocol(protocol).endpoint(format!("http://{address}"));
            let journey = builder().exporter(exporter).build().unwrap();
            journeys(&journey, 3);
            let start = Instant::now();
            let error = journey.flush(Duration::from_millis(150)).unwrap_err();
            assert!(matches!(error, FlushError::Timeout { pending: 6, .. }), "{error}");
            assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
            let stats = journey.stats();
            assert_eq!((stats.spans.live, stats.spans.dropped(), stats.balances()), (6, 0, true), "{stats}");

            let start = Instant::now();
            let error = journey.shutdown(Duration::from_millis(150)).unwrap_err();
            assert!(matches!(error, FlushError::Timeout { pending: 6, .. }), "{error}");
            assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
            let stats = journey.stats();
            assert_eq!((stats.spans.dropped[&Reason::Shutdown], stats.events.dropped[&Reason::Shutdown]), (6, 24));
            assert!(stats.balances(), "{stats}");
            journeys(&journey, 1);
            assert!(journey.stats().balances(), "what comes after the shutdown is accounted for");
        }
    }
}

#[test]
fn what_waited_in_an_outage_arrives_when_the_receiver_comes_back() {
    for protocol in PROTOCOLS {
        let address = dead();
        let exporter = Exporter::otlp().protocol(protocol).endpoint(format!("http://{address}"));
        let journey = builder().exporter(exporter).build().unwrap();
        journeys(&journey, 2);
        wait_until("the cause is named", || {
            journey.flush(Duration::from_millis(50)).unwrap_err().to_string().contains("onnect")
        });
        let receiver = Receiver::at(protocol, TcpListener::bind(address).unwrap());
        journey.flush(LONG).unwrap();
        assert_eq!(receiver.spans().len(), 4);
        assert_eq!(journey.stats().spans.exported, 4);
    }
}

#[test]
fn a_receiver_that_is_busy_gets_the_batch_again_when_it_says() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).then([Answer::Later(1), Answer::Refuse(503)]);
        let journey = builder().exporter(receiver.exporter()).build().unwrap();
        journeys(&journey, 1);
        journey.flush(LONG).unwrap();
        assert_eq!((receiver.spans().len(), receiver.num_attempts()), (2, 3));
        assert!(receiver.pauses()[0] >= SECOND, "{:?}", receiver.pauses());
        assert_eq!((journey.stats().spans.exported, journey.stats().spans.dropped()), (2, 0));
    }
}

#[test]
fn a_receiver_that_stays_busy_is_asked_less_and_less_often() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).then([Answer::Refuse(503), Answer::Refuse(503), Answer::Refuse(503)]);
        let journey = builder().exporter(receiver.exporter()).schedule_delay(Duration::from_millis(1)).build().unwrap();
        journeys(&journey, 1);
        wait_until("the batch arrived", || journey.stats().spans.exported == 2);
        // At least half of each: 0.1, 0.2 and 0.4 s. Its two spans may go in two batches.
        let pauses = receiver.pauses();
        let least = [50, 100, 200].map(Duration::from_millis);
        assert!(pauses.len() >= 3 && pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
    }
}

#[test]
fn a_final_refusal_is_counted_and_told_once() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).then([Answer::Refuse(400)]);
        let journey = builder().exporter(receiver.exporter()).build().unwrap();
        journeys(&journey, 1);
        let error = journey.flush(LONG).unwrap_err();
        assert!(matches!(error, FlushError::Lost { spans: 2, reason: Reason::ExportFailed, .. }), "{error}");
        assert_eq!(receiver.num_attempts(), 1, "it is not tried again");
        journeys(&journey, 1);
        journey.flush(LONG).unwrap();
        let stats = journey.stats();
        assert_eq!((stats.spans.exported, stats.spans.dropped[&Reason::ExportFailed]), (2, 2));
        assert_eq!((stats.events.exported, stats.events.dropped[&Reason::ExportFailed]), (8, 8));
        assert!(stats.balances(), "{stats}");
    }
}

#[test]
fn a_partial_success_counts_what_was_refused() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).then([Answer::TakeBut(1)]);
        let journey = builder().exporter(receiver.exporter()).build().unwrap();
        journeys(&journey, 2);
        let error = journey.flush(LONG).unwrap_err();
        assert!(
            error.to_string().contains("1 spans were lost (partial_success)") && error.to_string().contains("too big"),
            "{error}"
        );
        let stats = journey.stats();
        assert_eq!((stats.spans.exported, stats.spans.dropped[&Reason::PartialSuccess]), (3, 1));
        assert!(stats.balances(), "{stats}");
    }
}

#[test]
fn a_dead_receiver_does_not_hold_up_the_other_exporters() {
    let memory = Exporter::memory();
    let exporter = Exporter::otlp().endpoint(format!("http://{}", dead()));
    let journey = builder().exporter(exporter).exporter(memory.clone()).build().unwrap();
    journeys(&journey, 1);
    assert!(journey.flush(Duration::from_millis(100)).is_err());
    wait_until("the other exporter has its spans", || memory.spans().len() == 2);
    assert_eq!(journey.stats().spans.live, 2, "not exported before every exporter took it");
}

#[test]
fn what_does_not_fit_the_queue_is_dropped_and_told() {
    let exporter = Exporter::otlp().endpoint(format!("http://{}", dead()));
    let journey = builder().exporter(exporter).max_queue_bytes(40_000).build().unwrap();
    journeys(&journey, 200);
    let stats = journey.stats();
    let dropped = stats.spans.dropped[&Reason::QueueFull];
    assert!(dropped > 0 && stats.spans.live > 0 && dropped + stats.spans.live == 400, "{stats}");
    assert!(stats.balances(), "{stats}");
}

#[test]
fn mistakes_in_the_endpoint_are_refused_at_the_start() {
    let refused = |variables, exporter: journey_layer::Otlp| {
        builder_in(variables).exporter(exporter).build().unwrap_err().to_string()
    };
    let otlp = Exporter::otlp;
    assert!(refused(&[], otlp().endpoint("localhost:4318")).contains("write `http://localhost:4318`"));
    assert!(refused(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")], otlp()).contains("write `http://c:4318`"));
    assert!(refused(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "gprc")], otlp()).contains("there is no such protocol"));
    assert!(refused(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], otlp()).contains("write `http/protobuf`"));
    assert!(refused(&[], otlp().header("bad header", "x")).contains("a header `bad`"));
    let as_curl = refused(&[("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Basic c2VjcmV0==")], otlp());
    assert!(as_curl.contains("a header `authorization`") && !as_curl.to_lowercase().contains("c2vjc"), "{as_curl}");
    if !cfg!(feature = "tls") {
        assert!(refused(&[], otlp().endpoint("https://c")).contains("feature `tls`"));
    }
}

#[test]
fn the_environment_configures_everything_and_signal_variables_win() {
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let url = receiver.url();
    let variables = move |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:9".into()),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some(format!("{url}/custom/path")),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("a=general".into()),
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS" => Some("api-key=se%2Ccret, b=2".into()),
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION" => Some("gzip".into()),
        "OTEL_EXPORTER_OTLP_COMPRESSION" => Some("none".into()),
        _ => None,
    };
    let exporter = Exporter::otlp().header("B", "given");
    let journey = journey_layer::Journey::builder().environment(variables).exporter(exporter).build().unwrap();
    journeys(&journey, 1);
    journey.flush(LONG).unwrap();
    let headers = receiver.headers();
    assert_eq!(receiver.path(), "/custom/path");
    assert_eq!((&headers["api-key"], &headers["b"]), (&"se,cret".parse().unwrap(), &"given".parse().unwrap()));
    assert_eq!(headers.get_all("b").iter().count(), 1, "what is given in code replaces the variable's");
    assert_eq!((headers.get("a"), &headers["content-encoding"]), (None, &"gzip".parse().unwrap()));
    assert!(!format!("{journey:?}").contains("cret"), "headers may be secrets");
}

#[test]
fn an_outage_is_warned_of_once_through_the_subscriber_that_the_layer_is_part_of() {
    let exporter = Exporter::otlp().endpoint(format!("http://{}", dead()));
    let journey = builder().exporter(exporter).build().unwrap();
    let said = Said::default();
    let _default = tracing_subscriber::registry().with(said.clone()).with(journey.layer()).set_default();
    for id in ["cmpl-1", "cmpl-2", "cmpl-3"] {
        one_journey(id);
        journey.flush(Duration::from_millis(200)).unwrap_err();
    }
    let _ = journey.shutdown(Duration::from_millis(10));
    let said = said.0.lock().unwrap();
    let trouble: Vec<_> = said.iter().filter(|text| text.contains("onnect")).collect();
    assert!(
        trouble[0].starts_with("export failed, to be tried again: otlp http/protobuf http://127.0.0.1:"),
        "{said:?}"
    );
    assert!(trouble.len() <= 2 && trouble.iter().skip(1).all(|text| text.starts_with("spans were lost")), "{said:?}");
}
