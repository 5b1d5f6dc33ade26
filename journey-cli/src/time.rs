//! Durations and clock times for reading.

use std::fmt;

/// A duration in the unit that suits it, three significant digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

/// Formats nanoseconds.
pub fn nanos(value: u64) -> Nanos {
    Nanos(value)
}

/// Formats seconds; negative or not finite as they are.
pub fn seconds(value: f64) -> String {
    if value.is_finite() && value >= 0.0 {
        Nanos((value * 1e9).round() as u64).to_string()
    } else {
        format!("{value} s")
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0 as f64;
        let text = match self.0 {
            0 => "0".to_owned(),
            1..1_000 => format!("{} ns", self.0),
            1_000..999_500 => format!("{} µs", digits(ns / 1e3)),
            999_500..999_500_000 => format!("{} ms", digits(ns / 1e6)),
            999_500_000..99_950_000_000 => format!("{} s", digits(ns / 1e9)),
            _ => {
                let s = (ns / 1e9).round() as u64;
                match (s / 3600, s / 60 % 60, s % 60) {
                    (0, m, s) => format!("{m}m{s:02}s"),
                    (h, m, s) => format!("{h}h{m:02}m{s:02}s"),
                }
            }
        };
        f.pad(&text)
    }
}

fn digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// The wall clock in UTC, to the millisecond: `2026-11-24 21:13:05.120Z`.
pub fn wall(unix_nanos: u64) -> String {
    let secs = unix_nanos / 1_000_000_000;
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    // Days to a civil date by 400-year eras that begin on the first of March.
    let z = days as i64 + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let ms = unix_nanos / 1_000_000 % 1_000;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{ms:03}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_at_a_glance() {
        let shown: Vec<String> =
            [0, 999, 1_500, 999_499, 999_500, 12_345_678, 999_499_999, 999_500_000, 59_940_000_000, 125_000_000_000]
                .into_iter()
                .map(|ns| nanos(ns).to_string())
                .collect();
        assert_eq!(
            shown,
            ["0", "999 ns", "1.50 µs", "999 µs", "1.00 ms", "12.3 ms", "999 ms", "1.00 s", "59.9 s", "2m05s"]
        );
    }

    #[test]
    fn the_wall_clock_is_in_utc() {
        assert_eq!(wall(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(wall(1_795_553_963_216_137_849), "2026-11-24 20:59:23.216Z");
        assert_eq!(wall(951_782_400_000_000_000), "2000-02-29 00:00:00.000Z");
    }
}
