//! The spans that stand in for sampled-out ones.
//!
//! A sampled-out journey must cost next to nothing, and yet an event inside it must be told from an event outside any
//! journey. So a subscriber holds one span per name, and every sampled-out request gets a clone of it: two
//! reference counts, no record, and whoever looks for the enclosing span finds "sampled out".

use journey_schema::SpanName;
use parking_lot::RwLock;
use tracing_core::callsite::DefaultCallsite;
use tracing_core::dispatcher::Dispatch;
use tracing_core::{Callsite, Kind, Level, Metadata, metadata};

macro_rules! placeholder {
    ($callsite:ident, $metadata:ident, $target:literal, $name:literal) => {
        static $callsite: DefaultCallsite = DefaultCallsite::new(&$metadata);
        static $metadata: Metadata<'static> = metadata! {
            name: $name,
            target: $target,
            level: Level::INFO,
            fields: &[],
            callsite: &$callsite,
            kind: Kind::SPAN,
        };
    };
}

placeholder!(REQUEST, REQUEST_METADATA, "vllm.api", "llm_request");
placeholder!(CORE, CORE_METADATA, "vllm.scheduler", "llm_core");
placeholder!(STEP, STEP_METADATA, "vllm.scheduler", "scheduler_step");
placeholder!(FORWARD, FORWARD_METADATA, "vllm.scheduler", "model_forward");

const ALL: [(SpanName, &Metadata<'static>); 4] = [
    (SpanName::LlmRequest, &REQUEST_METADATA),
    (SpanName::LlmCore, &CORE_METADATA),
    (SpanName::SchedulerStep, &STEP_METADATA),
    (SpanName::ModelForward, &FORWARD_METADATA),
];

/// The span that the metadata is a placeholder of, if it is one.
#[inline]
pub(crate) fn name_of(metadata: &Metadata<'_>) -> Option<SpanName> {
    ALL.iter().find(|(_, of)| std::ptr::eq(*of as *const Metadata<'_>, metadata)).map(|(name, _)| *name)
}

/// One subscriber's placeholders.
#[derive(Default)]
pub(crate) struct Placeholders {
    /// By [`SpanName`]; made on first use.
    spans: RwLock<[Option<tracing::Span>; 4]>,
}

impl Placeholders {
    /// The placeholder for `name` in the subscriber behind `dispatch`.
    pub(crate) fn get(&self, name: SpanName, dispatch: &Dispatch) -> tracing::Span {
        if let Some(span) = &self.spans.read()[name as usize] {
            return span.clone();
        }
        let span = create(name, dispatch);
        if span.is_none() {
            return span;
        }
        // Created outside the lock, and so is one dropped that came second: both run every layer of the subscriber.
        let mut spans = self.spans.write();
        let first = spans[name as usize].get_or_insert_with(|| span.clone()).clone();
        drop(spans);
        first
    }

    /// Lets go of the placeholders: they hold the subscriber that holds them.
    pub(crate) fn clear(&self) {
        let spans = std::mem::take(&mut *self.spans.write());
        drop(spans);
    }
}

/// The callsite of the placeholder: what filters by target or name say of it, they say of every span of the name.
pub(crate) fn callsite(name: SpanName) -> &'static DefaultCallsite {
    match name {
        SpanName::LlmRequest => &REQUEST,
        SpanName::LlmCore => &CORE,
        SpanName::SchedulerStep => &STEP,
        SpanName::ModelForward => &FORWARD,
    }
}

/// Registers the callsites. Left to their first use, that could be inside a dispatcher's closure, where `tracing`
/// registers a callsite as if nobody listened.
pub(crate) fn register() {
    for (name, _) in ALL {
        callsite(name).interest();
    }
}

fn create(name: SpanName, dispatch: &Dispatch) -> tracing::Span {
    let callsite = callsite(name);
    // Registers the callsite; and `enabled` is what per-layer filters note their verdict in, so it must be asked
    // although the answer of ours is known: without it a layer whose filter says no would be shown the span.
    if callsite.interest().is_never() || !dispatch.enabled(callsite.metadata()) {
        return tracing::Span::none();
    }
    let metadata = callsite.metadata();
    tracing::Span::new_root_with(metadata, &metadata.fields().value_set(&[]), dispatch)
}
