//! The attribute on `async fn`.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use std::fmt::{Debug, Display};
use std::rc::Rc;

use journey_layer::{journey_event, journey_span};
use support::block_on;

#[journey_span(scope = "vllm.api", request_id = %id)]
async fn borrows<'a>(id: &'a str, rest: &str) -> (&'a str, usize) {
    journey_event!(ARRIVED);
    std::future::ready(()).await;
    (id, rest.len())
}

/// Types follow from the signature, as without the attribute.
#[journey_span(scope = "vllm.api")]
async fn infers(text: &str) -> Result<Vec<u32>, Box<dyn std::error::Error + Send + Sync>> {
    if text.is_empty() {
        return Err("empty".into());
    }
    let number = text.parse()?;
    Ok([number].into_iter().collect())
}

#[journey_span(scope = "vllm.api")]
async fn coerces(yes: bool) -> Box<dyn Display + Send> {
    if yes {
        return Box::new(1);
    }
    Box::new("a")
}

#[journey_span(scope = "vllm.api")]
async fn returns_impl<T: Debug + Send>(value: T) -> impl Debug + Send {
    (value, 1)
}

#[journey_span(scope = "vllm.api")]
async fn not_send(shared: Rc<u32>) -> Rc<u32> {
    std::future::ready(()).await;
    shared
}

#[journey_span(scope = "vllm.api")]
async fn unit(mut left: u32, _unused: String) {
    while left > 0 {
        left -= 1;
    }
}

#[journey_span(scope = "vllm.api")]
async fn never() -> ! {
    loop {
        std::future::pending::<()>().await
    }
}

#[journey_span(scope = "vllm.api")]
async unsafe fn unsafely(pointer: *const u32) -> u32 {
    // SAFETY: the caller gives a valid pointer.
    unsafe { *pointer }
}

fn sends<T: Send>(future: T) -> T {
    future
}

fn main() {
    assert_eq!(block_on(sends(borrows("a", "bc"))), ("a", 2));
    assert_eq!(block_on(sends(infers("7"))).expect("a number"), [7]);
    assert!(block_on(infers("x")).is_err());
    assert_eq!(block_on(sends(coerces(true))).to_string(), "1");
    assert_eq!(format!("{:?}", block_on(sends(returns_impl(2)))), "(2, 1)");
    assert_eq!(*block_on(not_send(Rc::new(3))), 3);
    block_on(sends(unit(2, String::new())));
    drop(sends(never()));
    // SAFETY: a reference is a valid pointer.
    assert_eq!(block_on(unsafe { unsafely(&7) }), 7);
}
