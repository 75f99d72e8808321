//! An engine whose worker is turned by hand, and packets to turn it with.

mod account;
mod flood;
mod held;
mod took;
mod turns;

use std::ops::ControlFlow;
use std::sync::Arc;

use account::Account;
use quanta::Clock;
use vswitch_datapath::Now;

use super::stages::{Stages, empty_cycles};
use super::wire::Wire;
use crate::session::Interrupt;
use crate::workload::{Case, Frames, Kind, Node, Stream, Traffic, Way};
use crate::{Error, Result};

pub use flood::{Flooded, Newcomers, Offer};
pub use held::Held;
pub use took::Took;
pub use turns::Turns;

/// Packets laid ready at once: the turns over them follow each other as in a busy engine.
const BURST: usize = 512;
/// Turns in which nothing is received, one after another, before nothing is expected any more: a port that is cold is
/// asked every so many turns only, in turn with others.
const IDLE_MAX: usize = 4096;
/// Other nodes.
const PEERS: usize = 64;

/// One case, ready to be measured.
pub struct Bench<F: Frames> {
    /// What it measures.
    pub name: String,
    held: Held,
    frames: F,
    numbers: Box<dyn Iterator<Item = u64>>,
    /// Packets that wait at each turn.
    batch: usize,
    /// Whether each packet is to make a flow; or none is, all being known.
    makes_flows: bool,
    near: Arc<Wire>,
    account: Account,
    clock: Clock,
    empty: f64,
    tsc_mhz: f64,
    /// The worker's clock: it only runs while the worker is turned, or else flows would expire between two measurements.
    now_ns: f64,
    interrupt: Interrupt,
}

/// The node a case is measured on.
#[must_use]
pub fn node(case: &Case) -> Node {
    let node = Node::in_memory(2, PEERS).with_rules(case.rules).with_routes(case.family, case.routes);
    if case.way == Way::Direct { node.without_vxlan() } else { node }
}

impl Bench<Stream> {
    /// Starts an engine with what the case asks for, room for `room` flows, and lets it know the flows of the case.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`]; [`Error::Miscounted`] when a flow did not come through; [`Error::Interrupted`].
    pub fn start(case: Case, room: u64, tsc_mhz: f64, interrupt: Interrupt) -> Result<Self> {
        let node = node(&case);
        let known = if case.kind == Kind::KnownFlow { case.flows } else { Traffic::FLOWS_MAX };
        let traffic = Traffic {
            transport: case.transport,
            size: case.size,
            ..Traffic::new(case.way, case.family, known)
        };
        let stream = traffic.on(&node)?;
        let held = Held::start(&node, room, node.desired())?;
        let mut bench = Self::new(case.name(), held, stream, tsc_mhz, interrupt);
        bench.batch = case.batch;
        if case.kind == Kind::KnownFlow {
            bench.learn(known)?;
        }
        Ok(bench)
    }

    /// Sends the first packet of each flow that is to be known, and some to be warm.
    fn learn(&mut self, known: u64) -> Result<()> {
        self.run(known)?;
        self.numbers = Box::new(self.frames.order());
        self.makes_flows = false;
        Ok(())
    }

    /// From now on sends to a port that policy denies.
    #[cfg(test)]
    pub fn send_denied(&mut self) {
        self.frames.traffic.first_port = crate::workload::policy::DENIED_PORT;
    }
}

impl<F: Frames> Bench<F> {
    /// An engine that runs, and packets of which each is its flow's first, in batches of 32.
    #[must_use]
    pub fn new(name: String, held: Held, frames: F, tsc_mhz: f64, interrupt: Interrupt) -> Self {
        let clock = Clock::new();
        let far = frames.leaves().map(|port| held.wires.of(port.as_str())).collect();
        let mut bench = Self {
            name,
            batch: Case::BASE.batch,
            makes_flows: true,
            numbers: Box::new(0..),
            near: held.wires.of(frames.enters().as_str()),
            account: Account { far, wires: held.wires.clone(), counters: held.counters() },
            held,
            frames,
            empty: empty_cycles(&clock),
            clock,
            tsc_mhz,
            now_ns: 1e9,
            interrupt,
        };
        bench.settle();
        bench
    }

    /// Turns without packets until the ports that have none are cold, as they are in an engine that has run a while.
    fn settle(&mut self) {
        for _ in 0..2048 {
            if let Some(worker) = &mut self.held.worker {
                worker.set_clock(Now(self.now_ns as u64));
                // Nobody tells it to stop while it is in our hand.
                let _ = worker.step();
            }
        }
    }

    /// The packets that come next are those of these numbers.
    pub fn number_by(&mut self, numbers: impl Iterator<Item = u64> + 'static) {
        self.numbers = Box::new(numbers);
    }

    /// The engine.
    pub fn held(&mut self) -> &mut Held {
        &mut self.held
    }

    /// Runs `packets` packets and checks what became of them; gives what a packet took on its way, from the look for new
    /// tables at the turn's begin to the flush at its end.
    ///
    /// # Errors
    ///
    /// [`Error::Miscounted`], [`Error::Interrupted`].
    pub fn run(&mut self, packets: u64) -> Result<Took> {
        self.bursts(packets, |bench, count| bench.burst(count, None)).map(Took::of)
    }

    /// The same with what each stage took; and how many packets that is of: interrupted bursts are left out.
    ///
    /// # Errors
    ///
    /// As [`Bench::run`].
    pub fn run_stages(&mut self, packets: u64) -> Result<(Stages, u64)> {
        let mut found: Vec<(f64, u64, Stages)> = Vec::new();
        let mut stages = Stages::new();
        let bursts = self.bursts(packets, |bench, count| {
            stages.clear();
            let cycles = bench.burst(count, Some(&mut stages));
            found.push((cycles / count.max(1) as f64, count as u64, stages.clone()));
            cycles
        })?;
        let most = Took::of(bursts).most;
        let mut sum = (Stages::new(), 0);
        for (_, count, stages) in found.iter().filter(|(cycles, ..)| *cycles <= most) {
            sum.0.add(stages);
            sum.1 += count;
        }
        Ok(sum)
    }

    /// Lays the next packets ready, a burst at a time, and lets `burst` turn the worker over them. The cycles a packet of
    /// each burst.
    fn bursts(&mut self, packets: u64, mut burst: impl FnMut(&mut Self, usize) -> f64) -> Result<Vec<f64>> {
        let before = self.account.now();
        let mut bursts = Vec::with_capacity(packets as usize / BURST + 1);
        let mut left = packets;
        while left > 0 {
            if self.interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            let numbers: Vec<u64> = self.numbers.by_ref().take(BURST.min(left as usize)).collect();
            self.near.stage(numbers.len(), |at, frame| self.frames.write(numbers[at], frame));
            let cycles = burst(self, numbers.len());
            bursts.push(cycles / numbers.len().max(1) as f64);
            left -= numbers.len() as u64;
        }
        let made = if self.makes_flows { packets } else { 0 };
        self.account.check(&self.name, &before, packets, made)?;
        Ok(bursts)
    }

    /// Turns the worker over the frames that lie ready, so many at a time as the case says. What the turns took.
    fn burst(&mut self, count: usize, mut stages: Option<&mut Stages>) -> f64 {
        let Some(worker) = &mut self.held.worker else { return 0.0 };
        let (mut done, mut cycles, mut idle) = (0, 0.0, 0);
        while done < count && idle < IDLE_MAX {
            let released = self.near.release(self.batch);
            worker.set_clock(Now(self.now_ns as u64));
            let start = self.clock.raw();
            let turn = match &mut stages {
                None => worker.step(),
                Some(stages) => {
                    stages.begin();
                    worker.step_probed(*stages)
                }
            };
            let took = (self.clock.raw().wrapping_sub(start) as f64 - self.empty).max(0.0);
            cycles += took;
            self.now_ns += took / self.tsc_mhz * 1e3;
            let received = released - self.near.waiting();
            if matches!(turn, ControlFlow::Break(_)) {
                break;
            }
            idle = if received == 0 { idle + 1 } else { 0 };
            done += received;
        }
        cycles
    }

    /// The far end of the first port the packets leave by.
    #[cfg(test)]
    pub fn far(&self) -> &Wire {
        &self.account.far[0]
    }

    /// Flows the engine has created.
    #[must_use]
    pub fn flows_created(&self) -> u64 {
        self.account.counters.flows_created.get()
    }
}
