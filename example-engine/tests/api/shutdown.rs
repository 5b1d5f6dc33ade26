//! The server's way down: new requests are refused, running ones finish, those that are left are aborted.

use std::time::Duration;

use crate::support::{PATIENCE, Setup, abort_reason, finish_status, serve, until};
use example_engine::commands::shut_down;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn a_running_request_finishes_while_new_ones_are_refused() {
    let server = Setup { drain: Duration::from_secs(20), ..Setup::default() }.start().await;
    server.gate.allow(2);
    let running = tokio::spawn(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 10})));
    let keep_alive = server.http.get(format!("{}/health", server.url)).send().await.expect("an answer");
    assert_eq!(keep_alive.status().as_u16(), 200);
    until("it runs", || server.core.stats().num_steps == 2).await;
    server.state.lifecycle.drain();
    server.gate.release();
    let (status, answer) = running.await.expect("no panic");
    assert_eq!((status, &answer["choices"][0]["finish_reason"]), (200, &json!("length")));
    let refused = server.post(COMPLETIONS, &json!({"prompt": "a"})).send().await;
    // A kept connection hears 503; a new one is not accepted any more.
    if let Ok(response) = refused {
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    }
    server.serving.await.expect("no panic");
    let spans = server.capture.spans();
    assert_eq!(spans.iter().filter(|span| span.name == "llm_request").count(), 1);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_aborted_with_its_journeys_ended() {
    let server = serve().await;
    server.gate.allow(3);
    let body = json!({"prompt": "a", "max_tokens": 300, "stream": true});
    let streaming = tokio::spawn({
        let request = server.post(COMPLETIONS, &body);
        async move { request.send().await.expect("an answer").text().await.expect("a whole stream") }
    });
    until("it runs", || server.core.stats().num_steps == 3).await;
    server.state.lifecycle.drain();
    let text = streaming.await.expect("no panic");
    let error = text.lines().find(|line| line.contains("error")).expect("an error event");
    let error: Value = serde_json::from_str(error.trim_start_matches("data: ")).expect("JSON");
    assert!(error["error"]["message"].as_str().expect("text").contains("shutting down"), "{text}");
    server.gate.release();
    let (request, cores) = server.journey().await;
    assert_eq!((abort_reason(&request).as_str(), finish_status(&cores[0]).as_str()), ("cancelled", "aborted"));
    server.assert_core_is_idle().await;
    server.serving.await.expect("no panic");
}

#[tokio::test]
async fn a_step_that_hangs_is_left_behind() {
    let server = serve().await;
    server.gate.allow(0);
    let asked = tokio::spawn(server.ask(COMPLETIONS, &json!({"prompt": "a"})));
    until("it has begun", || server.capture.stats().spans.live == 2).await;
    let down = shut_down(server.core.clone(), Duration::ZERO);
    tokio::time::timeout(PATIENCE, down).await.expect("it waits for no step");
    server.gate.release();
    asked.await.expect("no panic");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_does_not_hold_the_server_up() {
    let server = Setup { drain: Duration::from_secs(1), ..Setup::default() }.start().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut idle = socket.connect(address.parse().expect("an address")).await.expect("a connection");
    let body = json!({"prompt": "a", "max_tokens": 400, "n": 64, "stream": true}).to_string();
    let head = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\nx-request-id: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        "x".repeat(128),
        body.len()
    );
    idle.write_all((head + &body).as_bytes()).await.expect("a written request");
    // Every chunk repeats the id: more than the kernel's buffers take.
    until("the answer is there", || server.core.stats().finished_length == 64).await;
    server.state.lifecycle.drain();
    server.serving.await.expect("no panic");
    let spans = server.capture.spans();
    let request = spans.iter().find(|span| span.name == "llm_request").expect("an ended journey");
    assert_eq!(abort_reason(request), "cancelled");
    assert!(request.event_names().ends_with(&["api.FIRST_RESPONSE_FROM_CORE", "api.ABORTED"]), "{request:?}");
}
