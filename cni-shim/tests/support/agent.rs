//! An agent that remembers what it was told, and fails when a test wants it to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use vswitch_model::api::agent::agent_server::{Agent, AgentServer};
use vswitch_model::api::agent::*;

type Reply<T> = Result<Response<T>, Status>;

/// What the fake holds.
#[derive(Default)]
struct State {
    attached: BTreeMap<String, AttachRequest>,
    /// Attachments with addresses, and the network these are for.
    assigned: BTreeMap<String, String>,
    /// Calls that fail, by name, and how.
    failing: BTreeMap<&'static str, Status>,
    /// Attach never answers.
    hang: bool,
    not_ready: Option<String>,
    /// Pods get tuns.
    tun: bool,
}

#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<State>>,
    calls: Sender<String>,
}

/// The server, stopped when dropped.
pub struct FakeAgent {
    state: Arc<Mutex<State>>,
    calls: Mutex<Receiver<String>>,
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeAgent {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (calls_in, calls) = mpsc::channel();
        let state = Arc::new(Mutex::new(State::default()));
        let fake = Fake { state: Arc::clone(&state), calls: calls_in };
        let (stop, stopped) = oneshot::channel();
        let socket = directory.path().join("agent.sock");
        let (ready_in, ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(socket).unwrap();
                ready_in.send(()).unwrap();
                let server = tonic::transport::Server::builder().add_service(AgentServer::new(fake));
                tokio::select! {
                    served = server.serve_with_incoming(UnixListenerStream::new(listener)) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        ready.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { state, calls: Mutex::new(calls), directory, stop: Some(stop), thread: Some(thread) }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    /// Ends the server; its socket stays behind, as after a kill.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }

    pub fn fail(&self, call: &'static str, status: Status) {
        self.state.lock().unwrap().failing.insert(call, status);
    }

    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.failing.clear();
        state.hang = false;
        state.not_ready = None;
    }

    /// From now on, and forgetting what was called before.
    pub fn hang_in_attach(&self) {
        self.calls();
        self.state.lock().unwrap().hang = true;
    }

    pub fn not_ready(&self, reason: &str) {
        self.state.lock().unwrap().not_ready = Some(reason.to_owned());
    }

    /// From now on pods get tuns, which are made as the engine would.
    pub fn choose_tun(&self) {
        self.state.lock().unwrap().tun = true;
    }

    /// Waits until the agent is called by this name.
    pub fn wait_for(&self, call: &str) {
        let calls = self.calls.lock().unwrap();
        while calls.recv_timeout(Duration::from_secs(20)).expect("the call comes in time") != call {}
    }

    /// The calls since this was last asked.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().try_iter().collect()
    }

    /// Keys of what is attached: container/ifname.
    pub fn attached(&self) -> Vec<String> {
        self.state.lock().unwrap().attached.keys().cloned().collect()
    }

    pub fn endpoint(&self, key: &str) -> AttachRequest {
        self.state.lock().unwrap().attached[key].clone()
    }

    pub fn assigned(&self) -> Vec<String> {
        self.state.lock().unwrap().assigned.keys().cloned().collect()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.stop();
        }
    }
}

impl Fake {
    /// Notes the call; an error when it is to fail.
    fn called(&self, name: &'static str) -> Result<std::sync::MutexGuard<'_, State>, Status> {
        let _ = self.calls.send(name.to_owned());
        let state = self.state.lock().unwrap();
        match state.failing.get(name) {
            Some(status) => Err(status.clone()),
            None => Ok(state),
        }
    }
}

fn key(attachment: Option<&Attachment>) -> String {
    let attachment = attachment.expect("the plugin names the attachment");
    format!("{}/{}", attachment.container_id, attachment.ifname)
}

fn make_tun(netns: &str, mtu: u32) {
    let netns = netns.strip_prefix("/run/netns/").unwrap();
    let mtu = mtu.to_string();
    for words in
        [&["tuntap", "add", "dev", "eth0", "mode", "tun"][..], &["link", "set", "eth0", "up", "mtu", &mtu]]
    {
        let status = std::process::Command::new("ip").args(["-n", netns]).args(words).status().unwrap();
        assert!(status.success(), "ip -n {netns} {words:?}");
    }
}

fn addresses() -> Vec<String> {
    vec!["10.244.0.5".into(), "fd00:244::5".into()]
}

#[tonic::async_trait]
impl Agent for Fake {
    async fn attach(&self, request: Request<AttachRequest>) -> Reply<AttachReply> {
        let request = request.into_inner();
        let hang = {
            let mut state = self.called("attach")?;
            if state.tun {
                assert_eq!((request.kind(), request.mac.as_str()), (PortKind::Tun, ""));
                make_tun(&request.netns, request.mtu);
            }
            state.attached.insert(key(request.attachment.as_ref()), request);
            state.hang
        };
        if hang {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(AttachReply { generation: 1 }))
    }

    async fn choose_port(&self, request: Request<ChoosePortRequest>) -> Reply<ChoosePortReply> {
        let state = self.called("choose_port")?;
        assert!(!request.get_ref().addresses.is_empty());
        let kind = if state.tun { PortKind::Tun } else { PortKind::Veth };
        Ok(Response::new(ChoosePortReply { kind: kind.into() }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Reply<DetachReply> {
        let mut state = self.called("detach")?;
        let existed = state.attached.remove(&key(request.get_ref().attachment.as_ref())).is_some();
        Ok(Response::new(DetachReply { existed }))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Reply<CheckReply> {
        let state = self.called("check")?;
        let request = request.into_inner();
        let held = state.attached.get(&key(request.attachment.as_ref()));
        let held = held.ok_or_else(|| Status::not_found("no such attachment"))?;
        let same = (&held.host_interface, &held.mac, &held.addresses)
            == (&request.host_interface, &request.mac, &request.addresses);
        if same { Ok(Response::new(CheckReply {})) } else { Err(Status::failed_precondition("it differs")) }
    }

    async fn collect_garbage(&self, request: Request<CollectGarbageRequest>) -> Reply<CollectGarbageReply> {
        let mut state = self.called("collect_garbage")?;
        let valid: Vec<_> = request.get_ref().valid.iter().map(|valid| key(Some(valid))).collect();
        let network = &request.get_ref().network;
        state.attached.retain(|key, attached| attached.network != *network || valid.contains(key));
        state.assigned.retain(|key, of| of != network || valid.contains(key));
        Ok(Response::new(CollectGarbageReply::default()))
    }

    async fn ready(&self, _: Request<ReadyRequest>) -> Reply<ReadyReply> {
        let state = self.called("ready")?;
        let reason = state.not_ready.clone();
        Ok(Response::new(ReadyReply {
            ready: reason.is_none(),
            reason: reason.unwrap_or_default(),
            pod_mtu: 1430,
        }))
    }

    async fn assign_addresses(
        &self,
        request: Request<AssignAddressesRequest>,
    ) -> Reply<AssignAddressesReply> {
        let mut state = self.called("assign_addresses")?;
        let request = request.into_inner();
        assert_eq!((&*request.namespace, &*request.pod), ("voip", "relay"));
        state.assigned.insert(key(request.attachment.as_ref()), request.network);
        Ok(Response::new(AssignAddressesReply { addresses: addresses() }))
    }

    async fn release_addresses(
        &self,
        request: Request<ReleaseAddressesRequest>,
    ) -> Reply<ReleaseAddressesReply> {
        let mut state = self.called("release_addresses")?;
        state.assigned.remove(&key(request.get_ref().attachment.as_ref()));
        Ok(Response::new(ReleaseAddressesReply::default()))
    }

    async fn check_addresses(&self, request: Request<CheckAddressesRequest>) -> Reply<AssignAddressesReply> {
        let state = self.called("check_addresses")?;
        if state.assigned.contains_key(&key(request.get_ref().attachment.as_ref())) {
            Ok(Response::new(AssignAddressesReply { addresses: addresses() }))
        } else {
            Err(Status::not_found("it holds no addresses"))
        }
    }

    // The plugins have no business with the rest.

    async fn apply(&self, _: Request<ApplyObjectsRequest>) -> Reply<ApplyObjectsReply> {
        Err(Status::unimplemented("apply"))
    }

    async fn list(&self, _: Request<ListObjectsRequest>) -> Reply<ListObjectsReply> {
        Err(Status::unimplemented("list"))
    }

    async fn delete(&self, _: Request<DeleteObjectsRequest>) -> Reply<DeleteObjectsReply> {
        Err(Status::unimplemented("delete"))
    }

    async fn describe(&self, _: Request<DescribeRequest>) -> Reply<DescribeReply> {
        Err(Status::unimplemented("describe"))
    }

    async fn get_status(&self, _: Request<GetAgentStatusRequest>) -> Reply<AgentStatus> {
        Err(Status::unimplemented("get_status"))
    }

    async fn list_names(&self, _: Request<ListNamesRequest>) -> Reply<ListNamesReply> {
        Err(Status::unimplemented("list_names"))
    }

    async fn explain(&self, _: Request<ExplainFlowRequest>) -> Reply<ExplainFlowReply> {
        Err(Status::unimplemented("explain"))
    }
}
