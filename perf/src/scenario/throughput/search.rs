//! What is carried of a flood, and the search for what is carried without loss.

use std::time::{Duration, Instant};

use super::windows::Windows;
use super::{Bench, Effort, Outcome};
use crate::math::mlrsearch::{Goal, Search};
use crate::session::Session;
use crate::{Error, Result};

/// Lowest rate that is tried, in packets a second.
const LOWEST: f64 = 20_000.0;
/// A trial in which the generator fell further behind than this part of it did not offer the rate it was to offer.
const BEHIND: f64 = 0.02;
/// A generator that stood still sends what was due meanwhile at once. More frames than these, which a veth's ring of 256 just
/// holds, are no longer the schedule's.
const HEAP: f64 = 200.0;
/// A trial that says nothing of the forwarder is repeated so often in all.
const REPEATS: usize = 3;

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// The search, at its end.
    pub search: Search,
    /// The lowest rate, in packets a second, that the generator could not offer. It counts as lost. None: it could offer all.
    pub not_offered: Option<f64>,
    /// Why it is void: whenever a trial was repeated the machine took the cores away again. None: it is not.
    pub void: Option<String>,
}

/// What is carried of a flood, in packets a second: the high mark of short windows, and the mean.
///
/// # Errors
///
/// [`Error::Setup`] when it was over too soon to see.
pub fn flood(bench: &mut Bench, frames: u32) -> Result<(f64, f64)> {
    let (mut windows, start) = (Windows::default(), Instant::now());
    bench.flood(frames, |count| windows.look(start.elapsed(), count))?;
    let both = windows.high().zip(windows.mean());
    both.ok_or_else(|| Error::setup("flood a forwarder", format!("{frames} frames are over too soon")))
}

/// Searches the no-drop rate and the partial-drop rate, goals 0 and 1, in packets a second.
///
/// # Errors
///
/// [`Error::Interrupted`], and what [`Bench::offer`] says.
pub fn search(session: &Session, bench: &mut Bench, highest: f64, effort: Effort) -> Result<Found> {
    let goals = vec![Goal::ndr(effort.trial_s, effort.decide_s), Goal::pdr(effort.trial_s, effort.decide_s)];
    let mut search = Search::new(goals, LOWEST, highest.max(LOWEST * 2.0), effort.budget_s);
    // The set-up of a trial takes as long as a short trial: the search is held to the clock, too.
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(effort.budget_s * 2.0));
    let (mut not_offered, mut void) = (None, None);
    while let Some(ask) = search.next() {
        session.check()?;
        if start.elapsed() > limit {
            search.stop();
            break;
        }
        let (loss, disturbed) = trial(bench, ask.rate, ask.duration_s)?;
        if loss.is_none() && disturbed.is_none() {
            not_offered = Some(not_offered.map_or(ask.rate, |lowest: f64| lowest.min(ask.rate)));
        }
        void = void.or(disturbed);
        // Nobody knows what would have become of frames that were not offered in time: they do not count as carried.
        search.observe(loss.unwrap_or(1.0));
    }
    Ok(Found { search, not_offered, void })
}

/// The part of the frames that was lost of one trial in which the generator kept to its schedule; None: it could not keep to
/// it. And why neither says anything, because the machine took its core, or the forwarder's, each time.
fn trial(bench: &mut Bench, rate: f64, seconds: f64) -> Result<(Option<f64>, Option<String>)> {
    let mut repeats = 0;
    loop {
        let watch = bench.watch();
        let outcome = bench.offer(rate, seconds)?;
        let offered = is_offered(&outcome, seconds);
        let disturbed = match (offered, outcome.loss() > 0.0) {
            (false, _) => outcome.sent.void(),
            (true, true) => watch.void(),
            (true, false) => None,
        };
        repeats += 1;
        if repeats == REPEATS || offered && disturbed.is_none() && !is_heaped(&outcome, rate) {
            return Ok((offered.then(|| outcome.loss()), disturbed));
        }
    }
}

/// Whether the generator kept up.
pub(super) fn is_offered(outcome: &Outcome, seconds: f64) -> bool {
    outcome.sent.behind.as_secs_f64() <= seconds * BEHIND
}

/// Whether frames were lost that may have been lost because the generator sent a heap of them at once.
pub(super) fn is_heaped(outcome: &Outcome, rate: f64) -> bool {
    outcome.loss() > 0.0 && outcome.sent.behind_max.as_secs_f64() * rate > HEAP
}
