//! OTLP over HTTP: `POST /v1/traces`, protobuf or JSON, plain or under gzip.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flate2::read::MultiGzDecoder;
use prost::Message;
use serde_json::json;

use super::{Batch, MAX_BODY, MAX_UNPACKED, Shared, grpc, guard};
use crate::read::{read_json, read_protobuf};

pub(super) fn router(shared: Arc<Shared>, listening: SocketAddr) -> Router {
    Router::new()
        .route("/v1/traces", post(traces))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(listening, guard::host))
        .with_state(shared)
}

#[derive(Clone, Copy)]
enum Encoding {
    Protobuf,
    Json,
}

async fn traces(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(encoding) = content_type(&headers) else {
        let refused = "content-type must be application/x-protobuf or application/json\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, refused).into_response();
    };
    let Ok(_permit) = shared.exports.acquire().await else {
        return error(encoding, StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    };
    let body = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity" | b"") => body,
        Some(b"gzip") => match unpack(&body) {
            Ok(body) => body,
            Err(message) => return error(encoding, StatusCode::BAD_REQUEST, &message),
        },
        Some(_) => {
            return error(encoding, StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding must be gzip or identity");
        }
    };
    let mut batch = Batch::default();
    match encoding {
        Encoding::Json => read_json(&*body, &mut batch),
        Encoding::Protobuf => read_protobuf(&*body, &mut batch),
    }
    if batch.spans.is_empty()
        && let Some(problem) = &batch.first_problem
    {
        let refused = error(encoding, StatusCode::BAD_REQUEST, problem);
        shared.take(batch);
        return refused;
    }
    let answer = answer(encoding, &batch);
    shared.take(batch);
    answer
}

/// A page of another origin can send no other content type than these without asking first, and is not answered when it asks.
fn content_type(headers: &HeaderMap) -> Option<Encoding> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match given.split(';').next().unwrap_or("").trim() {
        "application/x-protobuf" => Some(Encoding::Protobuf),
        "application/json" => Some(Encoding::Json),
        _ => None,
    }
}

/// Unpacks up to the limit: a few kilobytes of gzip can hold gigabytes.
fn unpack(body: &[u8]) -> Result<Bytes, String> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(body)
        .take(MAX_UNPACKED as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("invalid gzip: {error}"))?;
    if unpacked.len() > MAX_UNPACKED {
        return Err(format!("the body unpacks to more than {} MiB", MAX_UNPACKED >> 20));
    }
    Ok(unpacked.into())
}

fn answer(encoding: Encoding, batch: &Batch) -> Response {
    match encoding {
        Encoding::Protobuf => {
            ([(header::CONTENT_TYPE, "application/x-protobuf")], grpc::response(batch).encode_to_vec()).into_response()
        }
        Encoding::Json => {
            let answer = match &batch.first_problem {
                Some(problem) => json!({ "partialSuccess": {
                    "rejectedSpans": batch.problem_count.to_string(), "errorMessage": problem } }),
                None => json!({}),
            };
            ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
        }
    }
}

/// `google.rpc.Status`, which OTLP over HTTP answers errors with.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
}

fn error(encoding: Encoding, status: StatusCode, message: &str) -> Response {
    match encoding {
        Encoding::Protobuf => (
            status,
            [(header::CONTENT_TYPE, "application/x-protobuf")],
            RpcStatus { message: message.to_owned() }.encode_to_vec(),
        )
            .into_response(),
        Encoding::Json => {
            (status, [(header::CONTENT_TYPE, "application/json")], json!({ "message": message }).to_string())
                .into_response()
        }
    }
}
