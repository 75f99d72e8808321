//! The agent as a whole, in this process, with a store in memory and a fake engine.

mod attaching;
mod fake_engine;
mod in_step;
mod large;
mod names;
mod people;
mod tiers;

use tempfile::TempDir;
use tonic::{Code, Request};
use vswitch_model::api::agent as pb;
use vswitch_model::api::agent::agent_server::Agent as _;
use vswitch_model::{Dscp, Mac, PodTunnels, PortName};

use super::*;
use crate::ipam::{Faulty, wall_clock};
use crate::object::{Flannel, Key, Kind, ObjectMeta};
use crate::store::{ByKind, Embedded, Snapshot};
use fake_engine::FakeEngine;

/// A pool of each family, two namespaces, and two pods.
const CLUSTER: &str = r"
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.244.0.0/16, vxlanMode: Always}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v6}, spec: {cidr: 'fd00:10::/64', vxlanMode: Always}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: media}}
---
{apiVersion: v1, kind: Pod, metadata: {name: relay, namespace: media, labels: {app: relay}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: caller, namespace: media}}
";

/// Nobody reaches relay, but caller at UDP 5060.
const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: relay, namespace: media}
spec:
  podSelector: {matchLabels: {app: relay}}
  ingress:
  - {from: [{podSelector: {matchLabels: {app: caller}}}], ports: [{protocol: UDP, port: 5060}]}
";

struct Bench {
    /// The agent's store; made to fail by `store.set_away`.
    store: Arc<Faulty>,
    /// The same store, never failing.
    truth: SharedStore,
    engine: FakeEngine,
    agent: Agent,
    api: Service,
    folder: TempDir,
}

impl Bench {
    /// An agent on an empty store, with an engine that is there.
    async fn new() -> Self {
        let bench = Self::without_engine();
        bench.engine.start();
        bench
    }

    /// The same with the objects of [`CLUSTER`].
    async fn with_cluster() -> Self {
        let bench = Self::new().await;
        bench.apply(CLUSTER).await;
        bench.until(|s| s.inputs.pods.len() == 2).await;
        bench
    }

    fn without_engine() -> Self {
        Self::on(Arc::new(Embedded::in_memory().unwrap()), true)
    }

    fn on(truth: SharedStore, store_is_there: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Faulty::new(Arc::clone(&truth), 0, 0));
        store.set_away(!store_is_there);
        let engine = FakeEngine::new(folder.path());
        let agent = Agent::start(settings("n1", engine.socket()), store.clone(), "embedded", wall_clock());
        let api = agent.service();
        Self { store, truth, engine, agent, api, folder }
    }

    async fn apply(&self, text: &str) -> Vec<String> {
        let documents = vec![pb::Document { file: "test.yaml".into(), text: text.into() }];
        let request = pb::ApplyObjectsRequest { documents, ..Default::default() };
        let reply = self.api.apply(Request::new(request)).await.unwrap().into_inner();
        reply.results.into_iter().map(|r| format!("{} {} {}", r.kind, r.name, r.outcome)).collect()
    }

    async fn refused(&self, text: &str) -> String {
        let documents = vec![pb::Document { file: "test.yaml".into(), text: text.into() }];
        let request = pb::ApplyObjectsRequest { documents, ..Default::default() };
        let status = self.api.apply(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        status.message().to_owned()
    }

    async fn until(&self, what: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let mut snapshots = self.agent.core.reflector.snapshots();
        in_time(snapshots.wait_for(what)).await.unwrap().clone()
    }

    async fn until_progress(&self, what: impl FnMut(&engine::Progress) -> bool) -> engine::Progress {
        let mut progress = self.agent.core.engine.progress();
        in_time(progress.wait_for(what)).await.unwrap().clone()
    }

    async fn attach(&self, request: pb::AttachRequest) -> Result<u64, Status> {
        let reply = in_time(self.api.attach(Request::new(request))).await;
        reply.map(|reply| reply.into_inner().generation)
    }

    async fn assign(&self, container: &str, network: &str) -> Vec<String> {
        let attachment = attachment(container);
        let request =
            pb::AssignAddressesRequest { attachment, network: network.into(), ..Default::default() };
        self.api.assign_addresses(Request::new(request)).await.unwrap().into_inner().addresses
    }

    async fn detach(&self, container: &str) -> bool {
        let request = pb::DetachRequest { attachment: attachment(container) };
        in_time(self.api.detach(Request::new(request))).await.unwrap().into_inner().existed
    }

    async fn endpoints(&self) -> Vec<String> {
        let listing = self.truth.list(Some(Kind::Endpoint)).await.unwrap();
        listing.entries.into_iter().map(|entry| entry.key.name).collect()
    }

    fn has_port(&self, container: &str) -> bool {
        self.engine.content().state.ports.contains_key(&port_of(container))
    }
}

/// Waits, but not for ever.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

fn settings(node: &str, engine_socket: &std::path::Path) -> Settings {
    Settings {
        node: node.into(),
        underlay: Underlay { ipv4: "192.0.2.1/24".parse().ok(), ipv6: "2001:db8::1/64".parse().ok() },
        pod_mtu: 1430,
        pod_port: PortKind::Veth,
        vni: Vni::CALICO,
        vxlan_port: 4789,
        flannel_port: 8472,
        dscp: Dscp::Inherit,
        pod_tunnels: PodTunnels::default(),
        engine_socket: engine_socket.into(),
        cool_down: Duration::from_secs(1),
        names_file: Some(engine_socket.with_file_name("names.json")),
        dns_servers: Vec::new(),
        shown: vec![Field { table: "store", name: "embedded", value: "\"/x\"".into() }],
    }
}

fn attachment(container: &str) -> Option<pb::Attachment> {
    Some(pb::Attachment { container_id: container.into(), ifname: "eth0".into() })
}

fn port_of(container: &str) -> PortName {
    PortName::new(format!("vsw{container}")).unwrap()
}

/// The attachment of pod media/`pod` as the sandbox `container` with address 10.244.9.`last`.
fn request(container: &str, pod: &str, last: u8) -> pb::AttachRequest {
    pb::AttachRequest {
        attachment: attachment(container),
        namespace: "media".into(),
        pod: pod.into(),
        uid: String::new(),
        netns: format!("/run/netns/{container}"),
        host_interface: port_of(container).to_string(),
        mac: format!("02:00:00:00:00:{last:02x}"),
        addresses: vec![format!("10.244.9.{last}")],
        mtu: 1430,
        timeout_ms: 15_000,
        network: "pods".into(),
        kind: pb::PortKind::Veth.into(),
    }
}

/// An object to delete.
fn named(kind: &str, name: &str) -> pb::ObjectName {
    pb::ObjectName { kind: kind.into(), name: name.into() }
}
