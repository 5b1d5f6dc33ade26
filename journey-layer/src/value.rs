//! Compile-time checks of attribute types, for the macros' expansions.
//!
//! Each check hands its argument on as something that `tracing` takes, so that the expansion reads like the call.

use std::borrow::Cow;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::rc::Rc;
use std::sync::Arc;

use journey_schema::{AbortReason, FinishStatus, Phase, ScheduleKind};

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

/// Values of text attributes: `str`, what owns or shares one, or an `Option` of these. `%value` takes any `Display`.
#[diagnostic::on_unimplemented(
    message = "this attribute takes text, not `{Self}`",
    label = "expected `&str` or `String` (or an `Option` of one)",
    note = "write `%` before the value to record it with `Display`, or `?` for `Debug`"
)]
pub trait Text {
    /// The text, if there is one.
    fn as_text(&self) -> Option<&str>;
}

/// Values of an attribute with few values: the enumeration `E`, or an `Option` of it.
#[diagnostic::on_unimplemented(
    message = "this attribute takes `{E}`, not `{Self}`",
    label = "expected `{E}` (or an `Option` of it)",
    note = "a value that is known while compiling is written bare, as in `status = length`"
)]
pub trait OneOf<E> {
    /// The value as it stands on the wire, if there is one.
    fn wire_value(&self) -> Option<&'static str>;
}

macro_rules! numbers {
    ($kind:ident: $($ty:ty),+) => {
        $(impl $kind for $ty {})+
        impl<T: $kind + ?Sized> $kind for &T {}
        impl<T: $kind> $kind for Option<T> {}
    };
}
numbers!(Int: u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize);
numbers!(Float: f32, f64);

impl Text for str {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }
}

impl Text for String {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }
}

impl Text for Cow<'_, str> {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }
}

macro_rules! text_behind {
    ($($ty:ty),+) => {
        $(impl<T: Text + ?Sized> Text for $ty {
            fn as_text(&self) -> Option<&str> {
                (**self).as_text()
            }
        })+
    };
}
text_behind!(&T, Box<T>, Rc<T>, Arc<T>);

impl<T: Text> Text for Option<T> {
    fn as_text(&self) -> Option<&str> {
        self.as_ref()?.as_text()
    }
}

macro_rules! enumerations {
    ($($ty:ty),+) => {
        $(impl OneOf<$ty> for $ty {
            fn wire_value(&self) -> Option<&'static str> {
                Some(self.as_str())
            }
        })+
    };
}
enumerations!(AbortReason, FinishStatus, Phase, ScheduleKind);

impl<E, T: OneOf<E> + ?Sized> OneOf<E> for &T {
    fn wire_value(&self) -> Option<&'static str> {
        (**self).wire_value()
    }
}

impl<E, T: OneOf<E>> OneOf<E> for Option<T> {
    fn wire_value(&self) -> Option<&'static str> {
        self.as_ref()?.wire_value()
    }
}

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
pub fn text<T: Text + ?Sized>(value: &T) -> Option<&str> {
    value.as_text()
}

/// Checks a member of the enumeration `E`.
#[inline]
pub fn one_of<E, T: OneOf<E> + ?Sized>(value: &T) -> Option<&'static str> {
    value.wire_value()
}
