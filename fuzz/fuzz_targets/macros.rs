//! A crate of macros cannot be linked: its files are compiled here once more.
#![no_main]

#[path = "../../journey-macros/src/args.rs"]
mod args;
#[path = "../../journey-macros/src/bind.rs"]
mod bind;
#[path = "../../journey-macros/src/expand_event.rs"]
mod expand_event;
#[path = "../../journey-macros/src/expand_fn.rs"]
mod expand_fn;
#[path = "../../journey-macros/src/expand_record.rs"]
mod expand_record;
#[path = "../../journey-macros/src/expand_span.rs"]
mod expand_span;
#[path = "../../journey-macros/src/fallback.rs"]
mod fallback;
#[path = "../../journey-macros/src/function.rs"]
mod function;
#[path = "../../journey-macros/src/fuzz.rs"]
mod fuzz;
#[path = "../../journey-macros/src/valid/mod.rs"]
mod valid;

libfuzzer_sys::fuzz_target!(|text: &str| fuzz::check(text));
