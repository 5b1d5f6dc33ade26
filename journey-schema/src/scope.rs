//! Instrumentation scopes, and the spans each of them owns.

/// One of the two instrumentation scopes. Names: [`Scope::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `vllm.api`: the API server.
    Api,
    /// `vllm.scheduler`: the engine core.
    Scheduler,
}

impl Scope {
    /// The span that `#[journey_span(scope = "..")]` opens when no `name` is given.
    pub const fn default_span(self) -> SpanName {
        match self {
            Self::Api => SpanName::LlmRequest,
            Self::Scheduler => SpanName::LlmCore,
        }
    }
}

/// One of the span names. Names: [`SpanName::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanName {
    /// `llm_request`: one per request.
    LlmRequest,
    /// `llm_core`: one per sequence; child of the `llm_request`.
    LlmCore,
    /// `scheduler_step`: one per sampled scheduler step; a root that links to the `llm_core` of its batch.
    SchedulerStep,
    /// `model_forward`: the forward pass of a sampled step; child of the `scheduler_step`.
    ModelForward,
}

impl SpanName {
    /// Whether the span is part of a request's journey (and not of step tracing).
    pub const fn is_journey(self) -> bool {
        matches!(self, Self::LlmRequest | Self::LlmCore)
    }
}

/// OpenTelemetry span kinds that the schema uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// `SPAN_KIND_SERVER`.
    Server,
    /// `SPAN_KIND_INTERNAL`.
    Internal,
}
