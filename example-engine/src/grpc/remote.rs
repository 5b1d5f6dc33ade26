//! One core in another process, as its API sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use parking_lot::Mutex;
use tonic::Streaming;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::proto;
use super::proto::engine_core_client::EngineCoreClient;
use super::proto::generate_response::Event;
use crate::causes::with_causes;
use crate::engine::{EngineCoreOutput, EngineCoreRequest, EngineError, FinishReason, SchedulerStats};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the core may take to say how it is.
const STATS_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Outputs of one sequence that nobody has read yet, bytes; the core keeps the rest.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same of all sequences: as much as HTTP/2 allows, so that clients who read slowly hold up nobody else's sequences.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// A core that is reached by gRPC. The connection is made when it is first needed, and made again when it broke.
#[derive(Debug)]
pub(super) struct RemoteCore {
    url: String,
    client: EngineCoreClient<Channel>,
    up: AtomicBool,
    /// Sequences of ours that it has.
    in_flight: AtomicU64,
    stats: Mutex<SchedulerStats>,
}

/// Why a core did not take a sequence.
pub(super) enum Untaken {
    /// It said so.
    Refused(EngineError),
    /// It cannot be reached.
    Unreachable(String),
}

impl RemoteCore {
    /// Whether the URL asks for TLS.
    pub(super) fn is_https(url: &str) -> Result<bool, String> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
        match endpoint.uri().scheme_str() {
            Some("https") => Ok(true),
            Some("http") => Ok(false),
            // A name alone is a URI as well, but nothing that could be connected to.
            _ => Err("it does not begin with http:// or https://".to_owned()),
        }
    }

    pub(super) fn new(url: &str, tls: Option<&ClientTlsConfig>) -> Result<Self, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .tcp_nodelay(true);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls.clone())?;
        }
        Ok(Self {
            url: url.to_owned(),
            client: EngineCoreClient::new(endpoint.connect_lazy()),
            up: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            stats: Mutex::default(),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub(super) fn stats(&self) -> SchedulerStats {
        *self.stats.lock()
    }

    /// Sequences that it has to work on: ours, or all that it last told of, if that is more.
    pub(super) fn load(&self) -> u64 {
        let stats = self.stats();
        self.in_flight.load(Relaxed).max(stats.num_running_reqs + stats.num_waiting_reqs)
    }

    /// Asks the core how it is.
    ///
    /// # Errors
    /// Why it is down.
    pub(super) async fn probe(&self) -> Result<(), String> {
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(STATS_TIMEOUT, client.stats(proto::StatsRequest {})).await;
        let result = match answer {
            Ok(Ok(stats)) => {
                *self.stats.lock() = stats.into_inner().into();
                Ok(())
            }
            Ok(Err(status)) => Err(with_causes(status.message(), &status)),
            Err(_) => Err(format!("no answer within {STATS_TIMEOUT:?}")),
        };
        self.up.store(result.is_ok(), Relaxed);
        result
    }

    /// Hands a sequence over; resolves when the core has taken it.
    pub(super) async fn add_request(self: &Arc<Self>, request: EngineCoreRequest) -> Result<RemoteOutputs, Untaken> {
        let in_flight = InFlight::new(self.clone());
        let unreachable = |status: tonic::Status| {
            self.up.store(false, Relaxed);
            Untaken::Unreachable(format!("{}: {}", self.url, status.message()))
        };
        let request = proto::GenerateRequest::from(request);
        let mut stream = self.client.clone().generate(request).await.map_err(unreachable)?.into_inner();
        match stream.message().await.map_err(unreachable)?.and_then(|first| first.event) {
            Some(Event::Taken(_)) => Ok(RemoteOutputs { stream, core: in_flight, finished: false }),
            Some(Event::Refused(refused)) => Err(Untaken::Refused(refused.into())),
            Some(Event::Output(_)) | None => {
                Err(Untaken::Unreachable(format!("{}: the core did not say whether it took the sequence", self.url)))
            }
        }
    }
}

/// Counts a sequence for as long as it lives.
#[derive(Debug)]
struct InFlight(Arc<RemoteCore>);

impl InFlight {
    fn new(core: Arc<RemoteCore>) -> Self {
        core.in_flight.fetch_add(1, Relaxed);
        Self(core)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The outputs of a sequence in another process. Dropped before its end, it cancels the call, and the core aborts the
/// sequence. A core that dies ends it with [`FinishReason::Error`].
#[derive(Debug)]
pub struct RemoteOutputs {
    stream: Streaming<proto::GenerateResponse>,
    core: InFlight,
    finished: bool,
}

impl Stream for RemoteOutputs {
    type Item = EngineCoreOutput;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let output = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(proto::GenerateResponse { event: Some(Event::Output(output)) })) => output.into(),
            Some(Ok(_)) => self.broken("it sent no output"),
            Some(Err(status)) => {
                self.core.0.up.store(false, Relaxed);
                self.broken(status.message())
            }
            None => self.broken("it ended the call"),
        };
        self.finished = output.finish_reason.is_some();
        Poll::Ready(Some(output))
    }
}

impl RemoteOutputs {
    fn broken(&self, how: &str) -> EngineCoreOutput {
        let error = format!("the engine core at {} is gone: {how}", self.core.0.url);
        EngineCoreOutput { finish_reason: Some(FinishReason::Error(error)), ..EngineCoreOutput::default() }
    }
}
