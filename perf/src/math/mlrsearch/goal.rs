//! When a load counts as too much or as carried: RFC 9971, "Load Classification Code" and "Conditional Throughput Code".

/// What is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// A trial that lost more than this part of its packets is lossy.
    pub loss_ratio: f64,
    /// Part of the time that may be spent in lossy trials and the load still counts as carried: what a noisy machine may
    /// spoil. 0 to below 1.
    pub exceed_ratio: f64,
    /// Seconds a full trial takes.
    pub trial_s: f64,
    /// Seconds of full trials that decide on a load.
    pub duration_s: f64,
    /// The search ends when lower and upper bound are no further apart than this part of the upper.
    pub width: f64,
}

impl Goal {
    /// No-drop rate: zero loss, half of the trials may be spoilt, bounds within 2 %.
    #[must_use]
    pub fn ndr(trial_s: f64, duration_s: f64) -> Self {
        Self { loss_ratio: 0.0, exceed_ratio: 0.5, trial_s, duration_s, width: 0.02 }
    }

    /// Partial-drop rate: at most 0.5 % of the packets, half of the trials may be spoilt, bounds within 2 %.
    #[must_use]
    pub fn pdr(trial_s: f64, duration_s: f64) -> Self {
        Self { loss_ratio: 0.005, ..Self::ndr(trial_s, duration_s) }
    }

    /// Throughput as RFC 2544 defines it: one trial of 60 s decides, and a single lost packet is a failure.
    #[must_use]
    pub fn rfc2544() -> Self {
        Self { loss_ratio: 0.0, exceed_ratio: 0.0, trial_s: 60.0, duration_s: 60.0, width: 0.01 }
    }
}

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// The rate that was offered, in any unit.
    pub rate: f64,
    /// How long, in seconds.
    pub duration_s: f64,
    /// What it counts for, in seconds: not less than `duration_s`. Set-up and waiting may be added.
    pub effective_s: f64,
    /// Part of the packets that was lost, 0 to 1.
    pub loss: f64,
}

/// What the trials at a load say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is too much, whatever further trials within the goal's duration say.
    Upper,
    /// It is carried, whatever they say.
    Lower,
    /// More trials are needed.
    Undecided,
}

/// Of trials at one load, seconds by length and loss: full and carried, full and lossy, short and carried, short and lossy.
fn sums(goal: &Goal, trials: &[Trial]) -> [f64; 4] {
    let mut sums = [0.0; 4];
    for trial in trials {
        let (short, lossy) = (trial.duration_s < goal.trial_s, trial.loss > goal.loss_ratio);
        sums[usize::from(short) * 2 + usize::from(lossy)] += trial.effective_s;
    }
    sums
}

/// Of trials at one load, the part of the time spent in lossy ones: as it is, and if all trials that are missing to the goal's
/// duration were lossy too.
#[must_use]
pub fn exceed_ratios(goal: &Goal, trials: &[Trial]) -> (f64, f64) {
    let [full_low, full_high, short_low, short_high] = sums(goal, trials);
    let balancing = short_low * goal.exceed_ratio / (1.0 - goal.exceed_ratio);
    let high = full_high + (short_high - balancing).max(0.0);
    let whole = (full_low + high).max(goal.duration_s);
    (high / whole, (whole - full_low) / whole)
}

/// What these trials, all at the same load, say of it.
#[must_use]
pub fn classify(goal: &Goal, trials: &[Trial]) -> Class {
    let (optimistic, pessimistic) = exceed_ratios(goal, trials);
    // Sums of seconds such as 0.1 are not exact, and no trial is so short.
    let allowed = goal.exceed_ratio + 1e-9;
    match (optimistic <= allowed, pessimistic <= allowed) {
        (true, true) => Class::Lower,
        (false, false) => Class::Upper,
        _ => Class::Undecided,
    }
}

/// The rate that came out at the other end in these trials, all at the same load: of the full trial that stands at the
/// goal's place when all are sorted by loss. None: there is no full trial.
#[must_use]
pub fn conditional_throughput(goal: &Goal, trials: &[Trial]) -> Option<f64> {
    let mut full: Vec<&Trial> = trials.iter().filter(|trial| trial.duration_s >= goal.trial_s).collect();
    full.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    let sum: f64 = full.iter().map(|trial| trial.effective_s).sum();
    let mut remaining = sum * (1.0 - goal.exceed_ratio);
    let mut found = None;
    for trial in full {
        if remaining <= 5e-7 {
            break;
        }
        found = Some(trial.rate * (1.0 - trial.loss));
        remaining -= trial.effective_s;
    }
    found
}
