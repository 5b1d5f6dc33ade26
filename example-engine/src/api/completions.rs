//! `POST /v1/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use journey_layer::macros::journey_span;

use super::ApiState;
use super::admission::{Admission, RequestId};
use super::error::ApiError;
use super::journey::{RequestJourney, conclude};
use super::params::Endpoint;
use super::respond::respond;
use super::submit::{Incoming, in_time, prepare};

/// Continues one prompt or several.
///
/// Each prompt is a journey of its own, so the handler itself runs in none: an `llm_request` made inside another is
/// refused as its duplicate. They are siblings in one trace, all of them sampled or none.
pub(super) async fn completions(
    State(state): State<Arc<ApiState>>,
    _: Admission,
    Extension(RequestId(id)): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut incoming = Incoming::new(&state, Endpoint::Completions, format!("cmpl-{id}"));
    let first = journey_span!(
        scope = "vllm.api",
        request_id = incoming.id(),
        headers = &headers,
        fields(http.route = "/v1/completions")
    );
    let another = |id: &str| {
        journey_span!(
            scope = "vllm.api",
            request_id = id,
            headers = &headers,
            sibling = &first,
            fields(http.route = "/v1/completions")
        )
    };
    let mut journeys = vec![RequestJourney::arrived(first.clone())];
    let prepared = in_time(&state, incoming.deadline, prepare(&state, Endpoint::Completions, &headers, body)).await;
    let result = match incoming.timer.note(prepared) {
        Ok(request) => {
            let others = (1..request.prompts.len()).map(|_| another(incoming.another_id(&state)));
            journeys.extend(others.map(RequestJourney::arrived));
            respond(state, incoming, request, &journeys).await
        }
        Err(error) => Err(error),
    };
    conclude(journeys, result)
}
