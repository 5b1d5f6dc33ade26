//! The only file that sets tracing up.

mod recorded;

use std::env;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use journey_layer::macros::journey_span;
use journey_layer::opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use journey_layer::opentelemetry::{Context, KeyValue, propagation::TextMapPropagator};
use journey_layer::opentelemetry_sdk::propagation::TraceContextPropagator;
use journey_layer::opentelemetry_sdk::trace::SdkTracerProvider;
use journey_layer::{BuildError, Carrier, Exporter, FlushError, Journey, JourneyStats, Protocol, Sampling, tracing};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

pub use recorded::{RecordedEvent, RecordedSpan, recorded};

/// The variables that name an OTLP endpoint or another exporter: where one is set, the environment decides.
const DESTINATIONS: [&str; 3] =
    ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Log lines of this crate and warnings of others; journeys have their own way out.
const LOGS: &str = "warn,example_engine=info,vllm.api=off,vllm.scheduler=off,vllm.llm_engine=off";

/// Where journeys go when nothing says otherwise.
const DEFAULT_FILE: &str = "journeys.jsonl";

/// What is to be done with journeys.
#[derive(Debug)]
pub struct Options<'a> {
    /// The OTLP-JSON file. Without one, `journeys.jsonl` where the environment names no other destination.
    pub file: Option<&'a Path>,
    /// Print each journey as a tree.
    pub console: bool,
    /// Keep them in memory as well.
    pub memory: Option<journey_layer::Memory>,
    /// Send them to this OTLP/HTTP receiver as well, whatever the environment says.
    pub receiver: Option<String>,
    /// Share of the requests whose journey is traced, 0 to 1, whatever their headers say. Without one, the environment or a
    /// client's `traceparent` decides.
    pub sample_rate: Option<f64>,
    /// Share of scheduler steps that are traced, 0 to 1.
    pub step_sample_rate: f64,
}

/// Why tracing cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The pipeline does not start.
    #[error("{0}")]
    Pipeline(#[from] BuildError),
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG: {0}")]
    Filter(#[from] ParseError),
    /// Another subscriber is there.
    #[error("{0}")]
    Subscriber(#[from] TryInitError),
}

/// Running journey tracing.
#[derive(Debug)]
pub struct Telemetry {
    journey: Journey,
}

impl Telemetry {
    /// Sets tracing up for the whole process: journeys to their exporters, log lines to standard error.
    ///
    /// # Errors
    /// A setting that cannot work, from the environment or from `options`.
    pub fn start(options: Options<'_>) -> Result<Self, TelemetryError> {
        let filter = match env::var("RUST_LOG") {
            Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter)?,
            _ => EnvFilter::try_new(LOGS)?,
        };
        let mut builder = Journey::builder().step_sample_rate(options.step_sample_rate);
        if let Some(rate) = options.sample_rate {
            builder = builder.sampling(Sampling::Rate(rate));
        }
        let from_environment = DESTINATIONS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
        let default_file = (!from_environment).then(|| Path::new(DEFAULT_FILE));
        let file = options.file.or(default_file);
        // An exporter that is given takes the place of the environment's.
        if from_environment && (file.is_some() || options.memory.is_some() || options.receiver.is_some()) {
            builder = builder.exporter(Exporter::otlp());
        }
        if let Some(file) = file {
            builder = builder.exporter(Exporter::file(file));
        }
        if options.console && !from_environment {
            builder = builder.exporter(Exporter::console());
        }
        if let Some(memory) = options.memory {
            builder = builder.exporter(memory);
        }
        if let Some(receiver) = options.receiver {
            builder = builder.exporter(Exporter::otlp().endpoint(receiver).protocol(Protocol::HttpProtobuf));
        }
        let journey = builder.build()?;
        let logs = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_filter(filter);
        tracing_subscriber::registry().with(logs).with(journey.layer()).try_init()?;
        Ok(Self { journey })
    }

    /// The ledger.
    pub fn stats(&self) -> JourneyStats {
        self.journey.stats()
    }

    /// Reads the ledger, from wherever it is needed.
    pub fn ledger(&self) -> crate::api::LedgerReader {
        let journey = self.journey.clone();
        Box::new(move || journey.stats())
    }

    /// The historical bug, to be replayed.
    pub fn do_tracing(&self) -> DoTracing {
        DoTracing::new(&self.journey)
    }

    /// Ends every open journey, and exports what there is.
    ///
    /// # Errors
    /// What could not be delivered.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), FlushError> {
        self.journey.shutdown(timeout)
    }

    /// Exports what has ended.
    ///
    /// # Errors
    /// What could not be delivered.
    pub async fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        self.journey.flush_async(timeout).await
    }
}

/// The Python engine's removed `do_tracing()`: once a request had finished, its output processor opened a second
/// `llm_request`, from the request's own trace headers. Every way it could be written in Rust is refused.
#[derive(Debug)]
pub struct DoTracing {
    provider: SdkTracerProvider,
}

impl DoTracing {
    /// Duplicates replayed for each request: through tracing in the removed scope, through tracing in the right scope,
    /// and through the OpenTelemetry API past tracing.
    pub const PER_REQUEST: u64 = 3;

    /// A replay against the pipeline of `journey`.
    pub fn new(journey: &Journey) -> Self {
        Self { provider: journey.tracer_provider() }
    }

    /// Opens the duplicates of a finished request.
    pub fn replay(&self, request_id: &str, carrier: &Carrier, completion_tokens: u64) {
        let _in_removed_scope = tracing::info_span!(
            target: "vllm.llm_engine",
            "llm_request",
            "gen_ai.request.id" = request_id,
            "gen_ai.usage.completion_tokens" = completion_tokens,
        );
        let _late = journey_span!(scope = "vllm.api", request_id = request_id, carrier = carrier);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), carrier);
        let mut raw = self.provider.tracer("vllm.llm_engine").start_with_context("llm_request", &parent);
        raw.set_attribute(KeyValue::new("gen_ai.request.id", request_id.to_owned()));
        raw.end();
    }
}
