//! The ledger through a reader of the OpenTelemetry SDK.
#![allow(clippy::unwrap_used, reason = "an SDK that cannot go on fails its test")]

use std::collections::BTreeMap;
use std::time::Duration;

use journey_layer::{Exporter, Journey, JourneyStats, Ledger, Reason, macros::*};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Instrument and sorted attributes to value.
type Series = BTreeMap<String, u64>;

struct Reader {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Reader {
    fn of(journey: &Journey) -> Self {
        let exporter = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(exporter.clone()).with_interval(Duration::from_secs(3600)).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        journey.register_metrics(&provider.meter("journey"));
        Self { provider, exporter }
    }

    fn read(&self) -> Series {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let exported = self.exporter.get_finished_metrics().unwrap();
        let metrics = exported.iter().flat_map(|one| one.scope_metrics()).flat_map(|scope| scope.metrics());
        metrics.flat_map(points).collect()
    }
}

fn points(metric: &Metric) -> Vec<(String, u64)> {
    let name = |attributes: Vec<String>| format!("{}{{{}}}", metric.name(), attributes.join(","));
    let attributes = |one: &opentelemetry::KeyValue| format!("{}={}", one.key, one.value);
    match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => {
            assert!(sum.is_monotonic(), "{}", metric.name());
            sum.data_points().map(|at| (name(sorted(at.attributes().map(attributes))), at.value())).collect()
        }
        AggregatedMetrics::I64(MetricData::Sum(sum)) => {
            assert!(!sum.is_monotonic(), "{}", metric.name());
            sum.data_points()
                .map(|at| (name(sorted(at.attributes().map(attributes))), at.value().try_into().unwrap()))
                .collect()
        }
        other => panic!("{}: {other:?}", metric.name()),
    }
}

fn sorted(attributes: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<_> = attributes.collect();
    all.sort();
    all
}

/// What the series of a ledger must be.
fn expected(stats: &JourneyStats) -> Series {
    let mut series = Series::new();
    let mut ledger = |name: &str, ledger: &Ledger| {
        for (state, reason, count) in ledger.counters() {
            let reason = reason.map(|reason| format!("reason={reason},")).unwrap_or_default();
            series.insert(format!("journey.{name}{{{reason}state={state}}}"), count);
        }
        series.insert(format!("journey.live_{name}{{}}"), ledger.live);
        series.insert(format!("journey.spooled_{name}{{}}"), ledger.spooled);
    };
    ledger("spans", &stats.spans);
    ledger("events", &stats.events);
    series.extend(stats.notes().map(|(reason, count)| (format!("journey.notes{{reason={reason}}}"), count)));
    series
}

#[test]
fn an_sdk_reader_sees_the_ledger_and_it_balances() {
    let memory = Exporter::memory();
    let journey = Journey::builder().environment(|_| None).exporter(memory).build().unwrap();
    let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
    let reader = Reader::of(&journey);

    assert_eq!(reader.read()["journey.spans{reason=queue_full,state=dropped}"], 0, "there before the first loss");

    let open = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    journey_event!(&open, ARRIVED);
    let second = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    journey_event!(&second, ARRIVED);
    drop(second);
    drop(journey_span!(scope = "vllm.api", request_id = "cmpl-2"));
    journey.flush(Duration::from_secs(5)).unwrap();

    let series = reader.read();
    assert_eq!(series, expected(&journey.stats()));
    assert_eq!(series["journey.spans{state=started}"], 3);
    assert_eq!(series["journey.spans{state=exported}"], 1);
    assert_eq!(series["journey.spans{reason=same_id,state=rejected}"], 1);
    assert_eq!(series["journey.live_spans{}"], 1);
    assert_eq!(series["journey.events{reason=duplicate_span,state=rejected}"], 1);
    assert_eq!(series["journey.notes{reason=terminal_added}"], 1);
    let all = |state: &str| -> u64 {
        let of_state = |name: &str| name.starts_with("journey.spans{") && name.contains(&format!("state={state}}}"));
        series.iter().filter(|(name, _)| of_state(name)).map(|(_, count)| count).sum()
    };
    assert_eq!(all("started"), all("exported") + all("rejected") + all("dropped") + series["journey.live_spans{}"]);
}

#[test]
fn the_meter_outlives_the_pipeline_and_does_not_keep_it() {
    let memory = Exporter::memory();
    let journey = Journey::builder().environment(|_| None).exporter(memory.clone()).build().unwrap();
    let reader = Reader::of(&journey);
    {
        let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
        let span = journey_span!(scope = "vllm.api");
        drop(journey);
        assert_eq!(memory.spans().len(), 1, "the last handle ended the pipeline, though the meter is still there");
        drop(span);
    }
    let series = reader.read();
    assert_eq!((series["journey.spans{state=exported}"], series["journey.live_spans{}"]), (1, 0));
}

#[test]
fn every_reason_has_a_series() {
    let journey = Journey::builder().environment(|_| None).exporter(Exporter::memory()).build().unwrap();
    let series = Reader::of(&journey).read();
    for reason in Reason::ALL {
        assert!(series.keys().any(|name| name.contains(&format!("reason={reason}"))), "{reason}");
    }
}

#[test]
fn a_disabled_sdk_reports_nothing() {
    let disabled = |name: &str| (name == "OTEL_SDK_DISABLED").then(|| "true".to_owned());
    let journey = Journey::builder().environment(disabled).build().unwrap();
    assert!(Reader::of(&journey).read().is_empty());
}
