//! The local OTLP receiver: takes everything, on a core of its own, in a process whose CPU time is nobody's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use parking_lot::Mutex;
use prost::Message;

use crate::census::Census;
use crate::cpu;
use crate::error::Error;

/// A receiver of OTLP http/protobuf.
pub struct Sink {
    received: Arc<Received>,
    address: SocketAddr,
}

#[derive(Default)]
struct Received {
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Whether requests are decoded; only in rounds that are not timed.
    detailed: AtomicBool,
    census: Mutex<Census>,
}

impl Sink {
    /// Starts it on a free port, on the cores given.
    ///
    /// # Errors
    /// No port, no thread, or no such core.
    pub fn start(cores: Vec<usize>) -> Result<Self, Error> {
        let received = Arc::<Received>::default();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("opening a port"))?;
        listener.set_nonblocking(true).map_err(Error::io("opening a port"))?;
        let address = listener.local_addr().map_err(Error::io("opening a port"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(Error::io("starting the OTLP sink"))?;
        let router = Router::new()
            .route("/v1/traces", post(take))
            .layer(DefaultBodyLimit::disable())
            .with_state(received.clone());
        let serve = move || {
            // Off its core it would take time from what is measured, which shows as noise and not as an error.
            let _ = cpu::pin(&cores);
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, router).await
            })
        };
        thread::Builder::new().name("sink".into()).spawn(serve).map_err(Error::io("starting the OTLP sink"))?;
        Ok(Self { received, address })
    }

    /// Its base URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests and bytes of their bodies so far.
    pub fn traffic(&self) -> (u64, u64) {
        (self.received.requests.load(Relaxed), self.received.bytes.load(Relaxed))
    }

    /// Begins to decode what comes.
    pub fn begin(&self) {
        self.received.detailed.store(true, Relaxed);
    }

    /// Ends it.
    pub fn end(&self) -> Census {
        self.received.detailed.store(false, Relaxed);
        std::mem::take(&mut self.received.census.lock())
    }
}

async fn take(State(received): State<Arc<Received>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    // A stack that compresses is not doing the work of the others.
    if headers.contains_key(header::CONTENT_ENCODING) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    received.requests.fetch_add(1, Relaxed);
    received.bytes.fetch_add(body.len() as u64, Relaxed);
    if received.detailed.load(Relaxed) {
        match ExportTraceServiceRequest::decode(body) {
            Ok(request) => received.census.lock().otlp(&request),
            Err(_) => return StatusCode::BAD_REQUEST,
        }
    }
    StatusCode::OK
}
