//! The arguments of `journey_event!`.

use journey_schema::{Attr, Event, SpanName, nearest};
use proc_macro2::{Ident, TokenStream};
use syn::Expr;

use super::{Errors, Field, Fields, crate_path, default_crate, events_with, list, resolve, settable, spans_with};
use super::{unknown, written_by_layer};
use crate::args::{Arg, EventCall};

/// A call of `journey_event!` that the schema allows.
pub(crate) struct EventArgs {
    pub(crate) krate: TokenStream,
    pub(crate) span: Option<Expr>,
    pub(crate) event: Event,
    /// In the order in which they were written.
    pub(crate) fields: Vec<Field>,
    pub(crate) progress: Option<Expr>,
}

impl EventArgs {
    pub(crate) fn new(call: EventCall) -> syn::Result<Self> {
        let mut errors = Errors::default();
        let Some(event) = Event::from_ident(&call.event.to_string()) else {
            // Without the event there is nothing to hold its arguments against.
            return Err(syn::Error::new(call.event.span(), unknown_event(&call.event)));
        };
        let mut krate = None;
        let mut fields = Fields::default();
        for arg in call.args.list {
            if arg.key.text == "crate" && krate.is_none() {
                krate = crate_path(&arg.value, &arg.key, &mut errors);
            } else if let Some(attr) = resolve(&arg.key.text, settable(event)) {
                fields.insert(attr, arg, &mut errors);
            } else {
                errors.push(&arg.key, misplaced(&arg, event));
            }
        }
        if let Some(progress) = &call.args.progress
            && event.span() != SpanName::LlmCore
        {
            errors.push(progress, format!("`{}` carries no progress; only the events of `llm_core` do", event.ident()));
        }
        for attr in event.required().iter().filter(|attr| !fields.has(**attr)) {
            errors.add(syn::Error::new(call.event.span(), missing(event, *attr)));
        }
        let progress = call.args.progress.map(|progress| progress.expr);
        errors.finish(Self {
            krate: krate.unwrap_or_else(default_crate),
            span: call.span,
            event,
            fields: fields.list,
            progress,
        })
    }
}

fn unknown_event(ident: &Ident) -> String {
    let text = ident.to_string();
    let idents = || Event::ALL.iter().map(|event| event.ident());
    match nearest(&text, idents()) {
        Some(nearest) => format!("unknown event `{text}`; did you mean `{nearest}`?"),
        None => format!("unknown event `{text}`; the events are {}", list(idents(), "and")),
    }
}

fn missing(event: Event, attr: Attr) -> String {
    let (name, argument) = (event.ident(), attr.info().argument);
    match attr.info().ty {
        journey_schema::AttributeType::OneOf(values) => {
            format!("`{name}` needs `{argument}`: add `{argument} = ..`, one of {}", list(values.iter().copied(), "or"))
        }
        _ => format!("`{name}` needs `{argument}`: add `{argument} = ..`, the {}", attr.info().doc),
    }
}

/// Says where an argument that is not the event's belongs.
fn misplaced(arg: &Arg, event: Event) -> String {
    let (text, name) = (&arg.key.text, event.ident());
    if text == "crate" {
        return "`crate` is given twice".to_owned();
    }
    if let Some(message) = written_by_layer(text) {
        return message;
    }
    let known: Vec<Attr> = settable(event).collect();
    let Some(attr) = resolve(text, Attr::ALL.iter().copied()) else {
        return unknown(&arg.key, "argument", &format!("`{name}`"), &known, &[]);
    };
    let events = list(events_with(attr).map(Event::ident), "or");
    let spans = list(spans_with(attr).map(SpanName::name), "and");
    match (events.is_empty(), spans.is_empty()) {
        (false, _) => format!("`{text}` does not belong to `{name}`; it belongs to {events}"),
        (true, false) => format!("`{text}` is an attribute of the span {spans}: set it with `journey_record!`"),
        (true, true) => unknown(&arg.key, "argument", &format!("`{name}`"), &known, &[]),
    }
}
