//! Journeys caught in memory, for tests: ours and users'.
//!
//! ```
//! use journey_layer::{macros::*, testing};
//!
//! let capture = testing::capture();
//! let span = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
//! journey_event!(&span, ARRIVED);
//! journey_event!(&span, ABORTED, reason = timeout);
//! drop(span);
//!
//! let spans = capture.spans();
//! assert_eq!(spans[0].name, "llm_request");
//! assert_eq!(spans[0].event_names(), ["api.ARRIVED", "api.ABORTED"]);
//! assert_eq!(spans[0].attribute("gen_ai.request.id"), Some(&"cmpl-1".into()));
//! assert!(capture.stats().balances());
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::Value;
use opentelemetry::trace::{SpanContext, SpanId, TraceId};
use parking_lot::Mutex;
use tracing_core::Subscriber;
use tracing_core::dispatcher::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::core::Core;
use crate::error::FlushError;
use crate::layer::{JourneyFilter, JourneyLayer};
use crate::pipeline::Builder;
use crate::pool::RecordPool;
use crate::record::{SpanRecord, ValueRef};
use crate::sink::Sink;
use crate::stats::{Count, JourneyStats, Stats};

/// Catches every journey of this thread until it is dropped: a registry with the journey layer alone, as the thread's
/// default subscriber. Step tracing is on.
///
/// Spans are there as soon as they have ended; nothing runs in the background.
#[must_use = "the capture ends when it is dropped"]
pub fn capture() -> Capture {
    Capture::default().install()
}

/// [`capture`] with the layer's settings of `builder`; what it says of exporters is not looked at.
#[must_use = "the capture ends when it is dropped"]
pub fn capture_with(builder: Builder) -> Capture {
    Capture::new(builder).install()
}

/// What [`capture`] caught.
pub struct Capture {
    core: Arc<Core>,
    sink: Arc<MemorySink>,
    guard: Option<DefaultGuard>,
}

impl Default for Capture {
    fn default() -> Self {
        Self::new(Builder::default().step_sample_rate(1.0))
    }
}

impl Capture {
    /// A capture with the layer's settings of `builder`, for a subscriber of the test's own: see [`Self::layer`].
    /// The process's environment is not looked at.
    ///
    /// # Panics
    /// If the settings cannot work, such as a rate above 1: [`Builder::build`] returns an error for those.
    pub fn new(builder: Builder) -> Self {
        let config = builder.environment(|_| None).layer().unwrap_or_else(|error| panic!("{error}"));
        let stats = Arc::new(Stats::new());
        let sink = Arc::new(MemorySink { stats: stats.clone(), spans: Mutex::default(), pool: RecordPool::default() });
        Self { core: Core::new(config, sink.clone(), stats), sink, guard: None }
    }

    /// The layer to add to a subscriber, as [`Journey::layer`](crate::Journey::layer) makes it.
    pub fn layer<S>(&self) -> Filtered<JourneyLayer, JourneyFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        JourneyLayer::new(self.core.clone(), false).with_filter(JourneyFilter)
    }

    fn install(mut self) -> Self {
        let layer = JourneyLayer::new(self.core.clone(), true);
        self.guard = Some(tracing_subscriber::registry().with(layer).set_default());
        self
    }

    /// The spans that have ended, in the order in which they did.
    pub fn spans(&self) -> Vec<CapturedSpan> {
        self.sink.spans.lock().clone()
    }

    /// The one span called `name`.
    ///
    /// # Panics
    /// If there is none, or more than one: use [`Self::spans`] there.
    #[track_caller]
    pub fn span(&self, name: &str) -> CapturedSpan {
        let mut spans: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert!(spans.len() == 1, "{} spans called {name}", spans.len());
        spans.remove(0)
    }

    /// The ledger.
    pub fn stats(&self) -> JourneyStats {
        self.core.stats.snapshot(self.core.census(), Count::default())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.core.end_all();
        self.guard.take();
    }
}

/// A span as it would be exported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CapturedSpan {
    /// Name of the span.
    pub name: &'static str,
    /// Its instrumentation scope.
    pub scope: &'static str,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// Its parent's id.
    pub parent_span_id: Option<SpanId>,
    /// Whether that parent came in a carrier or in headers.
    pub parent_is_remote: bool,
    /// The W3C trace state it passes on, without the journey member.
    pub trace_state: String,
    /// When it began.
    pub start_time: SystemTime,
    /// When it ended.
    pub end_time: SystemTime,
    /// The text of status ERROR; `None` is status UNSET.
    pub error: Option<String>,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Its events, in order.
    pub events: Vec<CapturedEvent>,
    /// The spans it is linked to.
    pub links: Vec<SpanContext>,
    /// Events beyond the limit.
    pub dropped_events: u32,
}

/// An event as it would be exported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CapturedEvent {
    /// Name on the wire.
    pub name: &'static str,
    /// When it was emitted.
    pub time: SystemTime,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
}

impl CapturedSpan {
    /// The value of the attribute `key`.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        find(&self.attributes, key)
    }

    /// The events' names, in order.
    pub fn event_names(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.name).collect()
    }

    /// The first event called `name`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn event(&self, name: &str) -> &CapturedEvent {
        let found = self.events.iter().find(|event| event.name == name);
        found.unwrap_or_else(|| panic!("no {name} among {:?}", self.event_names()))
    }

    /// How long the span lasted.
    pub fn duration(&self) -> Duration {
        self.end_time.duration_since(self.start_time).unwrap_or_default()
    }
}

impl CapturedEvent {
    /// The value of the attribute `key`.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        find(&self.attributes, key)
    }
}

fn find<'a>(attributes: &'a [(&'static str, Value)], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
}

/// Takes records on the thread that ends them.
struct MemorySink {
    stats: Arc<Stats>,
    spans: Mutex<Vec<CapturedSpan>>,
    pool: RecordPool,
}

impl Sink for MemorySink {
    fn submit(&self, record: Box<SpanRecord>) {
        let span = captured(&record);
        self.pool.give(std::iter::once(record));
        let count = Count { spans: 1, events: span.events.len() as u64 };
        self.spans.lock().push(span);
        // Last: who finds the ledger balanced finds every span.
        self.stats.exported(count);
    }

    fn pool(&self) -> &RecordPool {
        &self.pool
    }

    fn backlog(&self) -> Count {
        Count::default()
    }

    fn flush(&self, _: Duration) -> Result<(), FlushError> {
        Ok(())
    }

    fn shutdown(&self, _: Duration) -> Result<(), FlushError> {
        Ok(())
    }
}

fn captured(record: &SpanRecord) -> CapturedSpan {
    CapturedSpan {
        name: record.name.name(),
        scope: record.name.scope().name(),
        trace_id: record.trace_id,
        span_id: record.span_id,
        parent_span_id: record.parent.map(|parent| parent.span_id),
        parent_is_remote: record.parent.is_some_and(|parent| parent.is_remote),
        trace_state: record.trace_state().header(),
        start_time: record.start_time(),
        end_time: record.end_time(),
        error: record.error().map(str::to_owned),
        attributes: record.attributes().map(|(attr, value)| (attr.key(), owned(value))).collect(),
        events: record
            .events()
            .map(|event| {
                let mut attributes = Vec::with_capacity(event.len());
                event.each(|attr, value| attributes.push((attr.key(), owned(value))));
                CapturedEvent { name: event.event().wire_name(), time: event.time(), attributes }
            })
            .collect(),
        links: record.links().to_vec(),
        dropped_events: record.dropped_events,
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Int(value) => value.into(),
        ValueRef::Float(value) => value.into(),
        ValueRef::Static(text) => text.into(),
        ValueRef::Text(text) => text.to_owned().into(),
    }
}
