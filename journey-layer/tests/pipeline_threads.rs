//! Flush and shutdown from every kind of thread, over both protocols.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::time::{Duration, Instant};

use journey_layer::{Exporter, Journey};
use pipeline_support::*;
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn one_worker() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().unwrap()
}

/// Makes journeys, then delivers them by `deliver`; everything must arrive, and soon.
fn delivers(deliver: impl Fn(Journey)) {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let journey = builder().exporter(receiver.exporter()).build().unwrap();
        journeys(&journey, 5);
        let start = Instant::now();
        deliver(journey);
        assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
        assert_eq!(receiver.spans().len(), 10);
    }
}

#[test]
fn without_a_runtime() {
    delivers(|journey| journey.flush(LONG).unwrap());
    delivers(|journey| journey.shutdown(LONG).unwrap());
}

#[test]
fn inside_a_current_thread_runtime() {
    delivers(|journey| current_thread().block_on(async { journey.flush(LONG).unwrap() }));
    delivers(|journey| current_thread().block_on(async { journey.shutdown(LONG).unwrap() }));
}

#[test]
fn on_the_only_worker_of_a_runtime() {
    for shutdown in [false, true] {
        delivers(|journey| {
            let runtime = one_worker();
            let task = runtime.spawn(async move {
                if shutdown { journey.shutdown(LONG).unwrap() } else { journey.flush(LONG).unwrap() }
            });
            runtime.block_on(task).unwrap();
        });
    }
}

#[test]
fn after_the_runtime_in_which_the_pipeline_was_built_is_gone() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let runtime = one_worker();
        let journey = runtime.block_on(async { builder().exporter(receiver.exporter()).build().unwrap() });
        runtime.block_on(async { journeys(&journey, 2) });
        drop(runtime);
        journeys(&journey, 3);
        journey.shutdown(LONG).unwrap();
        assert_eq!(receiver.spans().len(), 10);
    }
}

#[test]
fn without_blocking_on_any_executor() {
    delivers(|journey| current_thread().block_on(journey.flush_async(LONG)).unwrap());
    delivers(|journey| current_thread().block_on(journey.shutdown_async(LONG)).unwrap());
    delivers(|journey| futures_executor::block_on(journey.shutdown_async(LONG)).unwrap());
}

#[test]
fn by_dropping_the_last_handle() {
    delivers(|journey| {
        let clone = journey.clone();
        drop(journey);
        drop(clone);
    });
    delivers(|journey| {
        let runtime = one_worker();
        runtime.block_on(runtime.spawn(async move { drop(journey) })).unwrap();
    });
}

#[test]
fn a_second_shutdown_does_nothing_and_a_flush_after_it_returns_at_once() {
    let journey = builder().exporter(Exporter::memory()).build().unwrap();
    journeys(&journey, 1);
    journey.shutdown(SECOND).unwrap();
    journey.shutdown(SECOND).unwrap();
    journey.flush(SECOND).unwrap();
    futures_executor::block_on(journey.flush_async(SECOND)).unwrap();
    assert_eq!(journey.stats().spans.exported, 2);
}

#[test]
fn a_shutdown_ends_what_is_open() {
    let memory = Exporter::memory();
    let journey = builder().exporter(memory.clone()).build().unwrap();
    traced(&journey, || {
        let span = journey_layer::macros::journey_span!(scope = "vllm.api");
        journey.shutdown(SECOND).unwrap();
        drop(span);
    });
    assert_eq!(memory.spans()[0].events[0].name, "api.ABORTED");
    assert!(journey.stats().balances(), "{}", journey.stats());
}

#[test]
fn many_threads_flush_at_once_while_others_work() {
    let receiver = Receiver::start(PROTOCOLS[1]);
    let journey = builder().exporter(receiver.exporter()).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journey = &journey;
            scope.spawn(move || {
                for round in 0..5 {
                    traced(journey, || (0..10).for_each(|n| one_journey(&format!("{thread}-{round}-{n}"))));
                    journey.flush(LONG).unwrap();
                }
            });
        }
    });
    assert_eq!((receiver.spans().len(), journey.stats().spans.exported), (400, 400));
}

#[test]
fn a_delay_without_end_waits_for_a_flush() {
    let memory = Exporter::memory();
    let journey = builder().schedule_delay(Duration::MAX).exporter(memory.clone()).build().unwrap();
    journeys(&journey, 1);
    journey.flush(LONG).unwrap();
    assert_eq!(memory.spans().len(), 2);
}

#[test]
fn spans_go_out_by_themselves_after_the_schedule_delay() {
    let memory = Exporter::memory();
    let receiver = Receiver::start(PROTOCOLS[0]);
    let delay = Duration::from_millis(20);
    let delayed = builder().exporter(receiver.exporter()).schedule_delay(delay).build().unwrap();
    // Without a delay of its own: somebody looks on.
    let prompt = builder().exporter(memory.clone()).build().unwrap();
    journeys(&delayed, 1);
    journeys(&prompt, 1);
    let start = Instant::now();
    while receiver.spans().len() < 2 || memory.spans().len() < 2 {
        assert!(start.elapsed() < 4 * SECOND, "nothing came");
        std::thread::sleep(Duration::from_millis(5));
    }
}
