//! Exporters and processors of the user, and the guard at the provider.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use journey_layer::macros::*;
use journey_layer::opentelemetry::trace::{Span as _, Status, Tracer, TracerProvider};
use journey_layer::opentelemetry::{Context, KeyValue, StringValue, Value};
use journey_layer::opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use journey_layer::opentelemetry_sdk::trace::{
    BatchSpanProcessor, InMemorySpanExporter, Span, SpanData, SpanExporter, SpanProcessor,
};
use journey_layer::{Exporter, FlushError, Protocol, Reason, Semconv};
use pipeline_support::*;

#[derive(Debug)]
struct Failing(fn() -> OTelSdkResult);

impl SpanExporter for Failing {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        (self.0)()
    }
}

#[test]
fn any_exporter_of_the_sdk_works() {
    let exporter = InMemorySpanExporter::default();
    let journey = builder().exporter(Exporter::new(exporter.clone())).build().unwrap();
    journeys(&journey, 2);
    journey.flush(SECOND).unwrap();
    assert_eq!(exporter.get_finished_spans().unwrap().len(), 4);
}

#[test]
fn the_exporter_of_opentelemetry_otlp_works() {
    use opentelemetry_otlp::WithExportConfig;
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let url = format!("{}/v1/traces", receiver.url());
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(url).build().unwrap();
    let journey = builder().service_name("theirs").exporter(Exporter::new(exporter)).build().unwrap();
    journeys(&journey, 2);
    journey.flush(LONG).unwrap();
    assert_eq!(receiver.spans().len(), 4);
    assert!(receiver.resource().attributes.iter().any(|pair| pair.key == "service.name"));
}

/// Holds its thread until it is let go.
#[derive(Debug)]
struct Blocking(Mutex<std::sync::mpsc::Receiver<()>>);

impl SpanExporter for Blocking {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }
}

#[test]
fn an_exporter_that_blocks_holds_up_neither_the_others_nor_a_flush_beyond_its_time() {
    let (let_go, held) = std::sync::mpsc::channel();
    let memory = Exporter::memory();
    let blocking = Exporter::new(Blocking(Mutex::new(held)));
    let journey = builder().exporter(blocking).exporter(memory.clone()).build().unwrap();
    for round in 1..=2 {
        journeys(&journey, 1);
        let short = Duration::from_millis(50);
        let error = futures_executor::block_on(journey.flush_async(short)).unwrap_err();
        assert!(matches!(error, FlushError::Timeout { .. }), "{error}");
        wait_until("the other exporter has its spans", || memory.spans().len() == 2 * round);
    }
    assert_eq!((journey.stats().spans.live, journey.stats().balances()), (4, true));
    drop(let_go);
    journey.flush(LONG).unwrap();
    assert_eq!(journey.stats().spans.exported, 4);
}

#[test]
fn an_exporter_that_never_comes_back_does_not_keep_the_process_from_ending() {
    let (_let_go, held) = std::sync::mpsc::channel();
    let journey = builder().exporter(Exporter::new(Blocking(Mutex::new(held)))).build().unwrap();
    journeys(&journey, 1);
    assert!(matches!(journey.shutdown(Duration::from_millis(50)).unwrap_err(), FlushError::Timeout { .. }));
    let stats = journey.stats();
    assert_eq!((stats.spans.dropped[&Reason::Shutdown], stats.balances()), (2, true), "{stats}");
}

#[test]
fn a_span_is_exported_when_every_exporter_took_it_and_lost_under_the_first_failure() {
    let cases: [(fn() -> OTelSdkResult, Reason); 3] = [
        (|| Err(OTelSdkError::InternalFailure("broken".into())), Reason::ExportFailed),
        (|| Err(OTelSdkError::Timeout(SECOND)), Reason::ExportTimeout),
        (|| panic!("a bug in an exporter"), Reason::ExportFailed),
    ];
    for (export, reason) in cases {
        let memory = Exporter::memory();
        let journey = builder().exporter(memory.clone()).exporter(Exporter::new(Failing(export))).build().unwrap();
        for lost in [2, 4] {
            journeys(&journey, 1);
            let error = journey.flush(LONG).unwrap_err();
            assert!(matches!(error, FlushError::Lost { spans: 2, reason: told, .. } if told == reason), "{error}");
            let stats = journey.stats();
            assert_eq!((stats.spans.exported, stats.spans.dropped[&reason]), (0, lost));
            assert!(stats.balances(), "{stats}");
        }
        assert_eq!(memory.spans().len(), 4, "the others still get theirs");
    }
}

#[derive(Clone, Debug, Default)]
struct Counting(Arc<[AtomicUsize; 4]>);

impl Counting {
    fn count(&self, what: usize) {
        self.0[what].fetch_add(1, SeqCst);
    }

    fn counts(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|what| self.0[what].load(SeqCst))
    }
}

impl SpanProcessor for Counting {
    fn on_start(&self, _: &mut Span, _: &Context) {
        self.count(0);
    }
    fn on_end(&self, _: SpanData) {
        self.count(1);
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.count(2);
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.count(3);
        Ok(())
    }
}

#[test]
fn a_span_processor_is_given_every_span_and_is_flushed_and_shut_down() {
    let processor = Counting::default();
    let journey = builder().span_processor(processor.clone()).build().unwrap();
    journeys(&journey, 3);
    journey.flush(SECOND).unwrap();
    assert_eq!(processor.counts(), [0, 6, 1, 0]);
    journey.tracer_provider().tracer("vllm.scheduler").start("scheduler_step").end();
    journey.shutdown(SECOND).unwrap();
    assert_eq!(processor.counts(), [1, 7, 2, 1]);
    assert_eq!(journey.stats().spans.exported, 7);
}

#[test]
fn the_guard_lets_only_spans_of_the_schema_leave_the_provider() {
    let memory = Exporter::memory();
    let journey = builder().exporter(memory.clone()).build().unwrap();
    let provider = journey.tracer_provider();
    for (scope, name) in [
        ("vllm.llm_engine", "llm_request"),
        ("my.http.server", "GET /"),
        ("vllm.scheduler", "llm_request"),
        ("vllm.api", "handle"),
        ("vllm.api", "llm_request"),
    ] {
        let mut span = provider.tracer(scope).start(name);
        span.add_event("something", vec![]);
        span.end();
    }
    journey.flush(SECOND).unwrap();
    let spans = memory.spans();
    assert_eq!((spans.len(), &*spans[0].name, spans[0].events.len()), (1, "llm_request", 1));
    let stats = journey.stats();
    assert_eq!((stats.spans.started, stats.spans.exported), (5, 1));
    assert_eq!((stats.spans.rejected[&Reason::UnknownScope], stats.spans.rejected[&Reason::UnknownSpan]), (2, 2));
    assert_eq!((stats.events.rejected[&Reason::UnknownScope], stats.events.exported), (2, 1));
    assert!(stats.balances(), "{stats}");
}

#[test]
fn texts_that_are_given_to_the_opentelemetry_api_are_bounded_as_well() {
    let exporter = InMemorySpanExporter::default();
    let journey = builder().max_value_length(100).exporter(Exporter::new(exporter.clone())).build().unwrap();
    let long = "é".repeat(1 << 20);
    let mut span = journey.tracer_provider().tracer("vllm.api").start("llm_request");
    span.set_attribute(KeyValue::new("text", long.clone()));
    span.set_attribute(KeyValue::new(
        "texts",
        Value::Array(vec![StringValue::from(long.clone()), "short".into()].into()),
    ));
    span.add_event(long.clone(), vec![KeyValue::new("text", long.clone())]);
    span.set_status(Status::error(long));
    span.end();
    journey.flush(SECOND).unwrap();
    let spans = exporter.get_finished_spans().unwrap();
    let short = "é".repeat(50);
    assert_eq!(spans[0].attributes[0].value.as_str(), short);
    assert_eq!(spans[0].attributes[1].value.to_string(), format!(r#"["{short}","short"]"#));
    assert_eq!((&*spans[0].events[0].name, &*spans[0].events[0].attributes[0].value.as_str()), (&*short, &*short));
    assert_eq!(spans[0].status, Status::error(short));
    assert_eq!(journey.stats().noted[&Reason::Truncated], 5);
}

#[test]
fn the_queues_bound_holds_for_spans_of_the_opentelemetry_api() {
    let (let_go, held) = std::sync::mpsc::channel();
    let blocking = Exporter::new(Blocking(Mutex::new(held)));
    let journey = builder().max_queue_bytes(1 << 20).max_value_length(1 << 20).exporter(blocking).build().unwrap();
    let tracer = journey.tracer_provider().tracer("vllm.api");
    for _ in 0..40 {
        let mut span = tracer.start("llm_request");
        span.set_attribute(KeyValue::new("text", "x".repeat(100_000)));
        span.end();
    }
    let stats = journey.stats();
    assert!((25..40).contains(&stats.spans.dropped[&Reason::QueueFull]), "{stats}");
    drop(let_go);
    let error = journey.flush(LONG).unwrap_err();
    assert!(matches!(error, FlushError::Lost { reason: Reason::QueueFull, .. }), "{error}");
    assert!(journey.stats().balances());
}

#[test]
fn the_guard_refuses_a_second_llm_request_made_with_the_opentelemetry_api() {
    let memory = Exporter::memory();
    let journey = builder().exporter(memory.clone()).build().unwrap();
    let tracer = journey.tracer_provider().tracer("vllm.api");
    traced(&journey, || {
        let span = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
        // As a child of the first: it is the active context inside the span.
        span.in_scope(|| tracer.start("llm_request").end());
        // In a trace of its own, with the id of the live one.
        let mut same_id = tracer.start("llm_request");
        same_id.set_attribute(KeyValue::new("gen_ai.request.id", "cmpl-1"));
        same_id.end();
        journey_event!(&span, ABORTED, reason = timeout);
    });
    // Both made with the API.
    let outer = tracer.start("llm_request");
    let context = Context::new().with_remote_span(&outer);
    tracer.start_with_context("llm_request", &context).end();
    drop(outer);
    journey.flush(SECOND).unwrap();
    let stats = journey.stats();
    assert_eq!((stats.spans.rejected[&Reason::HandedOff], stats.spans.rejected[&Reason::SameId]), (2, 1), "{stats}");
    assert_eq!((memory.spans().len(), stats.balances()), (2, true));
}

#[test]
fn a_span_of_the_api_that_gets_another_name_is_forgotten_when_it_ends() {
    let memory = Exporter::memory();
    let journey = builder().exporter(memory.clone()).build().unwrap();
    let tracer = journey.tracer_provider().tracer("vllm.api");
    let mut renamed = tracer.start("llm_request");
    let context = Context::new().with_remote_span(&renamed);
    renamed.update_name("POST /v1/completions");
    drop(renamed);
    tracer.start_with_context("llm_request", &context).end();
    journey.flush(SECOND).unwrap();
    let stats = journey.stats();
    assert_eq!((stats.spans.rejected[&Reason::UnknownSpan], memory.spans().len()), (1, 1), "{stats}");
}

/// Takes the first spans of every batch and passes them on; the others are gone without a word.
#[derive(Debug)]
struct Leaky<E> {
    exporter: E,
    held: Mutex<Vec<SpanData>>,
}

impl<E: SpanExporter + 'static> SpanProcessor for Leaky<E> {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        let mut held = self.held.lock().unwrap();
        if held.len() < 3 {
            held.push(span);
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        futures_executor::block_on(self.exporter.export(held))
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn what_a_span_processor_loses_is_counted_to_the_span_and_to_the_event() {
    let exporter = InMemorySpanExporter::default();
    let leaky = |exporter| Leaky { exporter, held: Mutex::default() };
    let journey = builder().span_processor_with(exporter.clone(), leaky).build().unwrap();
    journeys(&journey, 4);
    let error = journey.flush(SECOND).unwrap_err();
    assert!(matches!(error, FlushError::Lost { spans: 5, reason: Reason::ProcessorDropped, .. }), "{error}");
    let arrived = exporter.get_finished_spans().unwrap();
    let stats = journey.stats();
    assert_eq!((stats.spans.exported, stats.spans.dropped[&Reason::ProcessorDropped]), (3, 5), "{stats}");
    assert_eq!(stats.events.exported as usize, arrived.iter().map(|span| span.events.len()).sum::<usize>());
    assert!(arrived.len() == 3 && stats.balances(), "{stats}");
}

#[test]
fn what_the_exporter_of_a_span_processor_refuses_is_counted_as_that() {
    let failing = Failing(|| Err(OTelSdkError::InternalFailure("broken".into())));
    let batch = |exporter| BatchSpanProcessor::builder(exporter).build();
    let journey = builder().span_processor_with(failing, batch).build().unwrap();
    journeys(&journey, 4);
    let error = journey.flush(SECOND).unwrap_err();
    assert!(matches!(error, FlushError::Lost { spans: 8, reason: Reason::ExportFailed, .. }), "{error}");
    assert!(error.to_string().contains("broken") && journey.stats().balances(), "{error}");
}

/// Says that it has no time, until it is let go.
#[derive(Debug)]
struct Late<E> {
    exporter: E,
    held: Mutex<Vec<SpanData>>,
    let_go: Arc<AtomicBool>,
}

impl<E: SpanExporter + 'static> SpanProcessor for Late<E> {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        self.held.lock().unwrap().push(span);
    }
    fn force_flush(&self) -> OTelSdkResult {
        if !self.let_go.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
            return Err(OTelSdkError::Timeout(Duration::from_millis(10)));
        }
        futures_executor::block_on(self.exporter.export(std::mem::take(&mut *self.held.lock().unwrap())))
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn what_a_span_processor_says_too_late_is_not_taken_for_an_answer_about_later_spans() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let first_fails = Failing(|| match CALLS.fetch_add(1, SeqCst) {
        0 => Err(OTelSdkError::InternalFailure("broken".into())),
        _ => Ok(()),
    });
    let let_go = Arc::new(AtomicBool::new(false));
    let late = |exporter| Late { exporter, held: Mutex::default(), let_go: let_go.clone() };
    let journey =
        builder_in(&[("OTEL_BSP_EXPORT_TIMEOUT", "50")]).span_processor_with(first_fails, late).build().unwrap();
    journeys(&journey, 1);
    let error = journey.flush(LONG).unwrap_err();
    assert!(matches!(error, FlushError::Lost { spans: 2, reason: Reason::ExportTimeout, .. }), "{error}");
    journeys(&journey, 1);
    // Some more of its time-outs: it gets nothing new before it has said what became of the first.
    std::thread::scope(|scope| {
        scope.spawn(|| journey.flush(LONG).unwrap());
        std::thread::sleep(Duration::from_millis(150));
        let_go.store(true, SeqCst);
    });
    let stats = journey.stats();
    assert_eq!((stats.spans.exported, stats.spans.dropped(), stats.balances()), (2, 2, true), "{stats}");
}

trait WithSpan {
    fn with_remote_span(&self, span: &Span) -> Context;
}

impl WithSpan for Context {
    fn with_remote_span(&self, span: &Span) -> Context {
        use journey_layer::opentelemetry::trace::TraceContextExt;
        self.with_remote_span_context(span.span_context().clone())
    }
}

#[test]
fn the_provider_flushes_and_outlives_its_own_shutdown() {
    let memory = Exporter::memory();
    let journey = builder().exporter(memory.clone()).build().unwrap();
    journeys(&journey, 1);
    journey.tracer_provider().force_flush().unwrap();
    assert_eq!(memory.spans().len(), 2);
    journey.tracer_provider().shutdown().unwrap();
    journeys(&journey, 1);
    journey.flush(SECOND).unwrap();
    assert_eq!(memory.spans().len(), 4, "the layer does not depend on it");
}

#[test]
fn what_an_exporter_does_is_not_traced_into_the_pipeline() {
    #[derive(Debug)]
    struct Tracing(Arc<std::sync::OnceLock<journey_layer::Journey>>);
    impl SpanExporter for Tracing {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            let provider = self.0.get().unwrap().tracer_provider();
            provider.tracer("vllm.api").start("llm_request").end();
            Ok(())
        }
    }
    let cell = Arc::new(std::sync::OnceLock::new());
    let journey = builder().exporter(Exporter::new(Tracing(cell.clone()))).build().unwrap();
    cell.set(journey.clone()).unwrap();
    journeys(&journey, 1);
    journey.flush(SECOND).unwrap();
    assert_eq!(journey.stats().spans.started, 2);
    journey.shutdown(SECOND).unwrap();
}

#[test]
fn the_environment_chooses_names_exporters_and_whether_there_is_a_pipeline_at_all() {
    let keys = |variables| {
        let memory = Exporter::memory();
        let journey = builder_in(variables).exporter(memory.clone()).build().unwrap();
        journeys(&journey, 1);
        journey.flush(SECOND).unwrap();
        let spans = memory.spans();
        let request = spans.iter().find(|span| span.name == "llm_request");
        let has = |key: &str| request.is_some_and(|span| span.attributes.iter().any(|pair| pair.key.as_str() == key));
        (spans.len(), has("gen_ai.usage.prompt_tokens"), has("gen_ai.usage.input_tokens"))
    };
    assert_eq!(keys(&[]), (2, true, false));
    let (name, both) = ("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental/dup");
    assert_eq!(keys(Box::leak(Box::new([(name, "gen_ai_latest_experimental")]))), (2, false, true));
    assert_eq!(keys(Box::leak(Box::new([(name, both)]))), (2, true, true));
    assert_eq!(keys(&[("OTEL_TRACES_SAMPLER", "always_off")]), (0, false, false));
    assert_eq!(keys(&[("OTEL_SDK_DISABLED", "true")]), (0, false, false));

    let none = builder_in(&[("OTEL_TRACES_EXPORTER", "none")]).semconv(Semconv::Latest).build().unwrap();
    journeys(&none, 1);
    none.flush(SECOND).expect("nobody is missing it");
    let stats = none.stats();
    assert_eq!((stats.spans.exported, stats.spans.dropped[&Reason::NoExporter], stats.balances()), (0, 2, true));
}

#[test]
fn the_queue_can_be_bounded_by_a_number_of_spans() {
    let variables = &[("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_SCHEDULE_DELAY", "60000")];
    let memory = Exporter::memory();
    let journey = builder_in(variables).exporter(memory.clone()).build().unwrap();
    // Batches are as small as the queue then, so that the thread may take some of them away meanwhile.
    journeys(&journey, 1000);
    let _ = journey.flush(SECOND);
    let stats = journey.stats();
    assert!(stats.spans.dropped[&Reason::QueueFull] > 0 && stats.balances(), "{stats}");
    assert_eq!(memory.spans().len() as u64, stats.spans.exported);
}

#[test]
fn rates_beyond_one_are_refused() {
    let error = builder().sample_rate(1.5).build().unwrap_err().to_string();
    assert_eq!(error, "the sample rate is 1.5; write a number from 0.0 to 1.0");
    assert!(builder().step_sample_rate(f64::NAN).build().is_err());
}
