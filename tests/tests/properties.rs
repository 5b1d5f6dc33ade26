//! Random interleavings of spans, events, cancellations, panics, duplicates and sampling, on several threads. Whatever
//! the engine does, the ledger balances and every exported trace is a whole one.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::task::{Context, Waker};

use journey_layer::macros::*;
use journey_layer::testing::{Capture, CapturedSpan};
use journey_layer::tracing::{self, Span, dispatcher};
use journey_layer::{Carrier, InJourney, Journey, Sampling, handoff};
use proptest::prelude::*;
use tracing_subscriber::prelude::*;

/// What an engine may do with a request, in any order and any number of times.
#[derive(Clone, Copy, Debug)]
enum Step {
    Api(usize),
    Core(usize, usize),
    Record,
    OpenCore(usize),
    DuplicateNested,
    DuplicateHandedOff,
    DuplicateSameId,
    DuplicateCore(usize),
    HistoricalScope,
    ForgedThirdScope,
    DropCore(usize),
    CloneHandle,
}

/// How the request's handler ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Departed,
    Dropped,
    Cancelled,
    Panicked,
    StreamRead,
    StreamDropped,
}

#[derive(Clone, Debug)]
struct Request {
    /// The sampled flag of the client's traceparent; `None`: it sends none.
    flag: Option<bool>,
    steps: Vec<Step>,
    end: End,
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = 0..3usize;
    prop_oneof![
        3 => (0..5usize).prop_map(Step::Api),
        6 => (sequence.clone(), 0..5usize).prop_map(|(sequence, event)| Step::Core(sequence, event)),
        1 => Just(Step::Record),
        3 => sequence.clone().prop_map(Step::OpenCore),
        1 => Just(Step::DuplicateNested),
        1 => Just(Step::DuplicateHandedOff),
        1 => Just(Step::DuplicateSameId),
        1 => sequence.clone().prop_map(Step::DuplicateCore),
        1 => Just(Step::HistoricalScope),
        1 => Just(Step::ForgedThirdScope),
        1 => sequence.prop_map(Step::DropCore),
        1 => Just(Step::CloneHandle),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let end = prop_oneof![
        Just(End::Departed),
        Just(End::Dropped),
        Just(End::Cancelled),
        Just(End::Panicked),
        Just(End::StreamRead),
        Just(End::StreamDropped),
    ];
    (any::<Option<bool>>(), prop::collection::vec(step(), 0..24), end).prop_map(|(flag, steps, end)| Request {
        flag,
        steps,
        end,
    })
}

/// One request as the engine runs it. `number` makes its ids unique.
fn run(request: &Request, number: usize) {
    let id = format!("cmpl-{number}");
    let headers: HashMap<String, String> = request
        .flag
        .map(|flag| ("traceparent".to_owned(), format!("00-{:032x}-{:016x}-0{}", number + 1, 1, u8::from(flag))))
        .into_iter()
        .collect();
    let api = journey_span!(scope = "vllm.api", request_id = %id, headers = &headers);
    let carrier = handoff(&api);
    let mut cores: [Option<Span>; 3] = Default::default();
    let mut handles = Vec::new();
    for step in &request.steps {
        run_step(*step, &id, &api, &carrier, &mut cores, &mut handles);
    }
    match request.end {
        End::Departed => journey_event!(&api, DEPARTED),
        End::Dropped => {}
        End::Cancelled => {
            let mut future = Box::pin(std::future::pending::<()>().in_journey(api.clone()));
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        End::Panicked => {
            let handler = std::panic::AssertUnwindSafe(|| {
                let future = pin!(async { std::panic::panic_any(()) }.in_journey(api.clone()));
                let _: std::task::Poll<()> = future.poll(&mut Context::from_waker(Waker::noop()));
            });
            std::panic::catch_unwind(handler).expect_err("it panics");
        }
        End::StreamRead | End::StreamDropped => {
            let mut stream = pin!(futures_util::stream::iter([1, 2]).in_journey(api.clone()));
            let reads = if matches!(request.end, End::StreamRead) { 3 } else { 1 };
            for _ in 0..reads {
                let _ = futures_core::Stream::poll_next(stream.as_mut(), &mut Context::from_waker(Waker::noop()));
            }
        }
    }
}

fn run_step(
    step: Step,
    id: &str,
    api: &Span,
    carrier: &Carrier,
    cores: &mut [Option<Span>; 3],
    handles: &mut Vec<Span>,
) {
    let open = |sequence: usize| journey_span!(scope = "vllm.scheduler", request_id = %format_args!("{sequence}_{id}"), carrier = carrier);
    match step {
        Step::Api(0) => journey_event!(api, ARRIVED),
        Step::Api(1) => api.in_scope(|| journey_event!(HANDOFF_TO_CORE)),
        Step::Api(2) => journey_event!(api, FIRST_RESPONSE),
        Step::Api(3) => journey_event!(api, DEPARTED),
        Step::Api(_) => journey_event!(api, ABORTED, reason = timeout),
        Step::Core(sequence, event) => {
            let Some(core) = &cores[sequence] else { return };
            match event {
                0 => journey_event!(core, QUEUED),
                1 => journey_event!(core, SCHEDULED, step = 1),
                2 => core.in_scope(|| journey_event!(FIRST_TOKEN)),
                3 => journey_event!(core, PREEMPTED),
                _ => journey_event!(core, FINISHED, status = stopped),
            }
        }
        Step::Record => journey_record!(api, completion_tokens = 3),
        Step::OpenCore(sequence) => {
            if cores[sequence].is_none() {
                cores[sequence] = Some(open(sequence));
            }
        }
        Step::DuplicateNested => api.in_scope(|| drop(journey_span!(scope = "vllm.api", n = 1))),
        Step::DuplicateHandedOff => drop(journey_span!(scope = "vllm.api", carrier = carrier)),
        Step::DuplicateSameId => drop(api.in_scope(|| journey_span!(scope = "vllm.api", request_id = %id))),
        Step::DuplicateCore(sequence) => {
            if cores[sequence].is_some() {
                handles.push(open(sequence));
            }
        }
        Step::HistoricalScope => {
            api.in_scope(|| drop(tracing::info_span!(target: "vllm.llm_engine", "llm_request")));
        }
        Step::ForgedThirdScope => drop(tracing::info_span!(target: "vllm.other", "llm_core")),
        Step::DropCore(sequence) => cores[sequence] = None,
        Step::CloneHandle => handles.push(api.clone()),
    }
}

fn check_span(span: &CapturedSpan) -> Result<(), TestCaseError> {
    let terminal = ["api.DEPARTED", "api.ABORTED", "journey.FINISHED"];
    let ends = span.events.iter().filter(|event| terminal.contains(&event.name)).count();
    prop_assert_eq!(ends, 1, "terminal events of {:?}", span.event_names());
    prop_assert!(span.start_time <= span.end_time);
    let mut last = span.start_time;
    for event in &span.events {
        prop_assert!(last <= event.time, "times of {:?}", span);
        last = event.time;
    }
    Ok(())
}

fn check_traces(spans: &[CapturedSpan]) -> Result<(), TestCaseError> {
    let mut traces: BTreeMap<String, Vec<&CapturedSpan>> = BTreeMap::new();
    for span in spans {
        check_span(span)?;
        traces.entry(span.trace_id.to_string()).or_default().push(span);
    }
    for spans in traces.values() {
        let requests: Vec<_> = spans.iter().filter(|span| span.name == "llm_request").collect();
        prop_assert_eq!(requests.len(), 1, "llm_request in {:?}", spans);
        let mut sequences = Vec::new();
        for core in spans.iter().filter(|span| span.name == "llm_core") {
            prop_assert_eq!(core.scope, "vllm.scheduler");
            prop_assert_eq!(core.parent_span_id, Some(requests[0].span_id));
            sequences.push(core.attribute("gen_ai.request.id").map(ToString::to_string));
        }
        sequences.sort();
        let all = sequences.len();
        sequences.dedup();
        prop_assert_eq!(sequences.len(), all, "two llm_core of one sequence");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_ledger_balances_and_every_trace_is_whole(
        threads in prop::collection::vec(prop::collection::vec(request(), 1..6), 1..4),
        root in prop_oneof![Just(0.0), Just(0.5), Just(1.0)],
        follow_parent in any::<bool>(),
        max_events in 2..12usize,
    ) {
        let sampling = if follow_parent { Sampling::ParentBased { root } } else { Sampling::Rate(root) };
        let capture = Capture::new(Journey::builder().sampling(sampling).max_events_per_span(max_events));
        let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(capture.layer()));
        std::thread::scope(|scope| {
            for (thread, requests) in threads.iter().enumerate() {
                let dispatch = &dispatch;
                scope.spawn(move || {
                    dispatcher::with_default(dispatch, || {
                        for (index, request) in requests.iter().enumerate() {
                            run(request, thread * 100 + index);
                        }
                    });
                });
            }
        });
        let stats = capture.stats();
        prop_assert!(stats.balances(), "{}", stats);
        prop_assert_eq!(stats.spans.live, 0);
        let spans = capture.spans();
        prop_assert_eq!(stats.spans.exported, spans.len() as u64);
        prop_assert_eq!(stats.events.exported, spans.iter().map(|span| span.events.len() as u64).sum::<u64>());
        check_traces(&spans)?;
    }
}
