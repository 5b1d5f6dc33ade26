//! The ledger as OpenTelemetry metrics.

use std::sync::{Arc, Weak};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use crate::core::Core;
use crate::export::sink::ExportSink;
use crate::sink::Sink;
use crate::stats::{JourneyStats, Ledger, Stats};

/// What a meter's callbacks read. They live as long as the meter's provider, and must not keep the pipeline from ending
/// with its last handle; the counters they go on reporting.
#[derive(Clone)]
pub(crate) struct Observed {
    stats: Arc<Stats>,
    core: Weak<Core>,
    sink: Weak<ExportSink>,
}

impl Observed {
    pub(crate) fn new(core: &Arc<Core>, sink: &Arc<ExportSink>) -> Self {
        Self { stats: core.stats.clone(), core: Arc::downgrade(core), sink: Arc::downgrade(sink) }
    }

    fn read(&self) -> JourneyStats {
        let census = self.core.upgrade().map(|core| core.census()).unwrap_or_default();
        let queued = self.sink.upgrade().map(|sink| sink.backlog()).unwrap_or_default();
        self.stats.snapshot(census, queued)
    }

    /// Makes the instruments on `meter`. Their callbacks hold no lock while they call into OpenTelemetry.
    pub(crate) fn register(&self, meter: &Meter) {
        self.ledger(meter, Names::SPANS, |stats| &stats.spans);
        self.ledger(meter, Names::EVENTS, |stats| &stats.events);
        let observed = self.clone();
        meter
            .u64_observable_counter("journey.notes")
            .with_unit("{note}")
            .with_description("Corrections and remarks of journey tracing on what did arrive, or never began")
            .with_callback(move |instrument| {
                for (reason, count) in observed.read().notes() {
                    instrument.observe(count, &[KeyValue::new("reason", reason.as_str())]);
                }
            })
            .build();
    }

    fn ledger(&self, meter: &Meter, names: Names, of: fn(&JourneyStats) -> &Ledger) {
        let observed = self.clone();
        meter
            .u64_observable_counter(names.total)
            .with_unit(names.unit)
            .with_description(names.total_help)
            .with_callback(move |instrument| observe(of(&observed.read()), instrument))
            .build();
        let gauge = |name, help, count: fn(&Ledger) -> u64| {
            let observed = self.clone();
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(names.unit)
                .with_description(help)
                .with_callback(move |instrument| {
                    instrument.observe(i64::try_from(count(of(&observed.read()))).unwrap_or(i64::MAX), &[]);
                })
                .build();
        };
        gauge(names.live, names.live_help, |ledger| ledger.live);
        gauge(names.spooled, names.spooled_help, |ledger| ledger.spooled);
    }
}

/// How the instruments of one ledger are called.
struct Names {
    total: &'static str,
    total_help: &'static str,
    live: &'static str,
    live_help: &'static str,
    spooled: &'static str,
    spooled_help: &'static str,
    unit: &'static str,
}

impl Names {
    const SPANS: Self = Self {
        total: "journey.spans",
        total_help: "Spans of journey tracing: started + recovered = exported + rejected + dropped + live + spooled",
        live: "journey.live_spans",
        live_help: "Spans of journey tracing that are open or wait for the exporters",
        spooled: "journey.spooled_spans",
        spooled_help: "Spans of journey tracing on disk, to be sent later",
        unit: "{span}",
    };
    const EVENTS: Self = Self {
        total: "journey.events",
        total_help: "Events of journey tracing: started + recovered = exported + rejected + dropped + live + spooled",
        live: "journey.live_events",
        live_help: "Events of journey tracing on spans that are open or wait for the exporters",
        spooled: "journey.spooled_events",
        spooled_help: "Events of journey tracing on spans on disk, to be sent later",
        unit: "{event}",
    };
}

fn observe(ledger: &Ledger, instrument: &dyn AsyncInstrument<u64>) {
    for (state, reason, count) in ledger.counters() {
        let state = KeyValue::new("state", state);
        match reason {
            None => instrument.observe(count, &[state]),
            Some(reason) => instrument.observe(count, &[state, KeyValue::new("reason", reason.as_str())]),
        }
    }
}
