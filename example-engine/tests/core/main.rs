//! The engine core: scheduler, KV cache, model, tokenizer, and what they say about each sequence.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checkpoint;
mod engine;
mod journeys;
mod model;
mod scheduler;
mod scheduler_properties;
mod steps;
mod support;
mod tokenizer;
