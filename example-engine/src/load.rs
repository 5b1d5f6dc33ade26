//! A client of the API, for `demo` and `bench`: real HTTP, streaming or not.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::causes::with_causes;

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    api_key: Option<String>,
}

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The connection failed, or broke.
    #[error("{}", with_causes(&.0.to_string(), .0))]
    Http(#[from] reqwest::Error),
    /// The server refused.
    #[error("status {status}: {body}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The body.
        body: String,
    },
    /// The stream ended without `[DONE]`, or is not JSON.
    #[error("broken stream: {0}")]
    Stream(String),
}

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// The system gives no client.
    pub fn new(url: &str, api_key: Option<String>) -> Result<Self, LoadError> {
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), api_key })
    }

    /// A `POST` of a body to a route, to be sent.
    pub fn post(&self, route: &str, body: String) -> RequestBuilder {
        let request = self.http.post(format!("{}{route}", self.url)).header("content-type", "application/json");
        let request = match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.body(body)
    }

    /// Sends a request, and reads its answer as events.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn stream(&self, route: &str, body: &Value) -> Result<Events, LoadError> {
        let response = accepted(self.post(route, body.to_string()).send().await?).await?;
        Ok(Events { body: response.bytes_stream().boxed(), buffer: Vec::new() })
    }

    /// Sends a request, and reads its answer whole.
    ///
    /// # Errors
    /// No answer, a refusal, or no JSON.
    pub async fn whole(&self, route: &str, body: &Value) -> Result<Value, LoadError> {
        Ok(accepted(self.post(route, body.to_string()).send().await?).await?.json().await?)
    }
}

async fn accepted(response: Response) -> Result<Response, LoadError> {
    let status = response.status();
    match status.is_success() {
        true => Ok(response),
        false => Err(LoadError::Status { status, body: response.text().await? }),
    }
}

/// The chunks of a streamed answer. Dropping it closes the connection.
pub struct Events {
    body: BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next chunk; `None` after `[DONE]`.
    ///
    /// # Errors
    /// The stream broke, or brought an error.
    pub async fn next(&mut self) -> Result<Option<Value>, LoadError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&event);
                // A comment keeps the connection alive, and has no data.
                let Some(data) = text.lines().find_map(|line| line.strip_prefix("data:")) else { continue };
                let data = data.trim();
                if data == "[DONE]" {
                    return Ok(None);
                }
                let chunk: Value = serde_json::from_str(data).map_err(|error| LoadError::Stream(error.to_string()))?;
                return match chunk.get("error") {
                    Some(error) => Err(LoadError::Stream(error["message"].as_str().unwrap_or(data).to_owned())),
                    None => Ok(Some(chunk)),
                };
            }
            match self.body.next().await {
                Some(bytes) => self.buffer.extend_from_slice(&bytes?),
                None => return Err(LoadError::Stream("it ended without [DONE]".to_owned())),
            }
        }
    }
}

/// Whether a chunk brought text.
pub fn has_text(chunk: &Value) -> bool {
    let choice = &chunk["choices"][0];
    let text = choice["text"].as_str().or_else(|| choice["delta"]["content"].as_str());
    text.is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_said_to_refuse_the_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        drop(listener);
        let client = Client::new(&url, None).expect("a client");
        let error = client.whole("/v1/models", &Value::Null).await.expect_err("nobody listens").to_string();
        assert!(error.contains(&url) && error.to_lowercase().contains("connection refused"), "{error}");
    }
}
