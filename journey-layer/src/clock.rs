//! One clock read per event: monotonic, and anchored to the wall clock once per journey.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock of the host, nanoseconds: the clock behind Python's `time.monotonic()`, so that events of two
/// processes on one host compare.
pub(crate) fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Wall clock minus monotonic clock at this moment, nanoseconds.
///
/// A journey reads it once: a step of the wall clock in its midst moves none of its times.
pub(crate) fn anchor_ns() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    wall - monotonic_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anchor_turns_monotonic_into_wall_time() {
        let wall = (monotonic_ns() + anchor_ns()) as f64 / 1e9;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((wall - now).abs() < 1.0, "{wall} against {now}");
    }
}
