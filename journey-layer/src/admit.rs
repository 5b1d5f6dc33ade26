//! From `journey_span!` to the layer: a span is decided about, then filled, then built.
//!
//! ```text
//! admit(..) ─► Admission::Build(ticket) ─► ticket.int(..), ticket.text(..) ─► ticket.build(|| span!(..)) ─► on_new_span
//!          └─► Admission::Out(span)                (the record, typed)         (the thread carries it)
//! ```

use std::fmt;

use journey_schema::{Attr, SpanName};
use opentelemetry::Context;
use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::subscriber::NoSubscriber;

use crate::__private::Parent;
use crate::__private::value::Given;
use crate::decide::Verdict;
use crate::emit::Problem;
use crate::layer::JourneyLayer;
use crate::layer_state::LayerState;
use crate::placeholder;
use crate::record::{SpanRecord, ValueRef, truncate};
use crate::stats::Reason;
use crate::ticket;

/// What becomes of a span that the code asks for.
pub enum Admission {
    /// Build it.
    Build(Ticket),
    /// It is sampled out (or refused): use this span in its place.
    Out(tracing::Span),
}

/// Carries the record of a span to the layer's `on_new_span`. Without a layer there is none, and nothing is kept.
///
/// The macros give each attribute once.
pub struct Ticket {
    record: Option<Box<SpanRecord>>,
    /// Bytes of one text at most.
    max_text: usize,
}

impl Ticket {
    /// An integer attribute.
    #[inline]
    pub fn int(&mut self, attr: Attr, value: Given<i64, u64>) {
        let Some(record) = &mut self.record else { return };
        match value {
            Given::Value(value) => record.push_attribute(attr, ValueRef::Int(value)),
            Given::Nothing => {}
            Given::Beyond(value) => record.problem(Problem::invalid(attr, &value)),
        }
    }

    /// A float attribute.
    #[inline]
    pub fn float(&mut self, attr: Attr, value: Given<f64, f64>) {
        let Some(record) = &mut self.record else { return };
        match value {
            Given::Value(value) if value.is_finite() => record.push_attribute(attr, ValueRef::Float(value)),
            Given::Nothing => {}
            Given::Value(value) | Given::Beyond(value) => record.problem(Problem::invalid(attr, &value)),
        }
    }

    /// A text attribute.
    pub fn text(&mut self, attr: Attr, value: Option<&str>) {
        let (Some(record), Some(value)) = (&mut self.record, value) else { return };
        let kept = truncate(value, self.max_text);
        if kept.len() < value.len() {
            record.problem(Problem::Truncated(attr));
        }
        record.push_attribute(attr, ValueRef::Text(kept));
    }

    /// What a value prints.
    pub fn print(&mut self, attr: Attr, value: &dyn fmt::Debug) {
        let Some(record) = &mut self.record else { return };
        if record.set_attribute_fmt(attr, value, self.max_text) {
            record.problem(Problem::Truncated(attr));
        }
    }

    /// Creates the span under this ticket.
    #[inline]
    pub fn build(self, create: impl FnOnce() -> tracing::Span) -> tracing::Span {
        match self.record {
            Some(record) => ticket::build(record, create),
            None => create(),
        }
    }
}

/// Decides about a span before any of its arguments is evaluated. Without a layer, every span is built as it stands.
pub fn admit(name: SpanName, parent: Parent<'_>) -> Admission {
    admit_with(name, parent, None)
}

/// The same for an `llm_request` of the same client request as `sibling`.
pub fn admit_sibling(name: SpanName, parent: Parent<'_>, sibling: &tracing::Span) -> Admission {
    admit_with(name, parent, Some(sibling))
}

fn admit_with(name: SpanName, parent: Parent<'_>, sibling: Option<&tracing::Span>) -> Admission {
    if is_switched_off(name) {
        return Admission::Out(tracing::Span::none());
    }
    // A clone, because what runs from here on may itself be traced; of a global dispatcher it is a copy.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    match dispatch.downcast_ref::<JourneyLayer>() {
        Some(layer) => layer.state.admit(name, parent, sibling, &dispatch),
        None if dispatch.is::<NoSubscriber>() => Admission::Out(tracing::Span::none()),
        None => Admission::Build(Ticket { record: None, max_text: 0 }),
    }
}

/// Whether a filter by target or level keeps every subscriber from spans of this name.
///
/// Not to be asked inside a dispatcher's closure: `tracing` registers a callsite there as if nobody listened.
#[inline]
pub(crate) fn is_switched_off(name: SpanName) -> bool {
    placeholder::callsite(name).interest().is_never()
}

impl LayerState {
    fn admit(
        &self,
        name: SpanName,
        parent: Parent<'_>,
        sibling: Option<&tracing::Span>,
        dispatch: &Dispatch,
    ) -> Admission {
        if self.core.is_closed() && !Context::is_current_telemetry_suppressed() {
            self.core.stats.span_started();
            self.core.stats.span(Reason::Shutdown);
            return Admission::Out(tracing::Span::none());
        }
        self.dispatch.get_or_init(|| dispatch.downgrade());
        let start = match parent {
            // A parent that is itself switched off takes its children along.
            Parent::Span(span) if span.is_disabled() => return Admission::Out(tracing::Span::none()),
            // Of the children of a sampled-out request none needs more of a look.
            Parent::Span(span) if is_out(name, span) => return self.sampled_out(name, dispatch),
            Parent::Span(span) => span.id(),
            _ => dispatch.current_span().id().cloned(),
        };
        let sibling = match sibling {
            Some(span) if span.is_disabled() => return Admission::Out(tracing::Span::none()),
            Some(span) => span.id().and_then(|id| self.sibling(id.into_u64())),
            None => None,
        };
        match self.decide(name, parent, sibling, &|each| self.walk_from(dispatch, start.as_ref(), each)) {
            Verdict::Build(decision) => {
                let max_text = self.core.config.max_value_length;
                Admission::Build(Ticket { record: Some(self.prepare(decision)), max_text })
            }
            Verdict::SampledOut => self.sampled_out(name, dispatch),
            Verdict::Refused(reason) => {
                self.core.stats.span_started();
                self.core.stats.span(reason);
                self.core.warn_unbuilt(name, reason);
                Admission::Out(self.placeholders.get(name, dispatch))
            }
        }
    }

    fn sampled_out(&self, name: SpanName, dispatch: &Dispatch) -> Admission {
        self.core.sampled_out(name);
        Admission::Out(self.placeholders.get(name, dispatch))
    }
}

/// Whether `parent` is the placeholder of a request, and `name` a sequence of it.
fn is_out(name: SpanName, parent: &tracing::Span) -> bool {
    name == SpanName::LlmCore && parent.metadata().and_then(placeholder::name_of) == Some(SpanName::LlmRequest)
}
