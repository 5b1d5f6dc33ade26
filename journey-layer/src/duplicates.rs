//! What is remembered of the process's spans, to tell a duplicate from a new journey.
//!
//! One memory serves three questions, each under its own kind of key: "did this process make the span that is named as the
//! parent?" (trace and span id), "is a request with this id live?" (keyed hash of the id) and "was there an `llm_core` for
//! this sequence?" (keyed hash of trace and id). Of a live span its place in the table is known; of a closed one
//! only that it was: a few bytes, in a memory of fixed size, for the retention.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::HashMap;
use journey_schema::SpanName;
use opentelemetry::trace::{SpanId, TraceId};
use parking_lot::Mutex;

use crate::record::SpanRecord;
use crate::table::IdentityHasher;

/// A span in one layer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Number of the layer: ids of two subscribers are unrelated.
    pub(crate) layer: u64,
    /// The tracing span's id.
    pub(crate) id: u64,
}

impl SpanRecord {
    /// The key of the span as its children name it; steps have none.
    pub(crate) fn span_key(&self) -> Option<u64> {
        self.name.is_journey().then(|| Duplicates::span_key(self.trace_id, self.span_id))
    }
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A live span has it.
    Live { origin: Origin, name: SpanName },
    /// A span had it that has closed within the retention.
    Closed,
}

const SHARDS: usize = 16;

/// Who has which key.
type Owners = Mutex<HashMap<u64, (Origin, SpanName), IdentityHasher>>;

pub(crate) struct Duplicates {
    live: [Owners; SHARDS],
    closed: Closed,
    hasher: RandomState,
}

impl Duplicates {
    pub(crate) fn new(retention: Duration, max_retained: usize) -> Self {
        Self {
            live: std::array::from_fn(|_| Mutex::default()),
            closed: Closed::new(retention, max_retained),
            hasher: RandomState::new(),
        }
    }

    /// The key that a span's `gen_ai.request.id` stands for: a request by its id alone, a sequence by its trace and id.
    ///
    /// The hash is keyed, so that nobody outside can make two ids collide.
    pub(crate) fn id_key(&self, name: SpanName, trace_id: TraceId, id: &str) -> Option<u64> {
        match name {
            SpanName::LlmRequest => Some(self.hasher.hash_one(("request", id))),
            SpanName::LlmCore => Some(self.hasher.hash_one(("sequence", trace_id.to_bytes(), id))),
            SpanName::SchedulerStep | SpanName::ModelForward => None,
        }
    }

    /// The key of a span as its children name it. Both ids are random, so that their mixture is.
    pub(crate) fn span_key(trace_id: TraceId, span_id: SpanId) -> u64 {
        let trace = u128::from_be_bytes(trace_id.to_bytes());
        u64::from_be_bytes(span_id.to_bytes()) ^ (trace as u64).rotate_left(32) ^ (trace >> 64) as u64
    }

    /// What is known of `key`, at the monotonic time `now`.
    pub(crate) fn get(&self, key: u64, now: i64) -> Option<Seen> {
        let live = self.shard(key).lock().get(&key).map(|(origin, name)| Seen::Live { origin: *origin, name: *name });
        live.or_else(|| self.closed.contains(key, now).then_some(Seen::Closed))
    }

    /// Takes a key that nobody else can have.
    pub(crate) fn open(&self, key: u64, name: SpanName, origin: Origin) {
        self.shard(key).lock().insert(key, (origin, name));
    }

    /// Takes the key for `origin`, unless somebody else has it.
    ///
    /// # Errors
    /// What is known of who has it.
    pub(crate) fn claim(&self, key: u64, name: SpanName, origin: Origin, now: i64) -> Result<(), Seen> {
        if self.closed.contains(key, now) {
            return Err(Seen::Closed);
        }
        match *self.shard(key).lock().entry(key).or_insert((origin, name)) {
            (owner, _) if owner == origin => Ok(()),
            (origin, name) => Err(Seen::Live { origin, name }),
        }
    }

    /// Forgets a live key at once.
    pub(crate) fn release(&self, key: u64) {
        self.shard(key).lock().remove(&key);
    }

    /// The key's span has closed: remembers that for the retention. Returns whether another one had to be forgotten
    /// before its time.
    pub(crate) fn close(&self, key: u64, now: i64) -> bool {
        // In this order: in between the key is known twice, and not never.
        let evicted = self.closed.insert(key, now);
        self.release(key);
        evicted
    }

    fn shard(&self, key: u64) -> &Owners {
        &self.live[(key >> 32) as usize % SHARDS]
    }
}

/// Closed keys: a set-associative memory, like a processor's cache. A key has its place in one bucket, which is all
/// that an insertion touches.
struct Closed {
    buckets: Box<[Mutex<Bucket>]>,
    retention_s: u32,
}

const WAYS: usize = 8;

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// 0: free.
    keys: [u64; WAYS],
    /// When each of them closed, seconds of the monotonic clock.
    closed_s: [u32; WAYS],
}

impl Closed {
    fn new(retention: Duration, max_retained: usize) -> Self {
        let buckets = max_retained.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            buckets: (0..buckets).map(|_| Mutex::default()).collect(),
            retention_s: u32::try_from(retention.as_secs()).unwrap_or(u32::MAX),
        }
    }

    fn contains(&self, key: u64, now: i64) -> bool {
        let bucket = self.bucket(key).lock();
        (0..WAYS).any(|way| bucket.keys[way] == key && self.is_fresh(&bucket, way, seconds(now)))
    }

    fn insert(&self, key: u64, now: i64) -> bool {
        let now = seconds(now);
        let mut bucket = self.bucket(key).lock();
        let free = (0..WAYS).find(|way| bucket.keys[*way] == key || !self.is_fresh(&bucket, *way, now));
        let way = free.unwrap_or_else(|| {
            (0..WAYS).min_by_key(|way| bucket.closed_s[*way]).expect("a bucket has more than one way")
        });
        bucket.keys[way] = key;
        bucket.closed_s[way] = now;
        free.is_none()
    }

    fn is_fresh(&self, bucket: &Bucket, way: usize, now: u32) -> bool {
        bucket.keys[way] != 0 && now.saturating_sub(bucket.closed_s[way]) <= self.retention_s
    }

    fn bucket(&self, key: u64) -> &Mutex<Bucket> {
        &self.buckets[key as usize & (self.buckets.len() - 1)]
    }
}

fn seconds(ns: i64) -> u32 {
    (ns / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SpanName = SpanName::LlmRequest;
    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_live_key_has_one_owner_and_a_released_one_none() {
        let duplicates = Duplicates::new(Duration::from_secs(1), 64);
        let key = duplicates.id_key(NAME, TraceId::from(7), "cmpl-1").unwrap();
        let (a, b) = (Origin { layer: 0, id: 1 }, Origin { layer: 0, id: 2 });
        assert!(duplicates.claim(key, NAME, a, 0).is_ok());
        assert_eq!(duplicates.claim(key, NAME, b, 0), Err(Seen::Live { origin: a, name: NAME }));
        assert!(duplicates.claim(key, NAME, a, 0).is_ok(), "the owner may say it again");
        duplicates.release(key);
        assert!(duplicates.claim(key, NAME, b, 0).is_ok());
    }

    #[test]
    fn a_closed_span_is_remembered_for_the_retention_and_no_longer() {
        let duplicates = Duplicates::new(Duration::from_secs(10), 1 << 10);
        let origin = Origin { layer: 0, id: 1 };
        let key = Duplicates::span_key(TraceId::from(7), SpanId::from(9));
        assert_ne!(key, Duplicates::span_key(TraceId::from(8), SpanId::from(9)), "another trace is another span");
        duplicates.open(key, NAME, origin);
        assert_eq!(duplicates.get(key, 0), Some(Seen::Live { origin, name: NAME }));
        duplicates.close(key, SECOND);
        assert_eq!(duplicates.get(key, 11 * SECOND), Some(Seen::Closed));
        assert_eq!(duplicates.claim(key, NAME, origin, 11 * SECOND), Err(Seen::Closed));
        assert_eq!(duplicates.get(key, 12 * SECOND), None);
    }

    #[test]
    fn the_memory_is_bounded_and_evictions_are_counted() {
        let duplicates = Duplicates::new(Duration::from_secs(3600), 64);
        let evicted = (1..=1000).filter(|key| duplicates.close(*key, *key as i64 * SECOND)).count();
        assert_eq!(evicted, 1000 - 64, "dense keys fill every bucket");
        assert_eq!(duplicates.get(1000, 1000 * SECOND), Some(Seen::Closed), "the oldest had to go");
        assert_eq!(duplicates.get(1, 1000 * SECOND), None);
        assert!(!duplicates.close(1, 9000 * SECOND), "what has expired is not evicted");
    }
}
