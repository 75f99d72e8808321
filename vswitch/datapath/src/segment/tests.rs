use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use vswitch_model::Mac;

use super::*;
use crate::parse::parse;
use crate::testing::frames::Ends;
use crate::{PartialChecksum, VecBuffer};

pub(crate) fn ends(six: bool) -> Ends {
    let address = |last| match six {
        true => std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into(),
        false => std::net::Ipv4Addr::new(10, 0, 0, last as u8).into(),
    };
    Ends::of_pod(Mac([2; 6]), address(1), address(2))
}

/// Cuts with as many spare buffers as it takes.
pub(crate) fn pieces(frame: &[u8], segment: Segment) -> Vec<Vec<u8>> {
    let parsed = parse(frame).unwrap();
    let mut spare = vec![VecBuffer::of(&[]); 70_000 / usize::from(segment.size) + 1];
    let mut pieces = Vec::new();
    assert!(cut(frame, &parsed, segment, &mut spare, |piece| pieces.push(piece.bytes().to_vec())));
    pieces
}

/// Puts into the checksum's field what a sender leaves there when it is to be finished.
pub(crate) fn leave_checksum(mut frame: Vec<u8>, destination: IpAddr) -> Vec<u8> {
    let parsed = parse(&frame).unwrap();
    let length = frame.len() - usize::from(parsed.transport);
    let sum = Sum::ZERO.pseudo(parsed.source, destination, parsed.protocol, length).fold();
    put(&mut frame, checksum_field(&parsed), sum.to_be_bytes());
    frame
}

#[test]
fn the_pseudo_header_is_the_senders() {
    // As behind a routing header: the packet ends elsewhere than where it goes next.
    let last: IpAddr = "fd00::77".parse().unwrap();
    let frame = leave_checksum(ends(true).tcp(1, 2, 16, &[7; 3000]), last);
    for mut piece in pieces(&frame, Segment::new(SegmentKind::TcpV6, 1400)) {
        put(&mut piece, ETHERNET + 24, "fd00::77".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert!(looked_at(&piece).0);
    }
}

/// What etherparse finds in a piece: whether its checksums are right, its TCP sequence number and flags, its payload.
fn looked_at(piece: &[u8]) -> (bool, u32, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(piece).unwrap();
    let header_right = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(v4) => v4.header().header_checksum() == v4.header().to_header().calc_header_checksum(),
        _ => true,
    };
    match (sliced.transport.unwrap(), sliced.net.unwrap()) {
        (TransportSlice::Tcp(tcp), net) => {
            let (header, payload) = (tcp.to_header(), tcp.payload());
            let sum = match net {
                NetSlice::Ipv4(v4) => header.calc_checksum_ipv4(&v4.header().to_header(), payload).unwrap(),
                NetSlice::Ipv6(v6) => header.calc_checksum_ipv6(&v6.header().to_header(), payload).unwrap(),
                _ => panic!("{piece:?}"),
            };
            let right = header_right && sum == header.checksum;
            (right, header.sequence_number, tcp.slice()[13], payload.to_vec())
        }
        (TransportSlice::Udp(udp), net) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let sum = match net {
                NetSlice::Ipv4(v4) => header.calc_checksum_ipv4(&v4.header().to_header(), payload).unwrap(),
                NetSlice::Ipv6(v6) => header.calc_checksum_ipv6(&v6.header().to_header(), payload).unwrap(),
                _ => panic!("{piece:?}"),
            };
            let right =
                header_right && sum == header.checksum && usize::from(header.length) == payload.len() + 8;
            (right, 0, 0, payload.to_vec())
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    // Each is of tens of thousands of bytes.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tcp_segments_join_to_the_stream(
        payload in proptest::collection::vec(any::<u8>(), 0..60_000), size in 60u16..1500, six: bool, flags: u8, start: u32,
    ) {
        let mut frame = ends(six).tcp(5000, 80, 16, &payload);
        let transport = usize::from(parse(&frame).unwrap().transport);
        put(&mut frame, transport + 4, start.to_be_bytes());
        put(&mut frame, transport + 13, [flags]);
        let frame = leave_checksum(frame, ends(six).destination);
        let kind = if six { SegmentKind::TcpV6 } else { SegmentKind::TcpV4 };
        let pieces = pieces(&frame, Segment::new(kind, size));
        let mut joined = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let (right, sequence, seen, bytes) = looked_at(piece);
            prop_assert!(right, "checksums of piece {}", index);
            prop_assert_eq!(sequence, start.wrapping_add(joined.len() as u32));
            let last = index + 1 == pieces.len();
            prop_assert!(bytes.len() == usize::from(size) || last);
            let expected = flags & if last { 0xff } else { !0x09 } & if index == 0 { 0xff } else { !0x80 };
            prop_assert_eq!(seen, expected);
            let identification = |frame: &[u8]| be16(frame, 18).unwrap();
            if !six {
                prop_assert_eq!(identification(piece), identification(&frame).wrapping_add(index as u16));
            }
            joined.extend(bytes);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn datagrams_are_of_one_size_but_the_last(
        payload in proptest::collection::vec(any::<u8>(), 0..60_000), size in 60u16..1500, six: bool,
    ) {
        let frame = leave_checksum(ends(six).udp(5000, 80, &payload), ends(six).destination);
        let pieces = pieces(&frame, Segment::new(SegmentKind::Udp, size));
        let mut joined = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let (right, _, _, bytes) = looked_at(piece);
            prop_assert!(right, "checksums of piece {}", index);
            prop_assert!(bytes.len() == usize::from(size) || index + 1 == pieces.len());
            joined.extend(bytes);
        }
        prop_assert_eq!(joined, payload);
    }
}

#[test]
fn what_does_not_fit_takes_nothing() {
    let frame = ends(false).tcp(1, 2, 16, &[7; 3000]);
    let parsed = parse(&frame).unwrap();
    let segment = |size| Segment::new(SegmentKind::TcpV4, size);
    let mut spare = vec![VecBuffer::of(&[]); 2];
    assert!(!cut(&frame, &parsed, segment(1000), &mut spare, |_| panic!("a piece")), "three pieces");
    assert!(!cut(&frame, &parsed, segment(1900), &mut spare, |_| panic!("a piece")), "beyond a frame");
    assert!(!cut(&frame, &parsed, segment(0), &mut spare, |_| panic!("a piece")));
    assert_eq!(spare.len(), 2);
    assert!(cut(&frame, &parsed, segment(1500), &mut spare, drop));
}

#[test]
fn what_is_left_to_do_must_fit_the_packet() {
    let frames = [
        ends(false).tcp(1, 2, 16, &[7; 384]),
        ends(true).udp(1, 2, &[7; 384]),
        ends(false).ping(1, &[7; 100]),
    ];
    let [tcp, udp, icmp] = frames.each_ref().map(|frame| (frame.as_slice(), parse(frame).unwrap()));
    let at = [&tcp, &udp, &icmp].map(|(_, parsed)| parsed.transport);
    let offload = |start: u16, offset, segment: Option<(SegmentKind, u16)>| Offload {
        checksum: Some(PartialChecksum { start, offset }),
        segment: segment.map(|(kind, size)| Segment::new(kind, size)),
    };
    let (v4, v6) = (SegmentKind::TcpV4, SegmentKind::TcpV6);
    for ((frame, parsed), offload, expected) in [
        (&tcp, offload(at[0], 16, Some((v4, 100))), true),
        (&tcp, offload(at[0], 16, Some((v4, 0))), false),
        (&tcp, offload(at[0], 16, Some((v6, 100))), false),
        (&tcp, offload(at[0], 16, Some((SegmentKind::Udp, 100))), false),
        (&tcp, offload(at[0] + 8, 16, Some((v4, 100))), false),
        (&udp, offload(at[1], 6, Some((SegmentKind::Udp, 100))), true),
        (&udp, offload(at[1], 16, Some((SegmentKind::Udp, 100))), false),
        (&udp, offload(at[1], 6, None), true),
        (&udp, offload(at[1] + 16, 6, None), true),
        (&udp, offload(at[1] + 4, 4, None), false),
        (&udp, offload(11, 6, None), false),
        (&tcp, offload(at[0], 16, None), true),
        (&tcp, offload(at[0] + 8, 0, None), false),
        (&tcp, offload(at[0] + 12, 1, None), false),
        (&tcp, offload(at[0] + 20, 6, None), false),
        (&icmp, offload(at[2] + 8, 16, None), false),
        (&tcp, offload(at[0], 16, Some((v4, 3))), true),
        (&tcp, offload(at[0], 16, Some((v4, 2))), false),
        (&udp, offload(at[1], 6, Some((SegmentKind::Udp, 3))), true),
        (&udp, offload(at[1], 6, Some((SegmentKind::Udp, 2))), false),
    ] {
        assert_eq!(fits(frame, parsed, &offload), expected, "{offload:?}");
    }
    let segment = Some(Segment::new(v4, 100));
    assert!(
        !fits(tcp.0, &tcp.1, &Offload { checksum: None, segment }),
        "the checksum has to be left as well"
    );
    assert!(fits(tcp.0, &tcp.1, &Offload::default()));
}
