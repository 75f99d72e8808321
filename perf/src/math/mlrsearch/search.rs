//! Which trial comes next.

use super::goal::{Class, Goal, Trial, classify, conditional_throughput};

/// A trial to be run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// At this rate, in the unit the search was begun with.
    pub rate: f64,
    /// For so many seconds.
    pub duration_s: f64,
}

/// What was found for a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The goal.
    pub goal: Goal,
    /// The highest rate below `upper` that is carried. None: not even the lowest was, or the search ended too early.
    pub lower: Option<f64>,
    /// The lowest rate that is too much. None: not even the highest was, or the search ended too early.
    pub upper: Option<f64>,
    /// What came out at the other end at `lower`.
    pub throughput: Option<f64>,
    /// Whether the bounds are as near as the goal wants, or the end of the range answers it.
    pub finished: bool,
    /// Trials run in the whole search, for all its goals.
    pub trials: usize,
    /// Seconds they took.
    pub trial_seconds: f64,
}

/// A goal, or a coarser form of it that leads there.
#[derive(Debug, Clone, Copy)]
struct Target {
    goal: Goal,
    /// How often the range was widened since the last bound was found.
    widened: u32,
}

/// The search for the rates of several goals at once: a trial counts for each of them.
#[derive(Debug, Clone)]
pub struct Search {
    goals: Vec<Goal>,
    targets: Vec<Target>,
    at: usize,
    min: f64,
    max: f64,
    budget_s: f64,
    trials: Vec<Trial>,
    asked: Option<Ask>,
    /// Where the coarser target before saw its bounds: looked at first.
    hints: Vec<f64>,
}

/// How much wider and shorter than the goal the coarse stages are, in order.
const STAGES: [f64; 2] = [8.0, 3.0];

impl Search {
    /// A search from `min` to `max` (above 0, in any unit) that spends no more than `budget_s` seconds in trials.
    ///
    /// Name the goals from the strictest on: what the first finds tells the next where to look.
    #[must_use]
    pub fn new(goals: Vec<Goal>, min: f64, max: f64, budget_s: f64) -> Self {
        let coarse = STAGES.iter().flat_map(|factor| goals.iter().map(move |goal| coarser(goal, *factor)));
        let targets = coarse.chain(goals.iter().copied()).map(|goal| Target { goal, widened: 0 }).collect();
        Self { goals, targets, at: 0, min, max, budget_s, trials: Vec::new(), asked: None, hints: Vec::new() }
    }

    /// The trial to run now; `observe` its loss before asking again. None: the search has ended.
    #[expect(clippy::should_implement_trait, reason = "an iterator would not wait for the answer")]
    pub fn next(&mut self) -> Option<Ask> {
        let spent: f64 = self.trials.iter().map(|trial| trial.duration_s).sum();
        while let Some(target) = self.targets.get(self.at).copied() {
            let ask = self.choose(&target).map(|rate| Ask { rate, duration_s: target.goal.trial_s });
            match ask {
                Some(ask) if spent + ask.duration_s <= self.budget_s => {
                    self.asked = Some(ask);
                    return self.asked;
                }
                Some(_) => break,
                None => self.advance(&target.goal),
            }
        }
        self.asked = None;
        None
    }

    /// The trial that [`Self::next`] asked for lost this part of its packets. Without such a trial it does nothing.
    pub fn observe(&mut self, loss: f64) {
        if let Some(Ask { rate, duration_s }) = self.asked.take() {
            self.trials.push(Trial { rate, duration_s, effective_s: duration_s, loss });
            let class = self.class(&self.targets[self.at].goal, rate);
            let target = &mut self.targets[self.at];
            target.widened += u32::from(class != Class::Undecided);
        }
    }

    /// Ends a search early: what was found so far stays.
    pub fn stop(&mut self) {
        self.at = self.targets.len();
    }

    /// All trials so far, in order.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// What is known of the goal of this index.
    ///
    /// # Panics
    /// When the search has no such goal.
    #[must_use]
    pub fn outcome(&self, goal: usize) -> Outcome {
        let goal = self.goals[goal];
        let (lower, upper) = self.bounds(&goal);
        let at_lower = |rate: f64| conditional_throughput(&goal, &self.at_rate(rate));
        Outcome {
            goal,
            lower,
            upper,
            throughput: lower.and_then(at_lower),
            finished: self.is_finished(&goal, lower, upper),
            trials: self.trials.len(),
            trial_seconds: self.trials.iter().map(|trial| trial.duration_s).sum(),
        }
    }

    fn advance(&mut self, goal: &Goal) {
        let (lower, upper) = self.bounds(goal);
        self.hints = [lower, upper].into_iter().flatten().collect();
        self.at += 1;
    }

    fn at_rate(&self, rate: f64) -> Vec<Trial> {
        self.trials.iter().filter(|trial| trial.rate == rate).copied().collect()
    }

    fn class(&self, goal: &Goal, rate: f64) -> Class {
        classify(goal, &self.at_rate(rate))
    }

    /// The highest carried rate below the lowest that is too much, and that one.
    fn bounds(&self, goal: &Goal) -> (Option<f64>, Option<f64>) {
        let of = |class: Class| {
            let rates = self.trials.iter().map(|trial| trial.rate);
            rates.filter(|rate| self.class(goal, *rate) == class).collect::<Vec<_>>()
        };
        let upper = of(Class::Upper).into_iter().min_by(f64::total_cmp);
        let below = of(Class::Lower).into_iter().filter(|rate| upper.is_none_or(|upper| *rate < upper));
        (below.max_by(f64::total_cmp), upper)
    }

    fn is_finished(&self, goal: &Goal, lower: Option<f64>, upper: Option<f64>) -> bool {
        match (lower, upper) {
            (Some(lower), Some(upper)) => (upper - lower) / upper <= goal.width,
            (Some(lower), None) => lower >= self.max,
            (None, Some(upper)) => upper <= self.min,
            (None, None) => false,
        }
    }

    /// The rate to try for this target. None: it is reached.
    fn choose(&self, target: &Target) -> Option<f64> {
        let goal = &target.goal;
        let (lower, upper) = self.bounds(goal);
        if self.is_finished(goal, lower, upper) {
            return None;
        }
        let inside = |rate: f64| lower.is_none_or(|low| rate > low) && upper.is_none_or(|high| rate < high);
        // A rate that was begun for this target is decided first.
        let begun =
            self.trials.last().filter(|trial| trial.duration_s == goal.trial_s).map(|trial| trial.rate);
        let open = |rate: &f64| inside(*rate) && self.class(goal, *rate) == Class::Undecided;
        if let Some(rate) = begun.filter(open).or_else(|| self.hints.iter().copied().find(open)) {
            return Some(rate);
        }
        let factor = 1.0 + goal.width * f64::from(1_u32 << target.widened.min(16));
        Some(match (lower, upper) {
            (Some(lower), Some(upper)) => (lower * upper).sqrt(),
            (Some(lower), None) => (lower * factor).min(self.max),
            (None, Some(upper)) => self.carried(upper).unwrap_or(upper / factor).max(self.min),
            (None, None) => self.max,
        })
    }

    /// What came out at the other end when this much too much was offered: a first guess of what can be carried.
    fn carried(&self, upper: f64) -> Option<f64> {
        let trial = self.trials.last().filter(|trial| trial.rate == upper)?;
        let rate = trial.rate * (1.0 - trial.loss);
        (trial.loss > 0.02 && rate > self.min).then_some(rate)
    }
}

/// The goal by one short trial a load, within a coarse width.
fn coarser(goal: &Goal, factor: f64) -> Goal {
    let trial_s = (goal.trial_s / factor).max(goal.trial_s.min(0.02));
    Goal { trial_s, duration_s: trial_s, width: (goal.width * factor).min(0.5), ..*goal }
}
