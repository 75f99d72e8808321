//! Large packets: cut where the way does not take them, passed on whole where it does.

use std::net::IpAddr;

use vswitch_model::DropReason;

use crate::parse::{Network, parse, protocol};
use crate::read::put;
use crate::testing::World;
use crate::testing::frames::{Ends, may_fragment, transport_checksum_is_right};
use crate::testing::world::{A, B, HOST, UPLINK, v4, v6};
use crate::{Buffer, Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind, VecBuffer, checksum};

/// What a kernel sends to be cut into datagrams or segments of `size`; the checksum field holds the pseudo-header's sum.
fn large(ends: Ends, tcp: bool, length: usize, size: u16) -> Packet<VecBuffer> {
    let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
    let mut frame = if tcp { ends.tcp(7, 80, 0x18, &payload) } else { ends.udp(7, 5000, &payload) };
    let parsed = parse(&frame).unwrap();
    let start = usize::from(parsed.transport);
    let sum = checksum::Sum::ZERO
        .pseudo(parsed.source, parsed.destination, parsed.protocol, frame.len() - start)
        .fold();
    let (kind, offset) = match (tcp, parsed.network) {
        (true, Network::V4) => (SegmentKind::TcpV4, 16),
        (true, _) => (SegmentKind::TcpV6, 16),
        _ => (SegmentKind::Udp, 6),
    };
    put(&mut frame, start + usize::from(offset), sum.to_be_bytes());
    let checksum = Some(PartialChecksum { start: parsed.transport, offset });
    let offload = Offload { checksum, segment: Some(Segment::new(kind, size)) };
    Packet { buffer: VecBuffer::of(&frame), port: HOST, offload }
}

#[test]
fn they_are_cut_towards_pods_and_into_tunnels() {
    // To a pod here; over both families of tunnel, whose outer headers each piece has.
    let destinations: [(IpAddr, PortIndex, usize); 4] =
        [(v4(1, A), A, 0), (v6(1, A), A, 0), (v4(2, A), UPLINK, 50), (v6(2, A), UPLINK, 70)];
    for tcp in [true, false] {
        let mut world = World::node(1);
        for (destination, port, outer) in destinations {
            let packet = large(world.host_ends(destination), tcp, 3300, 1000);
            let sent = world.walk_packets(vec![packet]);
            assert_eq!(sent.len(), 4, "to {destination}");
            let mut joined = Vec::new();
            for piece in &sent {
                let inner = &piece.buffer.bytes()[outer..];
                let parsed = parse(inner).unwrap();
                assert_eq!((piece.port, piece.offload), (port, Offload::default()));
                assert!(transport_checksum_is_right(inner), "to {destination}");
                assert_eq!(parsed.ttl, 63);
                let headers = usize::from(parsed.transport) + if tcp { 20 } else { 8 };
                joined.extend_from_slice(&inner[headers..]);
                assert_eq!(parsed.protocol, if tcp { protocol::TCP } else { protocol::UDP });
            }
            let sent: Vec<u8> = (0..3300).map(|at| at as u8).collect();
            assert_eq!(joined, sent, "to {destination}");
        }
        let moved = world.moved();
        assert!(moved.contains(&"stage segment 4".to_owned()), "{moved:?}");
        assert!(moved.contains(&"a tx 8".to_owned()), "pieces are counted where they leave: {moved:?}");
        assert!(moved.contains(&"host rx 4".to_owned()), "and the whole where it came: {moved:?}");
    }
}

#[test]
fn they_pass_whole_where_the_port_takes_them() {
    let mut world = World::node(1);
    for facts in world.ports.values_mut() {
        facts.takes_large = facts.index != UPLINK;
        facts.finishes_checksums = facts.takes_large;
    }
    world.recompile();
    for tcp in [true, false] {
        let packet = large(world.host_ends(v4(1, A)), tcp, 9000, 1000);
        let (before, offload) = (packet.buffer.bytes().to_vec(), packet.offload);
        let sent = world.walk_packets(vec![packet]);
        let [one] = sent.as_slice() else { panic!("{} packets", sent.len()) };
        assert_eq!((one.port, one.offload, one.buffer.bytes().len()), (A, offload, before.len()));
        assert_eq!(parse(one.buffer.bytes()).unwrap().ttl, 63);
        assert_eq!(one.buffer.bytes()[34..], before[34..]);
    }
    let sent = world.walk_packets(vec![large(world.host_ends(v4(2, A)), true, 3000, 1000)]);
    assert_eq!(sent.len(), 3, "the uplink does not");
}

#[test]
fn their_pieces_have_to_fit() {
    let mut world = World::node(1);
    // 1450 bytes less 40 of headers.
    let sent = world.walk_packets(vec![large(world.host_ends(v4(1, A)), true, 3000, 1410)]);
    assert_eq!(sent.len(), 3);
    let sent = world.walk_packets(vec![large(world.host_ends(v4(1, A)), true, 3000, 1411)]);
    let [error] = sent.as_slice() else { panic!("{} packets", sent.len()) };
    let parsed = parse(error.buffer.bytes()).unwrap();
    assert_eq!((error.port, error.offload), (HOST, Offload::default()));
    assert_eq!((parsed.icmp_type, parsed.icmp_code), (3, 4));
    assert_eq!(error.buffer.bytes()[40..42], 1450u16.to_be_bytes());
    let too_big = format!("host drop {} 1", DropReason::TooBig.key());
    assert!(world.moved_ports().contains(&too_big));
    // TCP that may be fragmented is cut smaller instead: its segments are whatever a router makes of them.
    let mut packet = large(world.host_ends(v4(1, A)), true, 3000, 1411);
    let frame = may_fragment(packet.buffer.bytes().to_vec(), 5);
    packet.buffer = VecBuffer::of(&frame);
    let lengths: Vec<_> =
        world.walk_packets(vec![packet]).iter().map(|piece| piece.buffer.bytes().len()).collect();
    assert_eq!(lengths, [1464, 1464, 14 + 40 + 180]);
    // The world has 8 spare buffers.
    let sent = world.walk_packets(vec![large(world.host_ends(v4(1, B)), true, 3000, 300)]);
    assert_eq!(sent.len(), 0);
    let exhausted = format!("host drop {} 1", DropReason::FramesExhausted.key());
    let moved = world.moved_ports();
    assert!(moved.contains(&exhausted), "{moved:?}");
}

#[test]
fn segments_towards_a_port_that_takes_them_become_one() {
    let mut world = World::node(1);
    for facts in world.ports.values_mut() {
        facts.takes_large = facts.index == HOST;
    }
    world.recompile();
    world.large = 1;
    let whole = large(world.ends(A, v4(1, HOST)), true, 4000, 1000);
    let parsed = parse(whole.buffer.bytes()).unwrap();
    let mut spare = vec![VecBuffer::of(&[]); 4];
    let mut packets = Vec::new();
    let piece = |buffer| packets.push(Packet { buffer, port: A, offload: Offload::default() });
    let segment = whole.offload.segment.unwrap();
    assert!(crate::segment::cut(whole.buffer.bytes(), &parsed, segment, &mut spare, piece));
    let sent = world.walk_packets(packets);
    let [one] = sent.as_slice() else { panic!("{} packets", sent.len()) };
    let offload = Offload { segment: Some(Segment { packets: 4, ..segment }), ..whole.offload };
    assert_eq!((one.port, one.offload), (HOST, offload));
    assert_eq!(one.buffer.bytes()[34..], whole.buffer.bytes()[34..]);
    let moved = world.moved();
    assert!(moved.contains(&"stage coalesce 3".to_owned()), "{moved:?}");
}
