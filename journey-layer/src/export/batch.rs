//! What travels from the queue to the exporters, and what becomes of it.

use opentelemetry_sdk::trace::SpanData;

use crate::export::convert::Conversion;
use crate::pool::RecordPool;
use crate::record::SpanRecord;
use crate::stats::{Count, Reason, Stats};

/// A finished span on its way out.
#[derive(Debug)]
pub(crate) enum Item {
    /// From the layer.
    Record(Box<SpanRecord>),
    /// From a tracer of our provider; leaves as it came.
    Raw(Box<SpanData>),
}

impl Item {
    pub(crate) fn count(&self) -> Count {
        let events = match self {
            Self::Record(record) => record.events().len(),
            Self::Raw(span) => span.events.len(),
        };
        Count { spans: 1, events: events as u64 }
    }

    /// Bytes that the item holds, for the queue's bound.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Record(record) => record.size(),
            Self::Raw(span) => size_of::<SpanData>() + 64 * (span.attributes.len() + span.events.len()),
        }
    }

    pub(crate) fn to_span_data(&self, conversion: &Conversion) -> SpanData {
        match self {
            Self::Record(record) => conversion.span_data(record),
            Self::Raw(span) => SpanData::clone(span),
        }
    }
}

/// Why something was lost, in an exporter's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// Spans that are exported together. It stays until every exporter has settled it.
#[derive(Debug)]
pub(crate) struct Batch {
    items: Vec<Item>,
    pub(crate) count: Count,
    pub(crate) bytes: usize,
    /// The first exporter's failure.
    pub(crate) loss: Option<Loss>,
    /// Spans that a receiver refused although it took the batch; the most of any receiver.
    pub(crate) rejected: u64,
    pub(crate) rejection: String,
}

impl Batch {
    pub(crate) fn new(items: Vec<Item>) -> Self {
        let mut count = Count::default();
        let mut bytes = 0;
        for item in &items {
            count.spans += 1;
            count.events += item.count().events;
            bytes += item.size();
        }
        Self { items, count, bytes, loss: None, rejected: 0, rejection: String::new() }
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(crate) fn span_data(&self, conversion: &Conversion) -> Vec<SpanData> {
        self.items.iter().map(|item| item.to_span_data(conversion)).collect()
    }

    /// Writes the batch into the ledger, and gives its records back. Returns what was lost of it.
    pub(crate) fn account(self, stats: &Stats, pool: &RecordPool) -> Option<(u64, Loss)> {
        pool.give(self.items.into_iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Raw(_) => None,
        }));
        if let Some(loss) = self.loss {
            stats.count(loss.reason, self.count);
            return Some((self.count.spans, loss));
        }
        let spans = self.rejected.min(self.count.spans);
        // The receiver does not say which spans it refused, so their events are counted pro rata.
        let refused = Count { spans, events: (self.count.events * spans).checked_div(self.count.spans).unwrap_or(0) };
        stats.exported(Count { spans: self.count.spans - spans, events: self.count.events - refused.events });
        if spans == 0 {
            return None;
        }
        stats.count(Reason::PartialSuccess, refused);
        Some((spans, Loss { reason: Reason::PartialSuccess, message: self.rejection }))
    }
}
