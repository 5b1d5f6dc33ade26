//! What the macros accept and refuse (`tests/compile.rs`), and what holds under any interleaving (`tests/properties.rs`).
