//! The API over its socket, before an engine in memory.

mod names;

use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use tokio::sync::oneshot;
use tonic::Code;
use tonic::transport::Channel;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::{apply_request, connect};
use vswitch_model::policy::{
    Action, Policy, PolicyEnd, PolicyId, PortMatch, Rule, Standing, Subject, Tier, TierDefault,
};
use vswitch_model::{IdentityId, Mac, RuleId};

use super::*;
use crate::config::Config;
use crate::engine::{MemoryDevices, MemoryWorld};
use crate::testing::{add_pod, one_pod};

const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    client: EngineClient<Channel>,
    world: MemoryWorld,
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let config = Config {
            flows: 1024,
            fragments: 16,
            state_file: directory.path().join("engine.state"),
            api_socket: directory.path().join("engine.sock"),
            ..Config::default()
        };
        let path = config.api_socket.clone();
        let socket = Socket::bind("vswitchd", &path).unwrap();
        let (devices, world) = MemoryDevices::new(4096).unwrap();
        let engine = Engine::start(config, Box::new(devices), false).unwrap();
        let shared = Arc::clone(engine.shared());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let mut engine = engine;
            serve(socket, &engine, async { drop(stopped.await) }).await.unwrap();
            assert_eq!(engine.stop().unwrap().frames_leaked, 0);
        });
        let channel = connect("vswitchd", &path).await.unwrap();
        Self { client: EngineClient::new(channel), world, shared, stop, server, directory }
    }

    async fn apply(&mut self, generation: u64, state: &DesiredState) -> pb::ApplyReply {
        self.client.apply(apply_request(Generation(generation), None, state)).await.unwrap().into_inner()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
        assert!(!self.directory.path().join("engine.sock").exists(), "the socket is removed");
    }
}

const A: [u8; 4] = [10, 1, 0, 10];
const B: [u8; 4] = [10, 1, 0, 11];

fn udp(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let [a, b, c, d] = from;
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([0x02, 0, a, b, c, d], Mac::GATEWAY.0).ipv4(from, to, 64);
    builder.udp(4000, port).write(&mut bytes, b"payload").unwrap();
    bytes
}

/// Two pods of one identity, to which only UDP port 5000 is admitted.
fn isolated() -> DesiredState {
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    let ports = vec![PortMatch { protocol: 17, first: 5000, last: 5000 }];
    let position = "ingress rule 1".to_owned();
    let rule = Rule { ports, ..Rule::new(RuleId(16), Action::Allow, position) };
    let policy = Policy {
        id: PolicyId(1),
        name: "NetworkPolicy default/media".into(),
        standing: Standing::Enforced,
        rules: vec![rule],
        end: Some(PolicyEnd { id: RuleId(17), position: "ingress: no rule matched".into() }),
    };
    let tier = Tier { name: "kubernetes".into(), policies: vec![policy.id], default: TierDefault::Deny };
    let subject = Subject { identity: IdentityId(16), ingress: vec![tier], egress: Vec::new() };
    state.policies.insert(policy.id, policy);
    state.subjects.insert(subject.identity, subject);
    state
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn states_deltas_and_refusals() {
    let mut served = Served::start().await;
    assert_eq!(served.apply(3, &one_pod()).await, pb::ApplyReply { generation: 3, failed_ports: Vec::new() });
    let read = served.client.get_state(pb::GetStateRequest {}).await.unwrap().into_inner();
    assert_eq!((read.generation, read.state), (3, Some(one_pod().into())));

    let to = isolated();
    let ahead = apply_request(Generation(5), Some((Generation(4), &one_pod())), &to);
    let status = served.client.apply(ahead).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let delta = apply_request(Generation(5), Some((Generation(3), &one_pod())), &to);
    assert_eq!(served.client.apply(delta).await.unwrap().into_inner().generation, 5);

    let mut wrong: pb::DesiredState = to.clone().into();
    wrong.ports[1].mac = "nonsense".into();
    let change = Some(pb::apply_request::Change::Full(wrong));
    let status = served.client.apply(pb::ApplyRequest { generation: 6, change }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("full.ports[1].mac: "), "{}", status.message());
    let status = served.client.apply(pb::ApplyRequest { generation: 6, change: None }).await.unwrap_err();
    assert!(status.message().starts_with("change: is missing"), "{}", status.message());

    served.world.set_missing("pod-c", true);
    let mut more = to.clone();
    add_pod(&mut more, "pod-c", &["10.1.0.12"]);
    let failed = served.apply(7, &more).await.failed_ports;
    assert_eq!((failed.len(), failed[0].port.as_str()), (1, "pod-c"));
    let status = served.client.get_status(pb::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.node.as_str(), status.generation_desired, status.generation_in_force), ("one", 7, 7));
    let names: Vec<_> =
        status.ports.iter().map(|port| (port.name.as_str(), port.failure.is_empty())).collect();
    assert_eq!(names, [("pod-a", true), ("pod-b", true), ("vswitch0", true), ("pod-c", false)]);
    served.stop().await;
}

#[tokio::test]
async fn packets_show_in_counters_flows_trace_and_metrics() {
    let mut served = Served::start().await;
    served.apply(1, &isolated()).await;
    let request = pb::TraceRequest { address: "10.1.0.11".into(), limit: 2, ..pb::TraceRequest::default() };
    let mut trace = served.client.trace(request.clone()).await.unwrap().into_inner();
    let status = served.client.trace(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "one at a time");

    let (a, b) = (served.world.peer("pod-a").unwrap(), served.world.peer("pod-b").unwrap());
    assert!(a.send(&udp(A, B, 5000)) && a.send(&udp(A, B, 5001)));
    let arrived = until("the admitted packet arrives", async || b.receive()).await;
    assert!(arrived.ends_with(b"payload"));

    let first = trace.message().await.unwrap().unwrap();
    assert_eq!((first.in_port.as_str(), first.out_port.as_str()), ("pod-a", "pod-b"));
    let flow = first.steps.iter().find(|step| step.stage == "flow").unwrap();
    assert!(flow.detail.contains("16 is NetworkPolicy default/media, ingress rule 1"), "{}", flow.detail);
    let second = trace.message().await.unwrap().unwrap();
    assert_eq!((second.out_port.as_str(), second.drop_reason.as_str()), ("", "policy-ingress"));
    assert_eq!(trace.message().await.unwrap(), None, "the limit ends it");

    let counters = served.client.get_counters(pb::GetCountersRequest {}).await.unwrap().into_inner();
    let port = |name: &str| counters.ports.iter().find(|port| port.name == name).unwrap().clone();
    assert_eq!((port("pod-a").rx_packets, port("pod-b").tx_packets), (2, 1));
    assert_eq!(counters.drops, [pb::DropCounter { reason: "policy-ingress".into(), packets: 1 }]);
    let frames = counters.frames.unwrap();
    assert_eq!((frames.total, frames.unaccounted), (4096, 0));

    let request = pb::ListFlowsRequest { limit: 0, address: "10.1.0.10".into() };
    let mut flows = served.client.list_flows(request).await.unwrap().into_inner();
    let flow = flows.message().await.unwrap().unwrap();
    assert_eq!(
        (flow.source.as_str(), flow.destination_port, flow.state.as_str()),
        ("10.1.0.10", 5000, "new")
    );
    assert_eq!((flow.packets_original, flow.ingress_rule, flow.generation), (1, 16, 1));
    assert_eq!(flows.message().await.unwrap(), None);
    let request = pb::ListFlowsRequest { limit: 0, address: "10.1.0.99".into() };
    assert_eq!(served.client.list_flows(request).await.unwrap().into_inner().message().await.unwrap(), None);

    let text = crate::metrics::text(Arc::clone(&served.shared));
    for line in [
        "vswitch_port_receive_packets_total{port=\"pod-a\",role=\"pod\",workload=\"default/pod\"} 2",
        "vswitch_port_drops_total{port=\"pod-a\",role=\"pod\",workload=\"default/pod\",reason=\"policy-ingress\"} 1",
        "vswitch_flows_created_total{worker=\"0\"} 1",
        "vswitch_generation_in_force 1",
        "vswitch_frames{place=\"unaccounted\"} 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\nis not in\n{text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn explain_names_the_rule_that_decides() {
    let mut served = Served::start().await;
    served.apply(1, &isolated()).await;
    let request = |port| pb::ExplainRequest {
        source: "10.1.0.10".into(),
        destination: "10.1.0.11".into(),
        protocol: 17,
        source_port: 4000,
        destination_port: port,
    };
    let reply = served.client.explain(request(5000)).await.unwrap().into_inner();
    assert!(reply.allowed && reply.out_port == "pod-b", "{reply:?}");
    let ingress = reply.ingress.unwrap();
    assert_eq!(ingress.text, "allowed by NetworkPolicy default/media, ingress rule 1");
    let reply = served.client.explain(request(5001)).await.unwrap().into_inner();
    assert_eq!((reply.allowed, reply.drop_reason.as_str()), (false, "policy-ingress"));
    assert_eq!(
        reply.ingress.unwrap().text,
        "denied by NetworkPolicy default/media, ingress: no rule matched"
    );
    let wrong = pb::ExplainRequest { protocol: 300, ..request(1) };
    let status = served.client.explain(wrong).await.unwrap_err();
    assert_eq!(status.message(), "protocol: 300 is out of range: 0 to 255");
    served.stop().await;
}

#[tokio::test]
async fn rules_count_and_denied_flows_are_told() {
    let mut served = Served::start().await;
    served.apply(1, &isolated()).await;
    let request =
        pb::WatchFlowLogRequest { denied_only: true, limit: 1, ..pb::WatchFlowLogRequest::default() };
    let mut log = served.client.watch_flow_log(request).await.unwrap().into_inner();
    let (a, b) = (served.world.peer("pod-a").unwrap(), served.world.peer("pod-b").unwrap());
    assert!(a.send(&udp(A, B, 5000)) && a.send(&udp(A, B, 5001)));
    until("the admitted packet arrives", async || b.receive()).await;
    let record = log.message().await.unwrap().unwrap();
    assert_eq!((record.destination_port, record.drop_reason.as_str()), (5001, "policy-ingress"));
    assert_eq!((record.source_name.as_str(), record.in_port.as_str()), ("default/pod", "pod-a"));
    let ingress = record.ingress.unwrap();
    assert_eq!(ingress.text, "denied by NetworkPolicy default/media, ingress: no rule matched");
    assert_eq!(log.message().await.unwrap(), None, "the limit ends it");
    let wrong = pb::WatchFlowLogRequest { address: "x".into(), ..pb::WatchFlowLogRequest::default() };
    assert_eq!(served.client.watch_flow_log(wrong).await.unwrap_err().code(), Code::InvalidArgument);

    let media = "NetworkPolicy default/media";
    let [rule, end] = rules(&mut served, media).await.try_into().unwrap();
    assert_eq!(
        (end.rule, end.position.as_str(), end.action()),
        (17, "ingress: no rule matched", pb::Action::Deny)
    );
    assert_eq!((end.flows, end.denied_packets), (0, 1));
    assert_eq!((rule.rule, rule.position.as_str(), rule.action()), (16, "ingress rule 1", pb::Action::Allow));
    assert_eq!((rule.flows, rule.packets, rule.bytes, rule.denied_packets), (1, 1, 35, 0));
    assert_eq!(rules(&mut served, "NetworkPolicy default/other").await, []);
    let all = rules(&mut served, "").await;
    let denied: Vec<_> = all.iter().map(|rule| (rule.rule, rule.denied_packets)).collect();
    assert_eq!(denied, [(16, 0), (17, 1)]);

    // Another rule takes the number: it has done nothing yet, and the flow it allows is its own from now on.
    let mut state = isolated();
    state.policies.values_mut().next().unwrap().rules[0].position = "ingress rule 2".into();
    served.apply(2, &state).await;
    let [rule, end] = rules(&mut served, media).await.try_into().unwrap();
    assert_eq!((rule.position.as_str(), rule.flows, rule.packets), ("ingress rule 2", 0, 0));
    assert_eq!(end.denied_packets, 1, "the end is the same");
    served.stop().await;
}

async fn rules(served: &mut Served, policy: &str) -> Vec<pb::RuleCounters> {
    let request = pb::ListRulesRequest { policy: policy.into() };
    let mut stream = served.client.list_rules(request).await.unwrap().into_inner();
    let mut rules = Vec::new();
    while let Some(rule) = stream.message().await.unwrap() {
        rules.push(rule);
    }
    rules
}

#[tokio::test]
async fn a_socket_is_taken_over_from_the_dead_only() {
    let served = Served::start().await;
    let path = served.directory.path().join("engine.sock");
    let error = Socket::bind("vswitchd", &path).unwrap_err();
    assert!(error.to_string().contains("another vswitchd is serving there"), "{error}");
    let dead = served.directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    drop(Socket::bind("vswitchd", &dead).unwrap());
    assert!(!dead.exists());
    std::fs::write(&dead, "precious").unwrap();
    let error = Socket::bind("vswitchd", &dead).unwrap_err();
    assert!(error.to_string().contains("is not a socket"), "{error}");
    assert_eq!(std::fs::read(&dead).unwrap(), b"precious");
    served.stop().await;
}

#[tokio::test]
async fn scrapers_are_answered_over_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = Served::start().await;
    let listener = crate::metrics::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(crate::metrics::serve(listener, Arc::clone(&served.shared)));
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(status), "{request:?}: {answer}");
        assert_eq!(answer.contains("vswitch_generation_desired 0"), status.contains("200"), "{answer}");
    }
    server.abort();
    served.stop().await;
}
