//! The macros of `journey-layer`.
#![forbid(unsafe_code)]

mod args;
mod bind;
mod expand_event;
mod expand_fn;
mod expand_record;
mod expand_span;
mod fallback;
mod function;
mod valid;

use proc_macro::TokenStream;

/// Opens a journey span around a function.
#[proc_macro_attribute]
pub fn journey_span(args: TokenStream, item: TokenStream) -> TokenStream {
    expand_fn::expand(args.into(), item.into()).into()
}

/// Opens a journey span.
#[proc_macro]
pub fn journey_span_expr(input: TokenStream) -> TokenStream {
    expand_span::expand(input.into()).into()
}

/// Emits a lifecycle event.
#[proc_macro]
pub fn journey_event(input: TokenStream) -> TokenStream {
    expand_event::expand(input.into()).into()
}

/// Sets attributes on a journey span.
#[proc_macro]
pub fn journey_record(input: TokenStream) -> TokenStream {
    expand_record::expand(input.into()).into()
}
