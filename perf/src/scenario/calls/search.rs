//! The largest number of calls that lose nothing, by MLRsearch: a rate is a number of calls.

use std::time::{Duration, Instant};

use crate::Result;
use crate::math::confidence::loss_at_most;
use crate::math::mlrsearch::{Goal, Search};

/// What one attempt showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Attempt {
    /// Packets that were sent, and of them those that were lost.
    pub(super) packets: (u64, u64),
    /// The sender fell behind: as many calls were not asked of the contender.
    pub(super) ends_too_slow: bool,
}

/// How far up to look, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// The most that can be asked.
    pub(super) most: u32,
    /// When a number counts as carried.
    pub(super) goal: Goal,
    /// How long all attempts may take together. Twice as much by the clock.
    pub(super) budget: Duration,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// The most that was carried; 0: not even one call was.
    pub(super) calls: u32,
    /// Whether the ends, not the contender, were the limit.
    pub(super) ends_too_slow: bool,
    /// The loss that is still believable after all full attempts at that number that lost nothing.
    pub(super) loss_bound: f64,
    /// How far apart the most that was carried and the least that was not are, as a part of the latter. 1: the search had
    /// no time to find out.
    pub(super) width: f64,
}

/// Finds it. `attempt` is asked with a number of calls and a time.
///
/// # Errors
///
/// What `attempt` says.
pub(super) fn most(
    range: Range,
    confidence: f64,
    mut attempt: impl FnMut(u32, Duration) -> Result<Attempt>,
) -> Result<Found> {
    let mut search = Search::new(vec![range.goal], 1.0, f64::from(range.most), range.budget.as_secs_f64());
    let start = Instant::now();
    // The least that the ends could not do, and by number of calls what whole attempts at full length sent.
    let (mut too_slow, mut whole) = (None::<f64>, Vec::new());
    while let Some(ask) = search.next() {
        if start.elapsed() > 2 * range.budget {
            search.stop();
            break;
        }
        let Attempt { packets: (sent, lost), ends_too_slow } =
            attempt(ask.rate as u32, Duration::from_secs_f64(ask.duration_s))?;
        if ends_too_slow {
            too_slow = Some(too_slow.map_or(ask.rate, |least| least.min(ask.rate)));
        } else if lost == 0 && ask.duration_s >= range.goal.trial_s {
            whole.push((ask.rate, sent));
        }
        // Nobody knows what would have become of packets that were not sent in time.
        search.observe(if ends_too_slow { 1.0 } else { lost as f64 / sent.max(1) as f64 });
    }
    let outcome = search.outcome(0);
    let lower = outcome.lower.unwrap_or(0.0);
    let packets = whole.iter().filter(|(rate, _)| *rate == lower).map(|(_, sent)| sent).sum();
    Ok(Found {
        calls: lower as u32,
        ends_too_slow: outcome
            .upper
            .map_or(outcome.finished, |upper| too_slow.is_some_and(|least| least <= upper)),
        loss_bound: loss_at_most(0, packets, confidence),
        width: if outcome.finished {
            outcome.upper.map_or(0.0, |upper| (upper - lower) / upper)
        } else {
            1.0
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> Range {
        let goal = Goal { width: 0.05, ..Goal::ndr(0.2, 0.6) };
        Range { most: 10_000, goal, budget: Duration::from_secs(60) }
    }

    /// A contender that carries `limit` calls and no packet more.
    fn contender(limit: u32) -> impl Fn(u32, Duration) -> Result<Attempt> {
        move |calls, time| {
            let packets = (f64::from(calls) * 100.0 * time.as_secs_f64()) as u64;
            let lost = packets * u64::from(calls.saturating_sub(limit)) / u64::from(calls.max(1));
            Ok(Attempt { packets: (packets, lost.max(u64::from(calls > limit))), ends_too_slow: false })
        }
    }

    proptest! {
        #[test]
        fn the_limit_is_found(limit in 20_u32..9_999) {
            let found = most(range(), 0.95, contender(limit)).unwrap();
            prop_assert!(found.calls <= limit && !found.ends_too_slow, "{found:?} of {limit}");
            prop_assert!(f64::from(limit - found.calls) <= f64::from(limit) * 0.06 + 1.0, "{found:?} of {limit}");
            prop_assert!(found.width <= 0.05 && found.loss_bound < 0.01, "{found:?}");
        }

        #[test]
        fn what_a_machine_spoils_now_and_then_does_not_move_it(limit in 200_u32..9_999, every in 4_usize..9) {
            let (steady, mut turn) = (contender(limit), 0);
            let found = most(range(), 0.95, |calls, time| {
                turn += 1;
                let mut attempt = steady(calls, time)?;
                attempt.packets.1 += u64::from(turn % every == 0);
                Ok(attempt)
            }).unwrap();
            prop_assert!(found.calls <= limit, "{found:?} of {limit}");
            prop_assert!(f64::from(found.calls) > f64::from(limit) * 0.6, "{found:?} of {limit}");
        }
    }

    #[test]
    fn ends_that_are_too_slow_are_said() {
        let slow =
            |calls, time| Ok(Attempt { ends_too_slow: calls > 700, ..contender(10_000)(calls, time)? });
        let found = most(range(), 0.95, slow).unwrap();
        assert!(found.ends_too_slow && (650..=700).contains(&found.calls), "{found:?}");
        let all = most(range(), 0.95, contender(10_000)).unwrap();
        assert!(all.ends_too_slow && all.calls == 10_000, "{all:?}");
    }

    #[test]
    fn nothing_is_found_where_nothing_is_carried() {
        let found = most(range(), 0.95, contender(0)).unwrap();
        assert_eq!((found.calls, found.ends_too_slow, found.loss_bound), (0, false, 1.0));
    }
}
