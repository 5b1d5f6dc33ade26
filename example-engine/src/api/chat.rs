//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use journey_layer::journey_span;
use journey_layer::tracing::Span;

use super::ApiState;
use super::admission::{Admission, RequestId};
use super::error::ApiError;
use super::journey::{RequestJourney, conclude};
use super::params::Endpoint;
use super::respond::respond;
use super::submit::{Incoming, in_time, prepare};

/// Answers a conversation.
pub(super) async fn chat_completions(
    State(state): State<Arc<ApiState>>,
    _: Admission,
    Extension(RequestId(id)): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let incoming = Incoming::new(&state, Endpoint::Chat, format!("chatcmpl-{id}"));
    answer(state, incoming, headers, body).await
}

/// The journey of a conversation. The span outlives this function: its response's body takes it along.
#[journey_span(
    scope = "vllm.api",
    request_id = incoming.id(),
    headers = &headers,
    fields(http.route = "/v1/chat/completions")
)]
async fn answer(
    state: Arc<ApiState>,
    incoming: Incoming,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let journeys = vec![RequestJourney::arrived(Span::current())];
    let prepared = in_time(&state, incoming.deadline, prepare(&state, Endpoint::Chat, &headers, body)).await;
    let result = match incoming.timer.note(prepared) {
        Ok(request) => respond(state, incoming, request, &journeys).await,
        Err(error) => Err(error),
    };
    conclude(journeys, result)
}
