//! Streaming responses: the journey belongs to the body, not to the handler that returned it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;
use tracing::Span;

use crate::__private::{Event, with_layer};
#[cfg(feature = "http")]
use crate::__private::{SpanName, failed};
use crate::instrument::{enter, mark};
use crate::lifecycle::Ending;
use crate::macros::journey_event;

/// Keeps a journey span for as long as a stream, a response body or a future lives.
///
/// ```
/// use journey_layer::{InJourney, macros::*};
///
/// # fn response(stream: impl futures_core::Stream<Item = u32> + 'static) -> impl futures_core::Stream<Item = u32> {
/// let span = journey_span!(scope = "vllm.api");
/// journey_event!(&span, ARRIVED);
/// // DEPARTED when the stream has ended; ABORTED (client_disconnect) when it is dropped before.
/// stream.in_journey(span)
/// # }
/// ```
pub trait InJourney: Sized {
    /// Polls `self` inside `span` and ends the span with it.
    ///
    /// For an `llm_request` that has no terminal event by then:
    ///
    /// - a stream or a body that is read to its end emits `api.DEPARTED`;
    /// - a body that yields an error emits `api.ABORTED` with `generation_error` and the error's text;
    /// - dropped before its end, a stream or a body ends the span as `client_disconnect`, a future as `cancelled`;
    /// - a panic while it is polled ends the span as `panic`.
    ///
    /// A future that completes emits nothing: its span ends when its last handle goes.
    fn in_journey(self, span: Span) -> Journeyed<Self> {
        Journeyed { span, ended: AtomicBool::new(false), dropped: Ending::ClientDisconnect, inner: Some(self) }
    }
}

impl<T> InJourney for T {}

pin_project! {
    /// A stream, body or future inside a journey span; made by [`InJourney::in_journey`].
    #[must_use = "streams and futures do nothing unless polled"]
    pub struct Journeyed<T> {
        span: Span,
        // Atomic because `Body::is_end_stream` may be the last that is ever asked, and asks by `&self`.
        ended: AtomicBool,
        dropped: Ending,
        #[pin]
        inner: Option<T>,
    }

    impl<T> PinnedDrop for Journeyed<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if !this.ended.load(Relaxed) {
                mark(this.span, if std::thread::panicking() { Ending::Panicked } else { *this.dropped });
            }
            let _entered = enter(this.span);
            this.inner.set(None);
        }
    }
}

/// The response was read to its end.
fn departed(span: &Span, ended: &AtomicBool) {
    if !ended.swap(true, Relaxed) && owes_terminal(span) {
        journey_event!(span, DEPARTED);
    }
}

/// Whether the span is an `llm_request` that has not ended.
fn owes_terminal(span: &Span) -> bool {
    let is_request = span.metadata().is_some_and(|metadata| metadata.name() == Event::Departed.span().name());
    is_request && with_layer(span, |layer, id| layer.is_open(id)).unwrap_or(true)
}

impl<S: Stream> Stream for Journeyed<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        let _entered = enter(this.span);
        let inner = this.inner.as_mut().as_pin_mut().expect("only a drop takes the stream away");
        let item = ready!(inner.poll_next(cx));
        if item.is_none() {
            departed(this.span, this.ended);
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), Stream::size_hint)
    }
}

impl<F: Future> Future for Journeyed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        *this.dropped = Ending::Cancelled;
        let _entered = enter(this.span);
        let inner = this.inner.as_mut().as_pin_mut().expect("a future is not polled after it completed");
        let output = ready!(inner.poll(cx));
        this.ended.store(true, Relaxed);
        Poll::Ready(output)
    }
}

#[cfg(feature = "http")]
impl<B> http_body::Body for Journeyed<B>
where
    B: http_body::Body,
    B::Error: std::fmt::Display,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let _entered = enter(this.span);
        let mut inner = this.inner.as_mut().as_pin_mut().expect("only a drop takes the body away");
        let frame = ready!(inner.as_mut().poll_frame(cx));
        match &frame {
            Some(Err(error)) => {
                if !this.ended.swap(true, Relaxed) && owes_terminal(this.span) {
                    failed(this.span, SpanName::LlmRequest, error);
                }
            }
            None => departed(this.span, this.ended),
            // A server need not ask for another frame once the body says that there is none.
            Some(Ok(_)) if inner.is_end_stream() => departed(this.span, this.ended),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let end = self.inner.as_ref().is_none_or(http_body::Body::is_end_stream);
        if end {
            departed(&self.span, &self.ended);
        }
        end
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}
