use std::net::IpAddr;

use vswitch_model::NextHop;

use super::both;
use crate::parse::parse;
use crate::tables::{GATEWAY_V4, GATEWAY_V6};
use crate::testing::World;
use crate::testing::frames::{self, Ends, transport_checksum_is_right};
use crate::testing::world::{A, B, HOST, UPLINK, pod_mac, underlay_v4, uplink_mac, v4, v6};
use crate::{Buffer, Offload, Packet, PartialChecksum, VecBuffer, WalkConfig, checksum};

/// Type, code and the second word of the ICMP error in `frame`, which quotes `about`.
fn told(frame: &[u8], about: &[u8]) -> (u8, u8, u32) {
    let parsed = parse(frame).unwrap();
    assert!(parsed.is_icmp_error() && transport_checksum_is_right(frame), "{parsed:?}");
    let at = usize::from(parsed.transport);
    let quote = &frame[at + 8..];
    assert_eq!(quote, &about[14..14 + quote.len()], "it quotes what was sent");
    (frame[at], frame[at + 1], u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap()))
}

#[test]
fn a_dying_packet_is_reported() {
    for (destination, kind) in both(1, B).into_iter().zip([(11, 0, 0), (3, 0, 0)]) {
        let mut world = World::node(1);
        let ends = world.ends(A, destination);
        let frame = ends.with_ttl(1).udp(7, 5000, b"dying");
        let sent = world.send(A, &frame);
        let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(told(error, &frame), kind);
        let parsed = parse(error).unwrap();
        let node = if destination.is_ipv4() { v4(1, HOST) } else { v6(1, HOST) };
        assert_eq!((parsed.source, parsed.destination), (node, ends.source));
        assert_eq!(parsed.destination_mac, pod_mac(1, A));
        let expected = [
            "a drop ttl-expired 1",
            "a rx 1",
            "a tx 1",
            "flows created 1",
            "stage flow-miss 1",
            "stage icmp-error 1",
            "stage parse 1",
        ];
        assert_eq!(world.moved(), expected);
    }
}

#[test]
fn what_does_not_fit_is_reported_with_the_mtu() {
    for (destination, mtu) in [(v4(2, B), 1450u16), (v6(2, B), 1430), (v4(1, B), 1450), (v6(1, B), 1450)] {
        let mut world = World::node(1);
        let header = if destination.is_ipv4() { 28 } else { 48 };
        let ends = world.ends(A, destination);
        let fits = ends.udp(7, 5000, &vec![7; usize::from(mtu) - header]);
        let sent = world.send(A, &fits);
        assert!(matches!(sent[..], [(UPLINK | B, _)]), "{destination}");
        let longest = if sent[0].0 == UPLINK { 1514 } else { 1464 };
        assert_eq!(sent[0].1.len(), longest);
        world.moved();
        let frame = ends.udp(7, 5000, &vec![7; usize::from(mtu) - header + 1]);
        let sent = world.send(A, &frame);
        let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
        let kind = if destination.is_ipv4() { (3, 4, mtu.into()) } else { (2, 0, mtu.into()) };
        assert_eq!(told(error, &frame), kind);
        assert_eq!(world.moved_ports(), ["a drop too-big 1", "a rx 1", "a tx 1"]);
    }
}

#[test]
fn where_no_piece_fits_nothing_is_cut() {
    // A tunnel over IPv4 leaves 28 bytes of 78, and room for one piece's 8; of 77 none.
    for (mtu, expected) in [(78, "stage split 1"), (77, "a drop too-big 1")] {
        let mut world = World::node(1);
        world.underlay.hops.values_mut().flatten().for_each(|hop| hop.mtu = mtu);
        world.recompile();
        world.moved();
        let frame = frames::may_fragment(world.ends(A, v4(2, B)).udp(7, 5000, &[7; 16]), 1);
        let sent = world.send(A, &frame);
        assert_eq!(sent.len(), if mtu == 78 { 3 } else { 0 });
        let moved = world.moved();
        assert!(moved.iter().any(|counter| counter == expected), "{moved:?}");
    }
}

#[test]
fn what_leads_nowhere_is_reported() {
    for (destination, kind) in [("10.0.1.40", (3, 1, 0)), ("fd10:0:0:1::3f", (1, 3, 0))] {
        let mut world = World::node(1);
        let frame = world.ends(A, destination.parse().unwrap()).udp(7, 5000, b"anybody?");
        let sent = world.send(A, &frame);
        let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(told(error, &frame), kind);
        assert_eq!(world.moved_ports(), ["a drop route-unreachable 1", "a rx 1", "a tx 1"]);
    }
    let mut world = World::node(1);
    world.desired.routes.remove(&"0.0.0.0/0".parse().unwrap());
    world.recompile();
    let frame = world.ends(A, [8, 8, 8, 8].into()).udp(7, 53, &[]);
    assert_eq!(world.send(A, &frame).len(), 1);
    assert_eq!(world.moved_ports(), ["a drop no-route 1", "a rx 1", "a tx 1"]);
}

#[test]
fn errors_reach_senders_behind_a_tunnel() {
    let mut world = World::node(1);
    let inner = world.inner_ends(A, [10, 0, 1, 40].into()).udp(7, 5000, b"anybody?");
    let outer = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner);
    let sent = world.send(UPLINK, &outer);
    let [(UPLINK, error)] = &sent[..] else { panic!("{sent:?}") };
    let parsed = parse(error).unwrap();
    assert_eq!((parsed.destination, parsed.destination_port), (underlay_v4(2), 4789));
    assert_eq!(told(&error[50..], &inner), (3, 1, 0));
    // The other node takes it only from an address that lives here.
    let mut other = World::node(2);
    let asked = other.ends(A, [10, 0, 1, 40].into()).udp(7, 5000, b"anybody?");
    other.send(A, &asked);
    assert!(matches!(other.send(UPLINK, error)[..], [(A, _)]), "{:?}", other.moved());
}

#[test]
fn the_node_is_told_by_an_address_that_its_kernel_takes() {
    let mut world = World::node(1);
    for (to, own, by) in [(v4(1, A), v4(1, HOST), GATEWAY_V4.into()), (v6(1, A), v6(1, HOST), v6(1, HOST))] {
        let frame = world.host_ends(to).with_ttl(1).udp(7, 5000, &[]);
        let sent = world.send(HOST, &frame);
        let [(HOST, error)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(told(error, &frame), if own.is_ipv4() { (11, 0, 0) } else { (3, 0, 0) });
        let parsed = parse(error).unwrap();
        assert_eq!(
            (parsed.source, parsed.destination),
            (by, own),
            "IPv4 from itself is dropped by the kernel"
        );
    }
    // Who is behind the node is beyond the link of the gateway's address.
    let stranger = Ends { source: [8, 8, 8, 8].into(), ..world.ends(HOST, v4(1, A)) };
    let sent = world.send(HOST, &stranger.with_ttl(1).udp(7, 5000, &[]));
    let [(HOST, error)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(parse(error).unwrap().source, v4(1, HOST));
}

#[test]
fn where_no_route_leads_the_network_is_unreachable() {
    for (destination, kind) in [("8.8.8.8", (3, 0, 0)), ("2001:db8::8", (1, 0, 0))] {
        let mut world = World::node(1);
        world.desired.routes.retain(|net, _| net.prefix_len() > 0);
        world.recompile();
        let frame = world.ends(A, destination.parse().unwrap()).udp(7, 53, &[]);
        let sent = world.send(A, &frame);
        let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(told(error, &frame), kind);
        assert_eq!(world.moved_ports(), ["a drop no-route 1", "a rx 1", "a tx 1"]);
    }
}

#[test]
fn no_error_speaks_of_an_error_and_the_rest_are_rationed() {
    let config = WalkConfig { icmp_errors_per_second: 3, ..WalkConfig::default() };
    let mut world = World::with_config(1, &config);
    let frame = world.ends(A, v4(1, B)).with_ttl(1).udp(7, 5000, &[]);
    let sent = world.send_all(std::iter::repeat_n((A, frame.clone()), 5));
    assert_eq!(sent.len(), 3);
    assert_eq!(world.moved()[..3], ["a drop ttl-expired 5", "a rx 5", "a tx 3"]);
    world.wait_s(1);
    let error = {
        let out = world.ends(B, [8, 8, 8, 8].into()).udp(7, 53, &[0; 100]);
        world.send(B, &out);
        let mut buffer = VecBuffer::of(&out);
        let about = parse(&out).unwrap();
        let router = [9, 9, 9, 9].into();
        assert!(crate::icmp::build(&mut buffer, &about, crate::icmp::IcmpError::TimeExceeded, router));
        let mut error = buffer.bytes().to_vec();
        error[22] = 1;
        frames::mend_ipv4(&mut error);
        error
    };
    world.moved();
    assert_eq!(world.send(HOST, &error), []);
    assert_eq!(world.moved_ports(), ["host drop ttl-expired 1", "host rx 1"]);
}

#[test]
fn a_flood_of_one_sender_leaves_errors_to_the_others() {
    let config =
        WalkConfig { icmp_errors_per_second: 10, icmp_errors_per_source: 3, ..WalkConfig::default() };
    let mut world = World::with_config(1, &config);
    let flood = world.ends(A, v4(1, B)).with_ttl(1).udp(7, 5000, &[]);
    assert_eq!(world.send_all(std::iter::repeat_n((A, flood), 50)).len(), 3);
    assert!(world.moved().contains(&"stage icmp-error-limited-source 47".to_owned()));
    let other = world.ends(B, [8, 8, 8, 8].into()).with_ttl(1).udp(7, 53, &[]);
    assert_eq!(world.send(B, &other).len(), 1);
}

#[test]
fn errors_to_strangers_and_of_other_kinds_leave_pods_theirs() {
    let config = WalkConfig { icmp_errors_per_second: 3, icmp_errors_per_source: 2, ..WalkConfig::default() };
    let mut world = World::with_config(1, &config);
    // As many strangers as it takes, each a sender of its own.
    let from = |last| Ends { source: [8, 8, 8, last].into(), ..world.ends(HOST, v4(1, A)) };
    let flood: Vec<_> = (0..=255).map(|last| (HOST, from(last).with_ttl(1).udp(7, 5000, &[]))).collect();
    assert_eq!(world.send_all(flood).len(), 3);
    let expired = |world: &World, pod| world.ends(pod, [8, 8, 8, 8].into()).with_ttl(1).udp(7, 53, &[]);
    let frames: Vec<_> = [A, A, A, B, B].map(|pod| (pod, expired(&world, pod))).into();
    assert_eq!(world.send_all(frames).len(), 3, "two to one pod, and one more to another");
    // A pod whose packets are too big hears of it nonetheless.
    let large = world.ends(A, v4(2, A)).udp(7, 53, &[0; 1423]);
    let sent = world.send(A, &large);
    assert_eq!(sent.len(), 1);
    assert_eq!(told(&sent[0].1, &large).0, 3);
    // So do the node, and a pod of another node.
    let large = world.host_ends(v4(2, A)).udp(7, 53, &[0; 1423]);
    let sent = world.send(HOST, &large);
    let [(HOST, error)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(told(error, &large).0, 3);
    let large = world.inner_ends(A, v4(1, A)).udp(7, 5000, &[0; 1500]);
    let sent = world.send(UPLINK, &frames::vxlan(world.tunnel_ends(false), 4096, 4789, &large));
    let [(UPLINK, error)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(told(&error[50..], &large).0, 3);
    // And strangers still use up no more than theirs.
    let stranger = Ends { source: [8, 8, 8, 8].into(), ..world.ends(HOST, v4(1, A)) };
    assert_eq!(world.send(HOST, &stranger.udp(7, 5000, &[0; 1500])), []);
}

#[test]
fn what_cannot_be_answered_takes_nothing_from_what_can() {
    let config = WalkConfig { icmp_errors_per_second: 3, ..WalkConfig::default() };
    let mut world = World::with_config(1, &config);
    // From nodes behind a tunnel that leads nowhere yet.
    let frames: Vec<_> = (1..9)
        .map(|last| Ends { source: [10, 0, 4, last].into(), ..world.ends(HOST, v4(1, A)) })
        .map(|ends| (HOST, ends.with_ttl(1).udp(7, 5000, &[])))
        .collect();
    assert_eq!(world.send_all(frames), []);
    let moved = world.moved();
    assert!(!moved.iter().any(|line| line.contains("icmp-error")), "{moved:?}");
    let stranger = Ends { source: [8, 8, 8, 8].into(), ..world.ends(HOST, v4(1, A)) };
    assert_eq!(world.send(HOST, &stranger.with_ttl(1).udp(7, 5000, &[])).len(), 1);
}

#[test]
fn what_is_sent_to_the_gateway_and_is_no_ping_is_refused_in_its_name() {
    for gateway in [IpAddr::from(GATEWAY_V4), IpAddr::from(GATEWAY_V6)] {
        let mut world = World::node(1);
        let own = if gateway.is_ipv4() { v4(1, A) } else { v6(1, A) };
        let ends = Ends { destination: gateway, ..world.ends(A, own) };
        let v6 = gateway.is_ipv6();
        let mut other = ends.udp(7, 33_434, b"?");
        other[if v6 { 20 } else { 23 }] = 253;
        if !v6 {
            frames::mend_ipv4(&mut other);
        }
        let port = if v6 { (1, 4, 0) } else { (3, 3, 0) };
        let protocol = if v6 { (4, 1, 6) } else { (3, 2, 0) };
        let cases = [(ends.udp(7, 33_434, b"?"), port), (ends.tcp(7, 22, 2, &[]), port), (other, protocol)];
        for (frame, kind) in cases {
            let sent = world.send(A, &frame);
            let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
            assert_eq!(told(error, &frame), kind);
            assert_eq!(parse(error).unwrap().source, gateway);
            assert_eq!(world.moved_ports(), ["a drop destination-invalid 1", "a rx 1", "a tx 1"]);
        }
        assert_eq!(world.send(A, &ends.pong(7, b"?")), [], "of ICMP nothing is said");
    }
}

#[test]
fn the_world_is_behind_the_host_port() {
    for destination in ["8.8.8.8", "2001:db8::8", "192.168.0.1"] {
        let mut world = World::node(1);
        let frame = world.ends(A, destination.parse().unwrap()).udp(7, 53, &[]);
        assert!(matches!(world.send(A, &frame)[..], [(HOST, _)]), "{destination}");
    }
    let mut world = World::node(1);
    let from_world = Ends { source: [8, 8, 8, 8].into(), ..world.host_ends([9, 9, 9, 9].into()) };
    assert_eq!(world.send(HOST, &from_world.udp(1, 2, &[])), []);
    assert_eq!(world.moved_ports(), ["host drop route-loops 1", "host rx 1"]);
}

#[test]
fn a_direct_route_needs_no_tunnel() {
    let mut world = World::node(1);
    let frame = world.ends(A, [10, 0, 3, 5].into()).udp(7, 53, &[]);
    let sent = world.send(A, &frame);
    let [(UPLINK, direct)] = &sent[..] else { panic!("{sent:?}") };
    let parsed = parse(direct).unwrap();
    assert_eq!((parsed.destination_mac, parsed.source_mac), (uplink_mac(3), uplink_mac(1)));
    assert_eq!((parsed.destination, parsed.ttl), ([10, 0, 3, 5].into(), 63));
}

#[test]
fn an_unresolved_next_hop_is_said_so() {
    let mut world = World::node(1);
    let frame = world.ends(A, [10, 0, 4, 5].into()).udp(7, 53, &[]);
    let sent = world.send(A, &frame);
    let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(told(error, &frame), (3, 1, 0));
    assert_eq!(world.moved_ports(), ["a drop next-hop-unresolved 1", "a rx 1", "a tx 1"]);
}

#[test]
fn a_flow_follows_its_route_when_that_changes() {
    let mut world = World::node(1);
    let frame = world.ends(A, v4(2, B)).udp(7, 5000, &[]);
    assert!(matches!(world.send(A, &frame)[..], [(UPLINK, _)]));
    world.desired.routes.insert("10.0.2.0/26".parse().unwrap(), NextHop::Host);
    world.recompile();
    assert!(matches!(world.send(A, &frame)[..], [(HOST, _)]));
}

#[test]
fn inner_marks_are_copied_to_the_outer_header() {
    let mut world = World::node(1);
    let mut frame = world.ends(A, v4(2, B)).udp(7, 5000, &[]);
    frame[15] = 0xba;
    frames::mend_ipv4(&mut frame);
    assert_eq!(parse(&world.send(A, &frame)[0].1).unwrap().traffic_class, 0xba);
    let mut frame = world.ends(A, v6(2, B)).udp(7, 5000, &[]);
    (frame[14], frame[15]) = (0x6b, 0xa0);
    assert_eq!(parse(&world.send(A, &frame)[0].1).unwrap().traffic_class, 0xba);
}

#[test]
fn without_headroom_there_is_no_tunnel() {
    let mut world = World::node(1);
    let frame = world.ends(A, v4(2, B)).udp(7, 5000, &[]);
    let packet =
        Packet { buffer: VecBuffer::with_headroom(&frame, 49), port: A, offload: Offload::default() };
    assert_eq!(world.walk_packets(vec![packet]).len(), 0);
    assert_eq!(world.moved_ports(), ["a drop headroom-exhausted 1", "a rx 1", "flows created 1"]);
}

/// What the node's kernel sends with its UDP checksum left to be done: the field holds the pseudo-header's sum.
fn partial(ends: Ends, length: usize) -> Packet<VecBuffer> {
    let mut frame = ends.udp(7, 5000, &vec![0x5a; length]);
    let parsed = parse(&frame).unwrap();
    let start = usize::from(parsed.transport);
    let sum = checksum::Sum::ZERO.pseudo(parsed.source, parsed.destination, 17, frame.len() - start).fold();
    frame[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    let checksum = Some(PartialChecksum { start: parsed.transport, offset: 6 });
    Packet { buffer: VecBuffer::of(&frame), port: HOST, offload: Offload { checksum, segment: None } }
}

#[test]
fn checksums_left_to_us_are_finished_where_nobody_else_will() {
    let mut world = World::node(1);
    let destinations: [(IpAddr, usize); 4] = [(v4(1, A), 0), (v6(1, A), 0), (v4(2, A), 50), (v6(2, A), 70)];
    for (destination, outer) in destinations {
        let packet = partial(world.host_ends(destination), 101);
        let sent = world.walk_packets(vec![packet]);
        assert_eq!((sent.len(), sent[0].offload), (1, Offload::default()));
        assert!(transport_checksum_is_right(&sent[0].buffer.bytes()[outer..]), "to {destination}");
    }
    let moved = world.moved();
    assert!(moved.contains(&"stage checksum 4".to_owned()), "{moved:?}");
    // An uplink that would finish them could not do so inside a tunnel.
    for facts in world.ports.values_mut() {
        facts.finishes_checksums = true;
    }
    world.recompile();
    let sent = world.walk_packets(vec![partial(world.host_ends(v4(2, A)), 101)]);
    assert!(
        sent[0].offload == Offload::default() && transport_checksum_is_right(&sent[0].buffer.bytes()[50..])
    );
    // The host port carries them on.
    let mut packet = partial(world.ends(A, v4(1, HOST)), 20);
    packet.port = A;
    let offload = packet.offload;
    let sent = world.walk_packets(vec![packet]);
    assert_eq!((sent[0].port, sent[0].offload), (HOST, offload));
}

#[test]
fn more_than_a_batch_is_walked_in_order() {
    let mut world = World::node(1);
    let ends = world.ends(A, v4(1, B));
    let frames = (0..150u8).map(|number| (A, ends.udp(7, 5000, &[number])));
    let sent = world.send_all(frames.collect::<Vec<_>>());
    let numbers: Vec<_> = sent.iter().map(|(_, frame)| frame[42]).collect();
    assert_eq!(numbers, (0..150).collect::<Vec<u8>>());
    assert_eq!(world.moved_ports(), ["a rx 150", "b tx 150", "flows created 1"]);
}
