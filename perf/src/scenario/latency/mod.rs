//! `latency`: how long frames take on an open-loop schedule, from when each should have left, beside the peers.
//!
//! A frame bears its due time, and the sink takes the difference when it gets it, by the same clock (CLOCK_MONOTONIC): when
//! generator or forwarder stand still, all frames that were due meanwhile count with what they waited. How late the
//! generator itself was is a figure of its own, so that it is not mistaken for the forwarder's.
//!
//! Load is a thread on the generator's core, at the lowest priority, that writes all over a memory larger than the caches. It
//! takes the core from the generator now and then, too: frames are late then before they leave, by what `generator-late` says.

mod load;

#[cfg(test)]
mod tests;

use super::throughput::{self, Bench, Cores, Effort, Who};
use super::{About, Scenario};
use crate::math::statistics::median;
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::Way;
use crate::{Error, Result};
use load::Load;

/// Its name.
pub const NAME: &str = "latency";
/// Percent of a forwarder's own no-drop rate.
const LOADS: [u32; 3] = [10, 50, 90];
/// Seconds a case takes: quick, default, full.
const SECONDS: [f64; 3] = [0.15, 0.5, 3.0];
/// Quantiles that are recorded; and the longest.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
/// The metric of a case that ratios are of.
const RATIO: &str = "p99";
const WAY: Way = Way::Local;

/// See the module.
pub struct Latency;

/// One case of one forwarder in one round, in microseconds: the quantiles, the longest, the generator's own latest.
type Delays = [f64; QUANTILES.len() + 2];

/// With why they are void. None: the case was not wanted, or the forwarder carries nothing without loss.
type Maybe = Option<(Delays, Option<String>)>;

/// One forwarder's cases in one round, in the order of [`cases`].
struct One {
    who: Who,
    delays: Vec<Maybe>,
}

impl Scenario for Latency {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "open loop: time from when a frame should have left to when the sink has it, at parts of each forwarder's \
                       own no-drop rate, quiet and with the generator's core also writing to memory",
            cases: "load-{10,50,90}/{quiet,busy}/plain/v4: percent of the no-drop rate that throughput found, or a short search",
            metrics: "p50, p90, p99, p99.9, p99.99, max, generator-late (how late the generator itself was at most) in us; \
                      ratio/PEER: the peer's p99 / ours, above 1 we are faster",
            peers: "kernel, bare, ovs, testpmd: as in throughput",
            root: true,
            cores: 2,
            default: true,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let cores = Cores::choose()?;
        if !cases().any(|(percent, busy)| session.wants(&case(percent, busy))) {
            return Ok(());
        }
        let whos = Who::of(WAY);
        session.begin(NAME, u64::from(session.config.rounds) * whos.len() as u64);
        let mut missing = Vec::new();
        let mut rounds: Vec<Vec<One>> = Vec::new();
        for round in 0..session.config.rounds {
            let mut ones = Vec::new();
            for who in whos.iter().copied() {
                if missing.contains(&who) {
                    continue;
                }
                session.step(&format!("{}, round {}", who.name(), round + 1))?;
                match measure(session, who, cores) {
                    Ok(delays) => ones.push(One { who, delays }),
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(error) if who == Who::Ours => return Err(error),
                    Err(error) => {
                        session.note(format!("{NAME}: beside {} nothing was measured: {error}", who.name()));
                        missing.push(who);
                    }
                }
                session.advance();
            }
            rounds.push(ones);
            session.results.retain(|old| old.scenario != NAME);
            record(session, &rounds);
        }
        Ok(())
    }
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

fn measure(session: &mut Session, who: Who, cores: Cores) -> Result<Vec<Maybe>> {
    let mut bench = Bench::start(who, WAY, cores, true)?;
    let rate = match known_rate(session, who) {
        Some(rate) => rate,
        None => own_rate(session, &mut bench)?,
    };
    let seconds = match (session.config.quick, session.config.full) {
        (true, _) => SECONDS[0],
        (_, false) => SECONDS[1],
        _ => SECONDS[2],
    };
    let mut delays = Vec::new();
    for (percent, busy) in cases() {
        session.check()?;
        let wanted = rate > 0.0 && session.wants(&case(percent, busy));
        delays.push(if wanted {
            Some(one(
                &mut bench,
                rate * f64::from(percent) / 100.0,
                seconds,
                busy.then_some(cores.generator),
            )?)
        } else {
            None
        });
    }
    if rate == 0.0 {
        session.note(format!(
            "{NAME}: {} carried no rate without loss, so there is none to load it with",
            who.name()
        ));
    }
    Ok(delays)
}

/// A short search of its own.
fn own_rate(session: &Session, bench: &mut Bench) -> Result<f64> {
    let effort = Effort { trial_s: 0.03, decide_s: 0.06, budget_s: 0.4, flood: 500_000 };
    let (saturated, _) = throughput::flood(bench, effort.flood)?;
    Ok(throughput::search(session, bench, saturated, effort)?.outcome(0).lower.unwrap_or(0.0))
}

/// One case: sends, and takes the delays of all that came.
fn one(bench: &mut Bench, rate: f64, seconds: f64, busy: Option<usize>) -> Result<(Delays, Option<String>)> {
    let load = busy.map(Load::start).transpose()?;
    bench.sink().reset()?;
    let watch = bench.watch();
    let outcome = bench.offer(rate, seconds)?;
    let void = watch.void();
    drop(load);
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
    let late = outcome.sent.behind_max;
    let p99 = histogram.value_at_quantile(0.99);
    let own = (busy.is_none() && late.as_nanos() > u128::from(p99))
        .then(|| format!("the generator itself was up to {late:.0?} late, more than the p99"));
    let micro = |nanos: u64| nanos as f64 / 1e3;
    let mut delays = [0.0; QUANTILES.len() + 2];
    for (to, (_, quantile)) in delays.iter_mut().zip(QUANTILES) {
        *to = micro(histogram.value_at_quantile(quantile));
    }
    delays[QUANTILES.len()] = micro(histogram.max());
    delays[QUANTILES.len() + 1] = late.as_secs_f64() * 1e6;
    Ok((delays, void.or(own)))
}

fn metrics() -> impl Iterator<Item = &'static str> {
    QUANTILES.into_iter().map(|(name, _)| name).chain(["max", "generator-late"])
}

/// What is known after these rounds.
fn record(session: &mut Session, rounds: &[Vec<One>]) {
    for (number, (percent, busy)) in cases().enumerate() {
        let case = case(percent, busy);
        for (place, metric) in metrics().enumerate() {
            let of = |round: &Vec<One>, who: Who| {
                let one = round.iter().find(|one| one.who == who)?;
                one.delays[number].as_ref().map(|(delays, void)| (delays[place], void.clone()))
            };
            let paired = |who: Who| -> Vec<(f64, f64, Option<String>)> {
                let pair = |round| {
                    let ((ours, void), (theirs, also)) = (of(round, Who::Ours)?, of(round, who)?);
                    Some((ours, theirs, void.or(also)))
                };
                rounds.iter().filter_map(pair).collect()
            };
            let (ours, void) = throughput::usable(&paired(Who::Ours));
            if ours.is_empty() {
                continue;
            }
            let ours: Vec<f64> = ours.iter().map(|(ours, _)| *ours).collect();
            let mut row = Measurement::of_rounds(NAME, &case, metric, "us", &ours).void_because(void);
            let mut ratios = Vec::new();
            for who in Who::of(WAY).iter().skip(1) {
                let (pairs, void) = throughput::usable(&paired(*who));
                let theirs: Vec<f64> = pairs.iter().map(|(_, theirs)| *theirs).collect();
                let Some(median) = median(&theirs) else { continue };
                row = row.beside(who.name(), median);
                let each: Vec<f64> = pairs
                    .iter()
                    .filter(|(ours, _)| *ours > 0.0)
                    .map(|(ours, theirs)| theirs / ours)
                    .collect();
                if metric == RATIO && !each.is_empty() {
                    let metric = format!("ratio/{}", who.name());
                    ratios.push(Measurement::of_rounds(NAME, &case, &metric, "1", &each).void_because(void));
                }
            }
            session.record(row);
            ratios.into_iter().for_each(|ratio| session.record(ratio));
        }
    }
}
