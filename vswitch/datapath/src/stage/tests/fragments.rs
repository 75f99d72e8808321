use crate::parse::{Piece, parse};
use crate::testing::World;
use crate::testing::frames::{self, transport_checksum_is_right};
use crate::testing::world::{A, B, C, HOST, UPLINK, v4, v6};
use crate::{Buffer, Offload, Packet, VecBuffer, WalkConfig};

#[test]
fn fragments_go_the_way_of_the_first() {
    for v6_too in [false, true] {
        let mut world = World::node(1);
        let pieces = |ends: frames::Ends, port| {
            let whole = ends.udp(7, port, &[5; 64]);
            if v6_too { frames::cut_v6(&whole, 32, 77) } else { frames::cut_v4(&whole, 32) }
        };
        let to = if v6_too { v6(1, B) } else { v4(1, B) };
        let [first, later] = pieces(world.ends(A, to), 5000);
        assert_eq!(world.send(A, &later), [], "before the first");
        assert_eq!(world.moved_ports(), ["a drop fragment-unknown 1", "a rx 1"]);
        let sent = world.send_all([(A, first), (A, later.clone())]);
        assert!(matches!(sent[..], [(B, _), (B, _)]), "{sent:?}");
        assert_eq!(world.moved_ports(), ["a rx 2", "b tx 2", "flows created 1"]);
        let flow = world.walk.flows().next().unwrap();
        assert_eq!(flow.packets, [2, 0]);
        let [denied, after] = pieces(world.ends(C, to), 5000);
        assert_eq!(world.send_all([(C, denied), (C, after)]), []);
        assert_eq!(world.moved_ports(), ["c drop fragment-unknown 1", "c drop policy-egress 1", "c rx 2"]);
        world.wait_s(31);
        assert_eq!(world.send(A, &later), [], "too late");
        assert_eq!(world.moved_ports(), ["a drop fragment-unknown 1", "a rx 1"]);
    }
}

#[test]
fn packets_that_may_be_cut_are() {
    // From a larger MTU of the world into a pod's, and into the tunnel.
    for (to, port, outer) in [(v4(1, A), A, 0), (v4(2, A), UPLINK, 50)] {
        let mut world = World::node(1);
        let payload: Vec<u8> = (0..2000u32).map(|at| at as u8).collect();
        let whole = frames::may_fragment(world.host_ends(to).udp(7, 5000, &payload), 9);
        let after = world.host_ends(to).udp(7, 5000, b"after");
        let sent = world.send_all([(HOST, whole.clone()), (HOST, after)]);
        let [(p1, first), (p2, second), (p3, last)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((*p1, *p2, *p3), (port, port, port));
        let (first, second) = (&first[outer..], &second[outer..]);
        let [one, two, three] = [first, second, &last[outer..]].map(|piece| parse(piece).unwrap());
        assert_eq!((one.piece, two.piece, three.piece), (Piece::First, Piece::Later, Piece::Whole));
        assert_eq!((one.ttl, two.ttl, one.fragment_id, two.fragment_id), (63, 63, 9, 9));
        assert!(one.ip_length() <= 1450);
        let joined = [&first[34..], &second[34..]].concat();
        assert_eq!(joined, whole[34..]);
        let tunnelled = if outer > 0 { "stage encapsulate 3" } else { "stage parse 2" };
        let moved = world.moved();
        assert!(moved.contains(&"stage split 1".to_owned()), "{moved:?}");
        assert!(moved.contains(&tunnelled.to_owned()), "{moved:?}");
    }
}

#[test]
fn without_spare_buffers_they_are_not() {
    let mut world = World::node(1);
    let whole = frames::may_fragment(world.host_ends(v4(1, A)).udp(7, 5000, &[1; 2000]), 9);
    let mut batch = vec![Packet { buffer: VecBuffer::of(&whole), port: HOST, offload: Offload::default() }];
    world.walk.process(&world.tables, world.now, &mut batch, &mut world.out);
    assert_eq!((world.out.tx.len(), world.out.dropped.len()), (0, 1));
    let expected = ["flows created 1", "host drop frames-exhausted 1", "host rx 1"];
    assert_eq!(world.moved_ports(), expected);
}

#[test]
fn a_checksum_left_to_us_is_finished_before_the_cut() {
    let mut world = World::node(1);
    let mut whole = frames::may_fragment(world.host_ends(v4(1, A)).udp(7, 5000, &[1; 2000]), 9);
    let right = whole.clone();
    let sum = crate::checksum::Sum::ZERO.pseudo(v4(1, HOST), v4(1, A), 17, 2008).fold();
    whole[40..42].copy_from_slice(&sum.to_be_bytes());
    let checksum = Some(crate::PartialChecksum { start: 34, offset: 6 });
    let offload = Offload { checksum, segment: None };
    let sent = world.walk_packets(vec![Packet { buffer: VecBuffer::of(&whole), port: HOST, offload }]);
    assert_eq!((sent.len(), sent[0].offload, sent[1].offload), (2, Offload::default(), Offload::default()));
    assert_eq!(sent[0].buffer.bytes()[40..42], right[40..42]);
    assert!(transport_checksum_is_right(&right));
}

#[test]
fn fragments_that_do_not_fit_are_cut_again() {
    let mut world = World::node(1);
    let payload: Vec<u8> = (0..4000u32).map(|at| (at / 3) as u8).collect();
    let whole = frames::may_fragment(world.host_ends(v4(1, A)).udp(7, 5000, &payload), 9);
    let sent = world.send_all(frames::cut_v4(&whole, 2000).map(|piece| (HOST, piece)));
    let mut joined = Vec::new();
    for (number, (_, frame)) in sent.iter().enumerate() {
        let field = u16::from_be_bytes([frame[20], frame[21]]);
        assert_eq!(usize::from(field & 0x1fff) * 8, joined.len());
        assert_eq!(field & 0x2000 != 0, number + 1 < sent.len(), "more follow all but the last");
        joined.extend_from_slice(&frame[34..]);
    }
    assert_eq!((sent.len(), &joined[..]), (4, &whole[34..]));
}

#[test]
fn no_error_speaks_of_a_later_fragment() {
    let mut world = World::node(1);
    let whole = world.ends(A, v4(1, B)).with_ttl(1).udp(7, 5000, &[5; 64]);
    let pieces = frames::cut_v4(&frames::may_fragment(whole, 9), 32);
    let sent = world.send_all(pieces.map(|piece| (A, piece)));
    assert_eq!(sent.len(), 1, "one about the first");
    assert_eq!(world.moved_ports(), ["a drop ttl-expired 2", "a rx 2", "a tx 1", "flows created 1"]);
}

#[test]
fn options_of_the_whole_packet_stay_with_the_first_piece() {
    let mut world = World::node(1);
    let plain = world.host_ends(v4(1, A)).udp(7, 5000, &[1; 2000]);
    // A timestamp belongs to the first piece only, a security label to each (RFC 1108, section 2).
    let options = [0x44, 4, 5, 0, 0x82, 3, 4, 0];
    let mut whole = [&plain[..34], &options, &plain[34..]].concat();
    whole[14] = 0x47;
    whole[16..18].copy_from_slice(&2036u16.to_be_bytes());
    let sent = world.send(HOST, &frames::may_fragment(whole, 9));
    let [(_, first), (_, second)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(first[34..42], options);
    assert_eq!(second[34..42], [1, 1, 1, 1, 0x82, 3, 4, 0]);
    assert_eq!([&first[42..], &second[42..]].concat(), plain[34..]);
}

#[test]
fn a_flood_of_fragments_is_counted_and_passes_by() {
    let mut world = World::with_config(1, &WalkConfig { fragments: 8, ..WalkConfig::default() });
    let (from_a, from_b) = (world.ends(A, v4(1, B)), world.ends(B, v4(1, A)));
    let pieces = |ends: frames::Ends, ports: (u16, u16), id: u16| {
        frames::cut_v4(&frames::may_fragment(ends.udp(ports.0, ports.1, &[5; 64]), id), 32)
    };
    // Later ones alone, of packets that never began, leave nothing behind.
    let later: Vec<_> = (0..100).map(|id| (A, pieces(from_a, (7, 5000), id)[1].clone())).collect();
    assert_eq!(world.send_all(later), []);
    assert_eq!(world.moved_ports(), ["a drop fragment-unknown 100", "a rx 100"]);
    // First ones alone take what room there is for as long as the rest may follow.
    let firsts: Vec<_> = (0..100).map(|id| (A, pieces(from_a, (7, 5000), id)[0].clone())).collect();
    assert_eq!(world.send_all(firsts).len(), 8);
    let expected = ["a drop fragment-table-full 92", "a rx 100", "b tx 8", "flows created 1"];
    assert_eq!(world.moved_ports(), expected);
    let [first, later] = pieces(from_b, (5000, 7), 7);
    assert_eq!(world.send_all([(B, first.clone()), (B, later.clone())]), [], "a neighbour's, meanwhile");
    let expected = ["b drop fragment-table-full 1", "b drop fragment-unknown 1", "b rx 2"];
    assert_eq!(world.moved_ports(), expected);
    assert_eq!(world.send(B, &from_b.udp(5000, 7, &[])).len(), 1, "whole packets pass all the while");
    world.wait_s(1);
    assert_eq!(world.send_all([(B, first), (B, later)]).len(), 2);
}
