//! Medians, quantiles and spreads of few values, as rounds of a measurement are.

/// The quantile `q` (0 to 1) of values in any order, interpolated between neighbours (type 7 of Hyndman and Fan, what R,
/// NumPy and spreadsheets do). None: there are no values.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// The value in the middle; the mean of the middle two when their number is even. None: there are no values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The median distance from the median. None: there are no values.
#[must_use]
pub fn median_deviation(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&distances)
}

/// What the standard deviation would be if the values came from a normal distribution, by [`median_deviation`]: up to half
/// of the values may be spoilt by the machine without moving it far. None: there are no values.
#[must_use]
pub fn robust_deviation(values: &[f64]) -> Option<f64> {
    /// 1 / the 75th percentile of the standard normal distribution.
    const NORMAL: f64 = 1.482_602_218_505_602;
    median_deviation(values).map(|deviation| deviation * NORMAL)
}

/// Median, lowest and highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub value: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// Of these values. None: there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self { value: median(values)?, low: quantile(values, 0.0)?, high: quantile(values, 1.0)? })
    }

    /// Half of what lies between lowest and highest, as a part of the median. 0 for a median of 0.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.value == 0.0 { 0.0 } else { (self.high - self.low) / 2.0 / self.value.abs() }
    }
}

/// Ratios round by round: what slows the whole machine down in one round slows both, and leaves their ratio alone.
/// Rounds that only one side has, and those with a divisor of 0, are left out.
#[must_use]
pub fn paired_ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    let pairs = above.iter().zip(below).filter(|(_, below)| **below != 0.0);
    pairs.map(|(above, below)| above / below).collect()
}

/// How much better we are than a peer where less is better (ns, cycles): the peer's rounds over ours.
#[must_use]
pub fn ratios_of_times(ours: &[f64], peer: &[f64]) -> Vec<f64> {
    paired_ratios(peer, ours)
}

/// How much better we are than a peer where more is better (Mpps, Gbit/s): our rounds over the peer's.
#[must_use]
pub fn ratios_of_rates(ours: &[f64], peer: &[f64]) -> Vec<f64> {
    paired_ratios(ours, peer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn quantiles_are_those_of_r() {
        // R: quantile(c(1, 3, 7, 15), c(0, .25, .5, .9, 1))
        let values = [15.0, 1.0, 7.0, 3.0];
        for (q, expected) in [(0.0, 1.0), (0.25, 2.5), (0.5, 5.0), (0.9, 12.6), (1.0, 15.0)] {
            assert!(close(quantile(&values, q).unwrap(), expected), "{q}: {:?}", quantile(&values, q));
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn median_deviation_of_the_textbook() {
        // Wikipedia, "Median absolute deviation": 1, 1, 2, 2, 4, 6, 9 has median 2 and deviation 1.
        let values = [1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0];
        assert_eq!((median(&values), median_deviation(&values)), (Some(2.0), Some(1.0)));
        assert!(close(robust_deviation(&values).unwrap(), 1.482_602_218_505_602));
    }

    #[test]
    fn a_slow_round_leaves_the_paired_ratio_alone() {
        // The second round was twice as slow for both.
        assert_eq!(ratios_of_times(&[10.0, 20.0, 10.0], &[20.0, 40.0, 20.0]), [2.0, 2.0, 2.0]);
        assert_eq!(ratios_of_rates(&[3.0, 1.5], &[2.0, 1.0, 7.0]), [1.5, 1.5]);
        assert_eq!(paired_ratios(&[1.0, 2.0], &[0.0, 4.0]), [0.5]);
    }

    #[test]
    fn spread_is_told() {
        let spread = Spread::of(&[9.0, 10.0, 13.0]).unwrap();
        assert_eq!(spread, Spread { value: 10.0, low: 9.0, high: 13.0 });
        assert!(close(spread.relative(), 0.2));
        assert_eq!(Spread::of(&[]), None);
    }

    proptest! {
        /// At least a part q of the values is at or below the quantile, and at least 1 - q at or above its lower neighbour.
        #[test]
        fn quantiles_split_the_values(values in proptest::collection::vec(-1e6..1e6, 1..40), q in 0.0..=1.0) {
            let found = quantile(&values, q).unwrap();
            let place = q * (values.len() - 1) as f64;
            let below = values.iter().filter(|value| **value <= found).count();
            let above = values.iter().filter(|value| **value >= found).count();
            prop_assert!(below > place.floor() as usize, "{below} of {} below", values.len());
            prop_assert!(above >= values.len() - place.ceil() as usize, "{above} of {} above", values.len());
        }

        /// Order does not matter, and scale passes through.
        #[test]
        fn the_spread_scales(mut values in proptest::collection::vec(0.1..1e6, 1..20), factor in 0.1..100.0) {
            let before = Spread::of(&values).unwrap();
            values.reverse();
            values.iter_mut().for_each(|value| *value *= factor);
            let after = Spread::of(&values).unwrap();
            prop_assert!(close(before.value * factor, after.value) && close(before.relative(), after.relative()));
            prop_assert!(after.low <= after.value && after.value <= after.high);
        }
    }
}
