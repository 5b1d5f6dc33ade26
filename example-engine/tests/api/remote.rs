//! Cores behind gRPC: traces join, load spreads, and a core that dies takes down nothing but its own requests.

use std::time::Duration;

use crate::support::remote::{Line, RemoteCoreHost};
use crate::support::{PATIENCE, Setup, abort_reason, capture, finish_status, text, until};
use example_engine::grpc::CorePool;
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn both_spans_join_across_grpc_and_a_disconnect_reaches_the_core() {
    let capture = capture();
    let host = RemoteCoreHost::start(0);
    let server = Setup::default().start_remote(&[&host], capture).await;
    let body = json!({"prompt": "Hello", "max_tokens": 6, "n": 2, "seed": 7, "top_k": 3});
    let (status, answer) = server.ask(COMPLETIONS, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    let (request, cores) = server.journey().await;
    assert_eq!(request.event_names().last(), Some(&"api.DEPARTED"));
    assert_eq!((cores.len(), finish_status(&cores[0]).as_str()), (2, "length"));

    host.gate.allow(3);
    let mut response = server
        .post(COMPLETIONS, &json!({"prompt": "b", "max_tokens": 300, "stream": true}))
        .send()
        .await
        .expect("an answer");
    response.chunk().await.expect("a chunk");
    drop(response);
    until("the core has heard of it", || {
        host.gate.allow(1);
        host.core.stats().finished_abort == 1
    })
    .await;
    let spans = server.journeys().await;
    let aborted = spans.iter().filter(|span| span.name == "llm_core" && finish_status(span) == "aborted").count();
    assert_eq!((spans.len(), aborted), (5, 1));
    server.assert_core_is_idle().await;
}

#[tokio::test]
async fn refusals_come_through_as_what_they_are() {
    let capture = capture();
    let mut setup = Setup::default();
    setup.engine.num_blocks = 4;
    let host = RemoteCoreHost::start_with(0, setup.engine.clone());
    let server = setup.start_remote(&[&host], capture).await;
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": "a".repeat(30)})).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("context_length_exceeded")), "{answer}");
    let (request, cores) = server.journey().await;
    assert_eq!((abort_reason(&request).as_str(), cores.len()), ("validation_error", 1));
    assert_eq!(finish_status(&cores[0]), "ignored");
}

#[tokio::test]
async fn a_core_that_is_told_to_end_aborts_what_is_left() {
    let capture = capture();
    let host = RemoteCoreHost::start(0);
    let server = Setup::default().start_remote(&[&host], capture).await;
    host.gate.allow(3);
    let asked = tokio::spawn(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 300})));
    until("it runs", || host.core.stats().num_steps == 3).await;
    let core = host.core.clone();
    let down = tokio::task::spawn_blocking(move || core.shutdown(Duration::ZERO));
    // It looks at its commands between two steps.
    until("it has ended", || {
        host.gate.allow(1);
        down.is_finished()
    })
    .await;
    assert_eq!(asked.await.expect("no panic").0, 503);
    let (request, cores) = server.journey().await;
    assert_eq!((abort_reason(&request).as_str(), finish_status(&cores[0]).as_str()), ("cancelled", "aborted"));
}

#[tokio::test]
async fn outputs_that_nobody_reads_hold_up_no_other_sequence() {
    let capture = capture();
    let mut setup = Setup::default();
    (setup.engine.max_model_len, setup.engine.max_num_seqs) = (10_000, 200);
    (setup.engine.block_size, setup.engine.num_blocks) = (1024, 1000);
    // It shall be left unread for as long as this takes.
    (setup.limits.write_timeout, setup.limits.request_timeout) = (10 * PATIENCE, 10 * PATIENCE);
    let host = RemoteCoreHost::start_with(0, setup.engine.clone());
    let server = setup.start_remote(&[&host], capture).await;
    // More sequences than a connection has room for by default, each with more than is sent unread.
    let unread = json!({"prompt": ["a", "b"], "max_tokens": 7_000, "n": 50, "stream": true, "ignore_eos": true});
    let mut response = server.post(COMPLETIONS, &unread).send().await.expect("an answer");
    response.chunk().await.expect("a chunk");
    until("all is generated", || host.core.stats().finished_length == 100).await;
    assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 3})).await.0, 200);
    assert_eq!(server.pool().num_up(), 1);
}

#[tokio::test]
async fn the_least_loaded_core_gets_the_next_sequence() {
    let capture = capture();
    let (one, other) = (RemoteCoreHost::start(0), RemoteCoreHost::start(0));
    let server = Setup::default().start_remote(&[&one, &other], capture).await;
    let body = json!({"prompt": "a", "max_tokens": 40, "n": 4});
    let (status, _) = server.ask(COMPLETIONS, &body).await;
    assert_eq!(status, 200);
    let taken = |host: &RemoteCoreHost| host.core.stats().finished_length;
    until("both have published", || taken(&one) + taken(&other) == 4).await;
    assert_eq!((taken(&one), taken(&other)), (2, 2));
    server.journey().await;
}

#[tokio::test]
async fn a_core_that_dies_fails_its_requests_alone_and_is_taken_back() {
    let capture = capture();
    let (dying, living) = (RemoteCoreHost::start(0), RemoteCoreHost::start(0));
    let server = Setup::default().start_remote(&[&dying, &living], capture).await;
    let body = json!({"prompt": "a", "max_tokens": 400, "stream": true});
    dying.gate.allow(5);
    living.gate.allow(5);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut response = server.post(COMPLETIONS, &body).send().await.expect("an answer");
        // Before it has begun, a sequence is tried on another core.
        let chunk = response.chunk().await.expect("a connection").expect("a first chunk");
        streams.push((chunk, response));
    }
    until("each core has one", || [&dying, &living].iter().all(|host| host.core.stats().num_steps > 0)).await;
    let port = dying.port;
    dying.kill();
    until("it was noticed", || server.pool().num_up() == 1).await;
    living.gate.release();
    let mut texts = Vec::new();
    for (chunk, response) in streams {
        texts.push(String::from_utf8_lossy(&chunk).into_owned() + &response.text().await.expect("a whole stream"));
    }
    assert_eq!(texts.iter().filter(|text| text.contains("is gone")).count(), 1, "{texts:?}");
    assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 3})).await.0, 200);

    let returned = RemoteCoreHost::start(port);
    until("it is taken back", || server.pool().num_up() == 2).await;
    let (status, _) = server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 3, "n": 2})).await;
    assert_eq!(status, 200);
    until("it has served", || returned.core.stats().finished_length >= 1).await;
    let spans = server.journeys().await;
    let requests = || spans.iter().filter(|span| span.name == "llm_request");
    let aborted: Vec<_> = requests().filter(|span| span.event_names().contains(&"api.ABORTED")).collect();
    assert_eq!((requests().count(), aborted.len()), (4, 1));
    assert_eq!(abort_reason(aborted[0]), "generation_error");
}

#[tokio::test]
async fn a_sequence_that_is_lost_on_the_way_back_is_done_elsewhere_and_both_tell_their_end() {
    let capture = capture();
    let (far, near) = (RemoteCoreHost::start(0), RemoteCoreHost::start(0));
    let line = Line::to(&far).await;
    let server = Setup::default().start_at(&[line.url.clone(), near.url()], &near, capture).await;
    far.gate.allow(0);
    line.lose_answers();
    let answer = tokio::spawn(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 500})));
    // The far core holds it in its step; that it has taken it is what the API does not hear.
    until("the far core has taken it", || server.capture.stats().spans.live == 2).await;
    line.cut();
    assert_eq!(answer.await.expect("no panic").0, 200);
    // Step by step: it might be done before it hears that nobody listens any more.
    until("the far core has heard it", || {
        far.gate.allow(1);
        far.core.stats().finished_abort == 1
    })
    .await;
    far.gate.release();
    let (request, cores) = server.journey().await;
    assert_eq!(request.event_names().last(), Some(&"api.DEPARTED"));
    let mut ends: Vec<_> = cores.iter().map(finish_status).collect();
    ends.sort();
    assert_eq!(ends, ["aborted", "length"], "{cores:?}");
    assert_ne!(text(&cores[0], "gen_ai.request.id"), text(&cores[1], "gen_ai.request.id"), "two sequences");
}

#[tokio::test]
async fn without_any_core_requests_are_refused_until_one_is_there() {
    let capture = capture();
    let host = RemoteCoreHost::start(0);
    let port = host.port;
    let server = Setup::default().start_remote(&[&host], capture).await;
    host.kill();
    until("it was noticed", || server.pool().num_up() == 0).await;
    let response = server.post(COMPLETIONS, &json!({"prompt": "a"})).send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    let health = server.http.get(format!("{}/health", server.url)).send().await.expect("an answer");
    assert_eq!(health.status().as_u16(), 503);
    let answer: Value = health.json().await.expect("JSON");
    assert!(answer["error"]["message"].as_str().expect("text").contains("none of 1 cores"), "{answer}");
    let _returned = RemoteCoreHost::start(port);
    until("it is taken back", || server.pool().num_up() == 1).await;
    assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 1})).await.0, 200);
}

#[tokio::test]
async fn wrong_urls_are_refused_when_the_pool_is_made() {
    let error = CorePool::connect(&[], None).expect_err("refused").to_string();
    assert!(error.contains("no core"), "{error}");
    for (url, says) in [
        ("not a url", "URL of a core"),
        ("http://", "URL of a core"),
        // URIs, but nothing to connect to.
        ("localhost", "http:// or https://"),
        ("localhost:9000", "http:// or https://"),
        ("ftp://localhost", "http:// or https://"),
        ("https://localhost:9000", "--core-ca"),
    ] {
        let error = CorePool::connect(&[url.to_owned()], None).expect_err(url).to_string();
        assert!(error.contains(&format!("`{url}`")) && error.contains(says), "{error}");
    }
    // A core that is not up is no error: it may come.
    let pool = CorePool::connect(&["http://127.0.0.1:1".to_owned()], None).expect("a pool");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(pool.num_up(), 0);
}
