//! What the reliability tests and programs share: receivers that keep count, faults between them and the exporter, and
//! journeys to send.

pub mod fault;
pub mod receiver;
pub mod work;

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Whether the long form of each test was asked for (`JOURNEY_FULL=1`).
pub fn is_full() -> bool {
    std::env::var_os("JOURNEY_FULL").is_some_and(|value| value == "1")
}

/// Waits for `condition`, which is about to hold.
///
/// # Panics
/// If it does not hold within a minute.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Time that the processors have spent on this process.
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
