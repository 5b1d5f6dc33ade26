//! Attribute keys and their types.

use crate::table::{ATTRIBUTES, Attr, RENAMED, attribute_by_key};

/// What an attribute's value is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    /// Signed 64-bit integer.
    Int,
    /// IEEE 754 double; finite.
    Float,
    /// UTF-8 text.
    Str,
    /// Text, one of these values.
    OneOf(&'static [&'static str]),
}

/// A row of the attribute table.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// The key on the wire.
    pub key: &'static str,
    /// The short name that the macros take for it.
    pub argument: &'static str,
    /// The type of its value.
    pub ty: AttributeType,
    /// What it means, with its unit.
    pub doc: &'static str,
}

impl Attr {
    /// The row of this attribute.
    pub const fn info(self) -> &'static Attribute {
        &ATTRIBUTES[self as usize]
    }

    /// The key on the wire, under the default (frozen) names.
    pub const fn key(self) -> &'static str {
        self.info().key
    }

    /// The key that the current semantic conventions use, where they renamed it.
    pub fn latest_key(self) -> Option<&'static str> {
        RENAMED.iter().find(|(attr, _)| *attr == self).map(|(_, key)| *key)
    }

    /// The attribute whose key is `key`, under the default or the current names.
    pub fn from_key(key: &str) -> Option<Self> {
        attribute_by_key(key).or_else(|| RENAMED.iter().find(|(_, latest)| *latest == key).map(|(attr, _)| *attr))
    }
}
