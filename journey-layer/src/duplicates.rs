//! What is remembered of the process's spans, to tell a duplicate from a new journey.
//!
//! One memory serves three questions, each under its own kind of key: "did this process make the span that is named as the
//! parent?" (trace and span id; a live one is found by its id alone, see [`span_ids`](crate::span_ids)), "is a request
//! with this id live?" (keyed hash of the id) and "was there an `llm_core` for this sequence?" (keyed hash of trace and
//! id). Of a live span its place in the table is known; of a closed one only that it was: a few bytes, in a memory of
//! fixed size, for the retention.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use journey_schema::SpanName;
use opentelemetry::trace::{SpanId, TraceId};

use crate::closed::Closed;
use crate::record::SpanRecord;
use crate::sync::Mutex;

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

/// Who has which key. A cache line each: threads with different keys do not wait for one.
#[repr(align(64))]
#[derive(Default)]
struct Shard(Mutex<Owners>);

type Owners = HashTable<Owner>;

#[derive(Clone, Copy)]
struct Owner {
    key: u64,
    origin: Origin,
    name: SpanName,
}

pub(crate) struct Duplicates {
    live: [Shard; SHARDS],
    closed: Closed,
    hasher: RandomState,
}

impl Duplicates {
    pub(crate) fn new(retention: Duration, max_retained: usize) -> Self {
        Self {
            live: std::array::from_fn(|_| Shard::default()),
            closed: Closed::new(retention, max_retained),
            hasher: RandomState::default(),
        }
    }

    /// The key that a span's `gen_ai.request.id` stands for: a request by its id alone, a sequence by its trace and id.
    ///
    /// The hash is keyed, and shows itself to nobody, so that nobody outside can make two ids collide.
    pub(crate) fn id_key(&self, name: SpanName, trace_id: TraceId, id: &str) -> Option<u64> {
        match name {
            SpanName::LlmRequest => Some(self.hasher.hash_one(id)),
            SpanName::LlmCore => Some(self.hasher.hash_one((u128::from_be_bytes(trace_id.to_bytes()), id))),
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
        let live = find(&self.shard(key).lock(), key).map(|owner| owner.seen());
        live.or_else(|| self.closed.contains(key, now).then_some(Seen::Closed))
    }

    /// Takes a key that is new: nobody has to be asked for it.
    pub(crate) fn open(&self, key: u64, name: SpanName, origin: Origin) {
        insert(&mut self.shard(key).lock(), Owner { key, origin, name });
    }

    /// Takes the key for `origin`, unless somebody else has it.
    ///
    /// # Errors
    /// What is known of who has it.
    pub(crate) fn claim(&self, key: u64, name: SpanName, origin: Origin, now: i64) -> Result<(), Seen> {
        let mut owners = self.shard(key).lock();
        if let Some(owner) = find(&owners, key) {
            return if owner.origin == origin { Ok(()) } else { Err(owner.seen()) };
        }
        // Looked at while nobody can release the key: whoever closes it remembers it first, and is seen in one place at
        // least. A request's id is free when its journey has ended, and never remembered.
        if name != SpanName::LlmRequest && self.closed.contains(key, now) {
            return Err(Seen::Closed);
        }
        insert(&mut owners, Owner { key, origin, name });
        Ok(())
    }

    /// Forgets a live key at once.
    pub(crate) fn release(&self, key: u64) {
        if let Ok(owner) = self.shard(key).lock().find_entry(key, |owner| owner.key == key) {
            owner.remove();
        }
    }

    /// Gets ready to remember the key.
    #[inline]
    pub(crate) fn prefetch(&self, key: u64) {
        self.closed.prefetch(key);
    }

    /// Remembers for the retention that the key's span has closed. Returns whether another one had to be forgotten
    /// before its time. To be called before the live key is released: in between it is known twice, and not never.
    pub(crate) fn remember(&self, key: u64, now: i64) -> bool {
        self.closed.insert(key, now)
    }

    fn shard(&self, key: u64) -> &Mutex<Owners> {
        &self.live[(key >> 32) as usize % SHARDS].0
    }
}

impl Owner {
    fn seen(&self) -> Seen {
        Seen::Live { origin: self.origin, name: self.name }
    }
}

// A key is as good as its own hash: all of its bits are random.

fn find(owners: &Owners, key: u64) -> Option<&Owner> {
    owners.find(key, |owner| owner.key == key)
}

fn insert(owners: &mut Owners, owner: Owner) {
    owners.insert_unique(owner.key, owner, |owner| owner.key);
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
        duplicates.remember(key, SECOND);
        duplicates.release(key);
        assert_eq!(duplicates.get(key, 11 * SECOND), Some(Seen::Closed));
        assert_eq!(duplicates.claim(key, SpanName::LlmCore, origin, 11 * SECOND), Err(Seen::Closed));
        assert_eq!(duplicates.get(key, 12 * SECOND), None);
    }
}
