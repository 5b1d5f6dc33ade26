//! The journey schema as const tables.
//!
//! Engines that serve language models trace each request as a *journey*: an `llm_request` span in the
//! instrumentation scope `vllm.api` and one `llm_core` child per sequence in `vllm.scheduler`, both with
//! lifecycle events. This crate holds every name of that contract once; the macros check code against it
//! while compiling, the layer and the tools at run time. It has no dependency.
//!
//! ```
//! use journey_schema::{Attr, Event, Lifecycle, Scope};
//!
//! assert_eq!(Event::from_ident("QUEUED"), Some(Event::Queued));
//! assert_eq!(Event::Queued.wire_name(), "journey.QUEUED");
//! assert_eq!(Event::Queued.scope(), Scope::Scheduler);
//! assert_eq!(Attr::PromptTokens.key(), "gen_ai.usage.prompt_tokens");
//!
//! let mut span = Lifecycle::new();
//! assert!(span.advance(Event::Queued).is_ok());
//! assert!(span.advance(Event::FirstToken).is_err(), "FIRST_TOKEN comes after a SCHEDULED");
//! ```
//!
//! `docs/schema.md` is printed from these tables by [`markdown`].

mod attribute;
#[macro_use]
mod declare;
mod event;
mod lifecycle;
mod lookup;
mod markdown;
mod scope;
mod table;

pub use attribute::{Attribute, AttributeType};
pub use event::Event;
pub use lifecycle::{Lifecycle, Violation};
pub use lookup::nearest;
pub use markdown::markdown;
pub use scope::{Scope, SpanKind, SpanName};
pub use table::{
    AbortReason, Attr, DEFAULT_SERVICE_NAME, FinishStatus, HISTORICAL_DUPLICATE_SCOPE, Phase, SHADOW_FIELD,
    ScheduleKind, carrier,
};
