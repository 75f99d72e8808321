//! Keeping the engine in step: what is calculated goes to it, until it says that its workers run it.
//!
//! Nothing is queued. There is one wanted state, the newest; it goes out as a delta when the engine is known to have
//! what the delta starts from, and whole when it isn't: after a reconnect, after an error, or when the engine says it
//! has another generation. The engine applies the difference either way.
//!
//! What differs between two states is told by the calculation, and is all that is looked at on the way out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::{info, warn};
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{
    ApplyRequest, EngineStatus, ExplainReply, ExplainRequest, GetStatusRequest,
};
use vswitch_model::api::{MESSAGE_SIZE_MAX, connect};
use vswitch_model::{Generation, Port, PortName};

use super::names::{Link, Published};
use super::wanted::Wanted;
use crate::calc::{Calculator, Inputs, LearnedNames};
use crate::store::{Revisions, Snapshot};

/// First pause after a failure, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often an engine that is in step is asked whether it still is.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long an engine may take to answer what costs it nothing.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an engine may take to bring a state into force.
const APPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// What the engine's workers run, as it has acknowledged.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    /// Its number.
    pub(super) generation: Generation,
    /// Its ports.
    pub(super) ports: Arc<BTreeMap<PortName, Port>>,
    /// The last changes of the store that are in it.
    pub(super) revisions: Revisions,
    /// The version of what is known of names that is in it.
    pub(super) names: u64,
    /// The last request for an acknowledgement that it answers.
    pub(super) request: u64,
    /// Ports that are desired and could not be opened, and why.
    pub(super) failed_ports: Arc<BTreeMap<String, String>>,
}

/// How far the way from the store to the workers has been gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The newest state's number.
    pub(super) calculated: Generation,
    /// What was acknowledged last, be the engine there now or not.
    pub(super) in_force: Option<InForce>,
    /// Why the engine is not in step. None: it is.
    pub(super) engine_error: Option<String>,
    /// Whether the engine is there, and is not in step because it does not take the state.
    pub(super) engine_refuses: bool,
    /// Why the newest objects yield no state; the one before stays in force.
    pub(super) calculation_error: Option<String>,
    /// What of the newest objects could not be done as they say.
    pub(super) problems: Vec<String>,
}

impl Progress {
    fn new() -> Self {
        Self { engine_error: Some("not connected yet".to_owned()), ..Self::default() }
    }
}

/// The agent's end of the task that keeps the engine in step.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    requests: Arc<watch::Sender<u64>>,
    progress: watch::Receiver<Progress>,
    socket: PathBuf,
}

impl Engine {
    /// Begins to lead the engine at `socket` to what `calculator` makes of `snapshots`; ends when those do.
    pub(super) fn start(
        socket: PathBuf,
        snapshots: watch::Receiver<Snapshot>,
        names: Link,
        calculator: Calculator,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (requests, asked) = watch::channel(0);
        let (publish, progress) = watch::channel(Progress::new());
        let sync = Sync {
            socket: socket.clone(),
            snapshots,
            names,
            asked,
            publish,
            client: None,
            wanted: Wanted::new(calculator),
            revisions: Revisions::default(),
            version: 0,
            generation: Generation::default(),
            in_step: false,
            state: Progress::new(),
        };
        (Self { requests: Arc::new(requests), progress, socket }, sync.run())
    }

    /// Asks for an acknowledgement that begins from now on; [`InForce::request`] reaches the returned number with it.
    pub(super) fn request(&self) -> u64 {
        let mut number = 0;
        self.requests.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        number
    }

    /// How far things are, and a way to wait for more.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// What the engine would do with the first packet of a flow.
    pub(super) async fn explain(&self, request: ExplainRequest) -> Result<ExplainReply, String> {
        let mut client = client(&self.socket).await?;
        match timeout(PROBE_TIMEOUT, client.explain(request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(format!("vswitchd: {}", status.message())),
            Err(_) => Err(format!("vswitchd gave no answer within {} s", PROBE_TIMEOUT.as_secs())),
        }
    }
}

pub(super) async fn client(socket: &std::path::Path) -> Result<EngineClient<Channel>, String> {
    let channel = connect("vswitchd", socket).await.map_err(|e| e.to_string())?;
    Ok(EngineClient::new(channel)
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX))
}

/// The objects with what is known of names beside them.
pub(super) fn with_names(inputs: &Arc<Inputs>, names: Arc<LearnedNames>) -> Arc<Inputs> {
    if inputs.names == names {
        return Arc::clone(inputs);
    }
    Arc::new(Inputs { names, ..Inputs::clone(inputs) })
}

/// Why the engine is not in step.
struct Failure {
    text: String,
    /// It is there, and does not take the state.
    refuses: bool,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, refuses: false }
    }
}

struct Sync {
    socket: PathBuf,
    snapshots: watch::Receiver<Snapshot>,
    names: Link,
    asked: watch::Receiver<u64>,
    publish: watch::Sender<Progress>,
    client: Option<EngineClient<Channel>>,
    wanted: Wanted,
    /// The last changes of the store that are in the wanted state.
    revisions: Revisions,
    /// The version of what is known of names that is in it.
    version: u64,
    /// The last number given to a state.
    generation: Generation,
    /// Whether the engine is known to have what `state.in_force` says.
    in_step: bool,
    state: Progress,
}

impl Sync {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut recalculate = true;
        // Outside of the loop: changes of the store that keep coming must not put a probe off for ever.
        let mut probes = interval(PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if recalculate {
                self.recalculate();
                recalculate = false;
            }
            if self.is_due() {
                match self.bring_into_force().await {
                    Ok(()) => pause = PAUSE_MIN,
                    Err(error) => {
                        self.fails(error);
                        sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
                recalculate = self.snapshots.has_changed().unwrap_or(false)
                    || self.names.published.has_changed().unwrap_or(false);
                continue;
            }
            tokio::select! {
                changed = self.snapshots.changed() => match changed {
                    Ok(()) => recalculate = true,
                    Err(_) => return,
                },
                changed = self.names.published.changed() => match changed {
                    Ok(()) => recalculate = true,
                    Err(_) => return,
                },
                asked = self.asked.changed() => if asked.is_err() { return },
                _ = probes.tick(), if self.in_step => self.probe().await,
            }
        }
    }

    /// Makes the newest picture of the store the wanted state, once there is a picture.
    fn recalculate(&mut self) {
        let (inputs, revisions) = {
            let snapshot = self.snapshots.borrow_and_update();
            if !snapshot.synced {
                return;
            }
            (Arc::clone(&snapshot.inputs), snapshot.revisions)
        };
        let Published { version, names } = self.names.published.borrow_and_update().clone();
        let followed = self.wanted.follow(&with_names(&inputs, names));
        let wanted = self.wanted.names();
        self.names.wanted.send_if_modified(|before| {
            let is_new = before.as_deref() != Some(&wanted);
            if is_new {
                *before = Some(Arc::new(wanted));
            }
            is_new
        });
        let problems = self.wanted.problems();
        for problem in problems.iter().filter(|problem| !self.state.problems.contains(problem)) {
            warn!(problem, "not everything can be done as the objects say");
        }
        self.state.problems = problems.to_vec();
        let is_other = match followed {
            Ok(is_other) => is_other,
            Err(invalid) => {
                let error =
                    format!("the desired state is not whole: {invalid}; the one before stays in force");
                if self.state.calculation_error.as_ref() != Some(&error) {
                    warn!(%invalid, "the desired state is not whole; the one before stays in force");
                }
                self.state.calculation_error = Some(error);
                return self.tell();
            }
        };
        self.state.calculation_error = None;
        (self.revisions, self.version) = (revisions, version);
        if is_other {
            self.generation.0 += 1;
            self.state.calculated = self.generation;
        }
        // What is in force may hold the newest changes already: those that concern this node's state in no way.
        if let Some(in_force) = &mut self.state.in_force
            && self.in_step
            && self.wanted.is_sent()
        {
            in_force.revisions = revisions;
            in_force.names = version;
            self.names.in_force.send_replace(version);
        }
        self.tell();
    }

    fn is_due(&self) -> bool {
        let is_asked = |in_force: &InForce| in_force.request < *self.asked.borrow();
        self.wanted.is_there()
            && (!self.in_step || !self.wanted.is_sent() || self.state.in_force.as_ref().is_none_or(is_asked))
    }

    async fn bring_into_force(&mut self) -> Result<(), Failure> {
        let request = *self.asked.borrow_and_update();
        let base = self.state.in_force.as_ref().filter(|_| self.in_step).map(|base| base.generation);
        if base.is_none() {
            let status = self.status().await?;
            self.generation.0 = self.generation.0.max(status.generation_desired);
        }
        // Never the number of something else that the engine may have seen.
        if base.is_none_or(|base| base >= self.generation) {
            self.generation.0 += 1;
        }
        let generation = self.generation;
        let Some(message) = self.wanted.request(generation, base) else { return Ok(()) };
        let reply = self.apply(message).await;
        let failed_ports = match reply {
            Ok(reply) => reply,
            Err(status) if status.code() == Code::FailedPrecondition && self.in_step => {
                info!("vswitchd has another generation; sending it the whole state");
                self.in_step = false;
                return Ok(());
            }
            Err(status) => return Err(self.explained(&status)),
        };
        if !self.in_step {
            info!(%generation, "vswitchd is in step");
        }
        self.in_step = true;
        self.state.calculated = generation;
        self.state.engine_error = None;
        self.state.engine_refuses = false;
        let known = self.state.in_force.take().map(|before| before.ports);
        let ports = self.wanted.acknowledged(known);
        let (failed_ports, revisions, names) = (Arc::new(failed_ports), self.revisions, self.version);
        self.state.in_force = Some(InForce { generation, ports, revisions, names, request, failed_ports });
        self.names.in_force.send_replace(names);
        self.tell();
        Ok(())
    }

    async fn apply(&mut self, request: ApplyRequest) -> Result<BTreeMap<String, String>, Status> {
        let mut client = self.client().await.map_err(Status::unavailable)?;
        let late = |_| Status::deadline_exceeded(format!("no answer within {} s", APPLY_TIMEOUT.as_secs()));
        let reply = timeout(APPLY_TIMEOUT, client.apply(request)).await.map_err(late)??.into_inner();
        Ok(reply.failed_ports.into_iter().map(|failure| (failure.port, failure.reason)).collect())
    }

    async fn status(&mut self) -> Result<EngineStatus, Failure> {
        let mut client = self.client().await?;
        match timeout(PROBE_TIMEOUT, client.get_status(GetStatusRequest {})).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(self.explained(&status)),
            Err(_) => Err(format!("vswitchd gave no answer within {} s", PROBE_TIMEOUT.as_secs()).into()),
        }
    }

    async fn client(&mut self) -> Result<EngineClient<Channel>, String> {
        if self.client.is_none() {
            self.client = Some(client(&self.socket).await?);
        }
        self.client.clone().ok_or_else(|| "not connected".to_owned())
    }

    /// Sees whether the engine still has what it acknowledged, and which of its ports are open by now.
    async fn probe(&mut self) {
        let status = match self.status().await {
            Ok(status) => status,
            Err(error) => return self.fails(error),
        };
        let Some(in_force) = &mut self.state.in_force else { return };
        if status.restored || status.generation_desired != in_force.generation.0 {
            info!(
                generation = status.generation_desired,
                "vswitchd has another state; sending it the whole one"
            );
            self.in_step = false;
            return;
        }
        let failed = status.ports.into_iter().filter(|port| !port.failure.is_empty());
        let failed: BTreeMap<_, _> = failed.map(|port| (port.name, port.failure)).collect();
        if *in_force.failed_ports != failed {
            in_force.failed_ports = Arc::new(failed);
            self.tell();
        }
    }

    fn fails(&mut self, failure: Failure) {
        let Failure { text: error, refuses } = failure;
        if self.state.engine_error.as_ref() != Some(&error) {
            warn!(error, "vswitchd is not in step; what it has stays in force");
        }
        // A new connection says better why there is none.
        self.client = None;
        self.in_step = false;
        self.state.engine_error = Some(error);
        self.state.engine_refuses = refuses;
        self.tell();
    }

    fn explained(&self, status: &Status) -> Failure {
        let message = status.message();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => {
                format!("vswitchd ({}): {message}", self.socket.display()).into()
            }
            _ => {
                let text = format!("vswitchd refuses the newest state and keeps the one before: {message}");
                Failure { text, refuses: true }
            }
        }
    }

    fn tell(&self) {
        self.publish.send_replace(self.state.clone());
    }
}
