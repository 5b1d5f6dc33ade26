//! OTLP over gRPC.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::{Batch, MAX_BODY, Shared};
use crate::read::{At, Place, resource_spans};

struct Receiver(Arc<Shared>);

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> Result<(), tonic::transport::Error> {
    let service = TraceServiceServer::new(Receiver(shared))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_BODY);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(32)
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _permit = self.0.exports.acquire().await.map_err(|_| Status::unavailable("shutting down"))?;
        let mut batch = Batch::default();
        for (index, spans) in request.into_inner().resource_spans.into_iter().enumerate() {
            resource_spans(spans, At { file: 0, place: Place::Message(index as u32 + 1) }, &mut batch);
        }
        let response = response(&batch);
        self.0.take(batch);
        Ok(Response::new(response))
    }
}

/// Full success, or what was refused and why.
pub(super) fn response(batch: &Batch) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: batch.first_problem.as_ref().map(|problem| ExportTracePartialSuccess {
            rejected_spans: batch.problem_count as i64,
            error_message: problem.clone(),
        }),
    }
}
