//! Records that wait to be used again: a journey in steady state allocates nothing.

use crate::record::SpanRecord;
use crate::sync::Mutex;

/// Shared by the layers, which take records, and by the sink, which gives them back when they are exported.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "records travel boxed; taking one out of its box would copy it")]
pub(crate) struct RecordPool(Mutex<Vec<Box<SpanRecord>>>);

/// Records that are kept at most, about eight megabytes: as many as may be under way while a batch is sent.
const MAX_FREE: usize = 8192;
/// A record that grew beyond this is not kept, bytes.
const MAX_SIZE: usize = 32 << 10;

impl RecordPool {
    /// An empty record.
    pub(crate) fn take(&self) -> Box<SpanRecord> {
        let free = self.0.lock().pop();
        free.unwrap_or_default()
    }

    /// Gives records back.
    pub(crate) fn give(&self, records: impl Iterator<Item = Box<SpanRecord>>) {
        let mut records = records.peekable();
        while records.peek().is_some() {
            // Cleared outside the lock, some at a time: requests wait for it.
            let some: Vec<_> =
                records.by_ref().take(64).filter(|record| record.size() <= MAX_SIZE).map(cleared).collect();
            let mut free = self.0.lock();
            let room = MAX_FREE.saturating_sub(free.len());
            free.extend(some.into_iter().take(room));
        }
    }
}

fn cleared(mut record: Box<SpanRecord>) -> Box<SpanRecord> {
    record.clear();
    record
}
