//! Requests that are dropped at every await point that there is: both spans end, each once, for the right reason.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use journey_layer::testing::{self, CapturedSpan};
use journey_layer::tracing::Span;
use journey_layer::{InJourney, handoff, journey_span, macros::*};

/// Ready at the second poll: one await point.
#[derive(Default)]
struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Two tokens, each after a pause, from a sequence that is the stream's own.
struct Tokens {
    sequence: Span,
    left: usize,
    pause: Pause,
}

impl Stream for Tokens {
    type Item = usize;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        if Pin::new(&mut self.pause).poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.pause = Pause::default();
        match self.left {
            0 => Poll::Ready(None),
            left => {
                if left == 2 {
                    journey_event!(&self.sequence, FIRST_TOKEN);
                    journey_event!(FIRST_RESPONSE);
                } else {
                    journey_event!(&self.sequence, FINISHED, status = length);
                }
                self.left -= 1;
                Poll::Ready(Some(left))
            }
        }
    }
}

#[journey_span(scope = "vllm.scheduler", carrier = &handoff(&Span::current()))]
async fn schedule() -> Span {
    journey_event!(QUEUED);
    Pause::default().await;
    journey_event!(SCHEDULED);
    Pause::default().await;
    Span::current()
}

#[test]
fn a_request_ends_when_it_is_dropped_however_long_its_children_live() {
    let capture = testing::capture();
    let dropped_request = || {
        let span = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
        journey_event!(&span, ARRIVED);
        let core = journey_span!(scope = "vllm.scheduler", parent = &span, request_id = "cmpl-1-0");
        assert!(!poll_and_drop(std::future::pending::<()>().in_journey(span), 1));
        core
    };
    // The client tries again before the engine has heard that it was gone.
    let cores = [dropped_request(), dropped_request()];
    std::thread::sleep(Duration::from_millis(500));
    drop(cores);
    let (stats, spans) = (capture.stats(), capture.spans());
    assert_eq!((stats.spans.rejected(), stats.spans.exported), (0, 4), "{stats}");
    for request in spans.iter().filter(|span| span.name == "llm_request") {
        assert_eq!(ending(request), ("api.ABORTED", "cancelled".to_owned()));
        assert!(request.duration() < Duration::from_millis(400), "{:?}", request.duration());
    }

    // A part of it is dropped, and the rest goes on.
    let span = journey_span!(scope = "vllm.api", request_id = "cmpl-2");
    assert!(!poll_and_drop(std::future::pending::<()>().in_journey(span.clone()), 1));
    journey_event!(&span, ARRIVED);
    std::thread::sleep(Duration::from_millis(20));
    drop(span);
    let spans = capture.spans();
    assert!(spans[4].duration() >= Duration::from_millis(20), "{:?}", spans[4].duration());
}

#[test]
fn a_panic_that_is_caught_before_the_future_is_dropped_stays_one() {
    let capture = testing::capture();
    let span = journey_span!(scope = "vllm.api", request_id = "cmpl-1");
    let mut request = Box::pin(async { panic!("as the test wants it") }.in_journey(span.clone()));
    drop(span);
    let poll = std::panic::AssertUnwindSafe(|| request.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    assert!(std::panic::catch_unwind(poll).is_err());
    drop(request);
    let aborted = capture.span("llm_request");
    assert_eq!(aborted.event("api.ABORTED").attribute("reason"), Some(&"panic".into()));
}

/// A handler whose answer is one value.
#[journey_span(scope = "vllm.api", request_id = %id)]
async fn completion(id: &str) {
    journey_event!(ARRIVED);
    Pause::default().await;
    let sequence = schedule().await;
    journey_event!(HANDOFF_TO_CORE);
    Pause::default().await;
    journey_event!(&sequence, FINISHED, status = stopped);
    journey_event!(FIRST_RESPONSE);
    Pause::default().await;
    journey_event!(DEPARTED);
    Pause::default().await;
}

/// A handler whose answer is a stream, which the journey goes on with.
async fn streaming(id: &str) -> impl Stream<Item = usize> + use<> {
    let span = journey_span!(scope = "vllm.api", request_id = %id);
    let handler = async {
        journey_event!(ARRIVED);
        Pause::default().await;
        let sequence = schedule().await;
        journey_event!(HANDOFF_TO_CORE);
        Pause::default().await;
        Tokens { sequence, left: 2, pause: Pause::default() }
    };
    handler.in_journey(span.clone()).await.in_journey(span)
}

/// Polls at most `polls` times, then drops. Returns whether the future completed.
fn poll_and_drop(future: impl Future, polls: usize) -> bool {
    let mut future = pin!(future);
    (0..polls).any(|_| future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready())
}

/// The terminal event of a span and what it says; there is one, and it is the last.
#[track_caller]
fn ending(span: &CapturedSpan) -> (&'static str, String) {
    let terminal = |name: &str| ["api.DEPARTED", "api.ABORTED", "journey.FINISHED"].contains(&name);
    let names = span.event_names();
    assert_eq!(names.iter().filter(|name| terminal(name)).count(), 1, "{} {names:?}", span.name);
    let last = span.events.last().expect("a terminal event");
    assert!(terminal(last.name), "{names:?}");
    let why = last.attribute("reason").or(last.attribute("finish.status"));
    (last.name, why.map(ToString::to_string).unwrap_or_default())
}

/// Runs `request` up to the k-th poll for every k until it completes; `judge` is told how often it was polled.
fn at_every_poll<F: Future>(request: impl Fn() -> F, judge: impl Fn(&[CapturedSpan])) -> usize {
    for polls in 0.. {
        let capture = testing::capture();
        let completed = poll_and_drop(request(), polls);
        let (stats, spans) = (capture.stats(), capture.spans());
        assert!(stats.balances() && stats.spans.live == 0 && stats.spans.dropped() == 0, "{polls} polls: {stats}");
        assert_eq!(spans.len() as u64, stats.spans.started, "{polls} polls");
        if completed {
            return polls;
        }
        assert_eq!(spans.is_empty(), polls == 0, "a future that was never polled has not begun");
        judge(&spans);
    }
    unreachable!("it completes at some poll")
}

/// The request's ending and, if there is one, the sequence's.
fn endings(spans: &[CapturedSpan]) -> ((&'static str, String), Option<(&'static str, String)>) {
    let find = |name: &str| spans.iter().find(|span| span.name == name);
    (ending(find("llm_request").expect("a request")), find("llm_core").map(ending))
}

fn said(name: &'static str, why: &str) -> (&'static str, String) {
    (name, why.to_owned())
}

#[test]
fn a_handler_that_is_dropped_at_any_await_point_ends_both_spans_as_cancelled() {
    let polls = at_every_poll(
        || completion("cmpl-1"),
        |spans| {
            let Some(departed) = spans.iter().find(|span| span.name == "llm_request") else { return };
            let (request, core) = endings(spans);
            let was_finished = departed.event_names().contains(&"api.FIRST_RESPONSE_FROM_CORE");
            if departed.event_names().contains(&"api.DEPARTED") {
                // Dropped behind its end: that was the end.
                assert_eq!((request, core), (said("api.DEPARTED", ""), Some(said("journey.FINISHED", "stopped"))));
            } else {
                assert_eq!(request, said("api.ABORTED", "cancelled"));
                let status = if was_finished { "stopped" } else { "aborted" };
                assert!(core.is_none_or(|core| core == said("journey.FINISHED", status)), "{status}");
            }
        },
    );
    assert_eq!(polls, 7, "six pauses");
}

#[test]
fn a_streaming_handler_that_is_dropped_before_it_answers_ends_both_spans_as_cancelled() {
    let polls = at_every_poll(
        || streaming("cmpl-1"),
        |spans| {
            if spans.is_empty() {
                return;
            }
            let (request, core) = endings(spans);
            assert_eq!(request, said("api.ABORTED", "cancelled"));
            assert!(core.is_none_or(|core| core == said("journey.FINISHED", "aborted")));
        },
    );
    assert_eq!(polls, 5, "four pauses");
}

#[test]
fn a_body_that_is_dropped_at_any_poll_ends_both_spans_for_the_client_that_went() {
    let read_all = 2 * 3;
    for polls in 0..=read_all {
        let capture = testing::capture();
        let mut handler = Box::pin(streaming("cmpl-1"));
        let body = loop {
            if let Poll::Ready(body) = handler.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break body;
            }
        };
        drop(handler);
        let mut body = Box::pin(body);
        let mut tokens = 0;
        for _ in 0..polls {
            if let Poll::Ready(Some(_)) = body.as_mut().poll_next(&mut Context::from_waker(Waker::noop())) {
                tokens += 1;
            }
        }
        drop(body);
        let (request, core) = endings(&capture.spans());
        let expected =
            if polls == read_all { said("api.DEPARTED", "") } else { said("api.ABORTED", "client_disconnect") };
        assert_eq!(request, expected, "{polls} polls");
        let status = if tokens == 2 { "length" } else { "aborted" };
        assert_eq!(core, Some(said("journey.FINISHED", status)), "{polls} polls");
        let stats = capture.stats();
        assert!(stats.balances() && stats.spans.live == 0, "{polls} polls: {stats}");
    }
}
