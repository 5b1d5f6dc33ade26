//! What is decided about a span before it is built: its parent, whether it is sampled, whether it is a duplicate.

use journey_schema::SpanName;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceId};

use crate::__private::Parent;
use crate::clock;
use crate::layer_state::LayerState;
use crate::propagation::{self, Remote};
use crate::sampling;
use crate::stats::Reason;
use crate::table::{Entry, Family, Original};

/// A span that is to be built (or, with `duplicate`, rejected in its place: its attributes may be wanted).
pub(crate) struct Decision {
    pub(crate) name: SpanName,
    pub(crate) trace_id: TraceId,
    pub(crate) parent: Option<SpanContext>,
    /// The journey's anchor, where the parent is known here.
    pub(crate) anchor_ns: Option<i64>,
    pub(crate) duplicate: Option<Box<Duplicate>>,
    /// The `llm_core` around a nested `llm_core`.
    pub(crate) sibling: Option<u64>,
}

pub(crate) enum Verdict {
    Build(Decision),
    SampledOut,
    /// Not built, and not for sampling.
    Refused(Reason),
}

/// Why a span is a duplicate, and of which one, where that is known.
pub(crate) type Duplicate = (Reason, Option<Original>);

/// What an `llm_request` shares with another one of the same client request.
#[derive(Clone, Copy)]
pub(crate) enum Sibling {
    /// Its trace, and that it is sampled.
    Sampled(TraceId),
    SampledOut,
}

/// Calls its argument with the ids of the enclosing spans, from the inside out, until it says `true`.
pub(crate) type Walk<'a> = &'a dyn Fn(&mut dyn FnMut(u64) -> bool);

/// The nearest enclosing span of a wanted name.
enum Enclosing {
    Span { id: Option<u64>, family: Family },
    SampledOut,
}

impl LayerState {
    /// Decides about a span. Runs the caller's `Headers` and OpenTelemetry's context: never under a lock.
    pub(crate) fn decide(
        &self,
        name: SpanName,
        source: Parent<'_>,
        sibling: Option<Sibling>,
        walk: Walk<'_>,
    ) -> Verdict {
        // The work of an exporter, ours or anybody's: traced, it would be exported, and that traced again.
        if Context::is_current_telemetry_suppressed() {
            return Verdict::SampledOut;
        }
        let remote = match source {
            Parent::Headers(headers) => Some(propagation::extract(headers, false, &self.core.stats)),
            Parent::Carrier(carrier) => Some(propagation::extract(carrier, true, &self.core.stats)),
            Parent::Context | Parent::Span(_) => None,
        };
        match name {
            SpanName::LlmRequest => self.decide_request(source, remote, sibling, walk),
            SpanName::LlmCore => self.decide_core(source, remote, walk),
            SpanName::SchedulerStep => {
                if sampling::chance(self.core.config.step_sample_rate) {
                    Verdict::Build(Decision::root(name))
                } else {
                    Verdict::SampledOut
                }
            }
            SpanName::ModelForward => match self.enclosing(walk, |name| name == SpanName::SchedulerStep) {
                Some(Enclosing::Span { family, .. }) => Verdict::Build(Decision::child(name, &family)),
                Some(Enclosing::SampledOut) => Verdict::SampledOut,
                None => Verdict::Refused(Reason::NoParent),
            },
        }
    }

    fn decide_request(
        &self,
        source: Parent<'_>,
        remote: Option<Remote>,
        sibling: Option<Sibling>,
        walk: Walk<'_>,
    ) -> Verdict {
        let from_journey = remote.as_ref().is_some_and(|remote| remote.from_journey);
        let remote = remote.and_then(|remote| remote.parent);
        let enclosing = self.enclosing(walk, SpanName::is_journey);
        let (parent, anchor_ns, duplicate) = match (remote, enclosing) {
            (Some(parent), Some(Enclosing::Span { id, family })) if parent.trace_id() == family.context.trace_id() => {
                let original = self.request_of(id, family, walk);
                (Some(parent), None, Some(Box::new((Reason::Nested, Some(original)))))
            }
            (Some(parent), _) => {
                let duplicate = self.handed_off(&parent, from_journey);
                (Some(parent), None, duplicate)
            }
            (None, Some(Enclosing::SampledOut)) => return Verdict::SampledOut,
            (None, Some(Enclosing::Span { id, family })) => {
                let parent = family.context.clone();
                let original = self.request_of(id, family, walk);
                (Some(parent), None, Some(Box::new((Reason::Nested, Some(original)))))
            }
            (None, None) => match active_context(source) {
                Some(active) => {
                    let parent = propagation::adopt(active, &self.core.stats);
                    let duplicate = self.handed_off(&parent, false);
                    (Some(parent), None, duplicate)
                }
                None => (None, None, None),
            },
        };
        let trace_id = match (&parent, sibling) {
            (Some(parent), _) => parent.trace_id(),
            (None, Some(Sibling::Sampled(trace_id))) => trace_id,
            (None, _) => sampling::new_trace_id(),
        };
        let is_sampled = || match sibling {
            Some(Sibling::Sampled(_)) => true,
            Some(Sibling::SampledOut) => false,
            None => sampling::is_sampled(self.core.config.sampling, parent.as_ref(), trace_id),
        };
        // A duplicate is rejected and counted as one, whatever the sampler would say.
        if duplicate.is_none() && !is_sampled() {
            return Verdict::SampledOut;
        }
        Verdict::Build(Decision { name: SpanName::LlmRequest, trace_id, parent, anchor_ns, duplicate, sibling: None })
    }

    fn decide_core(&self, source: Parent<'_>, remote: Option<Remote>, walk: Walk<'_>) -> Verdict {
        let name = SpanName::LlmCore;
        if let Some(remote) = remote {
            // The API decides, the core obeys.
            let Some(parent) = remote.parent.filter(|_| remote.sampled) else {
                return if remote.sampled { Verdict::Refused(Reason::NoParent) } else { Verdict::SampledOut };
            };
            let anchor_ns = self.family_of(&parent).map(|family| family.anchor_ns);
            return Verdict::Build(Decision { anchor_ns, ..Decision::under(name, parent) });
        }
        let nearest = self.enclosing(walk, SpanName::is_journey);
        if let Some(Enclosing::Span { family, .. }) = &nearest
            && family.name == SpanName::LlmRequest
        {
            return Verdict::Build(Decision::child(name, family));
        }
        match self.enclosing(walk, |name| name == SpanName::LlmRequest) {
            Some(Enclosing::SampledOut) => return Verdict::SampledOut,
            Some(Enclosing::Span { family, .. }) => {
                let sibling = match nearest {
                    Some(Enclosing::Span { id, family }) if family.name == SpanName::LlmCore => id,
                    _ => None,
                };
                return Verdict::Build(Decision { sibling, ..Decision::child(name, &family) });
            }
            None => {}
        }
        match self.enclosing(walk, |name| name == SpanName::LlmCore) {
            Some(Enclosing::SampledOut) => return Verdict::SampledOut,
            Some(Enclosing::Span { id: Some(id), .. }) => {
                let around = self.table.with_live(id, |live| {
                    let record = &live.record;
                    let parent = record.parent?;
                    let flags = TraceFlags::SAMPLED;
                    let state = record.trace_state().clone();
                    let parent = SpanContext::new(record.trace_id, parent.span_id, flags, parent.is_remote, state);
                    Some(Decision {
                        anchor_ns: Some(record.anchor_ns),
                        sibling: Some(id),
                        ..Decision::under(name, parent)
                    })
                });
                if let Some(decision) = around.flatten() {
                    return Verdict::Build(decision);
                }
            }
            _ => {}
        }
        let active = active_context(source).and_then(|parent| Some((self.family_of(&parent)?, parent)));
        match active {
            Some((family, _)) if family.name == SpanName::LlmRequest => Verdict::Build(Decision::child(name, &family)),
            _ => Verdict::Refused(Reason::NoParent),
        }
    }

    /// What a new `llm_request` takes from the one behind `id`.
    pub(crate) fn sibling(&self, id: u64) -> Option<Sibling> {
        let sibling = self.table.with(id, |entry| match entry {
            Entry::Live(live) => Some(Sibling::Sampled(live.record.trace_id)),
            Entry::Exported(family) => Some(Sibling::Sampled(family.context.trace_id())),
            Entry::SampledOut(_) => Some(Sibling::SampledOut),
            // What was refused decides nothing.
            Entry::Rejected { .. } => None,
        });
        sibling.flatten()
    }

    /// Rule 2: the parent is itself a journey's span.
    fn handed_off(&self, parent: &SpanContext, from_journey: bool) -> Option<Box<Duplicate>> {
        // Of another process, or closed: all that is known is where its children belong.
        let stranger = || {
            let (name, context) = (SpanName::LlmRequest, parent.clone());
            from_journey.then(|| Family { name, context, anchor_ns: clock::anchor_ns() })
        };
        match self.core.seen(parent.trace_id(), parent.span_id()) {
            Some(seen) => {
                let mut original = self.original(seen);
                original.family = original.family.or_else(stranger);
                let original = match &original.family {
                    Some(family) if family.name == SpanName::LlmCore => {
                        let family = family.clone();
                        self.request_of(original.id, family, &|_| {})
                    }
                    _ => original,
                };
                Some(Box::new((Reason::HandedOff, Some(original))))
            }
            None => stranger()
                .map(|family| Box::new((Reason::HandedOff, Some(Original { id: None, family: Some(family) })))),
        }
    }

    /// The `llm_request` that a nested one duplicates: `id` itself, or the one around or above that `llm_core`.
    fn request_of(&self, id: Option<u64>, family: Family, walk: Walk<'_>) -> Original {
        if family.name == SpanName::LlmRequest {
            return Original { id, family: Some(family) };
        }
        if let Some(Enclosing::Span { id, family }) = self.enclosing(walk, |name| name == SpanName::LlmRequest) {
            return Original { id, family: Some(family) };
        }
        let parent = id.and_then(|id| self.table.with_live(id, |live| live.record.parent)).flatten();
        let seen = parent.and_then(|parent| self.core.seen(family.context.trace_id(), parent.span_id));
        seen.map_or(Original { id: None, family: Some(family) }, |seen| self.original(seen))
    }

    /// The `llm_request` of the journey around a span, if there is a journey around it.
    pub(crate) fn enclosing_request(&self, walk: Walk<'_>) -> Option<Original> {
        match self.enclosing(walk, SpanName::is_journey)? {
            Enclosing::Span { id, family } => Some(self.request_of(id, family, walk)),
            Enclosing::SampledOut => None,
        }
    }

    fn family_of(&self, context: &SpanContext) -> Option<Family> {
        let seen = self.core.seen(context.trace_id(), context.span_id())?;
        self.original(seen).family
    }

    fn enclosing(&self, walk: Walk<'_>, wanted: impl Fn(SpanName) -> bool) -> Option<Enclosing> {
        let mut found = None;
        walk(&mut |id| {
            found = self
                .table
                .with(id, |entry| match entry {
                    Entry::Live(live) if wanted(live.record.name) => {
                        Some(Enclosing::Span { id: Some(id), family: live.family() })
                    }
                    Entry::Exported(family) if wanted(family.name) => {
                        Some(Enclosing::Span { id: Some(id), family: Family::clone(family) })
                    }
                    Entry::SampledOut(name) if wanted(*name) => Some(Enclosing::SampledOut),
                    Entry::Rejected { original: Some(original), .. } => match &**original {
                        Original { id, family: Some(family) } if wanted(family.name) => {
                            Some(Enclosing::Span { id: *id, family: family.clone() })
                        }
                        _ => None,
                    },
                    _ => None,
                })
                .flatten();
            found.is_some()
        });
        found
    }
}

impl Decision {
    fn root(name: SpanName) -> Self {
        let trace_id = sampling::new_trace_id();
        Self { name, trace_id, parent: None, anchor_ns: None, duplicate: None, sibling: None }
    }

    fn under(name: SpanName, parent: SpanContext) -> Self {
        let trace_id = parent.trace_id();
        Self { name, trace_id, parent: Some(parent), anchor_ns: None, duplicate: None, sibling: None }
    }

    fn child(name: SpanName, family: &Family) -> Self {
        Self { anchor_ns: Some(family.anchor_ns), ..Self::under(name, family.context.clone()) }
    }
}

/// The valid span of the active OpenTelemetry context, or of the given span in a user's own `OpenTelemetryLayer`.
fn active_context(source: Parent<'_>) -> Option<SpanContext> {
    let context = |context: &Context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid);
    #[cfg(feature = "tracing-opentelemetry")]
    if let Parent::Span(span) = source {
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        if let Some(found) = context(&span.context()) {
            return Some(found);
        }
    }
    #[cfg(not(feature = "tracing-opentelemetry"))]
    let _ = source;
    let active = Context::map_current(context);
    #[cfg(feature = "tracing-opentelemetry")]
    let active = active.or_else(|| {
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        // For a layer that was told not to activate its contexts.
        let span = tracing::Span::current();
        if span.is_none() { None } else { context(&span.context()) }
    });
    active
}
