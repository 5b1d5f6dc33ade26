//! Arguments evaluated once, before the `tracing` macro that takes them.
//!
//! They stand in the scrutinee of a `match`, so that `?`, `.await` and `return` work in them, their temporaries live
//! as long as they are used, and none of the caller's code runs between `tracing`'s look at its filters and the span
//! or event that follows (per-layer filters remember their verdict in the thread).

use journey_schema::{AbortReason, Attr, AttributeType, FinishStatus, Phase, ScheduleKind};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Expr;
use syn::spanned::Spanned;

use crate::args::Sigil;
use crate::valid::{Field, FieldValue};

impl Field {
    fn local(&self) -> Ident {
        format_ident!("__journey_{}", self.attr.info().argument)
    }

    fn is_number(&self) -> bool {
        matches!(self.attr.info().ty, AttributeType::Int | AttributeType::Float)
    }

    /// What the `match` evaluates for this field.
    fn operand(&self, private: &TokenStream) -> Option<TokenStream> {
        match &self.value {
            FieldValue::Member(_) => None,
            FieldValue::Printed(_, expr) => Some(reference(expr)),
            FieldValue::Typed(expr) => {
                let operand = reference(expr);
                let check = match self.attr.info().ty {
                    AttributeType::Int => quote!(Int::int),
                    AttributeType::Float => quote!(Float::float),
                    AttributeType::Str => quote!(Text::text),
                    AttributeType::OneOf(values) => {
                        let ty = enumeration(values);
                        quote!(OneOf::<#private::#ty>::one_of)
                    }
                };
                Some(quote!(#private::value::#check(#operand)))
            }
        }
    }

    /// The value as `tracing` takes it, where [`bind`] has put the locals in scope.
    fn bound(&self) -> TokenStream {
        let local = self.local();
        match &self.value {
            FieldValue::Member(text) => quote!(#text),
            FieldValue::Typed(_) if self.is_number() => quote!(#local.value),
            FieldValue::Typed(_) => quote!(#local),
            FieldValue::Printed(Sigil::Display(_), _) => quote!(%#local),
            FieldValue::Printed(Sigil::Debug(_), _) => quote!(?#local),
        }
    }

    /// The call by which an event hands the value to `said`, where [`bind`] has put the locals in scope.
    pub(crate) fn say(&self, said: &Ident, private: &TokenStream) -> TokenStream {
        let (local, attr) = (self.local(), variant(self.attr));
        let attr = quote!(#private::Attr::#attr);
        match (&self.value, self.attr.info().ty) {
            (FieldValue::Member(text), _) => self.say_member(text, said, private),
            (FieldValue::Typed(_), AttributeType::Int) => quote!(#said.int(#attr, #local.given);),
            (FieldValue::Typed(_), AttributeType::Float) => quote!(#said.float(#attr, #local.given);),
            (FieldValue::Typed(_), AttributeType::Str | AttributeType::OneOf(_)) => quote!(#said.text(#attr, #local);),
            (FieldValue::Printed(..), _) => {
                let value = self.value(private);
                quote!(#said.print(#attr, &#value);)
            }
        }
    }

    /// A member that is known while compiling goes without its text, where the event has a place for it.
    fn say_member(&self, text: &str, said: &Ident, private: &TokenStream) -> TokenStream {
        let (method, member) = match self.attr {
            Attr::Phase => ("phase", Phase::from_value(text).map(variant)),
            Attr::ScheduleKind => ("kind", ScheduleKind::from_value(text).map(variant)),
            Attr::FinishStatus => ("status", FinishStatus::from_value(text).map(variant)),
            Attr::Reason => ("reason", AbortReason::from_value(text).map(variant)),
            attr => {
                let attr = variant(attr);
                return quote!(#said.text(#private::Attr::#attr, ::core::option::Option::Some(#text)););
            }
        };
        let AttributeType::OneOf(values) = self.attr.info().ty else { unreachable!("a member of an enumeration") };
        let (method, ty) = (Ident::new(method, Span::call_site()), enumeration(values));
        let member = member.expect("validated to be a member");
        quote!(#said.#method(#private::#ty::#member);)
    }

    /// The same without `tracing`'s sigils.
    pub(crate) fn value(&self, private: &TokenStream) -> TokenStream {
        let local = self.local();
        match &self.value {
            FieldValue::Member(_) | FieldValue::Typed(_) => self.bound(),
            FieldValue::Printed(Sigil::Display(_), _) => quote!(#private::tracing::field::display(#local)),
            FieldValue::Printed(Sigil::Debug(_), _) => quote!(#private::tracing::field::debug(#local)),
        }
    }
}

/// The name of the enumeration with these values.
fn enumeration(values: &'static [&'static str]) -> Ident {
    let name = if values == Phase::VALUES {
        "Phase"
    } else if values == ScheduleKind::VALUES {
        "ScheduleKind"
    } else if values == FinishStatus::VALUES {
        "FinishStatus"
    } else {
        assert_eq!(values, AbortReason::VALUES, "an enumeration of the schema");
        "AbortReason"
    };
    Ident::new(name, Span::call_site())
}

/// The variant of a schema enumeration, as the expansion names it.
pub(crate) fn variant(of: impl std::fmt::Debug) -> Ident {
    format_ident!("{of:?}")
}

/// `&expr`, with a span that makes the compiler underline all of `expr`.
pub(crate) fn reference(expr: &Expr) -> TokenStream {
    // Parentheses would have one span for both ends: only what binds weaker than `&` gets them.
    let binds = matches!(
        expr,
        Expr::Array(_)
            | Expr::Await(_)
            | Expr::Call(_)
            | Expr::Field(_)
            | Expr::Index(_)
            | Expr::Lit(_)
            | Expr::Macro(_)
            | Expr::MethodCall(_)
            | Expr::Paren(_)
            | Expr::Path(_)
            | Expr::Reference(_)
            | Expr::Try(_)
            | Expr::Tuple(_)
            | Expr::Unary(_)
    );
    if binds { quote_spanned!(expr.span()=> &#expr) } else { quote_spanned!(expr.span()=> &(#expr)) }
}

/// Evaluates the values of `fields` in the order of writing, then `body` with their locals in scope.
pub(crate) fn bind(fields: &[Field], private: &TokenStream, body: TokenStream) -> TokenStream {
    let (locals, operands): (Vec<_>, Vec<_>) =
        fields.iter().filter_map(|field| Some((field.local(), field.operand(private)?))).unzip();
    if locals.is_empty() {
        return body;
    }
    quote!(match (#(#operands,)*) { (#(#locals,)*) => #body })
}

/// Evaluates `expr` to a reference named `local` for `body`. A value, a reference and a smart pointer to one will do.
pub(crate) fn bind_reference(expr: &Expr, local: &Ident, ty: TokenStream, body: TokenStream) -> TokenStream {
    let operand = reference(expr);
    let spanned = Ident::new(&local.to_string(), expr.span().resolved_at(Span::call_site()));
    quote!(match #operand { #local => { let #local: &#ty = #spanned; #body } })
}

/// The field list of a `tracing` macro: `attrs` in their order, those that have no value by `default`.
pub(crate) fn field_list<'a>(
    attrs: impl IntoIterator<Item = Attr>,
    fields: &'a [Field],
    default: impl Fn(Attr) -> Option<TokenStream> + 'a,
) -> TokenStream {
    let pairs = attrs.into_iter().filter_map(|attr| {
        let given = fields.iter().find(|field| field.attr == attr).map(Field::bound);
        let (key, value) = (attr.info().key, given.or_else(|| default(attr))?);
        Some(quote!(#key = #value))
    });
    quote!(#(#pairs),*)
}
