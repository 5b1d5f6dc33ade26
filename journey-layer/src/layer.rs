//! The `tracing_subscriber::Layer`: thin callbacks.

use std::sync::Arc;

use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::__private::Parent;
use crate::callsites::{self, SiteKind};
use crate::core::Core;
use crate::decide::Verdict;
use crate::layer_state::LayerState;
use crate::table::Entry;
use crate::ticket;
use crate::visitor::{EventFields, Few, Fields};

/// Maps journey spans and events onto OpenTelemetry spans. Made by [`Journey::layer`](crate::Journey::layer).
pub struct JourneyLayer {
    pub(crate) state: Arc<LayerState>,
}

impl JourneyLayer {
    pub(crate) fn new(core: Arc<Core>, alone: bool) -> Self {
        Self { state: LayerState::new(core, alone) }
    }
}

/// Lets journey callsites through and nothing else: the per-layer filter of [`Journey::layer`](crate::Journey::layer).
///
/// A plain `Layer` has no such choice: answering "never" to a foreign callsite switches it off for every other layer,
/// and answering "always" switches on every `trace!` of every dependency.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct JourneyFilter;

impl<S> Filter<S> for JourneyFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        callsites::is_wanted(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        interest(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

fn interest(metadata: &Metadata<'_>) -> Interest {
    if callsites::is_wanted(metadata) { Interest::always() } else { Interest::never() }
}

/// Shows the spans from `id` outward to `each`, until it says `true`.
pub(crate) type WalkFrom = fn(&Dispatch, &Id, &mut dyn FnMut(u64) -> bool);

fn walk_from<S>(dispatch: &Dispatch, id: &Id, each: &mut dyn FnMut(u64) -> bool)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if let Some(span) = dispatch.downcast_ref::<S>().and_then(|subscriber| subscriber.span(id)) {
        let _ = span.scope().any(|span| each(span.id().into_u64()));
    }
}

impl<S> Layer<S> for JourneyLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.state.dispatch.set(dispatch.downgrade());
    }

    fn on_layer(&mut self, _: &mut S) {
        let _ = self.state.walk.set(walk_from::<S>);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.state.alone { interest(metadata) } else { Interest::always() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        !self.state.alone || callsites::is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.state.alone.then_some(LevelFilter::INFO)
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(site) = callsites::site(attrs.metadata()) else { return };
        let state = &*self.state;
        let id = id.into_u64();
        let around = |each: &mut dyn FnMut(u64) -> bool| {
            if let Some(span) = ctx.span(&Id::from_u64(id)) {
                let _ = span.scope().skip(1).any(|span| each(span.id().into_u64()));
            }
        };
        let name = match site.kind {
            SiteKind::Span(name) => name,
            SiteKind::Placeholder(name) => return state.table.insert(id, Entry::SampledOut(name)),
            SiteKind::RefusedSpan(reason) => return state.refuse(id, site, reason, attrs, &around),
            SiteKind::Event(_) | SiteKind::RefusedEvent(_) | SiteKind::Shadow => return,
        };
        if let Some(record) = ticket::take(name) {
            return state.open(id, site, record);
        }
        match state.decide(name, Parent::Context, None, &around) {
            Verdict::Build(decision) => {
                let mut record = state.prepare(decision);
                attrs.record(&mut Fields::new(site, &state.core, &mut *record));
                state.open(id, site, record);
            }
            Verdict::SampledOut => {
                state.core.sampled_out(name);
                state.table.insert(id, Entry::SampledOut(name));
            }
            Verdict::Refused(reason) => {
                state.core.stats.span_started();
                state.core.stats.span(reason);
                state.core.warn(&site.place, reason, format_args!("{} was not opened", name.name()));
                state.table.insert(id, Entry::SampledOut(name));
            }
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(site) = ctx.metadata(id).and_then(callsites::site) else { return };
        let mut attributes = Few::new();
        values.record(&mut Fields::new(site, &self.state.core, &mut attributes));
        self.state.record(id.into_u64(), &attributes);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        self.state.link(id.into_u64(), follows.into_u64());
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let Some(site) = callsites::site(event.metadata()) else { return };
        let (state, core) = (&*self.state, &*self.state.core);
        let kind = match site.kind {
            SiteKind::Event(kind) => kind,
            SiteKind::RefusedEvent(reason) => {
                core.stats.event_started();
                core.stats.event(reason);
                return core.warn(&site.place, reason, format_args!("an event was refused"));
            }
            SiteKind::Span(_) | SiteKind::Placeholder(_) | SiteKind::RefusedSpan(_) | SiteKind::Shadow => return,
        };
        let mut fields = EventFields::default();
        event.record(&mut Fields::new(site, core, &mut fields));
        let explicit = event.parent().map(Id::into_u64);
        let start =
            explicit.or_else(|| event.is_contextual().then(|| ctx.current_span().id().map(Id::into_u64)).flatten());
        state.event(&site.place, kind, &fields, start, &|each: &mut dyn FnMut(u64) -> bool| {
            let _ = ctx.event_scope(event).is_some_and(|mut scope| scope.any(|span| each(span.id().into_u64())));
        });
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        if self.state.core.config.context_activation {
            self.state.activate(id.into_u64());
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        if self.state.core.config.context_activation {
            self.state.deactivate(id.into_u64());
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.state.close(id.into_u64());
    }
}
