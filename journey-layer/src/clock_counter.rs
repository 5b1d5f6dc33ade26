//! The time-stamp counter as a clock.
//!
//! ```text
//! kernel's time = base_ns + (counter - base_counter) * factor        for VALID ns from the base on
//! ```
//!
//! Whoever reads a counter that has left the line's validity behind asks the kernel instead, and draws a new line through
//! the kernel's answer. So the error is what the factor can be off by, times a quarter of a second: some ten nanoseconds, and
//! never more than 125 µs while the kernel slews its clock at its fastest (500 ppm). A counter that disagrees with the kernel by
//! more than that (a virtual machine was moved or paused) is read again only when its factor is known anew, and after
//! some such disagreements never.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, fence};

use parking_lot::Mutex;

use super::{kernel_ns, measured_anchor_ns};

/// A line is used for this long.
const VALID_NS: i64 = 250_000_000;
/// The same in ticks, of any counter there is: a rate that is far too low cannot make a line last.
const MAX_VALID: u128 = 1 << 31;
/// The factor is taken from readings at least this far apart: an error of 50 ns in them is 1 ppm.
const BASELINE_NS: i64 = 50_000_000;
/// A counter that is off by more is not what it was.
const TOLERANCE_NS: i64 = 150_000;
const MAX_FAILURES: u32 = 8;

static CLOCK: Clock<Tsc> = Clock::new(Tsc);

pub(super) fn monotonic_ns() -> i64 {
    CLOCK.now()
}

pub(super) fn anchor_ns() -> i64 {
    CLOCK.anchor()
}

/// Where ticks and the kernel's time come from.
trait Source {
    /// Whether the kernel trusts the counter.
    fn is_trusted(&self) -> bool;
    fn counter(&self) -> u64;
    fn kernel_ns(&self) -> i64;
    fn anchor_ns(&self) -> i64;
}

struct Tsc;

impl Source for Tsc {
    fn is_trusted(&self) -> bool {
        static TRUSTED: OnceLock<bool> = OnceLock::new();
        // What the kernel uses for this very clock it has checked: that the counter is constant, and the same on all cores.
        *TRUSTED.get_or_init(|| {
            std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .is_ok_and(|source| source.trim() == "tsc")
        })
    }

    #[inline]
    #[allow(unsafe_code, reason = "a journey costs its producer 236 ns less: docs/performance.md")]
    fn counter(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn kernel_ns(&self) -> i64 {
        kernel_ns()
    }

    fn anchor_ns(&self) -> i64 {
        measured_anchor_ns()
    }
}

/// A pair of readings at one moment.
#[derive(Clone, Copy)]
struct Fix {
    counter: u64,
    ns: i64,
}

struct Clock<S> {
    source: S,
    /// Odd while the line is being written.
    version: AtomicU64,
    base_counter: AtomicU64,
    base_ns: AtomicI64,
    /// Nanoseconds for a tick, 32 bits behind the point.
    factor: AtomicU64,
    /// Ticks from the base on for which the line holds; 0 where there is none.
    valid: AtomicU64,
    anchor_ns: AtomicI64,
    /// Kernel's time of the anchor's reading; 0 before the first.
    anchored_ns: AtomicI64,
    /// From where the factor is measured.
    fix: Mutex<Option<Fix>>,
    failures: AtomicU32,
    given_up: AtomicBool,
}

impl<S: Source> Clock<S> {
    const fn new(source: S) -> Self {
        Self {
            source,
            version: AtomicU64::new(0),
            base_counter: AtomicU64::new(0),
            base_ns: AtomicI64::new(0),
            factor: AtomicU64::new(0),
            valid: AtomicU64::new(0),
            anchor_ns: AtomicI64::new(0),
            anchored_ns: AtomicI64::new(0),
            fix: Mutex::new(None),
            failures: AtomicU32::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    #[inline]
    fn now(&self) -> i64 {
        let version = self.version.load(Acquire);
        let counter = self.source.counter();
        let passed = counter.wrapping_sub(self.base_counter.load(Relaxed));
        let (base, factor, valid) = (self.base_ns.load(Relaxed), self.factor.load(Relaxed), self.valid.load(Relaxed));
        fence(Acquire);
        if passed < valid && version & 1 == 0 && self.version.load(Relaxed) == version {
            // Below 2^63: a quarter of a second has at most 2^31 ticks, and a tick of a gigahertz counter 2^32 parts.
            return base + ((passed * factor) >> 32) as i64;
        }
        self.ask_kernel()
    }

    /// The anchor as it was at most [`VALID_NS`] ago.
    fn anchor(&self) -> i64 {
        let now = self.now();
        let read = self.anchored_ns.load(Acquire);
        if read != 0 && now.saturating_sub(read) < VALID_NS {
            return self.anchor_ns.load(Relaxed);
        }
        let anchor = self.source.anchor_ns();
        self.anchor_ns.store(anchor, Relaxed);
        self.anchored_ns.store(now.max(1), Release);
        anchor
    }

    #[cold]
    fn ask_kernel(&self) -> i64 {
        if self.given_up.load(Relaxed) {
            return self.source.kernel_ns();
        }
        let Some(mut fix) = self.fix.try_lock() else { return self.source.kernel_ns() };
        if !self.source.is_trusted() {
            self.given_up.store(true, Relaxed);
            return self.source.kernel_ns();
        }
        let here = self.fix();
        match *fix {
            Some(before) if here.ns - before.ns >= BASELINE_NS => {
                *fix = Some(here);
                // What was measured across a jump is no rate.
                if self.agrees(here) { self.draw(before, here) } else { self.write(here, 0, 0) }
            }
            Some(_) => {}
            None => *fix = Some(here),
        }
        here.ns
    }

    /// Both readings at one moment, or as near as three attempts come.
    fn fix(&self) -> Fix {
        let attempt = || {
            let before = self.source.counter();
            let ns = self.source.kernel_ns();
            let width = self.source.counter().wrapping_sub(before);
            (width, Fix { counter: before.wrapping_add(width / 2), ns })
        };
        let attempts = [attempt(), attempt(), attempt()];
        attempts.into_iter().min_by_key(|(width, _)| *width).expect("three attempts").1
    }

    /// Holds the line, if there is one, against the kernel.
    fn agrees(&self, here: Fix) -> bool {
        let factor = self.factor.load(Relaxed);
        if factor == 0 {
            return true;
        }
        let passed = i128::from(here.counter.wrapping_sub(self.base_counter.load(Relaxed)));
        let said = i128::from(self.base_ns.load(Relaxed)) + ((passed * i128::from(factor)) >> 32);
        let since = here.ns - self.base_ns.load(Relaxed);
        // Whoever was away for an hour is allowed an hour's drift.
        let tolerance = TOLERANCE_NS.max(since / 1000);
        let agrees = (said - i128::from(here.ns)).abs() <= i128::from(tolerance);
        if !agrees {
            let failures = self.failures.fetch_add(1, Relaxed) + 1;
            self.given_up.store(failures >= MAX_FAILURES, Relaxed);
        }
        agrees
    }

    /// Draws a line through `here`, with the factor since `before`.
    fn draw(&self, before: Fix, here: Fix) {
        let (ticks, ns) = (here.counter.wrapping_sub(before.counter), (here.ns - before.ns) as u128);
        let factor = ((ns << 32) / u128::from(ticks.max(1))).min(u128::from(u64::MAX)) as u64;
        let valid = (u128::from(VALID_NS as u64) << 32) / u128::from(factor.max(1));
        // A counter that stands still, goes backwards or is slower than a gigahertz is none to use.
        let usable = factor > 0 && factor <= 1 << 32 && !self.given_up.load(Relaxed);
        let valid = if usable { valid.min(MAX_VALID) as u64 } else { 0 };
        self.write(here, factor, valid);
    }

    fn write(&self, here: Fix, factor: u64, valid: u64) {
        self.version.fetch_add(1, Relaxed);
        fence(Release);
        self.base_counter.store(here.counter, Relaxed);
        self.base_ns.store(here.ns, Relaxed);
        self.factor.store(factor, Relaxed);
        self.valid.store(valid, Relaxed);
        self.version.fetch_add(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A counter and a kernel that the test moves.
    #[derive(Default)]
    struct Fake {
        counter: Cell<u64>,
        ns: Cell<i64>,
        /// Ticks for a microsecond.
        rate: Cell<u64>,
    }

    impl Source for Fake {
        fn is_trusted(&self) -> bool {
            true
        }

        fn counter(&self) -> u64 {
            self.counter.get()
        }

        fn kernel_ns(&self) -> i64 {
            self.ns.get()
        }

        fn anchor_ns(&self) -> i64 {
            7
        }
    }

    impl Clock<Fake> {
        fn pass(&self, us: i64) {
            let fake = &self.source;
            fake.counter.set(fake.counter.get().wrapping_add(us as u64 * fake.rate.get()));
            fake.ns.set(fake.ns.get() + us * 1000);
        }

        fn is_reading_the_counter(&self) -> bool {
            let before = self.source.ns.replace(i64::MAX / 2);
            let now = self.now();
            self.source.ns.set(before);
            now != i64::MAX / 2
        }
    }

    fn clock(rate: u64) -> Clock<Fake> {
        let fake = Fake::default();
        fake.rate.set(rate);
        fake.counter.set(u64::MAX - 1_000_000);
        fake.ns.set(1_000_000_000);
        Clock::new(fake)
    }

    #[test]
    fn the_counter_is_read_once_its_rate_is_known_and_follows_the_kernel_as_that_drifts() {
        let clock = clock(3000);
        let mut latest = clock.now();
        for step in 0..200_000 {
            // The counter runs 0.01 % faster and slower by turns: in 1,000 s that would be far off.
            clock.source.rate.set(if (step / 20_000) % 2 == 0 { 3001 } else { 2999 });
            clock.pass(5_000);
            let now = clock.now();
            assert!((now - clock.source.ns.get()).abs() <= 200_000, "{} ns off", now - clock.source.ns.get());
            assert!(now >= latest - 200_000);
            latest = now;
        }
        assert!(clock.is_reading_the_counter());
    }

    #[test]
    fn a_reader_that_was_away_for_hours_gets_the_kernels_time() {
        let clock = clock(2450);
        for _ in 0..100 {
            clock.now();
            clock.pass(1_000);
        }
        assert!(clock.is_reading_the_counter());
        clock.pass(3 * 3600 * 1_000_000);
        assert_eq!(clock.now(), clock.source.ns.get());
        clock.pass(1);
        assert!((clock.now() - clock.source.ns.get()).abs() < 100 && clock.is_reading_the_counter());
    }

    #[test]
    fn a_counter_that_jumps_is_caught_within_its_lines_validity_and_given_up_in_the_end() {
        let clock = clock(3000);
        for _ in 0..100 {
            clock.now();
            clock.pass(1_000);
        }
        for _ in 0..MAX_FAILURES {
            clock.source.counter.set(clock.source.counter.get() / 2);
            for _ in 0..400 {
                clock.pass(1_000);
                clock.now();
            }
        }
        assert!(!clock.is_reading_the_counter());
        clock.pass(1_000_000);
        assert_eq!(clock.now(), clock.source.ns.get());
    }

    #[test]
    fn a_counter_that_went_on_while_the_kernel_slept_is_not_measured_across_that() {
        // Whether there is a line before it, or it is in the first measurement.
        for warm_up in [100, 1] {
            let clock = clock(3000);
            for _ in 0..warm_up {
                clock.now();
                clock.pass(1_000);
            }
            clock.source.counter.set(clock.source.counter.get().wrapping_add(3600 * 3_000_000_000));
            for step in 0..3000 {
                clock.pass(1_000);
                let off = clock.now() - clock.source.ns.get();
                assert!(off.abs() < 200_000 || (warm_up == 1 && step < 1000), "{off} ns off after {step} ms");
            }
            assert!(clock.is_reading_the_counter());
        }
    }

    #[test]
    fn a_counter_that_is_too_slow_is_not_used() {
        let clock = clock(500);
        for _ in 0..1000 {
            clock.pass(1_000);
            assert_eq!(clock.now(), clock.source.ns.get());
        }
        assert_eq!(clock.anchor(), 7);
    }
}
