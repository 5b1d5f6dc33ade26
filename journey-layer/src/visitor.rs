//! Fields to typed values: the only place where the vocabularies of `tracing` and the schema meet.

use std::fmt;

use journey_schema::{AbortReason, Attr, AttributeType, FinishStatus, Phase, ScheduleKind};
use smallvec::SmallVec;
use tracing_core::Field;
use tracing_core::field::Visit;

use crate::callsites::{FieldKey, Place, Site};
use crate::core::Core;
use crate::emit::Problem;
use crate::record::{Bounded, OwnedValue, SpanRecord, ValueRef, truncate};
use crate::stats::Reason;

/// Takes the values of the fields that the schema knows.
pub(crate) trait Receive {
    fn int(&mut self, attr: Attr, value: i64);
    fn float(&mut self, attr: Attr, value: f64);
    fn text(&mut self, attr: Attr, value: &str);

    /// Takes what `value` prints, `limit` bytes at most; returns whether more was cut off.
    fn print(&mut self, attr: Attr, value: &dyn fmt::Debug, limit: usize) -> bool {
        let mut text = String::new();
        let mut writer = Bounded { text: &mut text, end: limit, cut: false };
        let _ = fmt::write(&mut writer, format_args!("{value:?}"));
        let cut = writer.cut;
        self.text(attr, &text);
        cut
    }
}

/// Visits the fields of one call of `site`. What the wire cannot carry is left out, counted and warned of once.
pub(crate) struct Fields<'a, R> {
    site: &'static Site,
    core: &'a Core,
    into: &'a mut R,
}

impl<'a, R: Receive> Fields<'a, R> {
    pub(crate) fn new(site: &'static Site, core: &'a Core, into: &'a mut R) -> Self {
        Self { site, core, into }
    }

    #[inline]
    fn attr(&self, field: &Field) -> Option<Attr> {
        match self.site.fields[field.index()] {
            FieldKey::Attr(attr) => Some(attr),
            FieldKey::Ignored => None,
            FieldKey::Unknown => {
                self.core.note(&self.site.place, Reason::UnknownField, format_args!("field `{}`", field.name()));
                None
            }
        }
    }

    #[cold]
    fn invalid(&self, attr: Attr, value: &dyn fmt::Debug) {
        self.core.note_invalid(&self.site.place, attr, value);
    }

    #[cold]
    fn truncated(&self, attr: Attr) {
        self.core.note_truncated(&self.site.place, attr);
    }

    fn float(&mut self, attr: Attr, value: f64) {
        if value.is_finite() { self.into.float(attr, value) } else { self.invalid(attr, &value) }
    }
}

impl Core {
    /// Counts a value that the wire cannot carry.
    #[cold]
    pub(crate) fn note_invalid(&self, place: &'static Place, attr: Attr, value: &dyn fmt::Debug) {
        let mut shown = String::new();
        let mut writer = Bounded { text: &mut shown, end: 64, cut: false };
        let _ = fmt::write(&mut writer, format_args!("`{}` = {value:?}", attr.key()));
        self.note(place, Reason::InvalidValue, format_args!("{shown}"));
    }

    /// Counts a text that was cut.
    #[cold]
    pub(crate) fn note_truncated(&self, place: &'static Place, attr: Attr) {
        self.note(place, Reason::Truncated, format_args!("`{}`", attr.key()));
    }
}

impl<R: Receive> Visit for Fields<'_, R> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        let Some(attr) = self.attr(field) else { return };
        match attr.info().ty {
            AttributeType::Int => self.into.int(attr, value),
            AttributeType::Float => self.float(attr, value as f64),
            AttributeType::Str | AttributeType::OneOf(_) => self.invalid(attr, &value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.record_debug(field, &value),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let Some(attr) = self.attr(field) else { return };
        match attr.info().ty {
            AttributeType::Float => self.float(attr, value),
            _ => self.invalid(attr, &value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let Some(attr) = self.attr(field) else { return };
        self.invalid(attr, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let Some(attr) = self.attr(field) else { return };
        match attr.info().ty {
            AttributeType::Str => {
                let kept = truncate(value, self.core.config.max_value_length);
                if kept.len() < value.len() {
                    self.truncated(attr);
                }
                self.into.text(attr, kept);
            }
            AttributeType::OneOf(values) if values.contains(&value) => self.into.text(attr, value),
            _ => self.invalid(attr, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let Some(attr) = self.attr(field) else { return };
        match attr.info().ty {
            AttributeType::Str => {
                if self.into.print(attr, value, self.core.config.max_value_length) {
                    self.truncated(attr);
                }
            }
            _ => self.invalid(attr, value),
        }
    }
}

impl Receive for SpanRecord {
    fn int(&mut self, attr: Attr, value: i64) {
        self.set_attribute(attr, ValueRef::Int(value));
    }

    fn float(&mut self, attr: Attr, value: f64) {
        self.set_attribute(attr, ValueRef::Float(value));
    }

    fn text(&mut self, attr: Attr, value: &str) {
        self.set_attribute(attr, ValueRef::Text(value));
    }

    fn print(&mut self, attr: Attr, value: &dyn fmt::Debug, limit: usize) -> bool {
        self.set_attribute_fmt(attr, value, limit)
    }
}

/// Attributes of a later `record`, before the span is looked up: a `Debug` of the caller's must not run under a lock.
pub(crate) type Pending = Vec<(Attr, OwnedValue)>;

/// The same for a few that come one by one, without an allocation.
pub(crate) type Few = SmallVec<[(Attr, OwnedValue); 4]>;

impl Receive for Few {
    fn int(&mut self, attr: Attr, value: i64) {
        self.push((attr, OwnedValue::Int(value)));
    }

    fn float(&mut self, attr: Attr, value: f64) {
        self.push((attr, OwnedValue::Float(value)));
    }

    fn text(&mut self, attr: Attr, value: &str) {
        self.push((attr, OwnedValue::Text(value.into())));
    }
}

impl Receive for Pending {
    fn int(&mut self, attr: Attr, value: i64) {
        self.push((attr, OwnedValue::Int(value)));
    }

    fn float(&mut self, attr: Attr, value: f64) {
        self.push((attr, OwnedValue::Float(value)));
    }

    fn text(&mut self, attr: Attr, value: &str) {
        self.push((attr, OwnedValue::Text(value.into())));
    }
}

/// The progress values, in the order of the wire.
pub(crate) const PROGRESS: [Attr; 7] = [
    Attr::SchedulerStep,
    Attr::PrefillDone,
    Attr::PrefillTotal,
    Attr::PrefillRecomputed,
    Attr::DecodeDone,
    Attr::DecodeMax,
    Attr::NumPreemptions,
];

/// The position of a counter in [`PROGRESS`].
#[inline]
pub(crate) const fn progress_index(attr: Attr) -> Option<usize> {
    Some(match attr {
        Attr::SchedulerStep => 0,
        Attr::PrefillDone => 1,
        Attr::PrefillTotal => 2,
        Attr::PrefillRecomputed => 3,
        Attr::DecodeDone => 4,
        Attr::DecodeMax => 5,
        Attr::NumPreemptions => 6,
        _ => return None,
    })
}

/// What an event brings. On the stack: a core event allocates nothing here.
#[derive(Debug, Default)]
pub(crate) struct EventFields {
    /// By position in [`PROGRESS`].
    pub(crate) progress: [i64; PROGRESS.len()],
    /// One bit per value of `progress` that was given.
    pub(crate) given: u8,
    pub(crate) phase: Option<Phase>,
    pub(crate) kind: Option<ScheduleKind>,
    pub(crate) status: Option<FinishStatus>,
    pub(crate) reason: Option<AbortReason>,
    pub(crate) more: Option<Box<More>>,
}

/// What few events bring: apart, so that the others are rid of it with one look.
#[derive(Debug, Default)]
pub(crate) struct More {
    /// `error` of `api.ABORTED`, and the attributes of step events.
    pub(crate) others: Pending,
    /// What is to be told of the values.
    pub(crate) problems: Vec<Problem>,
}

impl EventFields {
    /// What few events bring.
    #[cold]
    pub(crate) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

impl Receive for EventFields {
    #[inline]
    fn int(&mut self, attr: Attr, value: i64) {
        let Some(index) = progress_index(attr) else { return self.more().others.int(attr, value) };
        self.progress[index] = value;
        self.given |= 1 << index;
    }

    fn float(&mut self, attr: Attr, value: f64) {
        self.more().others.float(attr, value);
    }

    fn text(&mut self, attr: Attr, value: &str) {
        match attr {
            Attr::Phase => self.phase = Phase::from_value(value),
            Attr::ScheduleKind => self.kind = ScheduleKind::from_value(value),
            Attr::FinishStatus => self.status = FinishStatus::from_value(value),
            Attr::Reason => self.reason = AbortReason::from_value(value),
            _ => self.more().others.text(attr, value),
        }
    }
}
