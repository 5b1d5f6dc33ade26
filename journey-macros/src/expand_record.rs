//! `journey_record!`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::args::RecordCall;
use crate::bind::{bind, bind_reference, variant};
use crate::fallback;
use crate::valid::RecordArgs;

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    match syn::parse2::<RecordCall>(input).and_then(RecordArgs::new) {
        Ok(args) => record(&args),
        Err(error) => fallback::unit(error),
    }
}

// Input:
//     prompt_tokens = n
//
// Output:
//     if level_enabled!(Level::INFO) {
//         if let Some(__journey_span) = enclosing(&[SpanName::LlmRequest]) {
//             match (value::Int::int(&n),) {
//                 (__journey_prompt_tokens,) => {
//                     __journey_span.record("gen_ai.usage.prompt_tokens", &__journey_prompt_tokens.value);
//                 }
//             }
//         }
//     }
//
// With a span, `match &span { .. }` and `if wants(..)` stand where `enclosing` does. The attributes are handed to the
// layer directly where that is alone,
//     if !record(__journey_span, |__journey_said| { __journey_said.int(Attr::PromptTokens, __journey_prompt_tokens.given); }) {
//         __journey_span.record("gen_ai.usage.prompt_tokens", &__journey_prompt_tokens.value);
//     }
fn record(args: &RecordArgs) -> TokenStream {
    let RecordArgs { krate, span, fields, owners } = args;
    let private = &quote!(#krate::__private);
    let target = format_ident!("__journey_span");
    let calls = fields.iter().map(|field| {
        let (key, value) = (field.attr.info().key, field.value(private));
        quote!(#target.record(#key, &#value);)
    });
    let body = match span {
        None => quote!({ #(#calls)* }),
        Some(_) => {
            let said = format_ident!("__journey_said");
            let fill = fields.iter().map(|field| field.say(&said, private));
            quote!(if !#private::record(#target, |#said| { #(#fill)* }) { #(#calls)* })
        }
    };
    let body = bind(fields, private, body);
    let guarded = match span {
        Some(span) => bind_reference(
            span,
            &target,
            quote!(#private::tracing::Span),
            quote!(if #private::wants(#target) { #body }),
        ),
        None => {
            let owners = owners.iter().map(|owner| variant(*owner));
            quote! {
                if let ::core::option::Option::Some(#target) =
                    #private::enclosing(&[#(#private::SpanName::#owners),*])
                { #body }
            }
        }
    };
    quote! { if #private::tracing::level_enabled!(#private::tracing::Level::INFO) { #guarded } }
}
