//! Workers: pinned threads that own their ports and their walk.
//!
//! ```text
//! loop (a turn)
//!   adopt    newest tables, when there are newer ones        one atomic load
//!   obey     commands of other threads                       one atomic load while there is none
//!   release  held answers of DNS, when there are some        one branch while there is none
//!   take     what other workers handed over                  one branch while there are none
//!   visit    hot ports, a few cold ones; a batch is walked and sent when it is full, and at the end
//!   flush    one kick for each port that was sent to
//!   unwatch  ports that have had much, until the next sleep  one branch while there is none
//!   limit    packets that belong to no known flow            one branch while it is not behind
//!   rest     nothing came for a while (adaptive): sleep until a port or another thread wakes us
//! ```
//!
//! Nothing in a turn allocates, locks, logs, or makes a system call for each packet. Other threads reach a worker by its
//! [`Handle`]: commands over a bounded channel, tables by [`Published`], and what it counts by atomics it alone writes.

mod behind;
mod bell;
/// What [`doze`] is made of; its test has others.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}
mod command;
mod doze;
mod held;
mod lane;
mod peers;
mod ports;
mod rest;
mod share;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded};
use vswitch_datapath::counters::Counter;
use vswitch_datapath::segment::PIECES_MAX;
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{BATCH, Counters, Output, Packet, Tables, Walk, WalkConfig};
use vswitch_model::limits::PORTS_MAX;

use crate::config::Poll;
use crate::io::{Frame, FramePool, LARGE_BUDGET};

use behind::{Backlog, Judged};
use bell::Bell;
pub use bell::Ear;
pub use command::{Command, FlowChunk, PortChunk, PortReport, Stopped};
use held::HeldAnswers;
use peers::Peers;
pub use peers::{Place, owner, places};
use ports::WorkerPorts;
use rest::{Rest, Waker};

/// Commands that may wait for a worker.
const COMMANDS_MAX: usize = 64;
/// Frames a worker holds ready for what the walk builds: fragments, and segments of the large packets of one visit. A sixteenth
/// of its share if that is less, where packets may be large an eighth, but no fewer than the least.
const SPARE: usize = LARGE_BUDGET * PIECES_MAX;
const SPARE_MIN: usize = 64;
/// Large frames it holds ready to coalesce packets into, unless there are [few](FramePool::large_aside).
const LARGE_SPARE: usize = 16;

/// What a worker is started with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its number, from 0.
    pub number: usize,
    /// The core it is pinned to. None: where the kernel puts it.
    pub core: Option<usize>,
    /// What it does when no packet waits.
    pub poll: Poll,
    /// Sizes of its walk.
    pub walk: WalkConfig,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The kernel gave no thread, or no descriptor to wake it by.
    #[error("worker {number}: cannot start: {cause}")]
    Start {
        /// Which worker.
        number: usize,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// It could not be pinned.
    #[error("worker {number}: cannot be pinned to core {core}")]
    Pin {
        /// Which worker.
        number: usize,
        /// The core.
        core: usize,
    },
    /// It does not take commands: it has ended, or does not come round to them.
    #[error("worker {number} does not answer")]
    Silent {
        /// Which worker.
        number: usize,
    },
}

/// The tables in force, from the compiler to all workers.
#[derive(Debug)]
pub struct Published {
    tables: ArcSwap<Tables>,
    /// The revision of `tables`, stored after them: what a worker looks at each turn.
    revision: AtomicU64,
}

impl Published {
    /// Publishes empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self { tables: ArcSwap::from_pointee(Tables::empty()), revision: AtomicU64::new(0) }
    }

    /// Replaces the tables. Whoever calls keeps the ones before until every worker runs the new ones, so that no worker
    /// is ever the one to free tables.
    pub fn publish(&self, tables: &Arc<Tables>) {
        self.tables.store(Arc::clone(tables));
        self.revision.store(tables.revision.0, Ordering::Release);
    }
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

/// What a worker tells of itself. It alone writes.
#[derive(Debug, Default)]
pub struct Status {
    /// The revision it runs.
    revision: AtomicU64,
    /// Turns so far.
    pub turns: Counter,
    /// Of these, turns in which nothing came.
    pub turns_idle: Counter,
    /// Times it slept.
    pub sleeps: Counter,
    /// Frames it holds between two turns, see [`Status::held`].
    held: AtomicI64,
    /// Flows it follows.
    flows: AtomicU64,
}

impl Status {
    /// The tables it runs: nothing of earlier ones is used any more.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// Frames it holds between two turns, and those it handed to other workers less those it was handed: the sum over all
    /// workers is what they hold.
    #[must_use]
    pub fn held(&self) -> i64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Flows it follows, as of its last turn.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }
}

/// One worker, as other threads see it. Dropping it ends the worker.
#[derive(Debug)]
pub struct Handle {
    /// What it was started with.
    pub config: WorkerConfig,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// What it tells of itself.
    pub status: Arc<Status>,
    commands: Sender<Command>,
    waker: Waker,
    bell: Bell,
    /// None: somebody else runs it.
    thread: Mutex<Option<JoinHandle<()>>>,
    stopped: AtomicBool,
}

/// Runs workers: see [`on_thread`], which is how the daemon does it. A measurement may turn them by hand instead.
pub type Start<'a> = dyn FnMut(Worker) -> Result<Option<JoinHandle<()>>, WorkerError> + 'a;

/// Runs a worker on a thread of its own, pinned as its configuration says, until it is stopped.
///
/// # Errors
///
/// [`WorkerError::Start`], [`WorkerError::Pin`].
pub fn on_thread(worker: Worker) -> Result<Option<JoinHandle<()>>, WorkerError> {
    let (number, core) = (worker.config.number, worker.config.core);
    let (started, outcome) = bounded(1);
    let body = move || {
        if let Some(core) = core
            && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
        {
            return drop(started.send(Err(WorkerError::Pin { number, core })));
        }
        started.send(Ok(())).ok();
        worker.run();
    };
    let name = format!("worker-{number}");
    let failed = |cause| WorkerError::Start { number, cause };
    let thread = std::thread::Builder::new().name(name).spawn(body).map_err(failed)?;
    outcome.recv().map_err(|_| WorkerError::Silent { number })??;
    Ok(Some(thread))
}

impl Handle {
    /// Makes a worker that takes its frames from `pool`, and has it run by `start`.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Start`], and what `start` says.
    pub fn start(
        config: WorkerConfig,
        published: Arc<Published>,
        pool: FramePool,
        start: &mut Start<'_>,
    ) -> Result<Self, WorkerError> {
        let waker = Waker::new();
        let waker =
            waker.map_err(|errno| WorkerError::Start { number: config.number, cause: errno.into() })?;
        Self::start_at(config, published, pool, Place { waker, peers: None }, start)
    }

    /// The same for a worker among others, at one of their [`places`]. Its number is that of the place.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Start`], and what `start` says.
    pub fn start_at(
        config: WorkerConfig,
        published: Arc<Published>,
        pool: FramePool,
        place: Place,
        start: &mut Start<'_>,
    ) -> Result<Self, WorkerError> {
        let number = config.number;
        let failed = |cause| WorkerError::Start { number, cause };
        let Place { waker, peers } = place;
        let counters = Arc::new(Counters::new(PORTS_MAX));
        let status = Arc::new(Status::default());
        let (commands, receiver) = bounded(COMMANDS_MAX);
        let rest = Rest::new(config.poll, waker.clone()).map_err(|errno| failed(errno.into()))?;
        let bell = Bell::new().map_err(failed)?;
        let mut worker = Worker {
            config: config.clone(),
            walk: Walk::new(&config.walk, Arc::clone(&counters)),
            tables: published.tables.load_full(),
            published,
            commands: receiver,
            pool,
            ports: WorkerPorts::new(),
            batch: Vec::with_capacity(BATCH),
            pieces: 0,
            walked: 0,
            arrived: Vec::with_capacity(BATCH),
            peers,
            out: Output::new(SPARE),
            handed: Backlog::default(),
            judged: Judged::default(),
            held: HeldAnswers::new(),
            bell: bell.clone(),
            counters: Arc::clone(&counters),
            status: Arc::clone(&status),
            rest,
            start: Instant::now(),
            ticked: 0,
            due: 0,
        };
        worker.refill();
        let thread = start(worker)?;
        Ok(Self {
            config,
            counters,
            status,
            commands,
            waker,
            bell,
            thread: Mutex::new(thread),
            stopped: AtomicBool::new(false),
        })
    }

    /// Gives the worker a command and wakes it. Waits while too many are queued, at most `patience`.
    pub fn command(&self, command: Command, patience: Duration) -> Result<(), WorkerError> {
        let number = self.config.number;
        self.commands.send_timeout(command, patience).map_err(|_| WorkerError::Silent { number })?;
        self.wake();
        Ok(())
    }

    /// Ends a sleep, so that the worker looks at commands and tables now.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// An ear for the worker's bell, which it rings when it has told of an answer of DNS and the reader
    /// [sleeps](vswitch_datapath::DnsQueue::sleep).
    ///
    /// # Errors
    ///
    /// The kernel watches no more descriptors.
    pub fn ear(&self) -> std::io::Result<Ear> {
        self.bell.ear()
    }

    /// Lets a held answer of DNS go on, now.
    pub fn release_answer(&self, held: u64) {
        self.counters.dns.release(held);
        self.wake();
    }

    /// Asks something and waits for the answer, at most `patience`.
    pub fn ask<T>(
        &self,
        question: impl FnOnce(Sender<T>) -> Command,
        patience: Duration,
    ) -> Result<T, WorkerError> {
        let (reply, answer) = bounded(1);
        self.command(question(reply), patience)?;
        answer.recv_timeout(patience).map_err(|_| WorkerError::Silent { number: self.config.number })
    }

    /// Ends the worker and gives what it had. None when it had ended before.
    pub fn stop(&self, patience: Duration) -> Option<Stopped> {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return None;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stopped = self.ask(Command::Stop, patience).ok();
        if stopped.is_none() {
            tracing::error!(
                worker = self.config.number,
                "a worker does not end; its ports go with the process"
            );
        } else if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(worker = self.config.number, "a worker panicked");
        }
        stopped
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(5));
    }
}

/// One worker, as it sees itself: given to [`Start`], and run or turned by whoever has it.
pub struct Worker {
    config: WorkerConfig,
    walk: Walk,
    tables: Arc<Tables>,
    published: Arc<Published>,
    commands: Receiver<Command>,
    pool: FramePool,
    ports: WorkerPorts,
    batch: Vec<Packet<Frame>>,
    /// Pieces that the large packets in `batch` may be cut into, at most.
    pieces: usize,
    /// Packets walked so far.
    walked: u64,
    /// What a port has just received, when it is still to be seen whose flow it belongs to.
    arrived: Vec<Packet<Frame>>,
    /// The other workers. None: there are none, and every flow is ours.
    peers: Option<Box<Peers>>,
    out: Output<Frame>,
    /// What other workers hand over and we leave.
    handed: Backlog,
    judged: Judged,
    /// Answers of DNS that are to leave later.
    held: HeldAnswers,
    /// For who reads such answers.
    bell: Bell,
    counters: Arc<Counters>,
    status: Arc<Status>,
    rest: Rest,
    /// Where its clock starts.
    start: Instant,
    /// When flows were last looked at for having expired, in nanoseconds of its clock.
    ticked: u64,
    /// Flows still to be looked at for that.
    due: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("config", &self.config).finish_non_exhaustive()
    }
}
