//! `/metrics`: vLLM's metric names, in the OpenMetrics text format that Prometheus reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use journey_layer::{AbortReason, JourneyStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::backend::Backend;
use super::error::ApiError;

/// Media type of [`Metrics::text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = [(&'static str, &'static str); 1];

/// Reads the journeys' ledger; without journey tracing there is none.
pub type LedgerReader = Box<dyn Fn() -> JourneyStats + Send + Sync>;

/// Counts the requests that wait for their first output.
pub(super) type NumWaiting = Box<dyn Fn() -> usize + Send + Sync>;

/// The server's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Requests,
    ids_truncated: Counter<u64, AtomicU64>,
}

/// What is measured on requests.
#[derive(Clone, Debug)]
struct Requests {
    time_to_first_token: Histogram,
    inter_token_latency: Histogram,
    e2e_latency: Histogram,
    success: Family<Label, Counter<u64, AtomicU64>>,
    aborted: Family<Label, Counter<u64, AtomicU64>>,
}

impl Metrics {
    /// Metrics of a server that works through `backend`.
    pub(super) fn new(backend: Backend, num_waiting: NumWaiting, ledger: Option<LedgerReader>) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let requests = Requests {
            time_to_first_token: seconds(),
            inter_token_latency: seconds(),
            e2e_latency: seconds(),
            success: Family::default(),
            aborted: Family::default(),
        };
        let mut registry = Registry::default();
        let vllm = |name: &str| format!("vllm:{name}");
        registry.register(
            vllm("time_to_first_token_seconds"),
            "From the arrival to the first token of a sequence",
            requests.time_to_first_token.clone(),
        );
        registry.register(
            vllm("inter_token_latency_seconds"),
            "Between two tokens of a sequence",
            requests.inter_token_latency.clone(),
        );
        registry.register(
            vllm("e2e_request_latency_seconds"),
            "From the arrival to the last token of a sequence",
            requests.e2e_latency.clone(),
        );
        registry.register(vllm("request_success"), "Sequences that were finished", requests.success.clone());
        registry.register(vllm("request_aborted"), "Requests that ended early", requests.aborted.clone());
        let ids_truncated = Counter::default();
        registry.register("request_ids_truncated", "Request ids of clients that were cut", ids_truncated.clone());
        registry.register_collector(Box::new(EngineMetrics { backend, num_waiting }));
        if let Some(ledger) = ledger {
            registry.register_collector(Box::new(LedgerMetrics { ledger }));
        }
        Self { registry, requests, ids_truncated }
    }

    /// Follows one request from now on.
    pub(super) fn arrived(&self) -> RequestTimer {
        RequestTimer {
            requests: self.requests.clone(),
            arrived: Instant::now(),
            last: Vec::new(),
            settled: AtomicBool::new(false),
        }
    }

    /// A client's request id was too long.
    pub(super) fn id_truncated(&self) {
        self.ids_truncated.inc();
    }

    /// All of it as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a string takes what is written");
        text
    }
}

/// One request's times. Dropped before its end, the client is gone.
#[derive(Debug)]
pub(super) struct RequestTimer {
    requests: Requests,
    arrived: Instant,
    /// When each sequence brought its last token.
    last: Vec<Option<Instant>>,
    /// How the request ended has been counted.
    settled: AtomicBool,
}

impl RequestTimer {
    /// The sequence `index` brought `tokens` more.
    pub(super) fn tokens(&mut self, index: usize, tokens: usize) {
        if tokens == 0 {
            return;
        }
        let now = Instant::now();
        if self.last.len() <= index {
            self.last.resize(index + 1, None);
        }
        match self.last[index].replace(now) {
            None => self.requests.time_to_first_token.observe((now - self.arrived).as_secs_f64()),
            Some(last) => self.requests.inter_token_latency.observe((now - last).as_secs_f64() / tokens as f64),
        }
    }

    /// A sequence was finished.
    pub(super) fn finished(&self, reason: &'static str) {
        self.requests.success.get_or_create(&[("finished_reason", reason)]).inc();
        self.requests.e2e_latency.observe(self.arrived.elapsed().as_secs_f64());
    }

    /// Passes a result on; an error ends the request early.
    ///
    /// # Errors
    /// That of `result`.
    pub(super) fn note<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        if let Err(error) = &result {
            self.aborted(error.abort_reason());
        }
        result
    }

    /// All sequences were finished.
    pub(super) fn answered(&self) {
        self.settled.store(true, Relaxed);
    }

    /// The request ended early.
    pub(super) fn aborted(&self, reason: AbortReason) {
        if !self.settled.swap(true, Relaxed) {
            self.requests.aborted.get_or_create(&[("reason", reason.as_str())]).inc();
        }
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.aborted(AbortReason::ClientDisconnect);
    }
}

struct EngineMetrics {
    backend: Backend,
    num_waiting: NumWaiting,
}

impl std::fmt::Debug for EngineMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineMetrics").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Collector for EngineMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.backend.stats();
        let used = stats.num_blocks.saturating_sub(stats.num_free_blocks);
        let gauges = [
            ("num_requests_running", "Sequences in the running batch", stats.num_running_reqs as f64),
            ("num_requests_waiting", "Sequences in the waiting queue", stats.num_waiting_reqs as f64),
            (
                "kv_cache_usage_perc",
                "Share of the KV cache in use, 0 to 1",
                used as f64 / stats.num_blocks.max(1) as f64,
            ),
        ];
        for (name, help, value) in gauges {
            let name = format!("vllm:{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let help = "Requests that wait for their first output; --max-waiting-requests may";
        let metric = encoder.encode_descriptor("requests_waiting", help, None, MetricType::Gauge)?;
        ConstGauge::new((self.num_waiting)() as f64).encode(metric)?;
        let counters = [
            ("prompt_tokens", "Prompt tokens taken in", stats.prompt_tokens),
            ("generation_tokens", "Tokens generated", stats.generation_tokens),
            ("prefix_cache_hits", "Prompt tokens that the prefix cache had", stats.prefix_cached_tokens),
            ("recomputed_tokens", "Tokens computed again after preemptions", stats.recomputed_tokens),
            ("num_preemptions", "Preemptions", stats.num_preemptions),
            ("scheduler_steps", "Scheduler steps", stats.num_steps),
        ];
        for (name, help, value) in counters {
            let name = format!("vllm:{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

struct LedgerMetrics {
    ledger: LedgerReader,
}

impl std::fmt::Debug for LedgerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerMetrics").finish_non_exhaustive()
    }
}

impl Collector for LedgerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = (self.ledger)();
        for (name, live, spooled, ledger) in [
            ("journey_spans", "journey_live_spans", "journey_spooled_spans", &stats.spans),
            ("journey_events", "journey_live_events", "journey_spooled_events", &stats.events),
        ] {
            let help =
                "The ledger of journey tracing: started + recovered = exported + rejected + dropped + live + spooled";
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (state, reason, count) in ledger.counters() {
                let reason = reason.map(|reason| ("reason", reason.as_str()));
                let labels: Vec<_> = [("state", state)].into_iter().chain(reason).collect();
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
            for (name, help, count) in [
                (live, "Of the ledger of journey tracing: open, or waiting for the exporters", ledger.live),
                (spooled, "Of the ledger of journey tracing: on disk, to be sent later", ledger.spooled),
            ] {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(metric)?;
            }
        }
        let help = "Corrections and remarks of journey tracing on what did arrive, or never began";
        let mut family = encoder.encode_descriptor("journey_notes", help, None, MetricType::Counter)?;
        for (reason, count) in stats.notes() {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", reason.as_str())])?)?;
        }
        Ok(())
    }
}
