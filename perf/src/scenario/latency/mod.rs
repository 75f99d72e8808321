//! `latency`: how long frames take on an open-loop schedule, from when each should have left, beside the peers.
//!
//! A frame bears its due time, and the sink takes the difference when it gets it, by the same clock (CLOCK_MONOTONIC): when
//! generator or forwarder stand still, all frames that were due meanwhile count with what they waited. How late the
//! generator itself was is counted, too: a quantile of the delays of which the same quantile of its lateness is a large part is
//! void, for it says nothing of the forwarder. Who has which core: see `throughput`.
//!
//! Load is the generator itself, which writes all over a memory larger than the caches while it waits for the next burst: a
//! thread beside it would make it late, and the quantiles that tell would be void.

#[cfg(test)]
mod tests;

use super::throughput::{self, Bench, Cores, Effort, Missing, Row, Value, Who};
use super::{About, Scenario};
use crate::session::Session;
use crate::workload::Way;
use crate::{Error, Result};

/// Its name.
pub const NAME: &str = "latency";
/// Percent of a forwarder's own no-drop rate.
const LOADS: [u32; 3] = [10, 50, 90];
/// Seconds a case takes: quick, default, full.
const SECONDS: [f64; 3] = [0.15, 0.5, 3.0];
/// Quantiles that are recorded; and the longest.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
/// The metrics of a case that ratios are of.
const RATIOS: [&str; 2] = ["p50", "p99"];
/// A delay of which the generator's own lateness is more than this part is void.
const LATE_MAX: f64 = 0.5;
const WAY: Way = Way::Local;

/// See the module.
pub struct Latency;

/// One case of one forwarder in one round, in the order of [`metrics`].
type Values = [Value; QUANTILES.len() + 3];

/// One forwarder's cases in one round, in the order of [`cases`]. None: the case was not wanted, or the forwarder carries
/// nothing without loss.
struct One {
    who: Who,
    cases: Vec<Option<Values>>,
}

impl Scenario for Latency {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "open loop: time from when a frame should have left to when the sink has it, at parts of each forwarder's \
                       own no-drop rate, in bursts of 16, quiet and with the generator's core writing all over 64 MiB between bursts; ours polling \
                       busily (--poll=busy; it ships with adaptive)",
            cases: "load-{10,50,90}/{quiet,busy}/plain/v4: percent of the no-drop rate that throughput found, or a short search",
            sets: "the same cases; a case takes 0.15 s with --quick, 0.5 s by default, 3 s with --full",
            metrics: &[
                (
                    "p50, p90, p99, p99.9, p99.99",
                    "us: of the frames that came, from when each should have left",
                ),
                ("max", "us: the longest of them"),
                ("generator-late", "us: how late the generator itself was at most"),
                ("offered", "Mpps: what was sent, to each by its own rate"),
                ("ratio/PEER/METRIC", "1, of p50, p99: above 1 we are faster"),
            ],
            peers: "kernel, kernel-threaded, bare, ovs, testpmd: as in throughput",
            root: true,
            cores: 2,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let cores = Cores::choose()?;
        if !cases().any(|(percent, busy)| session.wants(&case(percent, busy))) {
            return Ok(());
        }
        let whos = Who::of(WAY);
        session.begin(NAME, u64::from(session.config.rounds) * whos.len() as u64);
        let mut missing = Missing::default();
        let mut rounds: Vec<Vec<One>> = Vec::new();
        let ended = (0..session.config.rounds).try_for_each(|round| {
            rounds.push(Vec::new());
            one_round(session, cores, round, &mut missing, rounds.last_mut().expect("just pushed"))
        });
        // Whatever ended it: what is known by now is kept.
        record(session, &rounds);
        ended
    }
}

/// Every forwarder once. One that cannot be measured is named in a note; ours has to be.
fn one_round(
    session: &mut Session,
    cores: Cores,
    round: u32,
    missing: &mut Missing,
    ones: &mut Vec<One>,
) -> Result<()> {
    for who in Who::of(WAY).iter().copied() {
        if !missing.is(who) {
            session.step(&format!("{}, round {}", who.name(), round + 1))?;
            let measured = measure(session, who, cores);
            let measured = missing.or_note(session, (NAME, who, round), measured)?;
            ones.extend(measured.map(|cases| One { who, cases }));
        }
        session.advance();
    }
    Ok(())
}

/// All cases: percent of the no-drop rate, and whether the other core is loaded.
fn cases() -> impl Iterator<Item = (u32, bool)> {
    LOADS.into_iter().flat_map(|percent| [(percent, false), (percent, true)])
}

fn case(percent: u32, busy: bool) -> String {
    let neighbour = if busy { "busy" } else { "quiet" };
    format!("load-{percent}/{neighbour}/{}/v4", WAY.key())
}

/// The no-drop rate that this session found, in packets a second.
fn known_rate(session: &Session, who: Who) -> Option<f64> {
    let case = throughput::case("ndr", WAY);
    let row = session.results.iter().find(|row| {
        row.scenario == throughput::NAME && row.case == case && row.metric == "ndr" && row.void.is_none()
    })?;
    let mpps = if who == Who::Ours { row.value } else { *row.peers.get(who.name())? };
    (mpps > 0.0).then_some(mpps * 1e6)
}

fn measure(session: &mut Session, who: Who, cores: Cores) -> Result<Vec<Option<Values>>> {
    let mut bench = Bench::start(who, WAY, cores, true)?;
    let (rate, void) = match known_rate(session, who) {
        Some(rate) => (rate, None),
        None => own_rate(session, &mut bench)?,
    };
    let seconds = match (session.config.quick, session.config.full) {
        (true, _) => SECONDS[0],
        (_, false) => SECONDS[1],
        _ => SECONDS[2],
    };
    let mut found = Vec::new();
    for (percent, busy) in cases() {
        session.check()?;
        let wanted = rate > 0.0 && session.wants(&case(percent, busy));
        let rate = rate * f64::from(percent) / 100.0;
        let values = wanted.then(|| one(&mut bench, rate, seconds, busy)).transpose()?;
        // At parts of a rate that nobody knows.
        let all_void = |(value, own): Value| (value, own.or_else(|| void.clone()));
        found.push(values.map(|values| values.map(all_void)));
    }
    if rate == 0.0 {
        session.note(format!(
            "{NAME}: {} carried no rate without loss, so there is none to load it with",
            who.name()
        ));
    }
    Ok(found)
}

/// A short search of its own, and why it is void.
fn own_rate(session: &Session, bench: &mut Bench) -> Result<Value> {
    let effort = Effort { trial_s: 0.03, decide_s: 0.06, budget_s: 0.4, flood: 500_000 };
    let watch = bench.watch();
    let (saturated, _) = throughput::flood(bench, effort.flood)?;
    let found = throughput::search(session, bench, saturated, effort)?;
    Ok((found.search.outcome(0).lower.unwrap_or(0.0), watch.void().or(found.void)))
}

/// One case: sends, and takes the delays of all that came.
fn one(bench: &mut Bench, rate: f64, seconds: f64, busy: bool) -> Result<Values> {
    bench.sink().reset()?;
    let watch = bench.watch();
    let (outcome, generator) = bench.offer_timed(rate, seconds, busy)?;
    let void = watch.void();
    let histogram = bench.sink().delays()?;
    if histogram.len() != outcome.received {
        return Err(Error::Miscounted(format!(
            "{} frames came, {} delays were taken",
            outcome.received,
            histogram.len()
        )));
    }
    if histogram.is_empty() {
        return Err(Error::setup("take delays", "no frame came"));
    }
    let late = generator.late()?;
    let value = |delay: u64, late: u64| -> Value {
        let own = late as f64 > delay as f64 * LATE_MAX;
        let own = own.then(|| "the generator's own lateness is a large part of it".to_owned());
        (delay as f64 / 1e3, void.clone().or(own))
    };
    Ok(std::array::from_fn(|place| match QUANTILES.get(place) {
        // Bursts are of the same length: a quantile of bursts is one of frames.
        Some((_, q)) => value(histogram.value_at_quantile(*q), late.value_at_quantile(*q)),
        None if place == QUANTILES.len() => value(histogram.max(), late.max()),
        None if place == QUANTILES.len() + 1 => (outcome.sent.behind_max.as_secs_f64() * 1e6, void.clone()),
        None => (outcome.sent.rate / 1e6, void.clone()),
    }))
}

/// All metrics, with their units.
fn metrics() -> impl Iterator<Item = (&'static str, &'static str)> {
    let times = QUANTILES.into_iter().map(|(name, _)| name).chain(["max", "generator-late"]);
    times.map(|name| (name, "us")).chain([("offered", "Mpps")])
}

/// What is known after these rounds.
fn record(session: &mut Session, rounds: &[Vec<One>]) {
    for (number, (percent, busy)) in cases().enumerate() {
        let case = case(percent, busy);
        for (place, (metric, unit)) in metrics().enumerate() {
            let ratio = RATIOS.contains(&metric).then_some(throughput::of_times as fn(f64, f64) -> f64);
            let row = Row { scenario: NAME, case: &case, metric, unit, ratio };
            row.record(session, Who::of(WAY), rounds.len(), |round, who| {
                let one = rounds[round].iter().find(|one| one.who == who)?;
                one.cases[number].as_ref().map(|values| values[place].clone())
            });
        }
    }
}
