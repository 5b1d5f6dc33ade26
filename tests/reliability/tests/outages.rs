//! Receivers that are not there, say nothing, break off or refuse, over both protocols, at a steady rate of journeys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use journey_layer::opentelemetry_sdk::trace::BatchSpanProcessor;
use journey_layer::{Builder, Exporter, Journey, Protocol, Reason};
use journey_reliability::fault::{Proxy, Wire};
use journey_reliability::receiver::{Answer, PROTOCOLS, Receiver, Tally, exporter, nobody};
use journey_reliability::work::{EVENTS, SPANS, builder, journey, traced};
use journey_reliability::{is_full, wait_until};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};

/// Journeys a second.
const RATE: u64 = 500;
const MINUTE: Duration = Duration::from_secs(60);
/// How long an outage lasts: 30 seconds at 1,000 journeys a second in the long form.
fn outage() -> (Duration, u64) {
    if is_full() { (Duration::from_secs(30), 2 * RATE) } else { (Duration::from_millis(300), RATE) }
}

/// Makes journeys at a steady rate for the time of an outage. Returns how many.
fn steady(pipeline: &Journey) -> u64 {
    let (time, rate) = outage();
    let (start, mut made) = (Instant::now(), 0);
    traced(pipeline, || {
        while start.elapsed() < time {
            journey(&format!("cmpl-{made}"));
            made += 1;
            let due = start + Duration::from_secs(1) * made as u32 / rate as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
    made
}

fn pipeline(exporter: journey_layer::Otlp) -> Journey {
    let quick = exporter.timeout(Duration::from_millis(300));
    builder().exporter(quick).schedule_delay(Duration::from_millis(20)).build().expect("a pipeline")
}

/// All of `journeys` have arrived, and none was lost on the way.
fn all_arrived(pipeline: &Journey, tally: &Tally, journeys: u64) {
    pipeline.flush(MINUTE).expect("nothing was lost");
    let stats = pipeline.stats();
    assert_eq!(tally.distinct_spans(), journeys * SPANS, "{stats}");
    assert_eq!((stats.spans.exported, stats.events.exported), (journeys * SPANS, journeys * EVENTS), "{stats}");
    assert!(stats.spans.dropped() == 0 && tally.torn() == 0 && stats.balances(), "{stats}");
}

#[test]
fn nothing_is_lost_while_the_wire_is_silent_or_breaks_off() {
    for protocol in PROTOCOLS {
        for fault in [Wire::Silent, Wire::CutRequest(0), Wire::CutRequest(3_000), Wire::CutAnswer(10)] {
            let receiver = Receiver::start(protocol);
            let proxy = Proxy::to(receiver.address());
            let pipeline = pipeline(exporter(protocol, proxy.address()));
            let mut journeys = steady(&pipeline);
            proxy.set(fault);
            journeys += steady(&pipeline);
            proxy.set(Wire::Whole);
            all_arrived(&pipeline, &receiver.tally(), journeys);
        }
    }
}

#[test]
fn nothing_is_lost_while_the_receiver_is_slow_or_asks_for_patience() {
    for protocol in PROTOCOLS {
        for fault in [
            Answer::Slow(Duration::from_millis(50)),
            Answer::Slow(Duration::from_millis(500)),
            Answer::Later(429, 1),
            Answer::Later(503, 0),
        ] {
            let receiver = Receiver::start(protocol);
            receiver.answer(fault);
            let pipeline = pipeline(receiver.exporter());
            let journeys = steady(&pipeline);
            receiver.answer(Answer::Take);
            all_arrived(&pipeline, &receiver.tally(), journeys);
        }
    }
}

#[test]
fn nothing_is_lost_while_the_receiver_restarts() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let (address, tally) = (receiver.address(), receiver.tally());
        let pipeline = pipeline(receiver.exporter());
        let mut journeys = steady(&pipeline);
        drop(receiver);
        journeys += steady(&pipeline);
        let again = Receiver::at(protocol, address, tally.clone());
        journeys += steady(&pipeline);
        all_arrived(&pipeline, &tally, journeys);
        drop(again);
    }
}

#[test]
fn beyond_the_queue_an_outage_is_counted_to_the_span_and_what_was_kept_arrives() {
    for protocol in PROTOCOLS {
        let address = nobody();
        let bounded = builder().exporter(exporter(protocol, address)).max_queue_bytes(200_000);
        let pipeline = bounded.schedule_delay(Duration::from_millis(20)).build().expect("a pipeline");
        let mut journeys = 0;
        wait_until("the queue is full", || {
            journeys += steady(&pipeline);
            pipeline.stats().spans.dropped() > 0
        });
        let stats = pipeline.stats();
        let lost = stats.spans.dropped[&Reason::QueueFull];
        assert_eq!((stats.spans.live, stats.spans.dropped()), (journeys * SPANS - lost, lost), "{stats}");
        let tally = Arc::new(Tally::keeping_ids());
        let receiver = Receiver::at(protocol, address, tally.clone());
        let _ = pipeline.flush(MINUTE);
        let stats = pipeline.stats();
        assert_eq!((tally.distinct_spans(), stats.spans.exported), (journeys * SPANS - lost, journeys * SPANS - lost));
        assert!(stats.balances(), "{stats}");
        drop(receiver);
    }
}

#[test]
fn what_a_receiver_refuses_for_good_is_counted_and_the_rest_goes_on() {
    for protocol in PROTOCOLS {
        for (fault, reason) in [(Answer::Refuse, Reason::ExportFailed), (Answer::TakeBut(1), Reason::PartialSuccess)] {
            let receiver = Receiver::start(protocol);
            let pipeline = pipeline(receiver.exporter());
            receiver.answer(fault);
            let mut journeys = steady(&pipeline);
            let _ = pipeline.flush(MINUTE);
            receiver.answer(Answer::Take);
            journeys += steady(&pipeline);
            pipeline.flush(MINUTE).expect("nothing more was lost");
            let stats = pipeline.stats();
            let lost = stats.spans.dropped[&reason];
            assert_eq!((stats.spans.dropped(), stats.spans.exported), (lost, journeys * SPANS - lost), "{stats}");
            assert!(lost > 0 && stats.balances(), "{stats}");
            assert!(fault == Answer::Refuse || lost <= receiver.tally().requests(), "one of each request");
        }
    }
}

#[test]
fn a_receiver_that_is_too_slow_gets_what_it_takes_and_the_rest_through_the_spool() {
    for protocol in PROTOCOLS {
        let directory = tempfile::tempdir().expect("a directory");
        let receiver = Receiver::start(protocol);
        receiver.answer(Answer::Slow(Duration::from_millis(300)));
        let pipeline = builder().exporter(receiver.exporter()).spool(directory.path());
        let pipeline = pipeline.max_queue_bytes(1 << 20).schedule_delay(Duration::from_millis(5)).build();
        let pipeline = pipeline.expect("a pipeline");
        let tally = receiver.tally();
        let mut journeys = 0;
        let mut more = || {
            traced(&pipeline, || (0..20).for_each(|n| journey(&format!("cmpl-{journeys}-{n}"))));
            journeys += 20;
            std::thread::sleep(Duration::from_millis(10));
        };
        while pipeline.stats().spans.spooled == 0 {
            more();
        }
        let arrived = tally.distinct_spans();
        (0..200).for_each(|_| more());
        assert!(tally.distinct_spans() > arrived, "the spool does not take what is on its way");
        receiver.answer(Answer::Take);
        wait_until("the spool is empty", || pipeline.stats().spans.spooled == 0);
        all_arrived(&pipeline, &tally, journeys);
        assert_eq!(tally.duplicates(), 0, "over {}", protocol.as_str());
    }
}

#[test]
fn a_flush_waits_for_what_is_on_its_way_while_what_came_later_goes_into_the_spool() {
    let directory = tempfile::tempdir().expect("a directory");
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    receiver.answer(Answer::Slow(Duration::from_secs(2)));
    let pipeline = builder().exporter(receiver.exporter()).spool(directory.path()).max_queue_bytes(400_000);
    let pipeline = pipeline.schedule_delay(Duration::from_millis(5)).build().expect("a pipeline");
    traced(&pipeline, || (0..10).for_each(|n| journey(&format!("cmpl-{n}"))));
    let tally = receiver.tally();
    std::thread::scope(|scope| {
        let flushed = scope.spawn(|| {
            let _ = pipeline.flush(MINUTE);
            tally.distinct_spans()
        });
        while !flushed.is_finished() {
            traced(&pipeline, || (0..20).for_each(|n| journey(&format!("cmpl-later-{n}"))));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(flushed.join().expect("no panic") >= 10 * SPANS, "{}", pipeline.stats());
    });
    assert!(pipeline.stats().spans.spooled > 0, "{}", pipeline.stats());
}

/// They do not retry, and what they lose is known all the same.
#[test]
fn what_an_exporter_of_the_sdk_loses_in_an_outage_is_counted_to_the_span() {
    let ways: [fn(SpanExporter) -> Builder; 2] = [
        |theirs| builder().exporter(Exporter::new(theirs)),
        |theirs| builder().span_processor_with(theirs, |exporter| BatchSpanProcessor::builder(exporter).build()),
    ];
    for way in ways {
        for fault in [Some(Answer::Later(503, 0)), Some(Answer::Slow(Duration::from_secs(5))), None] {
            let receiver = Receiver::start(Protocol::HttpProtobuf);
            let (address, tally) = (receiver.address(), receiver.tally());
            let theirs = SpanExporter::builder().with_http().with_timeout(Duration::from_secs(1));
            let theirs = theirs.with_endpoint(format!("http://{address}/v1/traces")).build().expect("an exporter");
            let delay = Duration::from_millis(150);
            let pipeline = way(theirs).schedule_delay(delay).build().expect("a pipeline");
            let mut journeys = steady(&pipeline);
            pipeline.flush(MINUTE).expect("nothing is lost before");
            let mut receiver = Some(receiver);
            match fault {
                Some(fault) => receiver.as_ref().expect("it is there").answer(fault),
                None => drop(receiver.take()),
            }
            journeys += steady(&pipeline);
            let _ = pipeline.flush(MINUTE);
            let receiver = receiver.unwrap_or_else(|| Receiver::at(Protocol::HttpProtobuf, address, tally.clone()));
            receiver.answer(Answer::Take);
            journeys += steady(&pipeline);
            pipeline.flush(MINUTE).expect("nothing more was lost");
            let stats = pipeline.stats();
            let lost = stats.spans.dropped[&Reason::ExportFailed];
            assert!(lost > 0 && stats.spans.dropped() == lost && stats.balances(), "{fault:?}: {stats}");
            assert_eq!(stats.spans.exported, journeys * SPANS - lost, "{fault:?}: {stats}");
            // What came too late for an answer came all the same.
            assert!(tally.distinct_spans() >= stats.spans.exported, "{fault:?}: {stats}");
        }
    }
}
