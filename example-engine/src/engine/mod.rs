//! The engine core: plain data in, plain data out, a thread with its own loop between them.

mod client;
mod config;
mod core;
mod error;
mod request;
mod scheduler;
mod stats;
mod step_trace;

pub use client::{EngineCore, OutputStream};
pub use config::{EngineConfig, SchedulingPolicy};
pub use error::{EngineError, StartError};
pub use request::{EngineCoreOutput, EngineCoreRequest, FinishReason, SamplingParams};
pub use scheduler::Scheduler;
pub use stats::SchedulerStats;
