//! `journey_span!`, and the span that `#[journey_span]` opens.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::args::Args;
use crate::bind::{bind, bind_reference, field_list, reference, variant};
use crate::fallback;
use crate::valid::{ParentArg, SpanArgs, Usage};

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    match syn::parse2::<Args>(input.clone()).and_then(|args| SpanArgs::new(args, Usage::Expression)) {
        Ok(args) => span(&args),
        Err(error) => fallback::span(error, input),
    }
}

// Input:
//     scope = "vllm.api", request_id = %id, headers = &headers
//
// Output:
//     if level_enabled!(Level::INFO) {
//         let __journey_admission = admit(SpanName::LlmRequest, Parent::Headers(value::Source::source(&&headers)));
//         match __journey_admission {
//             Admission::Build(mut __journey_ticket) => match (&id,) {
//                 (__journey_request_id,) => {
//                     __journey_ticket.print(Attr::RequestId, &display(__journey_request_id));
//                     __journey_ticket.build(|| span!(
//                         target: "vllm.api", Level::INFO, "llm_request",
//                         "gen_ai.request.id" = %__journey_request_id,
//                         "gen_ai.usage.prompt_tokens" = Empty,
//                         ..
//                     ))
//                 }
//             },
//             Admission::Out(__journey_out) => __journey_out,
//         }
//     } else {
//         Span::none()
//     }
pub(crate) fn span(args: &SpanArgs) -> TokenStream {
    let SpanArgs { krate, name, parent, sibling, fields, .. } = args;
    let private = &quote!(#krate::__private);
    let tracing = quote!(#private::tracing);
    let parent_local = format_ident!("__journey_parent");
    let (source, parent_field) = match parent {
        ParentArg::Context => (quote!(Context), None),
        ParentArg::Headers(expr) => (with_headers(quote!(Headers), expr, private), None),
        ParentArg::Carrier(expr) => (with_headers(quote!(Carrier), expr, private), None),
        ParentArg::Span(_) => (quote!(Span(#parent_local)), Some(quote!(parent: #parent_local,))),
    };
    let (scope, span_name, variant) = (name.scope().name(), name.name(), variant(*name));
    // What is not given is declared: `tracing` records later only what a span has declared.
    let list = field_list(name.attributes().iter().copied(), fields, |_| Some(quote!(#tracing::field::Empty)));
    let create = quote! {
        #tracing::span!(target: #scope, #parent_field #tracing::Level::INFO, #span_name, #list)
    };
    let ticket = format_ident!("__journey_ticket");
    let fill = fields.iter().map(|field| field.say(&ticket, private));
    let build = bind(fields, private, quote!({ #(#fill)* #ticket.build(|| #create) }));
    let mutability = (!fields.is_empty()).then(|| quote!(mut));
    // The headers' borrow ends with the `let`: an `.await` among the arguments does not carry it along.
    let arguments = quote!(#private::SpanName::#variant, #private::Parent::#source);
    let sibling_local = format_ident!("__journey_sibling");
    let admission = match sibling {
        None => quote!(#private::admit(#arguments)),
        Some(_) => quote!(#private::admit_sibling(#arguments, #sibling_local)),
    };
    let mut decide = quote! {
        let __journey_admission = #admission;
        match __journey_admission {
            #private::Admission::Build(#mutability #ticket) => #build,
            #private::Admission::Out(__journey_out) => __journey_out,
        }
    };
    if let ParentArg::Span(expr) = parent {
        decide = bind_reference(expr, &parent_local, quote!(#tracing::Span), decide);
    }
    if let Some(expr) = sibling {
        decide = bind_reference(expr, &sibling_local, quote!(#tracing::Span), decide);
    }
    quote! {
        if #tracing::level_enabled!(#tracing::Level::INFO) { #decide } else { #tracing::Span::none() }
    }
}

fn with_headers(variant: TokenStream, expr: &syn::Expr, private: &TokenStream) -> TokenStream {
    let operand = reference(expr);
    quote!(#variant(#private::value::Source::source(#operand)))
}
