//! Wire names to schema items, by hash: the readers look up a hundred names for each journey.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use journey_schema::{Attr, Event, SpanName};

use crate::model::{Key, Name};

static KEYS: LazyLock<HashMap<&'static str, Key, RandomState>> = LazyLock::new(|| {
    let latest = Attr::ALL.iter().filter_map(|attr| attr.latest_key().map(|key| (key, Key::Latest(*attr))));
    Attr::ALL.iter().map(|attr| (attr.key(), Key::Known(*attr))).chain(latest).collect()
});

static EVENTS: LazyLock<HashMap<&'static str, Event, RandomState>> =
    LazyLock::new(|| Event::ALL.iter().map(|event| (event.wire_name(), *event)).collect());

/// The attribute key `text`.
pub fn key(text: &str) -> Key {
    KEYS.get(text).cloned().unwrap_or_else(|| Key::Other(text.into()))
}

/// The event name `text`.
pub fn event(text: &str) -> Name<Event> {
    EVENTS.get(text).map_or_else(|| Name::Other(text.into()), |event| Name::Known(*event))
}

/// The span name `text`.
pub fn span_name(text: &str) -> Name<SpanName> {
    SpanName::from_name(text).map_or_else(|| Name::Other(text.into()), Name::Known)
}
