//! The compiler thread: from what control wants and what the kernel says to tables that the workers run.
//!
//! It alone changes the desired state, the ports and the tables. A change comes into force in this order, and is
//! acknowledged at its end:
//!
//! 1. judged: the state it leads to is whole, or everything stays as it was;
//! 2. ports that are new are opened, and given to a worker (what comes by them is dropped: no table knows them);
//! 3. tables are compiled and published, and every worker runs them;
//! 4. ports that are no more wanted are closed; uplinks and the kernel are told what is ours now;
//! 5. the state is saved.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;
use vswitch_datapath::policy::View;
use vswitch_datapath::tables::Revision;
use vswitch_datapath::{CompileError, CompileInputs, Hop, PortMap, Tables, Underlay, compile};
use vswitch_model::{DesiredState, Generation, Invalid, PortName, Rule, RuleId};

use super::devices::{Device, Devices};
use super::ports::{Ports, wanted};
use super::shared::{Shared, Snapshot};
use super::{Desire, STOP, StartError};
use crate::netlink::{Facts, Follower};
use crate::saved::{SavedError, StateFile};
use crate::worker::Published;

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
    desired: Arc<DesiredState>,
    generation: Generation,
    /// The generation of the tables before the newest.
    generation_before: Generation,
    tables: Arc<Tables>,
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
            desired: Arc::default(),
            generation: Generation(0),
            generation_before: Generation(0),
            tables: Arc::new(Tables::empty()),
            compiled: (PortMap::new(), Underlay::default()),
            retired: Vec::new(),
            history: VecDeque::with_capacity(HISTORY + 1),
            ports: Ports::default(),
            facts: Arc::default(),
            save_error: None,
            steer_error: None,
            restored: false,
            looked: Instant::now(),
        }
    }

    /// Takes up the saved state. A damaged file is set aside, and the engine starts as if there were none.
    pub(super) fn restore(&mut self) {
        match self.saved.load() {
            Ok(None) => {}
            Ok(Some((generation, desired))) => {
                tracing::info!(%generation, pods = desired.ports.len(), "state restored from disk");
                self.generation = generation;
                self.desired = Arc::new(desired);
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

    /// Opens the uplinks and the host port: one that is not there is an error of the configuration.
    pub(super) fn open_configured(&mut self) -> Result<(), StartError> {
        let configured = wanted(&self.shared.config, &DesiredState::default());
        self.ports.open_missing(&configured, self.devices.as_mut(), &self.shared.workers);
        match self.ports.failed.first_key_value() {
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
        if let Err(error) = self.bring_into_force(self.generation, Arc::clone(&self.desired)) {
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

    fn apply(&mut self, generation: Generation, desire: Desire) -> Result<Applied, ApplyError> {
        let current = self.generation;
        let desired = match desire {
            Desire::Full(state) => *state,
            Desire::Delta(delta) if delta.base != current => {
                return Err(ApplyError::ResyncNeeded { base: delta.base, current });
            }
            Desire::Delta(delta) => {
                let mut state = DesiredState::clone(&self.desired);
                delta.changes.into_iter().for_each(|change| state.apply(change));
                state
            }
        };
        let repeated = generation == current && desired == *self.desired;
        if generation <= current && !repeated {
            return Err(ApplyError::Generation { generation, current });
        }
        self.check(&desired)?;
        let outcome = if repeated {
            self.retry_ports();
            Ok(())
        } else {
            self.bring_into_force(generation, Arc::new(desired))
        };
        // Also when a worker is late: it is published, and sent again it would be no change.
        if self.generation != current || self.save_error.is_some() {
            self.save();
        }
        outcome?;
        self.restored = false;
        self.all_run(IN_FORCE)?;
        Ok(Applied { generation, failed_ports: self.failed_pods() })
    }

    /// What [`DesiredState::check`] cannot know: this engine's own ports.
    fn check(&self, desired: &DesiredState) -> Result<(), Invalid> {
        desired.check()?;
        let config = &self.shared.config;
        for name in config.uplinks.iter().chain([&config.host_port]) {
            if desired.ports.contains_key(name) {
                let problem = "is the name of an uplink or of the host port of this node";
                return Err(Invalid::new(format!("ports[{name}].name"), problem));
            }
        }
        let own = config.uplinks.len() + 1;
        if desired.ports.len() + own > vswitch_model::limits::PORTS_MAX {
            let most = vswitch_model::limits::PORTS_MAX - own;
            let problem =
                format!("{} of them, but at most {most} beside this node's own", desired.ports.len());
            return Err(Invalid::new("ports", problem));
        }
        Ok(())
    }

    fn failed_pods(&self) -> BTreeMap<PortName, String> {
        let pods = self.ports.failed.iter().filter(|(name, _)| self.desired.ports.contains_key(*name));
        pods.map(|(name, reason)| (name.clone(), reason.clone())).collect()
    }

    /// Steps 2 to 4 of the module's documentation. An error leaves everything as it was.
    fn bring_into_force(
        &mut self,
        generation: Generation,
        desired: Arc<DesiredState>,
    ) -> Result<(), ApplyError> {
        let wanted = wanted(&self.shared.config, &desired);
        let opened = self.ports.open_missing(&wanted, self.devices.as_mut(), &self.shared.workers);
        if let Err(error) = self.publish(generation, &desired) {
            for name in opened.iter().filter(|name| !self.desired.ports.contains_key(*name)) {
                self.ports.close(name, &self.shared.workers);
            }
            return Err(error.into());
        }
        self.generation = generation;
        self.desired = desired;
        let in_force = self.all_run(IN_FORCE);
        self.ports.close_extra(&wanted, &self.shared.workers);
        self.steer(&wanted);
        if let Some(follower) = &self.follower {
            follower.want(self.wanted_of_kernel());
        }
        in_force
    }

    fn publish(&mut self, generation: Generation, desired: &DesiredState) -> Result<(), CompileError> {
        let ports = self.ports.map(desired, &self.facts);
        let underlay = self.underlay();
        let revision = Revision(self.tables.revision.0 + 1);
        let inputs = CompileInputs { generation, revision, desired, ports: &ports, underlay: &underlay };
        let mut tables = compile(&inputs)?;
        tables.follow(&self.tables);
        let tables = Arc::new(tables);
        for refused in tables.policy.refused().iter().filter(|r| !self.tables.policy.refused().contains(r)) {
            let (error, pods) = (&refused.error, refused.subjects.len());
            match refused.view {
                View::InForce => {
                    tracing::error!(%error, pods, "policy is too large; the pods it selects are denied everything");
                }
                View::Staged => tracing::error!(%error, pods, "what is staged is too large to be judged"),
            }
        }
        self.compiled = (ports, underlay);
        self.count_rules(desired, revision);
        self.published.publish(&tables);
        self.history.push_back((revision, generation));
        self.history.drain(..self.history.len().saturating_sub(HISTORY));
        self.generation_before = self.tables.generation;
        self.retired.push(std::mem::replace(&mut self.tables, tables));
        self.shared.workers.iter().for_each(crate::worker::Handle::wake);
        Ok(())
    }

    /// Makes room for what the rules of `desired` will have done, and begins anew where a number means another rule than
    /// before. Rules are the same where their place in their policy is.
    fn count_rules(&self, desired: &DesiredState, revision: Revision) {
        let rules = desired.policies.values().flat_map(|policy| &policy.rules);
        let last = rules.map(|rule| rule.id).max().unwrap_or_default();
        let tallies = || self.shared.workers.iter().map(|worker| &worker.counters.rules);
        tallies().for_each(|tallies| tallies.reserve(last.max(RuleId(RuleId::FIRST_ASSIGNED))));
        for (id, policy) in &desired.policies {
            let before = self.desired.policies.get(id);
            if before == Some(policy) {
                continue;
            }
            let before = before.filter(|before| before.name == policy.name);
            let places: BTreeMap<RuleId, &str> = before
                .iter()
                .flat_map(|before| &before.rules)
                .map(|rule| (rule.id, rule.position.as_str()))
                .collect();
            let is_new = |rule: &&Rule| places.get(&rule.id) != Some(&rule.position.as_str());
            for rule in policy.rules.iter().filter(is_new) {
                tallies().for_each(|tallies| tallies.begin(rule.id, revision));
            }
        }
    }

    /// Waits until every worker runs the newest tables, and frees the ones before.
    fn all_run(&mut self, patience: Duration) -> Result<(), ApplyError> {
        let deadline = Instant::now() + patience;
        let behind = |revision| self.shared.workers.iter().any(|worker| worker.status.revision() < revision);
        while behind(self.tables.revision) {
            if Instant::now() > deadline {
                return Err(ApplyError::NotInForce(self.tables.generation));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        self.retired.clear();
        Ok(())
    }

    /// Looks again at everything that may have changed by itself or can be tried again.
    fn refresh(&mut self) {
        let looked_long_ago = self.looked.elapsed() >= LOOK;
        if looked_long_ago || self.ports.open.values().any(|open| self.vanished(&open.device)) {
            self.looked = Instant::now();
            self.ports.close_gone(&self.shared.workers);
        }
        self.retry_ports();
        let now = (self.ports.map(&self.desired, &self.facts), self.underlay());
        if now != self.compiled
            && let Err(error) = self.publish(self.generation, &Arc::clone(&self.desired))
        {
            tracing::error!(%error, "the underlay changed, but there are no tables for it");
        }
        self.all_run(IN_FORCE).ok();
        if self.save_error.is_some() {
            self.save();
        }
        if self.steer_error.is_some() {
            self.steer(&wanted(&self.shared.config, &self.desired));
        }
        self.show();
    }

    fn retry_ports(&mut self) {
        let wanted = wanted(&self.shared.config, &self.desired);
        let opened = self.ports.open_missing(&wanted, self.devices.as_mut(), &self.shared.workers);
        if !opened.is_empty()
            && let Err(error) = self.publish(self.generation, &Arc::clone(&self.desired))
        {
            tracing::error!(%error, "ports came back, but there are no tables for them");
        }
    }

    /// Whether the kernel's last description lacks the interface of a port.
    fn vanished(&self, device: &Device) -> bool {
        let (Device::Pod { interface, netns: None }
        | Device::Uplink { interface }
        | Device::Host { interface }) = device
        else {
            return false;
        };
        !self.facts.links.is_empty() && !self.facts.links.contains_key(interface.as_str())
    }

    /// The underlay with uplinks by number. Ways by an uplink that is not open are left out.
    fn underlay(&self) -> Underlay {
        let hops = self.facts.hops.iter().filter_map(|(remote, hop)| {
            let hop = hop.as_ref().ok()?;
            let port = self.ports.uplink(&hop.interface)?;
            let mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
            Some((*remote, Hop { port, dst_mac: hop.destination, src_mac: hop.source, mtu }))
        });
        Underlay { hops: hops.collect(), local_addresses: self.facts.local_addresses.clone() }
    }

    fn steer(&mut self, wanted: &BTreeMap<PortName, Device>) {
        let (prefixes, tunnels) = super::kernel::ours(&self.desired, wanted);
        let outcome = self.devices.steer(&prefixes, &tunnels).map_err(|error| error.to_string());
        if let Err(error) = &outcome {
            tracing::error!(%error, "uplinks are not steered as they should be");
        }
        self.steer_error = outcome.err();
    }

    fn wanted_of_kernel(&self) -> crate::netlink::Wanted {
        super::kernel::wanted(&self.shared.config, &self.desired)
    }

    fn save(&mut self) {
        let outcome = self.saved.save(self.generation, &self.desired).map_err(|error| error.to_string());
        if let Err(error) = &outcome
            && self.save_error.as_ref() != Some(error)
        {
            tracing::error!(%error, "the state is in force, but not on disk; it is tried again");
        }
        self.save_error = outcome.err();
    }

    /// Lets other threads see the state of now.
    fn show(&self) {
        self.shared.snapshot.store(Arc::new(Snapshot {
            generation: self.generation,
            generation_before: self.generation_before,
            desired: Arc::clone(&self.desired),
            tables: Arc::clone(&self.tables),
            ports: self.ports.clone(),
            facts: Arc::clone(&self.facts),
            save_error: self.save_error.clone(),
            steer_error: self.steer_error.clone(),
            restored: self.restored,
            history: self.history.clone(),
            ..Snapshot::empty()
        }));
    }

    /// Stops the workers and closes what they had: afterwards every frame is free.
    fn stop(&mut self) {
        self.follower = None;
        for worker in &self.shared.workers {
            drop(worker.stop(STOP));
        }
    }
}
