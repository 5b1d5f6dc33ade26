//! `journey serve`: what is taken in, what is refused, what the pages say.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::io::Write;

use common::{PLAIN, Shape, Trace, attribute, journey, run, step};
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use serde_json::{Value, json};
use server::Server;
use tonic::codec::CompressionEncoding;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn spans_arrive_by_every_road() {
    let server = Server::start(&[]);
    let part = |i: u64| Trace(journey(i, PLAIN));
    assert_eq!(server.post(JSON, "identity", part(0).lines(9).into_bytes()).await.status(), 200);
    assert_eq!(
        server.post("application/json; charset=utf-8", "gzip", gzip(part(1).lines(9).as_bytes())).await.status(),
        200
    );
    let answer = server.post(PROTOBUF, "identity", part(2).protobuf()).await;
    assert_eq!(answer.headers()["content-type"], PROTOBUF);
    assert!(answer.bytes().await.unwrap().is_empty(), "full success is an empty message");
    assert_eq!(server.post(PROTOBUF, "gzip", gzip(&part(3).protobuf())).await.status(), 200);
    let mut client = TraceServiceClient::connect(server.grpc.clone()).await.unwrap();
    for i in 4..6 {
        let request = ExportTraceServiceRequest::decode(part(i).protobuf().as_slice()).unwrap();
        assert_eq!(client.export(request).await.unwrap().into_inner().partial_success, None);
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let page = server.get("?").await;
    assert!(page.contains("6 of 6 journeys"), "{page}");
    for i in 0..6 {
        assert!(page.contains(&format!("cmpl-{i:04}")));
    }
}

#[tokio::test]
async fn what_is_no_export_request_is_refused_with_its_reason() {
    let server = Server::start(&[]);
    assert_eq!(server.post("text/plain", "identity", b"{}".to_vec()).await.status(), 415, "what a form could send");
    assert_eq!(server.post(JSON, "br", b"{}".to_vec()).await.status(), 415);
    let answer = server.post(JSON, "identity", b"{\"resourceSpans\":[{]}".to_vec()).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("expected"));
    assert_eq!(server.post(PROTOBUF, "identity", b"\x0a\xff\xff\xff".to_vec()).await.status(), 400);
    assert_eq!(server.post(JSON, "gzip", b"no gzip".to_vec()).await.status(), 400);
    assert_eq!(server.post(JSON, "identity", vec![b' '; 17 << 20]).await.status(), 413);
    let bomb = gzip(&vec![b' '; 65 << 20]);
    assert!(bomb.len() < 1 << 20);
    let answer = server.post(JSON, "gzip", bomb).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("unpacks to more than 64 MiB"));

    let mut trace = Trace::one();
    trace.0[0].span["spanId"] = json!("short");
    let answer = server.post(JSON, "identity", trace.lines(9).into_bytes()).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("span id of 5 characters"));
    assert!(server.get("?").await.contains("unreadable"));
}

#[tokio::test]
async fn filters_narrow_the_table() {
    let server = Server::start(&[]);
    server.send(&Trace::mixed()).await;
    for (query, count) in [
        ("", 10),
        ("q=cmpl-0003", 1),
        ("q=CMPL-0003", 1),
        ("q=0_cmpl-0002", 1),
        ("model=small-lm", 4),
        ("status=aborted", 2),
        ("status=client_disconnect", 2),
        ("status=departed&model=small-lm", 3),
        ("ttft=20", 2),
        ("ttft=nonsense", 10),
        ("preempted=1", 2),
        ("findings=1", 0),
        ("q=nothing+like+it", 0),
    ] {
        let page = server.get(&format!("?{query}")).await;
        assert!(page.contains(&format!("{count} of 10 journeys")), "{query}");
        let plots = server.get(&format!("distributions?{query}")).await;
        assert!(plots.contains(&format!("{count} of 10 journeys")), "{query}");
    }
}

#[tokio::test]
async fn one_journey_shows_its_waterfall_events_attributes_and_steps() {
    let server = Server::start(&["--link", "https://tempo.example/{trace_id}/{span_id}"]);
    // As an engine sends them: what ends first comes first, a forward pass before its step.
    let mut trace = Trace::mixed();
    trace.0.reverse();
    server.send(&trace).await;
    let (trace, span) = (common::trace_id(1), common::span_id(1, 0));
    let page = server.get(&format!("journey/{trace}-{span}")).await;
    for says in [
        "journey.PREEMPTED",
        "api.FIRST_RESPONSE_FROM_CORE",
        "ts.monotonic_ns",
        "where 86.0 ms went",
        "RESUME",
        "status unset",
        &format!("https://tempo.example/{trace}/{span}"),
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    let steps: Vec<&str> = page.match_indices("/step/").map(|(at, _)| &page[at + 1..at + 55]).collect();
    assert_eq!(steps.len(), 2, "the two steps that link to its llm_core");
    let step = server.get(steps[0]).await;
    assert!(
        step.contains("cmpl-0001") && step.contains("model_forward") && step.contains("step.BATCH_SUMMARY"),
        "{step}"
    );
    assert!(server.get("steps").await.contains("25 %"));
}

#[tokio::test]
async fn the_store_is_bounded_and_the_oldest_go_first() {
    let server = Server::start(&["--max-journeys", "4"]);
    for i in 0..10 {
        server.send(&Trace(journey(i, PLAIN))).await;
        server.send(&Trace(step(i, &[i]))).await;
    }
    let page = server.get("?").await;
    assert!(page.contains("4 of 4 journeys") && page.contains("12 dropped for the bounds"), "{page}");
    assert!(page.contains("cmpl-0009") && !page.contains("cmpl-0005"));
    let gone = format!("journey/{}-{}", common::trace_id(0), common::span_id(0, 0));
    let answer = reqwest::get(format!("{}{gone}", server.page)).await.unwrap();
    assert_eq!(answer.status(), 404);

    let server = Server::start(&["--max-memory", "1"]);
    let many = Shape { preemptions: 20, ..PLAIN };
    for chunk in 0..20u64 {
        server.send(&Trace((chunk * 20..chunk * 20 + 20).flat_map(|i| journey(i, many)).collect())).await;
    }
    let page = server.get("?").await;
    assert!(page.contains("dropped for the bounds") && page.contains("cmpl-0399"), "{page}");
    assert!(page.contains("journeys kept in 1.0 MiB") || page.contains("journeys kept in 0.9 MiB"));

    // Forward passes whose steps never come.
    let mut orphans: Vec<_> = (0..30).map(|i| step(i, &[]).remove(1)).collect();
    for orphan in &mut orphans {
        orphan.span["attributes"] = json!([{ "key": "x", "value": { "stringValue": "x".repeat(100_000) } }]);
    }
    let server = Server::start(&["--max-memory", "1"]);
    server.send(&Trace(journey(0, PLAIN))).await;
    server.send(&Trace(orphans)).await;
    let page = server.get("?").await;
    assert!(page.contains("cmpl-0000") && page.contains("dropped for the bounds"), "{page}");
}

#[tokio::test]
async fn findings_come_as_they_are_known_and_go_when_the_missing_span_arrives() {
    let server = Server::start(&["--settle", "0.1"]);
    let trace = Trace::one();
    let (core, request) = (Trace(vec![trace.0[0].clone()]), Trace(vec![trace.0[1].clone()]));
    server.send(&core).await;
    let page = server.until("findings", |page| page.contains("dangling-parent")).await;
    assert!(page.contains("Way out: give the files of the API server"), "{page}");
    assert!(page.contains("Findings (1)"));
    server.send(&request).await;
    server.until("findings", |page| page.contains("No findings")).await;

    let mut duplicate = request.clone();
    duplicate.0[0].scope = "vllm.llm_engine".to_owned();
    duplicate.0[0].span["parentSpanId"] = json!(common::span_id(0, 0));
    duplicate.0[0].span["spanId"] = json!("00000000000000aa");
    server.send(&duplicate).await;
    let page = server.get("findings").await;
    assert!(page.contains("duplicate-llm-request") && page.contains("/journey/"), "at once, with its journey: {page}");
}

#[tokio::test]
async fn thousands_of_journeys_in_one_trace_are_judged_together() {
    let server = Server::start(&["--settle", "0.1"]);
    let mut spans: Vec<_> = (0..2_000).flat_map(|i| journey(i, PLAIN)).collect();
    for span in &mut spans {
        span.span["traceId"] = json!(common::trace_id(0));
    }
    // One of them has lost its parent.
    spans.truncate(spans.len() - 1);
    for some in spans.chunks(1_000) {
        server.send(&Trace(some.to_vec())).await;
    }
    server.until("findings", |page| page.contains("Findings (1)") && page.contains("dangling-parent")).await;
}

#[tokio::test]
async fn a_body_of_empty_spans_takes_little_memory() {
    let server = Server::start(&[]);
    // Three million of them, in one scope of one resource.
    let field = |key: u8, value: Vec<u8>| {
        let mut bytes = vec![key];
        prost::encoding::encode_varint(value.len() as u64, &mut bytes);
        bytes.extend(value);
        bytes
    };
    let body = field(0x0a, field(0x12, [0x12, 0].repeat(3 << 20)));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &body).unwrap();
    let request = reqwest::Client::new().post(&server.otlp);
    let request = request.header("content-type", "application/x-protobuf").header("content-encoding", "gzip");
    let answer = request.body(gzip.finish().unwrap()).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    server.get("?").await;
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes < 400 << 10, "{kilobytes} kB");
    }
}

#[tokio::test]
async fn names_from_outside_are_text_and_policies_forbid_the_rest() {
    let server = Server::start(&[]);
    let hostile = "<script>alert(1)</script>\" onload=\"alert(1)";
    let mut trace = Trace::one();
    for key in ["gen_ai.request.id", "gen_ai.response.model", "http.route"] {
        *attribute(&mut trace.0[1].span, key) = json!({ "stringValue": hostile });
    }
    trace.0[1].span["status"] = json!({ "code": 2, "message": hostile });
    common::push(&mut trace.0[1].span, hostile, json!({ "stringValue": hostile }));
    trace.0[1].span["events"][0]["name"] = json!(hostile);
    server.send(&trace).await;
    let one = format!("journey/{}-{}", common::trace_id(0), common::span_id(0, 0));
    for path in ["?", "?q=%3Cscript%3Ealert(1)%3C/script%3E%22", "findings", &one, "distributions", "steps", "nowhere"]
    {
        let answer = reqwest::get(format!("{}{path}", server.page)).await.unwrap();
        for (header, value) in
            [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(answer.headers()[header], value);
        }
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let page = answer.text().await.unwrap();
        assert!(!page.contains("<script>") && !page.contains("\" onload=\""), "{path}: {page}");
    }
}

#[tokio::test]
async fn the_page_only_reads_and_answers_to_local_names_alone() {
    let server = Server::start(&[]);
    let client = reqwest::Client::new();
    for path in ["", "findings", "journey/1-1"] {
        assert_eq!(client.post(format!("{}{path}", server.page)).send().await.unwrap().status(), 405);
    }
    for url in [&server.page, &server.otlp] {
        let rebound = client.get(url).header("host", "attacker.example").send().await.unwrap();
        assert_eq!(rebound.status(), 421, "{url}");
    }
    for host in ["localhost:1", "127.0.0.1", "[::1]:80"] {
        assert_eq!(client.get(&server.page).header("host", host).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_page_is_told_of_changes() {
    let server = Server::start(&[]);
    let mut events = reqwest::get(format!("{}live", server.page)).await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    server.send(&Trace::mixed()).await;
    let event = events.chunk().await.unwrap().unwrap();
    let event = std::str::from_utf8(&event).unwrap();
    assert!(event.starts_with("event: change\n") && event.contains("\"journeys\":10"), "{event}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let server = Server::start(&[]);
    let port = server.page.trim_end_matches('/').rsplit(':').next().unwrap();
    let output = run(&["serve", "--port", port, "--grpc-port", "0", "--http-port", "0"], b"");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains(&format!("cannot listen on 127.0.0.1:{port} for the page")) && told.contains("--port"),
        "{told}"
    );
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let mut server = Server::start(&[]);
    let _watching = reqwest::get(format!("{}live", server.page)).await.unwrap();
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
