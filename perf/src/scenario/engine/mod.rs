//! The engine in memory: what a packet costs on its way through a worker's turn, in all and by stage.

pub mod bench;
pub mod cases;
pub mod stages;
pub mod wire;

#[cfg(test)]
mod tests;

use bench::{Bench, Took};
use cases::{Extent, Planned, cases};

use vswitch::config::Config;

use super::{About, Scenario};
use crate::machine::{Watch, free_memory, has_tsc, tsc_mhz};
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::{Case, Kind, Stream};
use crate::{Error, Result};

const NAME: &str = "engine";

/// The scenario.
#[derive(Debug)]
pub struct Engine;

/// Packets of a case in a round.
const PACKETS: u64 = 65_536;
/// The same with `--quick`.
const PACKETS_QUICK: u64 = 32_768;
/// Packets before those that count: what the other cases have pushed out of the caches comes back.
const WARM: u64 = 8192;
/// Memory a flow takes: a record, its part of the index and the windows of its connection (see `FlowTable`).
pub(super) const FLOW_BYTES: u64 = 114;
/// Memory a route takes at most, in the desired state and in the tables.
const ROUTE_BYTES: u64 = 600;

impl Scenario for Engine {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what a packet costs in the engine's worker, turned by hand over ports in memory: real packets, flow \
                       tracking and policy on, the daemon's own code",
            cases: "KIND/FAMILY/WAY[/syn]/flows-N/rules-N[/routes-N][/size-N][/batch-N]. KIND: known-flow, new-flow (each \
                    packet is its flow's first). WAY: plain (pod to pod), direct (pod to another node), vxlan (the same in \
                    VXLAN), from-vxlan. What is not said is routes-1k, size-64, batch-32. The flow table is as large as it \
                    ships, or larger where a case needs it",
            sets: "--quick: known-flow in each way, v6, flows-1M, batch-1, rules-100k, and new-flow. By default: each axis from the base (known-flow/v4/vxlan/flows-10k/rules-1k), known-flow and new-flow. --full: also the corners: many flows, rules and routes at once, each size and way in both families",
            metrics: &[
                (
                    "packet",
                    "ns, and cycles of the time stamp counter: the worker's turn from end to end, less nothing, so with one copy of the packet into a frame. Bursts that took over 4 times the median are left out: the machine was elsewhere",
                ),
                ("rate", "Mpps: 1 / packet; of new-flow million new flows a second"),
                ("left-out", "%: the bursts that were left out; void beyond 5"),
                ("walk", "cycles: the stages parse to leave together"),
                (
                    "stage/NAME",
                    "cycles: by a probe, which costs something itself, in a run of its own; of some cases",
                ),
            ],
            peers: "none",
            root: false,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let extent = match (session.config.quick, session.config.full) {
            (true, _) => Extent::Quick,
            (_, true) => Extent::Full,
            _ => Extent::Usual,
        };
        let wanted: Vec<Planned> =
            cases(extent).into_iter().filter(|planned| session.wants(&planned.case.name())).collect();
        // Rounds take turns over all cases that fit into memory together.
        let rounds = u64::from(session.config.rounds.max(if session.config.quick { 3 } else { 1 }));
        let steps = wanted.len() as u64 * (rounds + 1);
        session.begin(NAME, steps);
        if !has_tsc() {
            session.note(format!(
                "{NAME}: there is no time stamp counter that neither stops nor changes its pace: no cycles, and times by \
                 the system's clock, whose look takes longer"
            ));
        }
        let mut rest = wanted.as_slice();
        let mut failed = None;
        while !rest.is_empty() {
            let (together, after) = rest.split_at(fitting(rest, most_packets(session, rounds)));
            rest = after;
            match run_together(session, together, rounds) {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                outcome => failed = failed.or(outcome.err()),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn packets(session: &Session) -> u64 {
    if session.config.quick { PACKETS_QUICK } else { PACKETS }
}

/// Most packets a case is measured with: in rounds, each after some to be warm, and by stage; void ones are repeated.
fn most_packets(session: &Session, rounds: u64) -> u64 {
    let packets = packets(session);
    TRIES as u64 * (rounds * (packets + WARM) + STAGE_ROUNDS as u64 * packets / 4) + WARM
}

/// Room for flows: those of the case; of new ones, all that may come. As much as ships at least: a smaller table would
/// stay in caches that the shipped one does not.
fn room(case: &Case, most_packets: u64) -> u64 {
    let flows = match case.kind {
        Kind::KnownFlow => case.flows,
        Kind::NewFlow => most_packets,
    };
    // One port may hold three quarters of the table.
    (flows / 3 * 4 + 4096).max(Config::default().flows.into())
}

fn bytes(case: &Case, most_packets: u64) -> u64 {
    room(case, most_packets) * FLOW_BYTES
        + case.routes as u64 * ROUTE_BYTES
        + case.rules as u64 * 1000
        + (32 << 20)
}

/// How many of the next cases are measured together: as many as fit into half of the free memory, at least one.
fn fitting(cases: &[Planned], most_packets: u64) -> usize {
    let mut left = free_memory() / 2;
    let fits = cases.iter().take_while(|planned| {
        let bytes = bytes(&planned.case, most_packets);
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    });
    fits.count().max(1)
}

/// One case and what its rounds gave.
struct Running {
    planned: Planned,
    bench: Bench<Stream>,
    rounds: Vec<Took>,
    void: Option<String>,
    /// What it ended with: nothing of it is to be trusted.
    failed: Option<Error>,
}

impl Running {
    /// An interruption ends all cases, another error this one.
    fn bear(&mut self, outcome: Result<()>, session: &mut Session) -> Result<()> {
        if let Err(error) = outcome {
            self.failed = Some(borne(error, session)?);
        }
        Ok(())
    }
}

/// The same error, said, for others to go on; an interruption is one.
fn borne(error: Error, session: &mut Session) -> Result<Error> {
    if matches!(error, Error::Interrupted) {
        return Err(error);
    }
    session.note(format!("{NAME}: {error}"));
    Ok(error)
}

/// What was measured when it is interrupted, or a case fails, is recorded; the other cases go on.
fn run_together(session: &mut Session, cases: &[Planned], rounds: u64) -> Result<()> {
    let (packets, mhz) = (packets(session), tsc_mhz());
    let mut failed = None;
    let mut running = start_all(session, cases, most_packets(session, rounds), mhz, &mut failed)?;
    let outcome = run_rounds(session, &mut running, packets, rounds);
    for one in running.iter().filter(|one| one.failed.is_none() && !one.rounds.is_empty()) {
        record(session, one, mhz);
    }
    outcome?;
    for one in running.iter_mut().filter(|one| one.planned.stages && one.failed.is_none()) {
        session.step(&format!("{}: stages", one.planned.case.name()))?;
        let outcome = stages(session, one, packets / 4);
        one.bear(outcome, session)?;
    }
    let failed = failed.or_else(|| running.into_iter().find_map(|one| one.failed));
    failed.map_or(Ok(()), Err)
}

/// Those cases that can be started; `failed` is the first error of the others.
fn start_all(
    session: &mut Session,
    cases: &[Planned],
    most_packets: u64,
    mhz: f64,
    failed: &mut Option<Error>,
) -> Result<Vec<Running>> {
    let mut running = Vec::with_capacity(cases.len());
    for planned in cases {
        let (case, name) = (planned.case, planned.case.name());
        session.step(&format!("{name}: start"))?;
        let (need, free) = (bytes(&case, most_packets), free_memory());
        if need > free {
            let (need, free) = (need >> 20, free >> 20);
            session.note(format!(
                "engine: {name} is left out: it takes about {need} MiB, and {free} MiB are free"
            ));
            continue;
        }
        match Bench::start(case, room(&case, most_packets), mhz, session.interrupt.clone()) {
            Ok(bench) => {
                let (planned, rounds) = (*planned, Vec::new());
                running.push(Running { planned, bench, rounds, void: None, failed: None });
            }
            Err(error) => {
                let error = borne(error, session)?;
                failed.get_or_insert(error);
            }
        }
        session.advance();
    }
    Ok(running)
}

fn run_rounds(session: &mut Session, running: &mut [Running], packets: u64, rounds: u64) -> Result<()> {
    for _ in 0..rounds {
        for one in running.iter_mut().filter(|one| one.failed.is_none()) {
            session.step(&one.planned.case.name())?;
            let outcome = round(one, packets);
            one.bear(outcome, session)?;
            session.advance();
        }
    }
    Ok(())
}

/// Times a round is measured before it counts as void.
const TRIES: usize = 3;

fn round(one: &mut Running, packets: u64) -> Result<()> {
    for last in (0..TRIES).rev().map(|left| left == 0) {
        one.bench.run(WARM)?;
        let watch = Watch::start();
        let took = one.bench.run(packets)?;
        let void = watch.void().or(took.void());
        if void.is_none() || last {
            one.void = one.void.take().or(void);
            one.rounds.push(took);
            break;
        }
    }
    Ok(())
}

fn record(session: &mut Session, one: &Running, mhz: f64) {
    let case = one.planned.case.name();
    let of = |figure: fn(&Took) -> f64| -> Vec<f64> { one.rounds.iter().map(figure).collect() };
    let cycles = of(|took| took.cycles);
    let ns: Vec<f64> = cycles.iter().map(|cycles| cycles / mhz * 1e3).collect();
    let mpps: Vec<f64> = ns.iter().map(|ns| 1e3 / ns).collect();
    let left_out = of(|took| took.left_out * 100.0);
    let rows = [
        ("packet", "cycles", cycles),
        ("packet", "ns", ns),
        ("rate", "Mpps", mpps),
        ("left-out", "%", left_out),
    ];
    for (metric, unit, rounds) in rows.iter().filter(|(_, unit, _)| *unit != "cycles" || has_tsc()) {
        let row = Measurement::of_rounds(NAME, &case, metric, unit, rounds);
        session.record(row.void_because(one.void.clone()));
    }
}

/// Rounds of the stages: few, they follow each other.
const STAGE_ROUNDS: usize = 3;

fn stages(session: &mut Session, one: &mut Running, packets: u64) -> Result<()> {
    let case = &one.planned.case.name();
    // Without a time stamp counter the probe's ticks are nanoseconds.
    let unit = if has_tsc() { "cycles" } else { "ns" };
    one.bench.run(WARM)?;
    let mut rounds = Vec::with_capacity(STAGE_ROUNDS);
    let mut void = None;
    while rounds.len() < STAGE_ROUNDS {
        let mut tries = 0;
        let (stages, kept) = loop {
            let watch = Watch::start();
            let found = one.bench.run_stages(packets)?;
            tries += 1;
            let taken = watch.void();
            if tries == TRIES || taken.is_none() {
                void = void.or(taken);
                break found;
            }
        };
        rounds.push(stages.per_packet(kept));
    }
    let of = |mark| -> Vec<f64> {
        rounds
            .iter()
            .map(|round| round.iter().find(|(other, _)| *other == mark).map_or(0.0, |(_, n)| *n))
            .collect()
    };
    let walk: Vec<f64> = rounds.iter().map(|round| stages::walk(round)).collect();
    let row = Measurement::of_rounds(NAME, case, "walk", unit, &walk);
    session.record(row.void_because(void.clone()));
    for mark in vswitch_datapath::Mark::ALL {
        let cycles = of(mark);
        if cycles.iter().any(|cycles| *cycles > 0.0) {
            let row = Measurement::of_rounds(NAME, case, &format!("stage/{}", mark.key()), unit, &cycles);
            session.record(row.void_because(void.clone()));
        }
    }
    Ok(())
}
