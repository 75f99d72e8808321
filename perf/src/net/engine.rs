//! The engine as it ships, in this process, on a topology.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vswitch::config::{Config, Poll};
use vswitch::engine::{Counts, Desire, Engine, FinalReport, KernelDevices, reports};
use vswitch::io::PortStatistics;
use vswitch::worker::{PortReport, Worker};
use vswitch_model::{DesiredState, DropReason, Generation, PortName};

use super::topology::{Topology, UPLINK};
use crate::{Error, Result};

/// How long the engine may take to open ports and to bring a state into force.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the engine is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchOptions {
    /// The worker's core. None: where the kernel puts it.
    pub core: Option<usize>,
    /// What it does when nothing comes.
    pub poll: Poll,
    /// Flows it can follow.
    pub flows: u32,
    /// Frames of its memory.
    pub frames: u32,
}

impl Default for SwitchOptions {
    fn default() -> Self {
        let ships = Config::default();
        Self { core: None, poll: ships.poll, flows: ships.flows, frames: ships.frames }
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Switch {
    // Dropped first: the engine stops before what it runs on goes.
    engine: Engine,
    runtime: tokio::runtime::Runtime,
    topology: Topology,
    generation: u64,
    _state: tempfile::TempDir,
}

/// What an engine counted, over all its ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchCounts {
    /// Packets its sockets gave it.
    pub received: u64,
    /// Packets it handed to its sockets.
    pub sent: u64,
    /// Packets that ended, by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<&'static str, u64>,
    /// Flows that were made.
    pub flows_created: u64,
}

impl SwitchCounts {
    /// Packets that ended.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

impl Switch {
    /// Starts an engine in the topology's switch namespace, its worker on a thread, with `desired` in force and every port
    /// open.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn start(topology: &Topology, desired: &DesiredState, options: SwitchOptions) -> Result<Self> {
        Self::start_with(topology, desired, options, &mut vswitch::worker::on_thread)
    }

    /// The same with the worker turned by hand.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn by_hand(
        topology: &Topology,
        desired: &DesiredState,
        options: SwitchOptions,
    ) -> Result<(Self, ByHand)> {
        let mut hand = None;
        let switch = Self::start_with(topology, desired, options, &mut |worker| {
            hand = Some(ByHand::turning(worker));
            Ok(None)
        })?;
        hand.map(|hand| (switch, hand)).ok_or_else(|| Error::setup("start the engine", "it has no worker"))
    }

    fn start_with(
        topology: &Topology,
        desired: &DesiredState,
        options: SwitchOptions,
        start: &mut (
                 dyn FnMut(Worker) -> Result<Option<JoinHandle<()>>, vswitch::worker::WorkerError> + Send
             ),
    ) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::setup("start the engine", error);
        let state = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let state = state.map_err(|error| failed(&error))?;
        let name = |name: &str| PortName::new(name).map_err(|error| failed(&error));
        let config = Config {
            uplinks: if topology.remote.is_some() { vec![name(UPLINK)?] } else { Vec::new() },
            cores: options.core.into_iter().collect(),
            poll: options.poll,
            flows: options.flows,
            frames: options.frames,
            state_file: state.path().join("engine.state"),
            ..Config::default()
        };
        let devices = KernelDevices::new(options.frames).map_err(|error| failed(&error))?;
        let engine = topology
            .switch
            .enter(|| Engine::start_with(config, Box::new(devices), true, start))?
            .map_err(|error| failed(&error))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(|error| failed(&error))?;
        let mut switch = Self { engine, runtime, topology: topology.clone(), generation: 0, _state: state };
        switch.apply(desired)?;
        switch.wait_for_underlay()?;
        Ok(switch)
    }

    /// Brings a state into force: every port of it is open then.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] with the engine's own words.
    pub fn apply(&mut self, desired: &DesiredState) -> Result<()> {
        self.generation += 1;
        let desire = Desire::Full(Box::new(desired.clone()));
        let applied = self.runtime.block_on(self.engine.applier().apply(Generation(self.generation), desire));
        applied.map_err(|error| Error::setup("bring the state into force", error))?;
        let failed = &self.engine.shared().snapshot.load().ports.failed;
        match failed.iter().next() {
            None => Ok(()),
            Some((port, reason)) => Err(Error::setup(format!("open port {port}"), reason)),
        }
    }

    /// Tunnels work once the kernel has said how to reach their ends, and the worker knows.
    fn wait_for_underlay(&self) -> Result<()> {
        let shared = self.engine.shared();
        let wanted = self.topology.remote.as_ref().map_or(0, |remote| remote.addresses.len());
        let start = Instant::now();
        loop {
            let snapshot = shared.snapshot.load();
            let hops = &snapshot.facts.hops;
            let known = hops.values().filter(|hop| hop.is_ok()).count();
            let in_force = shared.generation_in_force(&snapshot) == snapshot.tables.generation;
            if known >= wanted && in_force {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let cause = format!("{known} of {wanted} remote ends are resolved: {hops:?}");
                return Err(Error::setup("learn the underlay", cause));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The engine itself.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What it runs on.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What it counted so far.
    #[must_use]
    pub fn counts(&self) -> SwitchCounts {
        let shared = self.engine.shared();
        let snapshot = shared.snapshot.load();
        let mut all = SwitchCounts::default();
        for open in snapshot.ports.open.values() {
            let counts = Counts::of(&shared.workers, open.index).since(&open.before);
            all.received += counts.rx.0;
            all.sent += counts.sent();
            for (reason, count) in DropReason::ALL.iter().zip(counts.drops).filter(|(_, count)| *count > 0) {
                *all.drops.entry(reason.key()).or_default() += count;
            }
        }
        all.flows_created = shared.workers.iter().map(|worker| worker.counters.flows_created.get()).sum();
        all
    }

    /// What its sockets count: packets lost before the engine saw them, or after it had handed them over. The worker has
    /// to turn meanwhile.
    #[must_use]
    pub fn statistics(&self) -> PortStatistics {
        let all = reports(&self.engine.shared().workers);
        let each = all.into_iter().map(|(_, PortReport { statistics, .. })| statistics);
        each.fold(PortStatistics::default(), PortStatistics::plus)
    }

    /// Stops the engine, and gives its account. The worker has to turn meanwhile.
    pub fn stop(&mut self) -> Option<FinalReport> {
        self.engine.stop()
    }
}

/// Turns a worker: on a thread of its own while anything is asked of the engine, on the caller's while it is measured.
pub struct ByHand {
    mine: Option<Worker>,
    theirs: Option<JoinHandle<Option<Worker>>>,
    wanted: Arc<AtomicBool>,
}

impl std::fmt::Debug for ByHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByHand").field("mine", &self.mine.is_some()).finish_non_exhaustive()
    }
}

impl ByHand {
    fn turning(worker: Worker) -> Self {
        let mut hand = Self { mine: Some(worker), theirs: None, wanted: Arc::default() };
        hand.release();
        hand
    }

    /// The worker, for the caller to turn. Until [`ByHand::release`] the engine does not answer.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when the engine has stopped.
    pub fn take(&mut self) -> Result<&mut Worker> {
        if let Some(thread) = self.theirs.take() {
            self.wanted.store(true, Ordering::Relaxed);
            self.mine = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        self.mine.as_mut().ok_or_else(|| Error::setup("turn the worker", "it has ended"))
    }

    /// Has it turned by a thread again, so that the engine answers, and can stop.
    pub fn release(&mut self) {
        let Some(mut worker) = self.mine.take() else { return };
        self.wanted.store(false, Ordering::Relaxed);
        let wanted = Arc::clone(&self.wanted);
        self.theirs = Some(std::thread::spawn(move || {
            while !wanted.load(Ordering::Relaxed) {
                match worker.step() {
                    ControlFlow::Continue(true) => {}
                    // There may be one core only, and somebody waits for it.
                    ControlFlow::Continue(false) => std::thread::yield_now(),
                    ControlFlow::Break(reply) => {
                        worker.end(&reply);
                        return None;
                    }
                }
            }
            Some(worker)
        }));
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // Whoever stops the engine afterwards needs it to turn; the thread ends with it.
        self.release();
    }
}
