//! One subscriber's spans: opened, recorded on, rejected.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use journey_schema::{Attr, SpanName};
use opentelemetry::trace::{SpanId, TraceId};
use tracing_core::dispatcher::WeakDispatch;

use crate::callsites::Site;
use crate::clock;
use crate::config::OnDuplicate;
use crate::core::Core;
use crate::decide::Decision;
use crate::duplicates::{Origin, Seen};
use crate::layer::WalkFrom;
use crate::lifecycle::LiveSpan;
use crate::placeholder::{self, Placeholders};
use crate::record::{OwnedValue, ParentSpan, SpanRecord};
use crate::span_ids::SpanIds;
use crate::stats::{Count, Reason};
use crate::table::{Entry, Family, Original, Table};

/// One layer: the spans of one subscriber.
pub(crate) struct LayerState {
    pub(crate) number: u64,
    pub(crate) core: Arc<Core>,
    /// Nothing else listens to the subscriber: foreign callsites may be switched off altogether.
    pub(crate) alone: bool,
    pub(crate) table: Table,
    span_ids: SpanIds,
    pub(crate) placeholders: Placeholders,
    /// The subscriber that the layer is part of, once it is known.
    pub(crate) dispatch: OnceLock<WeakDispatch>,
    /// Looks the spans of that subscriber up.
    pub(crate) walk: OnceLock<WalkFrom>,
}

impl LayerState {
    pub(crate) fn new(core: Arc<Core>, alone: bool) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        placeholder::register();
        let state = Arc::new(Self {
            number: NUMBER.fetch_add(1, Relaxed),
            core: core.clone(),
            alone,
            table: Table::new(),
            span_ids: SpanIds::new(),
            placeholders: Placeholders::default(),
            dispatch: OnceLock::new(),
            walk: OnceLock::new(),
        });
        core.add_layer(&state);
        state
    }

    /// The record of a span that is to be built, without attributes and without the span's id.
    pub(crate) fn prepare(&self, decision: Decision) -> Box<SpanRecord> {
        let mut record = self.core.pool().take();
        record.begin(decision.name, decision.trace_id, decision.anchor_ns.unwrap_or_else(clock::anchor_ns));
        if let Some(parent) = &decision.parent {
            record.parent = Some(ParentSpan { span_id: parent.span_id(), is_remote: parent.is_remote() });
            record.set_trace_state(parent.trace_state());
        }
        if decision.duplicate.is_some() || decision.sibling.is_some() {
            let opening = record.live.opening.get_or_insert_default();
            (opening.duplicate, opening.around) = (decision.duplicate, decision.sibling);
        }
        record
    }

    /// Opens the span `id`, or rejects it: `record` holds the attributes it was created with.
    pub(crate) fn open(&self, id: u64, site: &'static Site, mut record: Box<SpanRecord>) {
        let core = &*self.core;
        let origin = Origin { layer: self.number, id };
        let name = record.name;
        let now = clock::monotonic_ns();
        record.open(self.span_ids.span_id(id, record.trace_id, now), now);
        let opening = record.live.opening.take();
        if let Some(opening) = &opening {
            core.note_problems(&site.place, &opening.problems);
        }
        let (duplicate, around) = opening.map_or((None, None), |opening| (opening.duplicate, opening.around));
        if let Some(duplicate) = duplicate {
            let (reason, original) = *duplicate;
            core.stats.span_started();
            return self.reject(id, site, reason, name, original, record);
        }
        let mut live = LiveSpan::new(record, site);
        let verdict = match around {
            // Without ids, a sequence inside a sequence can only be the same one.
            Some(around) if live.record.attribute(Attr::RequestId).is_none() => Err(self.original_at(around)),
            _ => self.claim(&mut live, origin),
        };
        if let Err(original) = verdict {
            let reason = if name == SpanName::LlmRequest { Reason::SameId } else { Reason::SameSequence };
            core.stats.span_started();
            return self.reject(id, site, reason, name, Some(original), live.record);
        }
        // The table counts it.
        if let Err(live) = self.table.open(id, live, core.config.max_live) {
            self.forget_claim(&live);
            core.stats.span_started();
            core.stats.span(Reason::LiveLimit);
            core.warn(&site.place, Reason::LiveLimit, format_args!("{} spans are open", core.config.max_live));
            self.table.insert(id, Entry::Rejected { name: Some(name), original: None });
        }
    }

    /// The last handle of the span `id` is gone.
    pub(crate) fn close(&self, id: u64) {
        let closed = self.table.remove_after(id, |entry| {
            if let Entry::Live(live) = entry {
                self.core.remember(live);
            }
        });
        if let Some(Entry::Live(live)) = closed {
            self.core.close(live);
        }
    }

    /// Takes every live span that `wanted` wants out of the table.
    pub(crate) fn sweep(&self, mut wanted: impl FnMut(&LiveSpan) -> bool) -> Vec<LiveSpan> {
        self.table.sweep(|live| {
            let taken = wanted(live);
            if taken {
                self.core.remember(live);
            }
            taken
        })
    }

    /// The live span that this context is of, if it is this layer's.
    pub(crate) fn find(&self, trace_id: TraceId, span_id: SpanId) -> Option<Seen> {
        let id = self.span_ids.id(span_id, trace_id);
        let name = self.table.with_live(id, |live| {
            let record = &live.record;
            (record.trace_id == trace_id && record.span_id == span_id && record.name.is_journey())
                .then_some(record.name)
        });
        name.flatten().map(|name| Seen::Live { origin: Origin { layer: self.number, id }, name })
    }

    /// Takes the key that the span's `gen_ai.request.id` stands for.
    fn claim(&self, live: &mut LiveSpan, origin: Origin) -> Result<(), Original> {
        let name = live.record.name;
        let id = live.record.attribute(Attr::RequestId);
        let key =
            id.and_then(|id| id.as_str()).and_then(|id| self.core.duplicates.id_key(name, live.record.trace_id, id));
        if let Some(key) = key {
            let now = live.record.start_ns;
            self.core.duplicates.claim(key, name, origin, now).map_err(|seen| self.original(seen))?;
            live.record.live.id_key = Some(key);
        }
        Ok(())
    }

    fn forget_claim(&self, live: &LiveSpan) {
        if let Some(key) = live.record.live.id_key {
            self.core.duplicates.release(key);
        }
    }

    /// What is known here of a span that this process made.
    pub(crate) fn original(&self, seen: Seen) -> Original {
        match seen {
            Seen::Live { origin, .. } if origin.layer == self.number => self.original_at(origin.id),
            Seen::Live { .. } | Seen::Closed => Original { id: None, family: None },
        }
    }

    fn original_at(&self, id: u64) -> Original {
        let family = self.table.with(id, |entry| match entry {
            Entry::Live(live) => Some(live.family()),
            Entry::Exported(family) => Some(Family::clone(family)),
            Entry::Rejected { .. } | Entry::SampledOut(_) => None,
        });
        Original { id: Some(id), family: family.flatten() }
    }

    /// Refuses a span: counts it, warns, and hands what it brings to the original.
    pub(crate) fn reject(
        &self,
        id: u64,
        site: &'static Site,
        reason: Reason,
        name: SpanName,
        original: Option<Original>,
        record: Box<SpanRecord>,
    ) {
        let core = &*self.core;
        core.stats.span(reason);
        core.warn(&site.place, reason, format_args!("a second {} was refused", name.name()));
        if let Some(original) = original.as_ref().and_then(|original| original.id) {
            let attributes: Vec<_> = record.attributes().map(|(attr, value)| (attr, value.to_owned())).collect();
            self.merge(original, &attributes);
        }
        core.pool().put_back(record);
        self.table.insert(id, Entry::Rejected { name: Some(name), original: original.map(Box::new) });
        assert!(
            core.config.duplicates != OnDuplicate::Panic,
            "{reason}: a second {} at {}:{}",
            name.name(),
            site.metadata.file().unwrap_or("?"),
            site.metadata.line().unwrap_or(0),
        );
    }

    /// Sets on the live span `original` the attributes that it lacks.
    pub(crate) fn merge(&self, original: u64, attributes: &[(Attr, OwnedValue)]) {
        if self.core.config.duplicates != OnDuplicate::Merge {
            return;
        }
        self.table.with_live(original, |live| {
            for (attr, value) in attributes {
                if live.record.name.attributes().contains(attr) && live.record.attribute(*attr).is_none() {
                    live.record.set_attribute(*attr, value.as_ref());
                }
            }
        });
    }

    /// Sets attributes on the span `id` after its creation.
    pub(crate) fn record(&self, id: u64, attributes: &[(Attr, OwnedValue)]) {
        let request_id = attributes.iter().any(|(attr, _)| *attr == Attr::RequestId);
        let original = self.table.with(id, |entry| match entry {
            Entry::Live(live) => {
                for (attr, value) in attributes {
                    live.record.set_attribute(*attr, value.as_ref());
                }
                None
            }
            Entry::Rejected { original, .. } => original.as_ref().and_then(|original| original.id),
            Entry::Exported(_) => {
                self.core.stats.span(Reason::LateAttribute);
                None
            }
            Entry::SampledOut(_) => None,
        });
        if let Some(original) = original.flatten() {
            self.merge(original, attributes);
        } else if request_id {
            self.claim_late(id);
        }
    }

    /// A request id that came after the span's creation may show that the span is a duplicate.
    fn claim_late(&self, id: u64) {
        let duplicates = &self.core.duplicates;
        // Two locks are never held at once: look, claim, then write down what was claimed.
        let looked = self.table.with_live(id, |live| {
            let record = &live.record;
            let request_id = record.attribute(Attr::RequestId)?.as_str()?;
            let key = duplicates.id_key(record.name, record.trace_id, request_id)?;
            (!live.is_finished()).then_some((record.name, key))
        });
        let Some((name, key)) = looked.flatten() else { return };
        match duplicates.claim(key, name, Origin { layer: self.number, id }, clock::monotonic_ns()) {
            Ok(()) => {
                let before = self.table.with_live(id, |live| live.record.live.id_key.replace(key));
                match before {
                    Some(Some(before)) if before != key => duplicates.release(before),
                    Some(_) => {}
                    // Closed in the meantime by another thread.
                    None => duplicates.release(key),
                }
            }
            Err(seen) => self.reject_late(id, self.original(seen)),
        }
    }

    /// Turns an open span into a rejected one; its events so far go with it.
    fn reject_late(&self, id: u64, original: Original) {
        let Some(Entry::Live(live)) = self.table.remove(id) else { return };
        self.forget_claim(&live);
        let core = &*self.core;
        let events = Count { spans: 0, events: live.record.event_count() as u64 };
        core.stats.count(Reason::DuplicateSpan, events);
        let name = live.record.name;
        let reason = if name == SpanName::LlmRequest { Reason::SameId } else { Reason::SameSequence };
        let site = live.site();
        self.reject(id, site, reason, name, Some(original), live.record);
    }

    pub(crate) fn end_all(&self) {
        self.placeholders.clear();
        for live in self.sweep(|_| true) {
            self.core.close(live);
        }
    }
}

impl Drop for LayerState {
    fn drop(&mut self) {
        // The subscriber is gone, and no close will come for what is still open.
        for live in self.sweep(|_| true) {
            self.core.close(live);
        }
        // What the table has counted outlives it.
        self.core.stats.started(self.table.census().started);
    }
}
