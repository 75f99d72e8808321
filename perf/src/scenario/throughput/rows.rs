//! What rounds become: rows of ours beside the peers, and notes of what had to be left out. Of throughput, and of latency.

use super::Who;
use crate::math::statistics::median;
pub(super) use crate::result::usable;
use crate::result::{Measurement, ratio_name};
use crate::session::Session;
use crate::{Error, Result};

/// A figure of one forwarder in one round, and why it is void.
pub type Value = (f64, Option<String>);

/// One metric of one case.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The scenario.
    pub scenario: &'a str,
    /// The case.
    pub case: &'a str,
    /// The metric.
    pub metric: &'a str,
    /// Its unit.
    pub unit: &'a str,
    /// The ratio of ours to a peer's figure, above 1 when we are better. None: there are no ratios of this metric.
    pub ratio: Option<fn(f64, f64) -> f64>,
}

/// Ours / the peer's: of rates.
pub fn of_rates(ours: f64, theirs: f64) -> f64 {
    ours / theirs
}

/// The peer's / ours: of times.
pub fn of_times(ours: f64, theirs: f64) -> f64 {
    theirs / ours
}

impl Row<'_> {
    /// Records the row and its ratios. `of`: the figure of somebody in a round, counted from 0; None: there is none.
    ///
    /// Rounds that are void are left out while there is another one. A peer stands beside ours with the rounds that are good
    /// of both; when there is none, a note says why it does not.
    pub fn record(
        &self,
        session: &mut Session,
        whos: &[Who],
        rounds: usize,
        of: impl Fn(usize, Who) -> Option<Value>,
    ) {
        let values = |who: Who| -> Vec<Option<Value>> { (0..rounds).map(|round| of(round, who)).collect() };
        let all = values(Who::Ours);
        let (ours, void) = usable(all.iter().flatten().map(|(value, void)| (*value, void.clone())));
        if ours.is_empty() {
            return;
        }
        let mut row = self.of_rounds(self.metric, self.unit, &ours).void_because(void);
        let (mut ratios, mut without) = (Vec::new(), Vec::new());
        for who in whos.iter().copied().filter(|who| *who != Who::Ours) {
            let theirs = values(who);
            let pairs = all.iter().zip(&theirs).filter_map(|(ours, theirs)| {
                let ((ours, void), (theirs, also)) = (ours.as_ref()?, theirs.as_ref()?);
                Some(((*ours, *theirs), void.clone().or_else(|| also.clone())))
            });
            let (pairs, void) = usable(pairs);
            let each: Vec<f64> = pairs.iter().map(|(_, theirs)| *theirs).collect();
            let Some(median) = median(&each) else { continue };
            match &void {
                None => row = row.beside(who.name(), median),
                // When ours is void itself, the row says so.
                Some(void) if row.void.is_none() => session.note(format!(
                    "{}: not all figures of {} have one of {} beside them: {void}",
                    self.scenario,
                    self.case,
                    who.name()
                )),
                Some(_) => {}
            }
            match self.ratio(who, &pairs) {
                Some(Ok(ratio)) => ratios.push(ratio.void_because(void)),
                Some(Err(undefined)) => {
                    without.push(format!("{} ({undefined} of {})", who.name(), pairs.len()));
                }
                None => {}
            }
        }
        // Without these rounds it would be of other rounds than the figures are.
        if !without.is_empty() && row.void.is_none() {
            session.note(format!(
                "{}: {} of {} has no ratio where one of the two is 0 in a round: {}",
                self.scenario,
                self.metric,
                self.case,
                without.join(", ")
            ));
        }
        session.record(row);
        ratios.into_iter().for_each(|ratio| session.record(ratio));
    }

    /// The ratio to a peer, if there is to be one, or in how many rounds it has none.
    fn ratio(&self, who: Who, pairs: &[(f64, f64)]) -> Option<Result<Measurement, usize>> {
        let ratio = self.ratio?;
        let each: Vec<f64> = pairs.iter().map(|(ours, theirs)| ratio(*ours, *theirs)).collect();
        let undefined = pairs.iter().filter(|(ours, theirs)| *ours == 0.0 || *theirs == 0.0).count();
        Some(if undefined == 0 {
            Ok(self.of_rounds(&ratio_name(who.name(), self.metric), "1", &each))
        } else {
            Err(undefined)
        })
    }

    fn of_rounds(&self, metric: &str, unit: &str, rounds: &[f64]) -> Measurement {
        Measurement::of_rounds(self.scenario, self.case, metric, unit, rounds)
    }
}

/// Peers that cannot be measured.
#[derive(Debug, Default)]
pub struct Missing {
    failed: Vec<Who>,
    given_up: Vec<Who>,
}

impl Missing {
    /// Whether it is not to be tried again.
    #[must_use]
    pub fn is(&self, who: Who) -> bool {
        self.given_up.contains(&who)
    }

    /// What was measured of somebody. None: it is a peer, and failed: a note says in which round. It is tried again in the
    /// next one, once, unless it is not there at all.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] (which ends peers, too), and whatever ours says.
    pub fn or_note<T>(
        &mut self,
        session: &mut Session,
        (scenario, who, round): (&str, Who, u32),
        measured: Result<T>,
    ) -> Result<Option<T>> {
        let error = match measured {
            Ok(measured) => return Ok(Some(measured)),
            Err(error) => error,
        };
        session.check()?;
        if who == Who::Ours || matches!(error, Error::Interrupted) {
            return Err(error);
        }
        let number = round + 1;
        session
            .note(format!("{scenario}: nothing was measured of {} in round {number}: {error}", who.name()));
        if matches!(error, Error::Unmet(_)) || self.failed.contains(&who) {
            self.given_up.push(who);
        }
        self.failed.push(who);
        Ok(None)
    }
}
