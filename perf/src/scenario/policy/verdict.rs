//! What the verdict of a new flow costs.

use vswitch_datapath::Mark;

use super::change::Compiled;
use super::{Group, NAME, change};
use crate::machine::{Watch, free_memory, has_tsc, tsc_mhz};
use crate::result::{Measurement, usable};
use crate::scenario::engine::FLOW_BYTES;
use crate::scenario::engine::bench::{Bench, Held};
use crate::scenario::engine::stages;
use crate::session::Session;
use crate::workload::Family;
use crate::workload::shape::{Asks, Policies, Ruled, SPREADS, Shape, Spread};
use crate::{Error, Result};

/// Packets of a spread in a round: as many without the probe of the stages, and with it. Half as many before those that
/// count: what the other tables have pushed out of the caches comes back.
const PACKETS: u64 = 8192;
/// The same with `--quick`.
const PACKETS_QUICK: u64 = 4096;
/// Times a round is measured before it counts as void.
const TRIES: u64 = 3;
/// Memory a rule or CIDR takes at most, in the desired state, which is held twice, and in the tables.
const RULE_BYTES: u64 = 4000;

/// One size of a shape, and what its rounds gave.
struct Running {
    policies: Policies,
    ruled: Ruled,
    bench: Bench<Asks>,
    compiled: Compiled,
    asked: [usize; 2],
    /// Packets sent so far, by spread.
    sent: [u64; 2],
    /// By spread.
    rounds: [Vec<Round>; 2],
}

/// What a packet took in one round.
#[derive(Debug, Clone)]
struct Round {
    packet: f64,
    walk: f64,
    miss: f64,
    void: Option<String>,
}

/// A figure of a round.
type Figure = fn(&Round) -> f64;

impl Round {
    /// The figures that grow, each with how it is called.
    const FIGURES: [(&'static str, &'static str, Figure); 3] = [
        ("packet", "turn-growth", |round| round.packet),
        ("walk", "walk-growth", |round| round.walk),
        ("miss", "miss-growth", |round| round.miss),
    ];
}

fn name(policies: Policies, spread: Spread) -> String {
    format!("{}/{}", policies.name(), spread.key())
}

/// Whether anything of these is wanted.
pub(super) fn wants(session: &Session, shape: Shape, family: Family, count: usize) -> bool {
    let policies = Policies { shape, family, count };
    SPREADS.into_iter().any(|spread| session.wants(&name(policies, spread)))
}

/// Measures a group: in each round all sizes take turns. What was measured when it is interrupted, or fails, is recorded.
pub(super) fn run(session: &mut Session, group: &Group) -> Result<()> {
    let rounds = session.config.rounds;
    let mut running = start_all(session, group, most_packets(session, u64::from(rounds)))?;
    let mut outcome = run_rounds(session, &mut running, rounds);
    for one in &running {
        record(session, one, &running[0]);
    }
    for one in &mut running {
        outcome = outcome
            .and_then(|()| change::run(session, one.policies, &one.ruled, one.bench.held(), group.changes));
    }
    outcome
}

fn packets(session: &Session) -> u64 {
    if session.config.quick { PACKETS_QUICK } else { PACKETS }
}

/// Packets that a bench is sent at most.
fn most_packets(session: &Session, rounds: u64) -> u64 {
    TRIES * rounds * (packets(session) / 2 * 5) * SPREADS.len() as u64
}

fn start_all(session: &mut Session, group: &Group, most_packets: u64) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for count in &group.counts {
        let policies = Policies { shape: group.shape, family: group.family, count: *count };
        session.step(&format!("{}: start", policies.name()))?;
        // One port may hold three quarters of the table.
        let room = (most_packets / 3 * 4 + 4096).max(vswitch::config::Config::default().flows.into());
        let (need, free) = (room * FLOW_BYTES + *count as u64 * RULE_BYTES + (32 << 20), free_memory());
        if need > free {
            let (name, need, free) = (policies.name(), need >> 20, free >> 20);
            session.note(format!(
                "{NAME}: {name} is left out: it takes about {need} MiB, and {free} MiB are free"
            ));
            continue;
        }
        running.push(start(session, policies, room)?);
        session.advance();
    }
    Ok(running)
}

fn start(session: &Session, policies: Policies, room: u64) -> Result<Running> {
    let ruled = policies.make();
    let held = Held::start(&ruled.node, room, ruled.desired.clone())?;
    let tables = held.tables();
    if let [refused, ..] = tables.policy.refused() {
        return Err(Error::setup(format!("measure {}", policies.name()), &refused.error));
    }
    let frames = Asks::allowed(&ruled, policies.family, &tables)?;
    let asked = SPREADS.map(|spread| frames.different(spread));
    let compiled = Compiled {
        policy: tables.policy.memory_bytes(),
        tables: tables.memory_bytes(),
        load: held.compiler_time(),
    };
    let bench = Bench::new(policies.name(), held, frames, tsc_mhz(), session.interrupt.clone());
    Ok(Running { policies, ruled, bench, compiled, asked, sent: [0; 2], rounds: Default::default() })
}

fn run_rounds(session: &mut Session, running: &mut [Running], rounds: u32) -> Result<()> {
    for _ in 0..rounds {
        for one in &mut *running {
            session.step(&one.policies.name())?;
            for spread in SPREADS {
                let round = round(one, spread, packets(session))?;
                one.rounds[spread as usize].push(round);
            }
            session.advance();
        }
    }
    Ok(())
}

fn round(one: &mut Running, spread: Spread, packets: u64) -> Result<Round> {
    let sent = &mut one.sent[spread as usize];
    one.bench.name = name(one.policies, spread);
    let mut tries = 1;
    loop {
        one.bench.number_by(spread.numbers(*sent));
        *sent += packets / 2 * 5;
        one.bench.run(packets / 2)?;
        let watch = Watch::start();
        let took = one.bench.run(packets)?;
        let (stages, kept) = one.bench.run_stages(packets)?;
        let void = watch.void().or(took.void());
        if void.is_none() || tries == TRIES {
            let stages = stages.per_packet(kept);
            let miss = stages.iter().find(|(mark, _)| *mark == Mark::Miss).map_or(0.0, |(_, cycles)| *cycles);
            return Ok(Round { packet: took.cycles, walk: stages::walk(&stages), miss, void });
        }
        tries += 1;
    }
}

/// Records one size; `base` is the smallest.
fn record(session: &mut Session, one: &Running, base: &Running) {
    // Without a time stamp counter the ticks are nanoseconds.
    let unit = if has_tsc() { "cycles" } else { "ns" };
    for spread in SPREADS {
        let case = name(one.policies, spread);
        let (rounds, smallest) = (&one.rounds[spread as usize], &base.rounds[spread as usize]);
        if rounds.is_empty() || !session.wants(&case) {
            continue;
        }
        for (metric, growth, of) in Round::FIGURES {
            let (values, void) = usable(rounds.iter().map(|round| (of(round), round.void.clone())));
            session.record(Measurement::of_rounds(NAME, &case, metric, unit, &values).void_because(void));
            if one.policies == base.policies {
                continue;
            }
            let both = rounds.iter().zip(smallest);
            let (values, void) =
                usable(both.map(|(a, b)| (of(a) / of(b), a.void.clone().or_else(|| b.void.clone()))));
            session.record(Measurement::of_rounds(NAME, &case, growth, "1", &values).void_because(void));
        }
        let asked = one.asked[spread as usize] as f64;
        session.record(Measurement::of_rounds(NAME, &case, "asked", "flows", &[asked]));
    }
    one.compiled.record(session, one.policies);
}
