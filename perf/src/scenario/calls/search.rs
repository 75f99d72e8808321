//! The largest number of calls that lose nothing.

use crate::Result;

/// What one attempt showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing was lost.
    Whole,
    /// Something was.
    Lossy,
    /// The sender fell behind: nothing is known of more than this, and it was not asked of the contender.
    EndsTooSlow,
}

/// How far up to look, and how finely.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// Where to begin.
    pub(super) first: u32,
    /// The most that can be asked.
    pub(super) most: u32,
    /// To this part of the result.
    pub(super) within: f64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The most that was whole; 0: not even one.
    pub(super) calls: u32,
    /// Whether the ends, not the contender, were the limit.
    pub(super) ends_too_slow: bool,
}

/// Doubles until something is lost, then halves the distance. `attempt` is asked with a number of calls.
///
/// # Errors
///
/// What `attempt` says.
pub(super) fn most(range: Range, mut attempt: impl FnMut(u32) -> Result<Outcome>) -> Result<Found> {
    let mut whole = 0;
    let mut ends_too_slow;
    let mut next = range.first.clamp(1, range.most);
    let mut lossy = loop {
        match attempt(next)? {
            Outcome::Whole if next == range.most => return Ok(Found { calls: next, ends_too_slow: true }),
            Outcome::Whole => {
                whole = next;
                next = next.saturating_mul(2).min(range.most);
            }
            outcome => {
                ends_too_slow = outcome == Outcome::EndsTooSlow;
                break next;
            }
        }
    };
    while lossy - whole > 1 && f64::from(lossy - whole) > f64::from(whole) * range.within {
        let middle = whole + (lossy - whole) / 2;
        match attempt(middle)? {
            Outcome::Whole => whole = middle,
            outcome => {
                lossy = middle;
                ends_too_slow = outcome == Outcome::EndsTooSlow;
            }
        }
    }
    Ok(Found { calls: whole, ends_too_slow })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u32) -> Range {
        Range { first, most: 30_000, within: 0.05 }
    }

    proptest! {
        #[test]
        fn the_limit_is_found(limit in 0_u32..29_999, first in 1_u32..2000) {
            let mut attempts = 0;
            let found = most(range(first), |calls| {
                attempts += 1;
                Ok(if calls <= limit { Outcome::Whole } else { Outcome::Lossy })
            }).unwrap();
            prop_assert!(found.calls <= limit && !found.ends_too_slow);
            prop_assert!(f64::from(limit - found.calls) <= f64::from(found.calls) * 0.05 + 1.0, "{found:?} of {limit}");
            prop_assert!(attempts < 30, "{attempts}");
        }
    }

    #[test]
    fn ends_that_are_too_slow_are_said() {
        let slow = |calls| Ok(if calls <= 700 { Outcome::Whole } else { Outcome::EndsTooSlow });
        let found = most(range(100), slow).unwrap();
        assert!(found.ends_too_slow && found.calls > 650, "{found:?}");
        let all = most(range(100), |_| Ok(Outcome::Whole)).unwrap();
        assert_eq!(all, Found { calls: 30_000, ends_too_slow: true });
    }
}
