//! Carries a record from the macro to the layer's `on_new_span`, on one thread.

use std::cell::Cell;

use journey_schema::SpanName;

use crate::record::SpanRecord;

thread_local! {
    static PENDING: Cell<Option<Box<SpanRecord>>> = const { Cell::new(None) };
}

/// Runs `create` with the record lying ready for the layer.
///
/// Some filter may keep the span from the layer, and so the record is taken back afterwards.
pub(crate) fn build(record: Box<SpanRecord>, create: impl FnOnce() -> tracing::Span) -> tracing::Span {
    PENDING.set(Some(record));
    let span = create();
    PENDING.take();
    span
}

/// Takes the record, if it is one of such a span.
pub(crate) fn take(name: SpanName) -> Option<Box<SpanRecord>> {
    let record = PENDING.take()?;
    if record.name == name {
        return Some(record);
    }
    PENDING.set(Some(record));
    None
}
