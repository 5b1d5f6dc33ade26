//! Journeys ended as fast as the machine can, with default settings.

use std::time::Duration;

use journey_layer::opentelemetry_sdk::trace::BatchSpanProcessor;
use journey_layer::{Exporter, Journey, Protocol, Reason};
use journey_reliability::is_full;
use journey_reliability::receiver::{Answer, PROTOCOLS, Receiver};
use journey_reliability::work::{EVENTS, SPANS, builder, burst};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};

/// Journeys of a burst: 100,000 in the long form.
fn count() -> u64 {
    if is_full() { 100_000 } else { 5_000 }
}

const MINUTE: Duration = Duration::from_secs(60);

fn sends_all(pipeline: &Journey, receiver: &Receiver, threads: u64) {
    let count = count() / threads;
    burst(pipeline, threads, count);
    let flushed = pipeline.flush(MINUTE);
    let (stats, tally, journeys) = (pipeline.stats(), receiver.tally(), count * threads);
    assert_eq!(flushed, Ok(()), "{stats}");
    assert_eq!((tally.distinct_spans(), tally.events()), (journeys * SPANS, journeys * EVENTS), "{stats}");
    assert_eq!((stats.spans.exported, stats.spans.dropped(), tally.torn()), (journeys * SPANS, 0, 0), "{stats}");
    assert!(stats.balances(), "{stats}");
}

#[test]
fn a_burst_loses_nothing_over_either_protocol() {
    for protocol in PROTOCOLS {
        for threads in [1, 4] {
            let receiver = Receiver::start(protocol);
            let pipeline = builder().exporter(receiver.exporter()).build().expect("a pipeline");
            sends_all(&pipeline, &receiver, threads);
        }
    }
}

fn theirs(receiver: &Receiver) -> SpanExporter {
    let url = format!("http://{}/v1/traces", receiver.address());
    SpanExporter::builder().with_http().with_endpoint(url).build().expect("an exporter")
}

#[test]
fn a_burst_loses_nothing_through_the_exporter_and_the_processor_of_the_sdk() {
    let pipelines: [fn(&Receiver) -> journey_layer::Builder; 2] = [
        |receiver| builder().exporter(Exporter::new(theirs(receiver))),
        |receiver| {
            let batch = |exporter| BatchSpanProcessor::builder(exporter).build();
            builder().span_processor_with(theirs(receiver), batch)
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
    let pipeline = builder().span_processor(processor).build().expect("a pipeline");
    sends_all(&pipeline, &receiver, 1);
}

#[test]
fn what_outruns_the_exporter_is_counted_to_the_span() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        receiver.answer(Answer::Slow(Duration::from_millis(50)));
        let pipeline = builder().exporter(receiver.exporter()).max_queue_bytes(1 << 20).build().expect("a pipeline");
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
