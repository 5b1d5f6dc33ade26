//! What the macros accept and refuse (`tests/compile.rs`), and what holds under any interleaving (`tests/properties.rs`).

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
