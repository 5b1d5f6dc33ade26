//! Classifies a callsite's metadata once: what it is to us, and which attribute each of its fields is.
//!
//! The classification depends on the metadata alone, so one table serves every layer of the process.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use journey_schema::{Attr, Event, SHADOW_FIELD, Scope, SpanName};
use parking_lot::RwLock;
use tracing_core::Metadata;
use tracing_core::callsite::Identifier;

use crate::placeholder;
use crate::stats::Reason;

/// What a callsite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SiteKind {
    /// A span of the schema.
    Span(SpanName),
    /// The stand-in for spans that were sampled out.
    Placeholder(SpanName),
    /// A span that the schema refuses.
    RefusedSpan(Reason),
    /// An event of the schema.
    Event(Event),
    /// An event with a wire name of the schema in the wrong scope, or with none that it has.
    RefusedEvent(Reason),
    /// The event of a macro, which has handed it to the layer already: this one is for the other layers.
    Shadow,
}

/// What a field of a callsite is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldKey {
    Attr(Attr),
    /// The message (for people who read `fmt`), or an attribute that only the layer writes.
    Ignored,
    Unknown,
}

/// A classified callsite.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) kind: SiteKind,
    pub(crate) fields: Box<[FieldKey]>,
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) place: Place,
}

/// A place in the code, for warnings: each is said once.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
    pub(crate) scope: &'static str,
    /// Of the span or event.
    pub(crate) name: &'static str,
    /// One bit per [`Reason`] already warned of here.
    warned: AtomicU64,
}

impl Place {
    pub(crate) const fn new(file: &'static str, line: u32, scope: &'static str, name: &'static str) -> Self {
        Self { file, line, scope, name, warned: AtomicU64::new(0) }
    }

    /// Whether this is the first time that `reason` comes up here.
    pub(crate) fn first_warning(&self, reason: Reason) -> bool {
        let bit = 1 << reason as u64;
        // The load keeps a callsite that goes wrong on every request from writing to a shared line each time.
        self.warned.load(Relaxed) & bit == 0 && self.warned.fetch_or(bit, Relaxed) & bit == 0
    }
}

/// Targets that are ours to judge. A Rust module path has no dot, so no log line strays in by accident.
const TARGET_PREFIX: &str = "vllm.";

/// Whether the callsite can concern us at all; cheap, and decided by the target alone but for refused names.
pub(crate) fn is_journey(metadata: &Metadata<'_>) -> bool {
    if !metadata.target().starts_with(TARGET_PREFIX) {
        return false;
    }
    known(&metadata.callsite()).is_some() || classify_kind(metadata).is_some()
}

/// Whether the layer wants to be shown the callsite. Per-layer filters ask at every span where others answer otherwise.
pub(crate) fn is_wanted(metadata: &Metadata<'_>) -> bool {
    if !metadata.target().starts_with(TARGET_PREFIX) {
        return false;
    }
    let kind = known(&metadata.callsite()).map(|site| site.kind).or_else(|| classify_kind(metadata));
    kind.is_some_and(|kind| kind != SiteKind::Shadow)
}

/// The classification of a callsite that was classified before, if its first place in the table has it.
fn known(id: &Identifier) -> Option<&'static Site> {
    let (owner, site) = TABLE[slot(id)].get()?;
    (owner == id).then_some(site)
}

fn slot(id: &Identifier) -> usize {
    BuildHasherDefault::<PointerHasher>::default().hash_one(id) as usize % SLOTS
}

fn is_shadow(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.fields().iter().any(|field| field.name() == SHADOW_FIELD)
}

const SLOTS: usize = 2048;

/// Open-addressed by callsite. A slot, once set, never changes: readers take no lock.
static TABLE: [OnceLock<(Identifier, &'static Site)>; SLOTS] = [const { OnceLock::new() }; SLOTS];
/// Where callsites go when the probes find no slot.
static OVERFLOW: RwLock<Option<HashMap<Identifier, &'static Site>>> = RwLock::new(None);
const PROBES: usize = 16;

/// The classification of a callsite; `None` when it is foreign.
pub(crate) fn site(metadata: &'static Metadata<'static>) -> Option<&'static Site> {
    if !metadata.target().starts_with(TARGET_PREFIX) {
        return None;
    }
    let id = metadata.callsite();
    let start = slot(&id);
    for probe in 0..PROBES {
        let slot = &TABLE[(start + probe) % SLOTS];
        let (owner, site) = match slot.get() {
            Some(entry) => entry,
            None => {
                let site = classify(metadata)?;
                slot.get_or_init(|| (id.clone(), site))
            }
        };
        if *owner == id {
            return Some(site);
        }
    }
    if let Some(site) = OVERFLOW.read().as_ref().and_then(|sites| sites.get(&id)) {
        return Some(site);
    }
    let site = classify(metadata)?;
    Some(OVERFLOW.write().get_or_insert_default().entry(id).or_insert(site))
}

fn classify(metadata: &'static Metadata<'static>) -> Option<&'static Site> {
    let kind = classify_kind(metadata)?;
    let fields = metadata.fields().iter().map(|field| match (field.name(), Attr::from_key(field.name())) {
        ("message", _) => FieldKey::Ignored,
        (_, Some(attr)) => field_key(kind, attr),
        (_, None) => FieldKey::Unknown,
    });
    // Leaked once per callsite, like the callsite itself.
    let place =
        Place::new(metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0), metadata.target(), metadata.name());
    Some(Box::leak(Box::new(Site { kind, fields: fields.collect(), metadata, place })))
}

fn field_key(kind: SiteKind, attr: Attr) -> FieldKey {
    let known = match kind {
        SiteKind::Event(event) if event.reserved().contains(&attr) => return FieldKey::Ignored,
        SiteKind::Event(event) => event.attributes().any(|known| known == attr),
        SiteKind::Span(span) => span.attributes().contains(&attr),
        // What a refused `llm_request` brings may be merged into the true one.
        SiteKind::RefusedSpan(_) => SpanName::LlmRequest.attributes().contains(&attr),
        SiteKind::Placeholder(_) | SiteKind::RefusedEvent(_) | SiteKind::Shadow => false,
    };
    if known { FieldKey::Attr(attr) } else { FieldKey::Unknown }
}

fn classify_kind(metadata: &Metadata<'_>) -> Option<SiteKind> {
    let scope = Scope::from_name(metadata.target());
    let name = metadata.name();
    if metadata.is_span() {
        if let Some(name) = placeholder::name_of(metadata) {
            return Some(SiteKind::Placeholder(name));
        }
        return Some(match (scope, SpanName::from_name(name)) {
            (None, _) => SiteKind::RefusedSpan(Reason::UnknownScope),
            (Some(scope), Some(span)) if span.scope() == scope => SiteKind::Span(span),
            (Some(_), _) => SiteKind::RefusedSpan(Reason::UnknownSpan),
        });
    }
    if is_shadow(metadata) {
        return Some(SiteKind::Shadow);
    }
    // A log line under one of our targets keeps tracing's default name, "event file:line": not ours.
    match Event::from_wire_name(name) {
        Some(event) if Some(event.scope()) == scope => Some(SiteKind::Event(event)),
        Some(_) if scope.is_none() => Some(SiteKind::RefusedEvent(Reason::UnknownScope)),
        Some(_) => Some(SiteKind::RefusedEvent(Reason::UnknownEvent)),
        None if ["api.", "journey.", "step."].iter().any(|prefix| name.starts_with(prefix)) => {
            Some(SiteKind::RefusedEvent(Reason::UnknownEvent))
        }
        None => None,
    }
}

/// Hashes the pointer inside an [`Identifier`]; a multiplication spreads its aligned low bits.
#[derive(Default)]
struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
