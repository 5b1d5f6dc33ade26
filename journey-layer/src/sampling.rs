//! Ids, and the decision that is made once per journey.

use std::cell::RefCell;

use opentelemetry::trace::{SpanContext, TraceId};
use rand::rngs::SmallRng;
use rand::{Rng, make_rng};

use crate::config::Sampling;

thread_local! {
    // Seeded by the operating system, 256 bits of state: no two threads of a fleet walk the same sequence.
    static RNG: RefCell<SmallRng> = RefCell::new(make_rng());
}

fn random() -> u64 {
    RNG.with_borrow_mut(Rng::next_u64)
}

pub(crate) fn new_trace_id() -> TraceId {
    loop {
        let id = TraceId::from(u128::from(random()) << 64 | u128::from(random()));
        if id != TraceId::INVALID {
            return id;
        }
    }
}

/// Whether this one is among the share `rate` of all.
pub(crate) fn chance(rate: f64) -> bool {
    // 53 random bits: the numbers that an f64 tells apart below 1.
    rate >= 1.0 || (random() >> 11) as f64 / (1u64 << 53) as f64 <= rate && rate > 0.0
}

/// Decides about a journey with this parent and trace id.
pub(crate) fn is_sampled(sampling: Sampling, parent: Option<&SpanContext>, trace_id: TraceId) -> bool {
    match (sampling, parent) {
        (Sampling::ParentBased { .. }, Some(parent)) => parent.is_sampled(),
        (Sampling::ParentBased { root: rate }, None) | (Sampling::TraceIdRatio(rate), _) => in_ratio(rate, trace_id),
        (Sampling::Rate(rate), _) => chance(rate),
    }
}

/// `TraceIdRatioBased`: the low 56 bits of the id, the ones that are random by W3C Trace Context Level 2.
fn in_ratio(rate: f64, trace_id: TraceId) -> bool {
    const BITS: u32 = 56;
    let bytes = trace_id.to_bytes();
    let low = u64::from_be_bytes(bytes[8..].try_into().expect("eight of sixteen bytes")) & ((1 << BITS) - 1);
    rate >= 1.0 || ((low as f64) < rate * (1u64 << BITS) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(decide: impl Fn() -> bool) -> f64 {
        (0..20_000).filter(|_| decide()).count() as f64 / 20_000.0
    }

    #[test]
    fn rates_are_kept() {
        for rate in [0.0, 0.1, 0.5, 1.0] {
            let by_chance = share(|| is_sampled(Sampling::Rate(rate), None, new_trace_id()));
            let by_id = share(|| is_sampled(Sampling::TraceIdRatio(rate), None, new_trace_id()));
            assert!((by_chance - rate).abs() < 0.02 && (by_id - rate).abs() < 0.02, "{rate}: {by_chance} {by_id}");
        }
        assert!(!chance(0.0) && !chance(f64::NAN) && !chance(-1.0));
    }

    #[test]
    fn one_trace_has_one_answer() {
        for _ in 0..100 {
            let id = new_trace_id();
            let answer = is_sampled(Sampling::TraceIdRatio(0.5), None, id);
            assert_eq!(answer, is_sampled(Sampling::ParentBased { root: 0.5 }, None, id));
        }
    }
}
