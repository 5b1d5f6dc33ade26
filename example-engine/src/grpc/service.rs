//! The core's side: `example-engine core`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use journey_layer::tracing::warn;
use tokio::net::TcpListener;
use tonic::transport::ServerTlsConfig;
use tonic::{Request, Response, Status};

use super::incoming::incoming;
use super::proto;
use super::proto::engine_core_server::{EngineCore as Service, EngineCoreServer};
use super::proto::generate_response::Event;
use crate::engine::{EngineCore, OutputStream};

/// A connection that carries nothing is asked for a sign of life this often, so that an API that is gone without a word
/// does not keep its sequences running.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A connection from which nothing comes at all, no answer to that either, is closed.
const SILENCE: Duration = Duration::from_secs(15);

/// Serves one core to APIs in other processes.
#[derive(Clone, Debug)]
struct CoreServer {
    core: EngineCore,
}

/// The answer to one `Generate`: whether the sequence was taken, then its outputs. Dropped when the caller cancels the
/// call or is gone, and with it the sequence is aborted.
struct Responses {
    first: Option<Event>,
    outputs: Option<OutputStream>,
}

impl Stream for Responses {
    type Item = Result<proto::GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = match self.first.take() {
            Some(event) => Some(event),
            None => match &mut self.outputs {
                Some(outputs) => ready!(Pin::new(outputs).poll_next(cx)).map(|output| Event::Output(output.into())),
                None => None,
            },
        };
        Poll::Ready(event.map(|event| Ok(proto::GenerateResponse { event: Some(event) })))
    }
}

#[tonic::async_trait]
impl Service for CoreServer {
    type GenerateStream = Responses;

    async fn generate(
        &self,
        request: Request<proto::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let responses = match self.core.add_request(request.into_inner().into()).await {
            Ok(outputs) => Responses { first: Some(Event::Taken(proto::Taken {})), outputs: Some(outputs) },
            Err(error) => Responses { first: Some(Event::Refused(error.into())), outputs: None },
        };
        Ok(Response::new(responses))
    }

    async fn stats(&self, _: Request<proto::StatsRequest>) -> Result<Response<proto::StatsResponse>, Status> {
        self.core.health().map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(self.core.stats().into()))
    }
}

/// Serves `core` on a bound listener until `stop` resolves and the calls that run have ended, or until `late` does; by TLS alone
/// with the settings of [`tls::server`](super::tls::server).
///
/// # Errors
/// The listener broke.
pub async fn serve_core(
    listener: TcpListener,
    core: EngineCore,
    tls: Option<ServerTlsConfig>,
    stop: impl Future<Output = ()>,
    late: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    let serving = server
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(EngineCoreServer::new(CoreServer { core }))
        .serve_with_incoming_shutdown(incoming(listener, SILENCE), stop);
    tokio::select! {
        served = serving => served,
        () = late => {
            warn!("connections were still open when their time was over");
            Ok(())
        }
    }
}
