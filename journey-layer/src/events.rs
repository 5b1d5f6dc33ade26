//! Where an event goes, and what is counted when it goes nowhere; links; the active OpenTelemetry context.

use std::cell::RefCell;

use journey_schema::{Event, SpanName};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceId};
use opentelemetry::{Context, ContextGuard};
use tracing_core::span::Attributes;

use crate::callsites::{Place, Site};
use crate::clock;
use crate::decide::Walk;
use crate::layer_state::LayerState;
use crate::lifecycle::{Ending, Outcome};
use crate::record::SpanRecord;
use crate::stats::Reason;
use crate::table::{Entry, Original};
use crate::visitor::{EventFields, Fields};

/// The span that an event was for.
enum Found {
    Live(Outcome, Option<u64>),
    Exported,
    Rejected,
    SampledOut,
}

impl LayerState {
    /// Routes an event: to `start` or the nearest span around it that owns such events.
    #[inline]
    pub(crate) fn event(
        &self,
        place: &'static Place,
        kind: Event,
        fields: &EventFields,
        start: Option<u64>,
        walk: Walk<'_>,
    ) {
        let now = clock::monotonic_ns();
        // Nearly always the event is for the very span that is named, is right, and is not the last one.
        match start.and_then(|id| self.take_event(id, kind, fields, now)) {
            Some(Found::Live(Outcome::Taken, None)) => {}
            Some(found) => self.settle_event(place, kind, Some(found)),
            None => self.route_event(place, kind, fields, now, walk),
        }
    }

    /// Gives the event to the span `id`, if that owns such events.
    #[inline]
    fn take_event(&self, id: u64, kind: Event, fields: &EventFields, now: i64) -> Option<Found> {
        let here = self.table.with(id, |entry| match entry {
            Entry::Live(live) if live.record.name == kind.span() => {
                let outcome = live.event(kind, fields, now, self.core.config.max_events);
                // From its terminal event on, a request's id is free for the client's next try.
                let is_over = kind.is_terminal() && live.record.name == SpanName::LlmRequest;
                if kind.is_terminal()
                    && let Some(key) = live.record.span_key()
                {
                    // Its handle drops soon.
                    self.core.duplicates.prefetch(key);
                }
                Some(Found::Live(outcome, is_over.then(|| live.record.live.id_key.take()).flatten()))
            }
            Entry::Exported(family) if family.name == kind.span() => Some(Found::Exported),
            Entry::Rejected { name, .. } if *name == Some(kind.span()) => Some(Found::Rejected),
            Entry::SampledOut(name) if *name == kind.span() => Some(Found::SampledOut),
            _ => None,
        });
        here.flatten()
    }

    /// Looks for the span outward.
    #[cold]
    fn route_event(&self, place: &'static Place, kind: Event, fields: &EventFields, now: i64, walk: Walk<'_>) {
        let mut found = None;
        let mut in_sampled_out = false;
        walk(&mut |id| {
            found = self.take_event(id, kind, fields, now);
            in_sampled_out |= self.table.with(id, |entry| matches!(entry, Entry::SampledOut(_))) == Some(true);
            found.is_some()
        });
        if found.is_some() || !in_sampled_out {
            self.settle_event(place, kind, found);
        }
    }

    fn settle_event(&self, place: &'static Place, kind: Event, found: Option<Found>) {
        let core = &*self.core;
        let lost = match found {
            Some(Found::SampledOut) => return,
            Some(Found::Live(outcome, request_key)) => {
                if let Some(key) = request_key {
                    core.duplicates.release(key);
                }
                match outcome {
                    Outcome::Taken => None,
                    Outcome::Illegal(violation) => {
                        core.note(place, Reason::IllegalOrder, format_args!("{} {violation}", kind.ident()));
                        None
                    }
                    Outcome::SecondTerminal => Some(Reason::SecondTerminal),
                    Outcome::EventLimit => Some(Reason::EventLimit),
                }
            }
            Some(Found::Exported) => Some(Reason::Late),
            Some(Found::Rejected) => Some(Reason::DuplicateSpan),
            None => Some(Reason::OrphanEvent),
        };
        // One that is on its span is counted with the span.
        if let Some(reason) = lost {
            core.stats.event_started();
            core.stats.event(reason);
            core.warn(place, reason, format_args!("{} went nowhere", kind.ident()));
        }
    }

    /// Refuses a span that the schema does not have. What a refused `llm_request` brings goes to the true one.
    pub(crate) fn refuse(&self, id: u64, site: &'static Site, reason: Reason, attrs: &Attributes<'_>, walk: Walk<'_>) {
        let core = &*self.core;
        core.stats.span_started();
        let name = SpanName::from_name(site.metadata.name());
        if name != Some(SpanName::LlmRequest) {
            core.stats.span(reason);
            core.warn(&site.place, reason, format_args!("a span was refused"));
            return self.table.insert(id, Entry::Rejected { name, original: None });
        }
        let mut record = core.pool().take();
        record.begin(SpanName::LlmRequest, TraceId::INVALID, 0);
        attrs.record(&mut Fields::new(site, core, &mut *record));
        let original = self.enclosing_request(walk).or_else(|| self.request_with_id_of(&record));
        self.reject(id, site, reason, SpanName::LlmRequest, original, record);
    }

    /// The live `llm_request` that has the same request id.
    fn request_with_id_of(&self, record: &SpanRecord) -> Option<Original> {
        let request_id = record.attribute(journey_schema::Attr::RequestId)?.as_str()?;
        let key = self.core.duplicates.id_key(SpanName::LlmRequest, TraceId::INVALID, request_id)?;
        Some(self.original(self.core.duplicates.get(key, clock::monotonic_ns())?))
    }

    /// Links the span `id` to the journey span `to`.
    pub(crate) fn link(&self, id: u64, to: u64) {
        if let Some(context) = self.context(to) {
            self.table.with_live(id, |live| live.record.push_link(context));
        }
    }

    /// The context of a journey span, as children and carriers see it.
    pub(crate) fn context(&self, id: u64) -> Option<SpanContext> {
        self.table
            .with(id, |entry| match entry {
                Entry::Live(live) => Some(live.record.context()),
                Entry::Exported(family) => Some(family.context.clone()),
                Entry::Rejected { original, .. } => Some(original.as_ref()?.family.as_ref()?.context.clone()),
                Entry::SampledOut(_) => None,
            })
            .flatten()
    }

    /// Notes how the code around a span ended, and when: children may hold it open for long. A request's id is free then.
    pub(crate) fn mark(&self, id: u64, ending: Ending) {
        let now = clock::monotonic_ns();
        let key = self.table.with_live(id, |live| live.ends_without_event(ending, now)).flatten();
        if let Some(key) = key {
            self.core.duplicates.release(key);
        }
    }

    /// Whether the span can still take its terminal event.
    pub(crate) fn is_open(&self, id: u64) -> bool {
        self.table.with_live(id, |live| !live.is_finished()).unwrap_or(false)
    }

    /// Makes the span the active OpenTelemetry context of this thread, until [`deactivate`](Self::deactivate).
    pub(crate) fn activate(&self, id: u64) {
        if let Some(context) = self.context(id) {
            let guard = Context::current().with_remote_span_context(context).attach();
            // While the thread's storage is torn down there is nobody left to propagate to.
            let _ = ACTIVE.try_with(|active| active.borrow_mut().push((self.number, id, guard)));
        }
    }

    pub(crate) fn deactivate(&self, id: u64) {
        let _ = ACTIVE.try_with(|active| {
            let mut active = active.borrow_mut();
            let at = active.iter().rposition(|(layer, of, _)| (*layer, *of) == (self.number, id));
            at.map(|at| active.remove(at))
        });
    }
}

thread_local! {
    static ACTIVE: RefCell<Vec<(u64, u64, ContextGuard)>> = const { RefCell::new(Vec::new()) };
}
