//! Journey tracing for LLM inference engines: a `tracing` layer that exports each request as two OpenTelemetry spans.
//!
//! A *journey* is an `llm_request` span in the instrumentation scope `vllm.api` and, for each sequence of the request, an
//! `llm_core` span in `vllm.scheduler` below it. Events on them (`api.ARRIVED`, `journey.SCHEDULED`, ..) say where the time
//! went, under the names that vLLM gave them.
//!
//! ```
//! use journey_layer::tracing::Span;
//! use journey_layer::{Carrier, Progress, handoff, journey_span, macros::*};
//!
//! #[journey_span(scope = "vllm.api", request_id = id, headers = headers)]
//! async fn completions(id: &str, headers: &Carrier) {
//!     journey_event!(ARRIVED);
//!     // The carrier crosses to the engine core, in this process or another.
//!     let sequence = waiting(id, &handoff(&Span::current()));
//!     journey_event!(HANDOFF_TO_CORE);
//!     journey_event!(&sequence, SCHEDULED, ..Progress::new().step(1).prefill(0, 12));
//!     journey_event!(&sequence, FINISHED, status = stopped);
//!     journey_event!(DEPARTED);
//! }
//!
//! fn waiting(id: &str, carrier: &Carrier) -> Span {
//!     let sequence = journey_span!(scope = "vllm.scheduler", request_id = id, carrier = carrier);
//!     journey_event!(&sequence, QUEUED);
//!     sequence
//! }
//!
//! let capture = journey_layer::testing::capture();
//! # fn block_on<F: Future>(future: F) -> F::Output {
//! #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
//! #     let mut future = std::pin::pin!(future);
//! #     loop {
//! #         if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
//! #             return output;
//! #         }
//! #     }
//! # }
//! block_on(completions("cmpl-1", &Carrier::new()));
//! assert_eq!(capture.spans().len(), 2);
//! ```
//!
//! # Installing
//!
//! - Alone: [`init()`], or [`Builder::install`] for settings of one's own. Keep the [`Journey`] it returns until the end of
//!   `main`.
//! - Beside other layers: [`Journey::builder`], then `registry().with(fmt::layer()).with(journey.layer())`.
//! - Where spans go: the `OTEL_*` environment variables, or an [`Exporter`]. `docs/configuration.md` has them all.
//! - In tests: [`testing::capture`].
//!
//! # Instrumenting
//!
//! - [`#[journey_span]`](macro@journey_span) on the function that answers a request; [`macros::journey_span!`] for a span
//!   that no function bounds. [`handoff`] carries the journey to the engine core.
//! - [`journey_event!`] with [`Progress`] and [`journey_record!`] say what happens; they are checked against the schema while
//!   compiling.
//! - [`InJourney::in_journey`] ends the span with a streamed response.
//! - [`is_recorded`] before gathering what is dear. A sampled-out journey costs some nanoseconds and builds nothing.
//!
//! # What it promises
//!
//! Two scopes and no third, one `llm_request` a journey, one terminal event a span, whatever is cancelled, panics or is
//! forgotten. It never panics, blocks or fails a request ([`OnDuplicate::Panic`] is for tests); what does not arrive is counted
//! under a [`Reason`] in [`Journey::stats`], and warned of once.

extern crate self as journey_layer;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod admit;
mod callsites;
mod clock;
mod closed;
mod config;
mod core;
mod decide;
mod duplicates;
mod emit;
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
mod metrics;
#[cfg(all(test, feature = "__model"))]
mod model;
mod pipeline;
mod placeholder;
mod pool;
mod progress;
mod propagation;
mod record;
mod record_event;
mod record_room;
#[cfg(test)]
mod record_samples;
mod resource;
mod sampling;
mod sink;
mod span_ids;
mod stats;
mod sync;
mod table;
pub mod testing;
mod ticket;
mod visitor;
mod warn;

pub use config::{OnDuplicate, Sampling};
pub use error::{BuildError, FlushError, InitError, OtlpError};
pub use export::{Console, Exporter, File, Memory, Otlp, Protocol, Semconv, Tallied};
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
