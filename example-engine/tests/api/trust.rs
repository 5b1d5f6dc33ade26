//! What must not get out: the API key into logs and spans, prompts and answers into spans.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::support::processes::{Process, engine};
use crate::support::{Setup, abort_reason, checkpoint, serve, text};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use journey_layer::testing::CapturedSpan;
use parking_lot::Mutex;
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

const KEY: &str = "canary-key-7f3a";
const WRONG_KEY: &str = "canary-wrong-key-91c2";
const EXPORT_KEY: &str = "canary-export-key-55d0";
const PROMPT: &str = "canary-prompt-c4e8";

/// An OTLP/HTTP receiver that keeps every byte it is sent.
async fn receiver() -> (String, Arc<Mutex<Vec<u8>>>) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let keep = async |State(bytes): State<Arc<Mutex<Vec<u8>>>>, body: Bytes| bytes.lock().extend_from_slice(&body);
    let app = Router::new().fallback(keep).with_state(bytes.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, bytes)
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Every way in which a client can come by with a key and a prompt. What was answered to the good ones.
async fn visit(url: &str) -> Vec<String> {
    let http = reqwest::Client::new();
    let ask = async |route: &str, key: &str, body: String| {
        let request = http.post(format!("{url}{route}")).bearer_auth(key).header("content-type", "application/json");
        let response = request.body(body).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    };
    let mut answers = Vec::new();
    for (route, body) in [
        (COMPLETIONS, json!({"prompt": PROMPT, "max_tokens": 24, "ignore_eos": true})),
        (
            COMPLETIONS,
            json!({"prompt": [PROMPT, PROMPT], "max_tokens": 24, "ignore_eos": true, "stop": ["never there"]}),
        ),
        (CHAT, json!({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 24, "ignore_eos": true})),
    ] {
        let (status, text) = ask(route, KEY, body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        for choice in answer["choices"].as_array().expect("choices") {
            let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).expect("a text");
            answers.push(text.to_owned());
        }
        let streamed = body.to_string().replacen('{', r#"{"stream":true,"#, 1);
        assert_eq!(ask(route, KEY, streamed).await.0, 200);
        assert_eq!(ask(route, WRONG_KEY, body.to_string()).await.0, 401);
    }
    for broken in [
        json!({"messages": PROMPT}).to_string(),
        json!({"messages": [{"role": "user", "content": [{"type": PROMPT}]}]}).to_string(),
        json!({"prompt": PROMPT, "max_tokens": PROMPT}).to_string(),
        json!({"prompt": PROMPT, "stop": {PROMPT: 1}, "n": 0}).to_string(),
        format!(r#"{{"prompt": "a", "logit_bias": {{"{PROMPT}": nan}}}}"#),
        format!(r#"{{"prompt": "{PROMPT}"#),
        format!("\"{PROMPT}\""),
        PROMPT.to_owned(),
    ] {
        for route in [COMPLETIONS, CHAT] {
            let (status, text) = ask(route, KEY, broken.clone()).await;
            assert_eq!(status, 400, "{broken}: {text}");
        }
    }
    answers
}

/// Runs a server at its most talkative, visits it, and looks for what must not have got out.
async fn look_for_canaries(variables: &[(&str, &str)], exported: &Mutex<Vec<u8>>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    checkpoint::write(dir.path());
    let [journeys, log] = ["journeys.jsonl", "log"].map(|name| dir.path().join(name));
    let path = |path: &Path| path.display().to_string();
    let mut command = engine(&[
        "serve",
        "--port",
        "0",
        "--model",
        &path(dir.path()),
        "--device",
        "cpu",
        "--journeys",
        &path(&journeys),
    ]);
    command.env("EXAMPLE_ENGINE_API_KEY", KEY).env("RUST_LOG", "trace").envs(variables.iter().copied());
    command.env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer {EXPORT_KEY}"));
    command.stderr(File::create(&log).expect("a file"));
    let server = Process::spawn(&mut command);
    let answers = visit(&server.url).await;
    let metrics = reqwest::get(format!("{}/metrics", server.url)).await.expect("an answer").text().await.expect("text");
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));

    let read = |path: &Path| std::fs::read(path).expect("a file");
    let (journeys, log, exported) = (read(&journeys), read(&log), exported.lock().clone());
    assert!(contains(&journeys, "llm_core") && contains(&journeys, "validation_error"), "journeys were written");
    assert!(contains(&log, "TRACE"), "the log was at its most talkative");
    for (what, bytes) in
        [("journeys", &*journeys), ("export", &exported), ("metrics", metrics.as_bytes()), ("log", &log)]
    {
        for key in [KEY, WRONG_KEY, EXPORT_KEY] {
            assert!(!contains(bytes, key), "{key} in the {what}");
        }
        if what != "log" {
            assert!(!contains(bytes, PROMPT), "a prompt in the {what}");
            for answer in answers.iter().filter(|answer| answer.len() >= 8) {
                assert!(!contains(bytes, answer), "an answer in the {what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_key_gets_into_logs_or_spans_and_no_prompt_or_answer_into_a_span() {
    let (url, exported) = receiver().await;
    look_for_canaries(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)], &exported).await;
    assert!(contains(&exported.lock(), "llm_core"), "journeys were exported");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nor_where_journeys_go_by_grpc() {
    let local = |port| std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    let receiver = journey_cli::serve::Server::bind(journey_cli::serve::Config {
        page: local(0),
        grpc: local(0),
        http: local(0),
        limits: journey_cli::serve::Limits {
            journeys: 1000,
            bytes: 1 << 26,
            settle: std::time::Duration::from_secs(5),
        },
        dialects: journey_cli::check::Dialects::default(),
        link: None,
    });
    let receiver = receiver.await.expect("free ports");
    let url = format!("http://{}", receiver.grpc_addr().expect("an address"));
    tokio::spawn(receiver.run());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    look_for_canaries(&variables, &Mutex::default()).await;
}

#[tokio::test]
async fn what_a_template_says_of_a_conversation_is_for_its_client_alone() {
    let chat_template = Some(r#"{"chat_template": "{{ raise_exception('cannot answer: ' ~ messages[0].content) }}"}"#);
    let server = Setup { chat_template, ..Setup::default() }.start().await;
    let (status, answer) = server.ask(CHAT, &json!({"messages": [{"role": "user", "content": PROMPT}]})).await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(PROMPT)), "{answer}");
    let (request, _) = server.journey().await;
    assert!(!format!("{request:?}").contains(PROMPT), "{request:?}");
    let error = |request: &CapturedSpan| request.event("api.ABORTED").attribute("error").map(|text| text.to_string());
    assert!(error(&request).is_some_and(|error| error.contains("cannot be read")));
}

#[tokio::test]
async fn what_was_asked_for_in_place_of_the_model_is_for_its_client_alone() {
    let server = serve().await;
    let (status, answer) = server.ask(COMPLETIONS, &json!({"model": PROMPT, "prompt": "abc"})).await;
    assert_eq!(status, 404);
    assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(PROMPT)), "{answer}");
    let response = server.http.post(format!("{}{COMPLETIONS}", server.url)).header("content-type", PROMPT).body("{}");
    assert_eq!(response.send().await.expect("an answer").status().as_u16(), 415);
    let spans = server.journeys().await;
    assert!(spans.len() == 2 && spans.iter().all(|span| abort_reason(span) == "validation_error"), "{spans:?}");
    assert!(!format!("{spans:?}").contains(PROMPT), "{spans:?}");
}

#[tokio::test]
async fn a_long_request_id_is_cut_and_counted() {
    let server = serve().await;
    let body = json!({"prompt": "abc", "max_tokens": 2});
    for (id, kept) in [("i".repeat(128), 128), ("i".repeat(129), 128), ("i".repeat(20_000), 128), ("x".into(), 1)] {
        let response = server.post(COMPLETIONS, &body).header("x-request-id", &id).send().await.expect("an answer");
        assert_eq!(response.headers()["x-request-id"].len(), kept);
        response.bytes().await.expect("a whole answer");
    }
    let spans = server.journeys().await;
    assert!(spans.iter().all(|span| text(span, "gen_ai.request.id").len() < 160));
    let metrics = server.http.get(format!("{}/metrics", server.url)).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("request_ids_truncated_total 2\n"), "{metrics}");
}

#[test]
fn an_empty_key_is_refused_at_the_start() {
    for key in ["", "  "] {
        let output = engine(&["serve", "--port", "0"]).env("EXAMPLE_ENGINE_API_KEY", key).output().expect("a process");
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("an empty key keeps nobody out"), "{stderr}");
    }
}
