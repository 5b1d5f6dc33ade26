//! `#[journey_span]`: the span around a function's body.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ReturnType, Type};

use crate::args::Args;
use crate::bind::variant;
use crate::expand_span::span;
use crate::fallback;
use crate::function::{Body, Function, erase_impl_trait, is_no_result};
use crate::valid::{ErrFormat, Errors, SpanArgs, Usage};

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let args = syn::parse2::<Args>(args).and_then(|args| SpanArgs::new(args, Usage::Attribute));
    let function = syn::parse2::<Function>(item.clone()).and_then(|function| {
        let body = function.kind();
        check(&function, &body, args.as_ref().is_ok_and(|args| args.err.is_some()))?;
        Ok((function, body))
    });
    match (args, function) {
        (Ok(args), Ok((function, body))) => wrap(&args, &function, body),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => fallback::item(error, item),
        (Err(mut error), Err(other)) => {
            error.combine(other);
            fallback::item(error, item)
        }
    }
}

fn check(function: &Function, body: &Body, err: bool) -> syn::Result<()> {
    let mut errors = Errors::default();
    if let Some(constness) = &function.sig.constness {
        let message =
            "a `const fn` may run while compiling, where there is no span: take `const` or the attribute away";
        errors.push(constness, message);
    }
    if err && let Some(output) = function.output(body).filter(is_no_result) {
        let message = "`err` looks for an `Err`, and this function returns no `Result`: leave `err` out";
        match &function.sig.output {
            ReturnType::Default => errors.push(&function.sig.ident, message),
            ReturnType::Type(..) => errors.push(output, message),
        }
    }
    errors.finish(())
}

fn wrap(args: &SpanArgs, function: &Function, kind: Body) -> TokenStream {
    let Function { attrs, vis, sig, inner_attrs, body } = function;
    let wrapper = Wrapper { args, private: &args.private(), output: function.output(&kind) };
    let body = match kind {
        Body::Sync => wrapper.sync(body),
        Body::Async => wrapper.asynchronous(&quote!(move), body),
        Body::Block { pin, block, .. } => {
            let (attrs, capture, statements) = (&block.attrs, block.capture.to_token_stream(), &block.block.stmts);
            let inside = wrapper.asynchronous(&capture, &quote!(#(#statements)*));
            let block = quote!(#(#attrs)* async #capture { #inside });
            pin.map_or(block.clone(), |pin| quote!(#pin(#block)))
        }
        Body::Returned { boxed, .. } => wrapper.returned(boxed, &sig.output, body),
    };
    quote!(#(#attrs)* #vis #sig { #(#inner_attrs)* #body })
}

/// Wraps the code of one function.
struct Wrapper<'a> {
    args: &'a SpanArgs,
    private: &'a TokenStream,
    /// What the code results in, where the signature says so.
    output: Option<Type>,
}

impl Wrapper<'_> {
    // Input:
    //     fn f(..) -> R { body }
    //
    // Output:
    //     let __journey_span = ..;
    //     let __journey_entered = enter(&__journey_span);
    //     body
    //
    // with `err`, where the last line is
    //     let __journey_result = call(move || -> R { body });
    //     if let Err(__journey_error) = &__journey_result { failed(&__journey_span, SpanName::LlmRequest, Shown::shown(__journey_error)); }
    //     __journey_result
    fn sync(&self, body: &TokenStream) -> TokenStream {
        let (private, span) = (self.private, span(self.args));
        let body = match self.failed() {
            None => body.clone(),
            Some(failed) => {
                let output = self.output.as_ref().map(erase_impl_trait);
                quote! {
                    let __journey_result = #private::call(move || -> #output { #body });
                    #failed
                    __journey_result
                }
            }
        };
        quote! {
            let __journey_span = #span;
            let __journey_entered = #private::enter(&__journey_span);
            #body
        }
    }

    // Input:
    //     async { body }
    //
    // Output:
    //     let __journey_span = ..;
    //     instrument(__journey_span, async move { body }).await
    //
    // with `err`, where the last line is
    //     let __journey_result = instrument(Clone::clone(&__journey_span), async move { body }).await;
    //     if let Err(__journey_error) = &__journey_result { failed(&__journey_span, SpanName::LlmRequest, Shown::shown(__journey_error)); }
    //     __journey_result
    fn asynchronous(&self, capture: &TokenStream, body: &TokenStream) -> TokenStream {
        let span = span(self.args);
        let hint = self.output_hint();
        let run = self.run(&quote!(async #capture { #hint #body }));
        quote! {
            let __journey_span = #span;
            #run
        }
    }

    /// Awaits `future` inside the span.
    fn run(&self, future: &TokenStream) -> TokenStream {
        let private = self.private;
        match self.failed() {
            None => quote!(#private::instrument(__journey_span, #future).await),
            Some(failed) => quote! {
                let __journey_result =
                    #private::instrument(::core::clone::Clone::clone(&__journey_span), #future).await;
                #failed
                __journey_result
            },
        }
    }

    // Input:
    //     fn f(..) -> Pin<Box<dyn Future<Output = R> + Send>> { body }
    //
    // Output:
    //     let __journey_span = ..;
    //     let __journey_future = Span::in_scope(&__journey_span, move || -> Pin<Box<..>> { body });
    //     Box::pin(instrument(__journey_span, __journey_future))
    fn returned(&self, boxed: bool, output: &ReturnType, body: &TokenStream) -> TokenStream {
        let (private, span) = (self.private, span(self.args));
        // The type of an `impl Future` is what the closure makes of it.
        let output = boxed.then_some(output);
        let instrumented = match self.args.err {
            None => quote!(#private::instrument(__journey_span, __journey_future)),
            Some(_) => {
                let run = self.run(&quote!(__journey_future));
                quote!(async move { #run })
            }
        };
        let instrumented = if boxed { quote!(::std::boxed::Box::pin(#instrumented)) } else { instrumented };
        quote! {
            let __journey_span = #span;
            let __journey_future = #private::tracing::Span::in_scope(&__journey_span, move || #output { #body });
            #instrumented
        }
    }

    /// Lets the type of an `async` block be known from its first line on, as that of a function is.
    fn output_hint(&self) -> Option<TokenStream> {
        let output = match self.output.as_ref()? {
            Type::Never(_) => return None,
            output => erase_impl_trait(output),
        };
        Some(quote_spanned! {output.span()=>
            if let ::core::option::Option::Some(__journey_output) = ::core::option::Option::None::<#output> {
                #[allow(unreachable_code)]
                return __journey_output;
            }
        })
    }

    /// The look at `__journey_result`, with `err`.
    fn failed(&self) -> Option<TokenStream> {
        let (private, format) = (self.private, self.args.err?);
        let name = variant(self.args.name);
        // The error's type is judged at the return type.
        let at = self.output.as_ref().map_or_else(proc_macro2::Span::call_site, Spanned::span);
        let error = quote_spanned!(at=> __journey_error);
        let shown = match format {
            ErrFormat::Display => quote_spanned!(at=> #private::value::Shown::shown(#error)),
            ErrFormat::Debug => quote!(&::core::format_args!("{:?}", #error)),
        };
        Some(quote! {
            if let ::core::result::Result::Err(#error) = &__journey_result {
                #private::failed(&__journey_span, #private::SpanName::#name, #shown);
            }
        })
    }
}
