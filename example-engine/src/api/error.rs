//! What the API answers when it cannot answer: OpenAI's error bodies and status codes.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use journey_layer::AbortReason;
use serde::Serialize;

/// Everything that ends a request early.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request cannot be served as it is written.
    #[error("{message}")]
    Invalid {
        /// The offending field, as a path into the body.
        param: Option<String>,
        /// OpenAI's machine-readable code, where there is one.
        code: Option<&'static str>,
        /// What is wrong, and with what input.
        message: String,
    },
    /// A part of the request is not what it should be, and the message says so in words of the request's own. They are
    /// for the client alone: a prompt may be among them.
    #[error("{message}")]
    Unreadable {
        /// The offending field, as a path into the body.
        param: Option<String>,
        /// What is wrong, and with what input.
        message: String,
    },
    /// The body is not declared as JSON.
    #[error("unsupported content type {0}; send `content-type: application/json`")]
    ContentType(String),
    /// The body is larger than `--max-body-bytes`.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// The client did not send its body in time.
    #[error("the body did not arrive within {seconds} s")]
    SlowBody {
        /// The time that was given.
        seconds: f64,
    },
    /// The connection broke while the body arrived.
    #[error("the body could not be read: {0}")]
    BodyLost(String),
    /// Missing or wrong API key. The key itself never gets into the message.
    #[error("missing or invalid api key; send `authorization: Bearer KEY`")]
    Unauthorized,
    /// Another model than the one that is served.
    #[error("the model `{asked}` does not exist; this server has `{served}`")]
    ModelNotFound {
        /// The model in the request.
        asked: String,
        /// The one model there is.
        served: String,
    },
    /// No such route.
    #[error("unknown route: {method} {path}")]
    NotFound {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// The route exists with another method.
    #[error("method {method} is not allowed for {path}")]
    MethodNotAllowed {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
    },
    /// As many requests wait as may.
    #[error("{limit} requests are waiting already; try again later")]
    Overloaded {
        /// `--max-waiting-requests`.
        limit: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// No engine core can be reached.
    #[error("no engine core is available: {0}")]
    NoCore(String),
    /// The time of the request ran out.
    #[error("the request did not finish within {seconds} s")]
    Timeout {
        /// `--request-timeout`, seconds.
        seconds: f64,
    },
    /// The engine failed while it worked on the request.
    #[error("generation failed: {0}")]
    Generation(String),
}

/// `{"error": {..}}`.
#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    message: String,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl ApiError {
    /// An [`Invalid`](Self::Invalid) that names its field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { param: Some(param.into()), code: None, message: message.into() }
    }

    /// An [`Unreadable`](Self::Unreadable) that names its field.
    pub fn unreadable(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unreadable { param: Some(param.into()), message: message.into() }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } | Self::Unreadable { .. } | Self::BodyLost(_) => StatusCode::BAD_REQUEST,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ModelNotFound { .. } | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::ShuttingDown | Self::NoCore(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Generation(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the journey says of the error: never anything of a prompt, wherever in the request somebody put it.
    pub fn journey_text(&self) -> Cow<'static, str> {
        match self {
            Self::ModelNotFound { served, .. } => format!("another model than `{served}` was asked for").into(),
            Self::ContentType(_) => "the body is not `application/json` by its content type".into(),
            Self::Unreadable { .. } => "the request cannot be read; its client was told where".into(),
            other => other.to_string().into(),
        }
    }

    /// Why a journey that ends with this error was aborted.
    pub fn abort_reason(&self) -> AbortReason {
        match self {
            Self::Timeout { .. } | Self::SlowBody { .. } => AbortReason::Timeout,
            Self::Generation(_) | Self::NoCore(_) => AbortReason::GenerationError,
            Self::ShuttingDown | Self::Overloaded { .. } => AbortReason::Cancelled,
            Self::BodyLost(_) => AbortReason::ClientDisconnect,
            Self::Invalid { .. }
            | Self::Unreadable { .. }
            | Self::ContentType(_)
            | Self::TooLarge { .. }
            | Self::Unauthorized
            | Self::ModelNotFound { .. }
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. } => AbortReason::ValidationError,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "rate_limit_error",
            Self::Unauthorized => "authentication_error",
            _ if self.status().is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { code, .. } => *code,
            Self::Unauthorized => Some("invalid_api_key"),
            Self::ModelNotFound { .. } => Some("model_not_found"),
            Self::Overloaded { .. } => Some("rate_limit_exceeded"),
            Self::Timeout { .. } | Self::SlowBody { .. } => Some("timeout"),
            _ => None,
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } | Self::Unreadable { param, .. } => param.as_deref(),
            Self::ModelNotFound { .. } => Some("model"),
            _ => None,
        }
    }

    /// The body as a string, for the `data:` line of a stream that has already begun.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.body()).expect("an error body has string keys only")
    }

    fn body(&self) -> Body<'_> {
        Body {
            error: Detail { message: self.to_string(), r#type: self.kind(), param: self.param(), code: self.code() },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Overloaded { .. } | Self::ShuttingDown | Self::NoCore(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
