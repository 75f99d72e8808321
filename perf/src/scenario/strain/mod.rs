//! What the engine bears: how long a worker stands still, at worst, while tables are replaced and flows expire; what known flows
//! lose to a flood of new ones; and how long the engine takes to start.

mod flood;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use vswitch::config::Config;
use vswitch::engine::{Engine, MemoryDevices};

use super::engine::FLOW_BYTES;
use super::engine::bench::{Bench, Turns, node};
use super::{About, Scenario};
use crate::machine::{free_memory, tsc_mhz};
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::{Case, Stream, count};
use crate::{Error, Result};

use flood::flood;

const NAME: &str = "strain";

/// The scenario.
#[derive(Debug)]
pub struct Strain;

/// Sizes of the cases.
struct Sizes {
    routes: usize,
    rules: usize,
    flows: u64,
    flood_seconds: f64,
    /// Bytes the engine takes at its start, half of them frames and half flows.
    start: u64,
}

const USUAL: Sizes =
    Sizes { routes: 1_000_000, rules: 100_000, flows: 10_000_000, flood_seconds: 1.0, start: 1 << 30 };
const QUICK: Sizes =
    Sizes { routes: 100_000, rules: 10_000, flows: 1_000_000, flood_seconds: 0.3, start: 128 << 20 };
/// Bytes of a frame.
const FRAME_BYTES: u64 = 2048;

impl Scenario for Strain {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what single turns of the engine's worker take of a core while it walks packets of known flows and other \
                       tables come, or all flows expire; what comes through beside a flood; and the time the engine takes to \
                       start",
            cases: "routes-1M: all routes come at once. rules-100k: all rules are replaced. flows-10M: all flows expire. \
                    flood-1Mpps: a pod sends \
                    1 Mpps of known flows, and opens 10k flows a second; another sends 1 Mpps of which each packet opens a flow; the \
                    table, as large as it ships, is soon full. /syn: these are TCP's. /same-port: they come from the pod of the \
                    known flows, and the other opens 10k a second. start/1GiB: half of it frames, half flow table",
            sets: "--quick: a tenth of each",
            metrics: &[
                (
                    "turn/median, turn/p99.9, turn/worst",
                    "us of the worker's core; a turn in which somebody else had the core is not longer for it",
                ),
                ("turns", "how many there were meanwhile"),
                (
                    "goodput",
                    "%: packets of known flows that came through, of those that do without the flood",
                ),
                (
                    "looked-at",
                    "%: packets of the pod that floods that the worker took from its port, the rest was lost there",
                ),
                ("opened", "%: packets of the flood that opened a flow"),
                ("others-opened", "%: flows that the other pod opened, of those it asked for"),
                ("start", "ms until the engine runs, its memory taken"),
            ],
            peers: "none",
            root: false,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let sizes = if session.config.quick { QUICK } else { USUAL };
        session.begin(NAME, 4 + flood::CASES as u64);
        loads(session, &sizes)?;
        expiry(session, &sizes)?;
        flood(session, sizes.flood_seconds)?;
        start(session, sizes.start)
    }
}

fn bench(case: Case, flows: u64, session: &Session) -> Result<Bench<Stream>> {
    // One port may hold three quarters of the table.
    let room = (flows / 3 * 4 + 4096).max(Config::default().flows.into());
    Bench::start(case, room, tsc_mhz(), session.interrupt.clone())
}

fn loads(session: &mut Session, sizes: &Sizes) -> Result<()> {
    let base = Case::BASE;
    let cases = [
        (format!("routes-{}", count(sizes.routes as u64)), base, Case { routes: sizes.routes, ..base }),
        (
            format!("rules-{}", count(sizes.rules as u64)),
            Case { rules: sizes.rules, ..base },
            // One fewer, sent whole: everything is compiled anew.
            Case { rules: sizes.rules - 1, ..base },
        ),
    ];
    for (name, before, after) in cases {
        if session.wants(&name) {
            session.step(&name)?;
            let mut bench = bench(before, before.flows, session)?;
            let turns = bench.turns_while_loading(node(&after).desired())?;
            record(session, &name, &turns);
        }
        session.advance();
    }
    Ok(())
}

fn expiry(session: &mut Session, sizes: &Sizes) -> Result<()> {
    let name = format!("flows-{}", count(sizes.flows));
    if session.wants(&name) {
        session.step(&name)?;
        let (need, free) = (sizes.flows / 3 * 4 * FLOW_BYTES, free_memory());
        if need > free {
            let (need, free) = (need >> 20, free >> 20);
            session.note(format!("{NAME}: {name} is left out: it takes {need} MiB of {free} free"));
        } else {
            let case = Case { flows: sizes.flows, ..Case::BASE };
            let turns = bench(case, sizes.flows, session)?.turns_while_expiring()?;
            record(session, &name, &turns);
        }
    }
    session.advance();
    Ok(())
}

fn record(session: &mut Session, case: &str, turns: &Turns) {
    for (metric, unit, value) in [
        ("turn/median", "us", turns.at_most_us(0.5)),
        ("turn/p99.9", "us", turns.at_most_us(0.999)),
        ("turn/worst", "us", turns.at_most_us(1.0)),
        ("turns", "turns", turns.count() as f64),
    ] {
        session.record(Measurement::of_rounds(NAME, case, metric, unit, &[value]));
    }
}

/// From the request for the memory to an engine that runs.
fn start(session: &mut Session, bytes: u64) -> Result<()> {
    let (size, unit) = if bytes >> 30 > 0 { (bytes >> 30, "GiB") } else { (bytes >> 20, "MiB") };
    let name = format!("start/{size}{unit}");
    if session.wants(&name) {
        session.step(&name)?;
        let mut times = Vec::new();
        for _ in 0..session.config.rounds.max(1) {
            times.push(started(bytes)?.as_secs_f64() * 1e3);
        }
        session.record(Measurement::of_rounds(NAME, &name, "start", "ms", &times));
    }
    session.advance();
    Ok(())
}

fn started(bytes: u64) -> Result<Duration> {
    let failed = |error: &dyn std::fmt::Display| Error::setup("start an engine in memory", error);
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    let frames = u32::try_from(bytes / 2 / FRAME_BYTES).unwrap_or(u32::MAX);
    let flows = u32::try_from(bytes / 2 / FLOW_BYTES).unwrap_or(u32::MAX);
    let state_file = folder.path().join("engine.state");
    let config = Config { frames, flows, state_file, ..Config::default() };
    let begin = Instant::now();
    let (devices, _world) = MemoryDevices::new(frames as usize).map_err(|error| failed(&error))?;
    let mut engine = Engine::start(config, Box::new(devices), false).map_err(|error| failed(&error))?;
    let took = begin.elapsed();
    engine.stop();
    Ok(took)
}
