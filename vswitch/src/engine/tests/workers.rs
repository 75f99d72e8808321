//! Several workers over memory ports: whichever two they are of, ports reach each other; flows are followed once; packets keep
//! their order; every frame comes home.

use std::collections::BTreeSet;

use vswitch_model::NextHop;

use super::*;
use crate::netlink::{Hop, Link};

/// Pods, one more than workers, so that some share one.
const PODS: u8 = 4;
const WORKERS: usize = 3;
const UPLINK: &str = "up0";
const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0xff, 1]);
const FAR: [u8; 4] = [10, 2, 0, 9];

fn address(pod: u8) -> [u8; 4] {
    [10, 1, 0, 100 + pod]
}

fn name(pod: u8) -> String {
    format!("pod-{pod}")
}

/// Four pods and, behind an uplink with three queues, a prefix that is reached directly; on one core, as many as there are
/// workers. More are not needed for them to be in each other's way.
fn start(poll: Poll) -> Node {
    let directory = directory();
    let (devices, world) = MemoryDevices::new(FRAMES).unwrap();
    let core = core_affinity::get_core_ids().unwrap()[0].id;
    let config = Config {
        cores: vec![core; WORKERS],
        uplinks: vec![PortName::new(UPLINK).unwrap()],
        ..config(&directory, poll)
    };
    let engine = Engine::start(config, Box::new(devices), false).unwrap();
    let mut state = empty_node();
    for pod in 0..PODS {
        add_pod(&mut state, &name(pod), &[&format!("10.1.0.{}", 100 + pod)]);
    }
    let remote = "192.0.2.9".parse().unwrap();
    let far: ipnet::IpNet = "10.2.0.0/24".parse().unwrap();
    state.routes.insert(far, NextHop::Direct(remote));
    state.prefixes.insert(far, IdentityId(16));
    let hop = Hop {
        interface: UPLINK.into(),
        source: UPLINK_MAC,
        destination: Mac([2, 0, 0, 0, 0xff, 9]),
        mtu: 1500,
        weight: 1,
        on_link: true,
    };
    let link = Link { index: 7, mac: UPLINK_MAC, mtu: 1500, up: true, carrier: true };
    engine.tell_facts(Facts {
        links: [(UPLINK.to_owned(), link)].into(),
        hops: [(remote, Ok(vec![hop]))].into(),
        ..Facts::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let node = Node { engine, world, runtime, directory };
    assert_eq!(node.full(1, &state).unwrap().failed_ports, BTreeMap::new());
    node
}

/// What the next hop sends to a pod.
fn from_far(pod: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = udp(FAR, address(pod), payload);
    frame[..6].copy_from_slice(&UPLINK_MAC.0);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0xff, 9]);
    frame
}

/// The peer of each queue of the uplink.
fn queues(node: &Node) -> Vec<MemoryPeer> {
    let name = |queue| if queue == 0 { UPLINK.to_owned() } else { format!("{UPLINK}/{queue}") };
    (0..WORKERS).map(|queue| node.peer(&name(queue))).collect()
}

/// The next packet on one of several queues.
fn receive_any(peers: &[MemoryPeer]) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(bytes) = peers.iter().find_map(MemoryPeer::receive) {
            return bytes;
        }
        assert!(Instant::now() < deadline, "nothing came");
        std::thread::yield_now();
    }
}

fn flows_created(node: &Node) -> u64 {
    node.engine.shared().workers.iter().map(|worker| worker.counters.flows_created.get()).sum()
}

#[test]
fn every_two_ends_reach_each_other_within_one_flow() {
    for poll in [Poll::Busy, Poll::Adaptive] {
        let node = start(poll);
        let owners: BTreeSet<usize> =
            node.engine.shared().snapshot.load().ports.open.values().map(|open| open.worker).collect();
        assert_eq!(owners.len(), WORKERS, "every worker has ports");
        let mut flows = 0;
        for a in 0..PODS {
            for b in (0..PODS).filter(|b| *b > a) {
                let (pod_a, pod_b) = (node.peer(&name(a)), node.peer(&name(b)));
                assert!(pod_a.send(&udp(address(a), address(b), b"there")));
                assert!(receive(&pod_b).ends_with(b"there"));
                // The same five-tuple turned round: a second record would be a second flow.
                let mut back = udp(address(b), address(a), b"back");
                back[34..38].copy_from_slice(&[0x13, 0x88, 0x0f, 0xa0]);
                assert!(pod_b.send(&back));
                assert!(receive(&pod_a).ends_with(b"back"));
                flows += 1;
            }
            let queues = queues(&node);
            let pod = node.peer(&name(a));
            assert!(pod.send(&udp(address(a), FAR, b"out")));
            assert!(receive_any(&queues).ends_with(b"out"));
            flows += 1;
            // By whichever queue it comes.
            for queue in &queues {
                let mut back = from_far(a, b"in");
                back[34..38].copy_from_slice(&[0x13, 0x88, 0x0f, 0xa0]);
                assert!(queue.send(&back));
                assert!(receive(&pod).ends_with(b"in"));
            }
        }
        assert_eq!(flows_created(&node), flows);
        let (report, _) = node.stop();
        assert_eq!(report.drops, BTreeMap::new());
        assert_eq!(report.ports["pod-0"].rx_packets, u64::from(PODS));
        assert_eq!(report.ports["pod-0"].tx_packets, u64::from(PODS) - 1 + WORKERS as u64);
        assert_eq!(report.ports[UPLINK].rx_packets, u64::from(PODS) * WORKERS as u64);
        assert_eq!(report.ports[UPLINK].tx_packets, u64::from(PODS));
    }
}

/// More packets one way than any worker has frames: they come in order, and frames come back to who receives.
#[test]
fn a_stream_keeps_its_order_and_frames_come_back() {
    const PACKETS: u32 = 20_000;
    let node = start(Poll::Adaptive);
    let queues = queues(&node);
    for pod in 0..PODS {
        let peer = node.peer(&name(pod));
        let queue = &queues[usize::from(pod) % WORKERS];
        let (mut sent, mut came) = (0u32, 0u32);
        let deadline = Instant::now() + PATIENCE;
        while came < PACKETS {
            // No more under way than a lane and a ring hold: what is lost here would be lost by a bug.
            while sent < PACKETS && sent - came < 512 && queue.send(&from_far(pod, &sent.to_be_bytes())) {
                sent += 1;
            }
            while let Some(frame) = peer.receive() {
                assert!(frame.ends_with(&came.to_be_bytes()), "number {came} of pod {pod}");
                came += 1;
            }
            assert!(Instant::now() < deadline, "{came} of {PACKETS} came");
            std::thread::yield_now();
        }
    }
    let (report, _) = node.stop();
    assert_eq!(report.drops, BTreeMap::new());
}

/// The engine stops while everybody sends to everybody: what is under way is counted, and its frames are free.
#[test]
fn what_is_under_way_at_the_stop_is_accounted_for() {
    let node = start(Poll::Busy);
    let shared = Arc::clone(node.engine.shared());
    let senders: Vec<_> = (0..PODS)
        .map(|pod| {
            let peer = node.peer(&name(pod));
            std::thread::spawn(move || {
                let mut sent = 0u64;
                while !peer.closed() {
                    for to in (0..PODS).filter(|to| *to != pod) {
                        sent += u64::from(peer.send(&udp(address(pod), address(to), b"x")));
                    }
                    while peer.receive().is_some() {}
                }
                sent
            })
        })
        .collect();
    until("they are under way", || flows_created(&node) >= 6);
    let received = || -> u64 {
        let ports = |worker: &Handle| {
            (0..8).map(|n| worker.counters.port(vswitch_datapath::PortIndex(n)).rx_packets.get()).sum::<u64>()
        };
        shared.workers.iter().map(ports).sum()
    };
    until("a few thousand came", || received() > 5000);
    let (report, _) = node.stop();
    let sent: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    let (rx, tx): (u64, u64) = report
        .ports
        .values()
        .map(|port| (port.rx_packets, port.tx_packets))
        .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let dropped: u64 = report.drops.values().sum();
    assert_eq!(rx, tx + dropped, "what came left, or ended for a reason: {:?}", report.drops);
    assert!(rx <= sent);
}
