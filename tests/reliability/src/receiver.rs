//! An OTLP receiver that keeps count of what it was sent.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use journey_layer::{Otlp, Protocol};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tonic::{Code, Request, Response, Status};

/// Both protocols of OTLP.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::HttpProtobuf, Protocol::Grpc];

/// What the receiver does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Takes it.
    #[default]
    Take,
    /// Takes it, and says that this many of its spans were refused.
    TakeBut(i64),
    /// Takes it, and answers after this time.
    Slow(Duration),
    /// 429 or 503 over HTTP, UNAVAILABLE over gRPC; to come back after so many seconds.
    Later(u16, u64),
    /// 400, or INVALID_ARGUMENT.
    Refuse,
}

/// What arrived. A request counts as a whole: whoever reads meanwhile sees all of it or nothing.
#[derive(Default)]
pub struct Tally {
    answer: Mutex<Answer>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    spans: u64,
    events: u64,
    torn: u64,
    /// Ids of the spans, where they are kept.
    ids: Option<HashSet<Vec<u8>>>,
}

impl Tally {
    /// One that can tell distinct spans.
    pub fn keeping_ids() -> Self {
        Self { counts: Mutex::new(Counts { ids: Some(HashSet::new()), ..Counts::default() }), ..Self::default() }
    }

    /// Requests answered with success.
    pub fn requests(&self) -> u64 {
        self.counts().requests
    }

    /// Spans taken, those that came twice counted twice.
    pub fn spans(&self) -> u64 {
        self.counts().spans
    }

    /// Events on them.
    pub fn events(&self) -> u64 {
        self.counts().events
    }

    /// Requests that could not be decoded, and spans without a terminal event.
    pub fn torn(&self) -> u64 {
        self.counts().torn
    }

    /// Spans taken, each once.
    ///
    /// # Panics
    /// If the receiver does not keep them.
    pub fn distinct_spans(&self) -> u64 {
        self.counts().distinct_spans()
    }

    /// Spans that had been taken before.
    ///
    /// # Panics
    /// If the receiver does not keep them.
    pub fn duplicates(&self) -> u64 {
        let counts = self.counts();
        counts.spans - counts.distinct_spans()
    }

    fn answer(&self) -> Answer {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn distinct_spans(&self) -> u64 {
        self.ids.as_ref().expect("a receiver that keeps ids").len() as u64
    }

    fn take(&mut self, request: ExportTraceServiceRequest) {
        self.requests += 1;
        let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
        for span in scopes.flat_map(|of| of.spans) {
            self.spans += 1;
            self.events += span.events.len() as u64;
            self.torn += u64::from(!is_whole(&span));
            if let Some(ids) = &mut self.ids {
                ids.insert(span.span_id);
            }
        }
    }
}

fn is_whole(span: &Span) -> bool {
    let terminal = ["api.DEPARTED", "api.ABORTED", "journey.FINISHED"];
    span.events.last().is_some_and(|event| terminal.contains(&event.name.as_str()))
}

/// A receiver on a thread of its own; it is gone, with all its connections, when it is dropped.
pub struct Receiver {
    protocol: Protocol,
    address: SocketAddr,
    tally: Arc<Tally>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Receiver {
    /// One on a free port, which keeps the ids of what it gets.
    pub fn start(protocol: Protocol) -> Self {
        Self::serve(protocol, bind(nobody()), Arc::new(Tally::keeping_ids()))
    }

    /// One whose memory does not grow.
    pub fn counting(protocol: Protocol) -> Self {
        Self::serve(protocol, bind(nobody()), Arc::default())
    }

    /// One at `address`, which goes on counting in `tally`.
    pub fn at(protocol: Protocol, address: SocketAddr, tally: Arc<Tally>) -> Self {
        Self::serve(protocol, bind(address), tally)
    }

    fn serve(protocol: Protocol, listener: TcpListener, tally: Arc<Tally>) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = tally.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener that does not block");
            match protocol {
                Protocol::Grpc => {
                    let service = TraceServiceServer::new(Service(shared)).max_decoding_message_size(64 << 20);
                    let incoming = tonic::transport::server::TcpIncoming::from(listener);
                    let server = tonic::transport::Server::builder().add_service(service);
                    server.serve_with_incoming(incoming).await.expect("a server that runs");
                }
                _ => {
                    let router = Router::new().fallback(receive).layer(DefaultBodyLimit::disable());
                    axum::serve(listener, router.with_state(shared)).await.expect("a server that runs");
                }
            }
        });
        Self { protocol, address, tally, runtime: Some(runtime) }
    }

    /// What it does with requests from now on.
    pub fn answer(&self, answer: Answer) {
        *self.tally.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An exporter to it.
    pub fn exporter(&self) -> Otlp {
        exporter(self.protocol, self.address)
    }

    /// What arrived; it stays when the receiver goes.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// An exporter to `address`.
pub fn exporter(protocol: Protocol, address: SocketAddr) -> Otlp {
    journey_layer::Exporter::otlp().protocol(protocol).endpoint(format!("http://{address}"))
}

/// An address at which nobody listens, until somebody is told to.
pub fn nobody() -> SocketAddr {
    // Bound and never listening, it refuses connections and keeps the port from everybody who does not ask for it by number.
    let socket = tokio::net::TcpSocket::new_v4().expect("a free port");
    socket.set_reuseaddr(true).expect("a free port");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = socket.local_addr().expect("a free port");
    std::mem::forget(socket);
    address
}

fn bind(address: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(address).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    listener
}

fn response(rejected: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too big".into() };
    ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) }
}

async fn receive(State(tally): State<Arc<Tally>>, body: Bytes) -> impl IntoResponse {
    let (status, rejected, after) = match tally.answer() {
        Answer::Take => (StatusCode::OK, 0, None),
        Answer::TakeBut(rejected) => (StatusCode::OK, rejected, None),
        Answer::Slow(time) => {
            tokio::time::sleep(time).await;
            (StatusCode::OK, 0, None)
        }
        Answer::Later(status, seconds) => (StatusCode::from_u16(status).expect("a status"), 0, Some(seconds)),
        Answer::Refuse => (StatusCode::BAD_REQUEST, 0, None),
    };
    if status == StatusCode::OK {
        match ExportTraceServiceRequest::decode(body) {
            Ok(request) => tally.counts().take(request),
            Err(_) => tally.counts().torn += 1,
        }
    }
    let after = after.map(|seconds| [("retry-after", seconds.to_string())]);
    (status, after, response(rejected).encode_to_vec())
}

struct Service(Arc<Tally>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let rejected = match self.0.answer() {
            Answer::Take => 0,
            Answer::TakeBut(rejected) => rejected,
            Answer::Slow(time) => {
                tokio::time::sleep(time).await;
                0
            }
            Answer::Later(..) => return Err(Status::new(Code::Unavailable, "later")),
            Answer::Refuse => return Err(Status::invalid_argument("no")),
        };
        self.0.counts().take(request.into_inner());
        Ok(Response::new(response(rejected)))
    }
}
