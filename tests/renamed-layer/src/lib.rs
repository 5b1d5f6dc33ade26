//! Every macro in a crate where `::journey_layer` leads nowhere: `crate = journey` is all they go by.

use journey::{journey_span, macros::*, tracing::Span, Progress};

/// Handles one request.
///
/// # Errors
/// When the text is empty.
#[journey_span(crate = journey, scope = "vllm.api", request_id = id, err)]
pub async fn handle(id: &str, text: &str) -> Result<usize, std::fmt::Error> {
    journey_event!(ARRIVED, crate = journey);
    journey_record!(crate = journey, prompt_tokens = text.len());
    if text.is_empty() {
        return Err(std::fmt::Error);
    }
    Ok(text.len())
}

/// Opens the span of a sequence and ends it.
#[must_use]
pub fn sequence(id: Option<&str>) -> Span {
    let span = journey_span!(scope = "vllm.scheduler", request_id = id, crate = ::journey);
    journey_event!(&span, FINISHED, crate = journey, status = length, ..Progress::new());
    journey_record!(&span, request_id = "other", crate = journey);
    span
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_layer_may_go_by_another_name() {
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(handle("a", "text")).poll(&mut context), Poll::Ready(Ok(4)));
        assert!(sequence(Some("a")).is_none(), "there is no subscriber");
    }
}
