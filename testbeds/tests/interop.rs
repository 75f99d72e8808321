//! Interoperation with the kernel: node two is plain Linux, set up as Calico sets it up. Pods reach each other both
//! ways, and what is on the wire is checked field by field with tshark.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::net::IpAddr;
use std::path::Path;

use common::{FAMILIES, V4, V6, must, scene, three_pods};
use vswitch_model::Mac;
use vswitch_testbeds::bed::Settings;
use vswitch_testbeds::command::run;
use vswitch_testbeds::topology::{Topology, VNI, VXLAN_PORT};
use vswitch_testbeds::traffic::capture::Capture;
use vswitch_testbeds::traffic::ping::{Ping, all_answered};

/// One tunnel packet as tshark reads it; of fields that outer and inner headers share, the outer's first.
#[derive(Debug)]
struct Seen {
    ethernet_source: Vec<String>,
    ethernet_destination: Vec<String>,
    source: Vec<String>,
    ttl: Vec<u8>,
    dont_fragment: Vec<bool>,
    hop_limit: Vec<u8>,
    udp_source: u16,
    udp_destination: u16,
    udp_checksum: String,
    flags: u16,
    vni: u32,
    /// 0 is bad, 1 good, 2 not checked, 3 not there; of all headers that have one.
    checksums: Vec<u8>,
}

const FIELDS: [&str; 15] = [
    "eth.src",
    "eth.dst",
    "ip.src",
    "ipv6.src",
    "ip.ttl",
    "ip.flags.df",
    "ipv6.hlim",
    "udp.srcport",
    "udp.dstport",
    "udp.checksum",
    "vxlan.flags",
    "vxlan.vni",
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
];

fn tunnel_packets(capture: &Path) -> Vec<Seen> {
    let mut tshark = std::process::Command::new("tshark");
    tshark.arg("-r").arg(capture).args([
        "-Y",
        "vxlan",
        "-T",
        "fields",
        "-E",
        "occurrence=a",
        "-E",
        "separator=;",
    ]);
    tshark.args([
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "udp.check_checksum:TRUE",
        "-o",
        "tcp.check_checksum:TRUE",
    ]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    must(run(&mut tshark)).lines().map(seen).collect()
}

fn seen(line: &str) -> Seen {
    let columns: Vec<Vec<&str>> =
        line.split(';').map(|column| column.split(',').filter(|value| !value.is_empty()).collect()).collect();
    assert_eq!(columns.len(), FIELDS.len(), "{line}");
    let texts = |column: usize| columns[column].iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let numbers =
        |column: usize| columns[column].iter().map(|text| text.parse().unwrap()).collect::<Vec<u8>>();
    let hex = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    Seen {
        ethernet_source: texts(0),
        ethernet_destination: texts(1),
        source: [texts(2), texts(3)].concat(),
        ttl: numbers(4),
        dont_fragment: columns[5].iter().map(|text| matches!(*text, "1" | "True")).collect(),
        hop_limit: numbers(6),
        udp_source: columns[7][0].parse().unwrap(),
        udp_destination: columns[8][0].parse().unwrap(),
        udp_checksum: columns[9][0].to_owned(),
        flags: u16::try_from(hex(columns[10][0])).unwrap(),
        vni: columns[11][0].parse().unwrap(),
        checksums: [numbers(12), numbers(13), numbers(14)].concat(),
    }
}

#[test]
fn pods_of_a_vswitch_node_and_of_a_kernel_node_reach_each_other() {
    reach_each_other("tinterop", true);
}

#[test]
fn a_kernel_node_that_sends_zero_for_checksums_is_understood() {
    reach_each_other("tzero", false);
}

fn reach_each_other(id: &str, checksums: bool) {
    let topology = three_pods().kernel_node("node2");
    let settings = Settings { kernel_checksums: checksums, ..Settings::default() };
    let Some(scene) = scene(id, topology.clone(), settings) else { return };
    let file = scene.file("wire.pcap");
    let port = format!("udp port {VXLAN_PORT}");
    let capture = must(Capture::start(&scene.underlay, "node1", &port, 0, &file));

    let _far = scene.serve("test/far", &[7]);
    let _near = scene.serve("test/near", &[7]);
    for family in FAMILIES {
        let (near, far) = (must(scene.address("test/near", family)), must(scene.address("test/far", family)));
        for (from, to) in [("test/near", far), ("test/far", near)] {
            for payload in [0, 56, 1000, 1300] {
                must(all_answered(
                    &must(scene.pod(from)).netns,
                    &Ping::to(to).payload(payload).dont_fragment(),
                ));
            }
            // Beyond the MTU: in fragments.
            must(all_answered(&must(scene.pod(from)).netns, &Ping::to(to).payload(4000)));
            assert!(scene.udp(from, (to, 7).into()), "datagrams from {from} to {to}");
            assert!(scene.tcp(from, (to, 7).into()), "a connection from {from} to {to}");
        }
    }

    let packets = tunnel_packets(&must(capture.stop()));
    let [ours, theirs] = [&topology.nodes[0], &topology.nodes[1]];
    for family in FAMILIES {
        for (node, is_ours) in [(ours, true), (theirs, false)] {
            let underlay =
                if family.is_ipv4() { IpAddr::V4(node.underlay_v4()) } else { node.underlay_v6().into() };
            let sent: Vec<_> = packets.iter().filter(|p| p.source[0] == underlay.to_string()).collect();
            assert!(sent.len() > 20, "{} tunnel packets of {} over {underlay}", sent.len(), node.name);
            for packet in sent {
                check(packet, &topology, family, is_ours);
                if !is_ours {
                    assert_eq!(packet.udp_checksum != "0x0000", checksums, "{packet:?}");
                }
            }
        }
    }
}

/// What RFC 7348 and Calico's convention want of both, and what we promise of ours.
fn check(packet: &Seen, topology: &Topology, family: IpAddr, ours: bool) {
    let (from, to) = if ours { (0, 1) } else { (1, 0) };
    let vtep = |node: usize| {
        let name = &topology.nodes[node].name;
        if family == V6 { Mac::vtep_v6(name) } else { Mac::vtep_v4(name) }.to_string()
    };
    assert_eq!(packet.udp_destination, VXLAN_PORT, "{packet:?}");
    assert_eq!((packet.flags, packet.vni), (0x0800, VNI), "{packet:?}");
    assert_eq!(packet.ethernet_source.len(), 2, "{packet:?}");
    assert_eq!(packet.ethernet_source[1], vtep(from), "{packet:?}");
    assert_eq!(packet.ethernet_destination[1], vtep(to), "{packet:?}");
    assert!(!packet.checksums.contains(&0), "a bad checksum: {packet:?}");
    if !ours {
        return;
    }
    assert!(packet.udp_source >= 49152, "{packet:?}");
    // Outer 64, and inner what the pod sent, 64, less one for us. No header of ours may be fragmented.
    let hops = if family == V4 { &packet.ttl } else { &packet.hop_limit };
    assert_eq!(hops.as_slice(), [64, 63], "{packet:?}");
    if family == V4 {
        assert!(packet.dont_fragment[0], "{packet:?}");
        assert_eq!(packet.udp_checksum, "0x0000", "{packet:?}");
    } else {
        assert_ne!(packet.udp_checksum, "0x0000", "{packet:?}");
    }
}
