use super::*;
use crate::VecBuffer;
use crate::parse::parse;
use crate::testing::frames::{self, transport_checksum_is_right};
use crate::testing::world::{A, UPLINK, World, v4, v6};

const ENDPOINT: Endpoint = Endpoint { addresses: [None, None], port: 4789, vni: 4096 };

#[test]
fn what_is_put_on_comes_off_again() {
    for destination in [v4(2, A), v6(2, A)] {
        let mut world = World::node(1);
        let frame = world.ends(A, destination).udp(7, 5000, b"media");
        let sent = world.send(A, &frame);
        let [(UPLINK, outer)] = &sent[..] else { panic!("{sent:?}") };
        let parsed = parse(outer).unwrap();
        assert_eq!((parsed.destination_port, parsed.ttl, parsed.dont_fragment), (4789, 64, true));
        assert!(parsed.source_port >= 49_152, "{}", parsed.source_port);
        if destination.is_ipv6() {
            assert!(transport_checksum_is_right(outer), "over IPv6 the UDP checksum is computed");
        } else {
            assert_eq!(outer[40..42], [0, 0], "over IPv4 there is none");
        }
        let mut buffer = VecBuffer::of(outer);
        decapsulate(&mut buffer, &parsed, &ENDPOINT).unwrap();
        let inner = buffer.bytes();
        assert_eq!(parse(inner).unwrap().ttl, 63);
        let transport = usize::from(parse(inner).unwrap().transport);
        assert_eq!(inner[transport..], frame[transport..]);
        assert!(transport_checksum_is_right(inner));
    }
}

#[test]
fn flags_network_and_length_are_checked() {
    let world = World::node(1);
    let inner = world.inner_ends(A, v4(1, A)).udp(1, 2, &[]);
    let good = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner);
    let judge = |frame: &[u8]| decapsulate(&mut VecBuffer::of(frame), &parse(frame).unwrap(), &ENDPOINT);
    assert_eq!(judge(&good), Ok(()));
    for (at, value) in [(42, 0), (42, 0x88), (43, 1), (46, 1), (48, 1), (49, 1)] {
        let mut frame = good.clone();
        frame[at] = value;
        assert_eq!(judge(&frame), Err(DropReason::TunnelHeaderInvalid), "byte {at} = {value}");
    }
    let short = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner[..13]);
    assert_eq!(judge(&short), Err(DropReason::Truncated));
}

#[test]
fn congestion_marks_come_out_of_the_tunnel() {
    // Inner before, outer, inner after; RFC 6040, figure 4.
    let table = [
        (0, 0, Some(0)),
        (0, 2, Some(0)),
        (0, 3, None),
        (2, 0, Some(2)),
        (2, 1, Some(1)),
        (2, 2, Some(2)),
        (2, 3, Some(3)),
        (1, 2, Some(1)),
        (1, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 3, Some(3)),
    ];
    for v6 in [false, true] {
        let destination = if v6 { v6_address() } else { v4(1, A) };
        for (inner, outer, after) in table {
            let mut frame = World::node(1).inner_ends(A, destination).udp(1, 2, &[]);
            if v6 {
                frame[15] |= inner << 4;
            } else {
                frame[15] = inner;
                frames::mend_ipv4(&mut frame);
            }
            let mut parsed = parse(&frame).unwrap();
            let combined = combine_ecn(&mut frame, &mut parsed, 0xb8 | outer);
            assert_eq!(combined.ok(), after.map(|_| ()), "{inner} in {outer}");
            if let Some(after) = after {
                assert_eq!(parse(&frame).unwrap().traffic_class, after, "{inner} in {outer}");
            }
        }
    }
}

fn v6_address() -> IpAddr {
    v6(1, A)
}
