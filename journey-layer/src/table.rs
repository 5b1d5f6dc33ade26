//! The layer's spans by the id that tracing gave them.
//!
//! A table of our own, and not the registry's extensions: those cost a lock, a type-id lookup and a heap cell on
//! each access, and they cannot be swept.

use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashTable;
use hashbrown::hash_table;
use journey_schema::SpanName;
use opentelemetry::trace::SpanContext;

use crate::lifecycle::LiveSpan;
use crate::stats::Count;
use crate::sync::{AtomicU64, AtomicUsize, Mutex};

/// What stands behind a tracing span's id. Two words: what is rare stands in a box.
pub(crate) enum Entry {
    /// An open span.
    Live(LiveSpan),
    /// A finished span that went before its last handle: parent of late children still.
    Exported(Box<Family>),
    /// A rejected span. Children and attributes go to the original, where one is known.
    Rejected { name: Option<SpanName>, original: Option<Box<Original>> },
    /// A sampled-out one.
    SampledOut(SpanName),
}

const _: () = assert!(size_of::<Entry>() <= 16);

/// Spans of a table, with their events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    pub(crate) open: Count,
    /// Open or not: all that were opened, and all events that they took.
    pub(crate) started: Count,
}

/// What children need to know of a span.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub(crate) name: SpanName,
    pub(crate) context: SpanContext,
    pub(crate) anchor_ns: i64,
}

/// The span that a rejected one duplicates.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    /// Its tracing id, where it is this layer's.
    pub(crate) id: Option<u64>,
    pub(crate) family: Option<Family>,
}

impl LiveSpan {
    pub(crate) fn family(&self) -> Family {
        Family { name: self.record.name, context: self.record.context(), anchor_ns: self.record.anchor_ns }
    }
}

const SHARDS: usize = 64;

type Entries = HashTable<(u64, Entry)>;

/// A lock, what it guards and what is counted under it fill a cache line, so that two threads on different spans do not
/// share one. The counters are written under the lock alone, so that counting needs no locked instruction.
#[repr(align(64))]
#[derive(Default)]
struct Shard {
    entries: Mutex<Entries>,
    /// Open spans.
    live: AtomicUsize,
    /// Spans ever opened.
    opened: AtomicU64,
    /// Events of spans that were open and are no more.
    events: AtomicU64,
}

#[cfg(not(feature = "__model"))]
const _: () = assert!(size_of::<Shard>() == 64);

impl Shard {
    fn opened(&self) {
        self.live.store(self.live.load(Relaxed) + 1, Relaxed);
        self.opened.store(self.opened.load(Relaxed) + 1, Relaxed);
    }

    fn closed(&self, live: &LiveSpan) {
        self.live.store(self.live.load(Relaxed) - 1, Relaxed);
        self.events.store(self.events.load(Relaxed) + live.record.event_count() as u64, Relaxed);
    }
}

pub(crate) struct Table {
    shards: Box<[Shard; SHARDS]>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { shards: Box::new(std::array::from_fn(|_| Shard::default())) }
    }

    /// Puts in an entry that is no open span.
    pub(crate) fn insert(&self, id: u64, entry: Entry) {
        let hash = spread(id);
        match self.shard(hash).entries.lock().entry(hash, |(of, _)| *of == id, |(of, _)| spread(*of)) {
            hash_table::Entry::Occupied(mut old) => old.get_mut().1 = entry,
            hash_table::Entry::Vacant(free) => _ = free.insert((id, entry)),
        }
    }

    /// Puts in an open span, whose id is not in there, unless `max` are open.
    ///
    /// Each shard has its share of the places; only when that is full are all of them counted. So there may be a few more
    /// than `max` where spans are spread unevenly.
    ///
    /// # Errors
    /// The span, for which there is no place.
    pub(crate) fn open(&self, id: u64, live: LiveSpan, max: usize) -> Result<(), LiveSpan> {
        let hash = spread(id);
        let shard = self.shard(hash);
        let mut entries = shard.entries.lock();
        let is_full = || self.shards.iter().map(|shard| shard.live.load(Relaxed)).sum::<usize>() >= max;
        if shard.live.load(Relaxed) >= max / SHARDS && is_full() {
            return Err(live);
        }
        shard.opened();
        entries.insert_unique(hash, (id, Entry::Live(live)), |(of, _)| spread(*of));
        Ok(())
    }

    pub(crate) fn remove(&self, id: u64) -> Option<Entry> {
        self.remove_after(id, |_| {})
    }

    /// Removes the entry when `last` has seen it, under its shard's lock.
    pub(crate) fn remove_after(&self, id: u64, last: impl FnOnce(&Entry)) -> Option<Entry> {
        let hash = spread(id);
        let shard = self.shard(hash);
        let mut entries = shard.entries.lock();
        let found = entries.find_entry(hash, |(of, _)| *of == id).ok()?;
        last(&found.get().1);
        if let Entry::Live(live) = &found.get().1 {
            shard.closed(live);
        }
        Some(found.remove().0.1)
    }

    /// Runs `f` on the entry, under its shard's lock: no caller's code, no OpenTelemetry and no second entry in there.
    #[inline]
    pub(crate) fn with<T>(&self, id: u64, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let hash = spread(id);
        self.shard(hash).entries.lock().find_mut(hash, |(of, _)| *of == id).map(|(_, entry)| f(entry))
    }

    /// Runs `f` on the live span `id`.
    pub(crate) fn with_live<T>(&self, id: u64, f: impl FnOnce(&mut LiveSpan) -> T) -> Option<T> {
        self.with(id, |entry| match entry {
            Entry::Live(live) => Some(f(live)),
            _ => None,
        })
        .flatten()
    }

    /// Takes every live span that `wanted` wants, and leaves its family for late children.
    pub(crate) fn sweep(&self, mut wanted: impl FnMut(&LiveSpan) -> bool) -> Vec<LiveSpan> {
        let mut taken = Vec::new();
        for shard in self.shards.iter() {
            for (_, entry) in shard.entries.lock().iter_mut() {
                if let Entry::Live(live) = entry
                    && wanted(live)
                {
                    shard.closed(live);
                    let family = Box::new(live.family());
                    if let Entry::Live(live) = std::mem::replace(entry, Entry::Exported(family)) {
                        taken.push(live);
                    }
                }
            }
        }
        taken
    }

    /// What is open, and what ever was.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for shard in self.shards.iter() {
            let entries = shard.entries.lock();
            for (_, entry) in entries.iter() {
                if let Entry::Live(live) = entry {
                    census.open.spans += 1;
                    census.open.events += live.record.event_count() as u64;
                }
            }
            census.started.spans += shard.opened.load(Relaxed);
            census.started.events += shard.events.load(Relaxed);
        }
        census.started.events += census.open.events;
        census
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

/// The hash of a tracing id. The registry packs a slot's index into the low bits and the thread's number above it: both
/// must count, or two threads share all their shards. hashbrown takes 7 bits from the top and the others from the bottom.
#[inline]
fn spread(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
