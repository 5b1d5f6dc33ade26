use std::sync::{Mutex, mpsc};

use journey_schema::SpanName;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::*;
use crate::env::Env;
use crate::export::convert::Semconv;
use crate::export::exporter::Exporter;
use crate::export::request::Reply;
use crate::export::sink::Limits;
use crate::record::SpanRecord;
use crate::stats::{Count, Stats};

/// Takes nothing before the other end of its channel is gone; then it counts.
#[derive(Debug)]
struct Stalled {
    until: Mutex<mpsc::Receiver<()>>,
    taken: Arc<Mutex<Vec<SpanId>>>,
}

impl SpanExporter for Stalled {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let _ = self.until.lock().expect("one caller").recv();
        self.taken.lock().expect("one caller").extend(batch.iter().map(|span| span.span_context.span_id()));
        Ok(())
    }
}

#[test]
fn the_export_thread_packs_what_waits_for_an_exporter_that_gets_nowhere() {
    const BATCHES: u64 = 4;
    let (stalls, until) = mpsc::channel();
    let taken = Arc::new(Mutex::default());
    let exporter = Exporter::new(Stalled { until: Mutex::new(until), taken: taken.clone() });
    let plan = Plan {
        destinations: vec![exporter.resolve(&Env::new(|_| None)).expect("an exporter")],
        conversion: Conversion::new(Semconv::default()),
        resource: Resource::builder_empty().build(),
        spool: None,
        warnings: Vec::new(),
    };
    let limits = Limits { max_batch: 16, ..Limits::default() };
    let spans = BATCHES * limits.max_batch as u64;
    let shared = Arc::new(Shared::new(limits, Arc::new(Stats::new())));
    spawn(plan, shared.clone()).expect("a thread");
    let mut records = 0;
    for id in 1..=spans {
        let record = SpanRecord::new(SpanName::LlmRequest, TraceId::from(7), SpanId::from(id), 0, 0);
        let item = Item::Record(Box::new(record));
        records += item.size().bytes;
        shared.submit(item);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    // All but the batch that the exporter has.
    while shared.queued_bytes() * 2 > records {
        assert!(Instant::now() < deadline, "{} of {records} bytes", shared.queued_bytes());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stalls);
    let (sender, receiver) = mpsc::sync_channel(1);
    shared.request(Duration::from_secs(30), Reply::Thread(sender), true);
    receiver.recv().expect("an answer").expect("a flush");
    assert_eq!((shared.backlog(), shared.queued_bytes()), (Count::default(), 0));
    assert!(taken.lock().expect("nobody else").iter().copied().eq((1..=spans).map(SpanId::from)));
}
