//! Parse: tokens to arguments that remember where they stood. What they mean is the business of `valid`.

use journey_schema::{Attr, Event};
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Expr, LitStr, Token};

/// The name of an argument: `status`, `finish.status` or `"finish.status"`.
pub(crate) struct Key {
    pub(crate) text: String,
    tokens: TokenStream,
}

/// How a value is turned to text, as in `tracing`.
pub(crate) enum Sigil {
    Display(Token![%]),
    Debug(Token![?]),
}

/// What follows a key.
pub(crate) enum Value {
    /// Nothing: `err`.
    Flag,
    /// Arguments in parentheses: `fields(..)`.
    List(Vec<Arg>),
    /// `= value`, `= %value` or `= ?value`.
    Expr(Option<Sigil>, Box<Expr>),
}

pub(crate) struct Arg {
    pub(crate) key: Key,
    pub(crate) value: Value,
}

/// The arguments of one call.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) list: Vec<Arg>,
    /// The expression behind `..`, which ends the list.
    pub(crate) progress: Option<Progress>,
}

pub(crate) struct Progress {
    pub(crate) dots: Token![..],
    pub(crate) expr: Expr,
}

/// `journey_event!([span,] EVENT, ..)`.
pub(crate) struct EventCall {
    pub(crate) span: Option<Expr>,
    pub(crate) event: Ident,
    pub(crate) args: Args,
}

/// `journey_record!([span,] name = value, ..)`.
pub(crate) struct RecordCall {
    pub(crate) span: Option<Expr>,
    pub(crate) args: Args,
}

impl ToTokens for Key {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.tokens.to_tokens(tokens);
    }
}

impl ToTokens for Sigil {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Display(token) => token.to_tokens(tokens),
            Self::Debug(token) => token.to_tokens(tokens),
        }
    }
}

impl ToTokens for Progress {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.dots.to_tokens(tokens);
        self.expr.to_tokens(tokens);
    }
}

impl Parse for Key {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) {
            let literal: LitStr = input.parse()?;
            return Ok(Self { text: literal.value(), tokens: literal.into_token_stream() });
        }
        // Keywords are names too: `crate`, and the `type` of `event.type`.
        let first =
            input.call(Ident::parse_any).map_err(|error| syn::Error::new(error.span(), "expected `name = value`"))?;
        let mut key = Self { text: first.unraw().to_string(), tokens: first.into_token_stream() };
        while input.peek(Token![.]) && !input.peek(Token![..]) {
            let dot: Token![.] = input.parse()?;
            let part = input.call(Ident::parse_any)?;
            key.text = format!("{}.{}", key.text, part.unraw());
            key.tokens.extend(quote!(#dot #part));
        }
        Ok(key)
    }
}

impl Parse for Arg {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = input.parse()?;
        let value = if input.peek(syn::token::Paren) {
            let content;
            syn::parenthesized!(content in input);
            Value::List(content.parse_terminated(Self::parse, Token![,])?.into_iter().collect())
        } else if input.parse::<Option<Token![=]>>()?.is_some() {
            Value::Expr(parse_sigil(input)?, Box::new(input.parse()?))
        } else {
            Value::Flag
        };
        Ok(Self { key, value })
    }
}

fn parse_sigil(input: ParseStream<'_>) -> syn::Result<Option<Sigil>> {
    Ok(if input.peek(Token![%]) {
        Some(Sigil::Display(input.parse()?))
    } else if input.peek(Token![?]) {
        Some(Sigil::Debug(input.parse()?))
    } else {
        None
    })
}

impl Parse for Args {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut args = Self::default();
        while !input.is_empty() {
            if input.peek(Token![..]) {
                args.progress = Some(Progress { dots: input.parse()?, expr: input.parse()? });
                input.parse::<Option<Token![,]>>()?;
                if !input.is_empty() {
                    return Err(syn::Error::new(input.span(), "`..progress` comes last"));
                }
                break;
            }
            args.list.push(input.parse()?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(args)
    }
}

/// Whether an argument with a value, `name = ..`, comes next.
fn peek_named(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    ahead.parse::<Key>().is_ok() && ahead.peek(Token![=]) && !ahead.peek(Token![==]) && !ahead.peek(Token![=>])
}

/// The bare word that is the whole of the next argument.
fn peek_word(input: ParseStream<'_>) -> Option<Ident> {
    let ahead = input.fork();
    let word = ahead.parse().ok()?;
    (ahead.is_empty() || ahead.peek(Token![,])).then_some(word)
}

fn is_event(ident: &Ident) -> bool {
    Event::from_ident(&ident.to_string()).is_some()
}

/// Whether the event comes next, and not the span: `QUEUED`, or a bare word that is taken for one.
///
/// Of two bare words the first is a variable that holds the span, unless it is an event or written like one.
fn peek_event(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let Ok(first) = ahead.parse::<Ident>() else { return false };
    if is_event(&first) || ahead.is_empty() {
        return true;
    }
    let second = ahead.parse::<Token![,]>().ok().map(|_| peek_word(&ahead));
    match second {
        None => false,
        Some(None) => true,
        Some(Some(second)) => !is_event(&second) && !first.to_string().chars().any(char::is_lowercase),
    }
}

/// The rest of a list whose first item was read.
fn parse_rest(input: ParseStream<'_>) -> syn::Result<Args> {
    if input.is_empty() {
        return Ok(Args::default());
    }
    input.parse::<Token![,]>()?;
    input.parse()
}

impl Parse for EventCall {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        const EXPECTED: &str = "expected an event, as in `journey_event!(QUEUED)` or `journey_event!(&span, QUEUED)`";
        if peek_event(input) {
            let event: Ident = input.parse()?;
            if input.peek(Token![,]) && input.peek2(Token![&]) {
                let message = format!("the span comes before the event: `journey_event!(&span, {event})`");
                return Err(syn::Error::new(event.span(), message));
            }
            return Ok(Self { span: None, event, args: parse_rest(input)? });
        }
        if input.is_empty() || input.peek(Token![..]) || peek_named(input) {
            return Err(syn::Error::new(input.span(), EXPECTED));
        }
        let span: Expr = input.parse()?;
        if let Some(event) = quoted_or_prefixed(&span) {
            let message = format!("an event is written bare, without quotes and prefix: `{}`", event.ident());
            return Err(syn::Error::new_spanned(span, message));
        }
        input.parse::<Option<Token![,]>>()?;
        if input.is_empty() {
            let message = "expected an event after the span, as in `journey_event!(&span, QUEUED)`";
            return Err(syn::Error::new_spanned(span, message));
        }
        let event = input.parse().map_err(|error: syn::Error| syn::Error::new(error.span(), EXPECTED))?;
        Ok(Self { span: Some(span), event, args: parse_rest(input)? })
    }
}

/// The event behind `"QUEUED"`, `"journey.QUEUED"` or `journey.QUEUED`, where a span was expected.
fn quoted_or_prefixed(span: &Expr) -> Option<Event> {
    let text: String = span.to_token_stream().into_iter().map(|token| token.to_string()).collect();
    let text = text.trim_matches('"');
    Event::from_wire_name(text).or_else(|| Event::from_ident(text))
}

impl Parse for RecordCall {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // A bare word that names an attribute is one whose value was forgotten, not a span.
        let forgotten = peek_word(input).is_some_and(|word| Attr::ALL.iter().any(|attr| word == attr.info().argument));
        if input.is_empty() || forgotten || peek_named(input) {
            return Ok(Self { span: None, args: input.parse()? });
        }
        Ok(Self { span: Some(input.parse()?), args: parse_rest(input)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(tokens: TokenStream) -> Result<(Option<String>, String, usize), String> {
        let call: EventCall = syn::parse2(tokens).map_err(|error| error.to_string())?;
        let span = call.span.map(|span| span.to_token_stream().to_string());
        Ok((span, call.event.to_string(), call.args.list.len()))
    }

    #[test]
    fn of_two_bare_words_the_first_is_the_span_unless_it_is_an_event() {
        let parsed = |span: Option<&str>, event: &str, args| Ok((span.map(str::to_owned), event.to_owned(), args));
        assert_eq!(event(quote!(QUEUED)), parsed(None, "QUEUED", 0));
        assert_eq!(event(quote!(span, QUEUED)), parsed(Some("span"), "QUEUED", 0));
        assert_eq!(event(quote!(SPAN, QUEUED, step = 1)), parsed(Some("SPAN"), "QUEUED", 1));
        assert_eq!(event(quote!(span, QUEUD)), parsed(Some("span"), "QUEUD", 0));
        assert_eq!(event(quote!(QUEUD, step)), parsed(None, "QUEUD", 1));
        assert_eq!(event(quote!(FINISHED, length)), parsed(None, "FINISHED", 1));
        assert_eq!(event(quote!(self.spans[0], FINISHED,)), parsed(Some("self . spans [0]"), "FINISHED", 0));
    }

    #[test]
    fn a_call_without_an_event_says_where_it_goes() {
        for call in [quote!(), quote!(status = length, FINISHED), quote!(..progress), quote!(&span, 1)] {
            let message = event(call).unwrap_err();
            assert!(message.starts_with("expected an event, as in `journey_event!(QUEUED)`"), "{message}");
        }
        assert!(event(quote!(journey.QUEUED)).unwrap_err().ends_with("without quotes and prefix: `QUEUED`"));
        assert!(event(quote!(FINISHED status = length)).unwrap_err().contains("expected `,`"));
    }

    #[test]
    fn a_key_is_a_word_a_path_of_words_or_quoted() {
        let args: Args = syn::parse2(quote!(event.type = a, "http.route" = %b, crate = c::d, r#type = ?e)).unwrap();
        let keys: Vec<_> = args.list.iter().map(|arg| arg.key.text.as_str()).collect();
        assert_eq!(keys, ["event.type", "http.route", "crate", "type"]);
        assert!(matches!(args.list[1].value, Value::Expr(Some(Sigil::Display(_)), _)));
        assert!(matches!(args.list[3].value, Value::Expr(Some(Sigil::Debug(_)), _)));
    }
}
