//! The OpenAI API: routes, and what a request needs on its way to the core.
//!
//! ```text
//! admission ─► handler (completions, chat) ─► submit ─► generation ─► respond
//! key, limits   span, ARRIVED, body, JSON      HANDOFF    FIRST_RESPONSE   DEPARTED with the body
//! ```

mod admission;
mod backend;
mod chat;
mod completions;
mod encoders;
mod error;
#[cfg(test)]
mod fuzz;
mod generation;
mod journey;
mod lifecycle;
mod metrics;
mod output;
mod params;
mod respond;
mod routes;
mod stop;
mod submit;
mod template;
mod types;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

pub use self::admission::ApiKey;
pub use self::backend::{Backend, Outputs};
pub use self::error::ApiError;
pub use self::lifecycle::Lifecycle;
pub use self::metrics::LedgerReader;
pub use self::routes::router;
pub use self::template::{ChatTemplate, TemplateError};
pub use self::types::{Content, Message, Part};
use crate::telemetry::DoTracing;
use crate::tokenizer::Tokenizer;
use admission::LiveIds;
use encoders::Encoders;
use metrics::Metrics;

/// What the API is made of.
pub struct ApiConfig {
    /// Where the sequences go.
    pub backend: Backend,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// The model's chat template.
    pub template: ChatTemplate,
    /// What the model is.
    pub model: ModelCard,
    /// What a client may ask for.
    pub limits: Limits,
    /// What a client must know, if anything.
    pub api_key: Option<ApiKey>,
    /// For `/metrics`.
    pub ledger: Option<LedgerReader>,
    /// Opens the historical duplicate span after each request.
    pub do_tracing: Option<DoTracing>,
}

/// What the model is.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// The name that requests and answers bear.
    pub name: String,
    /// Tokens of a prompt and its answer together, at most.
    pub max_model_len: usize,
    /// Number of different tokens.
    pub vocab_size: usize,
}

/// What a client may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Requests that wait for their first output at the same time.
    pub max_waiting_requests: usize,
    /// Time for the head of a request to arrive, also on a connection that has been kept.
    pub header_timeout: Duration,
    /// Time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Time in which a client must take something of its answer.
    pub write_timeout: Duration,
    /// Time of a request, from its arrival to its last token.
    pub request_timeout: Duration,
}

impl Limits {
    fn overloaded(&self) -> ApiError {
        ApiError::Overloaded { limit: self.max_waiting_requests }
    }

    fn timeout(&self) -> ApiError {
        ApiError::Timeout { seconds: self.request_timeout.as_secs_f64() }
    }
}

/// The running API, shared by its handlers.
pub struct ApiState {
    backend: Backend,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    model: ModelCard,
    created: u64,
    limits: Limits,
    waiting: Arc<Semaphore>,
    encoders: Encoders,
    live_ids: Arc<LiveIds>,
    api_key: Option<ApiKey>,
    metrics: Metrics,
    /// The server's way down.
    pub lifecycle: Arc<Lifecycle>,
    do_tracing: Option<DoTracing>,
}

impl ApiState {
    /// An API that takes requests from now on.
    pub fn new(config: ApiConfig) -> Arc<Self> {
        let max_waiting = config.limits.max_waiting_requests;
        let waiting = Arc::new(Semaphore::new(max_waiting));
        let (gate, backend) = (waiting.clone(), config.backend.clone());
        let num_waiting = Box::new(move || max_waiting - gate.available_permits());
        Arc::new(Self {
            metrics: Metrics::new(backend, num_waiting, config.ledger),
            backend: config.backend,
            tokenizer: config.tokenizer,
            template: config.template,
            model: config.model,
            created: unix_seconds(),
            waiting,
            encoders: Encoders::default(),
            live_ids: Arc::default(),
            limits: config.limits,
            api_key: config.api_key,
            lifecycle: Arc::new(Lifecycle::new()),
            do_tracing: config.do_tracing,
        })
    }
}

impl ApiState {
    /// What a client may ask for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Now, as OpenAI's `created`.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
