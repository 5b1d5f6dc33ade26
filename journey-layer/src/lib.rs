//! Journey tracing for LLM inference engines: a `tracing` layer that exports each request as two OpenTelemetry spans.

extern crate self as journey_layer;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod config;
mod error;
mod headers;
mod instrument;
mod progress;
mod record;
mod sink;
mod stats;

pub use config::{OnDuplicate, Sampling};
pub use error::FlushError;
pub use headers::Headers;
pub use journey_schema::{AbortReason, Event, FinishStatus, Phase, ScheduleKind, SpanName};
pub use progress::Progress;
pub use stats::{JourneyStats, Ledger, Reason};
pub use {opentelemetry, opentelemetry_sdk, tracing};
