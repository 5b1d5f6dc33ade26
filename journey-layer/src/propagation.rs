//! W3C Trace Context in and out: what a span's headers or carrier say, and the carrier for the engine core.

use std::collections::HashMap;

use journey_schema::carrier;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::__private::with_layer;
use crate::headers::Headers;
use crate::stats::{Reason, Stats};

/// The map that crosses the API / core boundary: `traceparent`, `tracestate`, `x-vllm-journey-sampled`.
pub type Carrier = HashMap<String, String>;

/// The carrier for the engine core: what the core's `journey_span!(carrier = ..)` needs to open its `llm_core` under
/// this `llm_request`, in this process or another.
///
/// Empty where the request is sampled out (or there is no layer): the core then opens no span.
///
/// ```
/// let _capture = journey_layer::testing::capture();
/// let span = journey_layer::macros::journey_span!(scope = "vllm.api");
/// let carrier = journey_layer::handoff(&span);
/// assert_eq!(carrier["x-vllm-journey-sampled"], "1");
/// assert!(carrier["traceparent"].starts_with("00-"));
/// ```
pub fn handoff(span: &tracing::Span) -> Carrier {
    with_layer(span, |layer, id| layer.context(id)).flatten().map_or_else(Carrier::new, |context| inject(&context))
}

/// What headers or a carrier said.
pub(crate) struct Remote {
    /// The parent, if a valid `traceparent` named one. Its trace state is without the journey member.
    pub(crate) parent: Option<SpanContext>,
    /// `x-vllm-journey-sampled: 1` (carriers only).
    pub(crate) sampled: bool,
    /// The tracestate says that the parent is an `llm_request` (carriers only).
    pub(crate) from_journey: bool,
}

/// Longest tracestate that is kept, bytes (W3C Trace Context, "tracestate Limits").
const MAX_TRACESTATE: usize = 512;
const MAX_MEMBERS: usize = 32;

/// Reads the trace headers of `source`. From outside (`trusted` is false) journey members are stripped and counted.
pub(crate) fn extract(source: &dyn Headers, trusted: bool, stats: &Stats) -> Remote {
    let mut sampled = false;
    source.for_each(carrier::JOURNEY_SAMPLED, &mut |value| {
        if trusted {
            sampled = value.trim_ascii() == carrier::SAMPLED.as_bytes();
        } else {
            stats.span(Reason::ForgedHeader);
        }
    });
    let mut parent = None;
    let mut values = 0;
    source.for_each(carrier::TRACEPARENT, &mut |value| {
        values += 1;
        parent = parse_traceparent(value.trim_ascii());
        if parent.is_none() {
            stats.span(Reason::InvalidTraceparent);
        }
    });
    if values > 1 {
        stats.span(Reason::InvalidTraceparent);
        parent = None;
    }
    let Some((trace_id, span_id, flags)) = parent else {
        return Remote { parent: None, sampled, from_journey: false };
    };
    let mut from_journey = false;
    let state = tracestate(source, stats).map_or(TraceState::NONE, |state| match state.get(carrier::TRACESTATE_KEY) {
        None => state,
        Some(value) => {
            if trusted {
                from_journey = value == carrier::TRACESTATE_VALUE;
            } else {
                stats.span(Reason::ForgedHeader);
            }
            state.delete(carrier::TRACESTATE_KEY).unwrap_or(TraceState::NONE)
        }
    });
    Remote { parent: Some(SpanContext::new(trace_id, span_id, flags, true, state)), sampled, from_journey }
}

/// The carrier of a sampled `llm_request`.
fn inject(context: &SpanContext) -> Carrier {
    let state = context
        .trace_state()
        .insert(carrier::TRACESTATE_KEY, carrier::TRACESTATE_VALUE)
        .expect("the schema's tracestate member is a valid one");
    let traceparent = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    HashMap::from([
        (carrier::TRACEPARENT.to_owned(), traceparent),
        (carrier::TRACESTATE.to_owned(), state.header()),
        (carrier::JOURNEY_SAMPLED.to_owned(), carrier::SAMPLED.to_owned()),
    ])
}

/// `version-trace_id-span_id-flags`, lower-case hex (W3C Trace Context, "traceparent Header").
fn parse_traceparent(value: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let dash = |at: usize| value.get(at) == Some(&b'-');
    if !(dash(2) && dash(35) && dash(52)) {
        return None;
    }
    let version = hex(&value[..2])?;
    // A later version may append fields behind another dash; version ff is forbidden, version 00 has nothing more.
    if version == 0xff || (version == 0 && value.len() != 55) || (value.len() > 55 && !dash(55)) {
        return None;
    }
    let trace_id = TraceId::from(hex(&value[3..35])?);
    let span_id = SpanId::from(hex(&value[36..52])? as u64);
    let flags = TraceFlags::new(hex(value.get(53..55)?)? as u8);
    (trace_id != TraceId::INVALID && span_id != SpanId::INVALID).then_some((
        trace_id,
        span_id,
        flags & (TraceFlags::SAMPLED | TraceFlags::new(0x02)),
    ))
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// All `tracestate` headers as one list; `None` (and counted) when it is not valid.
fn tracestate(source: &dyn Headers, stats: &Stats) -> Option<TraceState> {
    let mut list = Vec::new();
    let mut too_long = false;
    source.for_each(carrier::TRACESTATE, &mut |value| {
        too_long |= list.len() + value.len() > MAX_TRACESTATE;
        if !too_long {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(value);
        }
    });
    if list.is_empty() && !too_long {
        return None;
    }
    let state = (!too_long && list.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))).then(|| {
        let text = String::from_utf8(list).ok()?;
        let members: Vec<_> = text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
        if members.len() > MAX_MEMBERS {
            return None;
        }
        let pairs: Option<Vec<_>> = members.iter().map(|member| member.split_once('=')).collect();
        TraceState::from_key_value(pairs?).ok()
    });
    let state = state.flatten();
    if state.is_none() {
        stats.span(Reason::InvalidTracestate);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(pairs: &[(&str, &str)], trusted: bool) -> (Remote, crate::JourneyStats) {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let stats = Stats::new();
        (extract(&map, trusted, &stats), stats.snapshot(Default::default()))
    }

    #[test]
    fn a_carrier_survives_the_way_to_the_core() {
        let (remote, _) = read(&[("traceparent", TRACEPARENT), ("tracestate", "rojo=00f067,congo=t61")], false);
        let parent = remote.parent.unwrap();
        let (back, stats) = {
            let stats = Stats::new();
            (extract(&inject(&parent), true, &stats), stats.snapshot(Default::default()))
        };
        assert!(back.sampled && back.from_journey && stats.noted.is_empty());
        assert_eq!(back.parent.unwrap(), parent, "and the journey member is not passed on");
    }

    #[test]
    fn a_malformed_traceparent_is_ignored_and_counted() {
        let long = format!("{TRACEPARENT}-00");
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
            &long,
        ] {
            let (remote, stats) = read(&[("traceparent", bad)], false);
            assert!(remote.parent.is_none(), "{bad:?}");
            assert_eq!(stats.noted[&Reason::InvalidTraceparent], 1, "{bad:?}");
        }
        let later = long.replacen("00", "01", 1);
        assert!(read(&[("traceparent", &later)], false).0.parent.is_some(), "a later version may say more");
    }

    #[test]
    fn a_bad_tracestate_costs_only_itself() {
        let long = "a=".to_owned() + &"x".repeat(600);
        let many = (0..40).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        for bad in [&long, &many, "kéy=1", "novalue", "UPPER=1"] {
            let (remote, stats) = read(&[("traceparent", TRACEPARENT), ("tracestate", bad)], false);
            assert_eq!(*remote.parent.unwrap().trace_state(), TraceState::NONE, "{bad}");
            assert_eq!(stats.noted[&Reason::InvalidTracestate], 1, "{bad}");
        }
    }

    #[test]
    fn journey_members_from_outside_are_stripped() {
        let headers = [
            ("traceparent", TRACEPARENT),
            ("tracestate", "journey=llm_request,rojo=1"),
            ("x-vllm-journey-sampled", "1"),
        ];
        let (remote, stats) = read(&headers, false);
        assert!(!remote.sampled && !remote.from_journey);
        assert_eq!(remote.parent.unwrap().trace_state().header(), "rojo=1");
        assert_eq!(stats.noted[&Reason::ForgedHeader], 2);
        let (remote, _) = read(&headers, true);
        assert!(remote.sampled && remote.from_journey);
        assert!(!read(&[("x-vllm-journey-sampled", "true")], true).0.sampled, "only 1 means yes");
    }
}
