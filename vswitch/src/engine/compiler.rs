//! The compiler thread: from what control wants and what the kernel says to tables that the workers run.
//!
//! What a change does not touch is not looked at again: its cost is that of what it touches, but for some lists that are
//! copied whole. What is sent whole is compiled anew.
//!
//! It alone changes the desired state, the ports and the tables. A change comes into force in this order, and is
//! acknowledged at its end:
//!
//! 1. judged: the state it leads to is whole, or everything stays as it was;
//! 2. ports that are new are opened, and given to a worker (what comes by them is dropped: no table knows them);
//! 3. tables are compiled and published, and every worker runs them;
//! 4. ports that are no more wanted are closed; uplinks and the kernel are told what is ours now;
//! 5. the state is saved.

mod apply;
mod publish;
mod refresh;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{CompileError, Compiler as TableMaker, PortMap, Tables, Underlay};
use vswitch_model::{DesiredState, Generation, Invalid, PortName};

use super::desired::Desired;
use super::devices::Devices;
use super::full::Watch;
use super::ports::{Ports, wanted};
use super::shared::Shared;
use super::{Desire, STOP, StartError};
use crate::netlink::{Facts, Follower};
use crate::saved::{SavedError, StateFile};
use crate::worker::{Command, Published};

/// How long workers may take to run new tables before the caller is told that they do not.
const IN_FORCE: Duration = Duration::from_secs(5);
/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Tables whose generation is remembered, for flows that were judged by them.
const HISTORY: usize = 256;
/// How often it is looked whether the ports' devices are still there.
const LOOK: Duration = Duration::from_secs(5);

/// What the compiler is asked.
pub(super) enum Request {
    Apply {
        generation: Generation,
        desire: Desire,
        reply: oneshot::Sender<Result<Applied, ApplyError>>,
    },
    Facts(Box<Facts>),
    /// Stop the workers and close everything.
    Stop(Sender<()>),
}

/// A change that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What every worker runs.
    pub generation: Generation,
    /// Ports that are desired and could not be opened, with the reason. They are tried again.
    pub failed_ports: BTreeMap<PortName, String>,
}

/// Why a change is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A delta from another generation than the engine's.
    #[error("the delta starts from generation {base}, but the engine has {current}: send the whole state")]
    ResyncNeeded {
        /// Where the delta starts.
        base: Generation,
        /// What the engine has.
        current: Generation,
    },
    /// A generation that does not follow the engine's.
    #[error(
        "generation: {generation} with other content does not follow the engine's {current}; a larger one would"
    )]
    Generation {
        /// What was sent.
        generation: Generation,
        /// What the engine has.
        current: Generation,
    },
    /// The state is not whole.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The state is beyond a stated limit.
    #[error(transparent)]
    TooLarge(#[from] CompileError),
    /// A worker does not take the tables. They stay published.
    #[error("generation {0} is published, but a worker does not run it yet")]
    NotInForce(Generation),
    /// The engine is stopping.
    #[error("the engine is stopping")]
    Stopping,
}

pub(super) struct Compiler {
    shared: Arc<Shared>,
    devices: Box<dyn Devices>,
    published: Arc<Published>,
    saved: StateFile,
    requests: Receiver<Request>,
    follower: Option<Follower>,
    desired: Desired,
    generation: Generation,
    /// The generation of the tables before the newest.
    generation_before: Generation,
    tables: Arc<Tables>,
    maker: TableMaker,
    /// What the tables were compiled from besides the desired state.
    compiled: (PortMap, Underlay),
    /// Tables that a worker may still run.
    retired: Vec<Arc<Tables>>,
    history: VecDeque<(Revision, Generation)>,
    ports: Ports,
    facts: Arc<Facts>,
    save_error: Option<String>,
    steer_error: Option<String>,
    restored: bool,
    looked: Instant,
    full: Watch,
}

impl Compiler {
    pub(super) fn new(
        shared: Arc<Shared>,
        devices: Box<dyn Devices>,
        published: Arc<Published>,
        saved: StateFile,
        requests: Receiver<Request>,
    ) -> Self {
        Self {
            shared,
            devices,
            published,
            saved,
            requests,
            follower: None,
            desired: Desired::default(),
            generation: Generation(0),
            generation_before: Generation(0),
            tables: Arc::new(Tables::empty()),
            maker: TableMaker::new(),
            compiled: (PortMap::new(), Underlay::default()),
            retired: Vec::new(),
            history: VecDeque::with_capacity(HISTORY + 1),
            ports: Ports::default(),
            facts: Arc::default(),
            save_error: None,
            steer_error: None,
            restored: false,
            looked: Instant::now(),
            full: Watch::default(),
        }
    }

    /// Takes up the saved state. A damaged file is set aside, and the engine starts as if there were none.
    pub(super) fn restore(&mut self) {
        match self.saved.load() {
            Ok(None) => {}
            Ok(Some((generation, desired))) => {
                tracing::info!(%generation, pods = desired.ports.len(), "state restored from disk");
                self.generation = generation;
                self.desired = Desired::new(desired);
                self.restored = true;
            }
            Err(error) => {
                tracing::error!(%error, "starting without the saved state");
                if matches!(error, SavedError::Damaged { .. }) {
                    match self.saved.set_aside() {
                        Ok(path) => tracing::error!(path = %path.display(), "the damaged file was set aside"),
                        Err(error) => tracing::error!(%error, "the damaged file stays"),
                    }
                }
            }
        }
    }

    /// Opens the uplinks and the host port, without which there is nothing to start. An uplink that is not there may come,
    /// and pods reach each other meanwhile: it is tried again.
    pub(super) fn open_configured(&mut self) -> Result<(), StartError> {
        let configured = wanted(&self.shared.config, &DesiredState::default());
        self.ports.open_missing(&configured, self.devices.as_mut(), &self.shared.workers);
        match self.ports.failed.get_key_value(&self.shared.config.host_port) {
            Some((port, reason)) => Err(StartError::Port { port: port.to_string(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Follows the kernel from now on, and waits for what it says first.
    pub(super) fn follow(&mut self, requests: Sender<Request>, patience: Duration) -> Result<(), StartError> {
        let tell = move |facts| drop(requests.send(Request::Facts(Box::new(facts))));
        self.follower = Some(Follower::start(self.wanted_of_kernel(), tell)?);
        // Nobody else has a sender yet: what comes are facts.
        match self.requests.recv_timeout(patience) {
            Ok(Request::Facts(facts)) => self.facts = Arc::from(facts),
            _ => tracing::warn!("the kernel has not described the underlay yet; tunnels come up when it has"),
        }
        Ok(())
    }

    /// Brings the state of the start into force.
    pub(super) fn start(&mut self) {
        let desired = Arc::clone(self.desired.now());
        if let Err(error) = self.bring_into_force(self.generation, desired, None) {
            tracing::error!(%error, "the state of the start is not in force");
        }
        self.show();
    }

    pub(super) fn run(mut self) {
        let stopped = loop {
            match self.requests.recv_timeout(self.patience()) {
                Ok(Request::Apply { generation, desire, reply }) => {
                    let outcome = self.apply(generation, desire);
                    self.show();
                    // Whoever asked may have gone away; the state is in force all the same.
                    reply.send(outcome).ok();
                }
                Ok(Request::Facts(facts)) => {
                    self.tell_of_uplinks(&facts);
                    self.facts = Arc::from(facts);
                    self.refresh();
                }
                Err(RecvTimeoutError::Timeout) => self.refresh(),
                Ok(Request::Stop(reply)) => break Some(reply),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        self.stop();
        if let Some(reply) = stopped {
            reply.send(()).ok();
        }
    }

    fn patience(&self) -> Duration {
        let failed = !self.ports.failed.is_empty() || self.save_error.is_some() || self.steer_error.is_some();
        if failed || !self.retired.is_empty() { RETRY } else { LOOK }
    }

    /// Stops the workers and closes what they had: afterwards every frame is free.
    fn stop(&mut self) {
        self.follower = None;
        // First nobody hands anything over, then nobody has anything to come.
        for worker in &self.shared.workers {
            worker.ask(Command::Retire, STOP).ok();
        }
        for worker in &self.shared.workers {
            drop(worker.stop(STOP));
        }
    }
}
