//! Compile-time checks of the macros' arguments.
//!
//! Each check is a trait method, called by its path, that hands its argument on as something that `tracing` takes. A
//! function with a bound would do the same, but then the compiler quotes that bound in its messages; and it lists the
//! implementations, unless they are kept out of recommendations. What is left are the sentences written here.

use std::borrow::Cow;
use std::fmt::Display;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::rc::Rc;
use std::sync::Arc;

use journey_schema::{AbortReason, FinishStatus, Phase, ScheduleKind};

use crate::headers::Headers;

/// What there is of a value.
#[derive(Clone, Copy, Debug)]
pub enum Given<T, B> {
    /// An `Option` without one.
    Nothing,
    /// A value that the wire can carry.
    Value(T),
    /// One that it cannot.
    Beyond(B),
}

/// A number that an attribute takes. It asks nothing of its type, so that one that does not fit is refused once.
#[derive(Debug)]
pub struct Number<'a, T: ?Sized, G> {
    /// As `tracing` takes it.
    pub value: &'a T,
    /// As the wire has it.
    pub given: G,
}

/// Values of integer attributes: any integer up to 64 bits, or an `Option` of one.
#[diagnostic::on_unimplemented(
    message = "this attribute takes an integer, not `{Self}`",
    label = "expected an integer, or an `Option` of one"
)]
pub trait Int: tracing::Value {
    /// The value, known to be one of these.
    #[inline]
    fn int(&self) -> Number<'_, Self, Given<i64, u64>> {
        Number { value: self, given: self.given() }
    }

    /// The value as the wire has it.
    fn given(&self) -> Given<i64, u64>;
}

/// Values of floating-point attributes: `f32`, `f64`, or an `Option` of one.
#[diagnostic::on_unimplemented(
    message = "this attribute takes a float, not `{Self}`",
    label = "expected `f64` or `f32`, or an `Option` of one"
)]
pub trait Float: tracing::Value {
    /// The value, known to be one of these.
    #[inline]
    fn float(&self) -> Number<'_, Self, Given<f64, f64>> {
        Number { value: self, given: self.given() }
    }

    /// The value as the wire has it.
    fn given(&self) -> Given<f64, f64>;
}

/// Values of text attributes: `str`, what owns or shares one, or an `Option` of these.
#[diagnostic::on_unimplemented(
    message = "this attribute takes text, not `{Self}`",
    label = "expected `&str` or `String`, or an `Option` of one",
    note = "with `%` before it a value is recorded as `Display` prints it, with `?` as `Debug` does"
)]
pub trait Text {
    /// The text, if there is one.
    fn text(&self) -> Option<&str>;
}

/// Values of an attribute that has only a few: the enumeration `E`, or an `Option` of it.
#[diagnostic::on_unimplemented(
    message = "this attribute takes `{E}`, not `{Self}`",
    label = "expected `{E}`, or an `Option` of it",
    note = "a value that is known while compiling is written bare, as in `status = length`"
)]
pub trait OneOf<E> {
    /// The value as it stands on the wire, if there is one.
    fn one_of(&self) -> Option<&'static str>;
}

/// Where `headers = ..` and `carrier = ..` look.
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no trace headers",
    label = "expected `http::HeaderMap`, a `Carrier`, or a map of strings",
    note = "any other type will do that implements `journey_layer::Headers`"
)]
pub trait Source {
    /// The headers behind one type.
    fn source(&self) -> &dyn Headers;
}

/// Errors that `err` can show.
#[diagnostic::on_unimplemented(
    message = "`err` shows the error as `Display` prints it, and `{Self}` has no `Display`",
    label = "the error of this function has no `Display`",
    note = "`err(Debug)` shows it as `Debug` prints it"
)]
pub trait Shown {
    /// The error behind one type.
    fn shown(&self) -> &dyn Display;
}

macro_rules! numbers {
    ($kind:ident<$wire:ty, $beyond:ty>: $($ty:ty),+; $value:ident => $given:expr) => {
        $(#[diagnostic::do_not_recommend]
        impl $kind for $ty {
            #[inline]
            fn given(&self) -> Given<$wire, $beyond> {
                let $value = *self;
                $given
            }
        })+
    };
    ($kind:ident<$wire:ty, $beyond:ty> behind) => {
        #[diagnostic::do_not_recommend]
        impl<T: $kind + ?Sized> $kind for &T {
            #[inline]
            fn given(&self) -> Given<$wire, $beyond> {
                (**self).given()
            }
        }
        #[diagnostic::do_not_recommend]
        impl<T: $kind> $kind for Option<T> {
            #[inline]
            fn given(&self) -> Given<$wire, $beyond> {
                self.as_ref().map_or(Given::Nothing, $kind::given)
            }
        }
    };
}
numbers!(Int<i64, u64>: u8, u16, u32, i8, i16, i32; value => Given::Value(i64::from(value)));
numbers!(Int<i64, u64>: i64; value => Given::Value(value));
numbers!(Int<i64, u64>: isize; value => Given::Value(value as i64));
numbers!(Int<i64, u64>: u64; value => unsigned(value));
numbers!(Int<i64, u64>: usize; value => unsigned(value as u64));
numbers!(Int<i64, u64>: NonZeroU8, NonZeroU16, NonZeroU32; value => Given::Value(i64::from(value.get())));
numbers!(Int<i64, u64>: NonZeroU64; value => unsigned(value.get()));
numbers!(Int<i64, u64>: NonZeroUsize; value => unsigned(value.get() as u64));
numbers!(Int < i64, u64 > behind);
numbers!(Float<f64, f64>: f32; value => Given::Value(f64::from(value)));
numbers!(Float<f64, f64>: f64; value => Given::Value(value));
numbers!(Float < f64, f64 > behind);

#[inline]
fn unsigned(value: u64) -> Given<i64, u64> {
    i64::try_from(value).map_or(Given::Beyond(value), Given::Value)
}

macro_rules! texts {
    ($($ty:ty),+) => {
        $(#[diagnostic::do_not_recommend]
        impl Text for $ty {
            #[inline]
            fn text(&self) -> Option<&str> {
                Some(self)
            }
        })+
    };
}
texts!(str, String, Cow<'_, str>);

macro_rules! text_behind {
    ($($ty:ty),+) => {
        $(#[diagnostic::do_not_recommend]
        impl<T: Text + ?Sized> Text for $ty {
            #[inline]
            fn text(&self) -> Option<&str> {
                (**self).text()
            }
        })+
    };
}
text_behind!(&T, Box<T>, Rc<T>, Arc<T>);

#[diagnostic::do_not_recommend]
impl<T: Text> Text for Option<T> {
    #[inline]
    fn text(&self) -> Option<&str> {
        self.as_ref()?.text()
    }
}

macro_rules! enumerations {
    ($($ty:ty),+) => {
        $(#[diagnostic::do_not_recommend]
        impl OneOf<$ty> for $ty {
            #[inline]
            fn one_of(&self) -> Option<&'static str> {
                Some(self.as_str())
            }
        })+
    };
}
enumerations!(AbortReason, FinishStatus, Phase, ScheduleKind);

#[diagnostic::do_not_recommend]
impl<E, T: OneOf<E> + ?Sized> OneOf<E> for &T {
    #[inline]
    fn one_of(&self) -> Option<&'static str> {
        (**self).one_of()
    }
}

#[diagnostic::do_not_recommend]
impl<E, T: OneOf<E>> OneOf<E> for Option<T> {
    #[inline]
    fn one_of(&self) -> Option<&'static str> {
        self.as_ref()?.one_of()
    }
}

#[diagnostic::do_not_recommend]
impl<T: Headers> Source for T {
    fn source(&self) -> &dyn Headers {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<T: Display> Shown for T {
    fn shown(&self) -> &dyn Display {
        self
    }
}
