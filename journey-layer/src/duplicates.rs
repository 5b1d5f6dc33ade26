//! What is remembered of the process's spans, to tell a duplicate from a new journey.
//!
//! One map serves three questions, each under its own kind of key: "did this process make the span that is named as the
//! parent?" (span id), "is a request with this id live?" (keyed hash of the id) and "was there an `llm_core` for this
//! sequence?" (keyed hash of trace and id). Closed entries stay for the retention, bounded in number.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::HashMap;
use journey_schema::SpanName;
use opentelemetry::trace::{SpanId, TraceId};
use parking_lot::Mutex;

use crate::table::IdentityHasher;

/// A span in one layer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Number of the layer: ids of two subscribers are unrelated.
    pub(crate) layer: u64,
    /// The tracing span's id.
    pub(crate) id: u64,
}

/// The keys under which one span is remembered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) span: Option<u64>,
    pub(crate) request: Option<u64>,
    pub(crate) sequence: Option<u64>,
}

impl Keys {
    /// The place of the key that a `gen_ai.request.id` stands for on a span of this name.
    pub(crate) fn by_id(&mut self, name: SpanName) -> &mut Option<u64> {
        if name == SpanName::LlmRequest { &mut self.request } else { &mut self.sequence }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) origin: Origin,
    pub(crate) name: SpanName,
    trace_id: Option<TraceId>,
    closed_ns: Option<i64>,
}

impl Seen {
    /// Whether the span is only remembered.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed_ns.is_some()
    }
}

#[derive(Default)]
struct Shard {
    seen: HashMap<u64, Seen, IdentityHasher>,
    /// Closed keys, oldest first.
    closed: VecDeque<(i64, u64)>,
}

const SHARDS: usize = 16;

pub(crate) struct Duplicates {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    retention_ns: i64,
    max_closed: usize,
}

impl Duplicates {
    pub(crate) fn new(retention: Duration, max_retained: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            retention_ns: i64::try_from(retention.as_nanos()).unwrap_or(i64::MAX),
            max_closed: max_retained.div_ceil(SHARDS),
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

    /// The span that has `span_id` in `trace_id`, if this process made it and still remembers it.
    pub(crate) fn span(&self, trace_id: TraceId, span_id: SpanId) -> Option<Seen> {
        let key = u64::from_be_bytes(span_id.to_bytes());
        self.shard(key).lock().seen.get(&key).filter(|seen| seen.trace_id == Some(trace_id)).copied()
    }

    /// The span that has claimed `key`.
    pub(crate) fn owner(&self, key: u64) -> Option<Seen> {
        self.shard(key).lock().seen.get(&key).copied()
    }

    pub(crate) fn open_span(&self, trace_id: TraceId, span_id: SpanId, name: SpanName, origin: Origin) -> u64 {
        let key = u64::from_be_bytes(span_id.to_bytes());
        self.shard(key).lock().seen.insert(key, Seen { origin, name, trace_id: Some(trace_id), closed_ns: None });
        key
    }

    /// Takes the key for `origin`, unless somebody else has it.
    ///
    /// # Errors
    /// The span that has it.
    pub(crate) fn claim(&self, key: u64, name: SpanName, origin: Origin) -> Result<(), Seen> {
        let mut shard = self.shard(key).lock();
        match shard.seen.get(&key) {
            Some(seen) if seen.origin != origin || seen.closed_ns.is_some() => Err(*seen),
            _ => {
                shard.seen.insert(key, Seen { origin, name, trace_id: None, closed_ns: None });
                Ok(())
            }
        }
    }

    /// Forgets a key at once.
    pub(crate) fn release(&self, key: u64) {
        self.shard(key).lock().seen.remove(&key);
    }

    /// Remembers a key for the retention, from now on. Returns how many others had to go before their time.
    pub(crate) fn close(&self, key: u64, now: i64) -> u64 {
        let mut shard = self.shard(key).lock();
        let Some(seen) = shard.seen.get_mut(&key) else { return 0 };
        seen.closed_ns = Some(now);
        shard.closed.push_back((now, key));
        let mut evicted = 0;
        while let Some((closed_ns, oldest)) = shard.closed.front().copied() {
            let expired = now.saturating_sub(closed_ns) > self.retention_ns;
            if !expired && shard.closed.len() <= self.max_closed {
                break;
            }
            shard.closed.pop_front();
            // A key that was released and taken again is somebody else's.
            if shard.seen.get(&oldest).is_some_and(|seen| seen.closed_ns == Some(closed_ns)) {
                shard.seen.remove(&oldest);
                evicted += u64::from(!expired);
            }
        }
        evicted
    }

    fn shard(&self, key: u64) -> &Mutex<Shard> {
        &self.shards[(key >> 32) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SpanName = SpanName::LlmRequest;

    #[test]
    fn a_live_key_has_one_owner_and_a_released_one_none() {
        let duplicates = Duplicates::new(Duration::from_secs(1), 64);
        let key = duplicates.id_key(NAME, TraceId::from(7), "cmpl-1").unwrap();
        let (a, b) = (Origin { layer: 0, id: 1 }, Origin { layer: 0, id: 2 });
        assert!(duplicates.claim(key, NAME, a).is_ok());
        assert_eq!(duplicates.claim(key, NAME, b).unwrap_err().origin, a);
        assert!(duplicates.claim(key, NAME, a).is_ok(), "the owner may say it again");
        duplicates.release(key);
        assert!(duplicates.claim(key, NAME, b).is_ok());
    }

    #[test]
    fn a_closed_span_is_remembered_for_the_retention_and_no_longer() {
        let duplicates = Duplicates::new(Duration::from_nanos(100), 1 << 20);
        let (trace, span) = (TraceId::from(7), SpanId::from(1 << 40));
        let key = duplicates.open_span(trace, span, NAME, Origin { layer: 0, id: 1 });
        duplicates.close(key, 1_000);
        assert!(duplicates.span(trace, span).is_some());
        assert!(duplicates.span(TraceId::from(8), span).is_none(), "another trace is another span");
        let later = duplicates.open_span(trace, SpanId::from((1 << 40) + 1), NAME, Origin { layer: 0, id: 2 });
        assert_eq!(duplicates.close(later, 1_101), 0, "what expires is not evicted");
        assert!(duplicates.span(trace, span).is_none());
    }

    #[test]
    fn the_memory_is_bounded_and_evictions_are_counted() {
        let duplicates = Duplicates::new(Duration::from_secs(3600), SHARDS * 4);
        let evicted: u64 = (1..=100)
            .map(|id| {
                let key = duplicates.open_span(TraceId::from(7), SpanId::from(id), NAME, Origin { layer: 0, id });
                duplicates.close(key, id as i64)
            })
            .sum();
        assert_eq!(evicted, 96, "all hundred fall into one shard of four");
    }
}
