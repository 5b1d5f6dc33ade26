//! Carries what was decided about a span from the macro to the layer's `on_new_span`, on one thread.

use std::cell::Cell;

use journey_schema::SpanName;

use crate::decide::Decision;

thread_local! {
    static PENDING: Cell<Option<Box<Decision>>> = const { Cell::new(None) };
}

/// Runs `create` with the decision lying ready for the layer.
///
/// Some filter may keep the span from the layer, and so the decision is taken back afterwards.
pub(crate) fn build(decision: Box<Decision>, create: impl FnOnce() -> tracing::Span) -> tracing::Span {
    PENDING.set(Some(decision));
    let span = create();
    PENDING.take();
    span
}

/// Takes the decision, if it is about such a span.
pub(crate) fn take(name: SpanName) -> Option<Box<Decision>> {
    let decision = PENDING.take()?;
    if decision.name == name {
        return Some(decision);
    }
    PENDING.set(Some(decision));
    None
}
