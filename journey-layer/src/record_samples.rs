//! Random records, for the tests of what reads them.

use journey_schema::{AbortReason, Attr, Event, FinishStatus, Phase, SpanName};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use proptest::prelude::*;

use crate::lifecycle::LiveSpan;
use crate::record::{OwnedValue, ParentSpan, SpanRecord};
use crate::visitor::{EventFields, More};

fn value() -> impl Strategy<Value = (Attr, OwnedValue)> {
    use crate::record::OwnedValue::{Float, Int, Text};
    let attr = prop::sample::select(Attr::ALL);
    let value = prop_oneof![
        any::<i64>().prop_map(Int),
        (-1e12..1e12f64).prop_map(Float),
        Just(Float(0.0)),
        ".{0,200}".prop_map(|text| Text(text.into())),
    ];
    (attr, value)
}

type Said = (Event, i64, EventFields);

/// What an event of a span of this name may say, and some attributes that it may not.
fn said(name: SpanName) -> impl Strategy<Value = Said> {
    let events: Vec<_> = Event::ALL.iter().copied().filter(|event| event.span() == name).collect();
    let events = if events.is_empty() { vec![Event::BatchSummary] } else { events };
    let few = (
        prop::option::of(prop::sample::select(Phase::ALL)),
        prop::option::of(prop::sample::select(FinishStatus::ALL)),
        prop::option::of(prop::sample::select(AbortReason::ALL)),
    );
    let counters = (any::<[i64; 7]>(), any::<u8>());
    let others = prop::collection::vec(value(), 0..12);
    (prop::sample::select(events), 0..i64::MAX / 4, few, counters, others).prop_map(
        |(event, at, (phase, status, reason), (progress, given), others)| {
            let given = given & 0x7f;
            let more = Some(Box::new(More { others, problems: Vec::new() }));
            (event, at, EventFields { progress, given, phase, kind: None, status, reason, more })
        },
    )
}

prop_compose! {
    pub(crate) fn record()(name in prop::sample::select(SpanName::ALL))(
        name in Just(name),
        ids in any::<(u128, u64, Option<(u64, bool)>)>(),
        times in (0..i64::MAX / 4, 0..i64::MAX / 4, 0..i64::MAX / 4),
        attributes in prop::collection::vec(value(), 0..9),
        events in prop::collection::vec(said(name), 0..8),
        links in prop::collection::vec(any::<(u128, u64, bool)>(), 0..3),
        error in prop::option::of(".{0,40}"),
        state in prop::option::of(Just("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")),
        dropped in 0..3u32,
    ) -> Box<SpanRecord> {
        let record = SpanRecord::new(name, TraceId::from(ids.0), SpanId::from(ids.1), times.0, times.2);
        let mut live = LiveSpan { record: Box::new(record) };
        for (event, at, fields) in &events {
            live.event(*event, fields, *at, usize::MAX);
        }
        let mut record = live.record;
        record.end_ns = times.1;
        record.parent = ids.2.filter(|(id, _)| *id != 0).map(|(id, is_remote)| ParentSpan { span_id: SpanId::from(id), is_remote });
        record.set_trace_state(&state.map_or(TraceState::NONE, |state| state.parse().unwrap()));
        record.dropped_events = dropped;
        if let Some(error) = error {
            record.set_error(error);
        }
        for (attr, value) in &attributes {
            record.set_attribute(*attr, value.as_ref());
        }
        for (trace, span, remote) in links {
            let (trace, span) = (TraceId::from(trace), SpanId::from(span));
            record.push_link(SpanContext::new(trace, span, TraceFlags::SAMPLED, remote, TraceState::NONE));
        }
        record
    }
}
