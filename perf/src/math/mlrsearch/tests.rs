use proptest::prelude::*;

use super::*;

fn goal(trial_s: f64, duration_s: f64, loss_percent: f64, exceed_percent: f64) -> Goal {
    let (loss_ratio, exceed_ratio) = (loss_percent / 100.0, exceed_percent / 100.0);
    Goal { loss_ratio, exceed_ratio, trial_s, duration_s, width: 0.005 }
}

fn trials(number: usize, seconds: f64, loss_percent: f64) -> Vec<Trial> {
    let trial = Trial { rate: 1e6, duration_s: seconds, effective_s: seconds, loss: loss_percent / 100.0 };
    vec![trial; number]
}

/// RFC 9971, appendix "Example Search": optimistic and pessimistic exceed ratio of four goals, in percent, as trials at one
/// load come in, and what they say of it.
#[test]
fn the_example_of_the_rfc() {
    use Class::{Lower, Undecided, Upper};
    let goals = [
        goal(60.0, 60.0, 0.0, 0.0),
        goal(60.0, 120.0, 0.0, 50.0),
        goal(1.0, 120.0, 0.5, 50.0),
        goal(60.0, 60.0, 0.5, 20.0),
    ];
    let ratios = [
        [(0.0, 100.0), (0.0, 100.0), (0.0, 50.833), (0.0, 100.0)],
        [(1.667, 100.0), (0.0, 100.0), (0.833, 50.833), (0.0, 100.0)],
        [(100.0, 100.0), (0.833, 100.0), (50.0, 50.833), (75.417, 100.0)],
        [(100.0, 100.0), (0.0, 100.0), (50.0, 50.0), (75.0, 100.0)],
        [(100.0, 100.0), (50.0, 100.0), (33.333, 33.333), (42.857, 42.857)],
        [(66.667, 66.667), (50.0, 50.0), (25.0, 25.0), (27.273, 27.273)],
    ];
    // The draft's table calls the last goal's load carried at points 5 and 6, against its own ratios (above 20 %) and rule.
    let points = [
        (trials(59, 1.0, 0.0), [Undecided; 4]),
        (trials(1, 1.0, 1.0), [Upper, Undecided, Undecided, Undecided]),
        (trials(59, 1.0, 1.0), [Upper, Undecided, Undecided, Upper]),
        (trials(1, 1.0, 0.0), [Upper, Undecided, Lower, Upper]),
        (trials(1, 60.0, 0.1), [Upper, Undecided, Lower, Upper]),
        (trials(1, 60.0, 0.0), [Upper, Lower, Lower, Upper]),
    ];
    let mut so_far = Vec::new();
    for (point, (more, expected)) in points.into_iter().enumerate() {
        so_far.extend(more);
        assert_eq!(goals.map(|goal| classify(&goal, &so_far)), expected, "point {}", point + 1);
        for (goal, (optimistic, pessimistic)) in goals.iter().zip(ratios[point]) {
            let (a, b) = exceed_ratios(goal, &so_far);
            let off = (a * 100.0 - optimistic).abs().max((b * 100.0 - pessimistic).abs());
            assert!(off < 0.0006, "point {}: {a} {b}, not {optimistic} {pessimistic}", point + 1);
        }
    }
    let throughputs = [1, 2, 3].map(|index| conditional_throughput(&goals[index], &so_far).unwrap());
    assert_eq!(throughputs, [1e6, 1e6, 999e3]);
    assert_eq!(conditional_throughput(&goals[0], &trials(3, 1.0, 0.0)), None);
}

/// A device that carries `limit` and no more, and a machine that now and then takes it away.
struct Device {
    limit: f64,
    spoilt: f64,
    random: u64,
}

impl Device {
    fn new(limit: f64, spoilt: f64, seed: u64) -> Self {
        Self { limit, spoilt, random: seed | 1 }
    }

    /// 0 to 1, by xorshift.
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn lose(&mut self, ask: Ask) -> f64 {
        let noise = if self.chance() < self.spoilt { self.chance() * 0.3 } else { 0.0 };
        ((ask.rate - self.limit).max(0.0) / ask.rate).max(noise)
    }
}

fn run(mut search: Search, device: &mut Device) -> Search {
    let mut asked = 0;
    while let Some(ask) = search.next() {
        assert!(ask.rate > 0.0 && ask.duration_s > 0.0, "{ask:?}");
        search.observe(device.lose(ask));
        asked += 1;
        assert!(asked < 10_000, "it does not end");
    }
    search
}

fn both(budget_s: f64) -> Search {
    Search::new(vec![Goal::ndr(0.2, 1.0), Goal::pdr(0.2, 1.0)], 0.01, 10.0, budget_s)
}

#[test]
fn a_quiet_device_is_found_to_the_width_in_a_few_seconds() {
    let search = run(both(1e9), &mut Device::new(3.21, 0.0, 1));
    let (ndr, pdr) = (search.outcome(0), search.outcome(1));
    assert!(ndr.finished && pdr.finished);
    let (lower, upper) = (ndr.lower.unwrap(), ndr.upper.unwrap());
    assert!(lower <= 3.21 && upper > 3.21 && (upper - lower) / upper <= 0.02, "{ndr:?}");
    // 0.5 % loss is at limit / 0.995.
    let (lower, upper) = (pdr.lower.unwrap(), pdr.upper.unwrap());
    assert!(lower <= 3.2262 && upper > 3.2261 && (upper - lower) / upper <= 0.02, "{pdr:?}");
    assert!(ndr.trial_seconds < 10.0 && ndr.trials < 60, "{ndr:?}");
}

#[test]
fn a_fifth_of_spoilt_trials_does_not_hide_the_limit() {
    // Single searches may be led astray: the median of many is not.
    let found: Vec<f64> = (1..40)
        .map(|seed| {
            let search = run(both(1e9), &mut Device::new(4.0, 0.2, seed * 7919));
            search.outcome(0).lower.unwrap_or(0.0)
        })
        .collect();
    assert!(found.iter().all(|rate| *rate <= 4.0), "{found:?}");
    let middle = crate::math::statistics::median(&found).unwrap();
    assert!((3.8..=4.0).contains(&middle), "{middle} of {found:?}");
}

#[test]
fn a_device_beyond_the_range_is_said_to_be() {
    let fast = run(both(1e9), &mut Device::new(20.0, 0.0, 1)).outcome(0);
    assert_eq!(
        (fast.lower, fast.upper, fast.throughput, fast.finished),
        (Some(10.0), None, Some(10.0), true)
    );
    let dead = run(both(1e9), &mut Device::new(0.0, 0.0, 1)).outcome(0);
    assert_eq!((dead.lower, dead.upper, dead.throughput, dead.finished), (None, Some(0.01), None, true));
}

#[test]
fn the_budget_ends_it_and_it_says_so() {
    let search = run(both(1.0), &mut Device::new(3.0, 0.0, 1));
    let ndr = search.outcome(0);
    assert!(ndr.trial_seconds <= 1.0 && !ndr.finished, "{ndr:?}");
    let mut search = both(10.0);
    let first = search.next().unwrap();
    assert_eq!(search.next(), Some(first), "asking again asks the same");
    search.stop();
    assert_eq!(search.next(), None);
    search.observe(0.5);
    assert!(search.trials().is_empty());
}

proptest! {
    /// Whatever the device does, the search ends, and what it calls finished is what its trials say.
    #[test]
    fn it_ends_and_its_bounds_hold(losses in proptest::collection::vec(prop_oneof![Just(0.0), 0.0..0.01, 0.0..1.0], 1..64)) {
        let mut search = both(1e9);
        let mut asked = 0;
        while search.next().is_some() {
            search.observe(losses[asked % losses.len()]);
            asked += 1;
            prop_assert!(asked < 5_000);
        }
        for index in [0, 1] {
            let outcome = search.outcome(index);
            prop_assert!(outcome.finished, "{outcome:?}");
            let at = |rate: f64| search.trials().iter().filter(|trial| trial.rate == rate).copied().collect::<Vec<_>>();
            if let Some(lower) = outcome.lower {
                prop_assert_eq!(classify(&outcome.goal, &at(lower)), Class::Lower);
            }
            if let Some(upper) = outcome.upper {
                prop_assert_eq!(classify(&outcome.goal, &at(upper)), Class::Upper);
            }
        }
    }

    /// Any limit is found.
    #[test]
    fn a_quiet_limit_is_between_the_bounds(limit in 0.02..9.9) {
        let outcome = run(both(1e9), &mut Device::new(limit, 0.0, 1)).outcome(0);
        prop_assert!(outcome.lower.unwrap() <= limit && outcome.upper.unwrap() > limit, "{outcome:?}");
        prop_assert!(outcome.trials < 80, "{outcome:?}");
    }
}
