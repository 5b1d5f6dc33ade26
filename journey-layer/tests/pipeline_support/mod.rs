//! Real receivers on loopback, and journeys to send them.
#![allow(dead_code, unreachable_pub, reason = "a module of several test crates, each of which uses its own part")]
#![allow(clippy::unwrap_used, reason = "a receiver that cannot go on fails its test")]

use std::collections::VecDeque;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use journey_layer::tracing::field::{Field, Visit};
use journey_layer::{Builder, Journey, Otlp, Protocol, macros::*, tracing};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Take,
    /// Takes it, and says that this many spans were refused.
    TakeBut(i64),
    /// An HTTP status, or the gRPC status that corresponds to it.
    Refuse(u16),
    /// 503 or UNAVAILABLE, to come back after so many seconds.
    Later(u64),
}

#[derive(Default)]
struct State {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>,
    paths: Mutex<Vec<String>>,
    attempts: Mutex<Vec<Instant>>,
}

impl State {
    fn answer(&self) -> Answer {
        self.attempts.lock().unwrap().push(Instant::now());
        self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Take)
    }

    fn take(&self, headers: HeaderMap, request: ExportTraceServiceRequest) {
        self.requests.lock().unwrap().push((headers, request));
    }
}

/// An OTLP receiver on a thread of its own.
pub struct Receiver {
    pub protocol: Protocol,
    pub address: SocketAddr,
    state: Arc<State>,
    // Stops the server when it is dropped.
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Receiver {
    pub fn start(protocol: Protocol) -> Self {
        Self::at(protocol, TcpListener::bind(dead()).unwrap())
    }

    pub fn at(protocol: Protocol, listener: TcpListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = state.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            match protocol {
                Protocol::Grpc => {
                    let service = TraceServiceServer::new(Service(shared)).accept_compressed(CompressionEncoding::Gzip);
                    let incoming = tonic::transport::server::TcpIncoming::from(listener);
                    tonic::transport::Server::builder()
                        .add_service(service)
                        .serve_with_incoming(incoming)
                        .await
                        .unwrap();
                }
                _ => {
                    let router = Router::new().fallback(receive).with_state(shared);
                    axum::serve(listener, router).await.unwrap();
                }
            }
        });
        Self { protocol, address, state, _runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn exporter(&self) -> Otlp {
        Otlp::default().protocol(self.protocol).endpoint(self.url())
    }

    pub fn then(self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.state.answers.lock().unwrap().extend(answers);
        self
    }

    pub fn headers(&self) -> HeaderMap {
        self.state.requests.lock().unwrap()[0].0.clone()
    }

    pub fn path(&self) -> String {
        self.state.paths.lock().unwrap()[0].clone()
    }

    pub fn resource(&self) -> Resource {
        self.state.requests.lock().unwrap()[0].1.resource_spans[0].resource.clone().unwrap()
    }

    pub fn num_attempts(&self) -> usize {
        self.state.attempts.lock().unwrap().len()
    }

    /// Between each attempt and the next.
    pub fn pauses(&self) -> Vec<Duration> {
        self.state.attempts.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Everything taken: scope and span.
    pub fn spans(&self) -> Vec<(String, Span)> {
        let requests = self.state.requests.lock().unwrap();
        let scopes = requests.iter().flat_map(|(_, request)| &request.resource_spans).flat_map(|of| &of.scope_spans);
        let spans = scopes.flat_map(|of| {
            let scope = of.scope.as_ref().unwrap().name.clone();
            of.spans.iter().map(move |span| (scope.clone(), span.clone()))
        });
        spans.collect()
    }
}

async fn receive(Shared(state): Shared<Arc<State>>, uri: Uri, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    state.paths.lock().unwrap().push(uri.path().to_owned());
    let answer = state.answer();
    let (status, rejected, after) = match answer {
        Answer::Take => (StatusCode::OK, 0, None),
        Answer::TakeBut(rejected) => (StatusCode::OK, rejected, None),
        Answer::Refuse(status) => (StatusCode::from_u16(status).unwrap(), 0, None),
        Answer::Later(seconds) => (StatusCode::SERVICE_UNAVAILABLE, 0, Some(seconds)),
    };
    if status == StatusCode::OK {
        let mut plain = Vec::new();
        match headers.get("content-encoding").map(|value| value.as_bytes()) {
            Some(b"gzip") => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap()),
            _ => plain.extend_from_slice(&body),
        }
        state.take(headers, ExportTraceServiceRequest::decode(&plain[..]).unwrap());
    }
    let after = after.map(|seconds| [("retry-after", seconds.to_string())]);
    (status, after, response(rejected).encode_to_vec())
}

fn response(rejected: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too big".into() };
    ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let rejected = match self.0.answer() {
            Answer::Take => 0,
            Answer::TakeBut(rejected) => rejected,
            Answer::Refuse(503) => return Err(tonic::Status::unavailable("not now")),
            Answer::Refuse(_) => return Err(tonic::Status::invalid_argument("no")),
            Answer::Later(seconds) => {
                let mut details = tonic_types::ErrorDetails::new();
                details.set_retry_info(Some(Duration::from_secs(seconds)));
                let code = tonic::Code::ResourceExhausted;
                return Err(<tonic::Status as tonic_types::StatusExt>::with_error_details(code, "full", details));
            }
        };
        let headers = request.metadata().clone().into_headers();
        self.0.take(headers, request.into_inner());
        Ok(tonic::Response::new(response(rejected)))
    }
}

/// A builder that no variable of this process reaches.
pub fn builder() -> Builder {
    builder_in(&[])
}

pub fn builder_in(variables: &'static [(&'static str, &'static str)]) -> Builder {
    Journey::builder()
        .environment(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

/// Runs `f` with the journey's layer as this thread's subscriber.
pub fn traced<T>(journey: &Journey, f: impl FnOnce() -> T) -> T {
    let _default = tracing_subscriber::registry().with(journey.layer()).set_default();
    f()
}

/// One whole journey: 2 spans, 8 events.
pub fn one_journey(id: &str) {
    let request = journey_span!(scope = "vllm.api", request_id = %id);
    journey_event!(&request, ARRIVED);
    journey_record!(&request, prompt_tokens = 3, completion_tokens = 2, temperature = 0.5, model = "tiny");
    journey_event!(&request, HANDOFF_TO_CORE);
    let carrier = journey_layer::handoff(&request);
    let core = journey_span!(scope = "vllm.scheduler", carrier = &carrier, request_id = %format_args!("{id}-0"));
    journey_event!(&core, QUEUED);
    journey_event!(&core, SCHEDULED, step = 1, prefill_done_tokens = 0, prefill_total_tokens = 3);
    journey_event!(&core, FIRST_TOKEN, step = 2, prefill_done_tokens = 3, prefill_total_tokens = 3);
    journey_event!(&core, FINISHED, status = length);
    journey_event!(&request, FIRST_RESPONSE);
    journey_event!(&request, DEPARTED);
}

/// `count` journeys through `journey`.
pub fn journeys(journey: &Journey, count: usize) {
    traced(journey, || (0..count).for_each(|n| one_journey(&format!("cmpl-{n}"))));
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const LONG: Duration = Duration::from_secs(10);

/// Waits for `condition`, which is about to hold.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < 6 * LONG, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A receiver that accepts connections and says nothing.
pub fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// An address at which nobody listens, until the test does.
pub fn dead() -> SocketAddr {
    // Bound and never listening, it refuses connections and keeps the port from everybody who does not ask for it by number.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Keeps what `journey_layer` says.
#[derive(Clone, Default)]
pub struct Said(pub Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        if event.metadata().target() == "journey_layer" {
            event.record(&mut Message(&mut self.0.lock().unwrap()));
        }
    }
}
