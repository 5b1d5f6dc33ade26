//! `journey_event!`.

use journey_schema::Attr;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::args::EventCall;
use crate::bind::{bind, bind_reference, field_list, variant};
use crate::fallback;
use crate::valid::EventArgs;

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    match syn::parse2::<EventCall>(input).and_then(EventArgs::new) {
        Ok(args) => event(&args),
        Err(error) => fallback::unit(error),
    }
}

// Input:
//     &span, FINISHED, status = length, ..progress
//
// Output:
//     if level_enabled!(Level::INFO) {
//         match &span { __journey_span => {
//             let __journey_span: &Span = __journey_span;
//             if wants(__journey_span) {
//                 match &progress { __journey_progress => {
//                     let __journey_progress: &Progress = __journey_progress;
//                     event!(name: "journey.FINISHED", target: "vllm.scheduler", parent: __journey_span, Level::INFO, {
//                         "finish.status" = "length",
//                         "scheduler.step" = __journey_progress.scheduler_step,
//                         ..
//                     }, "journey.FINISHED")
//                 } }
//             }
//         } }
//     }
fn event(args: &EventArgs) -> TokenStream {
    let EventArgs { krate, span, event, fields, progress } = args;
    let private = &quote!(#krate::__private);
    let tracing = quote!(#private::tracing);
    let (wire_name, scope) = (event.wire_name(), event.scope().name());
    let snapshot = format_ident!("__journey_progress");
    let list = field_list(event.attributes(), fields, |attr| {
        progress.as_ref().and_then(|_| progress_field(attr)).map(|field| quote!(#snapshot.#field))
    });
    let target = format_ident!("__journey_span");
    let parent = span.as_ref().map(|_| quote!(parent: #target,));
    let mut body = quote! {
        #tracing::event!(
            name: #wire_name, target: #scope, #parent #tracing::Level::INFO, { #list }, #wire_name
        )
    };
    if let Some(progress) = progress {
        body = bind_reference(progress, &snapshot, quote!(#private::Progress), body);
    }
    let body = bind(fields, private, body);
    let guarded = match span {
        Some(span) => {
            bind_reference(span, &target, quote!(#tracing::Span), quote!(if #private::wants(#target) { #body }))
        }
        None => {
            let event = variant(*event);
            quote!(if #private::wants_current(#private::Event::#event) { #body })
        }
    };
    quote! { if #tracing::level_enabled!(#tracing::Level::INFO) { #guarded } }
}

/// What `..progress` gives for an attribute.
fn progress_field(attr: Attr) -> Option<TokenStream> {
    Some(match attr {
        Attr::SchedulerStep => quote!(scheduler_step),
        Attr::Phase => quote!(phase.map(|phase| phase.as_str())),
        Attr::PrefillDone => quote!(prefill_done_tokens),
        Attr::PrefillTotal => quote!(prefill_total_tokens),
        Attr::PrefillRecomputed => quote!(prefill_recomputed_tokens),
        Attr::DecodeDone => quote!(decode_done_tokens),
        Attr::DecodeMax => quote!(decode_max_tokens),
        Attr::NumPreemptions => quote!(num_preemptions),
        _ => return None,
    })
}
