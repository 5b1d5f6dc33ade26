//! The routes, and the ones that need no engine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use super::admission::{identify, require_key};
use super::chat::chat_completions;
use super::completions::completions;
use super::error::ApiError;
use super::{ApiState, metrics};

/// The whole API.
pub fn router(state: Arc<ApiState>) -> Router {
    let with_key = Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model))
        .route_layer(middleware::from_fn_with_state(state.clone(), require_key))
        .route_layer(middleware::from_fn_with_state(state.clone(), identify));
    Router::new()
        .merge(with_key)
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/metrics", get(metrics_text))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
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
    axum::extract::Path(asked): axum::extract::Path<String>,
) -> Result<Json<Value>, ApiError> {
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

async fn not_found(request: Request) -> ApiError {
    ApiError::NotFound { method: request.method().to_string(), path: request.uri().path().to_owned() }
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::MethodNotAllowed { method: request.method().to_string(), path: request.uri().path().to_owned() }
}
