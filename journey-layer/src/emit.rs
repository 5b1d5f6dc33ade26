//! Events of the macros, handed to the layer as they are.
//!
//! An event that goes the way of `tracing` is a list of fields that every layer visits one by one, each through two virtual
//! calls: that alone costs more than all that becomes of it here. So `journey_event!` hands its event to the journey
//! layer of the span's subscriber directly, and then emits the `tracing` event for whoever else listens. That one is
//! marked ([`SHADOW_FIELD`](journey_schema::SHADOW_FIELD)): the layer tells `tracing` that it does not want it, and where
//! nobody else does either, it is switched off at its callsite and costs one load.

use std::fmt;

use journey_schema::{AbortReason, Attr, AttributeType, Event, FinishStatus, Phase, ScheduleKind};
use tracing::Span;
use tracing_core::dispatcher::{self, Dispatch};
use tracing_core::span::Id;

use crate::__private::value::{Float, Given, Int};
use crate::callsites::Place;
use crate::layer::JourneyLayer;
use crate::layer_state::LayerState;
use crate::progress::Progress;
use crate::record::truncate;
use crate::visitor::{EventFields, Receive};

/// A `journey_event!` in the code.
#[derive(Debug)]
pub struct EventSite {
    event: Event,
    place: Place,
}

impl EventSite {
    /// The call in this line.
    pub const fn new(event: Event, file: &'static str, line: u32) -> Self {
        Self { event, place: Place::new(file, line, event.scope().name(), event.wire_name()) }
    }
}

/// What a call of `journey_event!` says.
#[derive(Debug)]
pub struct Said {
    fields: EventFields,
    /// Bytes of one text at most.
    max_text: usize,
    problems: Vec<Problem>,
}

/// A value that cannot leave as it is.
#[derive(Debug)]
enum Problem {
    Invalid(Attr, String),
    Truncated(Attr),
}

impl Said {
    fn new(max_text: usize) -> Self {
        Self { fields: EventFields::default(), max_text, problems: Vec::new() }
    }

    /// The counters and the phase of a snapshot, those that it has.
    pub fn progress(&mut self, progress: &Progress) {
        self.int(Attr::SchedulerStep, &progress.scheduler_step);
        self.int(Attr::PrefillDone, &progress.prefill_done_tokens);
        self.int(Attr::PrefillTotal, &progress.prefill_total_tokens);
        self.int(Attr::PrefillRecomputed, &progress.prefill_recomputed_tokens);
        self.int(Attr::DecodeDone, &progress.decode_done_tokens);
        self.int(Attr::DecodeMax, &progress.decode_max_tokens);
        self.int(Attr::NumPreemptions, &progress.num_preemptions);
        self.fields.phase = progress.phase;
    }

    /// An integer.
    #[inline]
    pub fn int<T: Int + ?Sized>(&mut self, attr: Attr, value: &T) {
        match value.given() {
            Given::Value(value) => self.fields.int(attr, value),
            Given::Nothing => {}
            Given::Beyond(value) => self.invalid(attr, &value),
        }
    }

    /// A float.
    #[inline]
    pub fn float<T: Float + ?Sized>(&mut self, attr: Attr, value: &T) {
        match value.given() {
            Given::Value(value) if value.is_finite() => self.fields.float(attr, value),
            Given::Nothing => {}
            Given::Value(value) | Given::Beyond(value) => self.invalid(attr, &value),
        }
    }

    /// A text, or a member of an enumeration that is known when the program runs.
    pub fn text(&mut self, attr: Attr, value: Option<&str>) {
        let Some(value) = value else { return };
        let kept = match attr.info().ty {
            AttributeType::Str => truncate(value, self.max_text),
            _ => value,
        };
        if kept.len() < value.len() {
            self.problems.push(Problem::Truncated(attr));
        }
        self.fields.text(attr, kept);
    }

    /// What a value prints.
    pub fn print(&mut self, attr: Attr, value: &dyn fmt::Debug) {
        if self.fields.print(attr, value, self.max_text) {
            self.problems.push(Problem::Truncated(attr));
        }
    }

    /// `phase`.
    #[inline]
    pub fn phase(&mut self, phase: Phase) {
        self.fields.phase = Some(phase);
    }

    /// `schedule.kind`.
    #[inline]
    pub fn kind(&mut self, kind: ScheduleKind) {
        self.fields.kind = Some(kind);
    }

    /// `finish.status`.
    #[inline]
    pub fn status(&mut self, status: FinishStatus) {
        self.fields.status = Some(status);
    }

    /// `reason`.
    #[inline]
    pub fn reason(&mut self, reason: AbortReason) {
        self.fields.reason = Some(reason);
    }

    #[cold]
    fn invalid(&mut self, attr: Attr, value: &dyn fmt::Debug) {
        self.problems.push(Problem::Invalid(attr, format!("{value:?}")));
    }
}

/// Hands the event that `fill` says to the layer of `span`, if there is one.
#[inline]
pub fn emit(site: &'static EventSite, span: &Span, fill: impl FnOnce(&mut Said)) {
    span.with_subscriber(|(id, dispatch)| {
        if let Some(layer) = dispatch.downcast_ref::<JourneyLayer>() {
            let mut said = Said::new(layer.state.core.config.max_value_length);
            fill(&mut said);
            layer.state.say(site, &said, Some(id), dispatch);
        }
    });
}

/// The same for the nearest enclosing span that owns such events.
#[inline]
pub fn emit_current(site: &'static EventSite, fill: impl FnOnce(&mut Said)) {
    // Outside the dispatcher's closure: what `fill` prints may itself be traced.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    if let Some(layer) = dispatch.downcast_ref::<JourneyLayer>() {
        let start = dispatch.current_span().id().cloned();
        let mut said = Said::new(layer.state.core.config.max_value_length);
        fill(&mut said);
        layer.state.say(site, &said, start.as_ref(), &dispatch);
    }
}

impl LayerState {
    fn say(&self, site: &'static EventSite, said: &Said, start: Option<&Id>, dispatch: &Dispatch) {
        for problem in &said.problems {
            match problem {
                Problem::Invalid(attr, value) => self.core.note_invalid(&site.place, *attr, &format_args!("{value}")),
                Problem::Truncated(attr) => self.core.note_truncated(&site.place, *attr),
            }
        }
        let walk = |each: &mut dyn FnMut(u64) -> bool| self.walk_from(dispatch, start, each);
        self.event(&site.place, site.event, &said.fields, start.map(Id::into_u64), &walk);
    }
}
