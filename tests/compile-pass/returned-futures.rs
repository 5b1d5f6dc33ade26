//! The attribute on functions that return a future, however they make it.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use std::cell::Cell;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;

use journey_layer::tracing::Span;
use journey_layer::{journey_event, journey_span};
use support::{block_on, printed};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type BoxFuture<'a, T> = Boxed<'a, T>;

fn inside() -> bool {
    Span::current().metadata().is_some_and(|metadata| metadata.name() == "llm_request")
}

#[journey_span(scope = "vllm.api", request_id = id)]
fn block(id: &str) -> impl Future<Output = Result<u32, std::num::ParseIntError>> {
    async move {
        assert!(inside());
        let number: u32 = id.parse()?;
        Ok(number + 1)
    }
}

#[journey_span(scope = "vllm.api")]
fn boxed_block<'a>(id: &'a str) -> Pin<Box<dyn Future<Output = &'a str> + Send + 'a>> {
    Box::pin(async move {
        assert!(inside());
        if id.is_empty() {
            return "empty";
        }
        id
    })
}

#[journey_span(scope = "vllm.api", request_id = id)]
fn prepared(id: String) -> impl Future<Output = usize> + Send {
    assert!(inside());
    let id = id + "!";
    async move {
        assert!(inside());
        id.len()
    }
}

#[journey_span(scope = "vllm.api", err(Debug))]
fn prepared_boxed(id: &str) -> Pin<Box<dyn Future<Output = Result<usize, ()>> + Send + '_>> {
    if id.is_empty() {
        return Box::pin(async { Err(()) });
    }
    let length = id.len();
    Box::pin(ready(Ok(length)))
}

#[journey_span(scope = "vllm.api")]
fn aliased(id: &str) -> BoxFuture<'_, usize> {
    let future = async {
        assert!(inside());
        id.len()
    };
    Box::pin(future)
}

#[journey_span(scope = "vllm.api")]
fn unknown_alias(id: &str) -> Boxed<'_, usize> {
    Box::pin(async {
        assert!(inside());
        id.len()
    })
}

#[journey_span(scope = "vllm.api", err)]
fn fails(id: &str) -> impl Future<Output = Result<(), std::fmt::Error>> + use<'_> {
    let empty = id.is_empty();
    async move { if empty { Err(std::fmt::Error) } else { Ok(()) } }
}

#[journey_span(scope = "vllm.api")]
fn not_send(shared: Rc<Cell<u32>>) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        ready(()).await;
        shared.set(shared.get() + 1);
    })
}

/// The type says nothing of a future: the span is that of making it.
#[journey_span(scope = "vllm.api")]
fn named() -> Ready<bool> {
    ready(inside())
}

fn sends<T: Send>(future: T) -> T {
    future
}

fn main() {
    let output = printed(|| {
        assert_eq!(block_on(sends(block("7"))), Ok(8));
        assert!(block_on(block("x")).is_err());
        assert_eq!(block_on(sends(boxed_block(""))), "empty");
        assert_eq!(block_on(sends(prepared("ab".into()))), 3);
        assert_eq!(block_on(sends(prepared_boxed("ab"))), Ok(2));
        assert_eq!(block_on(prepared_boxed("")), Err(()));
        assert_eq!(block_on(sends(aliased("ab"))), 2);
        assert_eq!(block_on(sends(unknown_alias("ab"))), 2);
        assert_eq!(block_on(sends(fails(""))), Err(std::fmt::Error));
        let shared = Rc::new(Cell::new(0));
        block_on(not_send(shared.clone()));
        assert_eq!(shared.get(), 1);
        assert!(block_on(named()));
        assert!(!inside());
        journey_event!(QUEUED);
    });
    assert_eq!(output.matches("llm_request").count(), 11 + 2, "{output}");
    assert_eq!(output.matches("api.ABORTED").count(), 2, "{output}");
}
