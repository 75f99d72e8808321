//! What runs under callgrind: one worker without threads, clock or chance, turned over a fixed set of packets.
//!
//! Callgrind counts within [`Worker::step_at`] only, and writes what it counted each time [`end_of_part`] returns. A case
//! is three parts: what comes before, `PACKETS` packets, twice as many.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::bounded;
use vswitch::config::Poll;
use vswitch::io::{FramePool, Umem};
use vswitch::worker::{Command, Handle, Published, Worker, WorkerConfig};
use vswitch_datapath::tables::{Revision, Role};
use vswitch_datapath::{
    CompileInputs, Hop, Now, PortFacts, PortIndex, PortMap, Underlay, WalkConfig, compile,
};
use vswitch_model::{Generation, Mac, PortName};

use crate::scenario::engine::wire::{WirePort, Wires};
use crate::workload::policy::DENIED_PORT;
use crate::workload::{Case, Family, Frames, Kind, Node, Size, Stream, Traffic, Transport, Way};
use crate::{Error, Result};

/// Packets of the shorter run: each flow comes as often as every other.
pub const PACKETS: u64 = 1024;
/// Parts callgrind writes of each case.
pub const PARTS: usize = 3;

/// Flows, where packets are of known ones.
const FLOWS: u64 = 256;
const RULES: usize = 100;
const ROUTES: usize = 100;
const FRAMES: usize = 1024;
/// Room for the flows of the new-flow cases, too.
const ROOM: usize = 16_384;
/// Packets laid ready at once.
const BURST: usize = 512;
const PATIENCE: Duration = Duration::from_secs(5);
/// The time by the worker's clock, always.
const NOW: Now = Now(1_000_000_000);

/// What is counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Its name, which the kept figures have: what [`Case::name`] says, so that no other scenario means another case by it.
    pub name: String,
    traffic: Traffic,
    batch: usize,
    fate: Fate,
}

/// What becomes of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    Dropped,
}

impl Counted {
    fn sent(case: Case) -> Self {
        let Case { kind, family, transport, way, size, batch, .. } = case;
        let flows = if kind == Kind::NewFlow { Traffic::FLOWS_MAX } else { FLOWS };
        let traffic = Traffic { transport, size, ..Traffic::new(way, family, flows) };
        Self { name: case.name(), traffic, batch, fate: Fate::Sent }
    }

    /// The packets of `case`, which fare as `word` says, and not as those of known flows.
    fn dropped(word: &str, case: Case, change: impl FnOnce(&mut Traffic)) -> Self {
        let mut counted = Self::sent(case);
        counted.name = counted.name.replacen("known-flow", word, 1);
        counted.fate = Fate::Dropped;
        change(&mut counted.traffic);
        counted
    }
}

/// All that is counted, in order.
#[must_use]
pub fn cases() -> Vec<Counted> {
    let base = Case { flows: FLOWS, rules: RULES, routes: ROUTES, ..Case::BASE };
    let (v4, v6) = (Family::V4, Family::V6);
    let known = |family, way| Counted::sent(Case { family, way, ..base });
    let new =
        |family, way, transport| Counted::sent(Case { kind: Kind::NewFlow, family, way, transport, ..base });
    vec![
        known(v4, Way::Local),
        known(v4, Way::IntoVxlan),
        known(v4, Way::FromVxlan),
        known(v6, Way::Local),
        known(v6, Way::IntoVxlan),
        known(v6, Way::FromVxlan),
        Counted::sent(Case { size: Size::Imix, ..base }),
        Counted::sent(Case { batch: 1, ..base }),
        new(v4, Way::IntoVxlan, Transport::Udp),
        new(v4, Way::Local, Transport::Syn),
        new(v6, Way::FromVxlan, Transport::Udp),
        Counted::dropped("denied", base, |traffic| traffic.first_port = DENIED_PORT),
        Counted::dropped("ttl-expired", base, |traffic| traffic.ttl = 1),
    ]
}

/// Runs all cases, and prints the name of each.
///
/// # Errors
///
/// [`Error::Setup`]; [`Error::Miscounted`] when packets fared otherwise than they should.
pub fn run() -> Result<()> {
    for case in cases() {
        let mut bare = Bare::start(&case)?;
        bare.run(&case, FLOWS)?;
        end_of_part();
        bare.run(&case, PACKETS)?;
        end_of_part();
        bare.run(&case, 2 * PACKETS)?;
        end_of_part();
        println!("{}", case.name);
    }
    Ok(())
}

/// Callgrind is told this name.
#[inline(never)]
pub fn end_of_part() {
    std::hint::black_box(());
}

/// A worker with its ports, and nothing else of an engine.
struct Bare {
    /// None: it has ended.
    worker: Option<Worker>,
    handle: Option<Handle>,
    wires: Wires,
    stream: Stream,
    numbers: Box<dyn Iterator<Item = u64>>,
}

impl Bare {
    fn start(case: &Counted) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::setup("start a worker", error);
        let traffic = case.traffic;
        let node = Node::in_memory(2, 4).with_rules(RULES).with_routes(traffic.family, ROUTES);
        let stream = traffic.on(&node)?;
        let numbers: Box<dyn Iterator<Item = u64>> =
            if traffic.flows == FLOWS { Box::new(stream.order()) } else { Box::new(0..) };
        let umem = Umem::plain(FRAMES).map_err(|e| failed(&e))?;
        let pool = FramePool::new(&umem, FRAMES).map_err(|e| failed(&e))?;
        let walk = WalkConfig {
            flows: ROOM,
            fragments: 16,
            icmp_errors_per_second: 1_000_000,
            icmp_errors_per_source: 1_000_000,
            seed: 1,
            ..WalkConfig::default()
        };
        let config = WorkerConfig { number: 0, core: None, poll: Poll::Busy, walk };
        let (published, mut worker) = (Arc::new(Published::new()), None);
        let mut keep = |made| {
            worker = Some(made);
            Ok(None)
        };
        let handle =
            Handle::start(config, Arc::clone(&published), pool, &mut keep).map_err(|e| failed(&e))?;
        let ports = ports(&node);
        let (desired, underlay) = (node.desired(), underlay(&node, &ports));
        let (generation, revision) = (Generation(1), Revision(1));
        let inputs =
            CompileInputs { generation, revision, desired: &desired, ports: &ports, underlay: &underlay };
        published.publish(&Arc::new(compile(&inputs).map_err(|e| failed(&e))?));
        let mut bare = Self { worker, handle: Some(handle), wires: Wires::default(), stream, numbers };
        for (name, facts) in &ports {
            bare.add(name, facts.index)?;
        }
        // Until the ports without packets are cold.
        for _ in 0..2048 {
            bare.step();
        }
        Ok(bare)
    }

    fn add(&mut self, name: &PortName, index: PortIndex) -> Result<()> {
        let port = WirePort::new(name.as_str(), index, self.wires.of(name.as_str()));
        let (reply, answer) = bounded(1);
        let failed = |error: &dyn std::fmt::Display| Error::setup("give a worker its ports", error);
        if let Some(handle) = &self.handle {
            handle.command(Command::AddPort(Box::new(port), reply), PATIENCE).map_err(|e| failed(&e))?;
        }
        self.step();
        match answer.try_recv() {
            Ok(None) => Ok(()),
            _ => Err(failed(&format!("it did not take {name}"))),
        }
    }

    fn step(&mut self) {
        if let Some(worker) = &mut self.worker {
            // Nobody tells it to stop before it is dropped.
            let _ = worker.step_at(NOW);
        }
    }

    fn dropped(&self) -> u64 {
        let counters = self.handle.as_ref().map(|handle| &handle.counters);
        let drops =
            |reason: &vswitch_model::DropReason| counters.map_or(0, |counters| counters.drops(*reason));
        vswitch_model::DropReason::ALL.iter().map(drops).sum()
    }

    fn run(&mut self, case: &Counted, packets: u64) -> Result<()> {
        let near = self.wires.of(self.stream.enters.as_str());
        let far = self.wires.of(self.stream.leaves.as_str());
        let (arrived, dropped) = (far.arrived(), self.dropped());
        let mut left = packets as usize;
        while left > 0 {
            let numbers: Vec<u64> = self.numbers.by_ref().take(BURST.min(left)).collect();
            near.stage(numbers.len(), |at, frame| self.stream.write(numbers[at], frame));
            for _ in 0..numbers.len().div_ceil(case.batch) {
                near.release(case.batch);
                self.step();
            }
            left -= numbers.len();
        }
        let (arrived, dropped) = (far.arrived() - arrived, self.dropped() - dropped);
        let expected = match case.fate {
            Fate::Sent => (packets, 0),
            Fate::Dropped => (0, packets),
        };
        if (arrived, dropped) == expected {
            return Ok(());
        }
        let name = &case.name;
        Err(Error::Miscounted(format!(
            "{name}: of {packets} packets {arrived} came through and {dropped} were dropped, not {expected:?}"
        )))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let (Some(mut worker), Some(handle)) = (self.worker.take(), self.handle.take()) else { return };
        // Whoever stops a worker waits for it to end, which it does when it is turned.
        std::thread::scope(|scope| {
            scope.spawn(move || drop(handle));
            loop {
                if let ControlFlow::Break(reply) = worker.step() {
                    worker.end(&reply);
                    break;
                }
                std::thread::yield_now();
            }
        });
    }
}

/// The node's ports by number, as the engine would number them.
pub(in crate::scenario) fn ports(node: &Node) -> PortMap {
    let uplink = node.uplink.iter().map(|uplink| (&uplink.port, Role::Uplink, uplink.mac, uplink.mtu));
    let host = (&node.host_port, Role::Host, Mac::GATEWAY, node.pod_mtu);
    let pods = node.pods.iter().map(|pod| (&pod.port, Role::Pod, Mac::GATEWAY, node.pod_mtu));
    let all = uplink.chain([host]).chain(pods);
    all.enumerate()
        .map(|(number, (name, role, mac, mtu))| {
            let index = PortIndex(number as u16);
            (name.clone(), PortFacts { index, role, mac, mtu, finishes_checksums: false, takes_large: false })
        })
        .collect()
}

pub(in crate::scenario) fn underlay(node: &Node, ports: &PortMap) -> Underlay {
    let facts = node.facts();
    let uplink = node.uplink.as_ref().and_then(|uplink| ports.get(&uplink.port));
    let hops = facts.hops.iter().filter_map(|(remote, hop)| {
        let (hop, port) = (hop.as_ref().ok()?.first()?, uplink?.index);
        let (dst_mac, src_mac, mtu) = (hop.destination, hop.source, hop.mtu as u16);
        Some((*remote, vec![Hop { port, dst_mac, src_mac, mtu, weight: hop.weight, on_link: hop.on_link }]))
    });
    Underlay { hops: hops.collect(), local_addresses: facts.local_addresses.clone(), ..Underlay::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_fare_as_each_case_says_and_names_are_different() {
        let names: std::collections::BTreeSet<_> = cases().into_iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().len());
        for case in cases() {
            let mut bare = Bare::start(&case).unwrap();
            bare.run(&case, FLOWS).unwrap();
            bare.run(&case, 100).unwrap();
        }
    }

    #[test]
    fn packets_that_fare_otherwise_are_noticed() {
        let case = cases().into_iter().find(|case| case.fate == Fate::Dropped).unwrap();
        let case = Counted { fate: Fate::Sent, ..case };
        let error = Bare::start(&case).unwrap().run(&case, 64).unwrap_err();
        assert!(error.to_string().contains("of 64 packets 0 came through and 64 were dropped"), "{error}");
    }
}
