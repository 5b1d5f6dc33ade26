//! Span ids that lead back to their span.
//!
//! A layer makes the id of a journey span by turning the one that tracing gave it, and its trace, into 64 bits that look
//! random: a keyed permutation. So "did this process make the span that is named as the parent, and is it live?" is
//! answered by turning an id back and looking at what stands there, and no second table has to know every span.

use opentelemetry::trace::{SpanId, TraceId};
use rand::RngExt;

/// One layer's permutation.
#[derive(Debug)]
pub(crate) struct SpanIds {
    /// Odd, so that multiplication by it is undone by the inverse.
    factors: [u64; 2],
    inverses: [u64; 2],
    mask: u64,
}

const SHIFTS: [u32; 2] = [32, 29];

/// Bits of a tracing id that no span has in practice: the upper ones of its place in the registry's slab, which would have to hold
/// a million spans of one thread. A span that has them all the same is not found by its id.
const FREE: u64 = if cfg!(target_pointer_width = "64") { ((1 << 18) - 1) << FREE_SHIFT } else { 0 };
const FREE_SHIFT: u32 = 20;

impl SpanIds {
    /// A permutation of its own: two layers give different ids to the same number.
    pub(crate) fn new() -> Self {
        let mut random = rand::rng();
        let factors = [random.random::<u64>() | 1, random.random::<u64>() | 1];
        Self { factors, inverses: factors.map(inverse), mask: random.random() }
    }

    /// The id of the span that tracing calls `id`, in this trace. Of those that are live no two have one id; and as tracing
    /// gives a place's ids again after some thousand spans, `now` tells the later from the earlier.
    pub(crate) fn span_id(&self, id: u64, trace_id: TraceId, now: i64) -> SpanId {
        let mut bits = id ^ ((now as u64) << FREE_SHIFT & FREE) ^ low(trace_id) ^ self.mask;
        for (factor, shift) in self.factors.into_iter().zip(SHIFTS) {
            bits = bits.wrapping_mul(factor);
            bits ^= bits >> shift;
        }
        // All zeros is no id. Once in 2^64 spans the way back leads nowhere.
        SpanId::from(bits.max(1))
    }

    /// What tracing would call the span, if it is this layer's.
    pub(crate) fn id(&self, span_id: SpanId, trace_id: TraceId) -> u64 {
        let mut bits = u64::from_be_bytes(span_id.to_bytes());
        for (inverse, shift) in self.inverses.into_iter().zip(SHIFTS).rev() {
            bits ^= bits >> shift ^ bits.checked_shr(2 * shift).unwrap_or(0);
            bits = bits.wrapping_mul(inverse);
        }
        (bits ^ low(trace_id) ^ self.mask) & !FREE
    }
}

fn low(trace_id: TraceId) -> u64 {
    u128::from_be_bytes(trace_id.to_bytes()) as u64
}

/// The inverse of an odd number modulo 2^64, by Newton's method: each step doubles the bits that are right.
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |guess, _| guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess))))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_leads_back_and_no_two_are_the_same() {
        for _ in 0..20 {
            let ids = SpanIds::new();
            let trace = TraceId::from(rand::rng().random::<u128>());
            let mut seen = HashSet::new();
            for id in (1..2000).chain((0..64).map(|bit| 1 << bit)).chain([u64::MAX, 0x0008_0000_0000_0017]) {
                let id = id & !FREE;
                for now in [0, 1, 7_777_777_777, i64::MAX] {
                    let span_id = ids.span_id(id, trace, now);
                    assert_eq!(ids.id(span_id, trace), id);
                    seen.insert((span_id, id, now as u64 & (FREE >> FREE_SHIFT)));
                }
            }
            let distinct: HashSet<_> = seen.iter().map(|(span_id, ..)| *span_id).collect();
            assert_eq!(distinct.len(), seen.len());
        }
    }

    #[test]
    fn every_bit_of_an_id_depends_on_the_number() {
        let ids = SpanIds::new();
        let trace = TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128);
        let mut flips = [0; 64];
        for id in 0..4096 {
            let (one, other) = (ids.span_id(id, trace, 0), ids.span_id(id + 4096, trace, 0));
            let changed = u64::from_be_bytes(one.to_bytes()) ^ u64::from_be_bytes(other.to_bytes());
            flips.iter_mut().enumerate().for_each(|(bit, count)| *count += changed >> bit & 1);
        }
        assert!(flips.iter().all(|count| *count > 0), "{flips:?}");
    }
}
