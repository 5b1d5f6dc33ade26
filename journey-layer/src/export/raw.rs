//! Spans that were made with the OpenTelemetry API: what they hold, and how that is kept bounded.

use opentelemetry::trace::{Event, Link, Status};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::propagation::MAX_TRACESTATE;
use crate::record::truncate;

/// Bytes that the span holds.
pub(crate) fn size(span: &SpanData) -> usize {
    let description = match &span.status {
        Status::Error { description } => description.len(),
        Status::Unset | Status::Ok => 0,
    };
    let event = |event: &Event| size_of::<Event>() + event.name.len() + attributes_size(&event.attributes);
    // How long a trace state is, only a copy would tell.
    let link = |link: &Link| size_of::<Link>() + MAX_TRACESTATE + attributes_size(&link.attributes);
    size_of::<SpanData>()
        + MAX_TRACESTATE
        + span.name.len()
        + description
        + attributes_size(&span.attributes)
        + span.events.iter().map(event).sum::<usize>()
        + span.links.iter().map(link).sum::<usize>()
}

fn attributes_size(attributes: &[KeyValue]) -> usize {
    let value = |value: &Value| match value {
        Value::String(text) => text.as_str().len(),
        Value::Array(Array::String(texts)) => {
            texts.iter().map(|text| size_of::<StringValue>() + text.as_str().len()).sum()
        }
        // On the wire each has two tags and a length, and a negative integer ten bytes.
        Value::Array(Array::I64(numbers)) => 13 * numbers.len(),
        Value::Array(Array::F64(numbers)) => 11 * numbers.len(),
        Value::Array(Array::Bool(values)) => 4 * values.len(),
        _ => 0,
    };
    attributes.iter().map(|pair| size_of::<KeyValue>() + pair.key.as_str().len() + value(&pair.value)).sum()
}

/// Cuts every text of the span after `limit` bytes, as the layer cuts those of its own. How many were cut.
pub(crate) fn cut(span: &mut SpanData, limit: usize) -> u64 {
    let mut num_cut = 0;
    let mut shorter = |text: &str| {
        let is_long = text.len() > limit;
        num_cut += u64::from(is_long);
        is_long.then(|| truncate(text, limit).to_owned())
    };
    if let Status::Error { description } = &mut span.status
        && let Some(short) = shorter(description)
    {
        *description = short.into();
    }
    for event in &mut span.events.events {
        if let Some(short) = shorter(&event.name) {
            event.name = short.into();
        }
    }
    let of_events = span.events.events.iter_mut().flat_map(|event| &mut event.attributes);
    let of_links = span.links.links.iter_mut().flat_map(|link| &mut link.attributes);
    for pair in span.attributes.iter_mut().chain(of_events).chain(of_links) {
        let texts = match &mut pair.value {
            Value::String(text) => std::slice::from_mut(text),
            Value::Array(Array::String(texts)) => texts.as_mut_slice(),
            _ => continue,
        };
        for text in texts {
            if let Some(short) = shorter(text.as_str()) {
                *text = short.into();
            }
        }
    }
    num_cut
}
