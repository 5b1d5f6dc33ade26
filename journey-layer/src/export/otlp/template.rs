//! Parts of the encoding that are the same each time, made once.
//!
//! ```text
//! KeyValue of an event   1a ·· 0a 0d "scheduler.step" 12 │ 02 18 11        the bar: what comes before is a template
//!                           └ length, filled in          └ AnyValue
//! ```

use journey_schema::{AbortReason, Attr, Event, FinishStatus, Phase, ScheduleKind, SpanName};

use crate::export::convert::Semconv;
use crate::export::otlp::wire::Reverse;
use crate::record::ValueRef;

/// Bytes that are copied as one block of a fixed size, the last `len` of them meant. A copy of a size that is known while
/// compiling is a handful of wide moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<const N: usize> {
    pub(crate) bytes: [u8; N],
    pub(crate) len: usize,
}

impl<const N: usize> Block<N> {
    fn new(write: impl FnOnce(&mut Reverse)) -> Self {
        let mut out = Reverse::default();
        write(&mut out);
        let (written, mut bytes) = (out.as_slice(), [0; N]);
        bytes[N - written.len()..].copy_from_slice(written);
        Self { bytes, len: written.len() }
    }
}

/// What stands before an attribute's `AnyValue`: a block whose second byte is the length of the `KeyValue`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    pub(crate) block: Block<48>,
    /// Bytes of the `KeyValue` that the prefix holds.
    pub(crate) own: usize,
}

impl Prefix {
    fn new(field: u32, key: &str) -> Self {
        let block = Block::new(|out| {
            // KeyValue: value = 2, key = 1.
            out.varint(2 << 3 | 2);
            out.bytes(1, key.as_bytes());
            out.message(field, 0);
        });
        Self { own: block.len - 2, block }
    }
}

/// The fields of the messages that attributes stand in (`Span.attributes`, `Event.attributes`).
pub(crate) const SPAN_ATTRIBUTES: u32 = 9;
pub(crate) const EVENT_ATTRIBUTES: u32 = 3;

const ATTRS: usize = Attr::ALL.len();
const EVENTS: usize = Event::ALL.len();

/// All templates of one encoder.
#[derive(Debug)]
pub(crate) struct Templates {
    /// By [`Attr`]: under its first name, and under its second where it has two.
    pub(crate) span: [(Prefix, Option<Prefix>); ATTRS],
    pub(crate) event: [(Prefix, Option<Prefix>); ATTRS],
    /// By [`Event`]: the name and, but for events of steps, the first attributes, up to the value of the one that holds
    /// seconds.
    pub(crate) names: [Block<80>; EVENTS],
    /// Whole attributes of events, by the member of the enumeration.
    pub(crate) phases: [Block<48>; Phase::ALL.len()],
    pub(crate) kinds: [Block<48>; ScheduleKind::ALL.len()],
    pub(crate) statuses: [Block<48>; FinishStatus::ALL.len()],
    pub(crate) reasons: [Block<48>; AbortReason::ALL.len()],
}

impl Templates {
    pub(crate) fn new(semconv: Semconv) -> Self {
        let prefixes = |field: u32| {
            std::array::from_fn(|index| {
                let attr = Attr::ALL[index];
                let prefix = |key: &str| Prefix::new(field, key);
                match (semconv, attr.latest_key()) {
                    (Semconv::Frozen, _) | (_, None) => (prefix(attr.key()), None),
                    (Semconv::Latest, Some(latest)) => (prefix(latest), None),
                    (Semconv::Both, Some(latest)) => (prefix(attr.key()), Some(prefix(latest))),
                }
            })
        };
        Self {
            span: prefixes(SPAN_ATTRIBUTES),
            event: prefixes(EVENT_ATTRIBUTES),
            names: std::array::from_fn(|index| name(Event::ALL[index])),
            phases: std::array::from_fn(|index| member(Attr::Phase, Phase::VALUES[index])),
            kinds: std::array::from_fn(|index| member(Attr::ScheduleKind, ScheduleKind::VALUES[index])),
            statuses: std::array::from_fn(|index| member(Attr::FinishStatus, FinishStatus::VALUES[index])),
            reasons: std::array::from_fn(|index| member(Attr::Reason, AbortReason::VALUES[index])),
        }
    }
}

fn name(event: Event) -> Block<80> {
    Block::new(|out| {
        let seconds = match event.span() {
            SpanName::LlmRequest => Some(Attr::ApiTsMonotonic),
            SpanName::LlmCore => Some(Attr::TsMonotonic),
            SpanName::SchedulerStep | SpanName::ModelForward => None,
        };
        if let Some(attr) = seconds {
            attribute(out, EVENT_ATTRIBUTES, attr.key(), ValueRef::Float(0.0));
            out.take_back(size_of::<f64>());
        }
        if event.span() == SpanName::LlmCore {
            attribute(out, EVENT_ATTRIBUTES, Attr::EventType.key(), ValueRef::Static(event.ident()));
        }
        out.bytes(2, event.wire_name().as_bytes());
    })
}

fn member(attr: Attr, value: &'static str) -> Block<48> {
    Block::new(|out| attribute(out, EVENT_ATTRIBUTES, attr.key(), ValueRef::Static(value)))
}

/// KeyValue: value = 2, key = 1. AnyValue: string = 1, int = 3, double = 4; a member of a `oneof` is never left out.
pub(crate) fn attribute(out: &mut Reverse, field: u32, key: &str, value: ValueRef<'_>) {
    let mark = out.len();
    match value {
        ValueRef::Int(value) => out.uint(3, value as u64),
        ValueRef::Float(value) => out.fixed64(4, value.to_bits()),
        ValueRef::Static(text) | ValueRef::Text(text) => out.bytes(1, text.as_bytes()),
    }
    out.message(2, mark);
    out.bytes(1, key.as_bytes());
    out.message(field, mark);
}
