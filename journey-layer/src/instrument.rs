//! How a function's body runs inside its journey span, and how the layer learns the way it ended.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tracing::Span;

use crate::__private::with_layer;
use crate::lifecycle::Ending;

pin_project! {
    /// A future inside a journey span: the expansion of `#[journey_span]` on an `async fn`.
    ///
    /// Dropped before it completes, its span ends as `cancelled`; ended by a panic, as `panic`.
    #[must_use = "futures do nothing unless polled"]
    pub struct Instrumented<F> {
        span: Span,
        #[pin]
        inner: Option<F>,
    }

    impl<F> PinnedDrop for Instrumented<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.inner.is_some() {
                mark(this.span, if std::thread::panicking() { Ending::Panicked } else { Ending::Cancelled });
                // What the future holds is dropped inside its span, like the rest of its code.
                let _entered = enter(this.span);
                this.inner.set(None);
            }
        }
    }
}

/// Runs `future` inside `span`.
pub fn instrument<F: Future>(span: Span, future: F) -> Instrumented<F> {
    Instrumented { span, inner: Some(future) }
}

impl<F: Future> Future for Instrumented<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let _entered = enter(this.span);
        let inner = this.inner.as_mut().as_pin_mut().expect("a future is not polled after it completed");
        let output = ready!(inner.poll(cx));
        this.inner.set(None);
        Poll::Ready(output)
    }
}

/// The scope of a `fn` with `#[journey_span]`: the span is entered until it drops.
pub struct Entered<'a> {
    span: &'a Span,
    panicking: bool,
    _entered: tracing::span::Entered<'a>,
}

/// Enters `span` for the rest of the function.
pub fn enter(span: &Span) -> Entered<'_> {
    Entered { span, panicking: std::thread::panicking(), _entered: span.enter() }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.panicking && std::thread::panicking() {
            mark(self.span, Ending::Panicked);
        }
    }
}

/// Tells the layer how the code around `span` ended, for the case that it closes without a terminal event.
pub(crate) fn mark(span: &Span, ending: Ending) {
    with_layer(span, |layer, id| layer.mark(id, ending));
}
