//! Code of the user that traces from where the pipeline calls it: exporters, processors, subscribers. Nothing waits for
//! itself, nothing goes round in circles, and no lock of ours is held meanwhile.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use journey_layer::macros::*;
use journey_layer::opentelemetry::Context;
use journey_layer::opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use journey_layer::opentelemetry_sdk::error::OTelSdkResult;
use journey_layer::opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use journey_layer::tracing::{self, dispatcher::Dispatch};
use journey_layer::{Exporter, FlushError, Journey};
use pipeline_support::*;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

/// What the user's code needs to trace: known only once the pipeline stands.
#[derive(Clone, Debug, Default)]
struct Outside(Arc<OnceLock<(Journey, Dispatch)>>);

impl Outside {
    /// Installs a subscriber with the journey's layer.
    fn set(&self, journey: &Journey) -> Dispatch {
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(journey.layer()));
        self.0.set((journey.clone(), dispatch.clone())).unwrap();
        dispatch
    }

    /// Everything that a careless user may do: journeys, spans of the provider, the ledger.
    fn trace(&self) {
        let Some((journey, dispatch)) = self.0.get() else { return };
        tracing::dispatcher::with_default(dispatch, || one_journey("cmpl-inside"));
        journey.tracer_provider().tracer("vllm.scheduler").start("scheduler_step").end();
        let _ = journey.stats();
    }
}

#[derive(Debug)]
struct TracingExporter {
    outside: Outside,
    calls: Arc<AtomicUsize>,
    flushes: bool,
}

impl SpanExporter for TracingExporter {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        self.calls.fetch_add(1, SeqCst);
        self.outside.trace();
        if self.flushes
            && let Some((journey, _)) = self.outside.0.get()
        {
            // It waits for this very call.
            let error = journey.flush(Duration::from_millis(50)).unwrap_err();
            assert!(matches!(error, FlushError::Timeout { .. }), "{error}");
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.outside.trace();
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.outside.trace();
        Ok(())
    }
}

#[test]
fn an_exporter_that_traces_into_its_own_pipeline_does_not_feed_itself() {
    for flushes in [false, true] {
        let (outside, calls) = (Outside::default(), Arc::<AtomicUsize>::default());
        let exporter = TracingExporter { outside: outside.clone(), calls: calls.clone(), flushes };
        let journey = builder().exporter(Exporter::new(exporter)).build().unwrap();
        let dispatch = outside.set(&journey);
        tracing::dispatcher::with_default(&dispatch, || one_journey("cmpl-1"));
        journey.flush(LONG).unwrap();
        journey.shutdown(LONG).unwrap();
        let stats = journey.stats();
        assert_eq!((stats.spans.started, stats.spans.exported, calls.load(SeqCst)), (2, 2, 1), "{stats}");
        assert!(stats.balances(), "{stats}");
    }
}

#[derive(Debug)]
struct TracingProcessor(Outside);

impl SpanProcessor for TracingProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {
        // On the thread of whoever starts a span of the provider: a journey of its own.
        if let Some((journey, dispatch)) = self.0.0.get() {
            tracing::dispatcher::with_default(dispatch, || one_journey("cmpl-on-start"));
            let _ = journey.stats();
        }
    }
    fn on_end(&self, _: SpanData) {
        self.0.trace();
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.trace();
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.0.trace();
        Ok(())
    }
}

#[test]
fn a_span_processor_may_trace_from_all_of_its_callbacks() {
    let outside = Outside::default();
    let journey = builder().span_processor(TracingProcessor(outside.clone())).build().unwrap();
    outside.set(&journey);
    journey.tracer_provider().tracer("vllm.scheduler").start("scheduler_step").end();
    journey.flush(LONG).unwrap();
    journey.shutdown(LONG).unwrap();
    let stats = journey.stats();
    assert_eq!((stats.spans.started, stats.spans.exported), (3, 3), "the step, and the journey of its start: {stats}");
    assert!(stats.balances(), "{stats}");
}

/// Traces a journey for every event that it sees, warnings of the pipeline among them.
struct Echo {
    outside: Outside,
    heard: Arc<AtomicUsize>,
}

impl<S: tracing::Subscriber> Layer<S> for Echo {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "journey_layer" {
            self.heard.fetch_add(1, SeqCst);
            self.outside.trace();
        }
    }
}

#[test]
fn a_subscriber_may_trace_when_it_is_told_a_warning() {
    let (outside, heard) = (Outside::default(), Arc::<AtomicUsize>::default());
    let exporter = Exporter::otlp().endpoint(format!("http://{}", dead()));
    let journey = builder().exporter(exporter).build().unwrap();
    let echo = Echo { outside: outside.clone(), heard: heard.clone() };
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(echo).with(journey.layer()));
    outside.set(&journey);
    tracing::dispatcher::with_default(&dispatch, || one_journey("cmpl-1"));
    let _ = journey.flush(SECOND / 4);
    wait_until("it was warned", || heard.load(SeqCst) > 0);
    let _ = journey.shutdown(SECOND / 4);
    assert!(journey.stats().balances(), "{}", journey.stats());
    assert!(heard.load(SeqCst) < 10, "a warning does not lead to the next");
}

/// Another layer, which comes before ours, and panics at the second span.
struct Careless(AtomicUsize);

impl<S: tracing::Subscriber> Layer<S> for Careless {
    fn on_new_span(
        &self,
        _: &tracing::span::Attributes<'_>,
        _: &tracing::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        assert_ne!(self.0.fetch_add(1, SeqCst), 1, "as the test wants it");
    }
}

#[test]
fn a_span_whose_beginning_panics_in_another_layer_leaves_nothing_to_the_next() {
    let memory = Exporter::memory();
    let journey = builder().exporter(memory.clone()).build().unwrap();
    let subscriber = tracing_subscriber::registry().with(Careless(AtomicUsize::new(0))).with(journey.layer());
    let request = |id: &str| drop(journey_span!(scope = "vllm.api", request_id = id));
    tracing::subscriber::with_default(subscriber, || {
        request("cmpl-1");
        std::panic::catch_unwind(|| request("cmpl-lost")).unwrap_err();
        drop(tracing::info_span!(target: "vllm.api", "llm_request"));
    });
    journey.flush(LONG).unwrap();
    let ids = memory.spans().into_iter().map(|span| {
        let id = span.attributes.iter().find(|pair| pair.key.as_str() == "gen_ai.request.id");
        id.map(|pair| pair.value.to_string())
    });
    assert_eq!(ids.collect::<Vec<_>>(), [Some("cmpl-1".to_owned()), None]);
    assert!(journey.stats().balances(), "{}", journey.stats());
}
