//! Arguments are evaluated once and in order, and not at all where nobody listens.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::HashMap;

use journey_layer::tracing::Span;
use journey_layer::{FinishStatus, Progress, journey_span, macros::*};
use support::{block_on, filtered, printed};

thread_local! {
    static EVALUATED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

fn note<T>(name: &'static str, value: T) -> T {
    EVALUATED.with_borrow_mut(|evaluated| evaluated.push(name));
    value
}

fn evaluated() -> String {
    EVALUATED.take().join(" ")
}

#[journey_span(scope = "vllm.api", request_id = note("id", "a"), n = note("n", 1), err)]
fn function() -> Result<(), String> {
    Ok(())
}

#[journey_span(scope = "vllm.api", request_id = %note("id", "a"), headers = note("headers", HashMap::<String, String>::new()))]
async fn async_function() {}

fn arguments(span: &Span) {
    function().expect("it returns `Ok`");
    block_on(async_function());
    drop(journey_span!(
        scope = "vllm.api",
        temperature = note("temperature", 1.0),
        parent = note("parent", span),
        request_id = ?note("id", String::new()),
    ));
    journey_event!(
        note("span", span),
        FINISHED,
        step = note("step", 1),
        status = note("status", FinishStatus::Length),
        ..note("progress", Progress::new())
    );
    journey_event!(ABORTED, error = %note("error", "e"), reason = timeout);
    journey_record!(note("span", span), n = note("n", 1), model = note("model", String::new()));
    let _entered = span.enter();
    journey_record!(n = note("n", 1), prompt_tokens = note("prompt_tokens", None::<u32>));
}

/// What tells whether anybody listens is evaluated to find that out.
const DECISIVE: &str = "headers parent span span";

fn main() {
    printed(|| {
        let span = journey_span!(scope = "vllm.api");
        arguments(&span);
    });
    assert_eq!(
        evaluated(),
        "id n headers id parent temperature id span step status progress error span n model n prompt_tokens"
    );

    arguments(&Span::none());
    assert_eq!(evaluated(), DECISIVE, "without a subscriber");

    filtered("info,vllm.api=off,vllm.scheduler=off", || arguments(&Span::none()));
    assert_eq!(evaluated(), DECISIVE, "with our targets switched off");

    filtered("warn", || arguments(&Span::none()));
    assert_eq!(evaluated(), "", "with our level switched off");

    printed(|| {
        let disabled = Span::none();
        journey_event!(&disabled, FINISHED, status = note("status", FinishStatus::Length));
        journey_record!(&disabled, n = note("n", 1));
        journey_record!(n = note("n", 1));
    });
    assert_eq!(evaluated(), "", "on a span that is switched off, and outside any");
}
