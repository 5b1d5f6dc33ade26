//! The figures of many rounds as one, with its noise.

use serde::Serialize;

/// A median, and how far the middle half of the rounds lies around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The median of all rounds.
    pub median: f64,
    /// Half the distance between the quartiles, as a share of the median.
    pub noise: f64,
}

impl Sample {
    /// Of one figure a round; `None` without rounds.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * share).round() as usize).copied();
        let (low, median, high) = (at(0.25)?, at(0.5)?, at(0.75)?);
        let noise = if median == 0.0 { 0.0 } else { (high - low) / 2.0 / median };
        Some(Self { median, noise })
    }

    /// Of the ratio in each round: what disturbs a whole round disturbs both sides of it.
    pub fn of_ratio(figures: &[f64], base: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = figures.iter().zip(base).map(|(figure, base)| figure / base).collect();
        Self::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_that_was_disturbed_moves_neither_median_nor_noise() {
        let sample = Sample::of(&[10.0, 11.0, 9.0, 10.0, 500.0]).unwrap();
        assert_eq!(sample, Sample { median: 10.0, noise: 0.05 });
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let sample = Sample::of_ratio(&[1.0, 10.0, 100.0], &[2.0, 20.0, 200.0]).unwrap();
        assert_eq!(sample, Sample { median: 0.5, noise: 0.0 });
        assert_eq!(Sample::of(&[]), None);
    }
}
