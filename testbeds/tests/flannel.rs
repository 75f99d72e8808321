//! A node as flannel sets one up, beside one as Calico does: pods of ours reach both, and both reach ours, at once.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::net::IpAddr;

use common::{FAMILIES, Scene, must, scene, three_pods};
use ipnet::IpNet;
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::wait_for;
use vswitch_testbeds::netns::Netns;
use vswitch_testbeds::topology::{Datapath, Node};
use vswitch_testbeds::traffic::capture::{Capture, each_frame};
use vswitch_testbeds::traffic::ping::{Ping, all_answered};

const PODS: [&str; 2] = ["10.44.103.5", "fd44::103:5"];
const MACS: [&str; 2] = ["7e:42:00:00:00:04", "7e:42:00:00:00:06"];
const ANNOUNCED: &str = r#"
apiVersion: v1
kind: Node
metadata:
  name: node3
  annotations:
    flannel.alpha.coreos.com/kube-subnet-manager: "true"
    flannel.alpha.coreos.com/backend-type: vxlan
    flannel.alpha.coreos.com/backend-data: '{"VNI":1,"VtepMAC":"7e:42:00:00:00:04"}'
    flannel.alpha.coreos.com/backend-v6-data: '{"VNI":1,"VtepMAC":"7e:42:00:00:00:06"}'
    flannel.alpha.coreos.com/public-ip: 10.89.0.13
    flannel.alpha.coreos.com/public-ipv6: fd89::13
spec:
  podCIDRs: [10.44.103.0/26, "fd44::103:0/122"]
"#;

/// flannel's devices (pkg/backend/vxlan): over IPv4 with the outer checksum, over IPv6 without, which Linux does when told.
fn devices(netns: &Netns) {
    for line in [
        &format!(
            "link add flannel.1 address {} mtu 1450 type vxlan id 1 local 10.89.0.13 dev eth0 dstport 8472 \
             nolearning udpcsum",
            MACS[0]
        ),
        &format!(
            "link add flannel-v6.1 address {} mtu 1430 type vxlan id 1 local fd89::13 dev eth0 dstport 8472 \
             nolearning udp6zerocsumtx udp6zerocsumrx",
            MACS[1]
        ),
        "addr add 10.44.103.0/32 dev flannel.1",
        "addr add fd44::103:0/128 dev flannel-v6.1 nodad",
        "link set flannel.1 up",
        "link set flannel-v6.1 up",
        &format!("addr add {}/32 dev lo", PODS[0]),
        &format!("addr add {}/128 dev lo nodad", PODS[1]),
    ] {
        must(netns.ip(line));
    }
}

/// What flanneld does when it sees another node: a route to its pods by the node's end of the network.
fn meet(netns: &Netns, scene: &Scene) {
    let data = |name: &str| {
        must(wait_for("node1 to announce itself to flannel's nodes", common::SOON, || {
            let objects = scene.node("node1")?.agent()?.objects("Node")?;
            let node = objects.iter().find(|object| object["metadata"]["name"] == "node1");
            let text = node.and_then(|o| {
                o["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")].as_str()
            });
            text.map(str::to_owned).ok_or_else(|| vswitch_testbeds::Error::other(format!("no {name}")))
        }))
    };
    for (name, device, underlay, family) in [
        ("backend-data", "flannel.1", "10.89.0.11", FAMILIES[0]),
        ("backend-v6-data", "flannel-v6.1", "fd89::11", FAMILIES[1]),
    ] {
        let data: serde_json::Value = serde_json::from_str(&data(name)).unwrap();
        assert_eq!(data["VNI"], 1);
        let mac = data["VtepMAC"].as_str().unwrap();
        let near = must(scene.address("test/near", family));
        let block = IpNet::new(near, if near.is_ipv4() { 26 } else { 122 }).unwrap().trunc();
        let first = block.network();
        must(netns.run(&format!("bridge fdb replace {mac} dev {device} dst {underlay}")));
        must(netns.ip(&format!("neigh replace {first} lladdr {mac} dev {device} nud permanent")));
        let length = if first.is_ipv4() { 32 } else { 128 };
        must(netns.ip(&format!("route replace {first}/{length} dev {device}")));
        let from = PODS[usize::from(first.is_ipv6())];
        must(netns.ip(&format!("route replace {block} via {first} dev {device} onlink src {from}")));
    }
}

/// VXLAN packets of a capture: whether over IPv6, who sent it by the underlay address's last byte, port, VNI, checksum, inner
/// destination.
fn seen(file: &std::path::Path) -> Vec<(bool, u8, u16, u32, u16, [u8; 6])> {
    let mut seen = Vec::new();
    must(each_frame(file, |_, frame| {
        let v6 = frame[12..14] == [0x86, 0xdd];
        let (protocol, source, udp) =
            if v6 { (frame[20], frame[37], 54) } else { (frame[23], frame[29], 34) };
        let be16 = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        if protocol == 17 && matches!(be16(udp + 2), 4789 | 8472) {
            let vni = u32::from_be_bytes([0, frame[udp + 12], frame[udp + 13], frame[udp + 14]]);
            let inner = frame[udp + 16..udp + 22].try_into().unwrap();
            seen.push((v6, source, be16(udp + 2), vni, be16(udp + 6), inner));
        }
    }));
    seen
}

#[test]
fn nodes_of_flannels_and_of_calicos_are_reached_at_once() {
    let topology = three_pods().kernel_node("node2");
    let Some(mut scene) = scene("tflannel", topology, Settings::default()) else { return };
    let node3 = Node { name: "node3".into(), number: 3, datapath: Datapath::Kernel };
    let netns = must(scene.plug_in(&node3));
    devices(&netns);
    must(scene.apply(ANNOUNCED));
    meet(&netns, &scene);
    scene.in_force();

    let file = scene.file("wire.pcap");
    let capture = must(Capture::start(&scene.underlay, "node1", "udp", 0, &file));
    let near = &must(scene.pod("test/near")).netns;
    for (family, flannels) in FAMILIES.into_iter().zip(PODS) {
        let flannels: IpAddr = flannels.parse().unwrap();
        let (ours, calicos) =
            (must(scene.address("test/near", family)), must(scene.address("test/far", family)));
        must(wait_for("the first answer", common::SOON, || {
            all_answered(near, &Ping { count: 1, ..Ping::to(flannels) })
        }));
        for payload in [0, 56, 1000, 1300] {
            must(all_answered(near, &Ping::to(flannels).payload(payload).dont_fragment()));
            must(all_answered(near, &Ping::to(calicos).payload(payload).dont_fragment()));
            must(all_answered(&netns, &Ping::to(ours).payload(payload).dont_fragment()));
            must(all_answered(&must(scene.pod("test/far")).netns, &Ping::to(ours).payload(payload)));
        }
    }
    let packets = seen(&must(capture.stop()));
    for v6 in [false, true] {
        let of = |from: u8, port: u16| {
            packets.iter().filter(move |p| (p.0, p.1, p.2) == (v6, from, port)).collect::<Vec<_>>()
        };
        let mac = |text: &str| text.parse::<vswitch_model::Mac>().unwrap().0;
        // As topology.rs numbers them.
        let last = |node: u8| if v6 { 0x10 + node } else { 10 + node };
        let [ours, theirs] = [of(last(1), 8472), of(last(3), 8472)];
        assert!(ours.len() >= 20 && theirs.len() >= 20, "{} and {}", ours.len(), theirs.len());
        assert!(ours.iter().all(|p| p.3 == 1 && p.5 == mac(MACS[usize::from(v6)])), "{ours:?}");
        // We take a checksum over IPv4 and none over IPv6, and send it the other way round.
        assert!(ours.iter().all(|p| (p.4 == 0) != v6) && theirs.iter().all(|p| (p.4 == 0) == v6));
        let calicos = of(last(1), 4789);
        assert!(calicos.len() >= 20 && calicos.iter().all(|p| p.3 == 4096), "{calicos:?}");
    }
    scene.no_frame_is_lost();
}
