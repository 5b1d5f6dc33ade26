//! Records that wait to be used again: a journey in steady state allocates nothing.
//!
//! ```text
//! a request's thread ◄─ its own few ◄── shared ◄── export thread
//! ```

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Weak;

use crate::record::SpanRecord;
use crate::sync::Mutex;

/// Shared by the layers, which take records, and by the sink, which gives them back when they are exported.
#[derive(Debug, Default)]
pub(crate) struct RecordPool(Arc<Shared>);

#[allow(clippy::vec_box, reason = "records travel boxed; taking one out of its box would copy it")]
type Records = Vec<Box<SpanRecord>>;

type Shared = Mutex<Records>;

/// Records that are kept at most, about eight megabytes: as many as may be under way while a batch is sent.
const MAX_FREE: usize = 8192;
/// Records that a thread takes at once: it then leaves the lock to others for as many spans.
const SHARE: usize = 32;
/// A record that grew beyond this is not kept, bytes.
const MAX_SIZE: usize = 32 << 10;

/// A thread's own records, and the pool that they are from.
#[derive(Default)]
struct Own {
    pool: Weak<Shared>,
    records: Records,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

impl RecordPool {
    /// An empty record.
    pub(crate) fn take(&self) -> Box<SpanRecord> {
        // While the thread's storage is torn down there is the allocator.
        let record = OWN.try_with(|own| {
            let own = &mut *own.borrow_mut();
            if !std::ptr::eq(own.pool.as_ptr(), Arc::as_ptr(&self.0)) {
                *own = Own { pool: Arc::downgrade(&self.0), records: Records::with_capacity(SHARE) };
            }
            own.records.pop().or_else(|| self.refill(&mut own.records))
        });
        record.ok().flatten().unwrap_or_default()
    }

    #[cold]
    fn refill(&self, records: &mut Records) -> Option<Box<SpanRecord>> {
        let mut free = self.0.lock();
        let from = free.len().saturating_sub(SHARE);
        records.extend(free.drain(from..));
        records.pop()
    }

    /// Gives records back.
    pub(crate) fn give(&self, records: impl Iterator<Item = Box<SpanRecord>>) {
        let mut some = Records::with_capacity(64);
        let mut records = records.filter(|record| record.size() <= MAX_SIZE).map(cleared).peekable();
        while records.peek().is_some() {
            // Cleared outside the lock, some at a time: requests wait for it.
            some.extend(records.by_ref().take(64));
            let mut free = self.0.lock();
            let room = MAX_FREE.saturating_sub(free.len());
            free.extend(some.drain(..).take(room));
        }
    }
}

fn cleared(mut record: Box<SpanRecord>) -> Box<SpanRecord> {
    record.clear();
    record
}
