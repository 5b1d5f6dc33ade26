//! Expansions lean on no name that the user may have taken.
#![deny(warnings)]

use journey_layer::{journey_span, macros::*};

mod tracing {}
mod journey_schema {}
mod core {}
mod std {}

struct Span;
struct Result;
struct Option;
struct Box;
enum Level {}

#[allow(non_snake_case, reason = "a name that shadows the prelude's")]
fn Some(_: u32) {}

#[allow(non_snake_case, reason = "a name that shadows the prelude's")]
fn Err(_: u32) {}

/// The names of the arguments are free as well.
#[journey_span(scope = "vllm.api", request_id = span, n = parent, err)]
fn function(span: &str, parent: u32, scope: u32) -> ::std::result::Result<u32, ::std::fmt::Error> {
    let (enter, instrument, meta, interest) = (1, 2, 3, 4);
    journey_event!(ABORTED, reason = timeout, error = span);
    journey_record!(prompt_tokens = meta, completion_tokens = interest);
    ::std::result::Result::Ok(enter + instrument + parent + scope)
}

#[journey_span(scope = "vllm.api")]
async fn asynchronous() -> ::std::option::Option<u32> {
    ::std::option::Option::None
}

fn main() {
    function("a", 1, 2).ok();
    drop(asynchronous());
    Some(1);
    Err(1);
    let _: (Span, Result, Option, Box) = (Span, Result, Option, Box);
    let _ = ::std::option::Option::<Level>::None;
}
