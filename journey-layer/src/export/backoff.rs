//! How long an exporter waits before it tries again, as OTLP asks for: exponentially longer, with jitter.

use std::time::Duration;

use rand::RngExt;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A receiver that asks for more patience than this does not get it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Before the next attempt, after `failures` that went before this one: doubled with each, jittered so that many do not come
/// back at once, and no sooner than the receiver asks for.
pub(crate) fn pause(failures: u32, after: Option<Duration>) -> Duration {
    let backoff = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
    let jittered = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
    after.map_or(jittered, |after| after.min(MAX_RETRY_AFTER).max(jittered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds_are_jittered_and_honour_the_receiver() {
        for (failures, most) in [(0, 0.1), (1, 0.2), (2, 0.4), (6, 6.4), (7, 10.0), (1000, 10.0)] {
            let pauses: Vec<_> = (0..100).map(|_| pause(failures, None).as_secs_f64()).collect();
            assert!(pauses.iter().all(|pause| (most / 2.0..most).contains(pause)), "{failures}: {pauses:?}");
            let least = pauses.iter().copied().fold(f64::MAX, f64::min);
            assert!(pauses.iter().any(|pause| pause - least > most / 10.0), "{failures}: {pauses:?}");
        }
        assert_eq!(pause(0, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(pause(0, Some(Duration::MAX)), MAX_RETRY_AFTER);
        assert!(pause(9, Some(Duration::ZERO)) >= MAX_BACKOFF / 2, "a receiver that asks for none is not hammered");
    }
}
