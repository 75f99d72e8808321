use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_model::Mac;

use super::both;
use crate::neighbour::link_local;
use crate::parse::parse;
use crate::tables::{GATEWAY_V4, GATEWAY_V6};
use crate::testing::World;
use crate::testing::frames::{self, Ends, transport_checksum_is_right};
use crate::testing::world::{A, B, C, HOST, KERNEL_MAC, pod_mac, v4, v6};

fn ip4(address: IpAddr) -> Ipv4Addr {
    if let IpAddr::V4(address) = address { address } else { panic!("{address} is IPv6") }
}

fn ip6(address: IpAddr) -> Ipv6Addr {
    if let IpAddr::V6(address) = address { address } else { panic!("{address} is IPv4") }
}

#[test]
fn a_pod_reaches_its_neighbour() {
    for destination in both(1, B) {
        let mut world = World::node(1);
        let frame = world.ends(A, destination).udp(7, 5000, b"hello");
        let sent = world.send(A, &frame);
        let [(B, delivered)] = &sent[..] else { panic!("{sent:?}") };
        let parsed = parse(delivered).unwrap();
        assert_eq!((parsed.destination_mac, parsed.source_mac), (pod_mac(1, B), Mac::GATEWAY));
        assert_eq!(parsed.ttl, 63);
        assert!(transport_checksum_is_right(delivered));
        let expected = ["a rx 1", "b tx 1", "flows created 1", "stage flow-miss 1", "stage parse 1"];
        assert_eq!(world.moved(), expected);
    }
}

#[test]
fn the_gateway_answers_arp_for_everything_but_the_pod_itself() {
    let mut world = World::node(1);
    let own = ip4(v4(1, A));
    for target in [GATEWAY_V4, Ipv4Addr::new(10, 0, 1, 11), Ipv4Addr::new(8, 8, 8, 8)] {
        let sent = world.send(A, &frames::arp_request(pod_mac(1, A), own, target));
        let [(A, reply)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(reply[..6], pod_mac(1, A).0);
        assert_eq!(reply[6..12], Mac::GATEWAY.0);
        assert_eq!(reply[20..22], [0, 2], "a reply");
        assert_eq!(reply[22..28], Mac::GATEWAY.0);
        assert_eq!(reply[28..32], target.octets());
        assert_eq!(reply[32..38], pod_mac(1, A).0);
        assert_eq!(reply[38..42], own.octets());
        assert_eq!(world.moved(), ["a rx 1", "a tx 1", "stage answer 1", "stage parse 1"]);
    }
}

#[test]
fn arp_that_lies_or_asks_for_nothing_ends() {
    let mut world = World::node(1);
    let own = ip4(v4(1, A));
    let other = ip4(v4(1, B));
    let good = frames::arp_request(pod_mac(1, A), own, GATEWAY_V4);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let probe = |target| frames::arp_request(pod_mac(1, A), Ipv4Addr::UNSPECIFIED, target);
    let cases = [
        (frames::arp_request(pod_mac(1, A), own, own), "arp-invalid"),
        (probe(own), "arp-invalid"),
        (changed(21, 2), "arp-invalid"),
        (changed(15, 2), "arp-invalid"),
        (changed(18, 8), "arp-invalid"),
        (good[..40].to_vec(), "truncated"),
        (frames::arp_request(pod_mac(1, B), own, GATEWAY_V4), "spoofed-mac"),
        (changed(27, 0x99), "spoofed-mac"),
        (frames::arp_request(pod_mac(1, A), other, GATEWAY_V4), "spoofed-address"),
        (changed(0, 0x0a), "mac-not-ours"),
    ];
    for (frame, reason) in cases {
        assert_eq!(world.send(A, &frame), []);
        assert_eq!(world.moved_ports(), [format!("a drop {reason} 1"), "a rx 1".to_owned()]);
    }
    assert_eq!(
        world.send(A, &probe(Ipv4Addr::new(10, 0, 1, 99))).len(),
        1,
        "a probe for another address is answered"
    );
}

#[test]
fn the_gateway_advertises_itself_for_everything_but_the_pod_itself() {
    let mut world = World::node(1);
    let mac = pod_mac(1, A);
    for target in [GATEWAY_V6, ip6(v6(1, B))] {
        for frame in
            [frames::solicitation_from(mac, target), frames::solicitation(mac, ip6(v6(1, A)), target)]
        {
            let asker = parse(&frame).unwrap().source;
            let sent = world.send(A, &frame);
            let [(A, reply)] = &sent[..] else { panic!("{sent:?}") };
            let parsed = parse(reply).unwrap();
            assert_eq!((parsed.source, parsed.destination, parsed.ttl), (target.into(), asker, 255));
            assert_eq!((parsed.icmp_type, reply[58]), (136, 0xe0), "router, solicited, override");
            assert_eq!(reply[62..78], target.octets());
            assert_eq!((&reply[78..80], &reply[80..86]), (&[2, 1][..], &Mac::GATEWAY.0[..]));
            assert!(transport_checksum_is_right(reply));
        }
        // Asked again by unicast, as before a neighbour is given up (RFC 4861, section 7.3.3).
        let mut unicast = frames::solicitation(mac, ip6(v6(1, A)), target);
        unicast[..6].copy_from_slice(&Mac::GATEWAY.0);
        unicast[38..54].copy_from_slice(&target.octets());
        frames::mend_icmpv6(&mut unicast);
        assert!(matches!(world.send(A, &unicast)[..], [(A, _)]));
        assert_eq!(world.moved(), ["a rx 3", "a tx 3", "stage answer 3", "stage parse 3"]);
    }
}

#[test]
fn neighbour_discovery_that_lies_or_asks_for_nothing_ends() {
    let mut world = World::node(1);
    let mac = pod_mac(1, A);
    let own = ip6(v6(1, A));
    let good = frames::solicitation(mac, own, GATEWAY_V6);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frames::mend_icmpv6(&mut frame);
        frame
    };
    let mut wrong_sum = good.clone();
    wrong_sum[57] ^= 1;
    let cases = [
        (frames::solicitation(mac, Ipv6Addr::UNSPECIFIED, own), "nd-invalid"),
        (frames::solicitation(mac, own, own), "nd-invalid"),
        (frames::solicitation(mac, own, link_local(mac)), "nd-invalid"),
        (changed(21, 64), "nd-invalid"),
        (changed(54, 133), "nd-invalid"),
        (changed(54, 134), "nd-invalid"),
        (changed(54, 136), "nd-invalid"),
        (changed(55, 1), "nd-invalid"),
        (changed(79, 0), "nd-invalid"),
        (changed(79, 2), "nd-invalid"),
        (wrong_sum, "nd-invalid"),
        (changed(85, 0x77), "spoofed-mac"),
        (frames::solicitation(mac, ip6(v6(1, B)), GATEWAY_V6), "spoofed-address"),
        (frames::solicitation(pod_mac(1, B), own, GATEWAY_V6), "spoofed-mac"),
    ];
    for (case, (frame, reason)) in cases.into_iter().enumerate() {
        assert_eq!(world.send(A, &frame), [], "case {case}");
        assert_eq!(world.moved_ports(), [format!("a drop {reason} 1"), "a rx 1".to_owned()], "case {case}");
    }
}

#[test]
fn the_gateway_answers_pings() {
    let mut world = World::node(1);
    for (source, gateway) in [
        (v4(1, A), IpAddr::V4(GATEWAY_V4)),
        (v6(1, A), IpAddr::V6(GATEWAY_V6)),
        (link_local(pod_mac(1, A)).into(), IpAddr::V6(GATEWAY_V6)),
    ] {
        let ends = Ends::of_pod(pod_mac(1, A), source, gateway);
        let sent = world.send(A, &ends.with_ttl(1).ping(9, b"payload"));
        let [(A, reply)] = &sent[..] else { panic!("{sent:?}") };
        let parsed = parse(reply).unwrap();
        assert_eq!((parsed.source, parsed.destination, parsed.ttl), (gateway, source, 64));
        assert!(parsed.is_icmp_reply() && transport_checksum_is_right(reply));
        assert_eq!(parsed.destination_mac, pod_mac(1, A));
        assert_eq!(world.moved(), ["a rx 1", "a tx 1", "stage answer 1", "stage parse 1"]);
        assert_eq!(world.send(A, &ends.pong(1, &[])), [], "nothing else is there");
        assert_eq!(world.moved_ports(), ["a drop destination-invalid 1", "a rx 1"]);
        assert_eq!(world.send(A, &ends.ping(9, &[0; 1450])), [], "the reply would not fit the pod's device");
        assert_eq!(world.moved_ports(), ["a drop too-big 1", "a rx 1"]);
    }
}

#[test]
fn a_pod_speaks_for_itself_only() {
    let mut world = World::node(1);
    for (own, other) in [(v4(1, A), v4(1, C)), (v6(1, A), v6(1, C))] {
        let to = if own.is_ipv4() { v4(1, B) } else { v6(1, B) };
        let good = Ends::of_pod(pod_mac(1, A), own, to);
        let group = if own.is_ipv4() { "224.0.0.251" } else { "ff02::16" }.parse().unwrap();
        let loopback = if own.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap();
        let cases = [
            (Ends { source_mac: pod_mac(1, C), ..good }, "spoofed-mac"),
            (Ends { source: other, ..good }, "spoofed-address"),
            (Ends { source: to, ..good }, "spoofed-address"),
            (Ends { source: loopback, ..good }, "source-invalid"),
            (Ends { source: group, ..good }, "source-invalid"),
            (Ends { destination: loopback, ..good }, "destination-invalid"),
            (Ends { destination: group, ..good }, "destination-invalid"),
            (
                Ends { destination: group, destination_mac: Mac([1, 0, 0x5e, 0, 0, 0xfb]), ..good },
                "destination-invalid",
            ),
            (Ends { destination_mac: pod_mac(1, B), ..good }, "mac-not-ours"),
            (Ends { destination: own, ..good }, "route-loops"),
        ];
        for (ends, reason) in cases {
            assert_eq!(world.send(A, &ends.udp(7, 5000, &[])), [], "{ends:?}");
            assert_eq!(world.moved_ports(), [format!("a drop {reason} 1"), "a rx 1".to_owned()], "{ends:?}");
        }
    }
}

#[test]
fn the_node_and_its_pods_reach_each_other() {
    for (pod, node) in [(v4(1, B), v4(1, HOST)), (v6(1, B), v6(1, HOST))] {
        let mut world = World::node(1);
        // A probe of a port that policy opens to nobody.
        let probe = world.host_ends(pod).tcp(4000, 9999, 2, &[]);
        let sent = world.send(HOST, &probe);
        assert!(matches!(sent[..], [(B, _)]), "{sent:?}");
        let answer = Ends::of_pod(pod_mac(1, B), pod, node).tcp(9999, 4000, 0x12, &[]);
        assert!(matches!(world.send(B, &answer)[..], [(HOST, _)]));
        let to_node = world.ends(C, node).udp(1, 53, &[]);
        assert_eq!(world.send(C, &to_node), [], "the stranger's egress admits clients only");
        let expected = [
            "b rx 1",
            "b tx 1",
            "c drop policy-egress 1",
            "c rx 1",
            "flows created 1",
            "host rx 1",
            "host tx 1",
        ];
        assert_eq!(world.moved_ports(), expected);
    }
}

#[test]
fn the_node_does_not_speak_for_pods() {
    let mut world = World::node(1);
    let ends = Ends { source: v4(1, A), ..world.host_ends(v4(1, B)) };
    assert_eq!(world.send(HOST, &ends.udp(1, 5000, &[])), []);
    assert_eq!(world.moved_ports(), ["host drop spoofed-address 1", "host rx 1"]);
    assert_eq!(world.send(HOST, &frames::arp_request(KERNEL_MAC, GATEWAY_V4, ip4(v4(1, A)))), []);
    assert_eq!(world.moved_ports(), ["host drop arp-invalid 1", "host rx 1"]);
}

#[test]
fn what_nobody_configured_passes_nothing() {
    let mut world = World::node(1);
    world.tables = std::sync::Arc::new(crate::Tables::empty());
    let frame = world.ends(A, v4(1, B)).udp(1, 5000, &[]);
    assert_eq!(world.send(A, &frame), []);
    assert_eq!(world.moved_ports(), ["a drop not-configured 1", "a rx 1"]);
}
