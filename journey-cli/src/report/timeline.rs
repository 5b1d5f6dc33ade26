//! How many journeys were in which part at each moment, in a fixed number of bins over any length of time.

use crate::journey::{Part, Parts, Segment};

/// Bins at most; when more are needed, neighbours are joined and the bins get twice as wide.
const BINS: usize = 512;

/// Narrowest bin: a tenth of a millisecond.
const NARROWEST: u64 = 100_000;

/// 2000 to 2100: a time outside is a clock that was never set, and would squeeze all others into one bin.
const PLAUSIBLE: std::ops::Range<u64> = 946_684_800_000_000_000..4_102_444_800_000_000_000;

/// Time spent in each part, by bin.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Start of the first bin, a multiple of `width`.
    origin: u64,
    width: u64,
    bins: Vec<Parts>,
}

impl Timeline {
    /// Adds a stretch of one journey.
    pub fn add(&mut self, segment: Segment) {
        if !PLAUSIBLE.contains(&segment.from) || !PLAUSIBLE.contains(&segment.to) || segment.to <= segment.from {
            return;
        }
        if self.bins.is_empty() {
            self.width = NARROWEST;
            self.origin = segment.from - segment.from % self.width;
            self.bins.push(Parts::default());
        }
        self.make_room(segment.from, segment.to);
        let mut from = segment.from;
        while from < segment.to {
            let bin = ((from - self.origin) / self.width) as usize;
            let to = segment.to.min(self.origin + (bin as u64 + 1) * self.width);
            self.bins[bin][segment.part as usize] += to - from;
            from = to;
        }
    }

    fn make_room(&mut self, from: u64, to: u64) {
        loop {
            let origin = self.origin.min(from - from % self.width);
            let end = (self.origin + self.bins.len() as u64 * self.width).max(to);
            let needed = (end - origin).div_ceil(self.width) as usize;
            if needed <= BINS {
                let before = ((self.origin - origin) / self.width) as usize;
                self.bins.splice(0..0, std::iter::repeat_n(Parts::default(), before));
                self.bins.resize(needed.max(self.bins.len()), Parts::default());
                self.origin = origin;
                return;
            }
            self.widen();
        }
    }

    fn widen(&mut self) {
        let width = self.width * 2;
        let origin = self.origin - self.origin % width;
        if origin != self.origin {
            self.bins.insert(0, Parts::default());
        }
        self.bins = self
            .bins
            .chunks(2)
            .map(|pair| {
                let mut joined = pair[0];
                for (sum, more) in joined.iter_mut().zip(pair.get(1).copied().unwrap_or_default()) {
                    *sum += more;
                }
                joined
            })
            .collect();
        (self.origin, self.width) = (origin, width);
    }

    /// Start of the first bin, and the end of the last.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.origin..self.origin + self.bins.len() as u64 * self.width
    }

    /// Mean number of journeys in each part, by bin.
    pub fn concurrency(&self) -> impl Iterator<Item = [f64; Part::ALL.len()]> {
        self.bins.iter().map(|bin| bin.map(|nanos| nanos as f64 / self.width as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_795_550_400_000_000_000;

    fn total(timeline: &Timeline) -> u64 {
        timeline.bins.iter().flatten().sum()
    }

    #[test]
    fn no_time_is_lost_however_the_range_grows() {
        let mut timeline = Timeline::default();
        let mut sum = 0;
        for (offset, length) in [(0, 1), (5_000_000_000, 77), (60, 3_600_000_000_000), (1, 1_000_000)] {
            timeline.add(Segment { part: Part::Queue, from: T + offset, to: T + offset + length });
            sum += length;
            assert_eq!(total(&timeline), sum);
        }
        timeline.add(Segment { part: Part::Decode, from: T - 86_400_000_000_000, to: T });
        assert_eq!(total(&timeline), sum + 86_400_000_000_000);
        assert!(timeline.bins.len() <= BINS);
        let range = timeline.range();
        assert!(range.start <= T - 86_400_000_000_000 && range.end >= T + 3_600_000_000_060);
    }

    #[test]
    fn one_journey_all_the_time_is_a_concurrency_of_one() {
        let mut timeline = Timeline::default();
        timeline.add(Segment { part: Part::Prefill, from: T, to: T + 40_000_000 });
        assert!(timeline.concurrency().all(|bin| (bin[Part::Prefill as usize] - 1.0).abs() < 1e-9));
    }
}
