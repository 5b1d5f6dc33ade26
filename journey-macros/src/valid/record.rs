//! The arguments of `journey_record!`.

use journey_schema::{Attr, Event, SpanName};
use proc_macro2::{Span, TokenStream};
use syn::Expr;

use super::{Errors, Field, Fields, crate_path, default_crate, events_with, list, recordable, resolve, spans_with};
use super::{unknown, written_by_layer};
use crate::args::{Arg, RecordCall};

/// A call of `journey_record!` that the schema allows.
pub(crate) struct RecordArgs {
    pub(crate) krate: TokenStream,
    pub(crate) span: Option<Expr>,
    pub(crate) fields: Vec<Field>,
    /// The spans that own all of the attributes.
    pub(crate) owners: Vec<SpanName>,
}

impl RecordArgs {
    pub(crate) fn new(call: RecordCall) -> syn::Result<Self> {
        let mut errors = Errors::default();
        let mut krate = None;
        let mut fields = Fields::default();
        let mut owners = SpanName::ALL.to_vec();
        for arg in call.args.list {
            if arg.key.text == "crate" && krate.is_none() {
                krate = crate_path(&arg.value, &arg.key, &mut errors);
                continue;
            }
            let Some(attr) = resolve(&arg.key.text, recordable()) else {
                errors.push(&arg.key, misplaced(&arg));
                continue;
            };
            match narrow(&owners, attr) {
                Ok(both) => owners = both,
                Err(message) => errors.push(&arg.key, message),
            }
            fields.insert(attr, arg, &mut errors);
        }
        if let Some(progress) = &call.args.progress {
            errors.push(progress, "`..progress` belongs to events: give it to `journey_event!`");
        }
        if fields.given.is_empty() && errors.0.is_none() {
            let message = "nothing to record; name an attribute, as in `journey_record!(prompt_tokens = n)`";
            errors.add(match &call.span {
                Some(span) => syn::Error::new_spanned(span, message),
                None => syn::Error::new(Span::call_site(), message),
            });
        }
        errors.finish(Self { krate: krate.unwrap_or_else(default_crate), span: call.span, fields: fields.list, owners })
    }
}

/// Those of `owners` that have `attr` as well.
fn narrow(owners: &[SpanName], attr: Attr) -> Result<Vec<SpanName>, String> {
    let both: Vec<SpanName> = spans_with(attr).filter(|span| owners.contains(span)).collect();
    if !both.is_empty() {
        return Ok(both);
    }
    let name = attr.info().argument;
    let here = list(spans_with(attr).map(SpanName::name), "or");
    let before = list(owners.iter().map(|owner| owner.name()), "or");
    Err(format!("`{name}` is on {here}, and what stands before it on {before}: record them in two calls"))
}

fn misplaced(arg: &Arg) -> String {
    let text = &arg.key.text;
    if text == "crate" {
        return "`crate` is given twice".to_owned();
    }
    if let Some(message) = written_by_layer(text) {
        return message;
    }
    let events = resolve(text, Attr::ALL.iter().copied()).map(|attr| list(events_with(attr).map(Event::ident), "or"));
    match events.filter(|events| !events.is_empty()) {
        Some(events) => format!("`{text}` belongs to an event ({events}): give it to `journey_event!`"),
        None => unknown(&arg.key, "attribute", "`journey_record!`", &recordable().collect::<Vec<_>>(), &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_one_call_have_a_common_span() {
        assert_eq!(narrow(SpanName::ALL, Attr::RequestId), Ok(vec![SpanName::LlmRequest, SpanName::LlmCore]));
        assert_eq!(narrow(SpanName::ALL, Attr::PromptTokens), Ok(vec![SpanName::LlmRequest]));
        assert_eq!(
            narrow(&[SpanName::LlmCore], Attr::PromptTokens),
            Err("`prompt_tokens` is on `llm_request`, and what stands before it on `llm_core`: \
                 record them in two calls"
                .to_owned())
        );
    }
}
