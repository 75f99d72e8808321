//! IP-in-IP: with the tunnels of a second Linux, any family in any, opened from either side; and pools whose mode changes
//! while pods talk.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;

use common::{FAMILIES, Scene, must, scene, three_pods};
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::bed::guest::{DEVICE, Guest};
use vswitch_testbeds::topology::Topology;
use vswitch_testbeds::traffic::capture::{Capture, each_frame};
use vswitch_testbeds::traffic::ping::{Ping, all_answered, command, parse, ping};

/// Pods of the guest: of the node that has an IPv4 underlay, then of the one that has IPv6 alone; by the inner family.
const BEHIND: [[&str; 2]; 2] = [["10.44.102.5", "fd44::102:5"], ["10.44.103.5", "fd44::103:5"]];

/// The pools with other modes.
fn pools(modes: &str) -> String {
    let pool = |name: &str, cidr: &str, block_size: u8| {
        format!(
            "---\n{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: {name}}}, \
             spec: {{cidr: '{cidr}', blockSize: {block_size}, {modes}}}}}\n"
        )
    };
    pool("pods-v4", "10.44.0.0/16", 26) + &pool("pods-v6", "fd44::/64", 122)
}

/// The guest as two nodes: nothing else tells the families of the underlay apart.
const NODES: &str = "
---
{apiVersion: v1, kind: Node, metadata: {name: linux4, annotations: {projectcalico.org/IPv4Address: 10.89.0.12/24}},
 spec: {podCIDRs: [10.44.102.0/26, 'fd44::102:0/122']}}
---
{apiVersion: v1, kind: Node, metadata: {name: linux6, annotations: {projectcalico.org/IPv6Address: 'fd89::13/64'}},
 spec: {podCIDRs: [10.44.103.0/26, 'fd44::103:0/122']}}
";

/// What the guest does: `near` is reached over IPv4 and `beside` over IPv6, each by addresses of both families.
fn script(go: &str, end: &str, near: [IpAddr; 2], beside: [IpAddr; 2]) -> String {
    let mut script = format!(
        "ip addr add 10.89.0.12/24 dev {DEVICE}; ip addr add fd89::13/64 dev {DEVICE} nodad; ip link set {DEVICE} up
         ip tunnel add four mode ipip local 10.89.0.12 remote 10.89.0.11; ip link set four up
         ip tunnel add six mode sit local 10.89.0.12 remote 10.89.0.11; ip link set six up
         ip -6 tunnel add any mode any local fd89::13 remote fd89::11; ip link set any up\n"
    );
    for address in BEHIND.as_flattened() {
        let length = if address.contains(':') { "128 nodad" } else { "32" };
        script += &format!("ip addr add {address}/{length} dev lo\n");
    }
    let ways = [(near[0], "four"), (near[1], "six"), (beside[0], "any"), (beside[1], "any")];
    for ((to, device), from) in ways.iter().zip(BEHIND.as_flattened()) {
        script += &format!("ip route add {to} dev {device} src {from}\n");
    }
    script += &format!("echo READY; until [ -e {go} ]; do sleep 0.1; done\n");
    for (to, _) in ways {
        script += &format!("ping -n -c 5 -i 0.05 -w 10 -s 1000 {to}; echo PINGED {to} $?\n");
    }
    script + &format!("until [ -e {end} ]; do sleep 0.1; done\n")
}

/// Outer family, inner family, and whether ours is the sender, of each IP-in-IP packet of a capture.
fn seen(file: &std::path::Path) -> BTreeSet<(u8, u8, bool)> {
    let mut seen = BTreeSet::new();
    must(each_frame(file, |_, frame| {
        let (outer, protocol, ours) = match &frame[12..14] {
            [8, 0] => (4, frame[23], frame[26..30] == [10, 89, 0, 11]),
            // Linux puts an encapsulation limit before the inner packet.
            [0x86, 0xdd] => (6, if frame[20] == 60 { frame[54] } else { frame[20] }, frame[37] == 0x11),
            _ => return,
        };
        match protocol {
            4 => drop(seen.insert((outer, 4, ours))),
            41 => drop(seen.insert((outer, 6, ours))),
            _ => {}
        }
    }));
    seen
}

#[test]
fn a_second_linux_and_ours_reach_each_other_any_family_in_any() {
    if !Guest::is_installed() {
        assert!(std::env::var_os("CI").is_none(), "Debian's user-mode-linux is not here, and CI promises it");
        eprintln!("SKIPPED: Debian's user-mode-linux is not here");
        return;
    }
    let topology =
        Topology { pods: three_pods().pods[..2].to_vec(), ..Topology::one_node().namespace("test", &[]) };
    let settings = Settings { cni_mtu: Some(1500), ..Settings::default() };
    let Some(mut scene) = scene("tipip", topology, settings) else { return };
    must(scene.apply(&(pools("ipipMode: Always") + NODES)));
    scene.in_force();
    let pod = |scene: &Scene, pod| FAMILIES.map(|family| must(scene.address(pod, family)));
    let (near, beside) = (pod(&scene, "test/near"), pod(&scene, "test/beside"));
    let [go, end, wire] = ["guest.go", "guest.end", "wire.pcap"].map(|name| scene.file(name));
    let script = script(go.to_str().unwrap(), end.to_str().unwrap(), near, beside);
    let mut guest = must(Guest::boot(&scene, &script));
    must(guest.said("READY"));

    let capture = must(Capture::start(&scene.underlay, "node1", "", 128, &wire));
    for (from, behind, mtu) in [("test/near", BEHIND[0], 1480), ("test/beside", BEHIND[1], 1460)] {
        let netns = &must(scene.pod(from)).netns;
        for to in behind {
            let to: IpAddr = to.parse().unwrap();
            let headers = if to.is_ipv4() { 28 } else { 48 };
            must(vswitch_testbeds::command::wait_for("the first answer", common::SOON, || {
                all_answered(netns, &Ping { count: 1, ..Ping::to(to) })
            }));
            for payload in [0, 56, 1000, 1400 - headers] {
                must(all_answered(netns, &Ping::to(to).payload(payload).dont_fragment()));
            }
            let told = must(ping(netns, &Ping::to(to).payload(mtu - headers + 1).dont_fragment()));
            assert_eq!((told.received, told.mtu), (0, Some(mtu)), "{to}: {told:?}");
        }
    }
    std::fs::write(&go, "").unwrap();
    for to in near.into_iter().chain(beside) {
        assert_eq!(must(guest.said(&format!("PINGED {to}"))), "0", "the guest to {to}");
    }
    let seen = seen(&must(capture.stop()));
    let all = [4, 6]
        .into_iter()
        .flat_map(|outer| [4, 6].map(|inner| [(outer, inner, false), (outer, inner, true)]));
    assert_eq!(seen, all.flatten().collect());
    let told = must(must(scene.node("node1")).vsctl(&["get", "tunnels"]));
    assert!(told.lines().any(|line| line.contains("10.89.0.12") && line.contains("ipip")), "{told}");
    std::fs::write(&end, "").unwrap();
    scene.no_frame_is_lost();
}

#[test]
fn a_pools_mode_changes_under_traffic_and_nothing_is_lost() {
    let Some(mut scene) = scene("tmodes", three_pods(), Settings::default()) else { return };
    const MODES: [&str; 5] = [
        "ipipMode: Always",
        "vxlanMode: Never",
        "vxlanMode: Always",
        "ipipMode: CrossSubnet",
        "ipipMode: Always",
    ];
    let wire = scene.file("wire.pcap");
    let capture = must(Capture::start(&scene.underlay, "node1", "", 64, &wire));
    let pings: Vec<_> = FAMILIES
        .iter()
        .map(|family| {
            let to = must(scene.address("test/far", *family));
            must(all_answered(&must(scene.pod("test/near")).netns, &Ping::to(to)));
            let what = Ping { count: 500, interval_ms: 20, patience_s: 60, ..Ping::to(to) };
            let mut ping = command(&must(scene.pod("test/near")).netns, &what);
            ping.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for modes in MODES {
        must(scene.apply(&pools(modes)));
        scene.in_force();
    }
    for ping in pings {
        let text = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
        let pinged = parse(&text, 500).unwrap();
        assert_eq!((pinged.sent, pinged.received), (500, 500), "{text}");
    }
    // The modes were in force in their turn.
    assert!(seen(&must(capture.stop())).is_superset(&BTreeSet::from([
        (4, 4, true),
        (6, 6, true),
        (4, 4, false)
    ])));
    scene.no_frame_is_lost();
}
