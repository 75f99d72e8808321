//! Ours and its peers take turns, a round each.

use std::time::Instant;

use super::NAME;
use crate::machine::{Watch, has_tsc, tsc_mhz};
use crate::math::statistics::{median, ratios_of_times};
use crate::result::{Measurement, ratio_name, usable};
use crate::session::Session;
use crate::{Error, Result};

/// Times a round of ours is measured before it counts as void.
const TRIES: usize = 3;

/// Something else that does the same.
pub(super) struct Peer<'a> {
    pub(super) name: &'static str,
    /// Measures it once, in cycles of the time stamp counter.
    pub(super) run: Box<dyn FnMut() -> Result<f64> + 'a>,
}

/// What a peer gave, in nanoseconds; None from the round on in which it failed.
struct Beside {
    name: &'static str,
    rounds: Vec<Option<f64>>,
}

/// Nanoseconds that each of `count` takes, which `work` does at once: all of them once before, and then as often as it
/// takes to come to `least`.
pub(super) fn time_each(count: usize, least: usize, mut work: impl FnMut()) -> f64 {
    work();
    let times = least.div_ceil(count.max(1)).max(1);
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed().as_nanos() as f64 / (times * count.max(1)) as f64
}

/// Measures in rounds, each of `ours` (in nanoseconds) and of every peer, and records it as `metric` of `case`, with the
/// cycles that it is.
pub(super) fn take_turns(
    session: &mut Session,
    case: &str,
    metric: &str,
    mut ours: impl FnMut() -> f64,
    peers: Vec<Peer<'_>>,
) -> Result<()> {
    let mhz = if has_tsc() { Some(tsc_mhz()) } else { None };
    let (mut measured, mut beside, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for peer in peers {
        beside.push(Beside { name: peer.name, rounds: Vec::new() });
        runs.push(peer.run);
    }
    for _ in 0..session.config.rounds.max(1) {
        session.step(case)?;
        measured.push(round(&mut ours));
        for (beside, run) in beside.iter_mut().zip(&mut runs) {
            session.check()?;
            let is_out = beside.rounds.last().is_some_and(Option::is_none);
            let outcome = match mhz {
                _ if is_out => Ok(None),
                None => Err(Error::Unmet("it counts a time stamp counter, and there is none".to_owned())),
                Some(mhz) => run().map(|cycles| Some(cycles * 1e3 / mhz)),
            };
            // Interrupted, a peer ends with us, and that is not its failure.
            session.check()?;
            if let Err(error) = &outcome {
                session.note(format!("{NAME}: {case}: without {}: {error}", beside.name));
            }
            beside.rounds.push(outcome.unwrap_or(None));
        }
    }
    record(session, (case, metric), &measured, &beside, mhz);
    Ok(())
}

fn round(ours: &mut impl FnMut() -> f64) -> (f64, Option<String>) {
    let mut tries = 1;
    loop {
        let watch = Watch::start();
        let (took, void) = (ours(), watch.void());
        if void.is_none() || tries == TRIES {
            return (took, void);
        }
        tries += 1;
    }
}

fn record(
    session: &mut Session,
    (case, metric): (&str, &str),
    measured: &[(f64, Option<String>)],
    beside: &[Beside],
    mhz: Option<f64>,
) {
    let (values, void) = usable(measured.iter().cloned());
    let mut row = Measurement::of_rounds(NAME, case, metric, "ns", &values).void_because(void.clone());
    for peer in beside {
        let times: Vec<f64> = peer.rounds.iter().flatten().copied().collect();
        if let Some(median) = median(&times) {
            row = row.beside(peer.name, median);
        }
    }
    session.record(row);
    if let Some(mhz) = mhz {
        let cycles: Vec<f64> = values.iter().map(|ns| ns * mhz / 1e3).collect();
        let name = format!("{metric}-cycles");
        session.record(Measurement::of_rounds(NAME, case, &name, "cycles", &cycles).void_because(void));
    }
    for peer in beside {
        let both = measured.iter().zip(&peer.rounds);
        let (pairs, void) =
            usable(both.filter_map(|((ours, void), peer)| Some(((*ours, (*peer)?), void.clone()))));
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let ratios = ratios_of_times(&ours, &theirs);
        if !ratios.is_empty() {
            let name = ratio_name(peer.name, metric);
            session.record(Measurement::of_rounds(NAME, case, &name, "1", &ratios).void_because(void));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_fails_is_out_and_told_of_and_the_others_are_compared() {
        let mut session = Session::for_tests();
        session.config.rounds = 3;
        let mut asked = 0;
        let fails = || {
            asked += 1;
            Err(Error::Unmet("not here".to_owned()))
        };
        let peers = vec![
            Peer { name: "slower", run: Box::new(|| Ok(1e6)) },
            Peer { name: "none", run: Box::new(fails) },
        ];
        take_turns(&mut session, "case", "look-up", || 2.0, peers).unwrap();
        let row = |metric: &str| session.results.iter().find(|row| row.metric == metric);
        let ours = row("look-up").unwrap();
        assert_eq!((ours.value, ours.rounds), (2.0, 3));
        assert_eq!(asked, usize::from(has_tsc()));
        assert!(session.notes.iter().any(|note| note.contains("without none: ")), "{:?}", session.notes);
        assert!(row("ratio/none/look-up").is_none() && !ours.peers.contains_key("none"));
        if has_tsc() {
            assert!(row("ratio/slower/look-up").unwrap().value > 1.0 && ours.peers["slower"] > 2.0);
            assert!(row("look-up-cycles").unwrap().value > 0.0);
        }
    }

    #[test]
    fn what_is_counted_is_what_was_done_after_the_first_time() {
        let mut times = 0;
        let each = time_each(10, 95, || times += 1);
        assert!(each >= 0.0);
        assert_eq!(times, 11);
    }
}
