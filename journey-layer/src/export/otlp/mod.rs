//! OTLP over HTTP/protobuf and gRPC.
//!
//! Not on opentelemetry-otlp's exporter: that one tells its caller neither the status, nor how long to wait, nor what a
//! partial success refused, and reads the environment behind the back of what was set. Nor on opentelemetry-proto's
//! conversions, which cost more than the rest of the pipeline: see [`encode`].

pub(crate) mod client;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
mod encode;
mod endpoint;
#[cfg(feature = "otlp-grpc")]
mod grpc;
#[cfg(feature = "otlp-http")]
mod http;
mod settings;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
mod template;
#[cfg(all(feature = "tls", any(feature = "otlp-grpc", feature = "otlp-http")))]
mod tls;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
mod wire;

use std::time::Duration;

pub(crate) use settings::Resolved;

use crate::env::Env;
use crate::error::OtlpError;

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// `grpc`: HTTP/2, port 4317 by convention.
    Grpc,
    /// `http/protobuf`: HTTP/1.1, port 4318 by convention.
    HttpProtobuf,
}

impl Protocol {
    /// The name in `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }

    const fn default_endpoint(self) -> &'static str {
        match self {
            Self::Grpc => "http://localhost:4317",
            Self::HttpProtobuf => "http://localhost:4318",
        }
    }

    const fn is_compiled(self) -> bool {
        match self {
            Self::Grpc => cfg!(feature = "otlp-grpc"),
            Self::HttpProtobuf => cfg!(feature = "otlp-http"),
        }
    }
}

/// An OTLP exporter. Made by [`Exporter::otlp`](crate::Exporter::otlp).
///
/// What is not given comes from the environment (`OTEL_EXPORTER_OTLP_TRACES_*`, then `OTEL_EXPORTER_OTLP_*`), then from
/// the specification: `http/protobuf` to `http://localhost:4318`, 10 seconds, no compression.
///
/// A collector that cannot be reached, or answers 429, 502, 503 or 504 (over gRPC: one of the codes that OTLP calls
/// retryable) is tried again with growing intervals, `Retry-After` honoured, for as long as the queue has room and
/// until the shutdown. Any other refusal is final, and counted.
///
/// ```
/// use std::time::Duration;
///
/// use journey_layer::{Exporter, Protocol};
///
/// let exporter = Exporter::otlp()
///     .endpoint("http://collector:4317")
///     .protocol(Protocol::Grpc)
///     .header("x-tenant", "blue")
///     .timeout(Duration::from_secs(3))
///     .gzip(true);
/// ```
#[derive(Clone, Default)]
pub struct Otlp {
    endpoint: Option<String>,
    protocol: Option<Protocol>,
    headers: Vec<(String, String)>,
    timeout: Option<Duration>,
    gzip: Option<bool>,
}

impl Otlp {
    /// Where to send to, with its scheme. Over HTTP, `/v1/traces` is appended to a URL without a path.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Which protocol to speak.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Adds a header to every request. It replaces one of the environment with the same name.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// How long one request may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether requests are compressed.
    pub fn gzip(mut self, gzip: bool) -> Self {
        self.gzip = Some(gzip);
        self
    }

    /// Completes the settings from the environment, and judges them.
    pub(crate) fn resolve(self, env: &Env) -> Result<Resolved, OtlpError> {
        settings::resolve(self, env)
    }
}
