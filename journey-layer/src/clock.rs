//! The monotonic clock of the host, read as cheaply as the machine allows, and its distance to the wall clock.
//!
//! A journey takes its times from a dozen readings. Through `clock_gettime` they are a sixth of all that it costs; where the kernel
//! itself keeps its clock by the processor's time-stamp counter, the counter is read here directly and turned into the
//! kernel's time with a factor that is measured against the kernel again and again. Elsewhere, and until that factor is known,
//! the kernel is asked.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The clock behind Python's `time.monotonic()`, nanoseconds, so that events of two processes on one host compare.
#[inline]
pub(crate) fn monotonic_ns() -> i64 {
    counter::monotonic_ns()
}

/// Wall clock minus monotonic clock at this moment, nanoseconds.
///
/// A journey reads it once: a step of the wall clock in its midst moves none of its times.
pub(crate) fn anchor_ns() -> i64 {
    counter::anchor_ns()
}

fn kernel_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn measured_anchor_ns() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    wall - kernel_ns()
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
mod counter {
    pub(super) use super::{kernel_ns as monotonic_ns, measured_anchor_ns as anchor_ns};
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[path = "clock_counter.rs"]
mod counter;

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
