//! The schema's tables against real traces: every row that this engine can produce is seen, and nothing beside them.
//!
//! Tables and traces are both turned into sets of sentences, such as "`llm_request` has `gen_ai.request.n`", so that a new
//! row that no trace shows is a failure.

use std::collections::BTreeSet;

use crate::support::{Setup, TestServer, until};
use journey_layer::opentelemetry::Value as Attribute;
use journey_layer::testing::{CapturedEvent, CapturedSpan};
use journey_schema::{AbortReason, Attr, AttributeType, Event, Phase, SpanName};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

type Rows = BTreeSet<String>;

/// Rows of the schema that this engine cannot produce.
fn impossible() -> Rows {
    Rows::from([
        // These would be mistakes in the handlers; the layer's own tests make them.
        value(Attr::Reason, AbortReason::Panic.as_str()),
        value(Attr::Reason, AbortReason::Unfinished.as_str()),
        // A step takes snapshots of the sequences that it runs.
        value(Attr::SnapshotPhase, Phase::Waiting.as_str()),
        // A step ends with its one summary.
        follows(Event::BatchSummary.wire_name(), Event::BatchSummary.wire_name()),
        follows(Event::BatchSummary.wire_name(), Event::RequestSnapshot.wire_name()),
    ])
}

/// Attributes that some events of their kind lack. All others are on each.
const SOMETIMES: [(Event, Attr); 2] = [
    // Where there is an error to quote.
    (Event::Aborted, Attr::Error),
    // Where there is a prefix cache.
    (Event::RequestSnapshot, Attr::EffectivePromptLen),
];

#[tokio::test]
async fn every_row_of_the_schema_is_seen_in_a_real_trace_and_nothing_else() {
    let mut spans = answers_and_refusals().await;
    spans.extend(preemption_in_prefill().await);
    spans.extend(preemption_in_decode_and_a_shutdown().await);
    spans.extend(a_client_that_goes_away().await);
    spans.extend(a_request_that_takes_too_long().await);
    spans.extend(a_real_model_without_prefix_caching().await);

    let (schema, impossible, seen) = (rows_of_the_schema(), impossible(), rows_of(&spans));
    let unknown: Vec<_> = impossible.difference(&schema).collect();
    assert!(unknown.is_empty(), "said to be impossible, and not in the schema: {unknown:#?}");
    let possible = &schema - &impossible;
    let missing: Vec<_> = possible.difference(&seen).collect();
    assert!(missing.is_empty(), "in the schema, and in no trace: {missing:#?}");
    let surplus: Vec<_> = seen.difference(&possible).collect();
    assert!(surplus.is_empty(), "in a trace, and not in the schema or said to be impossible: {surplus:#?}");

    spans.iter().for_each(|span| assert_events_are_complete(span));
    for (event, attr) in SOMETIMES {
        let mut events = spans.iter().flat_map(|span| &span.events).filter(|one| one.name == event.wire_name());
        assert!(events.any(|one| one.attribute(attr.key()).is_none()), "{event:?} always has {}", attr.key());
    }
    assert_spans_hang_together(&spans);
}

/// Sequences that end by themselves, fail, or are never run.
async fn answers_and_refusals() -> Vec<CapturedSpan> {
    let server = traced(Setup::default()).start().await;
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "n": 2, "max_tokens": 3});
    for (route, body, status) in [
        (CHAT, chat, 200),
        (COMPLETIONS, json!({"prompt": ".", "max_tokens": 9}), 200),
        (COMPLETIONS, json!({"prompt": "!"}), 500),
        (COMPLETIONS, json!({"prompt": "a", "n": 0}), 400),
    ] {
        assert_eq!(server.ask(route, &body).await.0, status, "{body}");
    }
    server.journeys().await
}

/// The younger of two sequences loses its blocks while its prompt is computed, and gets them back. Another never fits.
async fn preemption_in_prefill() -> Vec<CapturedSpan> {
    let mut setup = traced(Setup::default());
    setup.engine.max_num_batched_tokens = 5;
    let server = with_forty_slots(setup).start().await;
    assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "c".repeat(50)})).await.0, 400);
    let answer = hold(&server, &json!({"prompt": ["aaaa", "b".repeat(30)], "max_tokens": 11})).await;
    server.gate.release();
    assert_eq!(answer.await.expect("no panic").expect("an answer").status(), 200);
    server.journeys().await
}

/// The younger of two sequences loses its blocks after its first token; then the server stops.
async fn preemption_in_decode_and_a_shutdown() -> Vec<CapturedSpan> {
    let server = with_forty_slots(traced(Setup::default())).start().await;
    let cut_off = hold(&server, &json!({"prompt": ["a".repeat(8), "b".repeat(8)], "max_tokens": 20})).await;
    until("one is preempted", || {
        let preempted = server.core.stats().num_preemptions > 0;
        server.gate.allow(u64::from(!preempted));
        preempted
    })
    .await;
    server.state.lifecycle.stop();
    assert_eq!(cut_off.await.expect("no panic").expect("an answer").status(), 503);
    server.gate.release();
    server.journeys().await
}

/// Of two sequences one streams and one waits.
async fn a_client_that_goes_away() -> Vec<CapturedSpan> {
    let mut setup = traced(Setup::default());
    setup.engine.max_num_seqs = 1;
    let server = setup.start().await;
    let response = hold(&server, &json!({"prompt": ["a", "b"], "max_tokens": 50, "stream": true})).await;
    server.gate.allow(2);
    let mut response = response.await.expect("no panic").expect("an answer");
    response.chunk().await.expect("a connection").expect("a first event");
    drop(response);
    gone(&server, 2).await;
    server.journeys().await
}

async fn a_request_that_takes_too_long() -> Vec<CapturedSpan> {
    let mut setup = traced(Setup::default());
    setup.limits.request_timeout = std::time::Duration::from_millis(50);
    let server = setup.start().await;
    server.gate.allow(0);
    assert_eq!(server.ask(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 100})).await.0, 504);
    server.gate.release();
    server.journeys().await
}

async fn a_real_model_without_prefix_caching() -> Vec<CapturedSpan> {
    let mut setup = traced(Setup { real_model: true, ..Setup::default() });
    setup.engine.enable_prefix_caching = false;
    let server = setup.start().await;
    let body = json!({"prompt": "Once", "max_tokens": 4, "ignore_eos": true});
    assert_eq!(server.ask(COMPLETIONS, &body).await.0, 200);
    server.journeys().await
}

/// Every step is traced, with every sequence in it.
fn traced(mut setup: Setup) -> Setup {
    setup.step_sample_rate = 1.0;
    setup.engine.step_tracing_snapshot_rate = 1.0;
    setup
}

fn with_forty_slots(mut setup: Setup) -> Setup {
    (setup.engine.block_size, setup.engine.num_blocks) = (4, 10);
    setup
}

/// Waits until that many journeys were seen to lose their client, and only then lets the model go on.
async fn gone(server: &TestServer, journeys: usize) {
    let aborted = |span: &&CapturedSpan| span.event_names().contains(&Event::Aborted.wire_name());
    until("it was noticed", || server.capture.spans().iter().filter(aborted).count() == journeys).await;
    server.gate.release();
}

/// Sends a request for two prompts, and has the core hold in the step in which it takes the first, or both. The gate is what
/// makes the two compete in the same steps in every run.
async fn hold(server: &TestServer, body: &Value) -> JoinHandle<reqwest::Result<reqwest::Response>> {
    server.gate.allow(0);
    let answer = tokio::spawn(server.post(COMPLETIONS, body).send());
    // Two llm_request, at least one llm_core, the step: both sequences were sent before this task could look.
    until("the core is in a step", || server.capture.stats().spans.live >= 4).await;
    answer
}

fn rows_of_the_schema() -> Rows {
    let mut rows = Rows::new();
    for span in SpanName::ALL {
        rows.insert(in_scope(span.scope().name(), span.name()));
        rows.extend(span.attributes().iter().chain(span.derived()).map(|attr| has(span.name(), attr.key())));
    }
    for event in Event::ALL {
        rows.insert(has(event.span().name(), event.wire_name()));
        rows.extend(event.attributes().map(|attr| has(event.wire_name(), attr.key())));
        rows.extend(event.successors().iter().map(|next| follows(event.wire_name(), next.wire_name())));
    }
    for attr in Attr::ALL {
        match attr.info().ty {
            AttributeType::OneOf(values) => rows.extend(values.iter().map(|text| value(*attr, text))),
            AttributeType::Int => rows.extend([value(*attr, "an i64")]),
            AttributeType::Float => rows.extend([value(*attr, "an f64")]),
            AttributeType::Str => rows.extend([value(*attr, "a text")]),
        }
    }
    rows
}

fn rows_of(spans: &[CapturedSpan]) -> Rows {
    let mut rows = Rows::new();
    for span in spans {
        rows.insert(in_scope(span.scope, span.name));
        rows.extend(rows_of_attributes(span.name, &span.attributes));
        for event in &span.events {
            rows.insert(has(span.name, event.name));
            rows.extend(rows_of_attributes(event.name, &event.attributes));
        }
        rows.extend(span.events.windows(2).map(|pair| follows(pair[0].name, pair[1].name)));
    }
    rows
}

fn rows_of_attributes(owner: &str, attributes: &[(&'static str, Attribute)]) -> Rows {
    let row = |(key, what): &(&'static str, Attribute)| {
        let attr = Attr::from_key(key).unwrap_or_else(|| panic!("{owner} has {key}, which is no attribute"));
        let what = match (what, attr.info().ty) {
            (Attribute::String(text), AttributeType::OneOf(_)) => text.as_str(),
            (Attribute::String(_), _) => "a text",
            (Attribute::I64(_), _) => "an i64",
            (Attribute::F64(_), _) => "an f64",
            (other, _) => panic!("{key} is {other:?}"),
        };
        [has(owner, key), value(attr, what)]
    };
    attributes.iter().flat_map(row).collect()
}

fn in_scope(scope: &str, span: &str) -> String {
    format!("`{span}` is in `{scope}`")
}

fn has(owner: &str, what: &str) -> String {
    format!("`{owner}` has `{what}`")
}

fn follows(event: &str, next: &str) -> String {
    format!("`{event}` is followed by `{next}`")
}

fn value(attr: Attr, what: &str) -> String {
    format!("`{}` is {what}", attr.key())
}

/// Each event has all its attributes, but for those that only some have.
#[track_caller]
fn assert_events_are_complete(span: &CapturedSpan) {
    let queued = span.events.iter().any(|event| event.name == Event::Queued.wire_name());
    for event in &span.events {
        let kind = kind(event);
        // A sequence that was refused has made no progress that could be told.
        let refused = kind == Event::Finished && !queued;
        let optional = kind.optional().iter().filter(|attr| !refused && !SOMETIMES.contains(&(kind, **attr)));
        for attr in kind.reserved().iter().chain(kind.required()).chain(optional) {
            assert!(event.attribute(attr.key()).is_some(), "an {} without {}: {event:?}", event.name, attr.key());
        }
    }
    let last = span.events.last().map(kind);
    let ends = matches!(last, Some(Event::Departed | Event::Aborted | Event::Finished | Event::BatchSummary) | None);
    assert!(ends, "{} ends with {last:?}", span.name);
}

fn kind(event: &CapturedEvent) -> Event {
    Event::from_wire_name(event.name).unwrap_or_else(|| panic!("{} is no event", event.name))
}

/// Each span has the parent that the schema gives it, and each step links to the sequences in it.
#[track_caller]
fn assert_spans_hang_together(spans: &[CapturedSpan]) {
    let find = |name: SpanName, id| spans.iter().find(|span| span.name == name.name() && span.span_id == id);
    for span in spans {
        let parent = match SpanName::from_name(span.name) {
            Some(SpanName::LlmCore) => Some(SpanName::LlmRequest),
            Some(SpanName::ModelForward) => Some(SpanName::SchedulerStep),
            Some(SpanName::LlmRequest | SpanName::SchedulerStep) => None,
            None => panic!("{} is no span", span.name),
        };
        assert_eq!(span.parent_span_id.is_some(), parent.is_some(), "{span:?}");
        if let (Some(name), Some(id)) = (parent, span.parent_span_id) {
            let parent = find(name, id).unwrap_or_else(|| panic!("no {} above {span:?}", name.name()));
            assert_eq!(parent.trace_id, span.trace_id);
        }
        for link in &span.links {
            let linked = find(SpanName::LlmCore, link.span_id()).unwrap_or_else(|| panic!("no llm_core for {link:?}"));
            assert_eq!(linked.trace_id, link.trace_id());
        }
        let in_batch = span.events.iter().filter(|event| event.name == Event::RequestSnapshot.wire_name()).count();
        assert_eq!(span.links.len(), in_batch, "a snapshot was taken of every sequence of a step: {span:?}");
    }
}
