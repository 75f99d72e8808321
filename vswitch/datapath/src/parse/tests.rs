use proptest::prelude::*;

use super::*;
use crate::testing::frames::{self, Ends};

fn ends(v6: bool) -> Ends {
    let (source, destination) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
    Ends::of_pod(Mac([2; 6]), source.parse().unwrap(), destination.parse().unwrap())
}

/// An IPv6 packet with these extension headers between its header and a UDP header.
fn extended(extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let plain = ends(true).udp(7, 9, &[1, 2, 3, 4]);
    let mut frame = plain[..54].to_vec();
    frame[20] = extensions.first().map_or(17, |(kind, _)| *kind);
    for (at, (_, body)) in extensions.iter().enumerate() {
        let next = extensions.get(at + 1).map_or(17, |(kind, _)| *kind);
        frame.push(next);
        frame.extend(body);
    }
    frame.extend(&plain[54..]);
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn reads_what_etherparse_builds() {
    for v6 in [false, true] {
        let ends = ends(v6);
        let parsed = parse(&ends.udp(5000, 6000, &[1; 10])).unwrap();
        assert_eq!((parsed.source, parsed.destination), (ends.source, ends.destination));
        assert_eq!((parsed.source_port, parsed.destination_port, parsed.ttl), (5000, 6000, 64));
        assert_eq!((parsed.protocol, parsed.piece), (protocol::UDP, Piece::Whole));
        let parsed = parse(&ends.tcp(1, 2, 0x12, &[])).unwrap();
        assert_eq!((parsed.protocol, parsed.tcp_flags), (protocol::TCP, 0x12));
        let parsed = parse(&ends.ping(77, &[])).unwrap();
        assert!(parsed.is_echo_request() && !parsed.is_icmp_error() && !parsed.is_icmp_reply());
        let request = if v6 { 0x8000 } else { 0x0800 };
        assert_eq!((parsed.source_port, parsed.destination_port), (77, request));
        assert_eq!(parsed.told_ports(), (77, request));
        let parsed = parse(&ends.pong(77, &[])).unwrap();
        assert!(parsed.is_icmp_reply());
        assert_eq!((parsed.source_port, parsed.destination_port), (request, 77));
        assert_eq!(parsed.told_ports(), (77, if v6 { 0x8100 } else { 0 }));
    }
}

#[test]
fn padding_is_not_part_of_the_packet() {
    let mut frame = ends(false).udp(1, 2, &[]);
    frame.resize(60, 0xee);
    assert_eq!(parse(&frame).unwrap().end, 42);
}

#[test]
fn other_ethertypes_and_tags_end() {
    let mut frame = ends(false).udp(1, 2, &[]);
    frame[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(parse(&frame), Err(DropReason::EtherTypeUnknown));
    assert_eq!(parse(&frame[..13]), Err(DropReason::Truncated));
}

#[test]
fn ipv4_headers_are_judged() {
    let good = ends(false).udp(1, 2, &[0; 32]);
    let cases: [(&str, usize, u8, DropReason); 6] = [
        ("version", 14, 0x55, DropReason::Ipv4HeaderInvalid),
        ("header length", 14, 0x44, DropReason::Ipv4HeaderInvalid),
        ("total length below the header's", 17, 10, DropReason::Ipv4HeaderInvalid),
        ("total length beyond the frame", 16, 9, DropReason::Truncated),
        ("a first fragment of no multiple of 8", 20, 0x20, DropReason::Ipv4HeaderInvalid),
        ("a fragment beyond the longest packet", 21, 0xff, DropReason::Ipv4HeaderInvalid),
    ];
    for (what, at, value, reason) in cases {
        let mut frame = good.clone();
        frame[at] = value;
        if at == 21 {
            frame[20] = 0x1f;
        }
        if at == 20 {
            frame.pop();
            frame[17] -= 1;
        }
        frames::mend_ipv4(&mut frame);
        assert_eq!(parse(&frame), Err(reason), "{what}");
    }
    let mut frame = good;
    frame[22] ^= 1;
    assert_eq!(parse(&frame), Err(DropReason::Ipv4HeaderInvalid), "checksum");
}

/// A datagram with options in its IPv4 header, a multiple of four bytes of them.
fn with_options(options: &[u8]) -> Vec<u8> {
    let plain = ends(false).udp(7, 9, &[5; 4]);
    let mut frame = plain[..34].to_vec();
    frame.extend(options);
    frame.extend(&plain[34..]);
    frame[14] = 0x45 + options.len() as u8 / 4;
    frame[17] += options.len() as u8;
    frames::mend_ipv4(&mut frame);
    frame
}

#[test]
fn source_routed_packets_are_refused() {
    for options in [
        [131, 7, 4, 10, 0, 0, 1, 0],
        [137, 7, 4, 10, 0, 0, 1, 0],
        [1, 131, 7, 4, 10, 0, 0, 1],
        [148, 4, 0, 0, 137, 3, 4, 0],
    ] {
        assert_eq!(parse(&with_options(&options)), Err(DropReason::SourceRouted), "{options:?}");
    }
    // Record route; behind the end of the list; and within what another option holds.
    for options in [[7, 7, 4, 10, 0, 0, 1, 0], [0, 131, 7, 4, 10, 0, 0, 1], [68, 8, 5, 0, 131, 3, 4, 0]] {
        assert!(parse(&with_options(&options)).is_ok(), "{options:?}");
    }
    // Malformed ones end the search.
    for options in [[148, 0, 131, 3], [148, 1, 131, 3], [148, 40, 131, 3], [1, 1, 1, 148]] {
        assert!(parse(&with_options(&options)).is_ok(), "{options:?}");
    }
}

#[test]
fn ipv4_options_are_passed_over() {
    let parsed = parse(&with_options(&[1, 1, 1, 0])).unwrap();
    assert_eq!((parsed.source_port, parsed.destination_port, parsed.transport), (7, 9, 38));
}

#[test]
fn extension_headers_are_followed() {
    let options = vec![0, 1, 4, 0, 0, 0, 0];
    let routing = vec![0, 4, 0, 0, 0, 0, 0];
    let authentication = vec![1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let atomic = vec![0, 0, 0, 0, 0, 0, 9];
    let chain =
        [(0, options.clone()), (43, routing), (44, atomic), (51, authentication), (60, options.clone())];
    let parsed = parse(&extended(&chain)).unwrap();
    assert_eq!((parsed.source_port, parsed.destination_port, parsed.protocol), (7, 9, protocol::UDP));
    assert_eq!((parsed.piece, parsed.fragment_id), (Piece::Whole, 9), "an atomic fragment is whole");

    let invalid = Err(DropReason::Ipv6HeaderInvalid);
    assert_eq!(
        parse(&extended(&[(60, options.clone()), (0, options.clone())])),
        invalid,
        "hop-by-hop comes first"
    );
    let routed = Err(DropReason::SourceRouted);
    assert_eq!(parse(&extended(&[(43, vec![0, 0, 1, 0, 0, 0, 0])])), routed, "routing type 0");
    assert_eq!(parse(&extended(&vec![(60, options); 9])), invalid, "too many");
    assert_eq!(parse(&extended(&[(60, vec![200, 0, 0, 0, 0, 0, 0])])), invalid, "longer than the packet");
}

#[test]
fn fragments_of_both_families_are_told_apart() {
    let payload = [3; 64];
    let frame = ends(false).udp(7, 9, &payload);
    let [first, later] = frames::cut_v4(&frames::may_fragment(frame, 0x1234), 32);
    let (first, later) = (parse(&first).unwrap(), parse(&later).unwrap());
    assert_eq!((first.piece, first.source_port, first.fragment_id), (Piece::First, 7, 0x1234));
    assert_eq!((later.piece, later.source_port, later.fragment_id), (Piece::Later, 0, 0x1234));
    let [first, later] = frames::cut_v6(&ends(true).udp(7, 9, &payload), 32, 0xdead_beef);
    let (first, later) = (parse(&first).unwrap(), parse(&later).unwrap());
    assert_eq!((first.piece, first.destination_port, first.fragment_id), (Piece::First, 9, 0xdead_beef));
    assert_eq!((later.piece, later.destination_port, later.protocol), (Piece::Later, 0, protocol::UDP));
}

#[test]
fn transport_headers_must_be_whole() {
    let invalid = Err(DropReason::TransportHeaderInvalid);
    let mut frame = ends(false).tcp(1, 2, 2, &[]);
    frame[46] = 0x40;
    assert_eq!(parse(&frame), invalid, "a TCP header of 16 bytes");
    frame[46] = 0x60;
    assert_eq!(parse(&frame), invalid, "TCP options beyond the packet");
    let mut frame = ends(true).udp(1, 2, &[0; 8]);
    frame[59] = 17;
    assert_eq!(parse(&frame), invalid, "a UDP length beyond the packet");
    // A TCP header cut in two fragments (RFC 1858), and a fragment that would overwrite its flags (RFC 3128).
    let [first, later] = frames::cut_v4(&ends(false).tcp(1, 2, 2, &[0; 20]), 8);
    assert_eq!((parse(&first), parse(&later)), (invalid, invalid));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
        let mut bytes = bytes;
        if bytes.len() > 24 && kind > 0 {
            let (ethertype, version) = [(ARP, 0), (IPV4, 0x45), (IPV6, 0x60)][kind - 1];
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            bytes[14] = version;
            if kind == 2 && bytes.len() > 34 {
                frames::mend_ipv4(&mut bytes);
            }
        }
        if let Ok(parsed) = parse(&bytes) {
            prop_assert!(usize::from(parsed.end) <= bytes.len());
            prop_assert!(parsed.network == Network::Arp || parsed.transport <= parsed.end);
            let _ = quoted(&bytes, &parsed);
        }
    }

    #[test]
    fn the_short_way_reads_what_the_long_way_reads(
        v6: bool,
        tcp: bool,
        body in proptest::collection::vec(any::<u8>(), 0..40),
        padding in 0usize..4,
        changed in proptest::collection::vec((0usize..64, any::<u8>()), 0..3),
        mend: bool,
    ) {
        let ends = ends(v6);
        let mut frame = if tcp { ends.tcp(1, 2, 0x12, &body) } else { ends.udp(3, 4, &body) };
        frame.resize(frame.len() + padding, 0);
        for (at, byte) in changed {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        if mend && frame[14] == 0x45 {
            frames::mend_ipv4(&mut frame);
        }
        let mut long = Parsed::EMPTY;
        let short = common::v4(&frame).or_else(|| common::v6(&frame));
        let outcome = parse_any(&frame, &mut long);
        let read = short.is_some();
        prop_assert_eq!(short.map(|short| (Ok(()), short)), read.then_some((outcome, long)));
        // And whatever it is for is read by it.
        let plain = matches!(long.protocol, protocol::UDP | protocol::TCP) && long.piece == Piece::Whole;
        let header = if long.network == Network::V6 { 54 } else { 34 };
        prop_assert!(read || outcome.is_err() || !plain || long.transport != header || frame[20] & 0x80 != 0);
    }

    #[test]
    fn a_cut_frame_is_refused(length in 0usize..62, v6: bool) {
        let frame = ends(v6).udp(1, 2, &[9; 8]);
        prop_assert_eq!(parse(&frame[..length.min(frame.len() - 1)]), Err(DropReason::Truncated));
    }
}
