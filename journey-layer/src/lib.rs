//! Journey tracing for LLM inference engines: a `tracing` layer that exports each request as two OpenTelemetry spans.

extern crate self as journey_layer;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod callsites;
mod clock;
mod config;
mod core;
mod decide;
mod duplicates;
mod env;
mod error;
mod events;
mod export;
mod guard;
mod headers;
mod in_journey;
mod instrument;
mod interop;
mod layer;
mod layer_state;
mod lifecycle;
mod pipeline;
mod placeholder;
mod pool;
mod progress;
mod propagation;
mod record;
mod resource;
mod sampling;
mod sink;
mod stats;
mod table;
pub mod testing;
mod ticket;
mod visitor;
mod warn;

pub use config::{OnDuplicate, Sampling};
pub use error::{BuildError, FlushError, InitError, OtlpError};
pub use export::{Console, Exporter, File, Memory, Otlp, Protocol, Semconv};
pub use headers::Headers;
pub use in_journey::{InJourney, Journeyed};
pub use interop::{NotJourney, not_journey};
pub use journey_macros::{journey_event, journey_record, journey_span};
pub use journey_schema::{AbortReason, Event, FinishStatus, Phase, ScheduleKind, SpanName};
pub use layer::{JourneyFilter, JourneyLayer};
pub use pipeline::{Builder, Journey, init};
pub use progress::Progress;
pub use propagation::{Carrier, handoff};
pub use stats::{JourneyStats, Ledger, Reason};
pub use {opentelemetry, opentelemetry_sdk, tracing};

/// Whether anything said about `span` can arrive: false for one that is sampled out or disabled.
///
/// The macros ask this themselves. It is for what must be gathered before there is an event to emit.
pub fn is_recorded(span: &tracing::Span) -> bool {
    __private::wants(span)
}

/// The function-like macros, for a glob import beside the attribute.
///
/// Rust has one namespace for `#[journey_span]` and `journey_span!`, so that one path cannot lead to both:
/// `journey_layer::journey_span` is the attribute, `journey_layer::macros::journey_span` the expression. A file
/// that needs both writes
///
/// ```
/// use journey_layer::{journey_span, macros::*};
///
/// #[journey_span(scope = "vllm.api")]
/// fn handle() {
///     let core = journey_span!(scope = "vllm.scheduler");
///     # drop(core);
/// }
/// ```
pub mod macros {
    pub use journey_macros::{journey_event, journey_record, journey_span_expr as journey_span};
}
