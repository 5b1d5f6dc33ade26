//! From settings and environment to a running pipeline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::{SpanExporter, SpanProcessor};

use crate::config::{LayerConfig, OnDuplicate, Sampling};
use crate::env::Env;
use crate::error::{BuildError, OtlpError};
use crate::export::convert::Semconv;
use crate::export::exporter::Exporter;
use crate::export::processor::{Processor, Tallied, tallied};
use crate::export::sink::Limits;
use crate::export::spool;
use crate::pipeline::Journey;
use crate::pipeline::ready::{Fingerprint, Ready};
use crate::resource::resource;

/// The settings of a pipeline. Made by [`Journey::builder`].
///
/// What is set here goes before the `OTEL_*` environment variables, and those before the defaults.
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    env: Env,
    exporters: Vec<Exporter>,
    processors: Vec<UserProcessor>,
    resource: Vec<KeyValue>,
    sampling: Option<Sampling>,
    step_sample_rate: Option<f64>,
    duplicates: Option<OnDuplicate>,
    retention: Option<(Duration, usize)>,
    grace: Option<Duration>,
    max_live: Option<usize>,
    max_events: Option<usize>,
    max_value_length: Option<usize>,
    context_activation: Option<bool>,
    max_queue_bytes: Option<usize>,
    schedule_delay: Option<Duration>,
    semconv: Option<Semconv>,
    spool: Option<PathBuf>,
    max_spool_bytes: Option<u64>,
}

/// A span processor, with what makes a destination of it once it is shared.
struct UserProcessor {
    processor: Box<dyn SpanProcessor>,
    destination: Box<dyn FnOnce(Arc<dyn SpanProcessor>, Duration) -> Exporter + Send>,
}

impl Builder {
    /// Reads `OTEL_*` there, and not in the process's environment.
    pub fn environment(mut self, lookup: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        self.env = Env::new(lookup);
        self
    }

    /// Adds a destination. Without any, and without a span processor, `OTEL_TRACES_EXPORTER` names them.
    pub fn exporter(mut self, exporter: impl Into<Exporter>) -> Self {
        self.exporters.push(exporter.into());
        self
    }

    /// Adds a span processor of the SDK.
    ///
    /// Its `on_end` is called on a thread of the pipeline, and what it is given counts as exported: what it loses on its
    /// own is not in the ledger ([`Self::span_processor_with`] has that). So that a batch processor does not lose what
    /// comes faster than it exports, it is flushed after every 1,024 spans. Its `on_start` is called only for spans
    /// that are made with the OpenTelemetry API.
    pub fn span_processor(mut self, processor: impl SpanProcessor + 'static) -> Self {
        let destination = |shared, _| Exporter::processor(Processor::new(shared));
        self.processors.push(UserProcessor { processor: Box::new(processor), destination: Box::new(destination) });
        self
    }

    /// Adds a span processor of the SDK around `exporter`, and keeps account of what becomes of its spans.
    ///
    /// The exporter is wrapped, so that the ledger knows what it took, what it refused (`export_failed`,
    /// `export_timeout`), and what it never saw (`processor_dropped`). For that the processor is flushed after every
    /// batch: it need not make batches of its own, and does not overflow.
    ///
    /// ```
    /// use journey_layer::Journey;
    /// use journey_layer::opentelemetry_sdk::trace::{BatchSpanProcessor, SpanExporter};
    ///
    /// # fn build(exporter: impl SpanExporter + 'static) -> Result<Journey, journey_layer::BuildError> {
    /// Journey::builder()
    ///     .span_processor_with(exporter, |exporter| BatchSpanProcessor::builder(exporter).build())
    ///     .build()
    /// # }
    /// ```
    pub fn span_processor_with<E, P>(mut self, exporter: E, processor: impl FnOnce(Tallied<E>) -> P) -> Self
    where
        E: SpanExporter + 'static,
        P: SpanProcessor + 'static,
    {
        let (exporter, destination) = tallied(exporter);
        self.processors.push(UserProcessor {
            processor: Box::new(processor(exporter)),
            destination: Box::new(|shared, timeout| Exporter::processor(destination(shared, timeout))),
        });
        self
    }

    /// `service.name` of the resource (`OTEL_SERVICE_NAME`, else `vllm`).
    pub fn service_name(self, name: impl Into<String>) -> Self {
        self.resource([KeyValue::new("service.name", name.into())])
    }

    /// Adds attributes to the resource (`OTEL_RESOURCE_ATTRIBUTES`).
    pub fn resource(mut self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        self.resource.extend(attributes);
        self
    }

    /// Samples this share of the journeys that have no parent; the others follow their parent. Short for
    /// [`Sampling::ParentBased`].
    pub fn sample_rate(self, root: f64) -> Self {
        self.sampling(Sampling::ParentBased { root })
    }

    /// How the decision about a journey is made (`OTEL_TRACES_SAMPLER`).
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = Some(sampling);
        self
    }

    /// Traces this share of the scheduler steps; 0.0 if not given.
    pub fn step_sample_rate(mut self, rate: f64) -> Self {
        self.step_sample_rate = Some(rate);
        self
    }

    /// What is done with a second `llm_request` of a journey; merged if not given.
    pub fn duplicates(mut self, on_duplicate: OnDuplicate) -> Self {
        self.duplicates = Some(on_duplicate);
        self
    }

    /// How long closed spans are remembered for telling duplicates (2.4 hours at most), and how many of their keys at
    /// most; a minute and 65,536 if not given.
    ///
    /// A journey has a key for its request and two for each sequence, of eight bytes. A key has its place in one of many
    /// small buckets, so that from half the keys on some are forgotten early and counted
    /// ([`Reason::Evicted`](crate::Reason::Evicted)): 1,000 requests a second need 400,000 keys for a whole minute.
    pub fn retention(mut self, time: Duration, max_keys: usize) -> Self {
        self.retention = Some((time, max_keys));
        self
    }

    /// How long a finished span waits for its last handle to go before it is exported all the same; two seconds if
    /// not given.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Open spans at most; 262,144 if not given. Further ones are dropped and counted.
    pub fn max_live_spans(mut self, spans: usize) -> Self {
        self.max_live = Some(spans);
        self
    }

    /// Events of one span at most (`OTEL_SPAN_EVENT_COUNT_LIMIT`, else 128). The terminal event always has room.
    pub fn max_events_per_span(mut self, events: usize) -> Self {
        self.max_events = Some(events);
        self
    }

    /// Bytes of one text value at most (`OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`, else
    /// `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`, else 4,096). Longer ones are cut and counted.
    pub fn max_value_length(mut self, bytes: usize) -> Self {
        self.max_value_length = Some(bytes);
        self
    }

    /// Whether an entered journey span is the active OpenTelemetry context, so that outgoing calls inside it
    /// propagate it; true if not given.
    pub fn context_activation(mut self, active: bool) -> Self {
        self.context_activation = Some(active);
        self
    }

    /// Bytes of spans that may wait for the exporters; 64 MiB if not given. Beyond it spans are dropped and counted.
    pub fn max_queue_bytes(mut self, bytes: usize) -> Self {
        self.max_queue_bytes = Some(bytes);
        self
    }

    /// A directory for what the OTLP exporter cannot send (`JOURNEY_SPOOL_DIRECTORY`): batches that the queue has no room for in
    /// an outage, and those left at the shutdown. They are sent when the receiver is back, by this process or by the
    /// next one that is given the directory.
    ///
    /// Each process has its own place in it, under a lock, and takes over what processes that are gone have left. What
    /// is in it survives the process, however that ends; a receiver may get a request twice, if the process ended
    /// between its arrival and its answer. Broken files are set aside, counted and warned of.
    pub fn spool(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spool = Some(directory.into());
        self
    }

    /// Bytes that the spool of this process may hold (`JOURNEY_SPOOL_MAX_BYTES`, else 256 MiB).
    pub fn max_spool_bytes(mut self, bytes: u64) -> Self {
        self.max_spool_bytes = Some(bytes);
        self
    }

    /// The longest that a span waits for others to be exported with (`OTEL_BSP_SCHEDULE_DELAY`, else five seconds; a
    /// quarter of a second where there are only files, consoles and memory); a day at most.
    pub fn schedule_delay(mut self, delay: Duration) -> Self {
        self.schedule_delay = Some(delay);
        self
    }

    /// The names of the attributes that the semantic conventions renamed (`OTEL_SEMCONV_STABILITY_OPT_IN`).
    pub fn semconv(mut self, semconv: Semconv) -> Self {
        self.semconv = Some(semconv);
        self
    }

    /// Starts the pipeline. Where `OTEL_SDK_DISABLED` is true, the handle's layer does nothing.
    ///
    /// # Errors
    /// A setting cannot work, an exporter cannot be set up, or the export thread not be started.
    pub fn build(self) -> Result<Journey, BuildError> {
        self.resolve()?.start()
    }

    /// Completes the settings from the environment, and starts nothing.
    pub(crate) fn resolve(self) -> Result<Ready, BuildError> {
        let disabled = self.env.boolean("OTEL_SDK_DISABLED");
        let layer = self.layer()?;
        let env = &self.env;
        let mut exporters = self.exporters;
        if exporters.is_empty() && self.processors.is_empty() && !disabled {
            exporters.extend(env.exporters().iter().map(|name| match name.as_str() {
                "console" => Exporter::console().into(),
                _ => Exporter::otlp().into(),
            }));
        }
        let resource = resource(self.resource, env);
        let timeout = env.millis("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(Limits::default().export_timeout);
        let mut processors: Vec<Arc<dyn SpanProcessor>> = Vec::new();
        for UserProcessor { mut processor, destination } in self.processors {
            processor.set_resource(&resource);
            processors.push(Arc::from(processor));
            exporters.extend(processors.last().map(|shared| destination(shared.clone(), timeout)));
        }
        let destinations = exporters.into_iter().map(|exporter| exporter.resolve(env));
        let destinations: Vec<_> =
            if disabled { Vec::new() } else { destinations.collect::<Result<_, OtlpError>>()? };
        let is_prompt = destinations.iter().all(|to| to.is_prompt);
        let limits = limits(env, self.max_queue_bytes, self.schedule_delay, timeout, is_prompt);
        let semconv = self.semconv.or_else(|| env.semconv()).unwrap_or_default();
        let num_remote = destinations.iter().filter(|to| to.is_remote).count();
        let spool = spool_settings(env, self.spool, self.max_spool_bytes, num_remote)?.filter(|_| !disabled);
        let fingerprint = Fingerprint {
            layer,
            limits,
            semconv,
            spool,
            resource,
            labels: destinations.iter().map(|destination| destination.label.clone()).collect(),
            keys: destinations.iter().map(|destination| destination.key.clone()).collect(),
            disabled,
        };
        Ok(Ready { fingerprint, destinations, processors, warnings: env.take_warnings() })
    }

    /// The layer's part of the settings.
    pub(crate) fn layer(&self) -> Result<LayerConfig, BuildError> {
        let defaults = LayerConfig::default();
        let env = &self.env;
        let (retention, max_retained) = self.retention.unwrap_or((defaults.retention, defaults.max_retained));
        let lengths = ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"];
        let length = || lengths.into_iter().find_map(|name| env.number(name));
        let sampling = self.sampling.or_else(|| env.sampling()).unwrap_or(defaults.sampling);
        let (Sampling::ParentBased { root: rate } | Sampling::Rate(rate) | Sampling::TraceIdRatio(rate)) = sampling;
        let step_sample_rate = self.step_sample_rate.unwrap_or(defaults.step_sample_rate);
        for (name, value) in [("the sample rate", rate), ("the step sample rate", step_sample_rate)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(BuildError::Rate { name, value });
            }
        }
        Ok(LayerConfig {
            sampling,
            step_sample_rate,
            duplicates: self.duplicates.unwrap_or(defaults.duplicates),
            retention,
            max_retained,
            grace: self.grace.unwrap_or(defaults.grace),
            max_live: self.max_live.unwrap_or(defaults.max_live),
            max_events: self
                .max_events
                .or_else(|| env.number("OTEL_SPAN_EVENT_COUNT_LIMIT"))
                .unwrap_or(defaults.max_events)
                .max(1),
            max_value_length: self.max_value_length.or_else(length).unwrap_or(defaults.max_value_length),
            context_activation: self.context_activation.unwrap_or(defaults.context_activation),
        })
    }
}

fn spool_settings(
    env: &Env,
    directory: Option<PathBuf>,
    max_bytes: Option<u64>,
    exporters: usize,
) -> Result<Option<spool::Settings>, BuildError> {
    let given = directory.is_some();
    let Some(directory) = directory.or_else(|| env.text("JOURNEY_SPOOL_DIRECTORY").map(PathBuf::from)) else {
        return Ok(None);
    };
    match exporters {
        1 => {}
        0 if !given => return Ok(None),
        _ => return Err(BuildError::SpoolExporters { directory, exporters }),
    }
    let max_bytes = max_bytes.or_else(|| env.number("JOURNEY_SPOOL_MAX_BYTES")).unwrap_or(spool::DEFAULT_MAX_BYTES);
    Ok(Some(spool::Settings { directory, max_bytes }))
}

const MIN_SCHEDULE_DELAY: Duration = Duration::from_millis(5);
const MAX_SCHEDULE_DELAY: Duration = Duration::from_secs(24 * 3600);

fn limits(
    env: &Env,
    max_queue_bytes: Option<usize>,
    schedule_delay: Option<Duration>,
    export_timeout: Duration,
    is_prompt: bool,
) -> Limits {
    let defaults = Limits::default();
    let max_queue_spans = env.positive("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(defaults.max_queue_spans);
    let max_batch = env.positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(defaults.max_batch);
    let schedule_delay = schedule_delay.or_else(|| env.millis("OTEL_BSP_SCHEDULE_DELAY"));
    let default_delay = if is_prompt { Duration::from_millis(250) } else { defaults.schedule_delay };
    Limits {
        max_queue_bytes: max_queue_bytes.unwrap_or(defaults.max_queue_bytes),
        max_queue_spans,
        max_batch: max_batch.min(max_queue_spans),
        // No delay at all would keep a core busy, and a clock does not reach for ever.
        schedule_delay: schedule_delay.unwrap_or(default_delay).clamp(MIN_SCHEDULE_DELAY, MAX_SCHEDULE_DELAY),
        export_timeout,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use parking_lot::Mutex;

    use super::*;

    const REFERENCE: &str = include_str!("../../../docs/configuration.md");

    #[test]
    fn the_reference_lists_the_variables_that_are_read_and_no_others() {
        let read = Arc::new(Mutex::new(BTreeSet::new()));
        let asked = read.clone();
        let environment = move |name: &str| {
            asked.lock().insert(name.to_owned());
            // The sampler's argument is read only for a sampler that has one, and the spool's bound with a spool.
            match name {
                "OTEL_TRACES_SAMPLER" => Some("traceidratio".to_owned()),
                "JOURNEY_SPOOL_DIRECTORY" => Some("spool".to_owned()),
                _ => None,
            }
        };
        Builder::default().environment(environment).resolve().unwrap();
        let words = REFERENCE.split('`').filter(|word| word.starts_with("OTEL_") || word.starts_with("JOURNEY_"));
        let listed: BTreeSet<_> = words.map(str::to_owned).collect();
        assert_eq!(*read.lock(), listed);
    }
}
