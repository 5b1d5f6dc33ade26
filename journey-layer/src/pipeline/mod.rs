//! The handle to a pipeline: provider, export thread, ledger.

mod builder;
mod install;
mod ready;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::Builder;
pub use install::init;
use opentelemetry::metrics::Meter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_core::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::core::Core;
use crate::error::FlushError;
use crate::export::sink::{ExportSink, Tick};
use crate::layer::{JourneyFilter, JourneyLayer};
use crate::metrics::Observed;
use crate::pipeline::ready::Fingerprint;
use crate::sink::Sink;
use crate::stats::JourneyStats;

/// The handle to a pipeline: from it come the layer, the ledger, and the flush before the process ends.
///
/// Clones share one pipeline. When the last of them is dropped, the pipeline ends what is open, exports what it has and
/// stops, within five seconds; the dropping thread waits for that, also where it is a runtime's. The export thread does
/// the work and needs no runtime of the caller, so that this wait cannot deadlock. To choose the time, or to wait
/// without blocking, call [`Self::shutdown`] or [`Self::shutdown_async`] before.
///
/// ```
/// use std::time::Duration;
///
/// use journey_layer::{Exporter, Journey, macros::*};
/// use tracing_subscriber::layer::SubscriberExt;
/// use tracing_subscriber::util::SubscriberInitExt;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Exporter::memory();
/// let journey = Journey::builder().exporter(memory.clone()).build()?;
/// let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
///
/// drop(journey_span!(scope = "vllm.api"));
///
/// journey.flush(Duration::from_secs(1))?;
/// assert_eq!(memory.spans()[0].name, "llm_request");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "the pipeline stops when its last handle is dropped"]
pub struct Journey {
    inner: Arc<Inner>,
}

struct Inner {
    /// Without one where `OTEL_SDK_DISABLED` is true.
    pipeline: Option<Pipeline>,
    fingerprint: Fingerprint,
}

struct Pipeline {
    core: Arc<Core>,
    sink: Arc<ExportSink>,
    provider: SdkTracerProvider,
}

const DROP_TIMEOUT: Duration = Duration::from_secs(5);

impl Journey {
    /// A pipeline to be configured; what is not given comes from the `OTEL_*` environment variables.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The layer, for a registry beside other layers.
    ///
    /// It comes with a filter of its own ([`JourneyFilter`]), so that other layers' callsites cost it nothing and its
    /// own answer switches nothing off for them.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.pipeline().map(|pipeline| JourneyLayer::new(pipeline.core.clone(), false).with_filter(JourneyFilter))
    }

    /// The layer for a registry in which nothing else listens: it switches foreign callsites off altogether.
    fn lone_layer(&self) -> Option<JourneyLayer> {
        self.pipeline().map(|pipeline| JourneyLayer::new(pipeline.core.clone(), true))
    }

    /// What became of every span and event so far.
    pub fn stats(&self) -> JourneyStats {
        let Some(pipeline) = self.pipeline() else { return JourneyStats::default() };
        let (census, queued) = (pipeline.core.census(), pipeline.sink.backlog());
        pipeline.core.stats.snapshot(census, queued)
    }

    /// Reports the ledger as metrics on `meter`, for as long as its provider lives: also what became of the last spans,
    /// when the pipeline itself has ended.
    ///
    /// | instrument | kind | attributes |
    /// |---|---|---|
    /// | `journey.spans`, `journey.events` | observable counter | `state`: `started`, `recovered`, `exported`, `rejected`, `dropped`; for the last two `reason`: a [`Reason`](crate::Reason) |
    /// | `journey.live_spans`, `journey.live_events` | observable up-down counter | |
    /// | `journey.spooled_spans`, `journey.spooled_events` | observable up-down counter | |
    /// | `journey.notes` | observable counter | `reason` |
    ///
    /// Only the API of OpenTelemetry is used: the meter may be any SDK's. To be called once for each meter.
    ///
    /// ```
    /// # let journey = journey_layer::Journey::builder().environment(|_| None).exporter(journey_layer::Exporter::memory()).build()?;
    /// journey.register_metrics(&journey_layer::opentelemetry::global::meter("journey"));
    /// # Ok::<(), journey_layer::BuildError>(())
    /// ```
    pub fn register_metrics(&self, meter: &Meter) {
        if let Some(pipeline) = self.pipeline() {
            Observed::new(&pipeline.core, &pipeline.sink).register(meter);
        }
    }

    /// Waits until everything that has ended is exported or accounted for as lost. Safe on any thread, with or without
    /// a runtime; on a runtime's worker, [`Self::flush_async`] does not block it.
    ///
    /// # Errors
    /// The time ran out (then nothing is lost, and the exporters go on trying), or spans were lost since the last flush.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        self.pipeline().map_or(Ok(()), |pipeline| pipeline.sink.flush(timeout))
    }

    /// [`Self::flush`] for async code, on whatever executor.
    ///
    /// The export thread answers: where an exporter of the user blocks that, the answer waits as well.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn flush_async(&self, timeout: Duration) -> Result<(), FlushError> {
        match self.pipeline() {
            Some(pipeline) => pipeline.sink.flush_async(timeout).await,
            None => Ok(()),
        }
    }

    /// Ends every open span, exports what there is, and stops. Safe on any thread. A second call does nothing.
    ///
    /// # Errors
    /// The time ran out, and what was left is counted as dropped (`shutdown`); or spans were lost since the last flush.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), FlushError> {
        let Some(pipeline) = self.pipeline() else { return Ok(()) };
        pipeline.core.end_all();
        pipeline.sink.shutdown(timeout)
    }

    /// [`Self::shutdown`] for async code, on whatever executor.
    ///
    /// # Errors
    /// As [`Self::shutdown`].
    pub async fn shutdown_async(&self, timeout: Duration) -> Result<(), FlushError> {
        let Some(pipeline) = self.pipeline() else { return Ok(()) };
        pipeline.core.end_all();
        pipeline.sink.shutdown_async(timeout).await
    }

    /// The provider: spans that are made with the OpenTelemetry API on it take the same way out, past a guard that
    /// lets only the schema's spans leave, and no second `llm_request`.
    ///
    /// Where the SDK is disabled it is a provider that leads nowhere.
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.pipeline().map_or_else(|| SdkTracerProvider::builder().build(), |pipeline| pipeline.provider.clone())
    }

    /// Makes [`Self::tracer_provider`] the process's global one (`opentelemetry::global`).
    ///
    /// The layer does not need this. It is for code that asks the global for a tracer: from then on
    /// `global::tracer("vllm.llm_engine")` meets the guard. Other spans made through the global are refused as well:
    /// a service that traces other things with OpenTelemetry keeps its own global provider.
    pub fn set_global(&self) {
        opentelemetry::global::set_tracer_provider(self.tracer_provider());
    }

    fn pipeline(&self) -> Option<&Pipeline> {
        self.inner.pipeline.as_ref()
    }
}

impl fmt::Debug for Journey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journey").field("to", &self.inner.fingerprint.destinations()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(pipeline) = &self.pipeline else { return };
        pipeline.core.end_all();
        // What could not be delivered is in the ledger, and was warned of.
        let _ = pipeline.sink.shutdown(DROP_TIMEOUT);
    }
}

impl Tick for Core {
    fn tick(&self) {
        Core::tick(self);
    }

    fn is_heard(&self) -> bool {
        Core::is_heard(self)
    }

    fn warn(&self, message: String) {
        self.say_later(message);
    }
}
