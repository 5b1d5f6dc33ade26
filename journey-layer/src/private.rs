//! The other side of the macros' expansions. Not part of the public API: it changes with the macros.

use std::fmt::Display;

use tracing_core::Metadata;
use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::span::{Id, Record};
use tracing_core::subscriber::NoSubscriber;
use tracing_subscriber::registry::{LookupSpan, Registry, SpanData};

pub use journey_schema::{AbortReason, Attr, Event, FinishStatus, Phase, ScheduleKind, SpanName};
pub use tracing;

use crate::admit::is_switched_off;
pub use crate::admit::{Admission, Ticket, admit, admit_sibling};
pub use crate::emit::{EventSite, Said, emit, emit_current, record};
use crate::headers::Headers;
pub use crate::instrument::{Entered, Instrumented, enter, instrument};
use crate::layer::JourneyLayer;
use crate::layer_state::LayerState;
use crate::macros::journey_event;
use crate::placeholder;
pub use crate::progress::Progress;
use crate::table::Entry;

#[path = "value.rs"]
pub mod value;

/// Where the parent of a new span is looked for first.
#[derive(Clone, Copy)]
pub enum Parent<'a> {
    /// Nothing was given: the enclosing journey span, else the active OpenTelemetry context.
    Context,
    /// `headers = ..`: W3C headers from outside; journey members in them are not trusted.
    Headers(&'a dyn Headers),
    /// `carrier = ..`: the map that [`handoff`](crate::handoff) made.
    Carrier(&'a dyn Headers),
    /// `parent = ..`: a span of this process.
    Span(&'a tracing::Span),
}

impl LayerState {
    /// Shows the spans from `start` outward to `each`. The first is looked up here: most often it is the one.
    pub(crate) fn walk_from(&self, dispatch: &Dispatch, start: Option<&Id>, each: &mut dyn FnMut(u64) -> bool) {
        let Some(start) = start else { return };
        if !each(start.into_u64())
            && let Some(walk) = self.walk.get()
        {
            walk(dispatch, start, each);
        }
    }
}

/// Whether an event or a record for this very span can arrive anywhere.
#[inline]
pub fn wants(span: &tracing::Span) -> bool {
    span.metadata().is_some_and(|metadata| placeholder::name_of(metadata).is_none()) && !span.is_disabled()
}

/// Whether an event for the nearest enclosing span can arrive anywhere: not where that span is sampled out.
pub fn wants_current(event: Event) -> bool {
    if is_switched_off(event.span()) {
        return false;
    }
    dispatcher::get_default(|dispatch| {
        let Some(layer) = dispatch.downcast_ref::<JourneyLayer>() else { return !dispatch.is::<NoSubscriber>() };
        let current = dispatch.current_span();
        let mut wanted = true;
        layer.state.walk_from(dispatch, current.id(), &mut |id| {
            let sampled_out = layer.state.table.with(id, |entry| match entry {
                Entry::Live(live) => (live.record.name == event.span()).then_some(false),
                Entry::SampledOut(name) => (*name == event.span()).then_some(true),
                Entry::Exported(_) | Entry::Rejected { .. } => None,
            });
            let known = sampled_out.flatten();
            wanted = known != Some(true);
            known.is_some()
        });
        wanted
    })
}

/// Runs `f` on the layer behind `span`, and the span's id in it.
pub(crate) fn with_layer<T>(span: &tracing::Span, f: impl FnOnce(&LayerState, u64) -> T) -> Option<T> {
    span.with_subscriber(|(id, dispatch)| {
        dispatch.downcast_ref::<JourneyLayer>().map(|layer| f(&layer.state, id.into_u64()))
    })
    .flatten()
}

/// `err`: ends the span with the error's text.
#[cold]
pub fn failed(span: &tracing::Span, name: SpanName, error: &dyn Display) {
    match name {
        SpanName::LlmRequest => journey_event!(span, ABORTED, reason = generation_error, error = %error),
        SpanName::LlmCore => journey_event!(span, FINISHED, status = error),
        SpanName::SchedulerStep | SpanName::ModelForward => {}
    }
}

/// Runs the body of a function whose `Err` is looked at. Behind this bound the closure may give away what it holds.
#[inline]
pub fn call<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// A span that [`enclosing`] found.
pub struct Target {
    dispatch: Dispatch,
    id: Id,
    metadata: &'static Metadata<'static>,
}

impl Target {
    /// Sets one attribute.
    pub fn record(&self, key: &'static str, value: &dyn tracing::Value) {
        if let Some(field) = self.metadata.fields().field(key) {
            let values = [(&field, Some(value))];
            self.dispatch.record(&self.id, &Record::new(&self.metadata.fields().value_set(&values)));
        }
    }
}

/// The nearest enclosing span whose name is one of `owners`; none where it is sampled out.
///
/// Without a layer the current span is taken if it is one of these; the spans around it cannot be told apart.
pub fn enclosing(owners: &'static [SpanName]) -> Option<Target> {
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let (id, metadata) = {
        let current = dispatch.current_span();
        (current.id()?.clone(), current.metadata()?)
    };
    let Some(layer) = dispatch.downcast_ref::<JourneyLayer>() else {
        let owned = owners.iter().any(|owner| owner.name() == metadata.name());
        return owned.then_some(Target { dispatch, id, metadata });
    };
    let mut found = None;
    layer.state.walk_from(&dispatch, Some(&id), &mut |id| {
        let here = layer.state.table.with(id, |entry| match entry {
            Entry::Live(live) if owners.contains(&live.record.name) => Some(Owner::Live(live.site().metadata)),
            Entry::Rejected { name: Some(name), .. } if owners.contains(name) => Some(Owner::Rejected),
            Entry::SampledOut(name) if owners.contains(name) => Some(Owner::SampledOut),
            _ => None,
        });
        found = here.flatten().map(|owner| (Id::from_u64(id), owner));
        found.is_some()
    });
    let (owner, its) = found?;
    let metadata = match its {
        Owner::Live(metadata) => metadata,
        Owner::Rejected if owner == id => metadata,
        Owner::Rejected => dispatch.downcast_ref::<Registry>()?.span_data(&owner)?.metadata(),
        Owner::SampledOut => return None,
    };
    Some(Target { dispatch, id: owner, metadata })
}

/// The span that an attribute is for.
enum Owner {
    Live(&'static Metadata<'static>),
    /// What it is given is its original's, by the rules for that.
    Rejected,
    SampledOut,
}
