//! OTLP over HTTP/protobuf.

use std::io::Write;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

use crate::error::BuildError;
use crate::export::batch::Item;
use crate::export::lane::{Attempt, Failure, Outcome, Remote};
use crate::export::otlp::Resolved;
use crate::export::otlp::client::{USER_AGENT, accepted, chain, header_map, no_answer};
use crate::export::otlp::encode::Encoder;

pub(crate) struct Http {
    client: Client,
    url: String,
    headers: HeaderMap,
    timeout: Duration,
    gzip: bool,
    encoder: Encoder,
}

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

impl Http {
    pub(crate) fn new(settings: Resolved, encoder: Encoder) -> Result<Self, BuildError> {
        let mut headers = header_map(&settings.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if settings.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // A redirected POST would arrive as a GET.
        let client = Client::builder().user_agent(USER_AGENT).redirect(Policy::none());
        #[cfg(feature = "tls")]
        let client = super::tls::with_certificates(client, &settings.certificates)?;
        Ok(Self {
            client: client.build().map_err(|error| BuildError::Exporter(chain(&error)))?,
            url: settings.url,
            headers,
            timeout: settings.timeout,
            gzip: settings.gzip,
            encoder,
        })
    }
}

impl Remote for Http {
    fn encode(&mut self, items: &[Item]) -> Bytes {
        self.encoder.encode(items)
    }

    fn prepare(&self, request: Bytes) -> Attempt {
        let body = if self.gzip { Bytes::from(compress(&request)) } else { request };
        let (client, url, headers, timeout) =
            (self.client.clone(), self.url.clone(), self.headers.clone(), self.timeout);
        Box::new(move || {
            let request = client.post(&url).headers(headers.clone()).body(body.clone());
            Box::pin(async move {
                let exchange = async {
                    let response = request.send().await.map_err(|error| {
                        let message = chain(&error.without_url());
                        Failure::transient(message)
                    })?;
                    judge(response).await
                };
                tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(no_answer(timeout)))
            })
        })
    }
}

fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing to memory")
}

/// What the answer says, by the OTLP specification ("OTLP/HTTP Response").
async fn judge(response: Response) -> Outcome {
    let status = response.status();
    if status.is_success() {
        let body = read(response).await?;
        // An answer that cannot be read is still a 2xx: the receiver has the spans.
        return Ok(accepted(ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default()));
    }
    let message = format!("the receiver answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = response.headers().get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
            Err(Failure::Transient { message, after })
        }
        _ => Err(Failure::permanent(message)),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::transient(chain(&error.without_url())))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}

/// `Retry-After`: seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(retry_after(&later).is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(retry_after("soon"), None);
    }
}
