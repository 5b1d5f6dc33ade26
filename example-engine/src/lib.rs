//! A small, readable vLLM: the engine that shows journey tracing at work.
//!
//! One request, from file to file:
//!
//! 1. [`server`] accepts the connection; [`api`] checks the key and the limits, opens the `llm_request` span and stamps
//!    ARRIVED before it looks at the body.
//! 2. The body is parsed and checked, the conversation rendered, the prompt encoded by the [`tokenizer`].
//! 3. `n` sequences go to the [`engine`] with the span's carrier: over a channel, or by [`grpc`] to a core in another process.
//!    HANDOFF_TO_CORE is stamped when the core has them.
//! 4. The core opens a `llm_core` span for each, and its scheduler stamps QUEUED, SCHEDULED, FIRST_TOKEN, PREEMPTED and
//!    FINISHED on it, while [`kv_cache`] gives out blocks and [`model_runner`] runs the [`model`].
//! 5. Outputs come back as plain data. The first stamps FIRST_RESPONSE_FROM_CORE; the output processor turns tokens to text and
//!    watches for stop strings.
//! 6. The span goes along with the response's body, which stamps DEPARTED when its last piece goes to the connection, or ABORTED when it is dropped.
//!
//! [`telemetry`] alone knows where spans go; everything else uses the macros. Commands, models and devices are described in
//! `docs/engine.md`.

pub mod api;
pub mod bench;
mod causes;
pub mod commands;
pub mod config;
pub mod demo;
pub mod engine;
pub mod grpc;
pub mod kv_cache;
pub mod load;
pub mod model;
pub mod model_runner;
pub mod server;
pub mod startup;
pub mod telemetry;
pub mod tokenizer;
