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
    Admission(waiting): Admission,
    Extension(RequestId(id)): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let incoming = Incoming::new(&state, Endpoint::Completions, format!("cmpl-{id}"), waiting);
    let first = journey_span!(
        scope = "vllm.api",
        request_id = incoming.id.as_str(),
        headers = &headers,
        fields(http.route = "/v1/completions")
    );
    let another = |prompt| {
        journey_span!(
            scope = "vllm.api",
            request_id = incoming.journey_id(prompt),
            headers = &headers,
            sibling = &first,
            fields(http.route = "/v1/completions")
        )
    };
    let mut journeys = vec![RequestJourney::arrived(first.clone())];
    let prepared = in_time(&state, incoming.deadline, prepare(&state, Endpoint::Completions, &headers, body)).await;
    let result = match incoming.timer.note(prepared) {
        Ok(request) => {
            journeys.extend((1..request.prompts.len()).map(|prompt| RequestJourney::arrived(another(prompt))));
            respond(state, incoming, &request, &journeys).await
        }
        Err(error) => Err(error),
    };
    conclude(journeys, result)
}
