//! `throughput`: what is carried on two cores, without loss, with little, and of a flood, beside the peers.
//!
//! ```text
//!                            one core                              the other core
//!   ours, bare, ovs, testpmd   generator, and receiving at the   ->  what forwards, and receiving at the sink
//!                              forwarder's device: by its driver
//!                              and XDP, into a socket's ring
//!   kernel                     generator, and all the rest           nothing
//!   kernel-threaded            generator                         ->  receiving, forwarding, and receiving at the sink
//! ```
//!
//! The kernel as it comes does in one go, on the core a frame is sent from, what is to be done for it: it takes frames as fast
//! as it forwards them, and what it cannot carry shows in a generator that falls behind. With threads (threaded NAPI) it has a
//! core to itself, and a ring of 256 frames before it, not a socket's of 2048.
//!
//! Frames are made by XDP live frames on an open-loop schedule, in bursts of 16. Every
//! forwarder is set up anew in each round, and all take their turn within it, so that a ratio is of the same minute.

mod bench;
mod outcome;
mod rows;
mod search;
mod who;
mod windows;

#[cfg(test)]
mod tests;

pub use bench::{BURST, Bench, FLOWS, RULES, alone};
pub use outcome::{Lost, Outcome};
pub use rows::{Missing, Row, Value, of_rates, of_times};
pub use search::{Found, flood, search};
pub use who::{Cores, Who};

use super::{About, Scenario};
use crate::Result;
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::Way;

/// Its name.
pub const NAME: &str = "throughput";
/// What the search may find at most, by what a flood was carried at: some do better when they are not overrun.
const ABOVE_FLOOD: f64 = 1.5;
/// What is carried at more than this part of what the generator does alone may be the generator's limit.
const NEAR_GENERATOR: f64 = 0.9;
/// The case that says what the generator does alone, and its metric.
const GENERATOR: &str = "generator";

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
    /// The lowest rate the generator could not offer in the search. None: it could offer all.
    pub not_offered: Option<f64>,
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
            (true, _) => Self { trial_s: 0.04, decide_s: 0.12, budget_s: 0.8, flood: 700_000 },
            (_, false) => Self { trial_s: 0.1, decide_s: 0.3, budget_s: 2.4, flood: 1_400_000 },
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
            measures: "two cores, smallest frames of 1000 flows, on a schedule in bursts of 16: the rate carried without loss and \
                       with 0.5 % by MLRsearch (RFC 9971), and what is carried of a flood; ours with 1000 rules, flows \
                       tracked, polling busily (--poll=busy; it ships with adaptive)",
            cases: "{ndr,pdr,saturated}/{plain,vxlan}/v4, generator/plain/v4",
            sets: "the same cases; trials are longer by default (0.1 s, 0.04 s with --quick), and longest with --full (0.5 s)",
            metrics: &[
                ("ndr", "Mpps: the most that is carried without loss, by MLRsearch"),
                ("trials", "1: of that search"),
                ("width", "%: between the bounds of ndr"),
                ("pdr", "Mpps: the same with 0.5 % lost"),
                ("saturated", "Mpps: carried of a flood, 90th percentile of windows of 4 ms"),
                ("mean", "Mpps: carried of a flood on the whole"),
                ("generator", "Mpps: with nothing between generator and sink"),
                ("ratio/PEER/METRIC", "1, of ndr, pdr, saturated: above 1 we are faster"),
            ],
            peers: "kernel (forwarding as it comes, all on the generator's core; for vxlan its VXLAN device; no policy), \
                    kernel-threaded (the same by threaded NAPI on the forwarder's core, behind a veth's ring of 256), bare \
                    (AF_XDP, no decision), ovs (afxdp, one flow), testpmd (net_af_xdp, io); these and ours on the forwarder's \
                    core behind a socket's ring of 2048, their frames received on the generator's",
            root: true,
            cores: 2,
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
        let mut missing = Missing::default();
        for way in ways {
            let mut rounds: Vec<Round> = Vec::new();
            let ended = (0..session.config.rounds).try_for_each(|round| {
                rounds.push(Round::new());
                let figures = rounds.last_mut().expect("just pushed");
                one_round(session, way, cores, effort, round, &mut missing, figures)
            });
            // Whatever ended it: what is known by now is kept.
            record(session, way, &rounds);
            note_limits(session, way, &rounds);
            ended?;
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

/// Every forwarder once. One that cannot be measured is named in a note; ours has to be.
fn one_round(
    session: &mut Session,
    way: Way,
    cores: Cores,
    effort: Effort,
    round: u32,
    missing: &mut Missing,
    figures: &mut Round,
) -> Result<()> {
    for who in Who::of(way).iter().copied() {
        if !missing.is(who) {
            session.step(&format!("{} {}, round {}", way.key(), who.name(), round + 1))?;
            let measured = measure(session, who, way, cores, effort);
            let measured = missing.or_note(session, (NAME, who, round), measured)?;
            figures.extend(measured.map(|(of, void)| (who, of, void)));
        }
        session.advance();
    }
    Ok(())
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
    let Found { search, not_offered, void } = search(session, &mut bench, saturated * ABOVE_FLOOD, effort)?;
    let void = watch.void().or(void);
    let (ndr, pdr) = (search.outcome(0), search.outcome(1));
    let width = ndr.lower.zip(ndr.upper).map_or(1.0, |(lower, upper)| (upper - lower) / upper);
    let figures = Figures {
        ndr: ndr.lower.unwrap_or(0.0) / 1e6,
        pdr: pdr.lower.unwrap_or(0.0) / 1e6,
        saturated: saturated / 1e6,
        mean: mean / 1e6,
        trials: ndr.trials as f64,
        width: width * 100.0,
        not_offered: not_offered.map(|rate| rate / 1e6),
    };
    Ok((figures, void))
}

/// Whether the generator outruns what it measures.
fn record_generator(session: &mut Session, cores: Cores, effort: Effort) -> Result<()> {
    let case = case(GENERATOR, Way::Local);
    if session.wants(&case) {
        session.step("the generator alone")?;
        let (rate, void) = alone(cores, effort.flood)?;
        let row = Measurement::of_rounds(NAME, &case, GENERATOR, "Mpps", &[rate / 1e6]);
        session.record(row.void_because(void));
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
            let ratio = (place == 0).then_some(of_rates as fn(f64, f64) -> f64);
            let row = Row { scenario: NAME, case: &case, metric, unit, ratio };
            row.record(session, Who::of(way), rounds.len(), |round, who| {
                let found = rounds[round].iter().find(|(other, ..)| *other == who)?;
                Some((of(&found.1), found.2.clone()))
            });
        }
    }
}

/// Where the generator, not the forwarder, may have been the limit.
fn note_limits(session: &mut Session, way: Way, rounds: &[Round]) {
    let alone = session
        .results
        .iter()
        .find(|row| row.scenario == NAME && row.metric == GENERATOR && row.void.is_none());
    let alone = alone.map_or(f64::INFINITY, |row| row.value);
    for who in Who::of(way).iter().copied() {
        let figures = || rounds.iter().flatten().filter(|(other, ..)| *other == who).map(|(_, of, _)| of);
        let (name, way) = (who.name(), way.key());
        if let Some(rate) = figures().filter_map(|of| of.not_offered).min_by(f64::total_cmp) {
            let on =
                if who == Who::Kernel { ", which is the kernel's, too, on the one core of both" } else { "" };
            session.note(format!(
                "{NAME}: {way} {name}: the generator was the limit at {rate:.3} Mpps{on}: no such rate counts as carried"
            ));
        }
        let most = figures().map(|of| of.saturated.max(of.ndr)).fold(0.0, f64::max);
        if most > alone * NEAR_GENERATOR {
            session.note(format!(
                "{NAME}: {way} {name}: {most:.2} Mpps is about what the generator does alone ({alone:.2}): it may carry more"
            ));
        }
    }
}
