//! Requests that are dropped at each poll of their handler and of their answer, where `disconnect` has a few phases over real
//! connections: every span ends once, for the right reason, and nothing stays held.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use example_engine::api::router;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use journey_layer::testing::CapturedSpan;
use serde_json::{Value, json};

use crate::support::remote::RemoteCoreHost;
use crate::support::{Gate, Setup, TestServer, abort_reason, capture, finish_status, serve, text, until};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
/// More than any of the requests below needs.
const MANY_POLLS: usize = 1000;

/// When a request is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// Right after its poll of this number.
    Poll(usize),
    /// When it has been woken after that, and what woke it will never be looked at.
    Wake(usize),
}

/// Runs `request`, which lets the core make one step whenever it waits. Whether it came to its end.
async fn run(request: impl Future<Output = ()>, gate: &Gate, at: At) -> bool {
    let mut request = pin!(request);
    let mut polls = 0;
    // A step may go to the request before, of which the core has not heard yet that it is over: nothing would wake this one.
    let mut another_step = tokio::time::interval(Duration::from_millis(20));
    poll_fn(|cx| {
        while another_step.poll_tick(cx).is_ready() {
            gate.allow(1);
        }
        if at == At::Wake(polls) {
            return Poll::Ready(false);
        }
        polls += 1;
        if request.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        gate.allow(1);
        if at == At::Poll(polls) { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// Sends a request through the routes, and reads the answer to its end. The body comes in two pieces.
async fn ask(server: &TestServer, route: &str, id: &str, body: &Value) {
    let body = body.to_string();
    let (head, tail) = body.split_at(body.len() / 2);
    let pieces = stream::iter([head.to_owned(), tail.to_owned()]).then(async |piece| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    });
    let request = Request::post(route).header(header::CONTENT_TYPE, "application/json").header("x-request-id", id);
    let request = request.body(Body::from_stream(pieces)).expect("a request");
    let response = TowerToHyperService::new(router(server.state.clone())).call(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.expect("a whole answer");
}

/// Drops the request at every poll that it has, and after each asks for the same.
async fn at_every_poll(server: &TestServer, route: &str, body: &Value, num_prompts: usize) {
    let mut ids = BTreeSet::new();
    let mut whole = 0;
    for at in [At::Poll, At::Wake] {
        for poll in 1.. {
            assert!(poll < MANY_POLLS, "{body} has no end");
            let id = format!("{:?}", at(poll));
            server.gate.allow(0);
            let ended = run(ask(server, route, &id, body), &server.gate, at(poll)).await;
            // Step by step: it shall hear that the client is gone before it has come to the end by itself.
            until("the core is idle", || {
                server.gate.allow(1);
                server.core_is_idle()
            })
            .await;
            server.gate.release();
            ask(server, route, &id, body).await;
            whole += 1 + usize::from(ended);
            ids.insert(id);
            if ended {
                assert!(poll > 3, "{body} waits {poll} times only");
                break;
            }
        }
    }
    server.until_metric("requests_waiting", "0.0").await;
    let spans = server.journeys().await;
    spans.iter().for_each(assert_ended_once);
    let (requests, cores): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.name == "llm_request");
    let mut cores_of: HashMap<_, Vec<_>> = HashMap::new();
    for core in cores {
        cores_of.entry((core.trace_id, core.parent_span_id)).or_default().push(finish_status(core));
    }
    let (mut departed, mut num_aborted) = (0, 0);
    for request in requests {
        // What still had the id would have made the next one's another.
        let id = text(request, "gen_ai.request.id");
        let asked = id.split_once('-').map(|(_, id)| id.strip_suffix("-1").unwrap_or(id));
        assert!(asked.is_some_and(|asked| ids.contains(asked)), "{id}");
        let cores = cores_of.remove(&(request.trace_id, Some(request.span_id))).unwrap_or_default();
        if request.event_names().last() == Some(&"api.DEPARTED") {
            departed += 1;
            assert_eq!(cores, ["length"]);
        }
        num_aborted += cores.iter().filter(|status| *status == "aborted").count();
    }
    assert!(cores_of.is_empty(), "sequences without a request: {cores_of:?}");
    assert_eq!(departed, whole * num_prompts);
    assert!(num_aborted > num_prompts, "the core goes on with what nobody waits for");
}

fn assert_ended_once(span: &CapturedSpan) {
    let events = span.event_names();
    let (last, before) = events.split_last().expect("events");
    let is_terminal = |name: &&str| ["api.DEPARTED", "api.ABORTED", "journey.FINISHED"].contains(name);
    assert!(is_terminal(last) && !before.iter().any(is_terminal), "{events:?}");
    match *last {
        "api.ABORTED" => assert_eq!(abort_reason(span), "client_disconnect"),
        "journey.FINISHED" => assert!(["aborted", "length"].contains(&&*finish_status(span)), "{span:?}"),
        _ => {}
    }
}

/// A route, what is asked of it, and how many prompts that has.
fn requests() -> [(&'static str, Value, usize); 4] {
    let completion = |stream: bool| json!({"prompt": ["ab", "c"], "max_tokens": 8, "stream": stream});
    let chat =
        |stream: bool| json!({"messages": [{"role": "user", "content": "ab"}], "max_tokens": 8, "stream": stream});
    [
        (COMPLETIONS, completion(false), 2),
        (COMPLETIONS, completion(true), 2),
        (CHAT, chat(false), 1),
        (CHAT, chat(true), 1),
    ]
}

#[tokio::test]
async fn at_every_poll_of_a_request() {
    for (route, body, num_prompts) in requests() {
        at_every_poll(&serve().await, route, &body, num_prompts).await;
    }
}

#[tokio::test]
async fn at_every_poll_of_a_request_to_a_remote_core() {
    for (route, body, num_prompts) in requests() {
        let capture = capture();
        let host = RemoteCoreHost::start(0);
        let server = Setup::default().start_remote(&[&host], capture).await;
        at_every_poll(&server, route, &body, num_prompts).await;
    }
}
