//! The engine over memory ports: what is wanted comes into force, packets pass, and any state may follow any.

mod numbers;
mod workers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use vswitch_datapath::Tables;
use vswitch_datapath::policy::{FlowPorts, PolicyDirection, oracle};
use vswitch_model::{
    Action, Change, Delta, DesiredState, DropReason, Generation, Identity, IdentityId, IdentityKind,
    IdentitySet, Mac, Policy, PolicyId, PortMatch, PortName, Rule, RuleId, SetId, Standing, Subject, Tier,
    TierDefault,
};

use super::*;
use crate::config::Poll;
use crate::io::MemoryPeer;
use crate::testing::{add_pod, empty_node, one_pod};

const PATIENCE: Duration = Duration::from_secs(10);
const FRAMES: usize = 4096;

struct Node {
    engine: Engine,
    world: MemoryWorld,
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

fn config(directory: &tempfile::TempDir, poll: Poll) -> Config {
    Config {
        poll,
        flows: 1024,
        fragments: 16,
        state_file: directory.path().join("engine.state"),
        ..Config::default()
    }
}

/// In memory: these tests are not about how long a disk takes to sync.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Node {
    fn start(poll: Poll) -> Self {
        Self::start_in(directory(), poll, &[])
    }

    fn start_in(directory: tempfile::TempDir, poll: Poll, missing: &[&str]) -> Self {
        let (devices, world) = MemoryDevices::new(FRAMES).unwrap();
        missing.iter().for_each(|name| world.set_missing(name, true));
        let engine = Engine::start(config(&directory, poll), Box::new(devices), false).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { engine, world, runtime, directory }
    }

    fn apply(&self, generation: u64, desire: Desire) -> Result<Applied, ApplyError> {
        self.runtime.block_on(self.engine.applier().apply(Generation(generation), desire))
    }

    fn full(&self, generation: u64, state: &DesiredState) -> Result<Applied, ApplyError> {
        self.apply(generation, Desire::Full(Box::new(state.clone())))
    }

    fn peer(&self, port: &str) -> MemoryPeer {
        self.world.peer(port).unwrap()
    }

    /// Stops the engine and checks that no frame is lost.
    fn stop(mut self) -> (FinalReport, tempfile::TempDir) {
        let report = self.engine.stop().unwrap();
        assert_eq!((report.frames_leaked, report.frames_free), (0, FRAMES as u64));
        (report, self.directory)
    }
}

#[test]
fn an_uplink_that_is_not_there_is_taken_up_when_it_comes() {
    let directory = directory();
    let (devices, world) = MemoryDevices::new(FRAMES).unwrap();
    world.set_missing("eth1", true);
    let [eth0, eth1] = ["eth0", "eth1"].map(|name| PortName::new(name).unwrap());
    let config = Config { uplinks: vec![eth0.clone(), eth1.clone()], ..config(&directory, Poll::Adaptive) };
    let engine = Engine::start(config.clone(), Box::new(devices), false).unwrap();
    let ports = || engine.shared().snapshot.load().ports.clone();
    assert!(ports().open.contains_key(&eth0) && ports().failed[&eth1].contains("none of this name"));
    world.set_missing("eth1", false);
    until("it is open", || ports().open.contains_key(&eth1) && ports().failed.is_empty());
    drop(engine);
    // Without the host port there is nothing to start.
    let (devices, world) = MemoryDevices::new(FRAMES).unwrap();
    world.set_missing(config.host_port.as_str(), true);
    let refused = Engine::start(config, Box::new(devices), false).unwrap_err();
    assert!(matches!(&refused, StartError::Port { port, .. } if port == "vswitch0"), "{refused}");
}

/// A UDP packet from one pod to another, as the sender's veth gives it.
fn udp(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = from;
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([0x02, 0, a, b, c, d], Mac::GATEWAY.0)
        .ipv4(from, to, 64)
        .udp(4000, 5000)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn receive(peer: &MemoryPeer) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(bytes) = peer.receive() {
            return bytes;
        }
        assert!(Instant::now() < deadline, "nothing came");
        std::thread::yield_now();
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

const A: [u8; 4] = [10, 1, 0, 10];
const B: [u8; 4] = [10, 1, 0, 11];

fn two_pods() -> DesiredState {
    let mut state = one_pod();
    add_pod(&mut state, "pod-b", &["10.1.0.11"]);
    state
}

#[test]
fn pods_reach_each_other_in_both_poll_modes() {
    for poll in [Poll::Busy, Poll::Adaptive] {
        let node = Node::start(poll);
        assert_eq!(node.full(1, &two_pods()).unwrap().failed_ports, BTreeMap::new());
        let (a, b) = (node.peer("pod-a"), node.peer("pod-b"));
        if poll == Poll::Adaptive {
            let worker = &node.engine.shared().workers[0];
            until("an idle worker sleeps", || worker.status.sleeps.get() > 0);
        }
        assert!(a.send(&udp(A, B, b"there")));
        let there = receive(&b);
        assert_eq!(there[..6], [0x02, 0, 10, 1, 0, 11]);
        assert!(there.ends_with(b"there"));
        assert!(b.send(&udp(B, A, b"and back")));
        assert!(receive(&a).ends_with(b"and back"));
        // Neither its MAC nor its address: dropped, with its reason.
        assert!(a.send(&udp([10, 1, 0, 99], B, b"spoofed")));
        let counters = Arc::clone(&node.engine.shared().workers[0].counters);
        until("the spoofed packet is counted", || counters.drops(DropReason::SpoofedMac) == 1);
        let (report, _) = node.stop();
        assert_eq!(report.drops, BTreeMap::from([("spoofed-mac", 1)]));
        assert_eq!((report.ports["pod-a"].rx_packets, report.ports["pod-a"].tx_packets), (2, 1));
        assert_eq!((report.ports["pod-b"].rx_packets, report.ports["pod-b"].tx_packets), (1, 1));
    }
}

#[test]
fn a_delta_needs_its_base_and_a_whole_result() {
    let node = Node::start(Poll::Adaptive);
    node.full(5, &one_pod()).unwrap();
    let to = two_pods();
    let delta =
        |base: u64| Desire::Delta(Delta { base: Generation(base), changes: one_pod().changes_to(&to) });
    let current = Generation(5);
    assert_eq!(node.apply(6, delta(4)), Err(ApplyError::ResyncNeeded { base: Generation(4), current }));
    assert_eq!(node.apply(5, delta(5)), Err(ApplyError::Generation { generation: current, current }));
    assert_eq!(node.full(4, &to), Err(ApplyError::Generation { generation: Generation(4), current }));
    assert_eq!(node.apply(9, delta(5)).unwrap().generation, Generation(9));
    assert_eq!(node.full(9, &to).unwrap().generation, Generation(9), "the same again is no change");

    let mut broken = to.clone();
    broken.ports.remove(&PortName::new("pod-b").unwrap());
    let error = node.full(10, &broken).unwrap_err().to_string();
    assert_eq!(error, "routes[10.1.0.11/32]: refers to port pod-b, which is not there");
    let mut taken = empty_node();
    add_pod(&mut taken, "vswitch0", &["10.1.0.12"]);
    let error = node.full(10, &taken).unwrap_err().to_string();
    assert!(error.starts_with("ports[vswitch0].name: is the name of an uplink"), "{error}");
    let snapshot = node.engine.shared().snapshot.load_full();
    assert_eq!(
        (snapshot.generation, &*snapshot.desired),
        (Generation(9), &to),
        "the state before stays in force"
    );
    node.stop();
}

#[test]
fn a_pod_without_its_interface_is_reported_and_opened_when_it_comes() {
    let node = Node::start(Poll::Adaptive);
    node.world.set_missing("pod-b", true);
    let failed = node.full(1, &two_pods()).unwrap().failed_ports;
    let reason = "interface pod-b: there is none of this name".to_owned();
    assert_eq!(failed, BTreeMap::from([(PortName::new("pod-b").unwrap(), reason)]));
    let a = node.peer("pod-a");
    assert!(a.send(&udp(A, B, b"too early")));
    let counters = Arc::clone(&node.engine.shared().workers[0].counters);
    until("it is dropped", || counters.drops(DropReason::PortGone) == 1);

    node.world.set_missing("pod-b", false);
    node.engine.tell_facts(Facts::default());
    until("the port is open", || node.engine.shared().snapshot.load().ports.failed.is_empty());
    assert!(a.send(&udp(A, B, b"in time")));
    assert!(receive(&node.peer("pod-b")).ends_with(b"in time"));
    node.stop();
}

#[test]
fn a_restarted_engine_forwards_before_anybody_speaks() {
    let node = Node::start(Poll::Adaptive);
    node.full(7, &two_pods()).unwrap();
    let (_, directory) = node.stop();
    // One pod went away while the engine was down.
    let mut state = two_pods();
    add_pod(&mut state, "pod-c", &["10.1.0.12"]);
    let node = Node::start_in(directory, Poll::Adaptive, &[]);
    let snapshot = node.engine.shared().snapshot.load_full();
    assert!(snapshot.restored);
    assert_eq!(
        (snapshot.generation, node.engine.shared().generation_in_force(&snapshot)),
        (Generation(7), Generation(7))
    );
    assert!(node.peer("pod-a").send(&udp(A, B, b"again")));
    assert!(receive(&node.peer("pod-b")).ends_with(b"again"));
    node.full(8, &state).unwrap();
    assert!(!node.engine.shared().snapshot.load().restored);
    let (_, directory) = node.stop();

    let node = Node::start_in(directory, Poll::Adaptive, &["pod-b"]);
    let failed = node.engine.shared().snapshot.load().ports.failed.clone();
    assert_eq!(failed.keys().map(PortName::as_str).collect::<Vec<_>>(), ["pod-b"]);
    assert!(node.world.peer("pod-c").is_some());
    node.stop();
}

#[test]
fn a_damaged_state_file_is_set_aside_and_the_engine_starts_empty() {
    let directory = directory();
    std::fs::write(directory.path().join("engine.state"), b"vswstat1 but not really").unwrap();
    let node = Node::start_in(directory, Poll::Adaptive, &[]);
    assert_eq!(node.engine.shared().snapshot.load().generation, Generation(0));
    assert!(node.directory.path().join("engine.state.damaged").exists());
    node.full(1, &one_pod()).unwrap();
    let (_, directory) = node.stop();
    assert!(directory.path().join("engine.state").exists());
}

#[test]
fn a_state_that_cannot_be_saved_is_in_force_and_told() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("engine.state.new")).unwrap();
    let node = Node::start_in(directory, Poll::Adaptive, &[]);
    node.full(1, &two_pods()).unwrap();
    let error = node.engine.shared().snapshot.load().save_error.clone().unwrap();
    assert!(error.contains("cannot write it"), "{error}");
    assert!(node.peer("pod-a").send(&udp(A, B, b"all the same")));
    assert!(receive(&node.peer("pod-b")).ends_with(b"all the same"));
    std::fs::remove_dir(node.directory.path().join("engine.state.new")).unwrap();
    until("it is saved later", || node.engine.shared().snapshot.load().save_error.is_none());
    node.stop();
}

#[test]
fn a_state_that_a_worker_is_late_to_run_is_saved() {
    let node = Node::start(Poll::Adaptive);
    drop(node.engine.shared().workers[0].stop(PATIENCE));
    assert_eq!(node.full(1, &empty_node()), Err(ApplyError::NotInForce(Generation(1))));
    let mut file = StateFile::new(node.directory.path().join("engine.state"));
    let saved = file.load().unwrap();
    assert_eq!(saved, Some((Generation(1), empty_node())));
    node.stop();
}

/// A state of some of six pods, each of an identity of its own; those of even numbers are reached by some only.
fn states() -> impl Strategy<Value = DesiredState> {
    let some = || proptest::collection::btree_set(0u8..6, 0..6);
    (some(), some(), 0u16..3).prop_map(|(pods, friends, port)| {
        let mut state = empty_node();
        let identity = |pod: u8| IdentityId(20 + u32::from(pod));
        let friends = friends.intersection(&pods).map(|pod| identity(*pod));
        state.apply(Change::SetSet(IdentitySet { id: SetId(1), members: friends.collect() }));
        let ports = vec![PortMatch { protocol: 6, first: port, last: 80 }];
        let rule = Rule {
            peers: Some(SetId(1)),
            ports,
            ..Rule::new(RuleId(16 + u32::from(port)), Action::Allow, "rule 1".into())
        };
        let (id, standing) = (PolicyId(1), Standing::Enforced);
        state.apply(Change::SetPolicy(Policy {
            id,
            name: "policy".into(),
            standing,
            rules: vec![rule],
            end: None,
        }));
        for pod in pods {
            let (id, kind) = (identity(pod), IdentityKind::Pod);
            state.apply(Change::SetIdentity(Identity { id, kind, description: format!("pod {pod}") }));
            let v6 = format!("fd00::{pod}");
            add_pod(&mut state, &format!("pod-{pod}"), &[&format!("10.1.0.{}", 100 + pod), &v6]);
            state.apply(Change::SetPrefix(format!("10.1.0.{}/32", 100 + pod).parse().unwrap(), id));
            if pod % 2 == 0 {
                let tier =
                    Tier { name: "tier".into(), policies: vec![PolicyId(1)], default: TierDefault::Deny };
                let subject = Subject { identity: id, ingress: vec![tier], egress: Vec::new() };
                state.apply(Change::SetSubject(subject));
            }
        }
        state
    })
}

/// That the tables say of all pods what the state does.
fn check_policy(tables: &Tables, state: &DesiredState) {
    let everybody = (16..28).map(IdentityId);
    for (subject, peer) in
        everybody.clone().flat_map(|subject| everybody.clone().map(move |peer| (subject, peer)))
    {
        for port in [0, 1, 2, 80, 81] {
            let told = tables.policy.ingress(subject, peer, FlowPorts::to(6, port));
            let right =
                oracle::verdict(state, PolicyDirection::Ingress, subject, peer, FlowPorts::to(6, port));
            assert_eq!(told, right, "{peer} to {subject} at {port}");
        }
    }
    for (prefix, identity) in &state.prefixes {
        assert_eq!(tables.lookup(prefix.addr()).identity, *identity, "{prefix}");
    }
}

/// The outcome must depend on the last state alone, whatever came before and however it was sent.
#[test]
fn any_state_follows_any() {
    let node = Node::start(Poll::Adaptive);
    let mut runner = TestRunner::deterministic();
    let mut current = DesiredState::default();
    for generation in 1..=300u64 {
        let next = states().new_tree(&mut runner).unwrap().current();
        let missing = format!("pod-{}", generation % 2);
        node.world.set_missing(&missing, generation % 3 == 0);
        let desire = match generation % 4 {
            0 => Desire::Full(Box::new(next.clone())),
            _ => {
                Desire::Delta(Delta { base: Generation(generation - 1), changes: current.changes_to(&next) })
            }
        };
        let mut changed = desire;
        if let (Desire::Delta(_), true) = (&changed, current.local.is_none()) {
            changed = Desire::Full(Box::new(next.clone()));
        }
        let applied = node.apply(generation, changed).unwrap();
        let snapshot = node.engine.shared().snapshot.load_full();
        assert_eq!(*snapshot.desired, next);
        let open: Vec<_> = snapshot.ports.open.keys().filter(|name| next.ports.contains_key(*name)).collect();
        let expected: Vec<_> =
            next.ports.keys().filter(|name| !applied.failed_ports.contains_key(*name)).collect();
        assert_eq!(open, expected);
        assert_eq!(snapshot.ports.open.len(), open.len() + 1, "and the host port");
        for (name, port) in &snapshot.ports.open {
            assert_eq!(snapshot.tables.port(port.index).name.as_ref(), Some(name));
        }
        check_policy(&snapshot.tables, &next);
        let saved = StateFile::new(node.directory.path().join("engine.state")).load().unwrap();
        assert_eq!(saved, Some((Generation(generation), next.clone())));
        current = next;
    }
    node.stop();
}
