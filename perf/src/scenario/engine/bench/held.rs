//! An engine whose one worker is turned by hand, on ports in memory.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vswitch::engine::{Counts, Desire, Engine};
use vswitch::io::Umem;
use vswitch::worker::Worker;
use vswitch_datapath::{Counters, Tables};
use vswitch_model::{Change, Delta, DesiredState, Generation, PortName};

use super::super::wire::{WireDevices, Wires};
use crate::workload::Node;
use crate::{Error, Result};

/// Frames of the ports' memory: less than the second-level cache, as a busy engine keeps reusing the same ones.
const FRAMES: usize = 1024;
/// The name of the engine's thread that makes tables of what it is told.
const COMPILER: &str = "compiler";
/// How long that thread may take to fall asleep once it has answered.
const ASLEEP: Duration = Duration::from_secs(1);

/// An engine, its worker in our hand.
pub struct Held {
    engine: Engine,
    hand: Hand,
    /// None: it has ended.
    pub worker: Option<Worker>,
    /// The far ends of its ports.
    pub wires: Wires,
    generation: Generation,
    /// `/proc/self/task/TID` of the compiler; of other engines' too when they were started in the same moment.
    compiler: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Held {
    /// Starts an engine for `node` with room for `flows` flows, and brings `desired` into force.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn start(node: &Node, flows: u64, desired: DesiredState) -> Result<Self> {
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
        let others = compilers();
        let engine = Engine::start_with(node.config(folder.path(), flows), devices, false, &mut lend)
            .map_err(|e| failed(&e))?;
        engine.tell_facts(node.facts());
        let (worker, generation, compiler) = (hand.take(), Generation(0), Vec::new());
        let mut held = Self { engine, hand, worker, wires, generation, compiler, _folder: folder };
        held.bring_into_force(Desire::Full(Box::new(desired)))?;
        // It has its name by now: threads give it to themselves.
        held.compiler = compilers().difference(&others).cloned().collect();
        Ok(held)
    }

    /// Brings changes into force; gives what the engine's compiler thread took of a core for it, from their arrival to
    /// the answer that the worker runs them and they are saved.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn change(&mut self, changes: Vec<Change>) -> Result<Duration> {
        let before = self.compiler_time();
        self.bring_into_force(Desire::Delta(Delta { base: self.generation, changes }))?;
        Ok(self.compiler_time().saturating_sub(before))
    }

    /// Brings a state into force while `turn` turns the worker, again and again until the engine has answered.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn load_while(&mut self, desired: DesiredState, mut turn: impl FnMut(&mut Worker)) -> Result<()> {
        let worker = self.worker.as_mut().ok_or_else(|| failed(&"its worker has ended"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| failed(&e))?;
        let (next, applier) = (Generation(self.generation.0 + 1), self.engine.applier());
        let applied = std::thread::scope(|scope| {
            let desire = Desire::Full(Box::new(desired));
            let asking = scope.spawn(move || runtime.block_on(applier.apply(next, desire)));
            while !asking.is_finished() {
                turn(worker);
            }
            asking.join()
        });
        self.generation = next;
        match applied {
            Ok(outcome) => outcome.map(drop).map_err(|e| failed(&e)),
            Err(_) => Err(failed(&"who asked panicked")),
        }
    }

    /// What the compiler thread has taken of a core since it was started.
    #[must_use]
    pub fn compiler_time(&self) -> Duration {
        self.compiler.iter().map(|thread| cpu_time_asleep(thread)).sum()
    }

    fn bring_into_force(&mut self, desire: Desire) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| failed(&e))?;
        let next = Generation(self.generation.0 + 1);
        // The engine waits until the worker runs the tables.
        if let Some(worker) = self.worker.take() {
            self.hand.lend(worker);
        }
        let applied = runtime.block_on(self.engine.applier().apply(next, desire));
        self.worker = self.hand.take();
        let applied = applied.map_err(|e| failed(&e))?;
        self.generation = next;
        match applied.failed_ports.first_key_value() {
            Some((port, reason)) => Err(failed(&format!("port {port}: {reason}"))),
            None => Ok(()),
        }
    }

    /// What a port has counted; None when there is none of this name.
    #[must_use]
    pub fn counts(&self, port: &PortName) -> Option<Counts> {
        let shared = self.engine.shared();
        let index = shared.snapshot.load().ports.open.get(port)?.index;
        Some(Counts::of(&shared.workers, index))
    }

    /// What the worker counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.engine.shared().workers[0].counters)
    }

    /// The tables in force.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.engine.shared().snapshot.load().tables)
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::setup("start an engine in memory", error)
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.hand.lend(worker);
            // It ends while it is lent.
            self.engine.stop();
            self.hand.take();
        }
    }
}

/// The compiler threads of this process.
fn compilers() -> BTreeSet<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == COMPILER)
    };
    tasks.map(|task| task.path()).filter(is_one).collect()
}

/// What a thread took of a core so far: the first figure of its schedstat, which is exact once the thread sleeps.
fn cpu_time_asleep(thread: &std::path::Path) -> Duration {
    let read = |file| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
    let start = Instant::now();
    // `TID (NAME) STATE ...`, proc_pid_stat(5).
    let is_awake = || read("stat").rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R'));
    while is_awake() && start.elapsed() < ASLEEP {
        std::thread::yield_now();
    }
    let ns = read("schedstat").split_whitespace().next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
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
