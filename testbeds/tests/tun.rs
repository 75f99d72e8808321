//! Pods with tuns: who reaches whom, large packets cut and coalesced, and the engine's restart.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use common::{FAMILIES, SOON, Scene, V4, V6, must, scene, time_until};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::iperf;
use vswitch_testbeds::traffic::ping::{Ping, all_answered};
use vswitch_testbeds::traffic::probe::{PATIENCE, any, udp_answers};

const NEAR: &str = "test/near";
const BESIDE: &str = "test/beside";
const FAR: &str = "test/far";
const VETH: &str = "test/veth";

/// Tuns on both nodes, and a veth beside them.
fn tuns() -> Topology {
    Topology::two_nodes()
        .namespace("test", &[])
        .pod(NEAR, "node1", &[])
        .with_tun()
        .pod(BESIDE, "node1", &[])
        .with_tun()
        .pod(FAR, "node2", &[])
        .with_tun()
        .pod(VETH, "node1", &[])
}

/// What a node's engine has counted at a stage.
fn passed(scene: &Scene, node: &str, stage: &str) -> u64 {
    let counters = must(must(must(scene.node(node)).engine()).counters());
    counters.stages.iter().find(|counter| counter.stage == stage).map_or(0, |counter| counter.packets)
}

#[test]
fn pods_with_tuns_reach_and_are_reached_and_outlive_the_engine() {
    let Some(mut scene) = scene("ttun", tuns(), Settings::default()) else { return };
    let ports = must(must(must(scene.node("node1")).engine()).status()).ports;
    let kinds = |workload: &str| {
        let port = ports.iter().find(|port| port.workload == workload).unwrap();
        (port.kind.clone(), port.mac.is_empty())
    };
    assert_eq!((kinds(NEAR), kinds(VETH)), (("tun".to_owned(), true), ("af_xdp".to_owned(), false)));
    for family in FAMILIES {
        for (from, to) in [(NEAR, BESIDE), (NEAR, VETH), (VETH, NEAR), (NEAR, FAR), (FAR, VETH)] {
            let netns = &must(scene.pod(from)).netns;
            must(all_answered(netns, &Ping::to(must(scene.address(to, family)))));
        }
    }
    // What a pod sends under another's address ends.
    let near = must(scene.pod(NEAR)).netns.clone();
    must(near.ip("addr add 10.44.200.200/32 dev lo"));
    let veth = must(scene.address(VETH, V4));
    scene.drops("node1", "spoofed-address", 1, || {
        let _unanswered = near.run(&format!("ping -c 1 -W 1 -I 10.44.200.200 {veth}"));
    });

    let network = must(scene.node("node1")).network.clone();
    let container = must(scene.pod(BESIDE)).clone();
    assert_eq!(must(network.check(&container)), Ok(()));

    // The device stays, with its addresses, and the engine that comes back takes it up again, alone.
    let _servers = scene.serve(FAR, &[7]);
    let target = scene.at(FAR, V6, 7);
    must(must(scene.node_mut("node1")).stop_agent());
    must(scene.node_mut("node1")).kill_engine();
    let shown = must(near.ip("-o addr show dev eth0"));
    assert!(shown.contains(&must(scene.address(NEAR, V4)).to_string()), "{shown}");
    must(must(scene.node_mut("node1")).start_engine());
    time_until("the pod to talk again", SOON, || {
        must(udp_answers(&near, target, Duration::from_millis(100)))
    });
    must(must(scene.node_mut("node1")).start_agent());
    must(must(scene.node_mut("node1")).wait_ready());
    must(scene.note());

    assert_eq!(must(network.check(&container)), Ok(()));
    assert_eq!(must(network.delete(&container)), Ok(()));
    assert!(container.netns.ip("link show dev eth0").is_err(), "DEL leaves no device");
    assert_eq!(must(network.delete(&container)), Ok(()), "DEL is idempotent");
    scene.stops_whole();
}

#[test]
fn streams_cross_as_large_packets() {
    let Some(mut scene) = scene("tlarge", tuns(), Settings::default()) else { return };
    let logs = tempfile::tempdir().unwrap();
    for (from, to, cuts, coalesces) in [
        (NEAR, BESIDE, false, false),
        (NEAR, VETH, true, false),
        (VETH, NEAR, false, true),
        (NEAR, FAR, true, false),
        (FAR, NEAR, false, true),
    ] {
        let _server = must(iperf::Server::start(&must(scene.pod(to)).netns, logs.path()));
        for family in FAMILIES {
            let counted = || ["segment", "coalesce"].map(|stage| passed(&scene, "node1", stage));
            let before = counted();
            let mbit = must(iperf::tcp(&must(scene.pod(from)).netns, must(scene.address(to, family)), 1));
            let [cut, coalesced] = [0, 1].map(|at| counted()[at] - before[at]);
            println!("{from} to {to}, {family}: {mbit:.0} Mbit/s, {cut} cut, {coalesced} coalesced");
            assert!(mbit > 0.0, "{from} to {to}: nothing arrived");
            assert!(!cuts || cut > 10, "{from} to {to}: {cut} large packets were cut");
            assert!(!coalesces || coalesced > 10, "{from} to {to}: {coalesced} segments were coalesced");
        }
    }
    scene.no_frame_is_lost();
    scene.stops_whole();
}

#[test]
fn datagrams_sent_as_one_arrive_as_they_were() {
    let Some(mut scene) = scene("tuso", tuns(), Settings::default()) else { return };
    for to in [BESIDE, VETH, FAR] {
        for family in FAMILIES {
            let target = scene.at(to, family, 9000);
            let server = must(must(scene.pod(to)).netns.enter(|| UdpSocket::bind(target))).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let any = SocketAddr::new(any(family), 0);
            let client = must(must(scene.pod(NEAR)).netns.enter(|| UdpSocket::bind(any))).unwrap();
            setsockopt(&client, UdpGsoSegment, &700).unwrap();
            let sent: Vec<u8> = (0..5000u32).map(|at| (at * 31 / 7) as u8).collect();
            assert_eq!(client.send_to(&sent, target).unwrap(), 5000);
            let mut buffer = [0; 8192];
            let mut arrived = Vec::new();
            while arrived.len() < sent.len() {
                let length = server.recv(&mut buffer).unwrap();
                assert_eq!(length, (sent.len() - arrived.len()).min(700), "{to}");
                arrived.extend_from_slice(&buffer[..length]);
            }
            assert_eq!(arrived, sent, "{to}");
        }
    }
    scene.stops_whole();
}
