//! The engine in memory: what a packet costs on its way through a worker's turn, in all and by stage.

pub mod bench;
pub mod cases;
pub mod stages;
pub mod wire;

#[cfg(test)]
mod tests;

use bench::{Bench, Took};
use cases::{Extent, Planned, cases};

use super::{About, Scenario};
use crate::Result;
use crate::machine::{Watch, tsc_mhz};
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::{Case, Kind};

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
/// Memory a flow takes: a record, and its part of the index (see `FlowTable`).
const FLOW_BYTES: u64 = 164;
/// Memory a route takes at most, in the desired state and in the tables.
const ROUTE_BYTES: u64 = 600;
/// Beyond this part of the bursts interrupted, a figure is void.
const LEFT_OUT_MAX: f64 = 0.05;

impl Scenario for Engine {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what a packet costs in the engine's worker, turned by hand over ports in memory: real packets, flow \
                       tracking and policy on, the daemon's own code",
            cases: "KIND/FAMILY/WAY[/syn]/flows-N/rules-N[/routes-N][/size-N][/batch-N]. KIND: known-flow, new-flow (each \
                    packet is its flow's first). WAY: plain (pod to pod), direct (pod to another node), vxlan (the same in \
                    VXLAN), from-vxlan. What is not said is routes-1k, size-64, batch-32",
            metrics: "packet (ns, cycles of the time stamp counter): the worker's turn from end to end, less nothing, so with \
                      one copy of the packet into a frame; rate (Mpps; of new-flow: million new flows a second) = 1 / packet; \
                      walk (cycles): the stages parse to leave; stage/NAME (cycles), by a probe in a run of its own. Bursts that \
                      took over 4 times the median are left out: the machine was elsewhere",
            peers: "none",
            root: false,
            cores: 1,
            default: true,
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
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let (together, after) = rest.split_at(fitting(rest, most_packets(session, rounds)));
            rest = after;
            run_together(session, together, rounds)?;
        }
        Ok(())
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

/// Room for flows: those of the case; of new ones, all that may come.
fn room(case: &Case, most_packets: u64) -> u64 {
    let flows = match case.kind {
        Kind::KnownFlow => case.flows,
        Kind::NewFlow => most_packets,
    };
    // One port may hold three quarters of the table.
    flows / 3 * 4 + 4096
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

/// What the kernel says can be had without swapping, in bytes.
fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// One case and what its rounds gave.
struct Running {
    planned: Planned,
    bench: Bench,
    rounds: Vec<Took>,
    void: Option<String>,
}

fn run_together(session: &mut Session, cases: &[Planned], rounds: u64) -> Result<()> {
    let (packets, most, mhz) = (packets(session), most_packets(session, rounds), tsc_mhz());
    let mut running = Vec::with_capacity(cases.len());
    for planned in cases {
        let (case, name) = (planned.case, planned.case.name());
        session.step(&format!("{name}: start"))?;
        let (need, free) = (bytes(&case, most), free_memory());
        if need > free {
            let (need, free) = (need >> 20, free >> 20);
            session.note(format!(
                "engine: {name} is left out: it takes about {need} MiB, and {free} MiB are free"
            ));
            continue;
        }
        let bench = Bench::start(case, room(&case, most), mhz, session.interrupt.clone())?;
        running.push(Running { planned: *planned, bench, rounds: Vec::new(), void: None });
        session.advance();
    }
    for _ in 0..rounds {
        for one in &mut running {
            session.step(&one.planned.case.name())?;
            round(one, packets)?;
            session.advance();
        }
    }
    for one in &mut running {
        session.step(&format!("{}: stages", one.planned.case.name()))?;
        record(session, one, packets, mhz)?;
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
        let interrupted = (took.left_out > LEFT_OUT_MAX)
            .then(|| format!("{:.0} % of the bursts were interrupted", took.left_out * 100.0));
        let void = watch.void().or(interrupted);
        if void.is_none() || last {
            one.void = one.void.take().or(void);
            one.rounds.push(took);
            break;
        }
    }
    Ok(())
}

fn record(session: &mut Session, one: &mut Running, packets: u64, mhz: f64) -> Result<()> {
    let case = one.planned.case.name();
    let cycles: Vec<f64> = one.rounds.iter().map(|took| took.cycles).collect();
    let ns: Vec<f64> = cycles.iter().map(|cycles| cycles / mhz * 1e3).collect();
    let mpps: Vec<f64> = ns.iter().map(|ns| 1e3 / ns).collect();
    for (metric, unit, rounds) in
        [("packet", "cycles", &cycles), ("packet", "ns", &ns), ("rate", "Mpps", &mpps)]
    {
        let row = Measurement::of_rounds(NAME, &case, metric, unit, rounds);
        session.record(row.void_because(one.void.clone()));
    }
    if one.planned.stages {
        stages(session, one, &case, packets / 4)?;
    }
    Ok(())
}

/// Rounds of the stages: few, they follow each other.
const STAGE_ROUNDS: usize = 3;

fn stages(session: &mut Session, one: &mut Running, case: &str, packets: u64) -> Result<()> {
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
    let row = Measurement::of_rounds(NAME, case, "walk", "cycles", &walk);
    session.record(row.void_because(void.clone()));
    for mark in vswitch_datapath::Mark::ALL {
        let cycles = of(mark);
        if cycles.iter().any(|cycles| *cycles > 0.0) {
            let row = Measurement::of_rounds(NAME, case, &format!("stage/{}", mark.key()), "cycles", &cycles);
            session.record(row.void_because(void.clone()));
        }
    }
    Ok(())
}
