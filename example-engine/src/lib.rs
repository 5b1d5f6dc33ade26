//! A small, readable vLLM: the engine that shows journey tracing at work.

pub mod engine;
pub mod kv_cache;
pub mod model_runner;
