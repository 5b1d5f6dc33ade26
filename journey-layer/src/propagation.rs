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
pub(crate) const MAX_TRACESTATE: usize = 512;
/// Members longer than this go first where something must go.
const LONG_MEMBER: usize = 128;
/// Most members, and the longest one, that a valid list has.
const MAX_MEMBERS: usize = 32;
const MAX_MEMBER: usize = 256 + "=".len() + 256;

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
    let (state, ours) = tracestate(source, stats);
    if ours.is_some() && !trusted {
        stats.span(Reason::ForgedHeader);
    }
    let from_journey = trusted && ours == Some(true);
    Remote { parent: Some(SpanContext::new(trace_id, span_id, flags, true, state)), sampled, from_journey }
}

/// An active OpenTelemetry context as a parent: its trace state came from outside as well, past [`extract`], and is held to
/// the same bounds.
pub(crate) fn adopt(active: SpanContext, stats: &Stats) -> SpanContext {
    if *active.trace_state() == TraceState::NONE {
        return active;
    }
    let mut list = Members::default();
    list.take_all(&active.trace_state().header());
    let (state, ours) = list.keep(stats);
    if ours.is_some() {
        stats.span(Reason::ForgedHeader);
    }
    SpanContext::new(active.trace_id(), active.span_id(), active.trace_flags(), active.is_remote(), state)
}

/// The carrier of a sampled `llm_request`.
fn inject(context: &SpanContext) -> Carrier {
    // Not inserted into the trace state, which would push the last of 32 members out: the core takes it off again.
    let mut state = format!("{}={}", carrier::TRACESTATE_KEY, carrier::TRACESTATE_VALUE);
    let others = context.trace_state().header();
    if !others.is_empty() {
        state.push(',');
        state.push_str(&others);
    }
    let traceparent = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    HashMap::from([
        (carrier::TRACEPARENT.to_owned(), traceparent),
        (carrier::TRACESTATE.to_owned(), state),
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

/// All `tracestate` headers as one list, as [`Members::keep`] keeps it.
fn tracestate(source: &dyn Headers, stats: &Stats) -> (TraceState, Option<bool>) {
    let mut list = Members::default();
    source.for_each(carrier::TRACESTATE, &mut |value| match str::from_utf8(value) {
        Ok(text) => list.take_all(text),
        Err(_) => list.invalid = true,
    });
    list.keep(stats)
}

/// The members of a `tracestate`. However long the headers are, it holds what a valid list may have at most.
#[derive(Default)]
struct Members {
    others: Vec<(String, String)>,
    /// There is a journey member; whether it has the value that it should.
    ours: Option<bool>,
    invalid: bool,
}

impl Members {
    fn take_all(&mut self, list: &str) {
        list.split(',').for_each(|member| self.take(member.trim_matches([' ', '\t'])));
    }

    /// The list without the journey member; whether that says that the parent is an `llm_request`, where it is there. A list
    /// that is not valid is none, and counted; of one that is too long, what is kept is counted as truncated.
    fn keep(mut self, stats: &Stats) -> (TraceState, Option<bool>) {
        if self.others.is_empty() && !self.invalid {
            return (TraceState::NONE, self.ours);
        }
        if self.cut_to(MAX_TRACESTATE) {
            stats.span(Reason::Truncated);
        }
        let state = if self.invalid { None } else { TraceState::from_key_value(self.others).ok() };
        if state.is_none() {
            stats.span(Reason::InvalidTracestate);
        }
        (state.unwrap_or(TraceState::NONE), self.ours)
    }

    fn take(&mut self, member: &str) {
        // The list may have empty members.
        if self.invalid || member.is_empty() {
            return;
        }
        let printable = member.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        match member.split_once('=') {
            Some((carrier::TRACESTATE_KEY, value)) => self.ours = Some(value == carrier::TRACESTATE_VALUE),
            Some((key, value)) if printable && member.len() <= MAX_MEMBER && self.others.len() < MAX_MEMBERS => {
                self.others.push((key.to_owned(), value.to_owned()));
            }
            _ => *self = Self { ours: self.ours, others: Vec::new(), invalid: true },
        }
    }

    /// Removes whole members until the list has `limit` bytes: long ones first, then from the end. Whether it had to.
    fn cut_to(&mut self, limit: usize) -> bool {
        let length = |(key, value): &(String, String)| key.len() + "=".len() + value.len();
        let mut bytes = self.others.iter().map(|member| length(member) + ",".len()).sum::<usize>();
        let mut cut = false;
        while bytes > limit + ",".len() {
            let long = self.others.iter().rposition(|member| length(member) > LONG_MEMBER);
            let removed = self.others.remove(long.unwrap_or(self.others.len() - 1));
            bytes -= length(&removed) + ",".len();
            cut = true;
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(pairs: &[(&str, &str)], trusted: bool) -> (Remote, crate::JourneyStats) {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let stats = Stats::new();
        (extract(&map, trusted, &stats), stats.snapshot(Default::default(), Default::default()))
    }

    #[test]
    fn a_carrier_survives_the_way_to_the_core() {
        let (remote, _) = read(&[("traceparent", TRACEPARENT), ("tracestate", "rojo=00f067,congo=t61")], false);
        let parent = remote.parent.unwrap();
        let (back, stats) = {
            let stats = Stats::new();
            (extract(&inject(&parent), true, &stats), stats.snapshot(Default::default(), Default::default()))
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
        let long = "a=".to_owned() + &"x".repeat(257);
        let huge = "a=".to_owned() + &"x".repeat(1 << 20);
        let many = (0..40).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        for bad in [&long, &huge, &many, "kéy=1", "novalue", "UPPER=1", "a=b=c", "a=1,b=\u{1}"] {
            let (remote, stats) = read(&[("traceparent", TRACEPARENT), ("tracestate", bad)], false);
            assert_eq!(*remote.parent.unwrap().trace_state(), TraceState::NONE, "{bad}");
            assert_eq!(stats.noted[&Reason::InvalidTracestate], 1, "{bad}");
        }
    }

    #[test]
    fn a_long_tracestate_loses_whole_members_and_is_counted() {
        let keep = |state: &str| {
            let (remote, stats) = read(&[("traceparent", TRACEPARENT), ("tracestate", state)], false);
            let header = remote.parent.unwrap().trace_state().header();
            assert!(header.len() <= MAX_TRACESTATE, "{}", header.len());
            (header, stats.noted.get(&Reason::Truncated).copied())
        };
        let member = |key: &str, bytes: usize| format!("{key}={}", "x".repeat(bytes - key.len() - 1));
        let fits = [member("a", 255), member("b", 256)].join(",");
        assert_eq!(keep(&fits), (fits, None), "512 bytes are no byte too many");
        let [a, long, b] = [member("a", 100), member("long", 400), member("b", 100)];
        assert_eq!(keep(&[&*a, &long, &b].join(",")), ([&*a, &b].join(","), Some(1)), "the long one first");
        let short: Vec<_> = (0..30).map(|i| member(&format!("k{i}"), 20)).collect();
        assert_eq!(keep(&short.join(",")), (short[..24].join(","), Some(1)), "then from the end");
    }

    #[test]
    fn a_full_tracestate_still_lets_the_core_see_the_handoff() {
        let most: Vec<_> = (0..MAX_MEMBERS).map(|i| format!("k{i:02}={}", "x".repeat(11))).collect();
        let state = most.join(",");
        assert_eq!(state.len(), 511);
        let (remote, _) = read(&[("traceparent", TRACEPARENT), ("tracestate", &state)], false);
        let stats = Stats::new();
        let core = extract(&inject(&remote.parent.unwrap()), true, &stats);
        assert!(core.sampled && core.from_journey);
        assert_eq!(core.parent.unwrap().trace_state().header(), state);
        assert!(stats.snapshot(Default::default(), Default::default()).noted.is_empty());
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
