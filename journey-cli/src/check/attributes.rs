//! Rules about attributes: there, of the right type, in the right place.

use journey_schema::{Attr, AttributeType, Event, SpanName, nearest};

use super::local::Local;
use super::rules::Rule;
use crate::model::{Attribute, Attributes, Key, SpanEvent, Value};
use crate::time::seconds;

/// The seven that the removed duplicate span carried.
const SEVEN: [Attr; 7] = [
    Attr::PromptTokens,
    Attr::CompletionTokens,
    Attr::RequestId,
    Attr::TopP,
    Attr::MaxTokens,
    Attr::Temperature,
    Attr::N,
];

/// Attributes that events of a span lack, gathered so that one fault is one finding.
#[derive(Default)]
pub(super) struct Lacking(Vec<(Attr, Vec<&'static str>)>);

impl Lacking {
    fn add(&mut self, attr: Attr, event: Event) {
        match self.0.iter_mut().find(|(of, _)| *of == attr) {
            Some((_, events)) if events.contains(&event.wire_name()) => {}
            Some((_, events)) => events.push(event.wire_name()),
            None => self.0.push((attr, vec![event.wire_name()])),
        }
    }

    pub(super) fn report(self, local: &mut Local<'_>) {
        for (attr, events) in self.0 {
            local.find(Rule::MissingAttribute, format!("{} without {}", events.join(", "), attr.key()));
        }
    }
}

/// Checks the attributes of one event.
pub(super) fn check_event(local: &mut Local<'_>, event: &SpanEvent, kind: Event, lacking: &mut Lacking) {
    let on_the_wire = match kind {
        Event::Scheduled => &[Attr::Phase, Attr::ScheduleKind][..],
        Event::Queued | Event::FirstToken | Event::Preempted | Event::Finished => &[Attr::Phase],
        _ => &[],
    };
    for attr in kind.reserved().iter().chain(kind.required()).chain(on_the_wire) {
        if event.attributes.attr(*attr).is_none() && !local.dialects.may_lack(*attr) {
            lacking.add(*attr, kind);
        }
    }
    for attribute in &event.attributes {
        match &attribute.key {
            Key::Known(attr) | Key::Latest(attr) => {
                if kind.attributes().any(|owned| owned == *attr) {
                    check_value(local, attribute, *attr, kind.wire_name());
                } else {
                    local.find(
                        Rule::MisplacedAttribute,
                        format!("{} does not belong on {}", attribute.key.as_str(), kind.wire_name()),
                    );
                }
            }
            Key::Other(key) => misspelt(local, key, kind.attributes(), kind.wire_name()),
        }
    }
    if let Some(Value::Str(given)) = event.attributes.attr(Attr::EventType)
        && **given != *kind.ident()
    {
        let given = local.shorten(given);
        local.find(Rule::EventTypeMismatch, format!("{} says event.type `{given}`", kind.wire_name()));
    }
}

/// Checks the attributes of a span of the schema.
pub(super) fn check_span(local: &mut Local<'_>, name: SpanName) {
    let span = local.span;
    let owned = || name.attributes().iter().chain(name.derived()).copied();
    for attribute in &span.attributes {
        match &attribute.key {
            Key::Known(attr) | Key::Latest(attr) => check_value(local, attribute, *attr, name.name()),
            Key::Other(key) => misspelt(local, key, owned(), name.name()),
        }
    }
    match name {
        SpanName::LlmRequest => seven(local),
        SpanName::LlmCore if span.attributes.attr(Attr::RequestId).is_none() => {
            local.find(Rule::MissingAttribute, "llm_core without gen_ai.request.id".to_owned());
        }
        _ => {}
    }
    latencies(local, name);
}

/// What a request must carry depends on how far it came: one that was refused has sampled nothing.
fn seven(local: &mut Local<'_>) {
    let span = local.span;
    let departed = span.event(Event::Departed).is_some();
    let handed_off = departed || span.event(Event::HandoffToCore).is_some();
    let missing: Vec<&str> = SEVEN
        .into_iter()
        .filter(|attr| match attr {
            Attr::CompletionTokens => departed,
            Attr::RequestId => true,
            _ => handed_off,
        })
        .filter(|attr| span.attributes.attr(*attr).is_none())
        .map(Attr::key)
        .collect();
    if !missing.is_empty() {
        local.find(Rule::MissingAttribute, format!("llm_request without {}", missing.join(", ")));
    }
}

fn check_value(local: &mut Local<'_>, attribute: &Attribute, attr: Attr, on: &str) {
    let key = attribute.key.as_str();
    let wanted = match (attr.info().ty, &attribute.value) {
        (AttributeType::Int, Value::Int(_)) | (AttributeType::Str, Value::Str(_)) => return,
        (AttributeType::Float, Value::Float(number)) if number.is_finite() => return,
        (AttributeType::OneOf(values), Value::Str(text)) => {
            if !values.contains(&&**text) {
                let near = nearest(text, values.iter().copied());
                let hint = near
                    .map_or_else(|| format!("one of {}", values.join(", ")), |near| format!("did you mean {near}?"));
                let text = local.shorten(text);
                local.find(Rule::UnknownValue, format!("{key} `{text}` on {on}; {hint}"));
            }
            return;
        }
        (AttributeType::Int, _) => "an integer",
        (AttributeType::Float, _) => "a finite double",
        (AttributeType::Str | AttributeType::OneOf(_), _) => "a string",
    };
    let value = local.shorten(&attribute.value.to_string());
    local.find(Rule::WrongType, format!("{key} on {on} is {} ({value}), not {wanted}", attribute.value.type_name()));
}

/// Foreign attributes are welcome; those that are a slip of the finger away from the schema's are not.
fn misspelt(local: &mut Local<'_>, key: &str, owned: impl Iterator<Item = Attr>, on: &str) {
    let near = nearest(key, owned.flat_map(|attr| [Some(attr.key()), attr.latest_key()]).flatten());
    if let Some(near) = near.filter(|near| edit_is_small(key, near)) {
        let key = local.shorten(key);
        local.find(Rule::UnknownAttribute, format!("{key} on {on}; did you mean {near}?"));
    }
}

/// Long dotted keys share most of their letters with their neighbours: only the last part may differ, by a little.
fn edit_is_small(key: &str, near: &str) -> bool {
    let (prefix, last) = near.rsplit_once('.').unwrap_or(("", near));
    let (key_prefix, key_last) = key.rsplit_once('.').unwrap_or(("", key));
    match (prefix == key_prefix, last == key_last) {
        (true, _) => nearest(key_last, [last]).is_some() && key_last.len().abs_diff(last.len()) <= 2,
        (false, same) => same && nearest(key_prefix, [prefix]).is_some(),
    }
}

/// Latencies that the span carries must follow from its own events.
fn latencies(local: &mut Local<'_>, name: SpanName) {
    for attr in name.derived() {
        let Some(given) = local.span.attributes.attr(*attr).and_then(Value::as_f64) else { continue };
        let Some(derived) = crate::latency::derive(local.span, *attr) else {
            local.find(
                Rule::LatencyMismatch,
                format!("{} is {}, but its events are not here", attr.key(), seconds(given)),
            );
            continue;
        };
        if !given.is_finite() || (given - derived).abs() > 0.001 + 0.01 * derived.abs() {
            local.find(
                Rule::LatencyMismatch,
                format!("{} is {}, its events give {}", attr.key(), seconds(given), seconds(derived)),
            );
        }
    }
}
