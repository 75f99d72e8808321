//! The engine put together: workers, the compiler thread, the netlink thread, and what other threads see of them.
//!
//! ```text
//!   engine API --- Apply --> compiler --- tables ---> workers
//!   netlink ------ Facts -->    |  ^                     |
//!                               |  +---- revision seen --+
//!                               +--- Snapshot ---> engine API, metrics
//! ```

mod cgroup;
mod compiler;
mod desired;
mod devices;
mod full;
mod kernel;
mod memory;
mod ports;
mod report;
mod room;
mod shared;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::{Sender, bounded, unbounded};
use tokio::sync::oneshot;
use vswitch_datapath::WalkConfig;
use vswitch_model::{Delta, DesiredState, Generation};

use crate::config::Config;
use crate::io::{FramePool, UmemError};
use crate::netlink::{Facts, NetlinkError};
use crate::saved::StateFile;
use crate::worker::{self, Handle, Published, WorkerConfig, WorkerError};

pub use compiler::{Applied, ApplyError};
pub use devices::{Device, DeviceError, Devices};
pub use full::Full;
pub use kernel::KernelDevices;
pub use memory::{MemoryDevices, MemoryWorld};
pub use ports::{Counts, OpenPort, Ports, reports, role_name};
pub use report::FinalReport;
pub use room::FlowMemory;
pub use shared::{RuleSource, Shared, Snapshot};

use compiler::{Compiler, Request};

/// How long the kernel may take to describe the underlay before the engine starts without.
const FIRST_FACTS: Duration = Duration::from_millis(500);
/// How long a worker may take to end.
const STOP: Duration = Duration::from_secs(5);

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The frames are not enough, or cannot be had.
    #[error("frames: {0}")]
    Frames(#[from] UmemError),
    /// There is no memory for so many flows.
    #[error("flows: {0}")]
    Flows(String),
    /// A worker did not start.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The kernel cannot be followed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The host port cannot be opened.
    #[error("port {port}: {reason}")]
    Port {
        /// Its name.
        port: String,
        /// What went wrong and what would help.
        reason: String,
    },
    /// No thread for the compiler.
    #[error("cannot start the compiler thread: {0}")]
    Thread(std::io::Error),
}

/// Where the desired state goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desire {
    /// All of it.
    Full(Box<DesiredState>),
    /// From one generation to the next.
    Delta(Delta),
}

/// A running engine. Dropping it stops it, as [`Engine::stop`] does.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    compiler: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine with what was saved, if anything was. When this returns the saved state is in force, but for
    /// pods that have gone in the meantime. `follow`: look at the kernel's routes and keep the host port; without,
    /// [`Engine::tell_facts`] has to say what the underlay is.
    pub fn start(config: Config, devices: Box<dyn Devices>, follow: bool) -> Result<Self, StartError> {
        Self::start_with(config, devices, follow, &mut worker::on_thread)
    }

    /// The same with workers that `start` runs. It is called once for each, and must see to it that they turn while
    /// anything is asked of the engine, this function included.
    pub fn start_with(
        config: Config,
        mut devices: Box<dyn Devices>,
        follow: bool,
        start: &mut worker::Start<'_>,
    ) -> Result<Self, StartError> {
        FlowMemory::of(&config).check().map_err(StartError::Flows)?;
        let published = Arc::new(Published::new());
        let workers = start_workers(&config, devices.as_mut(), &published, start)?;
        let umem = Arc::clone(devices.umem());
        let saved = StateFile::new(&config.state_file);
        let (requests, receiver) = unbounded();
        let shared = Arc::new(Shared {
            config,
            started: Instant::now(),
            workers,
            umem,
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
        });
        let mut compiler = Compiler::new(Arc::clone(&shared), devices, published, saved, receiver);
        compiler.restore();
        compiler.open_configured()?;
        if follow {
            compiler.follow(requests.clone(), FIRST_FACTS)?;
        }
        compiler.start();
        let body = move || compiler.run();
        let compiler =
            std::thread::Builder::new().name("compiler".into()).spawn(body).map_err(StartError::Thread)?;
        Ok(Self { shared, requests, compiler: Some(compiler) })
    }

    /// What other threads may see.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where desired state is given to the engine.
    #[must_use]
    pub fn applier(&self) -> Applier {
        Applier { requests: self.requests.clone() }
    }

    /// Says what the underlay is, in place of the kernel.
    pub fn tell_facts(&self, facts: Facts) {
        self.requests.send(Request::Facts(Box::new(facts))).ok();
    }

    /// Stops everything, closes all ports and accounts for every frame. None when it was stopped before.
    pub fn stop(&mut self) -> Option<FinalReport> {
        let thread = self.compiler.take()?;
        let (reply, answer) = bounded(1);
        self.requests.send(Request::Stop(reply)).ok();
        let report = answer.recv().ok().map(|()| FinalReport::of(&self.shared));
        if thread.join().is_err() {
            tracing::error!("the compiler thread panicked");
        }
        report
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives desired state to the engine.
#[derive(Debug, Clone)]
pub struct Applier {
    requests: Sender<Request>,
}

impl Applier {
    /// Leads the engine to `generation`. The answer comes when every worker runs it.
    pub async fn apply(&self, generation: Generation, desire: Desire) -> Result<Applied, ApplyError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Apply { generation, desire, reply };
        self.requests.send(request).map_err(|_| ApplyError::Stopping)?;
        answer.await.unwrap_or(Err(ApplyError::Stopping))
    }
}

fn start_workers(
    config: &Config,
    devices: &mut dyn Devices,
    published: &Arc<Published>,
    start: &mut worker::Start<'_>,
) -> Result<Vec<Handle>, StartError> {
    let umem = devices.umem();
    let cores: Vec<Option<usize>> =
        if config.cores.is_empty() { vec![None] } else { config.cores.iter().copied().map(Some).collect() };
    let share = umem.total() / cores.len();
    let mut workers = Vec::with_capacity(cores.len());
    let failed = |errno: nix::Error| WorkerError::Start { number: 0, cause: errno.into() };
    let places = worker::places(cores.len()).map_err(failed)?;
    for (number, (core, place)) in cores.into_iter().zip(places).enumerate() {
        let walk = WalkConfig {
            flows: config.flows as usize,
            fragments: config.fragments as usize,
            icmp_errors_per_second: config.icmp_errors_per_second,
            icmp_errors_per_source: config.icmp_errors_per_source,
            flow_records_per_second: config.flow_log_per_second,
            tcp_windows: config.tcp_windows,
            seed: random(),
        };
        let pool = FramePool::new(umem, share)?;
        let config = WorkerConfig { number, core, poll: config.poll, walk };
        workers.push(Handle::start_at(config, Arc::clone(published), pool, place, start)?);
    }
    Ok(workers)
}

/// A number nobody can guess: the standard library keys its hashes with the kernel's random bytes.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
