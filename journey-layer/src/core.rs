//! What all layers of one pipeline share.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use journey_schema::{HISTORICAL_DUPLICATE_SCOPE, SpanName};
use opentelemetry::trace::{SpanId, TraceId};
use parking_lot::Mutex;

use crate::callsites::Place;
use crate::clock;
use crate::config::LayerConfig;
use crate::duplicates::{Duplicates, Seen};
use crate::layer_state::LayerState;
use crate::lifecycle::{Ending, LiveSpan};
use crate::pool::RecordPool;
use crate::sink::Sink;
use crate::stats::{Reason, Stats};
use crate::table::Census;
use crate::warn::Warnings;

/// Shared by all layers of one pipeline.
pub(crate) struct Core {
    pub(crate) config: LayerConfig,
    pub(crate) stats: Arc<Stats>,
    pub(crate) duplicates: Duplicates,
    sink: Arc<dyn Sink>,
    warnings: Warnings,
    /// Spans refused before they had a callsite that were warned of.
    unbuilt: Mutex<HashSet<(SpanName, Reason)>>,
    layers: Mutex<Vec<Weak<LayerState>>>,
    closed: AtomicBool,
}

impl Core {
    pub(crate) fn new(config: LayerConfig, sink: Arc<dyn Sink>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self {
            duplicates: Duplicates::new(config.retention, config.max_retained),
            config,
            stats,
            sink,
            warnings: Warnings::default(),
            unbuilt: Mutex::default(),
            layers: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Whether the pipeline was shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Counts something that is neither a span nor an event lost, and warns of it once per callsite.
    pub(crate) fn note(&self, place: &'static Place, reason: Reason, detail: fmt::Arguments<'_>) {
        self.stats.span(reason);
        self.warn(place, reason, detail);
    }

    /// Warns once per callsite and reason.
    pub(crate) fn warn(&self, place: &'static Place, reason: Reason, detail: fmt::Arguments<'_>) {
        if !place.first_warning(reason) {
            return;
        }
        let Place { file, line, scope, name, .. } = place;
        let why = match reason {
            Reason::UnknownScope if *scope == HISTORICAL_DUPLICATE_SCOPE => {
                "; this is the scope in which do_tracing() opened its second llm_request"
            }
            _ => "",
        };
        self.warnings.push(format!(
            "{reason}: {detail} ({file}:{line}, {name} in scope {scope}{why}; counted, and not warned of again here)"
        ));
    }

    /// Counts a journey's span that was sampled out. Steps are not counted: most of them are not traced.
    pub(crate) fn sampled_out(&self, name: SpanName) {
        if name.is_journey() {
            self.stats.span(Reason::SampledOut);
        }
    }

    /// Whether a warning would be heard: a layer knows its subscriber, or is alone and has standard error.
    pub(crate) fn is_heard(&self) -> bool {
        self.layers().iter().any(|layer| layer.alone || layer.dispatch.get().is_some())
    }

    /// Says a message with the next tick.
    pub(crate) fn say_later(&self, message: String) {
        self.warnings.push(message);
    }

    /// Warns once per name and reason of a span that was refused before it had a callsite.
    pub(crate) fn warn_unbuilt(&self, name: SpanName, reason: Reason) {
        if self.unbuilt.lock().insert((name, reason)) {
            self.warnings.push(format!(
                "{reason}: {} in scope {} was not opened; counted, and not warned of again",
                name.name(),
                name.scope().name()
            ));
        }
    }

    /// The spans of all layers.
    pub(crate) fn census(&self) -> Census {
        let mut sum = Census::default();
        for census in self.layers().iter().map(|layer| layer.table.census()) {
            sum.open = sum.open.and(census.open);
            sum.started = sum.started.and(census.started);
        }
        sum
    }

    /// Exports finished spans whose handle somebody still holds after the grace, and says the warnings that wait.
    pub(crate) fn tick(&self) {
        let now = clock::monotonic_ns();
        let grace = i64::try_from(self.config.grace.as_nanos()).unwrap_or(i64::MAX);
        for layer in self.layers() {
            for live in layer.sweep(|live| live.is_finished() && now - live.record.end_ns >= grace) {
                self.stats.span(Reason::LeakedHandle);
                self.warn(
                    &live.site().place,
                    Reason::LeakedHandle,
                    format_args!("a handle outlived its finished span"),
                );
                self.close(live);
            }
            self.warnings.say(layer.dispatch.get(), layer.alone);
        }
        self.warnings.say(None, false);
    }

    /// Ends every open span and takes no new one: the first step of a shutdown.
    pub(crate) fn end_all(&self) {
        self.closed.store(true, Relaxed);
        for layer in self.layers() {
            layer.end_all();
        }
        self.tick();
    }

    /// Ends a span that is in no table any more, and hands its record over.
    pub(crate) fn close(&self, live: LiveSpan) {
        // The terminal event's reading is the end, and spares another one.
        let now = live.ended_ns().unwrap_or_else(clock::monotonic_ns);
        let (site, ending) = (live.site(), live.record.live.ending);
        let (record, added) = live.finish(now);
        if let Some(terminal) = added {
            // The others were counted where they stood.
            self.stats.event_started();
            self.stats.span(Reason::TerminalAdded);
            // A client that goes away in the middle of `in_journey`'s body is nobody's mistake.
            if ending != Ending::ClientDisconnect {
                self.warn(
                    &site.place,
                    Reason::TerminalAdded,
                    format_args!("closed without a terminal event, {} was added", terminal.ident()),
                );
            }
        }
        if let Some(key) = record.live.id_key {
            self.duplicates.release(key);
        }
        self.sink.submit(record);
    }

    /// What is known of the span that a parent's context names.
    pub(crate) fn seen(&self, trace_id: TraceId, span_id: SpanId) -> Option<Seen> {
        let live = self.layers().iter().find_map(|layer| layer.find(trace_id, span_id));
        live.or_else(|| self.duplicates.get(Duplicates::span_key(trace_id, span_id), clock::monotonic_ns()))
    }

    /// Remembers a span that is about to leave its table, under the table's lock: never is it unknown.
    pub(crate) fn remember(&self, live: &LiveSpan) {
        let record = &live.record;
        let now = if live.is_finished() { record.end_ns } else { clock::monotonic_ns() };
        let sequence = record.live.id_key.filter(|_| record.name == SpanName::LlmCore);
        for key in record.span_key().into_iter().chain(sequence) {
            self.remember_key(key, now);
        }
    }

    /// Remembers a key for the retention.
    pub(crate) fn remember_key(&self, key: u64, now: i64) {
        if self.duplicates.remember(key, now) {
            self.stats.span(Reason::Evicted);
        }
    }

    /// Where records come from.
    pub(crate) fn pool(&self) -> &RecordPool {
        self.sink.pool()
    }

    /// Makes a layer's spans part of the census, the sweep and the shutdown.
    pub(crate) fn add_layer(&self, layer: &Arc<LayerState>) {
        let mut layers = self.layers.lock();
        layers.retain(|layer| layer.strong_count() > 0);
        layers.push(Arc::downgrade(layer));
    }

    fn layers(&self) -> Vec<Arc<LayerState>> {
        self.layers.lock().iter().filter_map(Weak::upgrade).collect()
    }
}
