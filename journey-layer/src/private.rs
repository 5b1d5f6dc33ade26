//! The other side of the macros' expansions. Not part of the public API: it changes with the macros.

use std::fmt::Display;

pub use journey_schema::{AbortReason, Event, FinishStatus, Phase, ScheduleKind, SpanName};
pub use tracing;

use crate::headers::Headers;
pub use crate::instrument::{Entered, Instrumented, enter, instrument};
pub use crate::progress::Progress;

/// Where the parent of a new span is looked for first.
#[derive(Clone, Copy)]
pub enum Parent<'a> {
    /// Nothing was given: the enclosing journey span, else the active OpenTelemetry context.
    Context,
    /// `headers = ..`: W3C headers from outside; journey members in them are not trusted.
    Headers(&'a dyn Headers),
    /// `carrier = ..`: the map that [`handoff`](crate::handoff) made.
    Carrier(&'a dyn Headers),
    /// `parent = ..`: a span of this process.
    Span(&'a tracing::Span),
}

/// The unsizing that `headers = ..` and `carrier = ..` need.
pub fn headers<T: Headers>(source: &T) -> &dyn Headers {
    source
}

/// What becomes of a span that the code asks for.
pub enum Admission {
    /// Build it.
    Build(Ticket),
    /// It is sampled out (or refused): use this span in its place.
    Out(tracing::Span),
}

/// Carries what [`admit`] decided to the layer's `on_new_span`.
pub struct Ticket(());

impl Ticket {
    /// Creates the span under this ticket.
    #[inline]
    pub fn build(self, create: impl FnOnce() -> tracing::Span) -> tracing::Span {
        create()
    }
}

/// Decides about a span before any of its arguments is evaluated.
#[inline]
pub fn admit(_name: SpanName, _parent: Parent<'_>) -> Admission {
    Admission::Build(Ticket(()))
}

/// Whether an event or a record for this very span can arrive anywhere.
#[inline]
pub fn wants(span: &tracing::Span) -> bool {
    !span.is_disabled()
}

/// Whether an event for the nearest enclosing span can arrive anywhere.
#[inline]
pub fn wants_current(_event: Event) -> bool {
    true
}

/// `err`: ends the span with the error's text.
#[cold]
pub fn failed(span: &tracing::Span, name: SpanName, error: &dyn Display) {
    let _ = (span, name, error);
}

/// A span that [`record_current`] found.
pub struct Target(());

impl Target {
    /// Sets one attribute.
    pub fn record(&self, key: &'static str, value: &dyn tracing::Value) {
        let _ = (key, value);
    }
}

/// Runs `record` on the nearest enclosing span whose name is one of `owners`; not at all where it is sampled out.
pub fn record_current(owners: &'static [SpanName], record: impl FnOnce(&Target)) {
    let _ = owners;
    record(&Target(()));
}

/// Compile-time checks of attribute types. Each returns its argument, so that the expansion reads like the call.
pub mod value {
    /// Values of integer attributes: any integer up to 64 bits, or an `Option` of one.
    #[diagnostic::on_unimplemented(
        message = "this attribute takes an integer, not `{Self}`",
        label = "expected an integer (or an `Option` of one)"
    )]
    pub trait Int: tracing::Value {}

    /// Values of floating-point attributes: `f32`, `f64`, or an `Option` of one.
    #[diagnostic::on_unimplemented(
        message = "this attribute takes a float, not `{Self}`",
        label = "expected `f64` or `f32` (or an `Option` of one)"
    )]
    pub trait Float: tracing::Value {}

    /// Values of text attributes: `str`, `String`, or an `Option` of one. `%value` takes any `Display`.
    #[diagnostic::on_unimplemented(
        message = "this attribute takes text, not `{Self}`",
        label = "expected `&str` or `String`",
        note = "write `%value` to record it with `Display`"
    )]
    pub trait Text: tracing::Value {}

    macro_rules! implement {
        ($kind:ident: $($ty:ty),+) => { $(impl $kind for $ty {} impl $kind for Option<$ty> {})+ };
    }
    implement!(Int: u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
    implement!(Float: f32, f64);
    implement!(Text: String, &str);
    impl Text for str {}

    /// Checks an integer.
    #[inline]
    pub fn int<T: Int + ?Sized>(value: &T) -> &T {
        value
    }

    /// Checks a float.
    #[inline]
    pub fn float<T: Float + ?Sized>(value: &T) -> &T {
        value
    }

    /// Checks a text.
    #[inline]
    pub fn text<T: Text + ?Sized>(value: &T) -> &T {
        value
    }
}
