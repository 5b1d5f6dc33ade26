//! What both protocols do the same way.

use crate::error::BuildError;
use crate::export::exporter::Start;
use crate::export::lane::Remote;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
use crate::export::otlp::Protocol;
use crate::export::otlp::Resolved;

/// Sets the client up. Runs on the export thread, inside its runtime.
pub(crate) fn build(settings: Resolved, start: &Start<'_>) -> Result<Box<dyn Remote>, BuildError> {
    let settings = Resolved { timeout: settings.timeout.min(start.limits.export_timeout), ..settings };
    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
    let encoder = super::encode::Encoder::new(start.resource, start.semconv);
    match settings.protocol {
        #[cfg(feature = "otlp-grpc")]
        Protocol::Grpc => Ok(Box::new(super::grpc::Grpc::new(settings, encoder)?)),
        #[cfg(feature = "otlp-http")]
        Protocol::HttpProtobuf => Ok(Box::new(super::http::Http::new(settings, encoder)?)),
        #[cfg(not(all(feature = "otlp-grpc", feature = "otlp-http")))]
        protocol => Err(BuildError::Exporter(format!("OTLP over {} is not compiled in", protocol.as_str()))),
    }
}

#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
pub(crate) use shared::*;

#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
mod shared {
    use std::error::Error;
    use std::time::Duration;

    use ::http::{HeaderMap, HeaderName, HeaderValue};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;

    use crate::export::batch::{Loss, Refused};
    use crate::export::lane::{Accepted, Failure};
    use crate::stats::Reason;

    pub(crate) const USER_AGENT: &str = concat!("journey-layer/", env!("CARGO_PKG_VERSION"));

    /// Characters of a receiver's message that are passed on.
    const MAX_MESSAGE: usize = 1024;

    pub(crate) fn accepted(response: ExportTraceServiceResponse) -> Accepted {
        let partial = response.partial_success.unwrap_or_default();
        let message = match partial.error_message.as_str() {
            "" => "the receiver gave no reason".to_owned(),
            message => message.chars().take(MAX_MESSAGE).collect(),
        };
        let spans = u64::try_from(partial.rejected_spans).unwrap_or(0);
        let loss = Loss { reason: Reason::PartialSuccess, message };
        let refused = (spans > 0).then_some(Refused { spans, events: None, loss });
        Accepted { refused: refused.into_iter().collect() }
    }

    pub(crate) fn header_map(headers: &[(String, String)]) -> HeaderMap {
        let pairs = headers.iter().map(|(name, value)| {
            let name = HeaderName::try_from(name).expect("names were checked with the settings");
            let mut value = HeaderValue::try_from(value).expect("values were checked with the settings");
            // Mostly an API key: not for anybody's debug output.
            value.set_sensitive(true);
            (name, value)
        });
        pairs.collect()
    }

    pub(crate) fn no_answer(timeout: Duration) -> Failure {
        Failure::transient(format!("no answer within {timeout:?}"))
    }

    /// The error with all that caused it: "error sending request: connection refused" says more than its first half.
    pub(crate) fn chain(error: &dyn Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}
