//! What threads share, under a model checker: every test runs under many thousands of schedules, among them those that a
//! machine would show once in a year.
//!
//! `cargo test -p journey-layer --lib --features __model model::`

use std::sync::mpsc;
use std::time::Duration;

use journey_schema::SpanName;
use opentelemetry::trace::{SpanId, TraceId};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Arc;
use shuttle::{Config, Runner, thread};

use crate::closed::Closed;
use crate::duplicates::{Duplicates, Origin, Seen};
use crate::error::FlushError;
use crate::export::batch::Item;
use crate::export::request::Reply;
use crate::export::sink::{Limits, Shared, Taken};
use crate::lifecycle::LiveSpan;
use crate::pool::RecordPool;
use crate::record::SpanRecord;
use crate::stats::{Count, Reason, Stats};
use crate::table::{Census, Entry, Table};

/// Schedules of each test.
const SCHEDULES: usize = 5_000;
/// Points at which the checker of [`both_ways`] takes the processor away from the thread that was to go on.
const DEPTH: usize = 3;

const KEY: u64 = 0x5eed_5eed_5eed_5eed;

/// Runs `test` under random schedules, and under such as find bugs that need few switches at the wrong moments.
fn both_ways(test: fn()) {
    let mut config = Config::new();
    // A stack of the checker's own size is too small for a formatted ledger.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(test);
    Runner::new(PctScheduler::new(DEPTH, SCHEDULES), config).run(test);
}

fn record(id: u64) -> Box<SpanRecord> {
    Box::new(SpanRecord::new(SpanName::LlmRequest, TraceId::from(7), SpanId::from(id), 0, 0))
}

/// Submits spans as the layer does.
fn produce(shared: &Shared, first: u64, count: u64) {
    for id in first..first + count {
        shared.stats.span_started();
        shared.submit(Item::Record(record(id)));
    }
}

/// The export thread, with an exporter that takes everything.
fn consume(shared: &Shared) {
    let (mut waiting, mut ending) = (Vec::new(), None);
    loop {
        let Taken { items, flushes, shutdown } = shared.take(Vec::new());
        waiting.extend(flushes);
        ending = ending.or(shutdown);
        for item in items {
            let (count, size) = (item.count(), item.size());
            shared.stats.exported(count);
            shared.release(count, size);
            shared.settled.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let settled = shared.settled.load(std::sync::atomic::Ordering::Relaxed);
        for request in std::mem::take(&mut waiting) {
            match request.target <= settled {
                true => request.reply.send(Ok(())),
                false => waiting.push(request),
            }
        }
        if let Some(request) = ending.take_if(|request| request.target <= settled) {
            waiting.extend(shared.stop());
            waiting.into_iter().for_each(|request| request.reply.send(Ok(())));
            return request.reply.send(Ok(()));
        }
        thread::yield_now();
    }
}

fn exported(shared: &Shared) -> u64 {
    shared.stats.snapshot(Census::default(), Count::default()).spans.exported
}

/// Asks, and waits for the answer as a thread does that must not be scheduled for ever.
fn ask(shared: &Shared, shutdown: bool) -> Result<(), FlushError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    shared.request(Duration::from_secs(3600), Reply::Thread(sender), shutdown);
    loop {
        match receiver.try_recv() {
            Ok(result) => return result,
            Err(mpsc::TryRecvError::Empty) => thread::yield_now(),
            Err(mpsc::TryRecvError::Disconnected) => panic!("a request was dropped without an answer"),
        }
    }
}

#[test]
fn whatever_is_submitted_is_exported_or_counted_and_every_request_is_answered() {
    both_ways(|| {
        // Room for three, of which the second and third are packed.
        let limits = Limits { max_queue_bytes: 4 << 10, max_queue_spans: 3, ..Limits::default() };
        let shared = Arc::new(Shared::new(limits, std::sync::Arc::new(Stats::new())));
        let spawn = |work: fn(&Shared)| {
            let shared = shared.clone();
            thread::spawn(move || work(&shared))
        };
        let threads = [
            spawn(consume),
            spawn(|shared| produce(shared, 1, 2)),
            spawn(|shared| produce(shared, 3, 3)),
            spawn(|shared| {
                let before = exported(shared);
                ask(shared, false).expect("a flush of what a willing exporter took");
                let after = exported(shared);
                assert!(after >= before);
            }),
            spawn(|shared| ask(shared, true).expect("a shutdown of what a willing exporter took")),
        ];
        for thread in threads {
            thread.join().expect("no thread panics");
        }
        ask(&shared, true).expect("a second shutdown");
        ask(&shared, false).expect("a flush after the shutdown");
        assert_eq!((shared.backlog(), shared.queued_bytes()), (Count::default(), 0));
        let stats = shared.stats.snapshot(Census::default(), shared.backlog());
        assert!(stats.balances() && stats.spans.started == 5, "{stats}");
        let lost = stats.spans.dropped.keys();
        assert!(lost.into_iter().all(|reason| matches!(reason, Reason::QueueFull | Reason::Shutdown)), "{stats}");
    });
}

#[test]
fn a_flush_covers_what_was_submitted_before_it() {
    both_ways(|| {
        let shared = Arc::new(Shared::new(Limits::default(), std::sync::Arc::new(Stats::new())));
        let (consumer, other) = (shared.clone(), shared.clone());
        let consumer = thread::spawn(move || consume(&consumer));
        let other = thread::spawn(move || produce(&other, 10, 2));
        produce(&shared, 1, 2);
        ask(&shared, false).expect("a willing exporter");
        assert!(exported(&shared) >= 2, "its own two at least");
        other.join().expect("no thread panics");
        ask(&shared, true).expect("a willing exporter");
        consumer.join().expect("no thread panics");
        assert_eq!(exported(&shared), 4);
    });
}

#[test]
fn a_record_from_the_pool_is_empty_and_nobody_elses() {
    both_ways(|| {
        let pool = Arc::new(RecordPool::default());
        let threads = (1..=3_u64).map(|id| {
            let pool = pool.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let mut record = pool.take();
                    assert_eq!(record.event_count(), 0);
                    record.begin(SpanName::LlmRequest, TraceId::from(7), 0);
                    record.open(SpanId::from(id), 0);
                    thread::yield_now();
                    assert_eq!(record.span_id, SpanId::from(id));
                    match id {
                        1 => pool.put_back(record),
                        _ => pool.give(std::iter::once(record)),
                    }
                }
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.join().expect("no thread panics");
        }
    });
}

#[test]
fn a_span_that_closes_while_it_is_swept_goes_out_once() {
    both_ways(|| {
        let table = Arc::new(Table::new());
        table.open(1, LiveSpan { record: record(1) }, 1).expect("the only span");
        let sweeps = [(); 2].map(|()| {
            let table = table.clone();
            thread::spawn(move || table.sweep(|_| true).len())
        });
        let closing = table.clone();
        let closed = thread::spawn(move || usize::from(matches!(closing.remove(1), Some(Entry::Live(_)))));
        let event = table.with_live(1, |live| live.record.event_count());
        assert!(event.is_none_or(|count| count == 0));
        let taken: usize = sweeps.into_iter().map(|sweep| sweep.join().expect("no thread panics")).sum();
        assert_eq!(taken + closed.join().expect("no thread panics"), 1);
        let census = table.census();
        assert_eq!((census.open, census.started.spans), (Count::default(), 1));
    });
}

#[test]
fn a_sequence_that_closes_is_never_taken_for_a_new_one() {
    both_ways(|| {
        let duplicates = Arc::new(Duplicates::new(Duration::from_secs(60), 64));
        let (name, first, second) = (SpanName::LlmCore, Origin { layer: 0, id: 1 }, Origin { layer: 0, id: 2 });
        duplicates.claim(KEY, name, first, 0).expect("a key that nobody has");
        let closing = duplicates.clone();
        let closes = thread::spawn(move || {
            closing.remember(KEY, 0);
            closing.release(KEY);
        });
        duplicates.claim(KEY, name, second, 0).expect_err("a key that is live, or was");
        closes.join().expect("no thread panics");
        assert_eq!(duplicates.claim(KEY, name, second, 0), Err(Seen::Closed));
    });
}

#[test]
fn of_two_that_claim_a_request_id_one_has_it() {
    both_ways(|| {
        let duplicates = Arc::new(Duplicates::new(Duration::from_secs(60), 64));
        let claims = [1, 2].map(|id| {
            let duplicates = duplicates.clone();
            thread::spawn(move || duplicates.claim(KEY, SpanName::LlmRequest, Origin { layer: 0, id }, 0).is_ok())
        });
        let won = claims.map(|claim| claim.join().expect("no thread panics"));
        assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
    });
}

#[test]
fn keys_that_close_at_once_are_all_remembered() {
    both_ways(|| {
        // One bucket for all of them.
        let closed = Arc::new(Closed::new(Duration::from_secs(60), 8));
        let threads = (1..=3_u64).map(|n| {
            let closed = closed.clone();
            thread::spawn(move || assert!(!closed.insert(n << 40, 0), "there is room for all"))
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.join().expect("no thread panics");
        }
        assert!((1..=3_u64).all(|n| closed.contains(n << 40, 0)));
    });
}
