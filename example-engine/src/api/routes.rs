//! The routes, and the ones that need no engine.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use super::admission::{identify, require_key};
use super::chat::chat_completions;
use super::completions::completions;
use super::error::ApiError;
use super::{ApiState, metrics};

/// What the API takes and answers, for people and for programs. Held against the code by the tests below, and against a running
/// server by `.ci/schemathesis`.
const OPENAPI: &str = include_str!("openapi.json");

/// The whole API.
pub fn router(state: Arc<ApiState>) -> Router {
    let with_key = Router::new();
    let with_key = behind_the_key()
        .into_iter()
        .fold(with_key, |router, (path, methods)| router.route(path, methods))
        .route_layer(middleware::from_fn_with_state(state.clone(), require_key))
        .route_layer(middleware::from_fn_with_state(state.clone(), identify));
    for_everybody()
        .into_iter()
        .fold(Router::new().merge(with_key), |router, (path, methods)| router.route(path, methods))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

type Route = (&'static str, MethodRouter<Arc<ApiState>>);

/// Routes that need the API key, where one is set.
fn behind_the_key() -> Vec<Route> {
    vec![
        ("/v1/completions", post(completions)),
        ("/v1/chat/completions", post(chat_completions)),
        ("/v1/models", get(models)),
        ("/v1/models/{*model}", get(model)),
    ]
}

/// Routes of the server's operators.
fn for_everybody() -> Vec<Route> {
    vec![
        ("/health", get(health)),
        ("/version", get(version)),
        ("/metrics", get(metrics_text)),
        ("/openapi.json", get(openapi)),
    ]
}

fn card(state: &ApiState) -> Value {
    json!({
        "id": state.model.name,
        "object": "model",
        "created": state.created,
        "owned_by": "example-engine",
        "max_model_len": state.model.max_model_len,
    })
}

async fn models(State(state): State<Arc<ApiState>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [card(&state)] }))
}

async fn model(
    State(state): State<Arc<ApiState>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(asked) = asked.map_err(|_| ApiError::invalid("model", "the model's name in the path is not UTF-8"))?;
    match asked == state.model.name {
        true => Ok(Json(card(&state))),
        false => Err(ApiError::ModelNotFound { asked, served: state.model.name.clone() }),
    }
}

/// 200 while requests are served, 503 with the reason otherwise.
async fn health(State(state): State<Arc<ApiState>>) -> Result<StatusCode, ApiError> {
    if state.lifecycle.is_draining() {
        return Err(ApiError::ShuttingDown);
    }
    state.backend.health().map(|()| StatusCode::OK)
}

async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

async fn metrics_text(State(state): State<Arc<ApiState>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], state.metrics.text())
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn not_found(request: Request) -> ApiError {
    ApiError::NotFound { method: request.method().to_string(), path: request.uri().path().to_owned() }
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::MethodNotAllowed { method: request.method().to_string(), path: request.uri().path().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::types::field_names;
    use super::*;

    fn document() -> Value {
        serde_json::from_str(OPENAPI).expect("the document is JSON")
    }

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn the_document_has_the_routes_and_no_others() {
        let routes = behind_the_key().into_iter().chain(for_everybody());
        let routes: BTreeSet<_> = routes.map(|(path, _)| path.replace("{*", "{")).collect();
        assert_eq!(keys(&document()["paths"]), routes);
    }

    #[test]
    fn the_document_has_the_fields_of_a_request_and_no_others() {
        let schemas = &document()["components"]["schemas"];
        let documented = |name: &str| keys(&schemas[name]["properties"]);
        let both = &documented("CompletionRequest") | &documented("ChatRequest");
        assert_eq!(both, field_names().iter().map(|name| (*name).to_owned()).collect());
    }

    #[test]
    fn the_document_is_of_this_version() {
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
