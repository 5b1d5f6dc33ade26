//! Clients that go away, in every phase of a request: both spans end with the right reasons, and no block stays held.

use std::time::Duration;

use crate::support::{Setup, TestServer, abort_reason, finish_status, serve, until};
use journey_layer::testing::CapturedSpan;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const COMPLETIONS: &str = "/v1/completions";

/// A connection of our own: closing it is all that the server sees of a client that goes away.
async fn connect(server: &TestServer, body: &Value) -> TcpStream {
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let body = body.to_string();
    let head = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.expect("a written request");
    stream
}

async fn read_until(stream: &mut TcpStream, what: &str) {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains(what) {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
        let read = read.expect("the server sends something").expect("a connection");
        assert!(read > 0, "closed before {what}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
}

/// The journey of the one client that went away; how its sequence went.
async fn left(server: &TestServer) -> (CapturedSpan, Vec<&'static str>) {
    server.gate.release();
    let (request, cores) = server.journey().await;
    assert_eq!(abort_reason(&request), "client_disconnect");
    assert_eq!(request.event_names().iter().filter(|name| **name == "api.ABORTED").count(), 1);
    assert!(request.error.is_some());
    assert_eq!(cores.len(), 1);
    assert_eq!(finish_status(&cores[0]), "aborted");
    server.assert_core_is_idle().await;
    (request, cores[0].event_names())
}

#[tokio::test]
async fn before_the_body_is_whole() {
    let server = serve().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let head = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("a written head");
    until("it has arrived", || server.capture.stats().spans.live == 1).await;
    drop(stream);
    let (request, cores) = server.journey().await;
    assert_eq!(request.event_names(), ["api.ARRIVED", "api.ABORTED"]);
    assert_eq!(abort_reason(&request), "client_disconnect");
    assert!(cores.is_empty());
}

#[tokio::test]
async fn while_its_core_is_busy_with_a_step() {
    let server = serve().await;
    server.gate.allow(0);
    let other = tokio::spawn(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 1})));
    until("the core is in a step", || server.capture.stats().spans.started == 2).await;
    let stream = connect(&server, &json!({"prompt": "b", "max_tokens": 1})).await;
    until("it has arrived", || server.capture.stats().spans.started >= 3).await;
    drop(stream);
    until("it was noticed", || aborted(&server) == 1).await;
    server.gate.release();
    assert_eq!(other.await.expect("no panic").0, 200);
    server.assert_core_is_idle().await;
}

#[tokio::test]
async fn while_queued() {
    let mut setup = Setup::default();
    setup.engine.max_num_seqs = 1;
    let server = setup.start().await;
    server.gate.allow(1);
    let other = connect(&server, &json!({"prompt": "a", "max_tokens": 50, "stream": true})).await;
    until("the other runs", || server.core.stats().num_running_reqs == 1).await;
    let stream = connect(&server, &json!({"prompt": "b", "max_tokens": 50})).await;
    step_until(&server, "it waits", || server.capture.stats().spans.started == 4).await;
    drop(stream);
    until("it was noticed", || aborted(&server) == 1).await;
    drop(other);
    server.gate.release();
    let spans = server.journeys().await;
    let queued: Vec<_> =
        spans.iter().filter(|span| span.event_names() == ["journey.QUEUED", "journey.FINISHED"]).collect();
    assert_eq!(queued.len(), 1);
    assert_eq!(finish_status(queued[0]), "aborted");
    server.assert_core_is_idle().await;
}

#[tokio::test]
async fn while_its_prompt_is_computed() {
    let mut setup = Setup::default();
    setup.engine.max_num_batched_tokens = 16;
    let server = setup.start().await;
    server.gate.allow(2);
    let stream = connect(&server, &json!({"prompt": "a".repeat(100), "max_tokens": 5})).await;
    until("two chunks are computed", || server.core.stats().num_steps >= 2).await;
    drop(stream);
    until("it was noticed", || aborted(&server) == 1).await;
    let (request, core) = left(&server).await;
    assert_eq!(request.event_names(), ["api.ARRIVED", "api.HANDOFF_TO_CORE", "api.ABORTED"]);
    assert_eq!(core, ["journey.QUEUED", "journey.SCHEDULED", "journey.FINISHED"]);
}

#[tokio::test]
async fn while_its_answer_streams() {
    let server = serve().await;
    server.gate.allow(4);
    let mut stream = connect(&server, &json!({"prompt": "a", "max_tokens": 300, "stream": true})).await;
    read_until(&mut stream, "data:").await;
    drop(stream);
    until("it was noticed", || aborted(&server) == 1).await;
    let (request, core) = left(&server).await;
    let events = ["api.ARRIVED", "api.HANDOFF_TO_CORE", "api.FIRST_RESPONSE_FROM_CORE", "api.ABORTED"];
    assert_eq!(request.event_names(), events);
    assert!(request.attribute("gen_ai.usage.completion_tokens").is_some());
    assert_eq!(core, ["journey.QUEUED", "journey.SCHEDULED", "journey.FIRST_TOKEN", "journey.FINISHED"]);
}

#[tokio::test]
async fn while_its_answer_is_generated_whole() {
    let server = serve().await;
    server.gate.allow(4);
    let stream = connect(&server, &json!({"prompt": "a", "max_tokens": 300})).await;
    until("some tokens are there", || server.core.stats().generation_tokens >= 3).await;
    drop(stream);
    until("it was noticed", || aborted(&server) == 1).await;
    let (request, core) = left(&server).await;
    assert_eq!(request.event_names()[2], "api.FIRST_RESPONSE_FROM_CORE");
    assert_eq!(core.last(), Some(&"journey.FINISHED"));
}

#[tokio::test]
async fn while_preempted() {
    let mut setup = Setup::default();
    // Two sequences of 28 tokens do not fit into 40: the younger one is preempted.
    (setup.engine.block_size, setup.engine.num_blocks) = (4, 10);
    let server = setup.start().await;
    server.gate.allow(0);
    let body = |prompt: &str| json!({"prompt": prompt, "max_tokens": 20, "stream": true});
    let older = connect(&server, &body("aaaaaaaa")).await;
    until("the older one is there", || server.capture.stats().spans.started == 2).await;
    let younger = connect(&server, &body("bbbbbbbb")).await;
    step_until(&server, "the younger one is there", || server.capture.stats().spans.started == 4).await;
    step_until(&server, "one is preempted", || server.core.stats().num_preemptions > 0).await;
    drop(younger);
    until("it was noticed", || aborted(&server) >= 1).await;
    server.gate.release();
    drop(older);
    let spans = server.journeys().await;
    let preempted =
        spans.iter().find(|span| span.event_names().contains(&"journey.PREEMPTED")).expect("a preempted one");
    assert_eq!(finish_status(preempted), "aborted");
    assert_eq!(preempted.event_names().last(), Some(&"journey.FINISHED"));
    server.assert_core_is_idle().await;
}

/// Lets the core go step by step until the condition holds: it takes requests between two steps.
async fn step_until(server: &TestServer, what: &str, condition: impl Fn() -> bool) {
    until(what, || {
        let holds = condition();
        server.gate.allow(u64::from(!holds));
        holds
    })
    .await;
}

/// Journeys of clients that were seen to go away.
fn aborted(server: &TestServer) -> usize {
    server.capture.spans().iter().filter(|span| span.event_names().contains(&"api.ABORTED")).count()
}
