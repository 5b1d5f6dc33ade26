//! The end of the line for stacks that end in the OpenTelemetry SDK: counts, and forgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use parking_lot::Mutex;

use crate::census::Census;

/// Spans that arrived.
#[derive(Debug, Default)]
pub struct Counter {
    spans: AtomicU64,
    /// Whether names and values are looked at as well; only in rounds that are not timed.
    detailed: AtomicBool,
    census: Mutex<Census>,
}

impl Counter {
    /// Spans so far.
    pub fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    /// Begins a census.
    pub fn begin(&self) {
        self.detailed.store(true, Relaxed);
    }

    /// Ends it.
    pub fn end(&self) -> Census {
        self.detailed.store(false, Relaxed);
        std::mem::take(&mut self.census.lock())
    }

    fn take(&self, span: &SpanData) {
        self.spans.fetch_add(1, Relaxed);
        if self.detailed.load(Relaxed) {
            self.census.lock().span_data(span);
        }
    }
}

/// An exporter, or a span processor, that ends in a [`Counter`].
#[derive(Clone, Debug, Default)]
pub struct Counting(pub Arc<Counter>);

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter().for_each(|span| self.0.take(span));
        Ok(())
    }
}

impl SpanProcessor for Counting {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.take(&span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Counts what another exporter has exported.
#[derive(Debug)]
pub struct Passing<E> {
    /// The exporter.
    pub inner: E,
    /// Where it is counted.
    pub counter: Arc<Counter>,
}

impl<E: SpanExporter> SpanExporter for Passing<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        self.inner.export(batch).await?;
        self.counter.spans.fetch_add(spans, Relaxed);
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
