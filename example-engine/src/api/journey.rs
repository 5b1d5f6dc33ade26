//! The API's side of a journey: one `llm_request` from its arrival to its departure.

use axum::body::Body;
use axum::response::Response;
use journey_layer::tracing::Span;
use journey_layer::{AbortReason, Carrier, InJourney, journey_event, journey_record};

use super::error::ApiError;
use super::submit::Prepared;

/// An `llm_request` that has not been answered yet.
///
/// Dropped before [`conclude`], the client is gone: hyper drops the handler's
/// future when the connection closes.
#[derive(Debug)]
pub(super) struct RequestJourney {
    span: Span,
    ended: bool,
}

impl RequestJourney {
    /// The request is here, and nothing of it has been looked at.
    pub(super) fn arrived(span: Span) -> Self {
        journey_event!(&span, ARRIVED);
        Self { span, ended: false }
    }

    /// A handle for what goes on after the response has begun.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// What the client asked for with the prompt number `prompt`.
    pub(super) fn asked(&self, request: &Prepared, prompt: usize, model: &str) {
        let (asked, prompt) = (&request.asked, &request.prompts[prompt]);
        journey_record!(
            &self.span,
            prompt_tokens = prompt.token_ids.len() as u64,
            top_p = asked.top_p,
            max_tokens = prompt.max_tokens,
            temperature = asked.temperature,
            n = asked.n,
            model = model,
        );
    }

    /// For the core: the parent of its `llm_core`, and whether there shall be one.
    pub(super) fn carrier(&self) -> Carrier {
        journey_layer::handoff(&self.span)
    }

    /// The core has taken every sequence of the request.
    pub(super) fn handed_off(&self) {
        journey_event!(&self.span, HANDOFF_TO_CORE);
    }

    fn abort(mut self, error: &ApiError) {
        self.ended = true;
        abort(&self.span, error);
    }

    fn into_body(mut self, body: Body) -> Body {
        self.ended = true;
        Body::new(body.in_journey(self.span.clone()))
    }
}

impl Drop for RequestJourney {
    fn drop(&mut self) {
        if !self.ended {
            let reason = if std::thread::panicking() { AbortReason::Panic } else { AbortReason::ClientDisconnect };
            journey_event!(&self.span, ABORTED, reason = (reason));
        }
    }
}

/// Ends the journeys of a request with its error, or gives them to its response's body: they depart when its last piece
/// goes out, and are aborted when it is dropped before.
///
/// # Errors
/// The error of the request, passed on.
pub(super) fn conclude(
    journeys: Vec<RequestJourney>,
    result: Result<Response, ApiError>,
) -> Result<Response, ApiError> {
    match result {
        Ok(response) => Ok(response.map(|body| journeys.into_iter().fold(body, |body, one| one.into_body(body)))),
        Err(error) => {
            journeys.into_iter().for_each(|one| one.abort(&error));
            Err(error)
        }
    }
}

/// The request of `span` ends early.
pub(super) fn abort(span: &Span, error: &ApiError) {
    journey_event!(span, ABORTED, reason = (error.abort_reason()), error = error.journey_text());
}
