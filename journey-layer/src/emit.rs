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

use crate::__private::value::Given;
use crate::callsites::Place;
use crate::core::Core;
use crate::layer::JourneyLayer;
use crate::layer_state::LayerState;
use crate::progress::Progress;
use crate::record::{Bounded, OwnedValue, truncate};
use crate::visitor::{EventFields, Few, PROGRESS, Receive};

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
}

/// A value that cannot leave as it is.
#[derive(Debug)]
pub(crate) enum Problem {
    Invalid(Attr, String),
    Truncated(Attr),
}

impl Problem {
    #[cold]
    pub(crate) fn invalid(attr: Attr, value: &dyn fmt::Debug) -> Self {
        Self::Invalid(attr, format!("{value:?}"))
    }
}

impl Core {
    /// Counts what was left out or cut, and warns of it once.
    #[cold]
    pub(crate) fn note_problems(&self, place: &'static Place, problems: &[Problem]) {
        for problem in problems {
            match problem {
                Problem::Invalid(attr, value) => self.note_invalid(place, *attr, &format_args!("{value}")),
                Problem::Truncated(attr) => self.note_truncated(place, *attr),
            }
        }
    }
}

impl Said {
    fn new(max_text: usize) -> Self {
        Self { fields: EventFields::default(), max_text }
    }

    /// The counters and the phase of a snapshot, those that it has.
    pub fn progress(&mut self, progress: &Progress) {
        let given = self.counter(0, progress.scheduler_step)
            | self.counter(1, progress.prefill_done_tokens)
            | self.counter(2, progress.prefill_total_tokens)
            | self.counter(3, progress.prefill_recomputed_tokens)
            | self.counter(4, progress.decode_done_tokens)
            | self.counter(5, progress.decode_max_tokens)
            | self.counter(6, progress.num_preemptions);
        self.fields.given = given;
        self.fields.phase = progress.phase;
    }

    /// Takes the counter at this position in [`PROGRESS`]. Returns its bit, if there is a value.
    #[inline(always)]
    fn counter(&mut self, index: usize, value: Option<u64>) -> u8 {
        match value.map(i64::try_from) {
            None => 0,
            Some(Ok(value)) => {
                self.fields.progress[index] = value;
                1 << index
            }
            Some(Err(_)) => {
                self.invalid(PROGRESS[index], &value.unwrap_or_default());
                0
            }
        }
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, attr: Attr, value: Given<i64, u64>) {
        match value {
            Given::Value(value) => self.fields.int(attr, value),
            Given::Nothing => {}
            Given::Beyond(value) => self.invalid(attr, &value),
        }
    }

    /// A float.
    #[inline]
    pub fn float(&mut self, attr: Attr, value: Given<f64, f64>) {
        match value {
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
            self.fields.more().problems.push(Problem::Truncated(attr));
        }
        self.fields.text(attr, kept);
    }

    /// What a value prints.
    pub fn print(&mut self, attr: Attr, value: &dyn fmt::Debug) {
        if self.fields.print(attr, value, self.max_text) {
            self.fields.more().problems.push(Problem::Truncated(attr));
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
        self.fields.more().problems.push(Problem::invalid(attr, value));
    }
}

/// What a call of `journey_record!` says.
#[derive(Debug)]
pub struct Attributes {
    list: Few,
    /// Bytes of one text at most.
    max_text: usize,
    problems: Vec<Problem>,
}

impl Attributes {
    fn new(max_text: usize) -> Self {
        Self { list: Few::new(), max_text, problems: Vec::new() }
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, attr: Attr, value: Given<i64, u64>) {
        match value {
            Given::Value(value) => self.list.push((attr, OwnedValue::Int(value))),
            Given::Nothing => {}
            Given::Beyond(value) => self.problems.push(Problem::invalid(attr, &value)),
        }
    }

    /// A float.
    #[inline]
    pub fn float(&mut self, attr: Attr, value: Given<f64, f64>) {
        match value {
            Given::Value(value) if value.is_finite() => self.list.push((attr, OwnedValue::Float(value))),
            Given::Nothing => {}
            Given::Value(value) | Given::Beyond(value) => self.problems.push(Problem::invalid(attr, &value)),
        }
    }

    /// A text.
    pub fn text(&mut self, attr: Attr, value: Option<&str>) {
        let Some(value) = value else { return };
        let kept = truncate(value, self.max_text);
        if kept.len() < value.len() {
            self.problems.push(Problem::Truncated(attr));
        }
        self.list.push((attr, OwnedValue::Text(kept.into())));
    }

    /// What a value prints.
    pub fn print(&mut self, attr: Attr, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let mut writer = Bounded { text: &mut text, end: self.max_text, cut: false };
        // A `Debug` that fails has printed what it could.
        let _ = fmt::write(&mut writer, format_args!("{value:?}"));
        if writer.cut {
            self.problems.push(Problem::Truncated(attr));
        }
        self.list.push((attr, OwnedValue::Text(text.into())));
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

/// Sets what `fill` says on `span`, where the journey layer is the only one: nobody else has to be told. Returns whether
/// it did.
#[inline]
pub fn record(span: &Span, fill: impl FnOnce(&mut Attributes)) -> bool {
    let recorded = span.with_subscriber(|(id, dispatch)| match dispatch.downcast_ref::<JourneyLayer>() {
        Some(layer) if layer.state.alone => {
            let mut attributes = Attributes::new(layer.state.core.config.max_value_length);
            fill(&mut attributes);
            layer.state.set(id.into_u64(), &attributes);
            true
        }
        _ => false,
    });
    recorded.unwrap_or(false)
}

impl LayerState {
    fn set(&self, id: u64, attributes: &Attributes) {
        if !attributes.problems.is_empty()
            && let Some(site) = self.table.with_live(id, |live| live.site())
        {
            self.core.note_problems(&site.place, &attributes.problems);
        }
        self.record(id, &attributes.list);
    }

    fn say(&self, site: &'static EventSite, said: &Said, start: Option<&Id>, dispatch: &Dispatch) {
        if let Some(more) = &said.fields.more {
            self.core.note_problems(&site.place, &more.problems);
        }
        let walk = |each: &mut dyn FnMut(u64) -> bool| self.walk_from(dispatch, start, each);
        self.event(&site.place, site.event, &said.fields, start.map(Id::into_u64), &walk);
    }
}
