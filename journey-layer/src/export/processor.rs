//! Span processors of the SDK as destinations, and what becomes of the spans that they are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter, SpanProcessor};
use parking_lot::Mutex;

use crate::export::batch::{Loss, Refused, Spans};
use crate::export::lane::{Accepted, Failure, Outcome};
use crate::export::local::Local;
use crate::stats::{Count, Reason};

/// Spans that are given to a processor between two flushes of it. Half of the SDK's default queue: the batch processor
/// drops what does not fit, and tells nobody.
const BETWEEN_FLUSHES: usize = 1024;

/// A span processor, which takes whatever it is given.
pub(crate) struct Processor {
    processor: Arc<dyn SpanProcessor>,
    given: usize,
}

impl Processor {
    pub(crate) fn new(processor: Arc<dyn SpanProcessor>) -> Self {
        Self { processor, given: 0 }
    }
}

impl Local for Processor {
    fn export(&mut self, spans: Spans) -> Outcome {
        for span in spans {
            if self.given >= BETWEEN_FLUSHES {
                // What it says of its exporter is not about these spans, and comes again with the next flush.
                let _ = self.flush();
            }
            self.processor.on_end(span);
            self.given += 1;
        }
        Ok(Accepted::default())
    }

    fn flush(&mut self) -> Result<(), String> {
        self.given = 0;
        self.processor.force_flush().map_err(|error| error.to_string())
    }

    fn shutdown(&mut self, timeout: Duration) {
        let _ = self.processor.shutdown_with_timeout(timeout);
    }
}

/// An exporter of the SDK inside a span processor, whose outcomes are counted; made by
/// [`Builder::span_processor_with`](crate::Builder::span_processor_with).
#[derive(Debug)]
pub struct Tallied<E> {
    exporter: E,
    tally: Arc<Tally>,
}

/// What the exporter has seen so far.
#[derive(Debug, Default)]
struct Tally {
    taken: Counter,
    failed: Counter,
    error: Mutex<Option<Loss>>,
}

#[derive(Debug, Default)]
struct Counter {
    spans: AtomicU64,
    events: AtomicU64,
}

impl Counter {
    fn add(&self, count: Count) {
        self.events.fetch_add(count.events, Relaxed);
        self.spans.fetch_add(count.spans, Relaxed);
    }

    fn get(&self) -> Count {
        Count { spans: self.spans.load(Relaxed), events: self.events.load(Relaxed) }
    }
}

impl<E: SpanExporter> SpanExporter for Tallied<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = count(&batch);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => self.tally.taken.add(count),
            Err(error) => {
                *self.tally.error.lock() = Some(loss(error));
                self.tally.failed.add(count);
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The loss that an error of the SDK stands for.
pub(crate) fn loss(error: &OTelSdkError) -> Loss {
    let reason = match error {
        OTelSdkError::Timeout(_) => Reason::ExportTimeout,
        OTelSdkError::AlreadyShutdown | OTelSdkError::InternalFailure(_) => Reason::ExportFailed,
    };
    Loss { reason, message: error.to_string() }
}

fn count(spans: &[SpanData]) -> Count {
    Count { spans: spans.len() as u64, events: spans.iter().map(|span| span.events.len() as u64).sum() }
}

/// A span processor around a [`Tallied`] exporter: flushed after every batch, so that each span's end is known.
pub(crate) struct TalliedProcessor {
    processor: Arc<dyn SpanProcessor>,
    tally: Arc<Tally>,
    timeout: Duration,
    /// The last flush did not end in time: what the exporter is still to say is about spans that are judged already.
    is_late: bool,
}

/// Wraps `exporter`, and makes the processor's destination once the processor stands.
pub(crate) fn tallied<E>(
    exporter: E,
) -> (Tallied<E>, impl FnOnce(Arc<dyn SpanProcessor>, Duration) -> TalliedProcessor) {
    let tally = Arc::<Tally>::default();
    let wrapped = Tallied { exporter, tally: tally.clone() };
    (wrapped, move |processor, timeout| TalliedProcessor { processor, tally, timeout, is_late: false })
}

impl TalliedProcessor {
    /// Flushes the processor. Whether that ended in time.
    fn pass_on(&self) -> bool {
        let start = Instant::now();
        // The processor's own patience may be shorter than the time that an export is given here.
        while matches!(self.processor.force_flush(), Err(OTelSdkError::Timeout(_))) && start.elapsed() < self.timeout {}
        start.elapsed() < self.timeout
    }
}

impl Local for TalliedProcessor {
    fn export(&mut self, spans: Spans) -> Outcome {
        if self.is_late && !self.pass_on() {
            return Err(Failure::transient("the span processor still has spans from before"));
        }
        let given = spans.total();
        let (taken, failed) = (self.tally.taken.get(), self.tally.failed.get());
        spans.for_each(|span| self.processor.on_end(span));
        self.is_late = !self.pass_on();
        let taken = self.tally.taken.get().since(taken);
        let failed = self.tally.failed.get().since(failed);
        let missing = given.since(taken).since(failed);
        let unseen = match self.is_late {
            true => Loss { reason: Reason::ExportTimeout, message: format!("no answer within {:?}", self.timeout) },
            false => Loss {
                reason: Reason::ProcessorDropped,
                message: "the span processor did not pass them on to its exporter".into(),
            },
        };
        let error = self.tally.error.lock().clone();
        let refused = [(failed, error.unwrap_or_else(|| unseen.clone())), (missing, unseen)]
            .into_iter()
            .filter(|(count, _)| count.spans > 0)
            .map(|(count, loss)| Refused { spans: count.spans, events: Some(count.events), loss });
        Ok(Accepted { refused: refused.collect() })
    }

    fn flush(&mut self) -> Result<(), String> {
        // Everything it was given has been flushed, and judged, with its batch.
        Ok(())
    }

    fn shutdown(&mut self, timeout: Duration) {
        let _ = self.processor.shutdown_with_timeout(timeout);
    }
}
