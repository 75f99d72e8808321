//! An engine that runs nothing: it keeps the rules of the engine API and remembers what it was given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use vswitch_model::api::engine as pb;
use vswitch_model::api::engine::engine_server::{Engine, EngineServer};
use vswitch_model::{Delta, DesiredState};

/// What the engine has.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) generation: u64,
    pub(super) state: DesiredState,
    /// Whether the state came from disk.
    pub(super) restored: bool,
    /// Applies that arrived, those on hold included.
    pub(super) arrived: u32,
    /// How many applies were whole states.
    pub(super) wholes: u32,
    /// How many applies were deltas that fitted.
    pub(super) deltas: u32,
    /// Ports that will not open.
    pub(super) failing: BTreeMap<String, String>,
    /// Why it takes no state; empty: it does.
    pub(super) refusal: String,
    /// Which names are asked for.
    pub(super) watched: Option<pb::WatchNamesRequest>,
    /// Up to which answer was released, and the generation it had then.
    pub(super) released: Vec<(u64, u64)>,
}

impl Content {
    /// By the rules of the API; on an error what is left is not to be used.
    fn apply(&mut self, request: pb::ApplyRequest) -> Result<pb::ApplyReply, Status> {
        if !self.refusal.is_empty() {
            return Err(Status::resource_exhausted(&self.refusal));
        }
        let invalid = |e: vswitch_model::Invalid| Status::invalid_argument(e.to_string());
        match request.change.expect("a change") {
            pb::apply_request::Change::Full(full) => {
                self.state = DesiredState::try_from(full).map_err(invalid)?;
                self.wholes += 1;
            }
            pb::apply_request::Change::Delta(delta) => {
                let delta = Delta::try_from(delta).map_err(invalid)?;
                if delta.base.0 != self.generation {
                    return Err(Status::failed_precondition("another generation"));
                }
                delta.changes.into_iter().for_each(|change| self.state.apply(change));
                self.deltas += 1;
            }
        }
        self.state.check().map_err(invalid)?;
        if request.generation <= self.generation {
            return Err(Status::invalid_argument("generation: not larger than the one before"));
        }
        self.generation = request.generation;
        self.restored = false;
        let failing = self.failing.iter();
        let failed = failing.filter(|(name, _)| self.state.ports.keys().any(|port| port.as_str() == *name));
        let failed =
            failed.map(|(port, reason)| pb::PortFailure { port: port.clone(), reason: reason.clone() });
        Ok(pb::ApplyReply { generation: self.generation, failed_ports: failed.collect() })
    }
}

/// Who is told what DNS tells.
#[derive(Debug, Default)]
struct Watching {
    watcher: Option<mpsc::UnboundedSender<pb::NameAnswer>>,
    /// What it is still told when another begins to watch.
    last_words: Vec<pb::NameAnswer>,
}

/// A fake engine, there or not.
pub(super) struct FakeEngine {
    socket: PathBuf,
    content: Arc<watch::Sender<Content>>,
    hold: Arc<watch::Sender<bool>>,
    watching: Arc<Mutex<Watching>>,
    /// A runtime of its own: when it ends, so do the connections, as those of a process do.
    server: Mutex<Option<Runtime>>,
}

impl FakeEngine {
    /// An engine that is not there yet.
    pub(super) fn new(folder: &Path) -> Self {
        let socket = folder.join("engine.sock");
        let (content, hold) = (watch::Sender::new(Content::default()), watch::Sender::new(false));
        Self {
            socket,
            content: Arc::new(content),
            hold: Arc::new(hold),
            watching: Arc::default(),
            server: Mutex::new(None),
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn start(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let service = Handler {
            content: Arc::clone(&self.content),
            hold: self.hold.subscribe(),
            watching: Arc::clone(&self.watching),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&self.socket).unwrap()
        };
        let serving = Server::builder()
            .add_service(EngineServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(serving);
        *self.server() = Some(runtime);
    }

    /// Dies: connections break. What it has stays, as on disk.
    pub(super) fn stop(&self) {
        if let Some(server) = self.server().take() {
            server.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    fn server(&self) -> MutexGuard<'_, Option<Runtime>> {
        self.server.lock().unwrap()
    }

    /// DNS tells a pod of names. Who watches gets it; somebody has to.
    pub(super) fn answer(&self, number: u64, pod: &str, addresses: &[(&str, &str, u32)]) {
        let watching = self.watching.lock().unwrap();
        let watcher = watching.watcher.as_ref().expect("somebody watches");
        watcher.send(answer(number, pod, addresses)).expect("and reads");
    }

    /// The same, but only when another is about to be told: it is under way then.
    pub(super) fn answer_last(&self, number: u64, pod: &str, addresses: &[(&str, &str, u32)]) {
        self.watching.lock().unwrap().last_words.push(answer(number, pod, addresses));
    }

    /// While held, no apply is answered, nor takes effect.
    pub(super) fn hold(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Content)) {
        self.content.send_modify(change);
    }

    pub(super) fn content(&self) -> Content {
        self.content.borrow().clone()
    }

    /// Waits until its content is so.
    pub(super) async fn until(&self, what: impl FnMut(&Content) -> bool) -> Content {
        let mut content = self.content.subscribe();
        let deadline = std::time::Duration::from_secs(20);
        tokio::time::timeout(deadline, content.wait_for(what)).await.expect("in time").unwrap().clone()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(number: u64, pod: &str, addresses: &[(&str, &str, u32)]) -> pb::NameAnswer {
    let address = |(name, address, ttl_s): &(&str, &str, u32)| pb::NamedAddress {
        name: (*name).to_owned(),
        address: (*address).to_owned(),
        ttl_s: *ttl_s,
    };
    pb::NameAnswer {
        server: "10.96.0.10".into(),
        pod: pod.into(),
        addresses: addresses.iter().map(address).collect(),
        number,
        unreleased: u64::from(number == 3),
        ..Default::default()
    }
}

struct Handler {
    content: Arc<watch::Sender<Content>>,
    hold: watch::Receiver<bool>,
    watching: Arc<Mutex<Watching>>,
}

fn not_faked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the agent does not ask for this"))
}

#[tonic::async_trait]
impl Engine for Handler {
    type ListFlowsStream = BoxStream<'static, Result<pb::Flow, Status>>;
    type ListRoutesStream = BoxStream<'static, Result<pb::RouteStatus, Status>>;
    type ListRulesStream = BoxStream<'static, Result<pb::RuleCounters, Status>>;
    type WatchFlowLogStream = BoxStream<'static, Result<pb::FlowLogRecord, Status>>;
    type WatchNamesStream = BoxStream<'static, Result<pb::NameAnswer, Status>>;
    type TraceStream = BoxStream<'static, Result<pb::TraceRecord, Status>>;

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyReply>, Status> {
        let request = request.into_inner();
        self.content.send_modify(|content| content.arrived += 1);
        let mut hold = self.hold.clone();
        drop(hold.wait_for(|hold| !hold).await);
        let mut reply = Err(Status::internal("not applied"));
        self.content.send_modify(|content| {
            let mut next = content.clone();
            reply = next.apply(request);
            if reply.is_ok() {
                *content = next;
            }
        });
        reply.map(Response::new)
    }

    async fn list_routes(
        &self,
        _: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        not_faked()
    }

    async fn list_rules(
        &self,
        _: Request<pb::ListRulesRequest>,
    ) -> Result<Response<Self::ListRulesStream>, Status> {
        not_faked()
    }

    async fn watch_flow_log(
        &self,
        _: Request<pb::WatchFlowLogRequest>,
    ) -> Result<Response<Self::WatchFlowLogStream>, Status> {
        not_faked()
    }

    async fn watch_names(
        &self,
        request: Request<pb::WatchNamesRequest>,
    ) -> Result<Response<Self::WatchNamesStream>, Status> {
        let (watcher, answers) = mpsc::unbounded_channel();
        {
            let mut watching = self.watching.lock().unwrap();
            let last_words = std::mem::take(&mut watching.last_words);
            if let Some(before) = watching.watcher.replace(watcher) {
                // Who reads no more misses them.
                last_words.into_iter().for_each(|answer| drop(before.send(answer)));
            }
        }
        self.content.send_modify(|content| content.watched = Some(request.into_inner()));
        Ok(Response::new(UnboundedReceiverStream::new(answers).map(Ok).boxed()))
    }

    async fn release_answers(
        &self,
        request: Request<pb::ReleaseAnswersRequest>,
    ) -> Result<Response<pb::ReleaseAnswersReply>, Status> {
        let through = request.into_inner().through;
        self.content.send_modify(|content| content.released.push((through, content.generation)));
        Ok(Response::new(pb::ReleaseAnswersReply {}))
    }

    async fn find_flows(
        &self,
        _: Request<pb::FindFlowsRequest>,
    ) -> Result<Response<pb::FindFlowsReply>, Status> {
        Ok(Response::new(pb::FindFlowsReply::default()))
    }

    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::EngineStatus>, Status> {
        let content = self.content.borrow().clone();
        let ports = content.state.ports.keys().map(|port| pb::PortStatus {
            name: port.to_string(),
            failure: content.failing.get(port.as_str()).cloned().unwrap_or_default(),
            ..Default::default()
        });
        Ok(Response::new(pb::EngineStatus {
            generation_desired: content.generation,
            generation_in_force: content.generation,
            restored: content.restored,
            ports: ports.collect(),
            ..Default::default()
        }))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainReply>, Status> {
        let detail = format!("to {}", request.into_inner().destination);
        let steps = vec![pb::Step { stage: "route".into(), detail }];
        Ok(Response::new(pb::ExplainReply {
            allowed: true,
            generation: self.content.borrow().generation,
            steps,
            out_port: "p".into(),
            ..Default::default()
        }))
    }

    async fn get_state(
        &self,
        _: Request<pb::GetStateRequest>,
    ) -> Result<Response<pb::GetStateReply>, Status> {
        not_faked()
    }

    async fn get_counters(
        &self,
        _: Request<pb::GetCountersRequest>,
    ) -> Result<Response<pb::Counters>, Status> {
        not_faked()
    }

    async fn list_flows(
        &self,
        _: Request<pb::ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        not_faked()
    }

    async fn trace(&self, _: Request<pb::TraceRequest>) -> Result<Response<Self::TraceStream>, Status> {
        not_faked()
    }
}
