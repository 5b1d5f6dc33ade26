//! The guard at the provider: code that bypasses `tracing` and calls the OpenTelemetry API meets it on our provider.
//!
//! No span leaves in a third scope, none with a name that its scope does not own, and no second `llm_request`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use journey_schema::{Attr, HISTORICAL_DUPLICATE_SCOPE, Scope, SpanName, carrier};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use parking_lot::Mutex;

use crate::clock;
use crate::core::Core;
use crate::duplicates::{Duplicates, Origin};
use crate::error::FlushError;
use crate::export::raw;
use crate::export::sink::{ExportSink, Tick};
use crate::sink::Sink;
use crate::stats::{Count, Reason, Stats};

/// What the layer knows that decides about a span of our provider.
pub(crate) trait RawSpans: Send + Sync {
    /// A span of the schema begins.
    fn begin(&self, name: SpanName, span: &SpanData);

    /// It ended: whether it may leave.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn end(&self, name: SpanName, span: &SpanData) -> Result<(), Reason>;

    /// A span has ended, and may have begun as one of the schema.
    fn release(&self, span: &SpanData);
}

/// The one span processor of our provider.
pub(crate) struct Guard {
    pub(crate) rules: Arc<dyn RawSpans>,
    pub(crate) sink: Arc<ExportSink>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) warnings: Arc<dyn Tick>,
    /// Bytes of a text that are kept.
    pub(crate) max_value_length: usize,
    /// Processors of the user, which see spans begin; they see them end on the export thread.
    pub(crate) processors: Vec<Arc<dyn SpanProcessor>>,
    /// What was warned of: reason, scope and name.
    pub(crate) warned: Mutex<HashSet<(Reason, String)>>,
}

/// Names come from anybody's code; warnings about them are bounded.
const MAX_WARNED: usize = 64;

/// The span's place in the schema.
fn classify(span: &SpanData) -> Result<SpanName, Reason> {
    let scope = Scope::from_name(span.instrumentation_scope.name()).ok_or(Reason::UnknownScope)?;
    SpanName::from_name(&span.name).filter(|name| name.scope() == scope).ok_or(Reason::UnknownSpan)
}

impl Guard {
    fn warn(&self, reason: Reason, span: &SpanData) {
        let scope = span.instrumentation_scope.name();
        let what = format!("{} in scope {scope}", span.name);
        let mut warned = self.warned.lock();
        if warned.len() >= MAX_WARNED || !warned.insert((reason, what.clone())) {
            return;
        }
        drop(warned);
        let why = match scope {
            HISTORICAL_DUPLICATE_SCOPE => "; this is the scope in which do_tracing() opened its second llm_request",
            _ => "",
        };
        self.warnings.warn(format!(
            "{reason}: {what}, made with the OpenTelemetry API, was refused{why}; counted, and not warned of again"
        ));
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("processors", &self.processors).finish_non_exhaustive()
    }
}

impl SpanProcessor for Guard {
    fn on_start(&self, span: &mut Span, context: &Context) {
        if let Some(data) = span.exported_data()
            && let Ok(name) = classify(&data)
        {
            self.rules.begin(name, &data);
        }
        self.processors.iter().for_each(|processor| processor.on_start(span, context));
    }

    fn on_end(&self, mut span: SpanData) {
        let count = Count { spans: 1, events: span.events.len() as u64 };
        self.stats.started(count);
        let verdict = classify(&span).and_then(|name| self.rules.end(name, &span));
        // Whatever it is called by now: it may have been a journey's span when it began.
        self.rules.release(&span);
        match verdict {
            Ok(()) => {
                let num_cut = raw::cut(&mut span, self.max_value_length);
                if num_cut > 0 {
                    self.stats.count(Reason::Truncated, Count { spans: num_cut, events: 0 });
                }
                self.sink.submit_raw(span);
            }
            Err(reason) => {
                self.stats.count(reason, count);
                self.warn(reason, &span);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.flush(Duration::from_secs(5))
    }

    /// Flushes: the pipeline goes on for the layer, and stops with its [`Journey`](crate::Journey).
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.flush(timeout)
    }
}

impl Guard {
    fn flush(&self, timeout: Duration) -> OTelSdkResult {
        self.sink.flush(timeout).map_err(|error| match error {
            FlushError::Timeout { timeout, .. } => OTelSdkError::Timeout(timeout),
            other => OTelSdkError::InternalFailure(other.to_string()),
        })
    }
}

/// Stands for "no layer's span": layers number themselves from zero.
const NO_LAYER: Origin = Origin { layer: u64::MAX, id: 0 };

impl RawSpans for Core {
    fn begin(&self, name: SpanName, span: &SpanData) {
        if name.is_journey() {
            let context = &span.span_context;
            self.duplicates.open(Duplicates::span_key(context.trace_id(), context.span_id()), name, NO_LAYER);
        }
    }

    fn end(&self, name: SpanName, span: &SpanData) -> Result<(), Reason> {
        if !name.is_journey() {
            return Ok(());
        }
        let key = Duplicates::span_key(span.span_context.trace_id(), span.span_context.span_id());
        let verdict = self.judge(name, span);
        if verdict.is_ok() {
            self.remember_key(key, clock::monotonic_ns());
        }
        verdict
    }

    fn release(&self, span: &SpanData) {
        self.duplicates.release(Duplicates::span_key(span.span_context.trace_id(), span.span_context.span_id()));
    }
}

impl Core {
    /// The duplicate rules, for a span that the layer did not make.
    fn judge(&self, name: SpanName, span: &SpanData) -> Result<(), Reason> {
        let trace_id: TraceId = span.span_context.trace_id();
        let parent = span.parent_span_id;
        if name == SpanName::LlmRequest && parent != SpanId::INVALID {
            let state = span.span_context.trace_state().get(carrier::TRACESTATE_KEY);
            let from_journey = span.parent_span_is_remote && state == Some(carrier::TRACESTATE_VALUE);
            if from_journey || self.seen(trace_id, parent).is_some() {
                return Err(Reason::HandedOff);
            }
        }
        let id = span.attributes.iter().find_map(|pair| match &pair.value {
            Value::String(id) if pair.key.as_str() == Attr::RequestId.key() => Some(id.as_str()),
            _ => None,
        });
        let key = id.and_then(|id| self.duplicates.id_key(name, trace_id, id));
        match key.and_then(|key| self.duplicates.get(key, clock::monotonic_ns())) {
            None => Ok(()),
            Some(_) if name == SpanName::LlmCore => Err(Reason::SameSequence),
            Some(_) => Err(Reason::SameId),
        }
    }
}
