//! Who may come in: the API key, the limit on waiting requests, and the id of those who do.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::OwnedSemaphorePermit;

use super::ApiState;
use super::error::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of an `X-Request-Id` that is kept; a longer one is cut, and counted.
const MAX_ID_BYTES: usize = 128;

/// The key that clients must send. Only its hash is kept, so that no log and no dump can show it.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Keeps the hash of `key`.
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// [`Self::new`] for the command line.
    ///
    /// # Errors
    /// The key is empty.
    pub fn parse(key: &str) -> Result<Self, &'static str> {
        if key.trim().is_empty() {
            Err("an empty key keeps nobody out; leave it out to have none")
        } else {
            Ok(Self::new(key.trim()))
        }
    }

    /// Whether `key` is the one. Takes the same time for every wrong key.
    pub fn matches(&self, key: &str) -> bool {
        self.0.ct_eq(&Self::new(key).0).into()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Refuses requests without the API key, where one is set.
pub(super) async fn require_key(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(key) = &state.api_key {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer =
            given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        if !bearer.is_some_and(|(_, given)| key.matches(given.trim())) {
            return Err(ApiError::Unauthorized);
        }
    }
    Ok(next.run(request).await)
}

/// There is room for the request. Whoever finds none has not been accepted, and has no journey.
pub(super) struct Admission;

impl FromRequestParts<Arc<ApiState>> for Admission {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        if state.lifecycle.is_draining() {
            return Err(ApiError::ShuttingDown);
        }
        match state.waiting.available_permits() {
            0 => Err(state.limits.overloaded()),
            _ => Ok(Self),
        }
    }
}

/// The right to wait for the core, for a request whose body is here: clients that send theirs slowly keep nobody out.
///
/// # Errors
/// As many wait as may; they came in while the body did.
pub(super) fn wait(state: &ApiState) -> Result<OwnedSemaphorePermit, ApiError> {
    state.waiting.clone().try_acquire_owned().map_err(|_| state.limits.overloaded())
}

/// The ids of the requests that are being answered.
#[derive(Debug, Default)]
pub(super) struct LiveIds(Mutex<HashSet<String>>);

/// Keeps an id from being given to another request.
#[derive(Debug)]
pub(super) struct LiveId {
    id: String,
    all: Arc<LiveIds>,
}

impl LiveIds {
    /// Takes `id`, or something like it if a live request has that: clients choose ids, and two journeys with one id would
    /// be taken for one.
    pub(super) fn take(self: &Arc<Self>, mut id: String) -> LiveId {
        let mut live = self.0.lock();
        while !live.insert(id.clone()) {
            id = format!("{id}-{:08x}", rand::random::<u32>());
        }
        LiveId { id, all: self.clone() }
    }
}

impl LiveId {
    pub(super) fn as_str(&self) -> &str {
        &self.id
    }
}

impl Drop for LiveId {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.id);
    }
}

/// What tells the request from others: the client's `X-Request-Id`, or a random one.
#[derive(Clone)]
pub(super) struct RequestId(pub(super) String);

/// Gives each request its id, and the response the same.
pub(super) async fn identify(State(state): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).map(str::trim);
    let id = match given {
        // `to_str` let visible ASCII alone through, so any byte is a boundary.
        Some(id) if id.len() > MAX_ID_BYTES => {
            state.metrics.id_truncated();
            id[..MAX_ID_BYTES].trim_end().to_owned()
        }
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("{:016x}", rand::random::<u64>()),
    };
    let header = HeaderValue::from_str(&id).expect("visible ASCII is a header's value");
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, header);
    response
}
