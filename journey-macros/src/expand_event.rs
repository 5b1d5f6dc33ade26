//! `journey_event!`.

use journey_schema::{Attr, SHADOW_FIELD};
use proc_macro2::{Ident, TokenStream};
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
//                     static __JOURNEY_SITE: EventSite = EventSite::new(Event::Finished, file!(), line!());
//                     emit(&__JOURNEY_SITE, __journey_span, |__journey_said| {
//                         __journey_said.progress(__journey_progress);
//                         __journey_said.status(FinishStatus::Length);
//                     });
//                     event!(name: "journey.FINISHED", target: "vllm.scheduler", parent: __journey_span, Level::INFO, {
//                         "journey.shadow" = Empty,
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
    let emit = emit(args, &target, &snapshot, private);
    let mut body = quote! {{
        #emit
        #tracing::event!(
            name: #wire_name, target: #scope, #parent #tracing::Level::INFO,
            { #SHADOW_FIELD = #tracing::field::Empty, #list }, #wire_name
        )
    }};
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

/// Hands the event to the layer. What is given by name goes before the progress.
fn emit(args: &EventArgs, target: &Ident, snapshot: &Ident, private: &TokenStream) -> TokenStream {
    let EventArgs { span, event, fields, progress, .. } = args;
    let said = &format_ident!("__journey_said");
    let is_given = |attr| fields.iter().any(|field| field.attr == attr);
    let is_mixed = event.attributes().any(|attr| progress_field(attr).is_some() && is_given(attr));
    let progress = progress.as_ref().map(|_| match is_mixed {
        false => quote!(#said.progress(#snapshot);),
        true => {
            let each = event.attributes().filter(|attr| !is_given(*attr)).filter_map(|attr| {
                let (field, variant) = (progress_field(attr)?, variant(attr));
                Some(match attr {
                    Attr::Phase => quote!(#said.text(#private::Attr::#variant, #snapshot.#field);),
                    _ => quote!(#said.int(#private::Attr::#variant, #private::value::Int::given(&#snapshot.#field));),
                })
            });
            quote!(#(#each)*)
        }
    });
    let fields = fields.iter().map(|field| field.say(said, private));
    let event = variant(*event);
    let fill = quote!(|#said| { #progress #(#fields)* });
    let call = match span {
        Some(_) => quote!(#private::emit(&__JOURNEY_SITE, #target, #fill)),
        None => quote!(#private::emit_current(&__JOURNEY_SITE, #fill)),
    };
    quote! {
        static __JOURNEY_SITE: #private::EventSite =
            #private::EventSite::new(#private::Event::#event, ::core::file!(), ::core::line!());
        #call;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of the `event!` that the call expands to, behind the mark.
    fn fields(call: TokenStream) -> String {
        let expansion = expand(call).to_string();
        let (_, rest) = expansion.split_once("field :: Empty ,").expect("a marked event");
        rest.split_once("} ,").expect("its message").0.trim().to_owned()
    }

    #[test]
    fn what_is_not_given_is_not_in_the_expansion() {
        assert_eq!(fields(quote!(QUEUED)), "");
        assert_eq!(fields(quote!(FINISHED, status = length)), r#""finish.status" = "length""#);
    }

    #[test]
    fn what_is_given_by_name_goes_before_the_progress() {
        let fields = fields(quote!(QUEUED, ..p,));
        assert_eq!(fields.matches("__journey_progress").count(), 8, "{fields}");
        let given = self::fields(quote!(QUEUED, phase = DECODE, scheduler.step = 1, ..p));
        assert_eq!(given.matches("__journey_progress").count(), 6, "{given}");
        assert!(given.contains(r#""phase" = "DECODE""#), "{given}");
    }

    #[test]
    fn the_layer_is_handed_what_the_event_says() {
        let said = |call| {
            let expansion = expand(call).to_string();
            let (_, rest) = expansion.split_once("| __journey_said | {").expect("a call of `emit`");
            rest.split_once("})").expect("its end").0.trim().to_owned()
        };
        assert_eq!(said(quote!(QUEUED)), "");
        assert_eq!(said(quote!(QUEUED, ..p)), "__journey_said . progress (__journey_progress) ;");
        let mixed = said(quote!(&span, SCHEDULED, kind = FIRST, phase = DECODE, step = 1, ..p));
        assert!(!mixed.contains(". progress (") && !mixed.contains("__journey_progress . phase"), "{mixed}");
        assert!(mixed.contains("ScheduleKind :: First") && mixed.contains("Attr :: SchedulerStep"), "{mixed}");
        assert_eq!(mixed.matches("__journey_progress .").count(), 6, "{mixed}");
    }

    #[test]
    fn fields_stand_in_the_order_of_the_wire_and_are_evaluated_in_that_of_writing() {
        let call = quote!(ABORTED, error = %e(), reason = r());
        assert_eq!(fields(call.clone()), r#""reason" = __journey_reason , "error" = % __journey_error"#);
        let expansion = expand(call).to_string();
        assert!(expansion.find("e ()") < expansion.find("r ()"), "{expansion}");
    }
}
