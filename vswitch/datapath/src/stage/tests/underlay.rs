use vswitch_model::{Mac, NextHop, TunnelId};

use super::both;
use crate::parse::parse;
use crate::testing::World;
use crate::testing::frames::{self, Ends, transport_checksum_is_right};
use crate::testing::world::{
    A, B, C, HOST, UPLINK, pod_mac, underlay_v4, underlay_v6, uplink_mac, v4, v6, vtep,
};

fn tunnelled(world: &World, over_v6: bool, inner: &[u8]) -> Vec<u8> {
    frames::vxlan(world.tunnel_ends(over_v6), 4096, 4789, inner)
}

#[test]
fn pods_of_the_other_node_reach_ours() {
    for destination in both(1, B) {
        for over_v6 in [false, true] {
            let mut world = World::node(1);
            let inner = world.inner_ends(A, destination).udp(7, 5000, b"media");
            let frame = tunnelled(&world, over_v6, &inner);
            let sent = world.send(UPLINK, &frame);
            let [(B, delivered)] = &sent[..] else { panic!("{sent:?}") };
            let parsed = parse(delivered).unwrap();
            assert_eq!((parsed.destination_mac, parsed.source_mac), (pod_mac(1, B), Mac::GATEWAY));
            assert_eq!((parsed.source, parsed.ttl), (world.inner_ends(A, destination).source, 62));
            assert!(transport_checksum_is_right(delivered));
            let expected = [
                "b tx 1",
                "flows created 1",
                "stage decapsulate 1",
                "stage flow-miss 1",
                "stage parse 1",
                "uplink rx 1",
            ];
            assert_eq!(world.moved(), expected);
            // Policy judges who sends by the inner address.
            let inner = world.inner_ends(C, destination).udp(7, 5000, b"media");
            assert_eq!(world.send(UPLINK, &tunnelled(&world, over_v6, &inner)), []);
            assert_eq!(world.moved_ports(), ["uplink drop policy-ingress 1", "uplink rx 1"]);
        }
    }
}

#[test]
fn tunnel_packets_that_are_not_right_end() {
    let world = World::node(1);
    let ends = world.inner_ends(A, v4(1, B));
    let inner = ends.udp(7, 5000, b"media");
    let good = tunnelled(&world, false, &inner);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    let from = |source| frames::vxlan(Ends { source, ..world.tunnel_ends(false) }, 4096, 4789, &inner);
    let with = |inner: Ends| tunnelled(&world, false, &inner.udp(7, 5000, &[]));
    let [first, later] = frames::cut_v4(&frames::may_fragment(good.clone(), 3), 48);
    let mut broken = inner.clone();
    broken[24] ^= 1;
    let cases = [
        (from(underlay_v4(9)), "tunnel-peer-unknown"),
        (from([10, 0, 2, 10].into()), "tunnel-peer-unknown"),
        (frames::vxlan(world.tunnel_ends(false), 4097, 4789, &inner), "tunnel-header-invalid"),
        (changed(42, 0), "tunnel-header-invalid"),
        (changed(42, 0x0c), "tunnel-header-invalid"),
        (frames::vxlan(world.tunnel_ends(false), 4096, 4788, &inner), "uplink-not-ours"),
        (with(Ends { source: v4(1, A), ..ends }), "tunnel-source-invalid"),
        (with(Ends { source: [8, 8, 8, 8].into(), ..ends }), "tunnel-source-invalid"),
        (with(Ends { source: [10, 0, 4, 5].into(), ..ends }), "tunnel-source-invalid"),
        (with(Ends { source: [127, 0, 0, 1].into(), ..ends }), "source-invalid"),
        (with(Ends { destination: [224, 0, 0, 1].into(), ..ends }), "destination-invalid"),
        (with(Ends { destination_mac: uplink_mac(1), ..ends }), "mac-not-ours"),
        (with(Ends { destination: v4(2, B), ..ends }), "route-loops"),
        (first, "tunnel-fragment"),
        (later, "tunnel-fragment"),
        (tunnelled(&world, false, &inner[..20]), "truncated"),
        (tunnelled(&world, false, &broken), "ipv4-header-invalid"),
        (
            tunnelled(
                &world,
                false,
                &frames::arp_request(vtep(2, false), [10, 0, 2, 1].into(), [10, 0, 1, 1].into()),
            ),
            "arp-invalid",
        ),
        (changed(5, 0x77), "mac-not-ours"),
    ];
    let mut world = World::node(1);
    for (case, (frame, reason)) in cases.into_iter().enumerate() {
        assert_eq!(world.send(UPLINK, &frame), [], "case {case}, {reason}");
        assert_eq!(
            world.moved_ports(),
            [format!("uplink drop {reason} 1"), "uplink rx 1".to_owned()],
            "case {case}"
        );
    }
    assert_eq!(world.send(UPLINK, &good).len(), 1, "the one they were made from is right");
}

#[test]
fn of_a_known_flow_too_nobody_else_sends() {
    for destination in both(1, B) {
        for over_v6 in [false, true] {
            let mut world = World::node(1);
            let inner = world.inner_ends(A, destination).udp(7, 5000, b"media");
            let good = tunnelled(&world, over_v6, &inner);
            let underlay = if over_v6 { underlay_v6 } else { underlay_v4 };
            let from =
                |source| frames::vxlan(Ends { source, ..world.tunnel_ends(over_v6) }, 4096, 4789, &inner);
            let (stranger, own) = (from(underlay(9)), from(underlay(1)));
            assert_eq!(world.send(UPLINK, &good).len(), 1);
            world.moved_ports();
            let batch = [good.clone(), stranger, own, good].map(|frame| (UPLINK, frame));
            assert_eq!(world.send_all(batch).len(), 2);
            let expected = ["b tx 2", "uplink drop tunnel-peer-unknown 2", "uplink rx 4"];
            assert_eq!(world.moved_ports(), expected);
            // By the node's tunnel of the other family it may come as well.
            let other = tunnelled(&world, !over_v6, &inner);
            assert_eq!(world.send(UPLINK, &other).len(), 1);
        }
    }
}

#[test]
fn who_has_moved_away_speaks_no_longer_for_a_known_flow() {
    for source in both(2, A) {
        for away in [NextHop::Unreachable, NextHop::Tunnel(TunnelId(4))] {
            let mut world = World::node(1);
            let inner = world.inner_ends(A, if source.is_ipv4() { v4(1, B) } else { v6(1, B) });
            let frame = tunnelled(&world, source.is_ipv6(), &inner.udp(7, 5000, b"media"));
            for _ in 0..2 {
                assert_eq!(world.send(UPLINK, &frame).len(), 1);
            }
            world.moved_ports();
            // The flow is there still, and the adjacency it is answered by has the number it had.
            world.desired.routes.insert(source.into(), away.clone());
            world.recompile();
            assert_eq!(world.send(UPLINK, &frame), [], "{source} {away:?}");
            assert_eq!(world.moved_ports(), ["uplink drop tunnel-source-invalid 1", "uplink rx 1"]);
            world.desired.routes.remove(&source.into());
            world.recompile();
            assert_eq!(world.send(UPLINK, &frame).len(), 1);
        }
    }
}

#[test]
fn what_follows_an_inner_packet_goes_with_the_outer_headers() {
    let mut world = World::node(1);
    let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, b"media");
    let mut padded = inner.clone();
    padded.resize(inner.len() + 13, 0xa5);
    for _ in 0..2 {
        let sent = world.send(UPLINK, &tunnelled(&world, false, &padded));
        let [(B, delivered)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(delivered.len(), inner.len());
    }
}

#[test]
fn a_non_zero_outer_checksum_is_accepted() {
    let mut world = World::node(1);
    let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, b"media");
    let mut frame = tunnelled(&world, false, &inner);
    frame[40..42].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(world.send(UPLINK, &frame).len(), 1);
    // Zero over IPv6 too (RFC 6935).
    let mut frame = tunnelled(&world, true, &inner);
    frame[60..62].fill(0);
    assert_eq!(world.send(UPLINK, &frame).len(), 1);
}

#[test]
fn a_congestion_mark_arrives() {
    for destination in both(1, B) {
        let mut world = World::node(1);
        let ends = world.inner_ends(A, destination);
        let over_v6 = destination.is_ipv6();
        // The first opens the flow.
        for (outer, inner, arrives) in [(3, 2, Some(3)), (0, 2, Some(2)), (3, 1, Some(3)), (3, 0, None)] {
            let inner = with_ecn(ends.udp(7, 5000, b"media"), inner);
            let frame = with_ecn(tunnelled(&world, over_v6, &inner), outer);
            let sent = world.send(UPLINK, &frame);
            let classes = sent.iter().map(|(_, frame)| parse(frame).unwrap().traffic_class);
            assert_eq!(classes.collect::<Vec<_>>(), Vec::from_iter(arrives), "{outer} {inner:02x?}");
        }
        // A sender that knows no marks would not learn of one (RFC 6040, section 4.2).
        assert!(world.moved_ports().contains(&"uplink drop tunnel-header-invalid 1".to_owned()));
    }
}

/// The frame with these two bits of its outermost traffic class.
fn with_ecn(mut frame: Vec<u8>, ecn: u8) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] {
        frame[15] = frame[15] & !3 | ecn;
        frames::mend_ipv4(&mut frame);
    } else {
        frame[15] = frame[15] & !0x30 | ecn << 4;
    }
    frame
}

#[test]
fn the_other_node_reaches_this_one_through_the_tunnel() {
    for destination in [v4(1, HOST), v6(1, HOST)] {
        let mut world = World::node(1);
        let inner = world.inner_ends(HOST, destination).ping(3, b"?");
        let frame = tunnelled(&world, false, &inner);
        assert!(matches!(world.send(UPLINK, &frame)[..], [(HOST, _)]));
    }
}

#[test]
fn direct_packets_for_our_pods_come_in() {
    let mut world = World::node(1);
    let ends = Ends {
        source_mac: uplink_mac(3),
        destination_mac: uplink_mac(1),
        source: [10, 0, 3, 5].into(),
        destination: v4(1, A),
        ttl: 60,
    };
    assert!(matches!(world.send(UPLINK, &ends.udp(1, 2, &[]))[..], [(A, _)]));
    world.moved();
    let cases = [
        (Ends { source: v4(1, C), ..ends }, "spoofed-address"),
        // Whom a tunnel leads to speaks by the tunnel only: it alone knows who may speak for whom.
        (Ends { source: v4(2, A), ..ends }, "spoofed-address"),
        (Ends { source: v4(2, HOST), ..ends }, "spoofed-address"),
        (Ends { source: v6(2, A), destination: v6(1, A), ..ends }, "spoofed-address"),
        // Policy lets this node in whatever it says: nobody else may come under its name.
        (Ends { source: v4(1, HOST), ..ends }, "spoofed-address"),
        (Ends { source: underlay_v4(1), ..ends }, "spoofed-address"),
        (Ends { source: v6(1, HOST), destination: v6(1, A), ..ends }, "spoofed-address"),
        (Ends { source: underlay_v6(1), destination: v6(1, A), ..ends }, "spoofed-address"),
        (Ends { source: [224, 0, 0, 1].into(), ..ends }, "source-invalid"),
        (Ends { destination: [8, 8, 8, 8].into(), ..ends }, "uplink-not-ours"),
        (Ends { destination: underlay_v4(1), ..ends }, "uplink-not-ours"),
        (Ends { destination: underlay_v6(1), source: underlay_v6(2), ..ends }, "uplink-not-ours"),
        (Ends { destination: v4(1, HOST), ..ends }, "uplink-not-ours"),
        (Ends { destination: v6(2, HOST), source: v6(1, A), ..ends }, "uplink-not-ours"),
        (Ends { destination_mac: Mac([2; 6]), ..ends }, "mac-not-ours"),
    ];
    for (ends, reason) in cases {
        assert_eq!(world.send(UPLINK, &ends.udp(1, 2, &[])), [], "{ends:?}");
        assert_eq!(
            world.moved_ports(),
            [format!("uplink drop {reason} 1"), "uplink rx 1".to_owned()],
            "{ends:?}"
        );
    }
    let arp = frames::arp_request(uplink_mac(2), [192, 168, 0, 2].into(), [192, 168, 0, 1].into());
    assert_eq!(world.send(UPLINK, &arp), []);
    assert_eq!(world.moved_ports(), ["uplink drop uplink-not-ours 1", "uplink rx 1"]);
}
