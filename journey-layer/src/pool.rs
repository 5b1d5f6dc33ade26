//! Records that wait to be used again: a journey in steady state allocates nothing.
//!
//! ```text
//! a request's thread ◄─ its own few ◄── shared ◄── export thread
//! ```

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::Weak;

use smallvec::SmallVec;

use crate::record::SpanRecord;
use crate::sync::Mutex;

/// Shared by the layers, which take records, and by the sink, which gives them back when they are exported.
#[derive(Debug, Default)]
pub(crate) struct RecordPool(Arc<Shared>);

#[allow(clippy::vec_box, reason = "records travel boxed; taking one out of its box would copy it")]
type Records = Vec<Box<SpanRecord>>;

type Shared = Mutex<Free>;

/// What nobody uses.
#[derive(Debug, Default)]
struct Free {
    /// With their sizes, which are not looked up again: a record that nobody uses is in nobody's cache.
    records: Vec<(usize, Box<SpanRecord>)>,
    bytes: usize,
}

/// Records that are kept at most: as many as may be under way while a batch is sent.
const MAX_FREE: usize = 8192;
/// The same in bytes. Most records take one kilobyte.
const MAX_FREE_BYTES: usize = 16 << 20;
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
        match self.own(|records| records.pop()) {
            Some(None) => self.refill(),
            record => record.flatten(),
        }
        .unwrap_or_default()
    }

    /// Takes a share, and of that one.
    #[cold]
    fn refill(&self) -> Option<Box<SpanRecord>> {
        let mut records = self.own(std::mem::take)?;
        {
            let mut free = self.0.lock();
            let from = free.records.len().saturating_sub(SHARE);
            let Free { records: some, bytes } = &mut *free;
            records.extend(some.drain(from..).map(|(size, record)| {
                *bytes -= size;
                record
            }));
        }
        let one = records.pop();
        self.own(|own| *own = records);
        one
    }

    /// Gives back a record that this thread is done with, and is likely to want again.
    pub(crate) fn put_back(&self, record: Box<SpanRecord>) {
        if record.size() > MAX_SIZE {
            return;
        }
        let record = cleared(record);
        let too_many = self.own(|records| {
            records.push(record);
            (records.len() >= 2 * SHARE).then(|| records.drain(SHARE..).collect::<SmallVec<[_; SHARE]>>())
        });
        if let Some(records) = too_many.flatten() {
            self.give(records.into_iter());
        }
    }

    /// Runs `f` on this thread's own records of this pool. It takes no lock in there.
    #[inline]
    fn own<T>(&self, f: impl FnOnce(&mut Records) -> T) -> Option<T> {
        let with = |own: &RefCell<Own>| {
            let own = &mut *own.borrow_mut();
            if !std::ptr::eq(own.pool.as_ptr(), Arc::as_ptr(&self.0)) {
                *own = Own { pool: Arc::downgrade(&self.0), records: Records::with_capacity(SHARE) };
            }
            f(&mut own.records)
        };
        OWN.try_with(with).ok()
    }

    /// Gives records back.
    pub(crate) fn give(&self, records: impl Iterator<Item = Box<SpanRecord>>) {
        let mut some = Vec::with_capacity(64);
        let records = records.map(cleared).map(|record| (record.size(), record));
        let mut records = records.filter(|(size, _)| *size <= MAX_SIZE).peekable();
        while records.peek().is_some() {
            // Cleared and measured outside the lock, some at a time: requests wait for it.
            some.extend(records.by_ref().take(64));
            let mut free = self.0.lock();
            for (size, record) in some.drain(..) {
                if free.records.len() < MAX_FREE && free.bytes + size <= MAX_FREE_BYTES {
                    free.bytes += size;
                    free.records.push((size, record));
                }
            }
        }
    }
}

fn cleared(mut record: Box<SpanRecord>) -> Box<SpanRecord> {
    record.clear();
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_bytes_and_by_number() {
        let pool = RecordPool::default();
        let large = || {
            let mut record = Box::<SpanRecord>::default();
            record.text.reserve(MAX_SIZE / 2);
            record
        };
        pool.give((0..MAX_FREE).map(|_| large()));
        let bytes = || {
            let free = pool.0.lock();
            assert_eq!(free.bytes, free.records.iter().map(|(_, record)| record.size()).sum::<usize>());
            free.bytes
        };
        assert!((MAX_FREE_BYTES - MAX_SIZE..=MAX_FREE_BYTES).contains(&bytes()));
        while bytes() > 0 {
            drop(pool.take());
        }
        pool.give((0..2 * MAX_FREE).map(|_| Box::default()));
        assert_eq!(pool.0.lock().records.len(), MAX_FREE);
    }
}
