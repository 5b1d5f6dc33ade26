//! Where events go, who is whose parent, and how spans end.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use journey_layer::testing::{self, Capture, CapturedSpan};
use journey_layer::tracing::{self, Instrument, Span, info_span};
use journey_layer::{
    AbortReason, Carrier, FinishStatus, InJourney, Journey, Progress, Reason, handoff, journey_span, macros::*,
};

fn request() -> Span {
    journey_span!(scope = "vllm.api", request_id = "cmpl-1")
}

fn core_of(request: &Span) -> Span {
    journey_span!(scope = "vllm.scheduler", request_id = "cmpl-1-0", carrier = &handoff(request))
}

#[track_caller]
fn assert_balanced(capture: &Capture) {
    let stats = capture.stats();
    assert!(stats.balances(), "{stats}");
}

#[test]
fn a_whole_journey_arrives_as_two_spans_in_two_scopes() {
    let capture = testing::capture();
    let api = request();
    journey_event!(&api, ARRIVED);
    journey_record!(&api, prompt_tokens = 24, temperature = 0.5, n = 1u32);
    let core = core_of(&api);
    journey_event!(&api, HANDOFF_TO_CORE);
    let progress = Progress::new().prefill(0, 24).decode(0, 96);
    journey_event!(&core, QUEUED, ..progress.step(0));
    journey_event!(&core, SCHEDULED, ..progress.step(1));
    journey_event!(&core, FIRST_TOKEN, ..progress.step(1).prefill(24, 24).decode(1, 96));
    journey_event!(&core, PREEMPTED, step = 7);
    journey_event!(&core, SCHEDULED, step = 9);
    journey_event!(&core, FINISHED, status = length, step = 40, decode_done_tokens = 96);
    drop(core);
    journey_event!(&api, FIRST_RESPONSE);
    journey_record!(&api, completion_tokens = 96);
    journey_event!(&api, DEPARTED);
    drop(api);

    let (api, core) = (capture.span("llm_request"), capture.span("llm_core"));
    assert_eq!((api.scope, core.scope), ("vllm.api", "vllm.scheduler"));
    assert_eq!((core.trace_id, core.parent_span_id), (api.trace_id, Some(api.span_id)));
    assert_eq!(api.parent_span_id, None);
    assert_eq!(
        api.event_names(),
        ["api.ARRIVED", "api.HANDOFF_TO_CORE", "api.FIRST_RESPONSE_FROM_CORE", "api.DEPARTED"]
    );
    for key in ["gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens", "gen_ai.request.temperature"] {
        assert!(api.attribute(key).is_some(), "{key}");
    }
    assert!(api.attribute("gen_ai.latency.e2e").is_some());
    assert!(api.attribute("gen_ai.latency.time_to_first_token").is_some());

    let kinds: Vec<_> = core.events.iter().filter_map(|event| event.attribute("schedule.kind")).collect();
    assert_eq!(kinds, [&"FIRST".into(), &"RESUME".into()]);
    let finished = core.event("journey.FINISHED");
    for (key, value) in [
        ("event.type", "FINISHED".into()),
        ("scheduler.step", 40.into()),
        ("phase", "DECODE".into()),
        ("prefill.done_tokens", 24.into()),
        ("prefill.total_tokens", 24.into()),
        ("decode.done_tokens", 96.into()),
        ("decode.max_tokens", 96.into()),
        ("num_preemptions", 1.into()),
        ("finish.status", "length".into()),
    ] {
        assert_eq!(finished.attribute(key), Some(&value), "{key}");
    }
    for key in ["time_in_queue", "time_in_model_prefill", "time_in_model_decode", "time_in_model_inference"] {
        assert!(core.attribute(&format!("gen_ai.latency.{key}")).is_some(), "{key}");
    }
    assert!(core.attribute("journey.time_preempted").is_some());
    assert_eq!(api.error, None);
    let stats = capture.stats();
    assert_eq!((stats.spans.exported, stats.events.exported), (2, 10));
    assert!(stats.noted.is_empty(), "{stats}");
    assert_balanced(&capture);
}

#[test]
fn the_shortest_forms_are_filled_in_and_nothing_is_invented() {
    let capture = testing::capture();
    let api = request();
    let core = core_of(&api);
    core.in_scope(|| {
        journey_event!(QUEUED);
        journey_event!(SCHEDULED);
        journey_event!(PREEMPTED);
        journey_event!(SCHEDULED);
        journey_event!(FINISHED, status = stopped);
    });
    drop((api, core));
    let core = capture.span("llm_core");
    let phases: Vec<_> = core.events.iter().map(|event| event.attribute("phase").unwrap().as_str()).collect();
    assert_eq!(phases, ["WAITING", "PREFILL", "PREFILL", "PREFILL", "PREFILL"]);
    let preemptions: Vec<_> = core.events.iter().map(|event| event.attribute("num_preemptions").unwrap()).collect();
    assert_eq!(preemptions, [&0.into(), &0.into(), &1.into(), &1.into(), &1.into()]);
    for event in &core.events {
        assert!(event.attribute("scheduler.step").is_none(), "no step was given");
        let ns = match event.attribute("ts.monotonic_ns") {
            Some(opentelemetry::Value::I64(ns)) => *ns,
            other => panic!("{other:?}"),
        };
        assert_eq!(event.attribute("ts.monotonic"), Some(&(ns as f64 / 1e9).into()), "both from one clock read");
    }
    assert_balanced(&capture);
}

#[test]
fn an_event_goes_to_the_nearest_span_of_its_scope() {
    let capture = testing::capture();
    let api = request();
    api.in_scope(|| {
        let core = journey_span!(scope = "vllm.scheduler");
        core.in_scope(|| {
            info_span!("the engine's own").in_scope(|| {
                journey_event!(QUEUED);
                journey_event!(ARRIVED);
            });
        });
        journey_event!(&core, ARRIVED);
    });
    drop(api);
    assert_eq!(capture.span("llm_request").event_names()[..2], ["api.ARRIVED", "api.ARRIVED"]);
    assert_eq!(capture.span("llm_core").event_names()[0], "journey.QUEUED");
}

#[test]
fn an_event_outside_any_journey_is_counted_as_an_orphan() {
    let capture = testing::capture();
    journey_event!(QUEUED);
    info_span!("foreign").in_scope(|| journey_event!(ARRIVED));
    let stats = capture.stats();
    assert_eq!(stats.events.dropped[&Reason::OrphanEvent], 2);
    assert_balanced(&capture);
}

#[test]
fn a_record_goes_to_the_nearest_span_that_owns_the_name() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api");
    api.in_scope(|| {
        let core = journey_span!(scope = "vllm.scheduler");
        core.in_scope(|| journey_record!(completion_tokens = 7, model = "m"));
    });
    drop(api);
    let api = capture.span("llm_request");
    assert_eq!(api.attribute("gen_ai.usage.completion_tokens"), Some(&7.into()));
    assert_eq!(api.attribute("gen_ai.response.model"), Some(&"m".into()));
}

#[test]
fn a_request_continues_the_trace_of_its_headers() {
    let capture = testing::capture();
    let headers = HashMap::from([
        ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ("tracestate".to_owned(), "rojo=1".to_owned()),
    ]);
    let api = journey_span!(scope = "vllm.api", headers = &headers);
    let carrier = handoff(&api);
    assert_eq!(carrier["tracestate"], "journey=llm_request,rojo=1");
    drop(api);
    let api = capture.span("llm_request");
    assert_eq!(api.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(api.parent_span_id.unwrap().to_string(), "b7ad6b7169203331");
    assert!(api.parent_is_remote);
    assert_eq!(api.trace_state, "rojo=1");
    assert_eq!(carrier["traceparent"], format!("00-{}-{}-01", api.trace_id, api.span_id));
}

#[test]
fn a_request_without_headers_is_a_child_of_the_active_context() {
    use opentelemetry::Context;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};
    let capture = testing::capture();
    let parent = SpanContext::new(TraceId::from(7), SpanId::from(9), TraceFlags::SAMPLED, false, Default::default());
    let guard = Context::new().with_remote_span_context(parent).attach();
    drop(request());
    drop(guard);
    let api = capture.span("llm_request");
    assert_eq!((api.trace_id, api.parent_span_id), (TraceId::from(7), Some(SpanId::from(9))));
}

#[test]
fn an_entered_journey_span_is_the_active_context() {
    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt;
    let active = || Context::map_current(|cx| cx.span().span_context().span_id());
    let capture = testing::capture();
    let api = request();
    let outside = active();
    let inside = api.in_scope(active);
    assert_eq!(active(), outside);
    drop(api);
    assert_eq!(inside, capture.span("llm_request").span_id);

    let capture = testing::capture_with(Journey::builder().context_activation(false));
    let api = request();
    let inside = api.in_scope(active);
    drop(api);
    assert_ne!(inside, capture.span("llm_request").span_id, "switched off");
}

#[test]
fn a_core_without_a_carrier_header_is_not_opened() {
    let capture = testing::capture();
    let parent = ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let zero = ("x-vllm-journey-sampled".to_owned(), "0".to_owned());
    for carrier in [HashMap::new(), HashMap::from([parent.clone()]), HashMap::from([parent, zero])] {
        let core = journey_span!(scope = "vllm.scheduler", carrier = &carrier);
        journey_event!(&core, QUEUED);
    }
    assert!(capture.spans().is_empty());
    let stats = capture.stats();
    assert_eq!((stats.spans.started, stats.events.started), (0, 0), "{stats}");
}

#[test]
fn a_core_with_no_request_at_all_is_dropped_and_counted() {
    let capture = testing::capture();
    let core = journey_span!(scope = "vllm.scheduler");
    core.in_scope(|| journey_event!(QUEUED));
    drop(core);
    assert!(capture.spans().is_empty());
    assert_eq!(capture.stats().spans.dropped[&Reason::NoParent], 1);
    assert_balanced(&capture);
}

#[test]
fn a_sampled_out_journey_leaves_nothing_and_evaluates_nothing() {
    let capture = testing::capture_with(Journey::builder().sample_rate(0.0));
    fn must_not_run() -> u64 {
        panic!("an argument of a sampled-out journey was evaluated")
    }
    let api = journey_span!(scope = "vllm.api", request_id = %must_not_run());
    journey_event!(&api, ABORTED, reason = timeout, error = %must_not_run());
    journey_record!(&api, prompt_tokens = must_not_run());
    api.in_scope(|| {
        journey_event!(ABORTED, reason = timeout, error = %must_not_run());
        journey_record!(prompt_tokens = must_not_run());
        let core = journey_span!(scope = "vllm.scheduler", request_id = %must_not_run());
        journey_event!(&core, QUEUED, step = must_not_run());
        core.in_scope(|| {
            info_span!("between").in_scope(|| journey_event!(QUEUED, step = must_not_run()));
        });
    });
    let carrier = handoff(&api);
    assert!(carrier.is_empty());
    let core = journey_span!(scope = "vllm.scheduler", request_id = %must_not_run(), carrier = &carrier);
    drop((api, core));
    let stats = capture.stats();
    assert!(capture.spans().is_empty());
    assert_eq!((stats.spans.started, stats.events.started), (0, 0), "{stats}");
    assert_eq!(stats.noted[&Reason::SampledOut], 3);
}

#[test]
fn the_flag_of_the_parent_decides_unless_a_rate_is_set() {
    let headers = |flags| {
        HashMap::from([(
            "traceparent".to_owned(),
            format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"),
        )])
    };
    let exported = |builder, flags| {
        let capture = testing::capture_with(builder);
        drop(journey_span!(scope = "vllm.api", headers = &headers(flags)));
        capture.spans().len()
    };
    use journey_layer::Sampling;
    let parent_based = |root| Journey::builder().sampling(Sampling::ParentBased { root });
    let rate = |rate| Journey::builder().sampling(Sampling::Rate(rate));
    assert_eq!((exported(parent_based(0.0), "01"), exported(parent_based(1.0), "00")), (1, 0));
    assert_eq!((exported(rate(0.0), "01"), exported(rate(1.0), "00")), (0, 1));
}

#[test]
fn an_illegal_event_is_exported_as_it_is_and_counted() {
    let capture = testing::capture();
    let api = request();
    journey_event!(&api, HANDOFF_TO_CORE);
    journey_event!(&api, DEPARTED);
    journey_event!(&api, ARRIVED);
    drop(api);
    assert_eq!(capture.span("llm_request").event_names(), ["api.HANDOFF_TO_CORE", "api.DEPARTED", "api.ARRIVED"]);
    assert_eq!(capture.stats().noted[&Reason::IllegalOrder], 3);
}

#[test]
fn a_second_terminal_event_is_counted_and_not_exported() {
    let capture = testing::capture();
    let api = request();
    journey_event!(&api, ABORTED, reason = (AbortReason::Timeout), error = "30 s");
    journey_event!(&api, DEPARTED);
    drop(api);
    let api = capture.span("llm_request");
    assert_eq!(api.event_names(), ["api.ABORTED"]);
    assert_eq!(api.error.as_deref(), Some("30 s"));
    assert_eq!(capture.stats().events.rejected[&Reason::SecondTerminal], 1);
    assert_balanced(&capture);
}

#[test]
fn a_forgotten_span_still_gets_its_terminal_event() {
    let capture = testing::capture();
    let api = request();
    let core = core_of(&api);
    drop((core, api));
    let (api, core) = (capture.span("llm_request"), capture.span("llm_core"));
    assert_eq!(api.event("api.ABORTED").attribute("reason"), Some(&"unfinished".into()));
    assert_eq!(api.error.as_deref(), Some("unfinished"));
    assert_eq!(core.event("journey.FINISHED").attribute("finish.status"), Some(&"aborted".into()));
    assert_eq!(capture.stats().noted[&Reason::TerminalAdded], 2);
    assert_balanced(&capture);
}

#[journey_span(scope = "vllm.api", err)]
async fn handler(fail: bool) -> Result<(), String> {
    journey_event!(ARRIVED);
    std::future::pending::<()>().await;
    if fail { Err("x".to_owned()) } else { Ok(()) }
}

#[journey_span(scope = "vllm.api", err)]
fn validate(input: &str) -> Result<u32, std::num::ParseIntError> {
    journey_event!(ARRIVED);
    input.parse()
}

#[test]
fn a_dropped_future_is_cancelled() {
    let capture = testing::capture();
    let mut future = Box::pin(handler(false));
    let _ = future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    drop(future);
    let api = capture.span("llm_request");
    assert_eq!(api.event_names(), ["api.ARRIVED", "api.ABORTED"]);
    assert_eq!(api.event("api.ABORTED").attribute("reason"), Some(&"cancelled".into()));
}

#[test]
fn a_panic_is_seen() {
    #[journey_span(scope = "vllm.api")]
    fn panics() {
        panic!("on purpose");
    }
    let capture = testing::capture();
    assert!(std::panic::catch_unwind(panics).is_err());
    let api = capture.span("llm_request");
    assert_eq!(api.event("api.ABORTED").attribute("reason"), Some(&"panic".into()));
}

#[test]
fn an_error_ends_the_span_with_its_text() {
    let capture = testing::capture();
    assert!(validate("24").is_ok());
    assert!(validate("many").is_err());
    let spans = capture.spans();
    assert_eq!(spans[0].event("api.ABORTED").attribute("reason"), Some(&"unfinished".into()));
    let aborted = spans[1].event("api.ABORTED");
    assert_eq!(aborted.attribute("reason"), Some(&"generation_error".into()));
    assert_eq!(spans[1].error.as_deref(), Some("invalid digit found in string"));
}

#[test]
fn a_span_ends_with_its_terminal_event_and_not_with_its_last_handle() {
    let capture = testing::capture();
    let api = request();
    journey_event!(&api, ARRIVED);
    journey_event!(&api, ABORTED, reason = timeout);
    std::thread::sleep(Duration::from_millis(20));
    journey_record!(&api, completion_tokens = 3);
    drop(api);
    let api = capture.span("llm_request");
    assert_eq!(api.end_time, api.event("api.ABORTED").time);
    assert_eq!(api.attribute("gen_ai.usage.completion_tokens"), Some(&3.into()), "late, but before the drop");
}

#[test]
fn one_trace_of_many_requests_has_no_span_id_twice() {
    let capture = testing::capture();
    let parent = ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let carrier = Carrier::from_iter([parent]);
    // Tracing itself begins anew after 8,191 of one place.
    let requests = 20_000;
    for n in 0..requests {
        let span = journey_span!(scope = "vllm.api", request_id = %n, headers = &carrier);
        journey_event!(&span, ARRIVED);
        journey_event!(&span, DEPARTED);
    }
    let spans = capture.spans();
    let ids: HashSet<_> = spans.iter().map(|span| span.span_id).collect();
    assert_eq!((spans.len(), ids.len()), (requests, requests));
}

#[test]
fn the_terminal_event_always_has_room() {
    let capture = testing::capture_with(Journey::builder().max_events_per_span(4));
    let api = request();
    let core = core_of(&api);
    journey_event!(&core, QUEUED);
    for _ in 0..3 {
        journey_event!(&core, SCHEDULED);
        journey_event!(&core, PREEMPTED);
    }
    journey_event!(&core, FINISHED, status = (FinishStatus::Error));
    drop((api, core));
    let core = capture.span("llm_core");
    assert_eq!(core.event_names(), ["journey.QUEUED", "journey.SCHEDULED", "journey.PREEMPTED", "journey.FINISHED"]);
    assert_eq!((core.dropped_events, capture.stats().events.dropped[&Reason::EventLimit]), (4, 4));
    assert_eq!(core.event("journey.FINISHED").attribute("num_preemptions"), Some(&3.into()), "all that there were");
    assert_eq!(core.error.as_deref(), Some("error"));
    assert_balanced(&capture);
}

#[test]
fn values_that_the_wire_cannot_carry_are_left_out_and_counted() {
    let capture = testing::capture();
    let api = journey_span!(scope = "vllm.api", request_id = %"x".repeat(1 << 20), temperature = f64::NAN);
    journey_record!(&api, max_tokens = u64::MAX, top_p = f64::INFINITY, model = "é".repeat(4000));
    drop(api);
    let api = capture.span("llm_request");
    assert_eq!(api.attribute("gen_ai.request.id").unwrap().as_str().len(), 4096);
    assert_eq!(api.attribute("gen_ai.response.model").unwrap().as_str().chars().count(), 2048);
    for key in ["gen_ai.request.temperature", "gen_ai.request.max_tokens", "gen_ai.request.top_p"] {
        assert_eq!(api.attribute(key), None, "{key}");
    }
    let noted = capture.stats().noted;
    assert_eq!((noted[&Reason::InvalidValue], noted[&Reason::Truncated]), (3, 2));
}

#[test]
fn steps_link_to_the_sequences_of_their_batch() {
    let capture = testing::capture();
    let api = request();
    let core = core_of(&api);
    let step = journey_span!(scope = "vllm.scheduler", name = "scheduler_step");
    step.follows_from(&core);
    let forward = journey_span!(scope = "vllm.scheduler", name = "model_forward", parent = &step);
    journey_event!(&step, BATCH_SUMMARY, step_id = 3, kv_usage_gpu_ratio = 0.5);
    journey_event!(&step, REQUEST_SNAPSHOT, step_id = 3, snapshot_request_id = "cmpl-1-0", request_phase = DECODE);
    drop((forward, step, core, api));
    let step: CapturedSpan = capture.span("scheduler_step");
    let core = capture.span("llm_core");
    assert_eq!(step.links.iter().map(|link| link.span_id()).collect::<Vec<_>>(), [core.span_id]);
    assert_eq!(step.parent_span_id, None);
    assert_ne!(step.trace_id, core.trace_id);
    assert_eq!(capture.span("model_forward").parent_span_id, Some(step.span_id));
    let summary = step.event("step.BATCH_SUMMARY");
    assert_eq!(summary.attribute("step.id"), Some(&3.into()));
    assert_eq!(summary.attribute("kv.usage_gpu_ratio"), Some(&0.5.into()));
    assert_balanced(&capture);
}

#[test]
fn a_stream_that_is_read_to_its_end_departs_and_a_dropped_one_does_not() {
    use futures_util::StreamExt;
    let capture = testing::capture();
    let read = futures_util::stream::iter([1, 2]).in_journey(request());
    assert_eq!(futures_executor(read.count()), 2);
    drop(futures_util::stream::iter([1, 2]).in_journey(request()));
    let spans = capture.spans();
    assert_eq!(spans[0].event_names(), ["api.DEPARTED"]);
    assert_eq!(spans[1].event("api.ABORTED").attribute("reason"), Some(&"client_disconnect".into()));
    assert_balanced(&capture);
}

#[test]
fn a_body_ends_its_journey_when_nothing_is_left_to_read() {
    use http_body::Body;
    use http_body_util::{BodyExt, Full};
    let capture = testing::capture();
    let body = Full::new(bytes::Bytes::from("{}")).in_journey(request());
    futures_executor(body.collect()).unwrap();
    // A server that trusts `is_end_stream` never polls an empty body.
    let empty = Full::new(bytes::Bytes::new()).in_journey(request());
    assert!(empty.is_end_stream());
    drop(empty);
    for span in capture.spans() {
        assert_eq!(span.event_names(), ["api.DEPARTED"]);
    }
    assert_eq!(capture.spans().len(), 2);
}

#[test]
fn tasks_of_one_journey_on_many_threads_write_one_span() {
    let capture = testing::capture();
    let api = request();
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let write = || {
        for n in 0..10u32 {
            journey_event!(&api, ARRIVED);
            journey_record!(&api, n = n);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| tracing::dispatcher::with_default(&dispatch, write));
        }
    });
    drop(api);
    assert_eq!(capture.span("llm_request").events.len(), 41);
    assert_balanced(&capture);
}

#[test]
fn instrument_of_tracing_works_as_well() {
    let capture = testing::capture();
    futures_executor(
        async {
            journey_event!(ARRIVED);
        }
        .instrument(request()),
    );
    assert_eq!(capture.span("llm_request").event_names()[0], "api.ARRIVED");
}

fn futures_executor<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}
