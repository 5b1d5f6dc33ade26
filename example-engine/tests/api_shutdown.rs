//! The server's way down: new requests are refused, running ones finish, those that are left are aborted.

mod api_support;

use std::time::Duration;

use api_support::{Setup, abort_reason, finish_status, serve, until};
use serde_json::{Value, json};

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
    server.serving.await.expect("no panic").expect("no error");
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
    server.serving.await.expect("no panic").expect("no error");
}
