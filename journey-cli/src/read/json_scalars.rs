//! Numbers and enums of OTLP-JSON, which writers spell in more than one way.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::model::{Kind, StatusCode};

/// A number that JSON may carry as text: 64-bit integers must be, doubles may be (`NaN`, `Infinity`).
#[derive(Clone, Copy, Default)]
pub(super) struct Number<T>(pub(super) T);

pub(super) trait WireNumber: Copy + Default + std::str::FromStr {
    const EXPECTED: &'static str;
    fn from_u64(number: u64) -> Option<Self>;
    fn from_i64(number: i64) -> Option<Self>;
    fn from_f64(number: f64) -> Option<Self>;
}

macro_rules! wire_number {
    ($($ty:ty: $expected:literal, |$u:ident| $from_u:expr, |$i:ident| $from_i:expr, |$f:ident| $from_f:expr;)+) => {$(
        impl WireNumber for $ty {
            const EXPECTED: &'static str = $expected;
            fn from_u64($u: u64) -> Option<Self> { $from_u }
            fn from_i64($i: i64) -> Option<Self> { $from_i }
            fn from_f64($f: f64) -> Option<Self> { $from_f }
        }
    )+};
}

wire_number! {
    u64: "an unsigned 64-bit integer", |n| Some(n), |n| n.try_into().ok(), |_n| None;
    u32: "an unsigned 32-bit integer", |n| n.try_into().ok(), |n| n.try_into().ok(), |_n| None;
    i64: "a signed 64-bit integer", |n| n.try_into().ok(), |n| Some(n), |_n| None;
    f64: "a double", |n| Some(n as f64), |n| Some(n as f64), |n| Some(n);
}

impl<'de, T: WireNumber> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor<T>(PhantomData<T>);
        impl<T: WireNumber> Visitor<'_> for NumberVisitor<T> {
            type Value = Number<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                T::from_u64(number).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                T::from_i64(number).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                T::from_f64(number).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map(Number).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Number(T::default()))
            }
        }
        deserializer.deserialize_any(NumberVisitor(PhantomData))
    }
}

/// An enum that travels as its number or its name.
macro_rules! enum_by_number_or_name {
    ($name:ident($inner:ty), $expected:literal, |$number:ident| $from:expr, [$($text:literal),+]) => {
        #[derive(Clone, Copy, Default)]
        pub(super) struct $name(pub(super) $inner);
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ByNumberOrName;
                impl Visitor<'_> for ByNumberOrName {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_u64<E: Error>(self, $number: u64) -> Result<$name, E> {
                        $from.map($name).ok_or_else(|| E::invalid_value(Unexpected::Unsigned($number), &self))
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        let number = [$($text),+].iter().position(|name| *name == text);
                        let number = number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                        self.visit_u64(number as u64)
                    }
                    fn visit_unit<E: Error>(self) -> Result<$name, E> {
                        Ok($name::default())
                    }
                }
                deserializer.deserialize_any(ByNumberOrName)
            }
        }
    };
}

enum_by_number_or_name!(
    JsonKind(Kind),
    "a span kind",
    |number| i32::try_from(number).ok().map(Kind),
    [
        "SPAN_KIND_UNSPECIFIED",
        "SPAN_KIND_INTERNAL",
        "SPAN_KIND_SERVER",
        "SPAN_KIND_CLIENT",
        "SPAN_KIND_PRODUCER",
        "SPAN_KIND_CONSUMER"
    ]
);
enum_by_number_or_name!(
    JsonStatusCode(StatusCode),
    "a status code",
    |number| match number {
        0 => Some(StatusCode::Unset),
        1 => Some(StatusCode::Ok),
        2 => Some(StatusCode::Error),
        _ => None,
    },
    ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"]
);
