//! What packets took, without the bursts in which the machine was elsewhere.

/// What packets took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Took {
    /// Cycles of the time stamp counter for each packet.
    pub cycles: f64,
    /// Part of the bursts that are left out since the machine was elsewhere.
    pub left_out: f64,
    /// The most cycles a packet that a burst which is not left out took.
    pub(super) most: f64,
}

/// A burst that took this many times the median was interrupted.
const INTERRUPTED: f64 = 4.0;
/// Beyond this part of the bursts interrupted, a figure is void.
const LEFT_OUT_MAX: f64 = 0.05;

impl Took {
    /// From the cycles a packet of each burst, in any order.
    pub(super) fn of(mut bursts: Vec<f64>) -> Self {
        bursts.sort_by(f64::total_cmp);
        let most = bursts.get(bursts.len() / 2).copied().unwrap_or(0.0) * INTERRUPTED;
        let whole = bursts.partition_point(|cycles| *cycles <= most).max(1);
        let kept = &bursts[..whole.min(bursts.len())];
        Self {
            cycles: kept.iter().sum::<f64>() / kept.len().max(1) as f64,
            left_out: 1.0 - kept.len() as f64 / bursts.len().max(1) as f64,
            most,
        }
    }

    /// Why it must not be used; None: it may.
    #[must_use]
    pub fn void(&self) -> Option<String> {
        (self.left_out > LEFT_OUT_MAX)
            .then(|| format!("{:.0} % of the bursts were interrupted", self.left_out * 100.0))
    }
}
