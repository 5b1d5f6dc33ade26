//! Carries a record from the macro to the layer's `on_new_span`, on one thread.

use std::cell::Cell;

use journey_schema::SpanName;

use crate::record::SpanRecord;

thread_local! {
    static PENDING: Cell<Option<Box<SpanRecord>>> = const { Cell::new(None) };
}

/// Runs `create` with the record lying ready for the layer.
///
/// Some filter may keep the span from the layer, another layer may panic, or make a journey's span meanwhile: so what lay there
/// before lies there afterwards.
pub(crate) fn build(record: Box<SpanRecord>, create: impl FnOnce() -> tracing::Span) -> tracing::Span {
    let _before = Before(PENDING.replace(Some(record)));
    create()
}

struct Before(Option<Box<SpanRecord>>);

impl Drop for Before {
    fn drop(&mut self) {
        // While the thread's storage is torn down no span begins any more.
        let _ = PENDING.try_with(|pending| pending.set(self.0.take()));
    }
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
