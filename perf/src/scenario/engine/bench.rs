//! An engine whose worker is turned by hand, and packets to turn it with.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use quanta::Clock;
use vswitch::engine::{Desire, Engine};
use vswitch::io::Umem;
use vswitch::worker::Worker;
use vswitch_datapath::{Counters, Now};
use vswitch_model::{DropReason, Generation};

use super::stages::{Stages, empty_cycles};
use super::wire::{Wire, WireDevices, Wires};
use crate::session::Interrupt;
use crate::workload::{Case, Kind, Node, Stream, Traffic, Way};
use crate::{Error, Result};

/// Frames of the ports' memory: less than the second-level cache, as a busy engine keeps reusing the same ones.
const FRAMES: usize = 1024;
/// Packets laid ready at once: the turns over them follow each other as in a busy engine.
const BURST: usize = 512;
/// Other nodes.
const PEERS: usize = 64;

/// One case, ready to be measured.
pub struct Bench {
    /// What it measures.
    pub case: Case,
    engine: Engine,
    hand: Hand,
    worker: Option<Worker>,
    stream: Stream,
    numbers: Box<dyn Iterator<Item = u64>>,
    near: Arc<Wire>,
    far: Arc<Wire>,
    wires: Wires,
    counters: Arc<Counters>,
    clock: Clock,
    empty: f64,
    tsc_mhz: f64,
    /// The worker's clock: it only runs while the worker is turned, or else flows would expire between two measurements.
    now_ns: f64,
    interrupt: Interrupt,
    learnt: bool,
    _folder: tempfile::TempDir,
}

/// What packets took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Took {
    /// Cycles of the time stamp counter for each packet.
    pub cycles: f64,
    /// Part of the bursts that are left out since the machine was elsewhere.
    pub left_out: f64,
    /// The most cycles a packet that a burst which is not left out took.
    most: f64,
}

/// A burst that took this many times the median was interrupted.
const INTERRUPTED: f64 = 4.0;

impl Took {
    /// From the cycles a packet of each burst, in any order.
    fn of(mut bursts: Vec<f64>) -> Self {
        bursts.sort_by(f64::total_cmp);
        let most = bursts.get(bursts.len() / 2).copied().unwrap_or(0.0) * INTERRUPTED;
        let whole = bursts.partition_point(|cycles| *cycles <= most).max(1);
        let kept = &bursts[..whole.min(bursts.len())];
        Self {
            cycles: kept.iter().sum::<f64>() / kept.len().max(1) as f64,
            left_out: 1.0 - kept.len() as f64 / bursts.len().max(1) as f64,
            most,
        }
    }
}

/// The node a case is measured on.
#[must_use]
pub fn node(case: &Case) -> Node {
    let node = Node::in_memory(2, PEERS).with_rules(case.rules).with_routes(case.family, case.routes);
    if case.way == Way::Direct { node.without_vxlan() } else { node }
}

impl Bench {
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
        let failed = |error: &dyn std::fmt::Display| Error::setup("start an engine in memory", error);
        let folder =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).map_err(|e| failed(&e))?;
        let wires = Wires::default();
        let umem = Umem::plain(FRAMES).map_err(|e| failed(&e))?;
        let devices = Box::new(WireDevices::new(umem, wires.clone()));
        let mut hand = Hand::default();
        let mut lend = |worker| {
            hand.lend(worker);
            Ok(None)
        };
        let engine = Engine::start_with(node.config(folder.path(), room), devices, false, &mut lend)
            .map_err(|e| failed(&e))?;
        engine.tell_facts(node.facts());
        let desire = Desire::Full(Box::new(node.desired()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| failed(&e))?;
        let applied = runtime.block_on(engine.applier().apply(Generation(1), desire));
        let applied = applied.map_err(|e| failed(&e))?;
        if let Some((port, reason)) = applied.failed_ports.first_key_value() {
            return Err(failed(&format!("port {port}: {reason}")));
        }
        let counters = Arc::clone(&engine.shared().workers[0].counters);
        let clock = Clock::new();
        let mut bench = Self {
            case,
            worker: hand.take(),
            engine,
            hand,
            numbers: Box::new(0..),
            near: wires.of(stream.enters.as_str()),
            far: wires.of(stream.leaves.as_str()),
            stream,
            wires,
            counters,
            empty: empty_cycles(&clock),
            clock,
            tsc_mhz,
            now_ns: 1e9,
            interrupt,
            learnt: false,
            _folder: folder,
        };
        bench.settle();
        bench.learn()?;
        Ok(bench)
    }

    /// Turns without packets until the ports that have none are cold, as they are in an engine that has run a while.
    fn settle(&mut self) {
        for _ in 0..2048 {
            self.step();
        }
    }

    /// Sends the first packet of each flow that is to be known, and some to be warm.
    fn learn(&mut self) -> Result<()> {
        if self.case.kind == Kind::KnownFlow {
            let known = self.case.flows;
            self.numbers = Box::new(0..known);
            self.run(known)?;
            self.numbers = Box::new(self.stream.order());
            self.learnt = true;
        }
        Ok(())
    }

    fn step(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.set_clock(Now(self.now_ns as u64));
            // Nobody tells it to stop while it is in our hand.
            let _ = worker.step();
        }
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
        let before = self.account();
        let mut bursts = Vec::with_capacity(packets as usize / BURST + 1);
        let mut left = packets;
        while left > 0 {
            if self.interrupt.is_set() {
                return Err(Error::Interrupted);
            }
            let numbers: Vec<u64> = self.numbers.by_ref().take(BURST.min(left as usize)).collect();
            self.near.stage(numbers.len(), |at, frame| self.stream.write(numbers[at], frame));
            let cycles = burst(self, numbers.len());
            bursts.push(cycles / numbers.len().max(1) as f64);
            left -= numbers.len() as u64;
        }
        self.check(&before, packets)?;
        Ok(bursts)
    }

    /// Turns the worker over the frames that lie ready, so many at a time as the case says. What the turns took.
    fn burst(&mut self, count: usize, mut stages: Option<&mut Stages>) -> f64 {
        let Some(worker) = &mut self.worker else { return 0.0 };
        let (mut done, mut cycles) = (0, 0.0);
        while done < count {
            let released = self.near.release(self.case.batch);
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
            if received == 0 || matches!(turn, ControlFlow::Break(_)) {
                break;
            }
            done += received;
        }
        cycles
    }

    fn account(&self) -> Account {
        Account {
            created: self.flows_created(),
            arrived: self.far.arrived(),
            elsewhere: self.wires.arrived() - self.far.arrived(),
            drops: DropReason::ALL.iter().map(|reason| (*reason, self.counters.drops(*reason))).collect(),
        }
    }

    /// Sent = received + drops by reason; and of these, none here: all that is sent is to come through.
    fn check(&self, before: &Account, sent: u64) -> Result<()> {
        let after = self.account();
        let arrived = after.arrived - before.arrived;
        let elsewhere = after.elsewhere - before.elsewhere;
        let drops =
            after.drops.iter().zip(&before.drops).map(|((reason, now), (_, then))| (*reason, now - then));
        let drops: Vec<(DropReason, u64)> = drops.filter(|(_, count)| *count > 0).collect();
        if arrived == sent && elsewhere == 0 && drops.is_empty() {
            return self.check_flows(after.created - before.created, sent);
        }
        let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
        let list: Vec<String> = drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let lost = sent as i64 - arrived as i64 - dropped as i64;
        Err(Error::Miscounted(format!(
            "{}: {sent} packets were sent, {arrived} came through, {elsewhere} came out elsewhere, {dropped} were dropped \
             ({}), {lost} are nowhere: every one should have come through",
            self.case.name(),
            if list.is_empty() { "none".to_owned() } else { list.join(", ") },
        )))
    }

    /// Once they are learnt, known flows are found and not made; of new ones each packet makes one.
    fn check_flows(&self, created: u64, sent: u64) -> Result<()> {
        let expected = match self.case.kind {
            Kind::KnownFlow if self.learnt => 0,
            _ => sent,
        };
        if created == expected {
            return Ok(());
        }
        let name = self.case.name();
        Err(Error::Miscounted(format!(
            "{name}: {sent} packets made {created} flows, and should have made {expected}"
        )))
    }

    /// From now on sends to a port that policy denies.
    #[cfg(test)]
    pub fn send_denied(&mut self) {
        self.stream.traffic.first_port = crate::workload::policy::DENIED_PORT;
    }

    /// The far end of the port the packets leave by.
    #[cfg(test)]
    pub fn far(&self) -> &Wire {
        &self.far
    }

    /// Flows the engine has created.
    #[must_use]
    pub fn flows_created(&self) -> u64 {
        self.counters.flows_created.get()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.hand.lend(worker);
            // It ends while it is lent.
            self.engine.stop();
            self.hand.take();
        }
    }
}

/// What came out where, so far.
#[derive(Debug)]
struct Account {
    created: u64,
    arrived: u64,
    elsewhere: u64,
    drops: Vec<(DropReason, u64)>,
}

/// A thread that turns a worker while somebody asks something of the engine.
#[derive(Default)]
struct Hand {
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<Worker>>>,
}

impl Hand {
    fn lend(&mut self, mut worker: Worker) {
        self.enough.store(false, Ordering::Relaxed);
        let enough = Arc::clone(&self.enough);
        self.thread = Some(std::thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                match worker.step() {
                    ControlFlow::Continue(_) => std::thread::yield_now(),
                    ControlFlow::Break(reply) => {
                        worker.end(&reply);
                        return None;
                    }
                }
            }
            Some(worker)
        }));
    }

    /// The worker back; None: it has ended.
    fn take(&mut self) -> Option<Worker> {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok().flatten()
    }
}
