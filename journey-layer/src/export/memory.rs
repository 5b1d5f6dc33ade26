//! Spans kept in memory, for tests.

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;

use crate::export::batch::Spans;
use crate::export::exporter::{Destination, Exporter, unique};
use crate::export::lane::{Accepted, Outcome};
use crate::export::local::Local;

/// Finished spans in memory; every clone reads the same ones. Made by [`Exporter::memory`].
///
/// Nothing bounds it: for tests, not for servers.
#[derive(Clone, Debug)]
pub struct Memory {
    spans: Arc<Mutex<Vec<SpanData>>>,
    /// The same for all clones: they are one destination.
    label: Arc<str>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { spans: Arc::default(), label: unique("memory").into() }
    }
}

impl Memory {
    /// The spans exported so far; [`Journey::flush`](crate::Journey::flush) first.
    pub fn spans(&self) -> Vec<SpanData> {
        self.spans.lock().clone()
    }

    /// Takes them out.
    pub fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut self.spans.lock())
    }
}

impl Local for Memory {
    fn export(&mut self, spans: Spans) -> Outcome {
        self.spans.lock().extend(spans);
        Ok(Accepted::default())
    }
}

impl From<Memory> for Exporter {
    fn from(memory: Memory) -> Self {
        let label = memory.label.clone();
        Destination::local(label.to_string(), |_| Ok(memory)).prompt().into()
    }
}
