//! How tracks take turns, so that what the machine does to one it does to all.

use super::OURS;
use super::track::Track;
use crate::result::median_of_sorted;
use crate::{Error, Result};

/// Batches of a turn: a few hundred microseconds, so that a disturbance of some milliseconds meets all tracks alike.
const TURN: usize = 10;
/// Batches before them, which count for nothing: those before have had the caches.
const UNCOUNTED: usize = 2;

/// A track, and what its rounds gave.
pub(crate) struct Entrant {
    /// The track.
    pub(crate) track: Track,
    /// The median of each round, in nanoseconds a packet.
    pub(crate) rounds: Vec<f64>,
    /// Why it is out. Never of ours: that ends it all.
    pub(crate) failed: Option<Error>,
    times: Vec<f64>,
}

impl Entrant {
    /// One that has had no round yet.
    pub(crate) fn new(track: Track) -> Self {
        Self { track, rounds: Vec::new(), failed: None, times: Vec::new() }
    }

    fn turn(&mut self, batches: usize) -> Result<()> {
        if self.failed.is_none() {
            let times = self.track.run(UNCOUNTED + batches);
            let counted = times.map(|times| self.times.extend(&times[UNCOUNTED..]));
            self.bear(counted)?;
        }
        Ok(())
    }

    fn end_round(&mut self, counts: bool) {
        self.times.sort_by(f64::total_cmp);
        if counts && self.failed.is_none() {
            self.rounds.push(median_of_sorted(&self.times));
        }
        self.times.clear();
    }

    /// Sees to it that every packet is accounted for, and that none ended on the way.
    fn account(&mut self) -> Result<()> {
        if self.failed.is_none() {
            let lost = self.track.check().and_then(|()| self.track.lost());
            let whole = lost.and_then(|lost| lost.map_or(Ok(()), |lost| Err(Error::Miscounted(lost))));
            self.bear(whole)?;
        }
        Ok(())
    }

    /// An error of ours is one; a peer's takes the peer out.
    fn bear(&mut self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error) if self.track.name != OURS => {
                self.failed = Some(error);
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// All take turns in each round, until each has counted so many batches in it. `check`: whether to go on.
///
/// # Errors
///
/// Those of `check`, and ours. What whole rounds gave stays, and is to be recorded only if [`account_all`] agrees.
pub(crate) fn take_turns(
    all: &mut [Entrant],
    rounds: usize,
    batches: usize,
    check: &dyn Fn() -> Result<()>,
) -> Result<()> {
    // The first round warms caches, flows and connections up.
    for round in 0..=rounds {
        for turn in 0..batches.div_ceil(TURN) {
            for one in all.iter_mut() {
                check()?;
                one.turn(TURN.min(batches - turn * TURN))?;
            }
        }
        all.iter_mut().for_each(|one| one.end_round(round > 0));
    }
    Ok(())
}

/// Sees to it that every packet of every track is accounted for, and that none ended on the way.
///
/// # Errors
///
/// [`Error::Miscounted`], of ours.
pub(crate) fn account_all(all: &mut [Entrant]) -> Result<()> {
    all.iter_mut().try_for_each(Entrant::account)
}
