//! The arguments of `#[journey_span]` and `journey_span!`.

use journey_schema::{Attr, Event, HISTORICAL_DUPLICATE_SCOPE, Scope, SpanName, nearest};
use proc_macro2::{Span, TokenStream};
use syn::{Expr, ExprLit, Lit};

use super::{Errors, Field, Fields, crate_path, default_crate, events_with, list, resolve, spans_with};
use super::{recordable, ungroup, unknown, written_by_layer};
use crate::args::{Arg, Args, Value};

/// Which of the two macros the arguments were given to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Attribute,
    Expression,
}

/// Arguments that the schema allows.
pub(crate) struct SpanArgs {
    pub(crate) krate: TokenStream,
    pub(crate) name: SpanName,
    pub(crate) parent: ParentArg,
    /// A span of the same request.
    pub(crate) sibling: Option<Expr>,
    /// In the order in which they were written.
    pub(crate) fields: Vec<Field>,
    pub(crate) err: Option<ErrFormat>,
}

/// Where the caller wants the parent to be looked for.
pub(crate) enum ParentArg {
    Context,
    Headers(Expr),
    Carrier(Expr),
    Span(Expr),
}

/// How `err` prints the error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrFormat {
    Display,
    Debug,
}

/// The arguments that are no attributes, as given.
#[derive(Default)]
struct Controls {
    krate: Option<Arg>,
    scope: Option<Arg>,
    name: Option<Arg>,
    parent: Option<Arg>,
    sibling: Option<Arg>,
    err: Option<Arg>,
    /// Attributes, or mistakes: directly, and inside `fields(..)`.
    attrs: Vec<Arg>,
    fields: Vec<Arg>,
}

impl SpanArgs {
    /// The path of the expansions' other side.
    pub(crate) fn private(&self) -> TokenStream {
        let krate = &self.krate;
        quote::quote!(#krate::__private)
    }

    pub(crate) fn new(args: Args, usage: Usage) -> syn::Result<Self> {
        let mut errors = Errors::default();
        if let Some(progress) = &args.progress {
            errors.push(progress, "`..progress` belongs to events: give it to `journey_event!`");
        }
        let controls = Controls::sort(args.list, &mut errors);
        let scope = controls.scope.as_ref().and_then(|arg| scope(arg, &mut errors));
        if controls.scope.is_none() && !controls.attrs.iter().any(is_bare_scope) {
            let [api, scheduler] = [Scope::Api.name(), Scope::Scheduler.name()];
            let message = format!(
                "`scope` is missing: add `scope = \"{api}\"` in the API server, `scope = \"{scheduler}\"` in the engine core"
            );
            errors.add(syn::Error::new(Span::call_site(), message));
        }
        let name = match &controls.name {
            Some(arg) => span_name(arg, scope, &mut errors),
            None => scope.map(Scope::default_span),
        };
        let err = controls.err.as_ref().and_then(|arg| err(arg, usage, name, &mut errors));
        let mut fields = Fields::default();
        let attrs = controls.attrs.into_iter().map(|arg| (arg, Some(usage)));
        for (arg, direct) in attrs.chain(controls.fields.into_iter().map(|arg| (arg, None))) {
            match name.and_then(|name| resolve(&arg.key.text, name.attributes().iter().copied())) {
                Some(attr) => fields.insert(attr, arg, &mut errors),
                None => misplaced(&arg, name, direct, &mut errors),
            }
        }
        let sibling = controls.sibling.and_then(|arg| sibling(arg, name, &mut errors));
        let parent = controls.parent.map_or(ParentArg::Context, |arg| parent(arg, &mut errors));
        let krate = controls.krate.and_then(|arg| crate_path(&arg.value, &arg.key, &mut errors));
        // Without a name there was an error above; the default is never seen.
        let name = name.unwrap_or(SpanName::LlmRequest);
        errors.finish(Self {
            krate: krate.unwrap_or_else(default_crate),
            name,
            parent,
            sibling,
            fields: fields.list,
            err,
        })
    }
}

impl Controls {
    fn sort(list: Vec<Arg>, errors: &mut Errors) -> Self {
        let mut controls = Self::default();
        for arg in list {
            let text = arg.key.text.as_str();
            let slot = match text {
                "scope" => &mut controls.scope,
                "name" => &mut controls.name,
                "err" => &mut controls.err,
                "headers" | "carrier" | "parent" => &mut controls.parent,
                "sibling" => &mut controls.sibling,
                "crate" => &mut controls.krate,
                "fields" => {
                    match arg.value {
                        Value::List(list) => controls.fields.extend(list),
                        _ => errors.push(&arg.key, "`fields` takes a list: `fields(http.route = \"/v1/completions\")`"),
                    }
                    continue;
                }
                _ => {
                    controls.attrs.push(arg);
                    continue;
                }
            };
            match slot {
                Some(first) if first.key.text != text => {
                    let message = format!("a span has one parent: give `{}` or `{text}`, not both", first.key.text);
                    errors.push(&arg.key, message);
                }
                Some(_) => errors.push(&arg.key, format!("`{text}` is given twice")),
                None => *slot = Some(arg),
            }
        }
        controls
    }
}

/// The text of `name = "text"`.
fn text(arg: &Arg, example: &str, errors: &mut Errors) -> Option<(String, TokenStream)> {
    if let Value::Expr(None, expr) = &arg.value
        && let Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) = ungroup(expr)
    {
        return Some((literal.value(), quote::quote!(#literal)));
    }
    let name = &arg.key.text;
    let message =
        format!("`{name}` takes a string literal, which is checked while compiling: `{name} = \"{example}\"`");
    match &arg.value {
        Value::Expr(_, expr) => errors.push(expr, message),
        Value::Flag | Value::List(_) => errors.push(&arg.key, message),
    }
    None
}

fn scope(arg: &Arg, errors: &mut Errors) -> Option<Scope> {
    let (text, token) = text(arg, Scope::Api.name(), errors)?;
    if let Some(scope) = Scope::from_name(&text) {
        return Some(scope);
    }
    let names = || Scope::ALL.iter().map(|scope| scope.name());
    let message = if text == HISTORICAL_DUPLICATE_SCOPE {
        format!(
            "the scope `{text}` is refused: there the removed `do_tracing()` opened its duplicate `llm_request`; \
             the one `llm_request` of a request is opened in `{}`, and its attributes are set with `journey_record!`",
            Scope::Api.name()
        )
    } else if let Some(nearest) = nearest(&text, names()) {
        format!("unknown scope `{text}`; did you mean `{nearest}`?")
    } else {
        format!("unknown scope `{text}`; the scopes are {}", list(names(), "and"))
    };
    errors.push(token, message);
    None
}

fn span_name(arg: &Arg, scope: Option<Scope>, errors: &mut Errors) -> Option<SpanName> {
    let default = scope.unwrap_or(Scope::Api).default_span();
    let (text, token) = text(arg, default.name(), errors)?;
    let Some(name) = SpanName::from_name(&text) else {
        let names = || SpanName::ALL.iter().map(|name| name.name());
        let message = match nearest(&text, names()) {
            Some(nearest) => format!("unknown span `{text}`; did you mean `{nearest}`?"),
            None => format!("unknown span `{text}`; the spans are {}", list(names(), "and")),
        };
        errors.push(token, message);
        return None;
    };
    // A scope that is not known was reported already, and says nothing about the name.
    if let Some(scope) = scope.filter(|scope| *scope != name.scope()) {
        let owner = name.scope().name();
        let message =
            format!("`{text}` belongs to the scope `{owner}`, not to `{}`: write `scope = \"{owner}\"`", scope.name());
        errors.push(token, message);
    }
    Some(name)
}

fn err(arg: &Arg, usage: Usage, name: Option<SpanName>, errors: &mut Errors) -> Option<ErrFormat> {
    if usage == Usage::Expression {
        let message = "`err` sees what a function returns: it belongs to the attribute `#[journey_span(.., err)]`";
        errors.push(&arg.key, message);
    } else if let Some(name) = name.filter(|name| !name.is_journey()) {
        let message =
            format!("`err` ends a request's span with the error, and `{}` is of no request: leave it out", name.name());
        errors.push(&arg.key, message);
    }
    let format = match &arg.value {
        Value::Flag => Some(ErrFormat::Display),
        Value::List(list) => match list.as_slice() {
            [Arg { key, value: Value::Flag }] if key.text == "Debug" => Some(ErrFormat::Debug),
            [Arg { key, value: Value::Flag }] if key.text == "Display" => Some(ErrFormat::Display),
            _ => None,
        },
        Value::Expr(..) => None,
    };
    if format.is_none() {
        errors.push(&arg.key, "`err` stands alone, or as `err(Debug)` for an error without `Display`");
    }
    format
}

fn parent(arg: Arg, errors: &mut Errors) -> ParentArg {
    let Arg { key, value } = arg;
    match (value, key.text.as_str()) {
        (Value::Expr(None, expr), "headers") => ParentArg::Headers(*expr),
        (Value::Expr(None, expr), "carrier") => ParentArg::Carrier(*expr),
        (Value::Expr(None, expr), _) => ParentArg::Span(*expr),
        (_, name) => {
            errors.push(&key, format!("`{name}` takes an expression: `{name} = &{name}`"));
            ParentArg::Context
        }
    }
}

fn sibling(arg: Arg, name: Option<SpanName>, errors: &mut Errors) -> Option<Expr> {
    let Arg { key, value } = arg;
    if let Some(name) = name.filter(|name| *name != SpanName::LlmRequest) {
        let message = format!(
            "`sibling` joins the `llm_request` spans of one client request, and this is `{}`: leave it out",
            name.name()
        );
        errors.push(&key, message);
    }
    match value {
        Value::Expr(None, expr) => Some(*expr),
        _ => {
            errors.push(&key, "`sibling` takes an expression: `sibling = &first`");
            None
        }
    }
}

/// Says where what is no attribute of the span belongs. `direct` tells it from a field inside `fields(..)`.
fn misplaced(arg: &Arg, name: Option<SpanName>, direct: Option<Usage>, errors: &mut Errors) {
    let text = &arg.key.text;
    if is_bare_scope(arg) {
        return errors.push(&arg.key, format!("expected `scope = \"{text}\"`"));
    }
    if let Some(message) = written_by_layer(text).or_else(|| of_another_macro(text)) {
        return errors.push(&arg.key, message);
    }
    let attr = resolve(text, Attr::ALL.iter().copied());
    let spans = list(attr.into_iter().flat_map(spans_with).map(SpanName::name), "and");
    let events = list(attr.into_iter().flat_map(events_with).map(Event::ident), "or");
    let message = match name {
        // Where scope or name are wrong, no more can be said of a name that some span has.
        None if !spans.is_empty() => return,
        Some(name) if !spans.is_empty() => {
            format!("`{text}` does not belong to `{}`; it belongs to {spans}", name.name())
        }
        _ if !events.is_empty() => format!("`{text}` belongs to an event ({events}): give it to `journey_event!`"),
        _ => {
            let (owner, attrs) = match name {
                Some(name) => (format!("`{}`", name.name()), name.attributes().to_vec()),
                None => ("`journey_span`".to_owned(), recordable().collect()),
            };
            let controls: &[&str] = match direct {
                None => return errors.push(&arg.key, unknown(&arg.key, "attribute", &owner, &attrs, &[])),
                Some(Usage::Attribute) => {
                    &["scope", "name", "headers", "carrier", "parent", "sibling", "fields", "crate", "err"]
                }
                Some(Usage::Expression) => {
                    &["scope", "name", "headers", "carrier", "parent", "sibling", "fields", "crate"]
                }
            };
            unknown(&arg.key, "argument", &owner, &attrs, controls)
        }
    };
    errors.push(&arg.key, message);
}

/// Whether this is `"vllm.api"` without `scope =`.
fn is_bare_scope(arg: &Arg) -> bool {
    matches!(arg.value, Value::Flag) && Scope::from_name(&arg.key.text).is_some()
}

/// Answers habits from `#[tracing::instrument]`.
fn of_another_macro(text: &str) -> Option<String> {
    Some(match text {
        "skip" | "skip_all" => format!("`{text}` is not needed: no function argument is recorded unless it is named"),
        "target" => "the target of a journey span is its scope: write `scope = \"..\"`".to_owned(),
        "level" => "journey spans have the level `INFO`: leave `level` out".to_owned(),
        "ret" => "what a function returns is not recorded: set attributes with `journey_record!`".to_owned(),
        _ => return None,
    })
}
