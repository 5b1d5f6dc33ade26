//! The OTLP-JSON file: its shape, and what happens to it over restarts, rotations and bad disks.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use journey_layer::opentelemetry::trace::{Span as _, SpanContext, Status, TraceContextExt, Tracer, TracerProvider};
use journey_layer::opentelemetry::{Array, Context, KeyValue, Value};
use journey_layer::{BuildError, Exporter, Reason};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use pipeline_support::*;
use serde_json::Value as Json;

/// Every line, parsed.
fn lines(path: &Path) -> Vec<Json> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn spans(line: &Json) -> Vec<&Json> {
    let scopes = line["resourceSpans"][0]["scopeSpans"].as_array().unwrap();
    scopes.iter().flat_map(|scope| scope["spans"].as_array().unwrap()).collect()
}

#[test]
fn a_line_is_otlp_json_as_the_collector_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journeys.jsonl");
    let journey = builder().exporter(Exporter::file(&path)).max_events_per_span(3).build().unwrap();
    journeys(&journey, 1);
    journey.flush(SECOND).unwrap();

    let lines = lines(&path);
    assert_eq!(lines.len(), 1);
    let scopes = lines[0]["resourceSpans"][0]["scopeSpans"].as_array().unwrap();
    let names: Vec<_> = scopes.iter().map(|scope| scope["scope"]["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2);
    let spans = spans(&lines[0]);
    let find = |name: &str| *spans.iter().find(|span| span["name"] == name).unwrap();
    let (request, core) = (find("llm_request"), find("llm_core"));
    let hex = |value: &Json, digits: usize| {
        value.as_str().is_some_and(|text| text.len() == digits && text.bytes().all(|c| c.is_ascii_hexdigit()))
    };
    assert!(hex(&core["traceId"], 32) && hex(&core["spanId"], 16) && core["parentSpanId"] == request["spanId"]);
    assert!(request.get("parentSpanId").is_none() && request.get("traceState").is_none(), "defaults are left out");
    assert_eq!((&request["kind"], &core["kind"], &request["flags"]), (&2.into(), &1.into(), &257.into()));
    assert_eq!(request["status"], serde_json::json!({}));
    assert!(request["startTimeUnixNano"].as_str().unwrap().parse::<u64>().is_ok(), "64 bits are a string");
    let attribute = |key: &str| {
        let mut attributes = request["attributes"].as_array().unwrap().iter();
        attributes.find(|pair| pair["key"] == key).unwrap()["value"].clone()
    };
    assert_eq!(attribute("gen_ai.usage.prompt_tokens"), serde_json::json!({"intValue": "3"}));
    assert_eq!(attribute("gen_ai.request.temperature"), serde_json::json!({"doubleValue": 0.5}));
    assert_eq!(attribute("gen_ai.response.model"), serde_json::json!({"stringValue": "tiny"}));
    assert_eq!((core["events"].as_array().unwrap().len(), &core["droppedEventsCount"]), (3, &1.into()));
    assert_eq!(core["events"][2]["name"], "journey.FINISHED");
}

#[test]
fn an_independent_decoder_reads_every_kind_of_value_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journeys.jsonl");
    let journey = builder().exporter(Exporter::file(&path)).build().unwrap();
    let tracer = journey.tracer_provider().tracer("vllm.scheduler");
    let mut linked = tracer.start("scheduler_step");
    let own = linked.span_context().clone();
    let remote = SpanContext::new(own.trace_id(), own.span_id(), own.trace_flags(), true, own.trace_state().clone());
    let parent = Context::new().with_remote_span_context(remote);
    let mut span = tracer.start_with_context("model_forward", &parent);
    let text = "quote \" backslash \\ line\nend \u{1} \u{1f600}";
    span.set_attributes([
        KeyValue::new("text", text),
        KeyValue::new("yes", true),
        KeyValue::new("min", i64::MIN),
        KeyValue::new("nan", f64::NAN),
        KeyValue::new("inf", f64::NEG_INFINITY),
        KeyValue::new("tiny", 5e-324),
        KeyValue::new("list", Value::Array(Array::I64(vec![1, i64::MAX]))),
    ]);
    span.add_link(linked.span_context().clone(), vec![KeyValue::new("why", "batch")]);
    span.set_status(Status::error("it broke"));
    span.end();
    linked.end();
    journey.flush(SECOND).unwrap();

    let json = fs::read_to_string(&path).unwrap();
    assert!(json.contains(r#"{"doubleValue":"NaN"}"#) && json.contains(r#"{"doubleValue":"-Infinity"}"#));
    // The decoder does not know these two, which JSON has no numbers for.
    let json = json.replace("\"NaN\"", "0").replace("\"-Infinity\"", "0");
    let request: ExportTraceServiceRequest = serde_json::from_str(&json).unwrap();
    let spans = &request.resource_spans[0].scope_spans[0].spans;
    let span = spans.iter().find(|span| span.name == "model_forward").unwrap();
    let value =
        |key: &str| span.attributes.iter().find(|pair| pair.key == key).unwrap().value.clone().unwrap().value.unwrap();
    assert_eq!(value("text"), any_value::Value::StringValue(text.into()));
    assert_eq!((value("yes"), value("min")), (any_value::Value::BoolValue(true), any_value::Value::IntValue(i64::MIN)));
    assert_eq!(value("tiny"), any_value::Value::DoubleValue(5e-324));
    assert!(matches!(value("list"), any_value::Value::ArrayValue(list) if list.values.len() == 2));
    assert_eq!((span.status.as_ref().unwrap().code, span.flags), (2, 0x301), "the parent is remote");
    assert_eq!(span.links[0].span_id, spans.iter().find(|span| span.name == "scheduler_step").unwrap().span_id);
}

#[test]
fn a_restart_continues_the_file_and_ends_a_line_that_was_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journeys.jsonl");
    for _ in 0..2 {
        let journey = builder().exporter(Exporter::file(&path)).build().unwrap();
        journeys(&journey, 1);
        journey.shutdown(SECOND).unwrap();
    }
    assert_eq!(lines(&path).len(), 2);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"resourceSp").unwrap();
    let journey = builder().exporter(Exporter::file(&path)).build().unwrap();
    journeys(&journey, 1);
    journey.shutdown(SECOND).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let readable = text.lines().filter(|line| serde_json::from_str::<Json>(line).is_ok()).count();
    assert_eq!((readable, text.lines().count()), (3, 4));
}

#[test]
fn the_file_is_rotated_by_size_and_keeps_its_backups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journeys.jsonl");
    let journey = builder().exporter(Exporter::file(&path).rotate(6_000, 2)).build().unwrap();
    for n in 0..12 {
        traced(&journey, || one_journey(&format!("cmpl-{n}")));
        journey.flush(SECOND).unwrap();
    }
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["journeys.jsonl", "journeys.jsonl.1", "journeys.jsonl.2"]);
    for name in &names {
        let path = folder.path().join(name);
        assert!(fs::metadata(&path).unwrap().len() <= 6_000);
        assert!(!lines(&path).is_empty(), "whole lines alone");
    }
    assert!(fs::read_to_string(&path).unwrap().contains("cmpl-11"), "the newest is in the file itself");
    assert_eq!(journey.stats().spans.exported, 24);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = builder().exporter(Exporter::file(folder.path())).build().unwrap_err();
    assert!(matches!(error, BuildError::File { .. }), "{error}");
    let missing = folder.path().join("no/such/folder/journeys.jsonl");
    let error = builder().exporter(Exporter::file(&missing)).build().unwrap_err().to_string();
    assert!(error.starts_with("cannot write journeys to ") && error.contains("no/such/folder"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_tried_again_and_told() {
    let journey = builder().exporter(Exporter::file("/dev/full")).build().unwrap();
    journeys(&journey, 3);
    wait_until("the cause is named", || {
        let error = journey.flush(Duration::from_millis(100)).unwrap_err().to_string();
        error.contains("No space left on device")
    });
    assert_eq!((journey.stats().spans.live, journey.stats().spans.dropped()), (6, 0));
    journey.shutdown(Duration::from_millis(100)).unwrap_err();
    let stats = journey.stats();
    assert_eq!((stats.spans.dropped[&Reason::Shutdown], stats.balances()), (6, true), "{stats}");
}

#[test]
fn thousands_of_spans_end_up_in_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journeys.jsonl");
    let journey = builder().exporter(Exporter::file(&path)).build().unwrap();
    journeys(&journey, 2_000);
    journey.shutdown(LONG).unwrap();
    assert_eq!(lines(&path).iter().map(|line| spans(line).len()).sum::<usize>(), 4_000);
}
