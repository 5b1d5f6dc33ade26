//! Where journeys go: the public side.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter;

use crate::env::Env;
use crate::error::{BuildError, OtlpError};
use crate::export::batch::Spans;
use crate::export::console::Console;
use crate::export::convert::Semconv;
use crate::export::file::File;
use crate::export::lane::{Accepted, Exporting, Failure, Outcome};
use crate::export::local::Local;
use crate::export::memory::Memory;
use crate::export::otlp::{Otlp, Resolved, client};
use crate::export::processor;
use crate::export::sink::Limits;

/// A destination of journeys, for [`Builder::exporter`](crate::Builder::exporter).
///
/// Exporters run on threads of the pipeline, never on a request's. Several may be given: a span counts as exported when
/// every one of them took it.
///
/// ```
/// use journey_layer::{Exporter, Journey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Exporter::memory();
/// let journey = Journey::builder().exporter(memory.clone()).exporter(Exporter::console()).build()?;
/// # drop(journey);
/// # Ok(())
/// # }
/// ```
pub struct Exporter(Kind);

enum Kind {
    Ready(Destination),
    /// Waits for the environment, which the builder knows.
    Otlp(Otlp),
}

/// An exporter that only has to be started.
pub(crate) struct Destination {
    /// Names it in messages.
    pub(crate) label: String,
    /// Two with one key do the same. Never shown: it may hold secrets.
    pub(crate) key: String,
    /// Spans are wanted at once: somebody looks on, and a call costs next to nothing.
    pub(crate) is_prompt: bool,
    /// It sends requests over the network, which a spool can keep.
    pub(crate) is_remote: bool,
    start: Box<StartFn>,
}

type StartFn = dyn FnOnce(&Start<'_>) -> Result<Exporting, BuildError> + Send;

/// What an exporter is started with.
pub(crate) struct Start<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) limits: &'a Limits,
    #[cfg_attr(
        not(any(feature = "otlp-grpc", feature = "otlp-http")),
        expect(dead_code, reason = "the others are given spans that are converted already")
    )]
    pub(crate) semconv: Semconv,
}

impl Exporter {
    /// Any exporter of the OpenTelemetry SDK.
    ///
    /// It has a thread of its own, on which its futures are driven without a runtime: an exporter that needs one must
    /// bring it, and keep it until the shutdown. It may block as long as it likes: other exporters go on meanwhile, and
    /// so do flushes up to their time. It retries by itself or not at all.
    pub fn new(exporter: impl SpanExporter + 'static) -> Self {
        let destination = Destination::local(unique("exporter"), move |start| {
            let mut exporter = exporter;
            exporter.set_resource(start.resource);
            Ok(Sdk(exporter))
        });
        destination.into()
    }

    /// OTLP, over HTTP/protobuf or gRPC, as the `OTEL_EXPORTER_OTLP_*` environment variables say.
    pub fn otlp() -> Otlp {
        Otlp::default()
    }

    /// A file of OTLP-JSON lines, as the Collector's file exporter writes them.
    pub fn file(path: impl Into<PathBuf>) -> File {
        File::new(path.into())
    }

    /// Journeys as trees on standard output, for people.
    pub fn console() -> Console {
        Console::default()
    }

    /// Memory, for tests: keep a clone, and read the finished spans from it.
    pub fn memory() -> Memory {
        Memory::default()
    }

    pub(crate) fn processor(processor: impl Local + 'static) -> Self {
        Destination::local(unique("span processor"), move |_| Ok(processor)).into()
    }

    /// Completes the settings from the environment.
    pub(crate) fn resolve(self, env: &Env) -> Result<Destination, OtlpError> {
        match self.0 {
            Kind::Ready(destination) => Ok(destination),
            Kind::Otlp(otlp) => Ok(Destination::otlp(otlp.resolve(env)?)),
        }
    }
}

impl Destination {
    /// One that works on a thread of its own. Two with one label are one and the same, unless a key tells them apart.
    pub(crate) fn local<L: Local + 'static>(
        label: String,
        start: impl FnOnce(&Start<'_>) -> Result<L, BuildError> + Send + 'static,
    ) -> Self {
        let start: Box<StartFn> = Box::new(|with| Ok(Exporting::Local(Box::new(start(with)?))));
        Self { key: label.clone(), label, is_prompt: false, is_remote: false, start }
    }

    pub(crate) fn with_key(self, key: String) -> Self {
        Self { key, ..self }
    }

    pub(crate) fn prompt(self) -> Self {
        Self { is_prompt: true, ..self }
    }

    fn otlp(settings: Resolved) -> Self {
        let (label, key) = (settings.label(), format!("{settings:?}"));
        let start: Box<StartFn> = Box::new(|with| Ok(Exporting::Remote(client::build(settings, with)?)));
        Self { label, key, is_prompt: false, is_remote: true, start }
    }

    pub(crate) fn start(self, with: &Start<'_>) -> Result<Exporting, BuildError> {
        (self.start)(with)
    }
}

impl From<Destination> for Exporter {
    fn from(destination: Destination) -> Self {
        Self(Kind::Ready(destination))
    }
}

impl From<Otlp> for Exporter {
    fn from(otlp: Otlp) -> Self {
        Self(Kind::Otlp(otlp))
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match &self.0 {
            Kind::Ready(destination) => &destination.label,
            Kind::Otlp(_) => "otlp",
        };
        f.debug_tuple("Exporter").field(&label).finish()
    }
}

/// A label for something that cannot be compared: no two are the same.
pub(crate) fn unique(kind: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    format!("{kind} #{}", NUMBER.fetch_add(1, Relaxed))
}

/// An exporter of the SDK.
struct Sdk<E>(E);

impl<E: SpanExporter> Local for Sdk<E> {
    fn export(&mut self, spans: Spans) -> Outcome {
        match futures_executor::block_on(self.0.export(spans.collect())) {
            Ok(()) => Ok(Accepted::default()),
            Err(error) => Err(Failure::Permanent(processor::loss(&error))),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        self.0.force_flush().map_err(|error| error.to_string())
    }

    fn shutdown(&mut self, timeout: Duration) {
        // Everything it took has been flushed before; what its own shutdown says changes nothing in the ledger.
        let _ = self.0.shutdown_with_timeout(timeout);
    }
}
