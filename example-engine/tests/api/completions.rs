//! `/v1/completions` and `/v1/chat/completions` over real HTTP: answers, and the journeys behind them.

use std::collections::HashMap;

use crate::support::{SCRIPT, Setup, finish_status, serve, text, until};
use example_engine::engine::SchedulingPolicy;
use journey_layer::testing::CapturedSpan;
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

fn script(tokens: usize) -> String {
    String::from_utf8_lossy(&SCRIPT.as_bytes()[..tokens]).into_owned()
}

fn joined(chunks: &[String]) -> String {
    let texts = chunks.iter().filter(|chunk| *chunk != "[DONE]").map(|chunk| {
        let chunk: Value = serde_json::from_str(chunk).expect("JSON");
        let choice = &chunk["choices"][0];
        choice["text"].as_str().or_else(|| choice["delta"]["content"].as_str()).unwrap_or_default().to_owned()
    });
    texts.collect()
}

#[tokio::test]
async fn a_completion_is_answered_whole_and_leaves_both_spans() {
    let server = serve().await;
    let body = json!({"prompt": "Hello", "max_tokens": 10, "temperature": 0.5, "top_p": 0.9});
    let (status, answer) = server.ask(COMPLETIONS, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((answer["object"].as_str(), answer["model"].as_str()), (Some("text_completion"), Some("scripted")));
    assert_eq!(answer["choices"][0]["text"], script(10));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}));

    let (request, cores) = server.journey().await;
    let events = ["api.ARRIVED", "api.HANDOFF_TO_CORE", "api.FIRST_RESPONSE_FROM_CORE", "api.DEPARTED"];
    assert_eq!(request.event_names(), events);
    assert_eq!(cores.len(), 1);
    let events = ["journey.QUEUED", "journey.SCHEDULED", "journey.FIRST_TOKEN", "journey.FINISHED"];
    assert_eq!(cores[0].event_names(), events);
    assert_eq!(finish_status(&cores[0]), "length");
    assert_eq!(text(&request, "gen_ai.request.id"), answer["id"].as_str().expect("an id"));
    let core_id = text(&cores[0], "gen_ai.request.id");
    let prefix = format!("{}-0-", answer["id"].as_str().expect("an id"));
    assert!(core_id.starts_with(&prefix) && core_id.len() == prefix.len() + 8, "{core_id}");
}

#[tokio::test]
async fn all_attributes_are_on_the_request_whether_it_streams_or_not() {
    for stream in [false, true] {
        for route in [COMPLETIONS, CHAT] {
            let server = serve().await;
            let body = json!({
                "prompt": "Hello", "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stream": stream,
            });
            server.ask_streaming(route, &body).await;
            let (request, _) = server.journey().await;
            let prompt_tokens = if route == CHAT { "user: x\nassistant: ".len() } else { 5 };
            assert_eq!(request.attribute("gen_ai.usage.prompt_tokens"), Some(&(prompt_tokens as i64).into()));
            assert_eq!(request.attribute("gen_ai.usage.completion_tokens"), Some(&7.into()));
            assert_eq!(request.attribute("gen_ai.request.top_p"), Some(&0.9.into()));
            assert_eq!(request.attribute("gen_ai.request.max_tokens"), Some(&7.into()));
            assert_eq!(request.attribute("gen_ai.request.temperature"), Some(&0.5.into()));
            assert_eq!(request.attribute("gen_ai.request.n"), Some(&1.into()));
            assert_eq!(request.attribute("gen_ai.response.model"), Some(&"scripted".into()));
            assert_eq!(request.attribute("http.route"), Some(&route.into()));
            let id = text(&request, "gen_ai.request.id");
            assert!(id.starts_with(if route == CHAT { "chatcmpl-" } else { "cmpl-" }), "{id}");
        }
    }
}

#[tokio::test]
async fn a_stream_brings_the_same_text_in_pieces_and_departs_with_its_body() {
    let server = serve().await;
    let chunks = server.ask_streaming(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 26, "stream": true})).await;
    assert_eq!(chunks.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(joined(&chunks), script(26));
    assert!(chunks.len() > 20, "{} chunks", chunks.len());
    let last: Value = serde_json::from_str(&chunks[chunks.len() - 2]).expect("JSON");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert!(last.get("usage").is_none());
    let (request, _) = server.journey().await;
    assert_eq!(request.event_names().last(), Some(&"api.DEPARTED"));
}

#[tokio::test]
async fn include_usage_ends_a_stream_with_a_chunk_that_has_no_choice() {
    let server = serve().await;
    let body = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "."}]}], "max_tokens": 4,
        "stream": true, "stream_options": {"include_usage": true}});
    let chunks = server.ask_streaming(CHAT, &body).await;
    let usage: Value = serde_json::from_str(&chunks[chunks.len() - 2]).expect("JSON");
    assert_eq!(
        (usage["choices"].as_array().map(Vec::len), &usage["object"]),
        (Some(0), &json!("chat.completion.chunk"))
    );
    assert_eq!(usage["usage"]["completion_tokens"], 4);
    let first: Value = serde_json::from_str(&chunks[0]).expect("JSON");
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
}

#[tokio::test]
async fn a_chat_is_rendered_by_the_template_and_answered_as_a_message() {
    let config = r#"{"chat_template": "{% for m in messages %}.{{ m.content }}{% endfor %}"}"#;
    let server = Setup { chat_template: Some(config), ..Setup::default() }.start().await;
    let (status, answer) = server.ask(CHAT, &json!({"messages": [{"role": "user", "content": "abc"}]})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["message"], json!({"role": "assistant", "content": script(4)}));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    // The end-of-sequence token is counted, and is no text.
    assert_eq!(answer["usage"], json!({"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}));
    let (_, cores) = server.journey().await;
    assert_eq!(finish_status(&cores[0]), "stopped");
    assert!(!text(&cores[0], "gen_ai.request.id").contains("-0-"));
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_aborts_the_sequence() {
    for stream in [false, true] {
        let server = serve().await;
        // Held before the core could come to the end by itself.
        server.gate.allow(20);
        let body = json!({"prompt": "a", "max_tokens": 400, "stop": ["was", "zzz"], "stream": stream});
        let whole = if stream {
            let chunks = server.ask_streaming(COMPLETIONS, &body).await;
            let last: Value = serde_json::from_str(&chunks[chunks.len() - 2]).expect("JSON");
            assert_eq!(last["choices"][0]["finish_reason"], "stop");
            joined(&chunks)
        } else {
            let (_, answer) = server.ask(COMPLETIONS, &body).await;
            assert_eq!(answer["choices"][0]["finish_reason"], "stop");
            answer["choices"][0]["text"].as_str().expect("text").to_owned()
        };
        assert_eq!(whole, "Once there ");
        server.gate.release();
        let (request, cores) = server.journey().await;
        assert_eq!(request.event_names().last(), Some(&"api.DEPARTED"));
        assert_eq!(finish_status(&cores[0]), "aborted");
        server.assert_core_is_idle().await;
    }
}

#[tokio::test]
async fn n_sequences_are_n_cores_under_one_request() {
    let server = serve().await;
    let body = json!({"messages": [{"role": "user", "content": "x"}], "n": 3, "max_tokens": 5});
    let (status, answer) = server.ask(CHAT, &body).await;
    assert_eq!(status, 200, "{answer}");
    let indexes: Vec<_> =
        answer["choices"].as_array().expect("choices").iter().map(|one| one["index"].as_u64()).collect();
    assert_eq!(indexes, [Some(0), Some(1), Some(2)]);
    assert_eq!(answer["usage"]["completion_tokens"], 15);
    let (request, cores) = server.journey().await;
    assert_eq!(request.attribute("gen_ai.request.n"), Some(&3.into()));
    assert_eq!(request.attribute("gen_ai.usage.completion_tokens"), Some(&15.into()));
    let mut ids: Vec<_> = cores.iter().map(|core| text(core, "gen_ai.request.id")).collect();
    ids.sort();
    assert_eq!(ids.len(), 3);
    for (at, id) in ids.iter().enumerate() {
        assert!(id.starts_with(&format!("{at}_{}-", answer["id"].as_str().expect("an id"))), "{id}");
    }
}

#[tokio::test]
async fn each_prompt_is_a_journey_of_its_own() {
    for stream in [false, true] {
        let server = serve().await;
        let body = json!({"prompt": ["a", "bc", "def"], "n": 2, "max_tokens": 3, "stream": stream});
        server.ask_streaming(COMPLETIONS, &body).await;
        let spans = server.journeys().await;
        let requests: Vec<_> = spans.iter().filter(|span| span.name == "llm_request").collect();
        assert_eq!(requests.len(), 3);
        for request in &requests {
            assert_eq!((request.trace_id, request.parent_span_id), (requests[0].trace_id, None));
            assert_eq!(request.event_names().last(), Some(&"api.DEPARTED"));
            assert_eq!(request.attribute("gen_ai.usage.completion_tokens"), Some(&6.into()));
            let cores = spans.iter().filter(|span| span.parent_span_id == Some(request.span_id)).count();
            assert_eq!(cores, 2, "{}", text(request, "gen_ai.request.id"));
        }
        let mut lengths: Vec<_> =
            requests.iter().map(|request| format!("{:?}", request.attribute("gen_ai.usage.prompt_tokens"))).collect();
        lengths.sort();
        assert_eq!(lengths, ["Some(I64(1))", "Some(I64(2))", "Some(I64(3))"]);
    }
}

#[tokio::test]
async fn the_id_of_a_further_prompt_is_nobody_elses() {
    let server = serve().await;
    server.gate.allow(0);
    let several = json!({"prompt": ["a", "b"], "max_tokens": 1});
    let one = json!({"prompt": "c", "max_tokens": 1});
    let first = tokio::spawn(server.post(COMPLETIONS, &several).header("x-request-id", "x").send());
    until("both prompts are there", || server.capture.stats().spans.started >= 2).await;
    let second = tokio::spawn(server.post(COMPLETIONS, &one).header("x-request-id", "x-1").send());
    server.until_metric("requests_waiting", "2.0").await;
    server.gate.release();
    for answer in [first, second] {
        assert_eq!(answer.await.expect("no panic").expect("an answer").status().as_u16(), 200);
    }
    let spans = server.journeys().await;
    let requests = spans.iter().filter(|span| span.name == "llm_request");
    let mut ids: Vec<_> = requests.map(|span| text(span, "gen_ai.request.id")).collect();
    ids.sort();
    assert_eq!((ids.len(), ids[0].as_str(), ids[1].as_str()), (3, "cmpl-x", "cmpl-x-1"));
    assert!(ids[2].starts_with("cmpl-x-1-"), "{ids:?}");
    assert_eq!(server.capture.stats().spans.rejected(), 0);
}

#[tokio::test]
async fn the_prompts_of_one_request_are_sampled_alike() {
    let server = Setup { sample_rate: 0.5, ..Setup::default() }.start().await;
    let body = json!({"prompt": ["a", "bc", "def"], "max_tokens": 2});
    for _ in 0..40 {
        assert_eq!(server.ask(COMPLETIONS, &body).await.0, 200);
    }
    let mut traces = HashMap::new();
    for span in server.journeys().await {
        *traces.entry(span.trace_id).or_insert(0) += 1;
    }
    assert!(traces.values().all(|spans| *spans == 6), "three pairs in each trace: {traces:?}");
    assert!((1..40).contains(&traces.len()), "some of 40 requests are sampled: {}", traces.len());
}

#[tokio::test]
async fn a_long_prompt_leaves_less_than_the_default_number_of_tokens_and_asking_for_more_is_refused() {
    let server = serve().await;
    let prompt = "a".repeat(509);
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": prompt})).await;
    assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(3)), "{answer}");
    for (field, asked) in [("max_tokens", 4), ("max_completion_tokens", 16)] {
        let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": prompt, field: asked})).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(field)), "{answer}");
    }
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": "a".repeat(512)})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("prompt")), "{answer}");
}

#[tokio::test]
async fn token_ids_are_taken_as_they_are() {
    let server = serve().await;
    let (_, answer) = server.ask(COMPLETIONS, &json!({"prompt": [[46, 97], [98]], "max_tokens": 8})).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][1]["finish_reason"], "length");
    let (status, answer) = server.ask(COMPLETIONS, &json!({"prompt": [257]})).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("prompt")), "{answer}");
}

#[tokio::test]
async fn ignore_eos_goes_on_to_max_tokens() {
    let server = serve().await;
    let (_, answer) = server.ask(COMPLETIONS, &json!({"prompt": ".", "max_tokens": 9, "ignore_eos": true})).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 9);
}

#[tokio::test]
async fn the_client_s_request_id_and_trace_are_kept() {
    let server = serve().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = server
        .post(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 1}))
        .header("x-request-id", "mine-1")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["id"], "cmpl-mine-1");
    let (request, _) = server.journey().await;
    assert_eq!(request.trace_id.to_string(), trace);
    assert_eq!(request.parent_span_id.map(|id| id.to_string()).as_deref(), Some("b7ad6b7169203331"));
    assert_eq!(text(&request, "gen_ai.request.id"), "cmpl-mine-1");
}

#[tokio::test]
async fn the_smallest_priority_is_served_first_where_the_policy_says_so() {
    let mut setup = Setup::default();
    setup.engine.max_num_seqs = 1;
    setup.engine.policy = SchedulingPolicy::Priority;
    let server = setup.start().await;
    server.gate.allow(0);
    let ask = |id: &'static str, priority: i32, max_tokens: u32| {
        let body = json!({"prompt": "a", "max_tokens": max_tokens, "priority": priority});
        tokio::spawn(server.post(COMPLETIONS, &body).header("x-request-id", id).send())
    };
    let running = ask("running", 0, 400);
    until("it runs", || server.capture.stats().spans.started == 2).await;
    let waiting = [ask("late", 5, 2), ask("soon", -1, 2)];
    until("both wait", || {
        let wait = server.core.stats().num_waiting_reqs == 2;
        server.gate.allow(u64::from(!wait));
        wait
    })
    .await;
    server.gate.release();
    for answer in waiting.into_iter().chain([running]) {
        assert_eq!(answer.await.expect("no panic").expect("an answer").status(), 200);
    }
    let spans = server.journeys().await;
    let begun = |id: &str| {
        let is_it = |span: &&CapturedSpan| span.name == "llm_core" && text(span, "gen_ai.request.id").contains(id);
        spans.iter().find(is_it).expect("its sequence").event("journey.SCHEDULED").time
    };
    assert!(begun("running") < begun("soon") && begun("soon") < begun("late"));
}

#[tokio::test]
async fn five_hundred_concurrent_requests_all_end() {
    let server = serve().await;
    let requests = (0..500).map(|at| {
        let body = json!({"prompt": format!("{at}"), "max_tokens": 1 + at % 13, "stream": at % 2 == 0});
        server.post(COMPLETIONS, &body).send()
    });
    for response in futures_util::future::join_all(requests).await {
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        response.text().await.expect("a whole answer");
    }
    let spans = server.journeys().await;
    let departed = spans.iter().filter(|span| span.event_names().last() == Some(&"api.DEPARTED")).count();
    let finished = spans.iter().filter(|span| span.event_names().last() == Some(&"journey.FINISHED")).count();
    assert_eq!((departed, finished, spans.len()), (500, 500, 1000));
    server.assert_core_is_idle().await;
}
