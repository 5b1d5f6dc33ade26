//! Keys of closed spans: a set-associative memory of fixed size, like a processor's cache.
//!
//! A key has its place in one bucket, which is one cache line and all that a look or an insertion touches. A way of the
//! bucket is one word, so that there is no lock to wait for:
//!
//! ```text
//! 44 bits of the key (the bucket's number stands for others) │ 20 bits: tick of the closing, plus one; 0 is free
//! ```

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::sync::AtomicU64;

#[derive(Debug)]
pub(crate) struct Closed {
    buckets: Box<[Bucket]>,
    /// Ticks.
    retention: u64,
}

const WAYS: usize = 8;

#[repr(align(64))]
#[derive(Debug, Default)]
struct Bucket([AtomicU64; WAYS]);

#[cfg(not(feature = "__model"))]
const _: () = assert!(size_of::<Bucket>() == 64);

const TIME_BITS: u32 = 20;
/// A tick is 2^24 ns, 17 ms: fine enough to tell in a burst who has been there longest.
const TICK_BITS: u32 = 24;
/// Ticks are counted round this circle, of 4.9 hours.
const CIRCLE: u64 = (1 << TIME_BITS) - 1;
/// How far apart two threads' readings may be, in ticks: a minute, as a span may be inserted that ended while its handle lived on.
const AHEAD: u64 = 60_000_000_000 >> TICK_BITS;

impl Closed {
    pub(crate) fn new(retention: Duration, max_retained: usize) -> Self {
        let buckets = max_retained.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            // More than half the circle could not be told from the time before.
            retention: u64::try_from(retention.as_nanos() >> TICK_BITS).unwrap_or(u64::MAX).min(CIRCLE / 2),
        }
    }

    /// Has the processor fetch the bucket of `key`, which will be inserted soon.
    #[inline]
    #[allow(unsafe_code, reason = "a journey costs its producer 64 ns less: docs/performance.md")]
    pub(crate) fn prefetch(&self, key: u64) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch of whatever address has no effect but on the caches.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self.bucket(key)).cast());
        }
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        let _ = key;
    }

    /// Whether `key` was inserted within the retention before the monotonic time `now`.
    pub(crate) fn contains(&self, key: u64, now: i64) -> bool {
        let (tag, now) = (tag(key), tick(now));
        let ways = &self.bucket(key).0;
        ways.iter().any(|way| {
            let word = way.load(Relaxed);
            word >> TIME_BITS == tag && self.is_fresh(word, now)
        })
    }

    /// Inserts `key`, which is not in there. Returns whether another one had to go before its time.
    pub(crate) fn insert(&self, key: u64, now: i64) -> bool {
        let (tag, now) = (tag(key), tick(now));
        let new = tag << TIME_BITS | (now + 1);
        let ways = &self.bucket(key).0;
        loop {
            // The first way that is free, else the one that has been there longest.
            let (mut oldest, mut at, mut word) = (0, 0, 0);
            for (way, held) in ways.iter().enumerate() {
                let held = held.load(Relaxed);
                let age = if held == 0 { u64::MAX } else { age(held, now) };
                if age >= oldest {
                    (oldest, at, word) = (age, way, held);
                }
                if oldest > self.retention {
                    break;
                }
            }
            // Another thread may have put something there since.
            if ways[at].compare_exchange(word, new, Relaxed, Relaxed).is_ok() {
                return oldest <= self.retention;
            }
        }
    }

    fn is_fresh(&self, word: u64, now: u64) -> bool {
        word != 0 && age(word, now) <= self.retention
    }

    fn bucket(&self, key: u64) -> &Bucket {
        &self.buckets[key as usize & (self.buckets.len() - 1)]
    }
}

/// Bits of the key that its bucket does not stand for; spread, since keys need not be.
fn tag(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> TIME_BITS
}

/// Ticks since the word was written, on the circle; none for one that was written by a later clock reading than `now`.
fn age(word: u64, now: u64) -> u64 {
    let then = (word & CIRCLE) - 1;
    let age = if now >= then { now - then } else { now + CIRCLE - then };
    if age > CIRCLE - AHEAD { 0 } else { age }
}

fn tick(now: i64) -> u64 {
    (now >> TICK_BITS) as u64 % CIRCLE
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn the_memory_is_bounded_and_evictions_are_counted() {
        let closed = Closed::new(Duration::from_secs(3600), 64);
        // Fifty in a second, each in a tick of its own.
        let at = |key: u64| key as i64 * SECOND / 50;
        let evicted = (1..=1000).filter(|key| closed.insert(*key, at(*key))).count();
        assert_eq!(evicted, 1000 - 64, "dense keys fill every bucket");
        assert!((1..=1000).all(|key| closed.contains(key, at(1000)) == (key > 1000 - 64)), "the oldest had to go");
        assert!(!closed.insert(1, 9000 * SECOND), "what has expired is not evicted");
    }

    #[test]
    fn a_key_from_a_later_reading_is_neither_overwritten_nor_missed() {
        let closed = Closed::new(Duration::from_secs(10), 8);
        assert!(!closed.insert(1, 5 * SECOND));
        assert!(!closed.insert(2, 3 * SECOND), "seven ways are free");
        assert!(closed.contains(1, 5 * SECOND) && closed.contains(2, 5 * SECOND));
        assert!(closed.contains(1, 3 * SECOND), "seen by a thread that read its clock before");
    }

    #[test]
    fn times_go_round_the_circle() {
        let closed = Closed::new(Duration::from_secs(10), 8);
        let edge = (CIRCLE as i64) << TICK_BITS;
        closed.insert(7, edge - 2 * SECOND);
        assert!(closed.contains(7, edge + 7 * SECOND) && !closed.contains(7, edge + 9 * SECOND));
    }

    #[test]
    fn threads_lose_nothing_to_each_other() {
        let closed = Closed::new(Duration::from_secs(10), 1 << 12);
        let keys = |thread: u64| (0..500).map(move |key| key << 3 | thread);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let closed = &closed;
                scope.spawn(move || assert_eq!(keys(thread).filter(|key| closed.insert(*key, SECOND)).count(), 0));
            }
        });
        assert!((0..4).flat_map(keys).all(|key| closed.contains(key, SECOND)));
    }
}
