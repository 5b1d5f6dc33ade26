//! What the API refuses, how it says so, and what the journey says of it.

use std::time::Duration;

use crate::support::{Setup, abort_reason, finish_status, serve, text, until};
use example_engine::api::ApiKey;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const COMPLETIONS: &str = "/v1/completions";

#[track_caller]
fn assert_error(status: u16, body: &Value, expected: u16, param: Option<&str>, says: &str) {
    assert_eq!(status, expected, "{body}");
    let error = &body["error"];
    assert_eq!(error["param"].as_str(), param, "{body}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{body}");
    assert!(error["type"].is_string() && error.get("code").is_some(), "{body}");
}

#[tokio::test]
async fn a_request_that_fails_validation_has_a_journey_that_says_so() {
    for (body, param, says) in [
        (json!({"prompt": "a", "temperature": -1}), Some("temperature"), "-1"),
        (json!({"prompt": "a", "temperature": "warm"}), Some("temperature"), "warm"),
        (json!({"prompt": "a", "n": 0}), Some("n"), "0"),
        (json!({"prompt": ""}), Some("prompt"), "empty"),
        (json!({"prompt": "a".repeat(600)}), Some("prompt"), "600"),
        (json!({"prompt": "a", "max_tokens": 512}), Some("max_tokens"), "context length"),
    ] {
        let server = serve().await;
        let (status, answer) = server.ask(COMPLETIONS, &body).await;
        assert_error(status, &answer, 400, param, says);
        let (request, cores) = server.journey().await;
        assert_eq!(request.event_names(), ["api.ARRIVED", "api.ABORTED"]);
        assert_eq!(abort_reason(&request), "validation_error");
        let error = request.event("api.ABORTED").attribute("error").expect("an error").as_str().into_owned();
        // The words of a request are for its client alone.
        match says {
            "warm" => assert_eq!(error, "the request cannot be read; its client was told where"),
            _ => assert_eq!(Some(error.as_str()), answer["error"]["message"].as_str()),
        }
        assert!(cores.is_empty() && request.error.is_some());
    }
}

#[tokio::test]
async fn bad_json_and_wrong_content_types_are_refused() {
    let server = serve().await;
    let url = format!("{}{COMPLETIONS}", server.url);
    for (content_type, body, status) in [
        ("application/json", "{\"prompt\": ", 400),
        ("application/json", "{\"prompt\": \"a\", \"temperature\": NaN}", 400),
        ("application/json", "{\"prompt\": \"a\", \"temperature\": 1e999}", 400),
        ("application/json", "[]", 400),
        ("text/plain", "{\"prompt\": \"a\"}", 415),
        ("application/json; charset=utf-8", "{\"prompt\": \"a\", \"max_tokens\": 1}", 200),
    ] {
        let sent = server.http.post(&url).header("content-type", content_type).body(body).send().await;
        let response = sent.expect("an answer");
        assert_eq!(response.status().as_u16(), status, "{content_type}: {body}");
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer.get("error").is_some(), status != 200, "{answer}");
    }
}

#[tokio::test]
async fn unknown_routes_methods_and_models_are_refused_in_openai_s_form() {
    let server = serve().await;
    let get = async |route: &str| {
        let response = server.http.get(format!("{}{route}", server.url)).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.expect("JSON"))
    };
    let (status, answer) = get("/v1/nothing").await;
    assert_error(status, &answer, 404, None, "/v1/nothing");
    let (status, answer) = get(COMPLETIONS).await;
    assert_error(status, &answer, 405, None, "GET");
    let (status, answer) = server.ask(COMPLETIONS, &json!({"model": "gpt-9", "prompt": "a"})).await;
    assert_error(status, &answer, 404, Some("model"), "gpt-9");
    assert_eq!(answer["error"]["code"], "model_not_found");
    let (status, answer) = get("/v1/models").await;
    assert_eq!((status, &answer["data"][0]["id"]), (200, &json!("scripted")));
    let (status, answer) = get("/v1/models/scripted").await;
    assert_eq!((status, &answer["object"]), (200, &json!("model")));
    let (status, answer) = get("/version").await;
    assert_eq!((status, answer["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn the_api_key_is_asked_for_where_it_matters() {
    let server = Setup { api_key: Some(ApiKey::new("secret-1")), ..Setup::default() }.start().await;
    let body = json!({"prompt": "a", "max_tokens": 1});
    for key in [None, Some("secret-2"), Some("")] {
        let request = server.post(COMPLETIONS, &body);
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 401);
        let answer: Value = response.json().await.expect("JSON");
        assert_error(401, &answer, 401, None, "api key");
        assert!(!answer.to_string().contains("secret"));
    }
    let response = server.post(COMPLETIONS, &body).bearer_auth("secret-1").send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 200);
    let health = server.http.get(format!("{}/health", server.url)).send().await.expect("an answer");
    assert_eq!(health.status().as_u16(), 200);
    server.journey().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = serve().await;
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": "a".repeat(70_000)})).await;
    assert_error(status, &answer, 413, None, "65536");
    let (request, _) = server.journey().await;
    assert_eq!(abort_reason(&request), "validation_error");
}

#[tokio::test]
async fn too_many_waiting_requests_get_429_and_no_journey() {
    let mut setup = Setup::default();
    setup.limits.max_waiting_requests = 2;
    let server = setup.start().await;
    server.gate.allow(0);
    let body = json!({"prompt": "a", "max_tokens": 2});
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(server.ask(COMPLETIONS, &body))).collect();
    server.until_metric("requests_waiting", "2.0").await;
    let response = server.post(COMPLETIONS, &body).send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
    let answer: Value = response.json().await.expect("JSON");
    assert_error(429, &answer, 429, None, "2 requests are waiting");
    server.gate.release();
    for one in waiting {
        assert_eq!(one.await.expect("no panic").0, 200);
    }
    // Those that wait no more have made room.
    assert_eq!(server.ask(COMPLETIONS, &body).await.0, 200);
    let spans = server.journeys().await;
    assert_eq!(spans.iter().filter(|span| span.name == "llm_request").count(), 3);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_aborted_everywhere() {
    for stream in [false, true] {
        let mut setup = Setup::default();
        setup.limits.request_timeout = Duration::from_secs(1);
        let server = setup.start().await;
        server.gate.allow(3);
        let body = json!({"prompt": "a", "max_tokens": 100, "stream": stream});
        if stream {
            let chunks = server.ask_streaming(COMPLETIONS, &body).await;
            let error: Value = serde_json::from_str(&chunks[chunks.len() - 2]).expect("JSON");
            assert_eq!(error["error"]["code"], "timeout", "{chunks:?}");
        } else {
            let (status, answer) = server.ask(COMPLETIONS, &body).await;
            assert_error(status, &answer, 504, None, "1 s");
        }
        server.gate.release();
        let (request, cores) = server.journey().await;
        assert_eq!(abort_reason(&request), "timeout");
        assert_eq!(request.event_names().iter().filter(|name| **name == "api.ABORTED").count(), 1);
        assert!(request.attribute("gen_ai.usage.completion_tokens").is_some());
        assert_eq!(finish_status(&cores[0]), "aborted");
        server.assert_core_is_idle().await;
    }
}

#[tokio::test]
async fn a_failing_model_is_an_error_for_the_client_and_for_both_spans() {
    for stream in [false, true] {
        let server = serve().await;
        let body = json!({"prompt": "!", "max_tokens": 5, "stream": stream});
        if stream {
            let chunks = server.ask_streaming(COMPLETIONS, &body).await;
            assert!(chunks[0].contains("told to fail"), "{chunks:?}");
        } else {
            let (status, answer) = server.ask(COMPLETIONS, &body).await;
            assert_error(status, &answer, 500, None, "told to fail");
        }
        let (request, cores) = server.journey().await;
        assert_eq!(abort_reason(&request), "generation_error");
        assert_eq!(finish_status(&cores[0]), "error");
    }
}

#[tokio::test]
async fn what_can_never_fit_is_refused_before_it_waits() {
    let mut setup = Setup::default();
    setup.engine.num_blocks = 4;
    let server = setup.start().await;
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": "a".repeat(30)})).await;
    assert_error(status, &answer, 400, None, "KV cache");
    let (request, cores) = server.journey().await;
    assert_eq!(request.event_names(), ["api.ARRIVED", "api.ABORTED"]);
    assert_eq!((abort_reason(&request).as_str(), finish_status(&cores[0]).as_str()), ("validation_error", "ignored"));
}

#[tokio::test]
async fn forged_journey_headers_from_outside_change_nothing() {
    let server = serve().await;
    let request = server
        .post(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 1}))
        .header("x-vllm-journey-sampled", "0")
        .header("tracestate", "journey=llm_request,other=1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(request.send().await.expect("an answer").status().as_u16(), 200);
    let (request, cores) = server.journey().await;
    assert_eq!((cores.len(), request.trace_state.as_str()), (1, "other=1"));
}

#[tokio::test]
async fn an_endless_request_id_is_cut_and_a_strange_one_replaced() {
    let server = serve().await;
    let body = json!({"prompt": "a", "max_tokens": 1});
    let long = server.post(COMPLETIONS, &body).header("x-request-id", "x".repeat(4000)).send().await;
    assert_eq!(long.expect("an answer").status().as_u16(), 200);
    let (request, _) = server.journey().await;
    assert_eq!(text(&request, "gen_ai.request.id").len(), "cmpl-".len() + 128);
}

#[tokio::test]
async fn a_connection_that_sends_no_request_is_closed() {
    let mut setup = Setup::default();
    setup.limits.header_timeout = Duration::from_millis(100);
    let server = setup.start().await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&address).await.expect("a connection");
    slow.write_all(b"POST /v1/completions HTTP/1.1\r\nhost").await.expect("half a head");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut answer)).await;
    closed.expect("the server closes it").expect("no reset");
    assert_eq!(server.capture.stats().spans.started, 0);
    let huge = server.http.get(format!("{}/health", server.url)).header("x-huge", "x".repeat(200_000)).send().await;
    assert!(huge.is_err() || huge.is_ok_and(|answer| answer.status().as_u16() == 431));
    let (status, _) = server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 1})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn two_live_requests_with_one_id_are_two_journeys() {
    let server = serve().await;
    server.gate.allow(0);
    let body = json!({"prompt": "a", "max_tokens": 1});
    let sent: Vec<_> =
        (0..2).map(|_| tokio::spawn(server.post(COMPLETIONS, &body).header("x-request-id", "same").send())).collect();
    until("both are there", || server.capture.stats().spans.started >= 3).await;
    server.gate.release();
    for one in sent {
        assert_eq!(one.await.expect("no panic").expect("an answer").status().as_u16(), 200);
    }
    let spans = server.journeys().await;
    let mut ids: Vec<_> =
        spans.iter().filter(|span| span.name == "llm_request").map(|span| text(span, "gen_ai.request.id")).collect();
    ids.sort();
    assert_eq!(ids.len(), 2);
    assert!(ids[0] == "cmpl-same" && ids[1].starts_with("cmpl-same-"), "{ids:?}");
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = serve().await;
    server.ask(COMPLETIONS, &json!({"prompt": "abc", "max_tokens": 4})).await;
    server.ask(COMPLETIONS, &json!({"prompt": "!", "max_tokens": 4})).await;
    server.ask(COMPLETIONS, &json!({"prompt": "a", "n": 0})).await;
    server.gate.allow(0);
    let stream = json!({"prompt": "b", "max_tokens": 400, "stream": true});
    drop(server.post(COMPLETIONS, &stream).send().await.expect("an answer"));
    until("the client is seen to be gone", || server.capture.spans().len() == 6).await;
    server.gate.release();
    server.journeys().await;
    server.assert_core_is_idle().await;
    let response = server.http.get(format!("{}/metrics", server.url)).send().await.expect("an answer");
    assert!(response.headers()["content-type"].to_str().expect("text").starts_with("application/openmetrics-text"));
    let metrics = response.text().await.expect("text");
    for line in [
        "vllm:request_success_total{finished_reason=\"length\"} 1",
        "vllm:request_aborted_total{reason=\"generation_error\"} 1",
        "vllm:request_aborted_total{reason=\"validation_error\"} 1",
        "vllm:request_aborted_total{reason=\"client_disconnect\"} 1",
        "vllm:time_to_first_token_seconds_count 1",
        "vllm:inter_token_latency_seconds_count 3",
        "vllm:e2e_request_latency_seconds_count 1",
        "vllm:generation_tokens_total ",
        "vllm:num_requests_running 0",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|one| one.starts_with(line)), "no {line} in\n{metrics}");
    }
}
