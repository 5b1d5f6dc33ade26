//! Every form of the macros in a crate that depends on nothing but `journey-layer`, under lints as strict as anyone's.
#![forbid(unsafe_code)]
#![warn(clippy::pedantic, clippy::nursery)]
#![warn(unused_qualifications, unused_results, single_use_lifetimes, trivial_casts, variant_size_differences)]

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use journey_layer::tracing::Span;
use journey_layer::{FinishStatus, Progress, journey_event, journey_record, journey_span, macros};

/// An error of the engine.
#[derive(Debug)]
pub struct EngineError;

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the engine failed")
    }
}

impl std::error::Error for EngineError {}

/// A request as the API server sees it.
#[derive(Debug)]
pub struct Request {
    id: String,
    headers: HashMap<String, String>,
    temperature: Option<f64>,
}

impl Request {
    /// A request without parameters.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), headers: HashMap::new(), temperature: None }
    }

    /// Handles the request.
    ///
    /// # Errors
    /// When the engine fails.
    #[journey_span(
        scope = "vllm.api",
        request_id = self.id,
        headers = &self.headers,
        temperature = self.temperature,
        fields(http.route = "/v1/completions", gen_ai.request.n = 1),
        err,
    )]
    pub async fn handle(&mut self, prompt: &str) -> Result<String, EngineError> {
        journey_event!(ARRIVED);
        journey_record!(prompt_tokens = prompt.len(), model = "tiny");
        if prompt.is_empty() {
            return Err(EngineError);
        }
        let text = generate(&self.id, prompt).await?;
        journey_event!(FIRST_RESPONSE_FROM_CORE);
        journey_event!(DEPARTED);
        Ok(text)
    }

    /// Validates the request.
    ///
    /// # Errors
    /// When it has no id.
    #[journey_span(scope = "vllm.api", request_id = %self.id, err)]
    pub fn validate(&mut self) -> Result<&mut Self, EngineError> {
        if self.id.is_empty() {
            journey_event!(ABORTED, reason = validation_error, error = %EngineError);
            Err(EngineError)?;
        }
        Ok(self)
    }
}

#[journey_span(scope = "vllm.scheduler", request_id = ?id, err(Debug))]
fn generate<'a>(
    id: &'a str,
    prompt: &'a str,
) -> Pin<Box<dyn Future<Output = Result<String, EngineError>> + Send + 'a>> {
    Box::pin(async move {
        journey_event!(QUEUED, ..Progress::new().prefill(0, prompt.len() as u64));
        journey_event!(SCHEDULED, kind = FIRST, step = 1);
        journey_event!(FINISHED, status = stopped);
        Ok(prompt.to_uppercase())
    })
}

/// Counts what is left.
#[journey_span(scope = "vllm.scheduler", name = "model_forward")]
pub fn forward<T>(items: impl IntoIterator<Item = T>) -> impl Future<Output = usize>
where
    T: Clone,
{
    let count = items.into_iter().count();
    async move { count }
}

/// A sequence in the scheduler.
#[derive(Debug)]
pub struct Sequence {
    span: Span,
    status: Option<FinishStatus>,
}

impl Sequence {
    /// A sequence that waits.
    #[must_use]
    pub fn new(id: &str, carrier: &HashMap<String, String>) -> Self {
        let span = macros::journey_span!(scope = "vllm.scheduler", request_id = id, carrier = carrier);
        journey_event!(&span, QUEUED);
        Self { span, status: None }
    }

    /// One step of the scheduler.
    #[journey_span(scope = "vllm.scheduler", name = "scheduler_step", parent = &self.span)]
    pub fn step(&mut self, step: u64) {
        journey_event!(self.span, SCHEDULED, step = step);
        let status = *self.status.get_or_insert(FinishStatus::Length);
        journey_event!(&self.span, FINISHED, status = (status), ..Progress::new().step(step));
        journey_event!(BATCH_SUMMARY, step_id = step, kv.usage_gpu_ratio = 0.5);
        journey_record!(&self.span, request_id = format!("{step}"));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_user_needs_no_other_dependency() {
        let mut request = Request::new("cmpl-1");
        assert!(request.validate().is_ok());
        assert!(matches!(poll(request.handle("hi")), Poll::Ready(Ok(text)) if text == "HI"));
        assert!(matches!(poll(request.handle("")), Poll::Ready(Err(EngineError))));
        assert_eq!(poll(forward([1, 2])), Poll::Ready(2));
        let mut sequence = Sequence::new("cmpl-1-a", &HashMap::new());
        sequence.step(1);
        assert_eq!(sequence.status, Some(FinishStatus::Length));
    }
}

/// The README's example compiles, with the one dependency that it speaks of.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
