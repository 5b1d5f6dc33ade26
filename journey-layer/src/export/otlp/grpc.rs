//! OTLP over gRPC.

use std::sync::Arc;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use bytes::{BufMut, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use parking_lot::Mutex;
use prost::Message;
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder as TonicEncoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::error::BuildError;
use crate::export::batch::Item;
use crate::export::lane::{Attempt, Failure, Remote};
use crate::export::otlp::Resolved;
use crate::export::otlp::client::{USER_AGENT, accepted, chain, header_map, no_answer};
use crate::export::otlp::encode::Encoder;

pub(crate) struct Grpc {
    connection: Arc<Connection>,
    encoder: Encoder,
}

struct Connection {
    endpoint: Endpoint,
    metadata: MetadataMap,
    gzip: bool,
    timeout: Duration,
    client: Mutex<Client<Channel>>,
}

impl Grpc {
    pub(crate) fn new(settings: Resolved, encoder: Encoder) -> Result<Self, BuildError> {
        let failed = |error: tonic::transport::Error| BuildError::Exporter(chain(&error));
        let endpoint = Endpoint::from_shared(settings.url.clone()).and_then(|endpoint| endpoint.user_agent(USER_AGENT));
        let endpoint = endpoint.map_err(failed)?;
        #[cfg(feature = "tls")]
        let endpoint = match settings.url.starts_with("https://") {
            true => endpoint.tls_config(super::tls::tonic_config(&settings.certificates)?).map_err(failed)?,
            false => endpoint,
        };
        let connection = Connection {
            client: Mutex::new(connect(&endpoint, settings.gzip)),
            endpoint,
            metadata: MetadataMap::from_headers(header_map(&settings.headers)),
            gzip: settings.gzip,
            timeout: settings.timeout,
        };
        Ok(Self { connection: Arc::new(connection), encoder })
    }
}

fn connect(endpoint: &Endpoint, gzip: bool) -> Client<Channel> {
    let client = Client::new(endpoint.connect_lazy());
    if gzip { client.send_compressed(CompressionEncoding::Gzip) } else { client }
}

impl Remote for Grpc {
    fn encode(&mut self, items: &[Item]) -> Bytes {
        self.encoder.encode(items)
    }

    fn prepare(&self, message: Bytes) -> Attempt {
        let connection = self.connection.clone();
        Box::new(move || {
            let connection = connection.clone();
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = connection.metadata.clone();
            Box::pin(async move {
                let mut client = connection.client.lock().clone();
                let exchange = async {
                    // Not ready is what a refused connection looks like.
                    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
                    client.unary(request, PathAndQuery::from_static(EXPORT), Raw).await
                };
                match tokio::time::timeout(connection.timeout, exchange).await {
                    Ok(Ok(response)) => Ok(accepted(response.into_inner())),
                    Ok(Err(status)) => Err(judge(&status)),
                    Err(_) => {
                        // Its other end may be gone without a word; the next attempt goes by a new connection.
                        *connection.client.lock() = connect(&connection.endpoint, connection.gzip);
                        Err(no_answer(connection.timeout))
                    }
                }
            })
        })
    }
}

/// The method's path (`opentelemetry/proto/collector/trace/v1/trace_service.proto`).
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends messages that are encoded already.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl TonicEncoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // A receiver that answers OK has the spans, whatever else it says.
        Ok(Some(ExportTraceServiceResponse::decode(from).unwrap_or_default()))
    }
}

/// What the status says, by the OTLP specification ("OTLP/gRPC Response").
fn judge(status: &Status) -> Failure {
    let message = match std::error::Error::source(status) {
        // Made here, by the transport: nothing in it comes from the other side.
        Some(source) => chain(source),
        None => format!("the receiver answered {:?}: {}", status.code(), status.message()),
    };
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        // As tonic's servers say that a message is too large; the same one would be so again.
        Code::OutOfRange if status.message().contains("message length too large") => Failure::permanent(message),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Transient { message, after },
        // Only with its word that it will recover.
        Code::ResourceExhausted if after.is_some() => Failure::Transient { message, after },
        // A connection that broke midway comes as this, and only then has a source.
        Code::Unknown | Code::Internal if std::error::Error::source(status).is_some() => {
            Failure::Transient { message, after }
        }
        _ => Failure::permanent(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_large_is_not_sent_again() {
        let too_large = "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes";
        assert!(matches!(judge(&Status::out_of_range(too_large)), Failure::Permanent(_)));
        assert!(matches!(judge(&Status::out_of_range("try again")), Failure::Transient { .. }));
    }
}
