//! The layer's spans by the id that tracing gave them.
//!
//! A table of our own, and not the registry's extensions: those cost a lock, a type-id lookup and a heap cell on
//! each access, and they cannot be swept.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use journey_schema::SpanName;
use opentelemetry::trace::SpanContext;

use crate::lifecycle::LiveSpan;
use crate::stats::Count;
use crate::sync::Mutex;

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

/// A lock and what it guards fill a cache line, so that two threads on different spans do not share one.
#[repr(align(64))]
#[derive(Default)]
struct Shard(Mutex<HashMap<u64, Entry, IdentityHasher>>);

pub(crate) struct Table {
    shards: Box<[Shard; SHARDS]>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { shards: Box::new(std::array::from_fn(|_| Shard::default())) }
    }

    pub(crate) fn insert(&self, id: u64, entry: Entry) {
        self.shard(id).lock().insert(id, entry);
    }

    pub(crate) fn remove(&self, id: u64) -> Option<Entry> {
        self.remove_after(id, |_| {})
    }

    /// Removes the entry when `last` has seen it, under its shard's lock.
    pub(crate) fn remove_after(&self, id: u64, last: impl FnOnce(&Entry)) -> Option<Entry> {
        match self.shard(id).lock().entry(id) {
            hashbrown::hash_map::Entry::Occupied(entry) => {
                last(entry.get());
                Some(entry.remove())
            }
            hashbrown::hash_map::Entry::Vacant(_) => None,
        }
    }

    /// Runs `f` on the entry, under its shard's lock: no caller's code, no OpenTelemetry and no second entry in there.
    #[inline]
    pub(crate) fn with<T>(&self, id: u64, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.shard(id).lock().get_mut(&id).map(f)
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
            for entry in shard.0.lock().values_mut() {
                if let Entry::Live(live) = entry
                    && wanted(live)
                {
                    let family = Box::new(live.family());
                    if let Entry::Live(live) = std::mem::replace(entry, Entry::Exported(family)) {
                        taken.push(live);
                    }
                }
            }
        }
        taken
    }

    /// Live spans and their events.
    pub(crate) fn census(&self) -> Count {
        let mut count = Count::default();
        for shard in self.shards.iter() {
            for entry in shard.0.lock().values() {
                if let Entry::Live(live) = entry {
                    count.spans += 1;
                    count.events += live.record.event_count() as u64;
                }
            }
        }
        count
    }

    #[inline]
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Entry, IdentityHasher>> {
        // The registry packs a slot's index into the low bits and the thread's number above it: both must count, or two
        // threads share all their shards.
        let hash = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(hash >> 32) as usize % SHARDS].0
    }
}

/// For keys that are spread already (random ids) or dense (registry ids).
pub(crate) type IdentityHasher = BuildHasherDefault<Identity>;

#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are u64")
    }

    #[inline]
    fn write_u64(&mut self, key: u64) {
        // hashbrown takes 7 bits from the top and the rest from the bottom: give dense keys both.
        self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
