//! The agent of one node.
//!
//! | file | what |
//! |---|---|
//! | here | [`Agent`]: what it consists of, starting it |
//! | `node` | this node's own object, and its own addresses |
//! | `engine`, `wanted` | the task that keeps the engine in step with the store |
//! | `attach` | attachments of pods: CNI |
//! | `objects`, `describe` | what people apply, list, delete, look at |
//! | `names` | what DNS tells of names that policies speak of |
//! | `explain`, `status` | why, and how it is |
//! | `server`, `socket` | the agent API over its unix socket |
//! | `underlay` | which of the node's addresses the others reach it by |
//!
//! State flows one way: store -> [`Reflector`] -> calculation -> engine. What the API changes, it changes in the store,
//! and where it has to know that the change is in force it waits for the engine's acknowledgement of a generation that
//! was calculated from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tonic::Status;
use tracing::debug;
use vswitch_model::{Dscp, PodTunnels, PortKind, Vni};

use crate::calc::{CalcConfig, Calculator, Question};
use crate::config::Field;
use crate::ipam::{self, Ipam};
use crate::store::{Reflector, Revisions, SharedStore, StoreError};

mod attach;
mod calico;
mod describe;
mod engine;
mod explain;
mod names;
mod node;
mod notes;
mod objects;
mod server;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod tiers;
mod wanted;

pub mod underlay;

pub use server::Service;
pub use socket::serve;
pub use underlay::Underlay;
pub use wanted::{Ports, Wanted};

/// How long a change that need not wait for the engine waits for it all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often idle blocks are looked for.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// What an agent has to know of its node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// How the other nodes reach it.
    pub underlay: Underlay,
    /// MTU of its pods, in bytes.
    pub pod_mtu: u16,
    /// The kind of port of pods, of which neither they nor their pool say anything.
    pub pod_port: PortKind,
    /// The VXLAN network of the cluster.
    pub vni: Vni,
    /// Its UDP port.
    pub vxlan_port: u16,
    /// The UDP port of flannel's VXLAN, for nodes that run flannel.
    pub flannel_port: u16,
    /// What becomes of the DSCP through tunnels.
    pub dscp: Dscp,
    /// Which tunnel packets pods may send of their own.
    pub pod_tunnels: PodTunnels,
    /// Where vswitchd listens.
    pub engine_socket: std::path::PathBuf,
    /// How long an address rests before it is assigned again.
    pub cool_down: Duration,
    /// Where what DNS has told is kept. None: nowhere.
    pub names_file: Option<std::path::PathBuf>,
    /// Whose answers count as DNS. Empty: those of any server that policy lets pods ask.
    pub dns_servers: Vec<IpNet>,
    /// All that was configured, for people who ask.
    pub shown: Vec<Field>,
}

/// UDP among the protocols of IP.
const UDP: u8 = 17;
/// IPv4 and IPv6 within IP (RFC 2003, RFC 4213).
const IP_IN_IP: [u8; 2] = [4, 41];

impl Settings {
    /// Whether pods may not send the packet asked about: of VXLAN, to the cluster's port. At flannel's port the engine knows.
    fn refuses_tunnel(&self, question: &Question) -> bool {
        let PodTunnels { vxlan, ipip } = self.pod_tunnels;
        match question.protocol {
            UDP => !vxlan && question.port == self.vxlan_port,
            other => !ipip && IP_IN_IP.contains(&other),
        }
    }

    fn calculator(&self) -> Calculator {
        let Self { vni, vxlan_port, flannel_port, dscp, pod_tunnels, pod_mtu: host_mtu, .. } = *self;
        let config = CalcConfig { vni, vxlan_port, flannel_port, dscp, pod_tunnels, host_mtu };
        Calculator::new(&self.node, config)
    }
}

/// What all parts of the agent share.
struct Core {
    settings: Settings,
    store: SharedStore,
    /// "embedded" or "etcd".
    store_kind: &'static str,
    reflector: Reflector,
    ipam: Ipam,
    engine: engine::Engine,
    names: names::Names,
    /// Endpoints are recorded one after another, so that each sees what the others have: those recorded here that the
    /// picture of the store does not hold yet.
    attaching: Mutex<attach::Recorded>,
    /// Why this node is not registered; None: it is.
    registration: watch::Sender<Option<String>>,
    started: Instant,
}

/// A running agent; it stops when it is dropped.
pub struct Agent {
    core: Arc<Core>,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Starts to follow `store`, to register the node, and to keep the engine in step. Must be called within a tokio
    /// runtime.
    #[must_use]
    pub fn start(
        settings: Settings,
        store: SharedStore,
        store_kind: &'static str,
        clock: ipam::Clock,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let reflector = Reflector::start(Arc::clone(&store));
        let (names, link, learn) = names::Names::start(names::NameSettings {
            engine_socket: settings.engine_socket.clone(),
            file: settings.names_file.clone(),
            servers: settings.dns_servers.clone(),
        });
        tasks.spawn(learn);
        let (engine, keep_in_step) = engine::Engine::start(
            settings.engine_socket.clone(),
            reflector.snapshots(),
            link,
            settings.calculator(),
        );
        tasks.spawn(keep_in_step);
        let core = Arc::new(Core {
            ipam: Ipam::new(Arc::clone(&store), &settings.node, settings.cool_down, clock),
            settings,
            store,
            store_kind,
            reflector,
            engine,
            names,
            attaching: Mutex::default(),
            registration: watch::Sender::new(Some("it has not been registered yet".to_owned())),
            started: Instant::now(),
        });
        tasks.spawn(node::keep_registered(Arc::clone(&core)));
        tasks.spawn(give_back_idle_blocks(Arc::clone(&core)));
        Self { core, _tasks: tasks }
    }

    /// The agent API, to be served.
    #[must_use]
    pub fn service(&self) -> Service {
        Service::new(Arc::clone(&self.core))
    }
}

async fn give_back_idle_blocks(core: Arc<Core>) {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        if core.reflector.current().stale.is_some() {
            continue;
        }
        if let Err(error) = core.ipam.give_back_idle().await {
            debug!(%error, "idle blocks are not given back now");
        }
    }
}

impl Core {
    /// Gives these changes, which are in the store, a moment to come into force on this node. An engine that is
    /// away is not waited for. Gives why it is not in force; None: it is.
    async fn settle(&self, changes: &Revisions) -> Option<String> {
        let mut progress = self.engine.progress();
        let settled = |progress: &engine::Progress| {
            let away = progress.engine_error.is_some() || progress.calculation_error.is_some();
            away || progress.in_force.as_ref().is_none_or(|in_force| in_force.revisions.have_all(changes))
        };
        // It is made whether the engine has noticed or not.
        drop(tokio::time::timeout(SETTLE_TIMEOUT, progress.wait_for(settled)).await);
        let progress = progress.borrow().clone();
        let late = || format!("vswitchd has not acknowledged it within {} s", SETTLE_TIMEOUT.as_secs());
        let runs = progress.in_force.is_some_and(|in_force| in_force.revisions.have_all(changes));
        progress.engine_error.or(progress.calculation_error).or_else(|| (!runs).then(late))
    }

    /// Why the store cannot be relied on now, for people.
    fn store_reason(&self) -> String {
        let snapshot = self.reflector.current();
        match snapshot.stale {
            Some(error) => error.to_string(),
            None if !snapshot.synced => "the store has not been read yet".to_owned(),
            None => "the store does not tell of its changes".to_owned(),
        }
    }
}

/// A store's error as the API has it.
fn failure(error: &StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Exists(_) => Status::already_exists(text),
        StoreError::NotFound(_) => Status::not_found(text),
        StoreError::Conflict { .. } => Status::aborted(text),
        StoreError::Compacted { .. } | StoreError::Unavailable(_) => Status::unavailable(text),
        StoreError::Failed(_) => Status::internal(text),
    }
}
