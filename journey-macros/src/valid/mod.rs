//! Validate: arguments against the schema. Every mistake of a call is found, each under its own token.

mod event;
mod record;
mod span;

use std::fmt::Display;

use journey_schema::{Attr, AttributeType, Event, SpanName, nearest};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Expr, ExprLit, ExprPath, Lit};

pub(crate) use event::EventArgs;
pub(crate) use record::RecordArgs;
pub(crate) use span::{ErrFormat, ParentArg, SpanArgs, Usage};

use crate::args::{Arg, Key, Sigil, Value};

/// The mistakes found so far.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    pub(crate) fn push(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.add(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn finish<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

/// A value that fits its attribute, as far as the macro can tell.
pub(crate) enum FieldValue {
    /// A member of an enumeration, known while compiling.
    Member(&'static str),
    /// An expression, whose type the compiler checks.
    Typed(Expr),
    /// An expression printed by `Display` or `Debug`.
    Printed(Sigil, Expr),
}

/// An attribute with its value.
pub(crate) struct Field {
    pub(crate) attr: Attr,
    pub(crate) value: FieldValue,
}

/// Checks the form of a value against the type of its attribute.
fn field(attr: Attr, arg: Arg, errors: &mut Errors) -> Option<Field> {
    let Arg { key, value } = arg;
    let name = &key.text;
    let (sigil, expr) = match value {
        Value::Expr(sigil, expr) => (sigil, *expr),
        Value::Flag => {
            errors.push(&key, format!("`{name}` needs a value: `{name} = ..`"));
            return None;
        }
        Value::List(_) => {
            errors.push(&key, format!("`{name}` takes one value: `{name} = ..`"));
            return None;
        }
    };
    let value = match (attr.info().ty, sigil) {
        (AttributeType::OneOf(values), None) => member(name, values, expr, errors)?,
        (AttributeType::Str, Some(sigil)) => FieldValue::Printed(sigil, expr),
        (_, None) => FieldValue::Typed(expr),
        (ty, Some(sigil)) => {
            let ty = match ty {
                AttributeType::Int => "an integer",
                AttributeType::Float => "a float",
                AttributeType::Str | AttributeType::OneOf(_) => "one of a few names",
            };
            let sign = sigil.to_token_stream();
            errors.push(sigil, format!("`{sign}` makes text of a value, and `{name}` is {ty}: leave the `{sign}` out"));
            return None;
        }
    };
    Some(Field { attr, value })
}

/// A bare word or a literal is looked up now; any other expression has the type of the enumeration.
fn member(name: &str, values: &'static [&'static str], expr: Expr, errors: &mut Errors) -> Option<FieldValue> {
    let (text, variable) = match ungroup(&expr) {
        Expr::Path(ExprPath { path, qself: None, .. }) if path.get_ident().is_some() => {
            (path.to_token_stream().to_string(), true)
        }
        Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) => (literal.value(), false),
        _ => return Some(FieldValue::Typed(expr)),
    };
    if let Some(member) = values.iter().find(|value| **value == text) {
        return Some(FieldValue::Member(member));
    }
    let mut message = match nearest(&text, values.iter().copied()) {
        Some(nearest) => format!("unknown `{name}` `{text}`; did you mean `{nearest}`?"),
        None => format!("unknown `{name}` `{text}`; it is one of {}", list(values.iter().copied(), "or")),
    };
    if variable {
        message += &format!(" (a variable goes in parentheses: `{name} = ({text})`)");
    }
    errors.push(expr, message);
    None
}

/// The expression inside the invisible group that a `macro_rules!` variable leaves.
fn ungroup(mut expr: &Expr) -> &Expr {
    while let Expr::Group(group) = expr {
        expr = &group.expr;
    }
    expr
}

/// The one of `attrs` that `name` means: by its short name or by its key.
fn resolve(name: &str, attrs: impl IntoIterator<Item = Attr>) -> Option<Attr> {
    attrs.into_iter().find(|attr| attr.info().argument == name || Attr::from_key(name) == Some(*attr))
}

/// Collects fields, and refuses a second value for one attribute.
#[derive(Default)]
struct Fields {
    list: Vec<Field>,
    /// What was given so far, and under which name.
    given: Vec<(Attr, String)>,
}

impl Fields {
    fn insert(&mut self, attr: Attr, arg: Arg, errors: &mut Errors) {
        let text = &arg.key.text;
        match self.given.iter().find(|(given, _)| *given == attr) {
            Some((_, before)) if before == text => errors.push(&arg.key, format!("`{text}` is given twice")),
            Some((_, before)) => errors.push(&arg.key, format!("`{text}` is given twice: as `{before}` before")),
            None => {
                self.given.push((attr, text.clone()));
                self.list.extend(field(attr, arg, errors));
            }
        }
    }

    fn has(&self, attr: Attr) -> bool {
        self.given.iter().any(|(given, _)| *given == attr)
    }
}

/// Says that `key` is no name that may stand here, and which may.
fn unknown(key: &Key, what: &str, owner: &str, known: &[Attr], more: &[&'static str]) -> String {
    let text = &key.text;
    // A dotted name is compared with keys, a plain one with short names: the answer is in the user's own style.
    let dotted = text.contains('.');
    let names = || {
        let attrs = known.iter().map(|attr| if dotted { attr.info().key } else { attr.info().argument });
        attrs.chain(more.iter().copied())
    };
    match nearest(text, names()) {
        Some(nearest) => format!("unknown {what} `{text}`; did you mean `{nearest}`?"),
        None if names().next().is_none() => format!("unknown {what} `{text}`; {owner} takes none"),
        None => format!("unknown {what} `{text}`; {owner} takes {}", list(names(), "and")),
    }
}

/// The events that a caller may give `attr` to.
fn events_with(attr: Attr) -> impl Iterator<Item = Event> {
    Event::ALL.iter().copied().filter(move |event| settable(*event).any(|known| known == attr))
}

/// The attributes that a caller may give to `event`, in the order of the wire.
fn settable(event: Event) -> impl Iterator<Item = Attr> {
    event.required().iter().chain(event.optional()).copied()
}

/// The spans that a caller may set `attr` on.
fn spans_with(attr: Attr) -> impl Iterator<Item = SpanName> {
    SpanName::ALL.iter().copied().filter(move |span| span.attributes().contains(&attr))
}

/// The attributes that may be set on some span, each once.
fn recordable() -> impl Iterator<Item = Attr> {
    Attr::ALL.iter().copied().filter(|attr| spans_with(*attr).next().is_some())
}

/// What the layer itself writes: latencies of spans, names and clock readings of events.
fn written_by_layer(name: &str) -> Option<String> {
    let derived = SpanName::ALL.iter().flat_map(|span| span.derived()).copied();
    if resolve(name, derived).is_some() {
        return Some(format!("`{name}` is derived by the layer from the span's events: leave it out"));
    }
    let reserved = Event::ALL.iter().flat_map(|event| event.reserved()).copied();
    resolve(name, reserved).map(|_| format!("`{name}` is written by the layer on each event: leave it out"))
}

/// "`a`, `b` and `c`".
fn list<'a>(names: impl IntoIterator<Item = &'a str>, conjunction: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {conjunction} {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The `crate = path` argument: the path under which the user's crate knows `journey-layer`.
fn crate_path(value: &Value, key: &Key, errors: &mut Errors) -> Option<TokenStream> {
    if let Value::Expr(None, expr) = value
        && let Expr::Path(ExprPath { path, qself: None, .. }) = ungroup(expr)
    {
        return Some(quote!(#path));
    }
    errors.push(key, "`crate` takes the path of the `journey-layer` crate: `crate = my_crate::journey_layer`");
    None
}

/// The path of the `journey-layer` crate where no `crate = path` is given.
pub(crate) fn default_crate() -> TokenStream {
    quote!(::journey_layer)
}
