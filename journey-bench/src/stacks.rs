//! The stacks that a journey is sent through. Each is the only one of its process.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use journey_layer::{Builder, Exporter, Journey, Ledger, Protocol, Reason, not_journey};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::census::Census;
use crate::counter::{Counter, Counting, Passing};
use crate::error::Error;
use crate::floor::Floor;
use crate::work::{self, Fastrace, Macros, Phase, Request, Sdk, Tracing, Vocabulary};

/// A stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// tracing-opentelemetry, the SDK's batch processor, an exporter that counts.
    TracingOpentelemetry,
    /// The same, and opentelemetry-otlp in the exporter's place.
    TracingOpentelemetryOtlp,
    /// tracing-opentelemetry whose sampler says no.
    TracingOpentelemetrySampledOut,
    /// The OpenTelemetry SDK called directly, batch processor, an exporter that counts.
    Sdk,
    /// The same, and opentelemetry-otlp in the exporter's place.
    SdkOtlp,
    /// The SDK whose sampler says no.
    SdkSampledOut,
    /// fastrace with its OpenTelemetry reporter and an exporter that counts.
    Fastrace,
    /// fastrace with a root that is not sampled.
    FastraceSampledOut,
    /// Ours, installed alone; the records are counted and discarded.
    Journey,
    /// Ours beside an `fmt` layer that filters ours out.
    JourneyComposed,
    /// Ours as `SpanData` into a span processor that counts.
    JourneySdkSink,
    /// Ours over OTLP http/protobuf.
    JourneyOtlp,
    /// Ours with a sample rate of 0.
    JourneySampledOut,
    /// Our macros without any subscriber.
    JourneyDisabled,
    /// A registry without layers.
    Registry,
    /// A registry with a layer that only visits the fields.
    Floor,
    /// `tracing` macros without any subscriber.
    NoSubscriber,
}

impl Kind {
    /// Every stack, in the order of the table.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Whether its spans arrive anywhere.
    pub fn delivers(self) -> bool {
        matches!(
            self,
            Self::TracingOpentelemetry
                | Self::TracingOpentelemetryOtlp
                | Self::Sdk
                | Self::SdkOtlp
                | Self::Fastrace
                | Self::Journey
                | Self::JourneyComposed
                | Self::JourneySdkSink
                | Self::JourneyOtlp
        )
    }

    /// Whether its spans arrive at the local OTLP sink.
    pub fn is_otlp(self) -> bool {
        matches!(self, Self::TracingOpentelemetryOtlp | Self::SdkOtlp | Self::JourneyOtlp)
    }

    /// Whether it is ours.
    pub fn is_ours(self) -> bool {
        self.to_string().starts_with("journey")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value().expect("no variant is skipped");
        f.pad(name.get_name())
    }
}

/// A stack that is installed in this process.
pub struct Stack {
    /// Which it is.
    pub kind: Kind,
    run: OnRequests<()>,
    schedule: OnRequests<Duration>,
    outlet: Outlet,
}

type OnRequests<T> = Box<dyn Fn(&[Request]) -> T + Send + Sync>;

/// Where the spans come out, and how they are made to.
enum Outlet {
    Nowhere,
    Journey { journey: Journey, counter: Option<Arc<Counter>> },
    Sdk { provider: SdkTracerProvider, counter: Arc<Counter> },
    Fastrace { counter: Arc<Counter> },
}

/// Nobody takes longer to flush.
const FLUSH: Duration = Duration::from_secs(30);

impl Stack {
    /// Installs `kind` in this process. `endpoint` is the base URL of the OTLP sink, for those that need it.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn install(kind: Kind, endpoint: &str) -> Result<Self, Error> {
        let clocked = Tracing::<true>;
        Ok(match kind {
            Kind::TracingOpentelemetry => {
                let counter = Counting::default();
                let provider = SdkTracerProvider::builder().with_batch_exporter(counter.clone()).build();
                bridge(&provider);
                Self::new(kind, clocked, Outlet::Sdk { provider, counter: counter.0 })
            }
            Kind::TracingOpentelemetryOtlp => {
                let (provider, counter) = otlp(kind, endpoint)?;
                bridge(&provider);
                Self::new(kind, clocked, Outlet::Sdk { provider, counter })
            }
            Kind::TracingOpentelemetrySampledOut => {
                let counter = Counting::default();
                let builder = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff);
                let provider = builder.with_batch_exporter(counter.clone()).build();
                bridge(&provider);
                Self::new(kind, clocked, Outlet::Sdk { provider, counter: counter.0 })
            }
            Kind::Sdk => {
                let counter = Counting::default();
                let provider = SdkTracerProvider::builder().with_batch_exporter(counter.clone()).build();
                Self::new(kind, Sdk::new(&provider), Outlet::Sdk { provider, counter: counter.0 })
            }
            Kind::SdkOtlp => {
                let (provider, counter) = otlp(kind, endpoint)?;
                Self::new(kind, Sdk::new(&provider), Outlet::Sdk { provider, counter })
            }
            Kind::SdkSampledOut => {
                let counter = Counting::default();
                let builder = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff);
                let provider = builder.with_batch_exporter(counter.clone()).build();
                Self::new(kind, Sdk::new(&provider), Outlet::Sdk { provider, counter: counter.0 })
            }
            Kind::Fastrace | Kind::FastraceSampledOut => {
                let counter = report_fastrace();
                Self::new(kind, Fastrace { sampled: kind == Kind::Fastrace }, Outlet::Fastrace { counter })
            }
            Kind::Journey => Self::ours(kind, nowhere().install().map_err(setup(kind))?, None),
            Kind::JourneySampledOut => {
                Self::ours(kind, nowhere().sample_rate(0.0).install().map_err(setup(kind))?, None)
            }
            Kind::JourneySdkSink => {
                let counter = Counting::default();
                let builder = Journey::builder().span_processor(counter.clone());
                Self::ours(kind, builder.install().map_err(setup(kind))?, Some(counter.0))
            }
            Kind::JourneyOtlp => {
                let exporter = Exporter::otlp().protocol(Protocol::HttpProtobuf).endpoint(endpoint);
                Self::ours(kind, Journey::builder().exporter(exporter).install().map_err(setup(kind))?, None)
            }
            Kind::JourneyComposed => {
                let journey = nowhere().build().map_err(setup(kind))?;
                let fmt = tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(not_journey());
                tracing_subscriber::registry().with(fmt).with(journey.layer()).init();
                Self::ours(kind, journey, None)
            }
            Kind::JourneyDisabled => Self::new(kind, Macros, Outlet::Nowhere),
            Kind::Registry => {
                tracing_subscriber::registry().init();
                Self::new(kind, clocked, Outlet::Nowhere)
            }
            Kind::Floor => {
                tracing_subscriber::registry().with(Floor).init();
                Self::new(kind, clocked, Outlet::Nowhere)
            }
            Kind::NoSubscriber => Self::new(kind, Tracing::<false>, Outlet::Nowhere),
        })
    }

    fn ours(kind: Kind, journey: Journey, counter: Option<Arc<Counter>>) -> Self {
        Self::new(kind, Macros, Outlet::Journey { journey, counter })
    }

    fn new<V: Vocabulary + Clone + Send + Sync + 'static>(kind: Kind, say: V, outlet: Outlet) -> Self {
        let said = say.clone();
        Self {
            kind,
            run: Box::new(move |requests| requests.iter().for_each(|request| work::journey(&said, request))),
            schedule: Box::new(move |requests| schedule(&say, requests)),
            outlet,
        }
    }

    /// Takes each request through its whole journey. A frame of its own, for profilers to find.
    #[inline(never)]
    pub fn run(&self, requests: &[Request]) {
        (self.run)(requests);
    }

    /// Takes the requests through their journeys side by side, and returns the wall time of their SCHEDULED events.
    pub fn schedule(&self, requests: &[Request]) -> Duration {
        (self.schedule)(requests)
    }

    /// Spans that may be under way before the producer waits, and how long it then waits at most.
    pub fn slack(&self) -> (u64, Duration) {
        match self.outlet {
            Outlet::Nowhere => (u64::MAX, Duration::ZERO),
            // Bounded by bytes, and so far from full that it may collect a larger batch.
            Outlet::Journey { .. } => (4096, Duration::from_millis(20)),
            // 2,048 spans.
            Outlet::Sdk { .. } => (1024, FLUSH),
            // 10,240 commands, of which a journey sends about fifteen.
            Outlet::Fastrace { .. } => (512, FLUSH),
        }
    }

    /// Spans that have arrived so far.
    pub fn delivered(&self) -> u64 {
        match &self.outlet {
            Outlet::Nowhere => 0,
            Outlet::Journey { journey, .. } => arrived(&journey.stats().spans),
            Outlet::Sdk { counter, .. } | Outlet::Fastrace { counter } => counter.spans(),
        }
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// Something was lost.
    pub fn flush(&self) -> Result<(), Error> {
        let lost = |message: String| Error::Delivery { stack: self.kind.to_string(), message };
        match &self.outlet {
            Outlet::Nowhere => Ok(()),
            Outlet::Journey { journey, .. } => {
                journey.flush(FLUSH).map_err(|error| lost(error.to_string()))?;
                let stats = journey.stats();
                let whole = |ledger: &Ledger| arrived(ledger) + ledger.live == ledger.started;
                if stats.balances() && whole(&stats.spans) && whole(&stats.events) {
                    return Ok(());
                }
                Err(lost(stats.to_string()))
            }
            Outlet::Sdk { provider, .. } => provider.force_flush().map_err(|error| lost(error.to_string())),
            Outlet::Fastrace { .. } => {
                fastrace::flush();
                Ok(())
            }
        }
    }

    /// Runs `requests` and tells what arrived; `None` where only their number can be known, which is looked at here.
    ///
    /// # Errors
    /// Something was lost.
    pub fn census(&self, requests: &[Request]) -> Result<Option<Census>, Error> {
        let counter = match &self.outlet {
            Outlet::Nowhere => None,
            Outlet::Journey { counter, .. } => counter.as_ref(),
            Outlet::Sdk { counter, .. } | Outlet::Fastrace { counter } => Some(counter),
        };
        let events = || match &self.outlet {
            Outlet::Journey { journey, .. } => arrived(&journey.stats().events),
            _ => 0,
        };
        let before = (self.delivered(), events());
        counter.inspect(|counter| counter.begin());
        self.run(requests);
        self.flush()?;
        let arrived = (self.delivered() - before.0, events() - before.1);
        let journeys = if self.kind.delivers() { requests.len() as u64 } else { 0 };
        let expected = (2 * journeys, if matches!(self.outlet, Outlet::Journey { .. }) { 10 * journeys } else { 0 });
        if arrived != expected {
            let message = format!("{arrived:?} spans and events and not {expected:?}");
            return Err(Error::Delivery { stack: self.kind.to_string(), message });
        }
        // Where an exporter encodes, the receiver has the names.
        Ok(counter.map(|counter| counter.end()).filter(|_| !self.kind.is_otlp()))
    }
}

fn schedule<V: Vocabulary>(say: &V, requests: &[Request]) -> Duration {
    let mut open: Vec<_> = requests
        .iter()
        .map(|request| {
            let mut api = say.request(request);
            say.arrived(&mut api);
            let mut core = say.sequence(request, &api);
            say.handed_off(&mut api);
            say.queued(&mut core, || request.progress(0, Phase::Waiting, 0, 0, 0));
            (api, core)
        })
        .collect();
    let begin = Instant::now();
    for ((_, core), request) in open.iter_mut().zip(requests) {
        say.scheduled(core, || request.progress(17, Phase::Prefill, 0, 0, 0));
    }
    let time = begin.elapsed();
    for ((mut api, mut core), request) in open.into_iter().zip(requests) {
        say.finished(&mut core, || request.progress(118, Phase::Decode, 24, 96, 0));
        drop(core);
        say.first_response(&mut api);
        say.departed(&mut api);
    }
    time
}

fn setup<E: fmt::Display>(kind: Kind) -> impl FnOnce(E) -> Error {
    move |error| Error::Setup { stack: kind.to_string(), message: error.to_string() }
}

/// What went all the way, to an exporter or to the end of a pipeline without one.
fn arrived(ledger: &Ledger) -> u64 {
    ledger.exported + ledger.dropped.get(&Reason::NoExporter).copied().unwrap_or(0)
}

/// A pipeline without exporters: the export thread counts the records and drops them.
fn nowhere() -> Builder {
    Journey::builder().environment(|name| (name == "OTEL_TRACES_EXPORTER").then(|| "none".to_owned()))
}

fn otlp(kind: Kind, endpoint: &str) -> Result<(SdkTracerProvider, Arc<Counter>), Error> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(format!("{endpoint}/v1/traces"));
    let inner = exporter.build().map_err(setup(kind))?;
    let counter = Arc::new(Counter::default());
    let exporter = Passing { inner, counter: counter.clone() };
    Ok((SdkTracerProvider::builder().with_batch_exporter(exporter).build(), counter))
}

/// Installs tracing-opentelemetry, told to leave out whatever ours does not send either.
fn bridge(provider: &SdkTracerProvider) {
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("vllm"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    tracing_subscriber::registry().with(layer).init();
}

fn report_fastrace() -> Arc<Counter> {
    let counter = Counting::default();
    let scope = opentelemetry::InstrumentationScope::builder("vllm").build();
    let resource = std::borrow::Cow::Owned(opentelemetry_sdk::Resource::builder().build());
    let reporter = fastrace_opentelemetry::OpenTelemetryReporter::new(counter.clone(), resource, scope);
    fastrace::set_reporter(reporter, fastrace::collector::Config::default());
    counter.0
}
