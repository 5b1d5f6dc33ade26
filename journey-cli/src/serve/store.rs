//! What the live page remembers: bounded by count and by bytes, the oldest go first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use journey_schema::SpanName;

use crate::check::{Dialects, Finding, Index, Role, check_span};
use crate::journey::{Journey, Request, Sequence, journey_of};
use crate::model::{Name, Span, SpanRef, TraceId};
use crate::read::{At, Place};

/// Spans of one journey that are kept: many sequences are legal, endless ones are an attack or a loop.
const MAX_SPANS: usize = 1_024;

/// Findings of spans that belong to no journey.
const MAX_STRAY: usize = 1_000;

/// The whole store's bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Journeys, and as many scheduler steps.
    pub journeys: usize,
    /// Bytes, about.
    pub bytes: usize,
    /// Silence after which a journey's missing spans count as missing.
    pub settle: Duration,
}

/// A journey with all that was received of it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) journey: Journey,
    pub(super) spans: Vec<Arc<Span>>,
    /// Findings that each span shows by itself.
    local: Vec<Finding>,
    /// Findings that need several spans, from the last time the journey was silent.
    cross: Vec<Finding>,
    bytes: usize,
    /// When the last span came.
    touched: Instant,
    /// Whether it waits to be judged.
    settling: bool,
}

impl Stored {
    /// All findings, by rule.
    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.local.iter().chain(&self.cross)
    }

    /// How many there are.
    pub(super) fn finding_count(&self) -> usize {
        self.local.len() + self.cross.len()
    }
}

/// A scheduler step with its forward passes.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) span: Arc<Span>,
    pub(super) forwards: Vec<Arc<Span>>,
}

/// What was received and what had to go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) spans: u64,
    pub(super) evicted: u64,
    pub(super) unreadable: u64,
    /// Spans of other libraries and services.
    pub(super) foreign: u64,
}

/// Journeys and steps.
#[derive(Debug)]
pub(super) struct Store {
    limits: Limits,
    dialects: Dialects,
    journeys: HashMap<SpanRef, Stored, RandomState>,
    by_order: BTreeMap<u64, SpanRef>,
    by_trace: HashMap<TraceId, Vec<SpanRef>, RandomState>,
    /// Which journey an `llm_core` belongs to, for the links of steps.
    cores: HashMap<SpanRef, SpanRef, RandomState>,
    steps: VecDeque<Step>,
    /// Forward passes whose steps have not come.
    forwards: VecDeque<Arc<Span>>,
    stray: VecDeque<Finding>,
    /// Journeys to be judged, each once, with when they were last known to have been touched.
    settling: VecDeque<(Instant, SpanRef)>,
    next: u64,
    bytes: usize,
    totals: Totals,
}

impl Store {
    pub(super) fn new(limits: Limits, dialects: Dialects) -> Self {
        Self {
            limits,
            dialects,
            journeys: HashMap::default(),
            by_order: BTreeMap::new(),
            by_trace: HashMap::default(),
            cores: HashMap::default(),
            steps: VecDeque::new(),
            forwards: VecDeque::new(),
            stray: VecDeque::new(),
            settling: VecDeque::new(),
            next: 0,
            bytes: 0,
            totals: Totals::default(),
        }
    }

    /// Takes a span in.
    pub(super) fn add(&mut self, span: Span, now: Instant) {
        self.totals.spans += 1;
        let mut found = Vec::new();
        let role = check_span(&span, At { file: 0, place: Place::File }, self.dialects, &mut found);
        match (role, journey_of(&span)) {
            (Role::Foreign, _) => self.totals.foreign += 1,
            (_, Some(id)) => self.add_to_journey(id, span, found, now),
            (Role::HistoricalDuplicate, _) if span.parent_ref().is_some_and(|id| self.journeys.contains_key(&id)) => {
                if let Some(stored) = span.parent_ref().and_then(|id| self.journeys.get_mut(&id))
                    && stored.local.len() < MAX_SPANS
                {
                    stored.local.extend(found);
                }
            }
            (Role::Schema(SpanName::SchedulerStep), None) => {
                self.add_step(span);
                self.stray(found);
            }
            (Role::Schema(SpanName::ModelForward), None) => {
                self.add_forward(span);
                self.stray(found);
            }
            _ => self.stray(found),
        }
        self.evict();
    }

    fn add_step(&mut self, span: Span) {
        self.bytes += span.footprint();
        let (forwards, others): (Vec<_>, _) =
            std::mem::take(&mut self.forwards).into_iter().partition(|forward| forward.parent_ref() == Some(span.id));
        self.forwards = others.into();
        self.steps.push_back(Step { span: Arc::new(span), forwards });
    }

    /// Takes in a forward pass. It ends, and mostly comes, before its step.
    fn add_forward(&mut self, span: Span) {
        let parent = span.parent_ref();
        let step = self.steps.iter_mut().rev().find(|step| Some(step.span.id) == parent);
        if step.as_ref().is_some_and(|step| step.forwards.len() >= MAX_SPANS) {
            self.totals.evicted += 1;
            return;
        }
        self.bytes += span.footprint();
        match step {
            Some(step) => step.forwards.push(Arc::new(span)),
            None => self.forwards.push_back(Arc::new(span)),
        }
        if self.forwards.len() > MAX_SPANS {
            self.evict_forward();
        }
    }

    fn evict_forward(&mut self) {
        if let Some(span) = self.forwards.pop_front() {
            self.bytes = self.bytes.saturating_sub(span.footprint());
            self.totals.evicted += 1;
        }
    }

    fn add_to_journey(&mut self, id: SpanRef, span: Span, found: Vec<Finding>, now: Instant) {
        if !self.journeys.contains_key(&id) {
            self.next += 1;
            self.by_order.insert(self.next, id);
            self.by_trace.entry(id.trace_id).or_default().push(id);
            let stored = Stored {
                journey: Journey::new(id),
                spans: Vec::new(),
                local: Vec::new(),
                cross: Vec::new(),
                bytes: 0,
                touched: now,
                settling: false,
            };
            self.journeys.insert(id, stored);
        }
        let Some(stored) = self.journeys.get_mut(&id) else { return };
        if stored.spans.len() >= MAX_SPANS {
            self.totals.evicted += 1;
            return;
        }
        if span.name == Name::Known(SpanName::LlmRequest) {
            stored.journey.request = Some(Request::from_span(&span));
        } else if stored.spans.iter().all(|other| other.id != span.id) {
            stored.journey.sequences.push(Sequence::from_span(&span));
            self.cores.insert(span.id, id);
        }
        // A journey's own record is about as large as its spans' ids and times.
        let bytes = span.footprint() + size_of::<Stored>() + found.iter().map(Finding::footprint).sum::<usize>();
        stored.bytes += bytes;
        self.bytes += bytes;
        stored.local.extend(found);
        stored.spans.push(Arc::new(span));
        stored.touched = now;
        if !std::mem::replace(&mut stored.settling, true) {
            self.settling.push_back((now, id));
        }
    }

    fn stray(&mut self, found: Vec<Finding>) {
        self.stray.extend(found);
        let over = self.stray.len().saturating_sub(MAX_STRAY);
        self.stray.drain(..over);
    }

    fn evict(&mut self) {
        // What may never get its step goes before what is whole.
        while self.bytes > self.limits.bytes && !self.forwards.is_empty() {
            self.evict_forward();
        }
        while self.journeys.len() > self.limits.journeys
            || (self.bytes > self.limits.bytes && !self.journeys.is_empty())
        {
            // Steps take memory as well: the older of the two kinds goes.
            if self.bytes > self.limits.bytes && self.steps.len() > self.journeys.len() {
                self.evict_step();
                continue;
            }
            let Some((_, id)) = self.by_order.pop_first() else { break };
            self.remove(id);
        }
        while self.steps.len() > self.limits.journeys || (self.bytes > self.limits.bytes && !self.steps.is_empty()) {
            self.evict_step();
        }
    }

    fn evict_step(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            let forwards: usize = step.forwards.iter().map(|span| span.footprint()).sum();
            self.bytes = self.bytes.saturating_sub(step.span.footprint() + forwards);
            self.totals.evicted += 1;
        }
    }

    fn remove(&mut self, id: SpanRef) {
        let Some(stored) = self.journeys.remove(&id) else { return };
        self.totals.evicted += 1;
        self.bytes = self.bytes.saturating_sub(stored.bytes);
        for span in &stored.spans {
            self.cores.remove(&span.id);
        }
        if let Some(ids) = self.by_trace.get_mut(&id.trace_id) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_trace.remove(&id.trace_id);
            }
        }
    }

    /// Runs the rules about several spans over the journeys that have been silent long enough. `true` if any was.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let mut due: HashMap<TraceId, Vec<SpanRef>, RandomState> = HashMap::default();
        while self.settling.front().is_some_and(|(since, _)| now.duration_since(*since) >= self.limits.settle) {
            let Some((_, id)) = self.settling.pop_front() else { break };
            let Some(stored) = self.journeys.get_mut(&id) else { continue };
            if now.duration_since(stored.touched) < self.limits.settle {
                self.settling.push_back((stored.touched, id));
            } else {
                stored.settling = false;
                due.entry(id.trace_id).or_default().push(id);
            }
        }
        // Each trace once: it may have thousands of journeys.
        for (trace_id, due) in &due {
            let Some(ids) = self.by_trace.get(trace_id) else { continue };
            let mut index = Index::default();
            for span in ids.iter().filter_map(|id| self.journeys.get(id)).flat_map(|stored| &stored.spans) {
                let role = check_span(span, At { file: 0, place: Place::File }, self.dialects, &mut Vec::new());
                index.add(span, At { file: 0, place: Place::File }, role);
            }
            let mut found: HashMap<SpanRef, Vec<Finding>, RandomState> = HashMap::default();
            index.check(&mut |finding| found.entry(finding.span).or_default().push(finding));
            for id in due {
                if let Some(stored) = self.journeys.get_mut(id) {
                    stored.cross = stored.spans.iter().filter_map(|span| found.remove(&span.id)).flatten().collect();
                    stored.cross.sort_by_key(|finding| (finding.rule, finding.span));
                }
            }
        }
        !due.is_empty()
    }

    pub(super) fn unreadable(&mut self, count: u64) {
        self.totals.unreadable += count;
    }

    /// Journeys, the latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Stored> {
        self.by_order.values().rev().filter_map(|id| self.journeys.get(id))
    }

    pub(super) fn get(&self, id: SpanRef) -> Option<&Stored> {
        self.journeys.get(&id)
    }

    /// The journey that an `llm_core` belongs to.
    pub(super) fn journey_of_core(&self, core: SpanRef) -> Option<&Stored> {
        self.cores.get(&core).and_then(|id| self.journeys.get(id))
    }

    /// Steps, the latest first.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().rev()
    }

    /// Findings of spans that belong to no journey, the latest first.
    pub(super) fn stray_findings(&self) -> impl Iterator<Item = &Finding> {
        self.stray.iter().rev()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn len(&self) -> usize {
        self.journeys.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn findings_count(&self) -> usize {
        self.stray.len() + self.journeys.values().map(Stored::finding_count).sum::<usize>()
    }
}
