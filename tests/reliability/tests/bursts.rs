//! Journeys ended as fast as the machine can, with default settings.

use std::time::Duration;

use journey_layer::opentelemetry_sdk::trace::BatchSpanProcessor;
use journey_layer::{Builder, Exporter, Journey, Protocol, Reason};
use journey_reliability::is_full;
use journey_reliability::receiver::{Answer, PROTOCOLS, Receiver};
use journey_reliability::work::{EVENTS, SPANS, builder, burst};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};

/// What part of the burst, and of the queue: all of both in the long form.
fn part() -> u64 {
    if is_full() { 1 } else { 10 }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Default settings, but for the part of the queue.
fn default_builder() -> Builder {
    if is_full() { builder() } else { builder().max_queue_bytes((64 << 20) / part() as usize) }
}

fn sends_all(pipeline: &Journey, receiver: &Receiver, threads: u64) {
    let journeys = 100_000 / part();
    burst(pipeline, threads, journeys / threads);
    let flushed = pipeline.flush(MINUTE);
    let (stats, tally) = (pipeline.stats(), receiver.tally());
    assert_eq!(flushed, Ok(()), "{stats}");
    assert_eq!((tally.distinct_spans(), tally.events()), (journeys * SPANS, journeys * EVENTS), "{stats}");
    assert_eq!((stats.spans.exported, stats.spans.dropped(), tally.torn()), (journeys * SPANS, 0, 0), "{stats}");
    assert!(stats.balances(), "{stats}");
}

#[test]
fn a_burst_of_100_000_journeys_loses_none() {
    for (protocol, threads) in PROTOCOLS.into_iter().zip([1, 4]) {
        let receiver = Receiver::start(protocol);
        let pipeline = default_builder().exporter(receiver.exporter()).build().expect("a pipeline");
        sends_all(&pipeline, &receiver, threads);
    }
}

fn theirs(receiver: &Receiver) -> SpanExporter {
    let url = format!("http://{}/v1/traces", receiver.address());
    SpanExporter::builder().with_http().with_endpoint(url).build().expect("an exporter")
}

#[test]
fn a_burst_of_100_000_journeys_loses_none_through_the_sdk() {
    let pipelines: [fn(&Receiver) -> Builder; 2] = [
        |receiver| default_builder().exporter(Exporter::new(theirs(receiver))),
        |receiver| {
            let batch = |exporter| BatchSpanProcessor::builder(exporter).build();
            default_builder().span_processor_with(theirs(receiver), batch)
        },
    ];
    for build in pipelines {
        let receiver = Receiver::start(Protocol::HttpProtobuf);
        let pipeline = build(&receiver).build().expect("a pipeline");
        sends_all(&pipeline, &receiver, 1);
    }
}

#[test]
fn a_batch_processor_of_the_sdk_that_is_given_as_it_is_loses_nothing_either() {
    let receiver = Receiver::start(Protocol::HttpProtobuf);
    let processor = BatchSpanProcessor::builder(theirs(&receiver)).build();
    let pipeline = default_builder().span_processor(processor).build().expect("a pipeline");
    sends_all(&pipeline, &receiver, 1);
}

#[test]
fn what_outruns_the_exporter_is_counted_to_the_span() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        receiver.answer(Answer::Slow(Duration::from_millis(200)));
        let pipeline = builder().exporter(receiver.exporter()).max_queue_bytes(1 << 18).build().expect("a pipeline");
        burst(&pipeline, 2, 2_000);
        let _ = pipeline.flush(MINUTE);
        let (stats, tally) = (pipeline.stats(), receiver.tally());
        let lost = stats.spans.dropped[&Reason::QueueFull];
        assert!(lost > 0 && stats.spans.dropped() == lost, "{stats}");
        assert_eq!((tally.distinct_spans(), tally.spans()), (4_000 * SPANS - lost, stats.spans.exported), "{stats}");
        assert_eq!(tally.events(), stats.events.exported, "{stats}");
        assert!(stats.balances(), "{stats}");
    }
}
