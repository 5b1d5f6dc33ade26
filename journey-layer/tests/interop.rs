//! Beside other layers: nobody loses a callsite, nobody sees a span twice.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journey_layer::macros::*;
use journey_layer::testing::Capture;
use journey_layer::{handoff, not_journey, tracing};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::Registry;

/// What an `fmt` layer printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("fmt prints text")
    }

    fn layer<S>(&self) -> fmt::Layer<S, fmt::format::DefaultFields, fmt::format::Format, Self>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        fmt::layer().with_ansi(false).with_writer(self.clone())
    }
}

impl io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Printed {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What `tracing` remembers of a callsite is the whole process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one_journey() {
    let api = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    journey_event!(&api, ARRIVED);
    api.in_scope(|| tracing::info!("inside"));
    let core = journey_span!(scope = "vllm.scheduler", carrier = &handoff(&api));
    journey_event!(&core, QUEUED);
    journey_event!(&core, FINISHED, status = stopped);
    journey_event!(&api, ABORTED, reason = timeout);
}

#[track_caller]
fn assert_one_journey(capture: &Capture) {
    let (api, core) = (capture.span("llm_request"), capture.span("llm_core"));
    assert_eq!(core.parent_span_id, Some(api.span_id));
    assert_eq!((api.events.len(), core.events.len()), (2, 2));
    let stats = capture.stats();
    assert!(stats.balances() && stats.spans.live == 0, "{stats}");
}

#[test]
fn fmt_shows_journeys_and_everything_else() {
    let _alone = alone();
    let (capture, printed) = (Capture::default(), Printed::default());
    let subscriber = Registry::default().with(printed.layer()).with(capture.layer());
    tracing::subscriber::with_default(subscriber, || {
        one_journey();
        tracing::debug!(target: "somebody::else", "still on");
    });
    assert_one_journey(&capture);
    let text = printed.text();
    for part in ["api.ARRIVED", "llm_request{", "cmpl-1", "inside", "still on", "journey.FINISHED", "finish.status"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_filter_on_another_layer_does_not_switch_journeys_off() {
    let _alone = alone();
    let (capture, printed) = (Capture::default(), Printed::default());
    let subscriber = Registry::default()
        .with(printed.layer().with_filter(EnvFilter::new("error,somebody=trace")))
        .with(capture.layer());
    tracing::subscriber::with_default(subscriber, || {
        one_journey();
        tracing::trace!(target: "somebody", "wanted");
        assert!(!tracing::enabled!(target: "nobody", tracing::Level::TRACE), "no trace! is on that nobody wants");
    });
    assert_one_journey(&capture);
    assert!(printed.text().contains("wanted") && !printed.text().contains("ARRIVED"), "{}", printed.text());
}

#[test]
fn a_global_filter_switches_journeys_off_and_nothing_is_counted_wrong() {
    let _alone = alone();
    let capture = Capture::default();
    let subscriber = Registry::default().with(LevelFilter::ERROR).with(capture.layer());
    tracing::subscriber::with_default(subscriber, one_journey);
    let stats = capture.stats();
    assert_eq!((stats.spans.started, stats.events.started), (0, 0), "{stats}");
}

#[test]
fn journeys_and_the_users_own_spans_parent_each_other() {
    let _alone = alone();
    let own = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(own.clone()).build();
    let capture = Capture::default();
    let subscriber = Registry::default()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("user")).with_filter(not_journey()))
        .with(capture.layer());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("POST /v1/completions").in_scope(|| {
            let api = journey_span!(scope = "vllm.api");
            api.in_scope(|| tracing::info_span!("tokenize").in_scope(|| {}));
        });
    });
    let spans = own.get_finished_spans().unwrap();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(spans.len(), 2, "ours is not exported a second time: {spans:?}");
    let (http, tokenize, api) = (find("POST /v1/completions"), find("tokenize"), capture.span("llm_request"));
    assert_eq!((api.trace_id, api.parent_span_id), (http.span_context.trace_id(), Some(http.span_context.span_id())));
    assert_eq!((tokenize.span_context.trace_id(), tokenize.parent_span_id), (api.trace_id, api.span_id));
}

#[test]
fn an_explicit_parent_in_the_users_layer_is_found_without_context_activation() {
    let _alone = alone();
    let provider = SdkTracerProvider::builder().with_simple_exporter(InMemorySpanExporter::default()).build();
    let capture = Capture::default();
    let subscriber = Registry::default()
        .with(
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("user"))
                .with_context_activation(false)
                .with_filter(not_journey()),
        )
        .with(capture.layer());
    tracing::subscriber::with_default(subscriber, || {
        let http = tracing::info_span!("http");
        drop(journey_span!(scope = "vllm.api", parent = &http));
        http.in_scope(|| drop(journey_span!(scope = "vllm.api")));
    });
    let parents: Vec<_> = capture.spans().iter().map(|span| span.parent_span_id).collect();
    assert!(parents[0].is_some() && parents[0] == parents[1], "{parents:?}");
}

#[test]
fn sampled_out_journeys_are_hidden_from_the_users_layer_too() {
    let _alone = alone();
    let own = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(own.clone()).build();
    let capture = Capture::new(journey_layer::Journey::builder().sample_rate(0.0));
    let subscriber = Registry::default()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("user")).with_filter(not_journey()))
        .with(capture.layer());
    tracing::subscriber::with_default(subscriber, one_journey);
    assert!(own.get_finished_spans().unwrap().is_empty());
    assert!(capture.spans().is_empty());
}

#[test]
fn an_event_of_tracing_itself_is_taken_as_well_and_none_is_taken_twice() {
    let _alone = alone();
    let (capture, printed) = (Capture::default(), Printed::default());
    let subscriber = Registry::default().with(printed.layer()).with(capture.layer());
    tracing::subscriber::with_default(subscriber, || {
        let api = journey_span!(scope = "vllm.api");
        journey_event!(&api, ARRIVED);
        tracing::event!(
            name: "api.ABORTED", target: "vllm.api", parent: &api, tracing::Level::INFO, { reason = "timeout" }, "by hand"
        );
    });
    let api = capture.span("llm_request");
    assert_eq!(api.event_names(), ["api.ARRIVED", "api.ABORTED"]);
    assert_eq!(api.event("api.ABORTED").attribute("reason"), Some(&"timeout".into()));
    let text = printed.text();
    assert!(text.matches("api.ARRIVED").count() == 1 && !text.contains("journey.shadow"), "{text}");
}

#[test]
fn an_event_reaches_its_span_from_a_thread_without_a_subscriber() {
    let _alone = alone();
    let capture = Capture::default();
    let dispatch = tracing::Dispatch::new(Registry::default().with(capture.layer()));
    let api = tracing::dispatcher::with_default(&dispatch, || journey_span!(scope = "vllm.api"));
    journey_event!(&api, ARRIVED);
    journey_event!(&api, ABORTED, reason = timeout);
    drop(api);
    assert_eq!(capture.span("llm_request").event_names(), ["api.ARRIVED", "api.ABORTED"]);
    assert!(capture.stats().balances());
}
