//! The flow table: what it takes of memory, and of time to find a flow and to add one.

use vswitch_datapath::flow::{Flow, FlowKey, FlowTable, NewFlow, Now, TcpFlags};
use vswitch_datapath::tables::{AdjacencyIndex, Judgement, Revision};
use vswitch_datapath::{BATCH, PortIndex};
use vswitch_model::{IdentityId, RuleId};

use super::NAME;
use super::turns::{take_turns, time_each};
use crate::machine::{Watch, free_memory};
use crate::result::{Measurement, usable};
use crate::session::Session;
use crate::workload::{Numbers, count};
use crate::{Error, Result};

const UDP: u8 = 17;
/// What a flow takes at most, with the keys and hashes that are asked for: bytes.
const FLOW_BYTES: u64 = 300;
/// Look-ups of a round.
const LOOKUPS: usize = 1 << 20;
/// The same with `--quick`.
const LOOKUPS_QUICK: usize = 1 << 17;
/// Flows that are asked for: as many as there are, or so many of them.
const ASKED_MAX: usize = 1 << 20;
/// Ports that flows come by, so that none has more than its part.
const PORTS: u64 = 64;
const GIB: f64 = (1u64 << 30) as f64;

/// So many flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) flows: usize,
}

impl Case {
    pub(super) fn name(self) -> String {
        format!("flows/v4/flows-{}", count(self.flows as u64))
    }

    pub(super) fn is_wanted(self, session: &Session) -> bool {
        session.wants(&self.name())
    }
}

/// Measures one size.
pub(super) fn run(session: &mut Session, case: Case) -> Result<()> {
    let name = case.name();
    session.step(&name)?;
    let (need, free) = (case.flows as u64 * FLOW_BYTES, free_memory());
    if need > free {
        let (need, free) = (need >> 20, free >> 20);
        session
            .note(format!("{NAME}: {name} is left out: it takes about {need} MiB, and {free} MiB are free"));
        return Ok(());
    }
    let (table, keys) = fill(session, &name, case.flows)?;
    session.advance();
    let bytes = table.memory_bytes() as f64 / case.flows as f64;
    session.record(Measurement::of_rounds(NAME, &name, "bytes-each", "bytes", &[bytes]));
    session.record(Measurement::of_rounds(NAME, &name, "flows-a-gib", "flows", &[GIB / bytes]));
    let hashes: Vec<u64> = keys.iter().map(|key| table.hash(key)).collect();
    let mut missing = 0;
    let mut look_up = || {
        let mut found = [None; BATCH];
        for (keys, hashes) in keys.chunks(BATCH).zip(hashes.chunks(BATCH)) {
            let found = &mut found[..keys.len()];
            table.lookup_batch(keys, hashes, found);
            missing += found.iter().filter(|flow| flow.is_none()).count();
        }
    };
    let least = if session.config.quick { LOOKUPS_QUICK } else { LOOKUPS };
    take_turns(session, &name, "look-up", || time_each(keys.len(), least, &mut look_up), Vec::new())?;
    session.advance();
    if missing > 0 {
        return Err(Error::Miscounted(format!("{name}: {missing} flows were not found")));
    }
    Ok(())
}

/// Fills a table in each round; the last one, and keys of flows in it, in no order of meaning.
fn fill(session: &mut Session, name: &str, flows: usize) -> Result<(FlowTable, Vec<FlowKey>)> {
    let mut rounds = Vec::new();
    let mut table = FlowTable::new(1, 0);
    let (batches, rest) = (flows / BATCH, flows % BATCH);
    for _ in 0..session.config.rounds.max(1) {
        session.check()?;
        table = FlowTable::new(flows, 0x5eed);
        let (mut times, watch) = (std::time::Duration::ZERO, Watch::start());
        for batch in 0..batches + usize::from(rest > 0) {
            let of_batch = batch * BATCH..flows.min((batch + 1) * BATCH);
            let made: Vec<Flow> = of_batch.map(|number| flow(number as u64)).collect::<Result<_>>()?;
            let start = std::time::Instant::now();
            for flow in made {
                let hash = table.hash(&flow.key);
                let added = table.insert(hash, &flow);
                added.map_err(|error| Error::setup(format!("fill {name}"), error))?;
            }
            times += start.elapsed();
        }
        rounds.push((times.as_nanos() as f64 / flows as f64, watch.void()));
    }
    let (values, void) = usable(rounds);
    session.record(Measurement::of_rounds(NAME, name, "insert", "ns", &values).void_because(void));
    let mut numbers = Numbers::new(flows as u64);
    let keys = (0..flows.min(ASKED_MAX)).map(|_| key(numbers.below(flows as u64)).0).collect();
    Ok((table, keys))
}

fn key(number: u64) -> (FlowKey, vswitch_datapath::flow::Orientation) {
    // Every number has ends of its own: the lower 24 bits in one address, the others in a port.
    let (address, port) = (number as u32 & 0xff_ffff, 1024 + (number >> 24) as u16);
    FlowKey::v4(0x0a00_0000 | address, port, 0xc000_0201, 53, UDP)
}

fn flow(number: u64) -> Result<Flow> {
    let (key, orientation) = key(number);
    let judgement = Judgement {
        identities: [IdentityId(1); 2],
        adjacencies: [AdjacencyIndex(0); 2],
        egress: RuleId::NOT_ISOLATED,
        ingress: RuleId::NOT_ISOLATED,
        marks: [None; 2],
    };
    let new = NewFlow {
        key,
        orientation,
        in_port: PortIndex((number % PORTS) as u16),
        judgement,
        revision: Revision(1),
        tcp_flags: TcpFlags(0),
        now: Now(1),
    };
    Flow::new(&new).map_err(|reason| Error::setup("make a flow", format!("{reason:?}")))
}
