//! What travels from the queue to the exporters, and what becomes of it.

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanData;

use crate::export::convert::Conversion;
use crate::export::packed::Packed;
use crate::export::raw;
use crate::export::spool::Spool;
use crate::pool::RecordPool;
use crate::record::SpanRecord;
use crate::stats::{Count, Reason, Stats};

/// Bytes that the keys of an event's attributes take on the wire: `it_writes_what_opentelemetry_proto_writes` holds every
/// batch against it.
const EVENT_KEYS: usize = 320;

/// A finished span on its way out.
#[derive(Debug)]
pub(crate) enum Item {
    /// From the layer.
    Record(Box<SpanRecord>),
    /// The same, where many wait.
    Packed(Packed),
    /// From a tracer of our provider; leaves as it came.
    Raw(Box<SpanData>),
}

impl Item {
    pub(crate) fn count(&self) -> Count {
        let events = match self {
            Self::Record(record) => record.event_count() as u64,
            Self::Packed(packed) => packed.events(),
            Self::Raw(span) => span.events.len() as u64,
        };
        Count { spans: 1, events }
    }

    /// Bytes that the item holds, for the queue's bound.
    pub(crate) fn size(&self) -> Size {
        let (heap, packable) = match self {
            Self::Record(record) => (record.size(), record.size()),
            Self::Packed(packed) => (packed.size(), 0),
            Self::Raw(span) => (raw::size(span), 0),
        };
        Size { bytes: size_of::<Self>() + heap, packable }
    }

    /// Bytes on the wire at most, for a batch's bound: an event takes more there than in memory, where its keys are numbers.
    pub(crate) fn wire_size(&self) -> usize {
        let bytes = match self {
            Self::Packed(packed) => packed.record_size(),
            Self::Record(_) | Self::Raw(_) => self.size().bytes,
        };
        bytes + EVENT_KEYS * self.count().events as usize
    }
}

/// What spans hold that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: usize,
    /// Those of records, which could be packed.
    pub(crate) packable: usize,
}

impl Size {
    pub(crate) fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, packable: self.packable + other.packable }
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, packable: self.packable - other.packable }
    }
}

/// Why something was lost, in an exporter's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// Spans of a batch that were lost although an exporter took it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) spans: u64,
    /// Their events, where it is known which spans they are.
    pub(crate) events: Option<u64>,
    pub(crate) loss: Loss,
}

/// The spans of a batch as `SpanData`, each made when it is asked for: on the thread that lets go of it, which the system
/// allocator rewards.
pub(crate) struct Spans {
    items: Arc<Vec<Item>>,
    conversion: Arc<Conversion>,
    next: usize,
    /// Where packed records are unpacked.
    unpacked: Box<SpanRecord>,
}

impl Spans {
    /// How many there are, and their events.
    pub(crate) fn total(&self) -> Count {
        let events = self.items.iter().map(|item| item.count().events).sum();
        Count { spans: self.items.len() as u64, events }
    }
}

impl Iterator for Spans {
    type Item = SpanData;

    fn next(&mut self) -> Option<SpanData> {
        let item = self.items.get(self.next)?;
        self.next += 1;
        Some(match item {
            Item::Record(record) => self.conversion.span_data(record),
            Item::Packed(packed) => {
                packed.unpack(&mut self.unpacked);
                self.conversion.span_data(&self.unpacked)
            }
            Item::Raw(span) => SpanData::clone(span),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.items.len() - self.next;
        (left, Some(left))
    }
}

/// Spans that are exported together. It stays until every exporter has settled it.
#[derive(Debug)]
pub(crate) struct Batch {
    items: Arc<Vec<Item>>,
    pub(crate) count: Count,
    pub(crate) size: Size,
    /// The first exporter's failure.
    pub(crate) loss: Option<Loss>,
    /// The most that any exporter refused.
    refused: Vec<Refused>,
    /// Number of the spooled request that stands for an exporter's settlement.
    pub(crate) spooled: Option<u64>,
}

impl Batch {
    pub(crate) fn new(items: Vec<Item>) -> Self {
        let count = items.iter().map(Item::count).fold(Count::default(), Count::and);
        let size = items.iter().map(Item::size).fold(Size::default(), Size::and);
        Self { items: Arc::new(items), count, size, loss: None, refused: Vec::new(), spooled: None }
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Packs its records, and gives them back, unless an exporter has the batch.
    pub(crate) fn pack(&mut self, pool: &RecordPool) {
        let Some(items) = Arc::get_mut(&mut self.items) else { return };
        let mut records = Vec::new();
        let packed = std::mem::take(items).into_iter().map(|item| match item {
            Item::Record(mut record) => {
                let packed = Packed::new(&mut record);
                records.push(record);
                Item::Packed(packed)
            }
            other => other,
        });
        *items = packed.collect();
        self.size = items.iter().map(Item::size).fold(Size::default(), Size::and);
        pool.give(records.into_iter());
    }

    /// What an exporter refused, if it is more than others did.
    pub(crate) fn refuse(&mut self, mut refused: Vec<Refused>, exporter: &str) {
        let sum = |refused: &[Refused]| refused.iter().map(|part| part.spans).sum::<u64>();
        if sum(&refused) > sum(&self.refused) {
            refused.iter_mut().for_each(|part| part.loss.message = format!("{exporter}: {}", part.loss.message));
            self.refused = refused;
        }
    }

    pub(crate) fn spans(&self, conversion: &Arc<Conversion>) -> Spans {
        Spans { items: self.items.clone(), conversion: conversion.clone(), next: 0, unpacked: Box::default() }
    }

    /// Writes the batch into the ledger, and gives its records back. Returns what was lost of it.
    pub(crate) fn account(self, stats: &Stats, pool: &RecordPool, spool: Option<&mut Spool>) -> Option<(u64, Loss)> {
        // Unless an exporter that never came back has them still.
        if let Some(items) = Arc::into_inner(self.items) {
            pool.give(items.into_iter().filter_map(|item| match item {
                Item::Record(record) => Some(record),
                Item::Packed(_) | Item::Raw(_) => None,
            }));
        }
        let (kept, lost) = match self.loss {
            Some(loss) => {
                stats.count(loss.reason, self.count);
                (None, Some((self.count.spans, loss)))
            }
            None => {
                let (kept, lost) = deduct(self.count, self.refused, stats);
                (Some(kept), lost)
            }
        };
        match (spool.zip(self.spooled), kept) {
            (Some((spool, number)), kept) => spool.settle(number, kept),
            (None, Some(kept)) => stats.exported(kept),
            (None, None) => {}
        }
        lost
    }
}

/// Counts what was refused of `count`. Returns what is left, and what a flush is to tell.
pub(crate) fn deduct(count: Count, refused: Vec<Refused>, stats: &Stats) -> (Count, Option<(u64, Loss)>) {
    let mut kept = count;
    let mut lost: Option<(u64, Loss)> = None;
    for Refused { spans, events, loss } in refused {
        let spans = spans.min(kept.spans);
        // Without knowing which spans they are, their events are counted pro rata.
        let pro_rata = || (count.events * spans).checked_div(count.spans).unwrap_or(0);
        let part = Count { spans, events: events.unwrap_or_else(pro_rata).min(kept.events) };
        kept = kept.since(part);
        stats.count(loss.reason, part);
        lost = Some((lost.map_or(0, |(spans, _)| spans) + spans, loss));
    }
    (kept, lost)
}
