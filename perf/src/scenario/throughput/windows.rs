//! Rates of short windows: what was carried while the machine did not disturb, and on the whole.

use std::time::Duration;

use crate::math;

/// How long a window is at least.
const WINDOW: Duration = Duration::from_millis(4);

/// Counts, and when each was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows {
    /// The end of the last window, and the count then.
    last: Option<(Duration, u64)>,
    first: Option<(Duration, u64)>,
    rates: Vec<f64>,
}

impl Windows {
    /// `count` had come at `now`. Windows begin when something has come.
    pub(super) fn look(&mut self, now: Duration, count: u64) {
        let Some((then, before)) = self.last else {
            if count > 0 {
                (self.last, self.first) = (Some((now, count)), Some((now, count)));
            }
            return;
        };
        let took = now.saturating_sub(then);
        // The generator's end is not a slow window: one in which nothing came is not counted, and neither is a last part.
        if took >= WINDOW && count > before {
            self.rates.push((count - before) as f64 / took.as_secs_f64());
            self.last = Some((now, count));
        }
    }

    /// The 90th percentile of the windows' rates, in packets a second. None: there was no whole window.
    #[must_use]
    pub(super) fn high(&self) -> Option<f64> {
        math::statistics::quantile(&self.rates, 0.9)
    }

    /// The rate over all windows.
    #[must_use]
    pub(super) fn mean(&self) -> Option<f64> {
        let ((start, first), (end, last)) = self.first.zip(self.last)?;
        let took = (end - start).as_secs_f64();
        (took > 0.0).then(|| (last - first) as f64 / took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_window_moves_the_mean_and_not_the_high_mark() {
        let mut windows = Windows::default();
        assert_eq!((windows.high(), windows.mean()), (None, None));
        let mut count = 0;
        for window in 0..20_u64 {
            windows.look(Duration::from_millis(window * 5), count);
            windows.look(Duration::from_millis(window * 5 + 2), count + 1);
            count += if window == 7 { 1000 } else { 5000 };
        }
        let (high, mean) = (windows.high().unwrap(), windows.mean().unwrap());
        assert!((high - 1e6).abs() < 1e3, "{high}");
        assert!((0.93e6..0.97e6).contains(&mean), "{mean}");
    }
}
