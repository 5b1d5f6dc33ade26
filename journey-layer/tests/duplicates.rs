//! The three rules by which a second `llm_request` is refused, and what is not a duplicate.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use journey_layer::macros::*;
use journey_layer::opentelemetry::trace::SpanId;
use journey_layer::testing::{self, Capture, CapturedSpan};
use journey_layer::tracing::{self, Span, info_span};
use journey_layer::{Journey, OnDuplicate, Reason, Sampling, handoff};

#[track_caller]
fn assert_rejected(capture: &Capture, reason: Reason, spans: usize) {
    let stats = capture.stats();
    assert_eq!(stats.spans.rejected.get(&reason), Some(&1), "{stats}");
    assert_eq!(capture.spans().len(), spans, "{:?}", capture.spans());
    assert!(stats.balances(), "{stats}");
}

fn late_duplicate(parent: &Span) -> Span {
    journey_span!(scope = "vllm.api", completion_tokens = 42, request_id = "late", carrier = &handoff(parent))
}

#[test]
fn nested_in_a_request_is_refused_and_its_attributes_are_merged() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    let inner = api.in_scope(|| journey_span!(scope = "vllm.api", request_id = "other", completion_tokens = 7));
    journey_record!(&inner, prompt_tokens = 24);
    journey_event!(&inner, ARRIVED);
    let core = inner.in_scope(|| journey_span!(scope = "vllm.scheduler"));
    drop((core, inner, api));
    assert_rejected(&capture, Reason::Nested, 2);
    let api = capture.span("llm_request");
    assert_eq!(api.attribute("gen_ai.usage.completion_tokens"), Some(&7.into()));
    assert_eq!(api.attribute("gen_ai.usage.prompt_tokens"), Some(&24.into()));
    assert_eq!(api.attribute("gen_ai.request.id"), Some(&"cmpl-1".into()), "the original keeps what it has");
    assert_eq!(capture.span("llm_core").parent_span_id, Some(api.span_id), "children attach to the original");
    assert_eq!(capture.stats().events.rejected[&Reason::DuplicateSpan], 1);
}

#[test]
fn nested_in_a_core_is_refused() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api");
    let core = journey_span!(scope = "vllm.scheduler", carrier = &handoff(&api));
    drop(core.in_scope(|| journey_span!(scope = "vllm.api", completion_tokens = 7)));
    drop((core, api));
    assert_rejected(&capture, Reason::Nested, 2);
    let api = capture.span("llm_request");
    assert_eq!(api.attribute("gen_ai.usage.completion_tokens"), Some(&7.into()), "merged over the core's parent");
}

#[test]
fn handed_off_while_the_request_is_live_is_refused_and_merged() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    drop(late_duplicate(&api));
    drop(api);
    assert_rejected(&capture, Reason::HandedOff, 1);
    assert_eq!(capture.spans()[0].attribute("gen_ai.usage.completion_tokens"), Some(&42.into()));
}

#[test]
fn handed_off_after_the_request_has_closed_is_refused() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api");
    let carrier = handoff(&api);
    journey_event!(&api, ABORTED, reason = timeout);
    drop(api);
    drop(journey_span!(scope = "vllm.api", carrier = &carrier));
    assert_rejected(&capture, Reason::HandedOff, 1);
}

#[test]
fn handed_off_by_another_process_is_refused() {
    let capture = testing::capture();
    let carrier = HashMap::from([
        ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ("tracestate".to_owned(), "journey=llm_request".to_owned()),
        ("x-vllm-journey-sampled".to_owned(), "1".to_owned()),
    ]);
    let core = journey_span!(scope = "vllm.scheduler", carrier = &carrier);
    drop(journey_span!(scope = "vllm.api", carrier = &carrier));
    drop(core);
    assert_rejected(&capture, Reason::HandedOff, 1);
}

#[test]
fn children_of_one_that_another_process_handed_off_are_that_processs() {
    let capture = testing::capture();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let carrier = HashMap::from([
        ("traceparent".to_owned(), parent.to_owned()),
        ("tracestate".to_owned(), "journey=llm_request".to_owned()),
        ("x-vllm-journey-sampled".to_owned(), "1".to_owned()),
    ]);
    let duplicate = journey_span!(scope = "vllm.api", carrier = &carrier);
    drop(journey_span!(scope = "vllm.scheduler", parent = &duplicate, request_id = "cmpl-1-0"));
    drop(journey_span!(
        scope = "vllm.scheduler",
        carrier = &journey_layer::handoff(&duplicate),
        request_id = "cmpl-1-1"
    ));
    drop(duplicate);
    let spans = capture.spans();
    let parents: Vec<_> = spans.iter().map(|span| span.parent_span_id.map(|id| id.to_string())).collect();
    assert_eq!(parents, [Some("b7ad6b7169203331".to_owned()), Some("b7ad6b7169203331".to_owned())]);
    assert_rejected(&capture, Reason::HandedOff, 2);
}

#[test]
fn children_of_one_whose_original_has_closed_are_the_originals() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    let carrier = handoff(&api);
    drop(api);
    let duplicate = journey_span!(scope = "vllm.api", carrier = &carrier);
    drop(journey_span!(scope = "vllm.scheduler", parent = &duplicate, request_id = "cmpl-1-0"));
    drop(duplicate);
    let (api, core) = (capture.span("llm_request"), capture.span("llm_core"));
    assert_eq!((core.trace_id, core.parent_span_id), (api.trace_id, Some(api.span_id)));
    assert_rejected(&capture, Reason::HandedOff, 2);
}

#[test]
fn what_is_said_inside_a_duplicate_is_merged_as_what_it_says_itself() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1", prompt_tokens = 3);
    let duplicates = || {
        [journey_span!(scope = "vllm.api", request_id = "cmpl-1"), api.in_scope(|| journey_span!(scope = "vllm.api"))]
    };
    for duplicate in duplicates() {
        duplicate.in_scope(|| {
            journey_record!(prompt_tokens = 99);
            tracing::info_span!("inner").in_scope(|| journey_record!(completion_tokens = 7));
        });
    }
    drop(api);
    let api = capture.span("llm_request");
    assert_eq!(api.attribute("gen_ai.usage.prompt_tokens"), Some(&3.into()), "it had that");
    assert_eq!(api.attribute("gen_ai.usage.completion_tokens"), Some(&7.into()), "it lacked that");
}

#[test]
fn a_live_request_id_is_refused_at_creation_and_later() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    drop(journey_span!(scope = "vllm.api", request_id = "cmpl-1", completion_tokens = 7));
    assert_rejected(&capture, Reason::SameId, 0);
    let late = journey_span!(scope = "vllm.api");
    journey_event!(&late, ARRIVED);
    journey_record!(&late, request_id = "cmpl-1");
    journey_event!(&late, DEPARTED);
    drop((late, api));
    let stats = capture.stats();
    assert_eq!((stats.spans.rejected[&Reason::SameId], stats.events.rejected[&Reason::DuplicateSpan]), (2, 2));
    assert_eq!(capture.spans().len(), 1);
    assert!(stats.balances(), "{stats}");
}

#[test]
fn a_span_that_is_refused_for_a_later_id_gives_its_first_one_free() {
    let capture = testing::capture();
    let [one, other] = ["cmpl-1", "cmpl-2"].map(|id| journey_span!(scope = "vllm.api", request_id = id));
    journey_record!(&other, request_id = "cmpl-1");
    assert_rejected(&capture, Reason::SameId, 0);
    drop((one, other));
    drop(journey_span!(scope = "vllm.api", request_id = "cmpl-2"));
    let stats = capture.stats();
    assert_eq!((stats.spans.rejected[&Reason::SameId], stats.spans.exported), (1, 2), "{stats}");
}

#[test]
fn the_scope_of_the_historical_bug_is_refused_and_merged() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    let by_id = tracing::info_span!(
        target: "vllm.llm_engine", "llm_request", gen_ai.request.id = "cmpl-1", gen_ai.usage.completion_tokens = 9
    );
    let nested =
        api.in_scope(|| tracing::info_span!(target: "vllm.llm_engine", "llm_request", gen_ai.usage.prompt_tokens = 24));
    drop((by_id, nested, api));
    let stats = capture.stats();
    assert_eq!(stats.spans.rejected[&Reason::UnknownScope], 2);
    let api = capture.span("llm_request");
    assert_eq!(api.scope, "vllm.api");
    assert_eq!(api.attribute("gen_ai.usage.completion_tokens"), Some(&9.into()), "found by its request id");
    assert_eq!(api.attribute("gen_ai.usage.prompt_tokens"), Some(&24.into()), "found around it");
    assert!(stats.balances(), "{stats}");
}

#[test]
fn unknown_scopes_and_span_names_are_refused() {
    let capture = testing::capture();
    drop(tracing::info_span!(target: "vllm.api", "another"));
    drop(tracing::info_span!(target: "vllm.scheduler.step", "scheduler_steps_1"));
    drop(tracing::info_span!(target: "vllm.scheduler", "llm_request"));
    tracing::info!(name: "journey.QUEUED", target: "vllm.api", "in the wrong scope");
    tracing::info!(target: "vllm.api", "a log line is no event of ours");
    let stats = capture.stats();
    assert_eq!(stats.spans.rejected[&Reason::UnknownSpan], 2);
    assert_eq!(stats.spans.rejected[&Reason::UnknownScope], 1);
    assert_eq!((stats.events.started, stats.events.rejected[&Reason::UnknownEvent]), (1, 1));
    assert!(stats.balances(), "{stats}");
}

#[test]
fn two_requests_of_one_client_trace_are_two_journeys() {
    let capture = testing::capture();
    let headers = HashMap::from([(
        "traceparent".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    )]);
    let first = journey_span!(scope = "vllm.api", request_id = "a", headers = &headers);
    let second = journey_span!(scope = "vllm.api", request_id = "b", headers = &headers);
    drop((first, second));
    assert_eq!(capture.spans().len(), 2);
}

#[test]
fn siblings_are_sampled_alike_and_share_a_trace() {
    let traced = HashMap::from([(
        "traceparent".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    )]);
    let untraced = HashMap::new();
    let root = Sampling::ParentBased { root: 0.5 };
    for (sampling, headers) in [(root, &untraced), (Sampling::Rate(0.5), &untraced), (Sampling::Rate(0.5), &traced)] {
        let capture = testing::capture_with(Journey::builder().sampling(sampling));
        for client_request in 0..64 {
            let id = |prompt| format!("{client_request}-{prompt}");
            let first = journey_span!(scope = "vllm.api", request_id = id(0), headers = headers);
            journey_event!(&first, DEPARTED);
            let others = [1, 2].map(|prompt| {
                journey_span!(scope = "vllm.api", request_id = id(prompt), headers = headers, sibling = &first)
            });
            drop((first, others));
        }
        let spans = capture.spans();
        let parent = (!headers.is_empty()).then(|| SpanId::from_hex("b7ad6b7169203331").unwrap());
        let mut sizes = HashSet::new();
        for client_request in 0..64 {
            let is_of = |span: &&CapturedSpan| {
                let id = span.attribute("gen_ai.request.id").unwrap().as_str();
                id.starts_with(&format!("{client_request}-"))
            };
            let journeys: Vec<_> = spans.iter().filter(is_of).collect();
            let alike = |span: &&CapturedSpan| (span.trace_id, span.parent_span_id) == (journeys[0].trace_id, parent);
            assert!(journeys.iter().all(alike), "{journeys:?}");
            sizes.insert(journeys.len());
        }
        assert_eq!(sizes, HashSet::from([0, 3]), "all or none, with {sampling:?}");
        assert!(capture.stats().balances() && capture.stats().spans.rejected() == 0, "{}", capture.stats());
    }
}

#[test]
fn a_sibling_of_what_is_switched_off_or_refused() {
    let capture = testing::capture();
    let span = journey_span!(scope = "vllm.api", request_id = "a", sibling = &Span::none());
    assert!(span.is_none(), "switched off as well");
    let first = journey_span!(scope = "vllm.api", request_id = "a");
    let refused = journey_span!(scope = "vllm.api", request_id = "a");
    let other = journey_span!(scope = "vllm.api", request_id = "b", sibling = refused);
    drop((first, refused, other));
    assert_rejected(&capture, Reason::SameId, 2);
}

#[test]
fn a_request_id_is_free_again_once_its_journey_has_ended() {
    let capture = testing::capture();
    let first = journey_span!(scope = "vllm.api", request_id = "a");
    journey_event!(&first, ABORTED, reason = client_disconnect);
    let retry = journey_span!(scope = "vllm.api", request_id = "a");
    drop((first, retry));
    assert_eq!(capture.spans().len(), 2, "the handle of the first was still held");
}

#[test]
fn a_request_inside_another_trace_is_its_own_journey() {
    let capture = testing::capture();
    let headers = HashMap::from([(
        "traceparent".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    )]);
    let outer = journey_span!(scope = "vllm.api");
    drop(outer.in_scope(|| journey_span!(scope = "vllm.api", headers = &headers)));
    drop(outer);
    assert_eq!(capture.spans().len(), 2);
}

#[test]
fn a_second_core_for_the_same_sequence_is_refused() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api");
    let carrier = handoff(&api);
    let core = |id: &str| journey_span!(scope = "vllm.scheduler", request_id = id, carrier = &carrier);
    let (first, second, again) = (core("0_x"), core("1_x"), core("0_x"));
    drop((first, second, again));
    drop(core("1_x"));
    drop(api);
    let stats = capture.stats();
    assert_eq!(stats.spans.rejected[&Reason::SameSequence], 2, "{stats}");
    assert_eq!(capture.spans().len(), 3);
    assert!(stats.balances(), "{stats}");
}

#[test]
fn what_is_forgotten_before_its_time_is_counted_and_a_duplicate_of_it_passes() {
    let capture = testing::capture_with(Journey::builder().retention(Duration::from_secs(60), 8));
    let api = journey_span!(scope = "vllm.api");
    let carrier = handoff(&api);
    let core = |id: &str| drop(journey_span!(scope = "vllm.scheduler", request_id = id, carrier = &carrier));
    core("0_x");
    core("0_x");
    // Who is older can be told from here on.
    std::thread::sleep(Duration::from_millis(50));
    let stats = capture.stats();
    assert_eq!((stats.spans.rejected[&Reason::SameSequence], stats.noted.get(&Reason::Evicted)), (1, None), "{stats}");
    (1..=8).for_each(|n| core(&format!("{n}_x")));
    core("0_x");
    drop(api);
    let stats = capture.stats();
    // Nine sequences with two keys each, and the first one again.
    assert_eq!((stats.spans.rejected[&Reason::SameSequence], stats.noted[&Reason::Evicted]), (1, 13), "{stats}");
    assert!(stats.balances(), "{stats}");
}

#[test]
fn drop_loses_what_the_duplicate_brings_and_panic_panics() {
    let capture = testing::capture_with(Journey::builder().duplicates(OnDuplicate::Drop));
    let api = journey_span!(scope = "vllm.api");
    drop(late_duplicate(&api));
    drop(api);
    assert_rejected(&capture, Reason::HandedOff, 1);
    assert_eq!(capture.spans()[0].attribute("gen_ai.usage.completion_tokens"), None);

    let _capture = testing::capture_with(Journey::builder().duplicates(OnDuplicate::Panic));
    let api = journey_span!(scope = "vllm.api");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| late_duplicate(&api))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.starts_with("handed_off: a second llm_request at "), "{message}");
}

#[test]
fn two_subscribers_do_not_see_each_others_journeys() {
    let first = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = "a");
    {
        let second = testing::capture();
        drop(journey_span!(scope = "vllm.api", request_id = "a"));
        assert_eq!(second.spans().len(), 1);
    }
    info_span!("unrelated").in_scope(|| drop(api));
    assert_eq!((first.spans().len(), first.stats().spans.started), (1, 1));
}
