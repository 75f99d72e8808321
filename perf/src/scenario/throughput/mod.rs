//! `throughput`: what is carried on two cores, without loss, with little, and of a flood, beside the peers.
//!
//! ```text
//!   one core                                  the other core
//!   generator, and the driver's part of  ->   what forwards, and the driver's part of receiving
//!   receiving at the forwarder's device       at the sink
//! ```
//!
//! Frames are made by XDP live frames on an open-loop schedule, in bursts of 16: 256 would fit a veth's ring. Every
//! forwarder is set up anew in each round, and all take their turn within it, so that a ratio is of the same minute.

mod bare;
mod bench;
mod windows;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use bench::{BURST, Bench, Cores, FLOWS, Lost, Outcome, RULES, Who, alone};

use super::{About, Scenario};
use crate::math::mlrsearch::{Goal, Search};
use crate::math::statistics::median;
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::Way;
use crate::{Error, Result};
use windows::Windows;

/// Its name.
pub const NAME: &str = "throughput";
/// Lowest rate that is tried, in packets a second.
const LOWEST: f64 = 20_000.0;
/// What the search may find at most, by what a flood was carried at: some do better when they are not overrun.
const ABOVE_FLOOD: f64 = 1.5;
/// A trial in which the generator fell further behind than this part of it says nothing of the rate it was to offer; nor does
/// one with loss in which the machine took the forwarder's core away.
const BEHIND: f64 = 0.02;
/// The case that says what the generator does alone, and its metric.
const GENERATOR: &str = "generator";
/// Such a trial is repeated so often, and then counts as it is.
const REPEATS: usize = 3;

/// See the module.
pub struct Throughput;

/// What one forwarder did in one round, in Mpps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// No-drop rate.
    pub ndr: f64,
    /// Partial-drop rate: 0.5 % may be lost.
    pub pdr: f64,
    /// Carried of a flood: 90th percentile of windows of 4 ms.
    pub saturated: f64,
    /// Carried of a flood, on the whole.
    pub mean: f64,
    /// Trials of the search.
    pub trials: f64,
    /// How far the bounds of the no-drop rate are apart, in percent of the upper one; 100: there is no lower one.
    pub width: f64,
}

/// How long it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Seconds of a full trial.
    pub trial_s: f64,
    /// Seconds of trials that decide on a rate.
    pub decide_s: f64,
    /// Seconds of trials a search may take.
    pub budget_s: f64,
    /// Frames of a flood: 3 to 7 million are made in a second.
    pub flood: u32,
}

impl Effort {
    /// As long as the session has time for.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        match (session.config.quick, session.config.full) {
            (true, _) => Self { trial_s: 0.04, decide_s: 0.12, budget_s: 1.0, flood: 700_000 },
            (_, false) => Self { trial_s: 0.1, decide_s: 0.3, budget_s: 3.0, flood: 1_400_000 },
            (_, true) => Self { trial_s: 0.5, decide_s: 1.5, budget_s: 20.0, flood: 5_000_000 },
        }
    }
}

/// The figures of one round: of every forwarder that could be measured, and why it is void.
type Round = Vec<(Who, Figures, Option<String>)>;

impl Scenario for Throughput {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "two cores, smallest frames of 1000 flows: the rate carried without loss and with 0.5 % by MLRsearch \
                       (RFC 9971), and what is carried of a flood; ours with 1000 rules, flows tracked",
            cases: "{ndr,pdr,saturated}/{plain,vxlan}/v4, generator/plain/v4",
            metrics: "ndr, pdr, saturated (90th percentile of 4 ms windows), mean (of the flood), generator (with nothing \
                      between it and the sink) in Mpps; trials (of the search), width (% between the bounds of ndr); \
                      ratio/PEER: ours / the peer's, above 1 we are faster",
            peers: "kernel (forwarding; for vxlan its VXLAN device; no policy), bare (AF_XDP, no decision), ovs (afxdp, one \
                    flow), testpmd (net_af_xdp, io)",
            root: true,
            cores: 2,
            default: true,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let cores = Cores::choose()?;
        let ways: Vec<Way> = [Way::Local, Way::IntoVxlan]
            .into_iter()
            .filter(|way| KINDS.iter().any(|(kind, _)| session.wants(&case(kind, *way))))
            .collect();
        let all: usize = ways.iter().map(|way| Who::of(*way).len()).sum();
        session.begin(NAME, u64::from(session.config.rounds) * all as u64);
        let effort = Effort::of(session);
        record_generator(session, cores, effort)?;
        let mut missing = Vec::new();
        for way in ways {
            let mut rounds: Vec<Round> = Vec::new();
            for round in 0..session.config.rounds {
                rounds.push(one_round(session, way, cores, effort, round, &mut missing)?);
                session.results.retain(|old| old.scenario != NAME || !is_of(&old.case, way));
                record(session, way, &rounds);
            }
        }
        Ok(())
    }
}

/// A metric, its unit, and where it is in the figures.
type Metric = (&'static str, &'static str, fn(&Figures) -> f64);

/// The kinds of cases with their metrics; ratios are of the first.
const KINDS: [(&str, &[Metric]); 3] = [
    ("ndr", &[("ndr", "Mpps", |of| of.ndr), ("trials", "1", |of| of.trials), ("width", "%", |of| of.width)]),
    ("pdr", &[("pdr", "Mpps", |of| of.pdr)]),
    ("saturated", &[("saturated", "Mpps", |of| of.saturated), ("mean", "Mpps", |of| of.mean)]),
];

/// The name of a case.
#[must_use]
pub fn case(kind: &str, way: Way) -> String {
    format!("{kind}/{}/v4", way.key())
}

fn is_of(name: &str, way: Way) -> bool {
    KINDS.iter().any(|(kind, _)| name == case(kind, way))
}

/// Every forwarder once. One that cannot be measured is named in a note, once; ours has to be.
fn one_round(
    session: &mut Session,
    way: Way,
    cores: Cores,
    effort: Effort,
    round: u32,
    missing: &mut Vec<Who>,
) -> Result<Round> {
    let mut figures = Vec::new();
    for who in Who::of(way).iter().filter(|who| !missing.contains(*who)).copied().collect::<Vec<_>>() {
        session.step(&format!("{} {}, round {}", way.key(), who.name(), round + 1))?;
        match measure(session, who, way, cores, effort) {
            Ok((figure, void)) => figures.push((who, figure, void)),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) if who == Who::Ours => return Err(error),
            Err(error) => {
                session.note(format!("{NAME}: beside {} nothing was measured: {error}", who.name()));
                missing.push(who);
            }
        }
        session.advance();
    }
    Ok(figures)
}

/// One forwarder: a flood, and then the search.
fn measure(
    session: &Session,
    who: Who,
    way: Way,
    cores: Cores,
    effort: Effort,
) -> Result<(Figures, Option<String>)> {
    let mut bench = Bench::start(who, way, cores, false)?;
    let watch = bench.watch();
    let (saturated, mean) = flood(&mut bench, effort.flood)?;
    let search = search(session, &mut bench, saturated * ABOVE_FLOOD, effort)?;
    let void = watch.void();
    let (ndr, pdr) = (search.outcome(0), search.outcome(1));
    let width = ndr.lower.zip(ndr.upper).map_or(1.0, |(lower, upper)| (upper - lower) / upper);
    let figures = Figures {
        ndr: ndr.lower.unwrap_or(0.0) / 1e6,
        pdr: pdr.lower.unwrap_or(0.0) / 1e6,
        saturated: saturated / 1e6,
        mean: mean / 1e6,
        trials: ndr.trials as f64,
        width: width * 100.0,
    };
    Ok((figures, void))
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
pub fn search(session: &Session, bench: &mut Bench, highest: f64, effort: Effort) -> Result<Search> {
    let goals = vec![Goal::ndr(effort.trial_s, effort.decide_s), Goal::pdr(effort.trial_s, effort.decide_s)];
    let mut search = Search::new(goals, LOWEST, highest.max(LOWEST * 2.0), effort.budget_s);
    // The set-up of a trial takes as long as a short trial: the search is held to the clock, too.
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(effort.budget_s * 2.0));
    while let Some(ask) = search.next() {
        session.check()?;
        if start.elapsed() > limit {
            search.stop();
            break;
        }
        search.observe(trial(bench, ask.rate, ask.duration_s)?.loss());
    }
    Ok(search)
}

/// One trial, in which the generator kept to its schedule and the machine left the forwarder its core.
fn trial(bench: &mut Bench, rate: f64, seconds: f64) -> Result<Outcome> {
    let mut repeats = 0;
    loop {
        let watch = bench.watch();
        let outcome = bench.offer(rate, seconds)?;
        let kept = outcome.sent.behind.as_secs_f64() <= seconds * BEHIND;
        let had = outcome.loss() == 0.0 || watch.void().is_none();
        repeats += 1;
        if kept && had || repeats == REPEATS {
            return Ok(outcome);
        }
    }
}

/// Whether the generator outruns what it measures.
fn record_generator(session: &mut Session, cores: Cores, effort: Effort) -> Result<()> {
    let case = case(GENERATOR, Way::Local);
    if session.wants(&case) {
        session.step("the generator alone")?;
        let rate = alone(cores, effort.flood)? / 1e6;
        session.record(Measurement::of_rounds(NAME, &case, GENERATOR, "Mpps", &[rate]));
    }
    Ok(())
}

/// What is known after these rounds.
fn record(session: &mut Session, way: Way, rounds: &[Round]) {
    for (kind, metrics) in KINDS {
        let case = case(kind, way);
        if !session.wants(&case) {
            continue;
        }
        for (place, (metric, unit, of)) in metrics.iter().enumerate() {
            let paired = |who| paired(rounds, who, *of);
            let (ours, void) = usable(&paired(Who::Ours));
            let ours: Vec<f64> = ours.iter().map(|(ours, _)| *ours).collect();
            let mut row = Measurement::of_rounds(NAME, &case, metric, unit, &ours).void_because(void);
            let mut ratios = Vec::new();
            for who in Who::of(way).iter().skip(1) {
                let (pairs, void) = usable(&paired(*who));
                let theirs: Vec<f64> = pairs.iter().map(|(_, theirs)| *theirs).collect();
                let Some(median) = median(&theirs) else { continue };
                row = row.beside(who.name(), median);
                let each = pairs.iter().filter(|(_, theirs)| *theirs > 0.0);
                let each: Vec<f64> = each.map(|(ours, theirs)| ours / theirs).collect();
                if place == 0 && !each.is_empty() {
                    let metric = format!("ratio/{}", who.name());
                    ratios.push(Measurement::of_rounds(NAME, &case, &metric, "1", &each).void_because(void));
                }
            }
            session.record(row);
            ratios.into_iter().for_each(|ratio| session.record(ratio));
        }
    }
}

/// A figure of ours and of somebody else from each round both have, and why the pair is void.
fn paired(rounds: &[Round], who: Who, of: fn(&Figures) -> f64) -> Vec<(f64, f64, Option<String>)> {
    let of_who = |round: &Round, who: Who| {
        let found = round.iter().find(|(other, ..)| *other == who);
        found.map(|(_, figures, void)| (of(figures), void.clone()))
    };
    let pair = |round: &Round| {
        let ((ours, void), (theirs, also)) = (of_who(round, Who::Ours)?, of_who(round, who)?);
        Some((ours, theirs, void.or(also)))
    };
    rounds.iter().filter_map(pair).collect()
}

/// Rounds in which the machine left us the cores; when there is none, all, and why they are void.
pub(super) fn usable(rounds: &[(f64, f64, Option<String>)]) -> (Vec<(f64, f64)>, Option<String>) {
    let void = rounds.iter().find_map(|(.., void)| void.clone());
    let good: Vec<(f64, f64)> =
        rounds.iter().filter(|(.., void)| void.is_none()).map(|(a, b, _)| (*a, *b)).collect();
    if good.is_empty() { (rounds.iter().map(|(a, b, _)| (*a, *b)).collect(), void) } else { (good, None) }
}
