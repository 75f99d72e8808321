//! What became of a figure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::result::{Measurement, ratio_of};

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// By the rule.
    Moved,
    /// By the rule, and so did its peers: the machine was another one, not what was measured.
    MachineMoved,
    /// The ranges do not overlap, but one of them is of a single round, and so is none.
    OneRound,
    /// By less than the noise.
    Within,
    /// An absolute figure, and the machines differ.
    OtherMachine,
    /// Void in one of the files, or in both.
    Void,
}

/// Whether a figure rests on a single round, which tells nothing of its noise. What is counted has none. Files of earlier
/// builds do not say on how many rounds: a range says that they were several.
#[must_use]
pub fn of_one_round(row: &Measurement) -> bool {
    row.rounds <= 1 && row.low >= row.high && !is_counted(row)
}

/// Whether it is the same on every run.
fn is_counted(row: &Measurement) -> bool {
    row.unit == "instructions"
}

/// By the rule; `peers`: second over first of each.
pub(super) fn judge(
    a: &Measurement,
    b: &Measurement,
    other_machine: bool,
    peers: &BTreeMap<String, f64>,
) -> Verdict {
    let apart = a.high < b.low || b.high < a.low;
    if a.void.is_some() || b.void.is_some() {
        Verdict::Void
    } else if other_machine && ratio_of(&b.metric).is_none() {
        Verdict::OtherMachine
    } else if !apart {
        Verdict::Within
    } else if of_one_round(a) || of_one_round(b) {
        Verdict::OneRound
    } else if !is_counted(b) && with_peers(b.value / a.value, peers) {
        Verdict::MachineMoved
    } else {
        Verdict::Moved
    }
}

/// Whether the peers moved as well: by their median, the same way and at least half as far.
fn with_peers(factor: f64, peers: &BTreeMap<String, f64>) -> bool {
    let ways = peers.values().map(|factor| factor.ln()).filter(|way| way.is_finite());
    let Some(peers) = crate::math::statistics::median(&ways.collect::<Vec<f64>>()) else { return false };
    let own = factor.ln();
    own.is_finite() && peers * own > 0.0 && peers.abs() >= own.abs() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_moved_when_most_peers_did_the_same_way_and_half_as_far() {
        let peers = |factors: &[f64]| -> BTreeMap<String, f64> {
            factors.iter().enumerate().map(|(place, factor)| (place.to_string(), *factor)).collect()
        };
        for (own, factors, expected) in [
            (1.2, &[1.2][..], true),
            (1.2, &[1.1], true),
            (1.2, &[1.05], false),
            (1.2, &[0.8], false),
            (0.8, &[0.85, 1.0, 0.82], true),
            (1.2, &[1.0, 1.0, 1.3], false),
            (1.2, &[], false),
            (0.0, &[0.5], false),
            (1.2, &[0.0], false),
        ] {
            assert_eq!(with_peers(own, &peers(factors)), expected, "{own} {factors:?}");
        }
    }
}
