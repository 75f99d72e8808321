//! The engine dies, restarts, stops; the agent and etcd go and come back. What goes on, goes on.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{FAMILIES, SOON, V4, must, scene, three_pods, time_until};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::wait_until;
use vswitch_testbeds::netns::Netns;
use vswitch_testbeds::topology;
use vswitch_testbeds::traffic::ping::{self, Ping, all_answered};
use vswitch_testbeds::traffic::probe::{any, udp_answers, udp_socket};

const FAR: &str = "test/far";
const NEAR: &str = "test/near";

/// Sends datagrams to an echo server as fast as they come back, and counts them, while `body` runs.
fn under_load(from: &Netns, to: SocketAddr, body: impl FnOnce()) -> u64 {
    let (stop, echoed) = (AtomicBool::new(false), AtomicU64::new(0));
    let socket = must(udp_socket(from, SocketAddr::new(any(to.ip()), 0)));
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 256];
            while !stop.load(Ordering::Relaxed) {
                // What is refused or lost meanwhile is what the test is about.
                let sent = socket.send_to(&[7; 160], to).is_ok();
                if socket.recv_from(&mut buffer).is_ok() {
                    echoed.fetch_add(1, Ordering::Relaxed);
                } else if !sent {
                    std::thread::yield_now();
                }
            }
        });
        body();
        stop.store(true, Ordering::Relaxed);
    });
    echoed.into_inner()
}

/// 400 pings at 5 ms between a node and the underlay, while `body` runs; how many came back.
fn nodes_own_pings(netns: &Netns, body: impl FnOnce()) -> u32 {
    let what = Ping { count: 400, interval_ms: 5, ..Ping::to(IpAddr::V4(topology::ETCD)) };
    let before = echo_requests(netns);
    let child = ping::command(netns, &what).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    must(wait_until("a quarter of the pings", Duration::from_secs(5), || {
        echo_requests(netns) - before >= 100
    }));
    body();
    let output = child.wait_with_output().unwrap();
    let pinged = ping::parse(&String::from_utf8_lossy(&output.stdout), what.count).expect("ping's summary");
    assert_eq!(pinged.sent, 400);
    pinged.received
}

/// Echo requests a namespace's kernel has sent (`net/ipv4/proc.c`, a line of names and one of numbers).
fn echo_requests(netns: &Netns) -> u64 {
    let table = must(netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))).unwrap();
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut fields = names.split(' ').zip(numbers.split(' '));
    fields.find(|(name, _)| *name == "OutEchos").unwrap().1.parse().unwrap()
}

#[test]
fn an_engine_that_is_killed_costs_the_node_nothing_and_comes_back_alone() {
    let Some(mut scene) = scene("tkill", three_pods(), Settings::default()) else { return };
    let _servers = scene.serve(FAR, &[7]);
    let target = scene.at(FAR, V4, 7);
    let near = must(scene.pod(NEAR)).netns.clone();
    let node1 = must(scene.netns("node1")).clone();
    assert!(scene.udp(NEAR, target));
    must(must(scene.node_mut("node1")).stop_agent());

    let mut received = 0;
    let echoed = under_load(&near, target, || {
        received = nodes_own_pings(&node1, || must(scene.node_mut("node1")).kill_engine());
    });
    assert!(echoed > 100, "there was no load: {echoed} datagrams");
    println!("engine killed under load: {received} of 400 of the node's own pings came back");
    assert!(received >= 398, "{received} of 400 came back");
    // Closed: without its engine a pod reaches nobody, and nobody answers in its place.
    assert!(scene.udp_denied(NEAR, target));

    // The agent stays away: the engine's own file is enough.
    must(must(scene.node_mut("node1")).start_engine());
    let again = time_until("pods to talk again", SOON, || {
        must(udp_answers(&near, target, Duration::from_millis(100)))
    });
    println!("engine started without agent: pods talked again after {again:?}");
    for family in FAMILIES {
        must(all_answered(&near, &Ping::to(must(scene.address("test/beside", family)))));
        must(all_answered(&near, &Ping::to(must(scene.address(FAR, family)))));
    }

    // And the agent finds it as it left it.
    must(must(scene.node_mut("node1")).start_agent());
    must(must(scene.node_mut("node1")).wait_ready());
    must(scene.note());
    must(scene.detach("test/beside"));
    must(scene.attach("test/beside"));
    must(all_answered(&near, &Ping::to(must(scene.address("test/beside", V4)))));
    scene.stops_whole();
}

#[test]
fn an_engine_that_is_stopped_under_load_accounts_for_every_frame() {
    let Some(mut scene) = scene("tstop", three_pods(), Settings::default()) else { return };
    let _servers = scene.serve(FAR, &[7]);
    let target = scene.at(FAR, V4, 7);
    let near = must(scene.pod(NEAR)).netns.clone();
    let echoed = under_load(&near, target, || {
        must(wait_until("traffic", SOON, || {
            must(must(must(scene.node("node1")).engine()).counters())
                .ports
                .iter()
                .any(|port| port.rx_packets > 1000)
        }));
        scene.stops_whole();
    });
    assert!(echoed > 100, "there was no load: {echoed} datagrams");
}

#[test]
fn control_away_changes_nothing_for_those_who_are_there() {
    let Some(mut scene) = scene("taway", three_pods(), Settings::default()) else { return };
    let _servers = scene.serve(FAR, &[7]);
    let target = scene.at(FAR, V4, 7);

    // etcd goes: everything goes on, a new pod waits with a clear error.
    must(scene.add_pod("test/late", "node1", &[]));
    scene.kill_etcd();
    let mut container = must(scene.container("test/late"));
    let error = must(scene.attach_container(&mut container)).expect_err("ADD without a store");
    println!("ADD without etcd: CNI error {}: {}", error.code, error.text);
    assert_eq!(error.code, 11, "try again later: {error:?}");
    assert!(error.text.contains("store") || error.text.contains("etcd"), "{error:?}");
    assert!(scene.udp(NEAR, target));

    // etcd comes back: the same ADD succeeds.
    must(scene.start_etcd());
    scene.becomes("ADD to succeed", || {
        must(scene.node("node1")).network.add(&mut container.clone()).is_ok_and(|a| a.is_ok())
    });
    assert!(scene.udp(NEAR, target));

    // The agents go, too.
    for node in ["node1", "node2"] {
        must(scene.node_mut(node)).kill_agent();
    }
    assert!(scene.udp(NEAR, target));
    let mut another = must(scene.container("test/late"));
    let error = must(scene.attach_container(&mut another)).expect_err("ADD without an agent");
    assert!(error.text.contains("vswitch-agent does not answer on"), "{error:?}");
}
