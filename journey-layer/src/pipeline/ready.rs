//! Complete settings, and the pipeline that they start.

use std::sync::Arc;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanProcessor};
use parking_lot::Mutex;

use crate::config::{LayerConfig, Sampling};
use crate::core::Core;
use crate::error::BuildError;
use crate::export::convert::{Conversion, Semconv};
use crate::export::exporter::Destination;
use crate::export::sink::{ExportSink, Limits, Tick};
use crate::export::spool;
use crate::export::worker::Plan;
use crate::guard::Guard;
use crate::pipeline::{Inner, Journey, Pipeline};
use crate::stats::Stats;

/// Everything in which two pipelines can differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fingerprint {
    pub(super) layer: LayerConfig,
    pub(super) limits: Limits,
    pub(super) semconv: Semconv,
    pub(super) spool: Option<spool::Settings>,
    pub(super) resource: Resource,
    pub(super) labels: Vec<String>,
    pub(super) keys: Vec<String>,
    pub(super) disabled: bool,
}

/// Complete settings.
pub(crate) struct Ready {
    pub(crate) fingerprint: Fingerprint,
    pub(super) destinations: Vec<Destination>,
    pub(super) processors: Vec<Arc<dyn SpanProcessor>>,
    pub(super) warnings: Vec<String>,
}

impl Ready {
    pub(crate) fn start(self) -> Result<Journey, BuildError> {
        let Fingerprint { layer, limits, semconv, spool, resource, disabled, .. } = self.fingerprint.clone();
        let pipeline = if disabled {
            None
        } else {
            let stats = Arc::new(Stats::new());
            let plan = Plan {
                destinations: self.destinations,
                conversion: Conversion::new(semconv),
                resource: resource.clone(),
                spool,
                warnings: self.warnings,
            };
            let sink = ExportSink::start(plan, limits, stats.clone())?;
            let core = Core::new(layer, sink.clone(), stats.clone());
            let ticking: Arc<dyn Tick> = core.clone();
            sink.set_tick(Arc::downgrade(&ticking));
            let guard = Guard {
                rules: core.clone(),
                sink: sink.clone(),
                stats,
                warnings: ticking,
                max_value_length: core.config.max_value_length,
                processors: self.processors,
                warned: Mutex::default(),
            };
            let (Sampling::ParentBased { root: rate } | Sampling::Rate(rate) | Sampling::TraceIdRatio(rate)) =
                core.config.sampling;
            let provider = SdkTracerProvider::builder()
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(rate))))
                .with_max_events_per_span(u32::try_from(core.config.max_events).unwrap_or(u32::MAX))
                .with_resource(resource)
                .with_span_processor(guard)
                .build();
            Some(Pipeline { core, sink, provider })
        };
        Ok(Journey { inner: Arc::new(Inner { pipeline, fingerprint: self.fingerprint }) })
    }
}

impl Fingerprint {
    /// Where journeys go, for people.
    pub(crate) fn destinations(&self) -> String {
        match (self.disabled, self.labels.as_slice()) {
            (true, _) => "nowhere (OTEL_SDK_DISABLED)".to_owned(),
            (_, []) => "nowhere".to_owned(),
            (_, labels) => labels.join(", "),
        }
    }

    /// The first setting in which the two differ.
    pub(crate) fn difference(&self, other: &Self) -> &'static str {
        let settings = [
            ("OTEL_SDK_DISABLED", self.disabled != other.disabled),
            ("its destinations", self.labels != other.labels),
            ("the settings of a destination", self.keys != other.keys),
            ("its resource", self.resource != other.resource),
            ("its sampling", self.layer.sampling != other.layer.sampling),
            ("the settings of its layer", self.layer != other.layer),
            ("the bounds of its queue", self.limits != other.limits),
            ("its spool", self.spool != other.spool),
            ("its semantic conventions", self.semconv != other.semconv),
        ];
        settings.into_iter().find(|(_, differs)| *differs).map_or("nothing", |(name, _)| name)
    }
}
