//! Beside a user's own `tracing_opentelemetry` layer.
//!
//! Both layers make the entered span the active OpenTelemetry context, and both look there for a parent. So an
//! `llm_request` under the user's HTTP span is its child, and a span of the user's inside an `llm_request` is the
//! `llm_request`'s child. What `tracing-opentelemetry` 0.34 does not allow:
//!
//! - a span of the user's that names a journey span as its *explicit* parent (`parent: &span`) without being created
//!   inside it: that layer keeps its per-span data private, so ours cannot be put where it looks;
//! - the same with `with_context_activation(false)` on that layer: then it looks at the `tracing` parents alone.
//!   Ours under theirs works all the same.

use tracing_core::subscriber::Interest;
use tracing_core::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use crate::callsites::is_journey;

/// The filter for a layer that shall not see journey spans and events, such as a user's own OpenTelemetry layer: it
/// would export them a second time.
///
/// ```
/// use tracing_subscriber::{Layer, prelude::*};
///
/// # let tracer = opentelemetry::trace::noop::NoopTracer::new();
/// let own = tracing_opentelemetry::layer().with_tracer(tracer).with_filter(journey_layer::not_journey());
/// let subscriber = tracing_subscriber::registry().with(own);
/// ```
pub fn not_journey() -> NotJourney {
    NotJourney(())
}

/// Made by [`not_journey`].
#[derive(Clone, Copy, Debug)]
pub struct NotJourney(());

impl<S: Subscriber> Filter<S> for NotJourney {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        !is_journey(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_journey(metadata) { Interest::never() } else { Interest::always() }
    }
}
