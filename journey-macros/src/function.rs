//! The function under `#[journey_span]`: its parts, and what kind of body it has.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream, Parser};
use syn::visit_mut::{VisitMut, visit_type_mut};
use syn::{
    AngleBracketedGenericArguments, Attribute, Block, Expr, ExprAsync, GenericArgument, Path, PathArguments,
    PathSegment, ReturnType, Signature, Stmt, Token, Type, TypeParamBound, Visibility,
};

/// A function, with its body as it was written.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) inner_attrs: Vec<Attribute>,
    pub(crate) body: TokenStream,
}

/// Where the code that belongs in the span stands.
pub(crate) enum Body {
    /// In the function itself, which is no future.
    Sync,
    /// In an `async fn`.
    Async,
    /// In the one `async` block that is all of the body, alone or in `Box::pin(..)`: what `async-trait` makes.
    /// `output` is what it resolves to, as far as the signature says.
    Block { pin: Option<Box<Expr>>, block: Box<ExprAsync>, output: Option<Type> },
    /// In the future that the function returns, however it makes it.
    Returned { boxed: bool, output: Option<Type> },
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let ahead = input.fork();
        let Ok(sig) = input.parse::<Signature>() else { return Err(not_a_function(&ahead)) };
        if input.peek(Token![;]) {
            let message = "`#[journey_span]` needs the body of the function: put it where the function is implemented";
            return Err(syn::Error::new_spanned(sig.fn_token, message));
        }
        let content;
        syn::braced!(content in input);
        let inner_attrs = content.call(Attribute::parse_inner)?;
        Ok(Self { attrs, vis, sig, inner_attrs, body: content.parse()? })
    }
}

fn not_a_function(input: ParseStream<'_>) -> syn::Error {
    let way_out = if input.peek(Token![impl]) || input.peek(Token![trait]) || input.peek(Token![mod]) {
        "put it on each function inside that opens a span"
    } else {
        "for a span that no function bounds there is `journey_span!`"
    };
    let message = format!("`#[journey_span]` goes on a function with a body; {way_out}");
    syn::Error::new(input.span(), message)
}

impl Function {
    /// What kind of body the function has.
    pub(crate) fn kind(&self) -> Body {
        if self.sig.asyncness.is_some() {
            return Body::Async;
        }
        let ReturnType::Type(_, ty) = &self.sig.output else { return Body::Sync };
        let future = returned_future(ty);
        match (self.single_block(), future) {
            (Some((pin, block)), future) => {
                Body::Block { pin, block: Box::new(block), output: future.and_then(|(_, output)| output) }
            }
            (None, Some((boxed, output))) => Body::Returned { boxed, output },
            (None, None) => Body::Sync,
        }
    }

    /// The `async` block that is all of the body, and the function (`Box::pin`) that it is given to.
    fn single_block(&self) -> Option<(Option<Box<Expr>>, ExprAsync)> {
        let statements = Block::parse_within.parse2(self.body.clone()).ok()?;
        match <[Stmt; 1]>::try_from(statements).ok()? {
            [Stmt::Expr(Expr::Async(block), None)] => Some((None, block)),
            [Stmt::Expr(Expr::Call(call), None)] => {
                let is_pin = matches!(&*call.func, Expr::Path(path) if ends_with(&path.path, &["Box", "pin"]));
                match call.args.into_iter().next()? {
                    Expr::Async(block) if is_pin => Some((Some(call.func), block)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What the body results in: what `err` looks at. `None` where the signature does not say.
    pub(crate) fn output(&self, body: &Body) -> Option<Type> {
        match body {
            Body::Sync | Body::Async => Some(match &self.sig.output {
                ReturnType::Type(_, ty) => (**ty).clone(),
                ReturnType::Default => {
                    Type::Tuple(syn::TypeTuple { paren_token: <_>::default(), elems: <_>::default() })
                }
            }),
            Body::Block { output, .. } | Body::Returned { output, .. } => output.clone(),
        }
    }
}

fn ends_with(path: &Path, names: &[&str]) -> bool {
    let idents = path.segments.iter().rev().map(|segment| &segment.ident);
    path.segments.len() >= names.len() && idents.zip(names.iter().rev()).all(|(ident, name)| ident == name)
}

/// Whether a type is a future, boxed or not, and what that resolves to.
fn returned_future(ty: &Type) -> Option<(bool, Option<Type>)> {
    match ty {
        Type::ImplTrait(ty) => future_bound(&ty.bounds).map(|output| (false, output)),
        Type::Paren(ty) => returned_future(&ty.elem),
        Type::Group(ty) => returned_future(&ty.elem),
        Type::Path(ty) => {
            let segment = ty.path.segments.last()?;
            match segment.ident.to_string().as_str() {
                "Pin" => match argument(segment)? {
                    Type::Path(inner) if inner.path.segments.last()?.ident == "Box" => {
                        match argument(inner.path.segments.last()?)? {
                            Type::TraitObject(object) => future_bound(&object.bounds).map(|output| (true, output)),
                            _ => None,
                        }
                    }
                    _ => None,
                },
                // The aliases of the `futures` crates.
                "BoxFuture" | "LocalBoxFuture" => Some((true, argument(segment).cloned())),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The one type argument of `Name<..>`.
fn argument(segment: &PathSegment) -> Option<&Type> {
    arguments(segment)?.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn arguments(segment: &PathSegment) -> Option<&AngleBracketedGenericArguments> {
    match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => Some(arguments),
        _ => None,
    }
}

/// The `Future` among the bounds, and its `Output` if that is given.
fn future_bound<'a>(bounds: impl IntoIterator<Item = &'a TypeParamBound>) -> Option<Option<Type>> {
    bounds.into_iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => {
            let segment = bound.path.segments.last().filter(|segment| segment.ident == "Future")?;
            let output = arguments(segment).into_iter().flat_map(|arguments| &arguments.args);
            Some(output.into_iter().find_map(|argument| match argument {
                GenericArgument::AssocType(assoc) if assoc.ident == "Output" => Some(assoc.ty.clone()),
                _ => None,
            }))
        }
        _ => None,
    })
}

/// Whether `ty` is surely no `Result`. A name that is not known may be an alias of one.
pub(crate) fn is_no_result(ty: &Type) -> bool {
    const KNOWN: &[&str] = &[
        "bool", "char", "str", "String", "Option", "Vec", "Box", "Rc", "Arc", "HashMap", "BTreeMap", "u8", "u16",
        "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64",
    ];
    match ty {
        Type::Path(ty) => {
            ty.path.get_ident().is_some_and(|ident| KNOWN.iter().any(|known| ident == known))
                || ty.path.segments.last().is_some_and(|last| KNOWN.iter().any(|known| last.ident == known))
        }
        Type::Paren(ty) => is_no_result(&ty.elem),
        Type::Group(ty) => is_no_result(&ty.elem),
        Type::Infer(_) | Type::Macro(_) | Type::Verbatim(_) => false,
        _ => true,
    }
}

/// `ty` with `_` for each `impl Trait`, so that it can annotate a value.
pub(crate) fn erase_impl_trait(ty: &Type) -> Type {
    struct Eraser;

    impl VisitMut for Eraser {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if let Type::ImplTrait(_) = ty {
                *ty = Type::Infer(syn::TypeInfer { underscore_token: <_>::default() });
            }
            visit_type_mut(self, ty);
        }
    }

    let mut ty = ty.clone();
    Eraser.visit_type_mut(&mut ty);
    ty
}

#[cfg(test)]
mod tests {
    use quote::{ToTokens, quote};

    use super::*;

    fn kind(tokens: TokenStream) -> String {
        let function: Function = syn::parse2(tokens).unwrap();
        let show = |output: Option<Type>| output.map_or("?".to_owned(), |ty| ty.to_token_stream().to_string());
        match function.kind() {
            Body::Sync => "sync".to_owned(),
            Body::Async => "async".to_owned(),
            Body::Block { pin, output, .. } => format!("block{} -> {}", pin.map_or("", |_| " boxed"), show(output)),
            Body::Returned { boxed, output } => {
                format!("returned{} -> {}", if boxed { " boxed" } else { "" }, show(output))
            }
        }
    }

    #[test]
    fn a_body_that_is_one_async_block_is_told_from_one_that_makes_a_future() {
        assert_eq!(
            kind(quote!(
                async fn f() -> u8 {
                    1
                }
            )),
            "async"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> impl Future<Output = u8> + Send {
                    async move { 1 }
                }
            )),
            "block -> u8"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> impl core::future::Future<Output = u8> {
                    ready(1)
                }
            )),
            "returned -> u8"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> impl Future {
                    let x = 1;
                    async move { x }
                }
            )),
            "returned -> ?"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> Alias<u8> {
                    Box::pin(async { 1 })
                }
            )),
            "block boxed -> ?"
        );
        assert_eq!(
            kind(quote!(
                fn f<'a>() -> BoxFuture<'a, u8> {
                    g()
                }
            )),
            "returned boxed -> u8"
        );
        assert_eq!(
            kind(quote!(
                fn f<'a>() -> Pin<Box<dyn Future<Output = u8> + Send + 'a>> {
                    std::boxed::Box::pin(async { 1 })
                }
            )),
            "block boxed -> u8"
        );
    }

    #[test]
    fn what_returns_no_future_is_a_plain_function() {
        assert_eq!(
            kind(quote!(
                fn f() {}
            )),
            "sync"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> impl Iterator<Item = u8> {
                    [1].into_iter()
                }
            )),
            "sync"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> Pin<Box<dyn Stream<Item = u8>>> {
                    g()
                }
            )),
            "sync"
        );
        assert_eq!(
            kind(quote!(
                fn f() -> Pin<&'static mut dyn Future<Output = u8>> {
                    g()
                }
            )),
            "sync"
        );
    }

    #[test]
    fn only_a_type_that_cannot_be_an_alias_of_a_result_is_none() {
        for ty in [quote!(()), quote!(Option<u8>), quote!(std::vec::Vec<u8>), quote!(&str), quote!(impl Sized)] {
            assert!(is_no_result(&syn::parse2(ty.clone()).unwrap()), "{ty}");
        }
        for ty in [quote!(Result<(), E>), quote!(io::Result<()>), quote!(Reply), quote!(Self::Output)] {
            assert!(!is_no_result(&syn::parse2(ty.clone()).unwrap()), "{ty}");
        }
    }
}
