//! After a mistake: the messages, and code that compiles as if there had been none. One mistake, one error.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use crate::valid::default_crate;

/// The messages and the item as it was.
pub(crate) fn item(error: syn::Error, item: TokenStream) -> TokenStream {
    let messages = error.into_compile_error();
    quote!(#messages #item)
}

/// The messages and a `()`.
pub(crate) fn unit(error: syn::Error) -> TokenStream {
    let messages = error.into_compile_error();
    quote!({ #messages })
}

/// The messages and a `Span`.
pub(crate) fn span(error: syn::Error, input: TokenStream) -> TokenStream {
    let messages = error.into_compile_error();
    let krate = crate_path(input).unwrap_or_else(default_crate);
    quote!({ #messages #krate::__private::tracing::Span::none() })
}

/// The path in `crate = path`, found in arguments that may not parse.
fn crate_path(input: TokenStream) -> Option<TokenStream> {
    let mut tokens = input.into_iter().skip_while(|token| token.to_string() != "crate");
    let (_, equals) = (tokens.next()?, tokens.next()?);
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    let path: TokenStream = tokens.take_while(|token| !is_comma(token)).collect();
    // Where the mistake is in the path itself, the default is as good as any.
    (equals.to_string() == "=" && syn::parse2::<syn::Path>(path.clone()).is_ok()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_under_another_crate_name_is_still_one_error() {
        let found = |input| crate_path(input).map(|path| path.to_string());
        assert_eq!(found(quote!(scope = 1 2, crate = my::layer, name = "x")).as_deref(), Some("my :: layer"));
        assert_eq!(found(quote!(crate = ::layer)).as_deref(), Some(":: layer"));
        assert_eq!(found(quote!(scope = crate::SCOPE)), None);
        let span = span(syn::Error::new(proc_macro2::Span::call_site(), "no"), quote!(crate = my::layer)).to_string();
        assert!(span.ends_with("my :: layer :: __private :: tracing :: Span :: none () }"), "{span}");
    }
}
