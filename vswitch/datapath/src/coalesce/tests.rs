use std::collections::BTreeMap;

use proptest::prelude::*;
use vswitch_model::DropReason;

use super::*;
use crate::parse::parse;
use crate::read::put;
use crate::segment::tests::{ends, leave_checksum, pieces};
use crate::{Counters, Offload, PortIndex, Segment, SegmentKind, VecBuffer};

const TUN: PortIndex = PortIndex(7);
const OTHER: PortIndex = PortIndex(8);

fn packet(frame: &[u8], port: PortIndex) -> Packet<VecBuffer> {
    Packet { buffer: VecBuffer::of(frame), port, offload: Offload::default() }
}

/// Coalesces what leaves by [`TUN`], with `large` buffers to do it with.
fn coalesced(packets: Vec<Packet<VecBuffer>>, large: usize) -> Vec<Packet<VecBuffer>> {
    let mut out = Output::new(0);
    let count = packets.len();
    out.tx.extend(packets);
    out.large.extend((0..large).map(|_| {
        let mut room = VecBuffer::of(&[0; LENGTH_MAX]);
        assert!(room.set_len(0));
        room
    }));
    let merged = run(&mut out, 0, |packet| packet.port == TUN);
    assert_eq!(out.tx.len() + merged, count);
    // Were no port to take them, as many would be counted as refused as were counted as sent.
    let (counters, reason) = (Counters::new(16), DropReason::TransmitRefused);
    out.tx.iter().for_each(|packet| counters.refused(packet, packet.port, reason));
    assert_eq!(counters.drops(reason), count as u64);
    // A packet that others were appended to lies in a large buffer, and leaves its own.
    assert_eq!(out.dropped.len(), merged + large - out.large.len(), "every buffer is somewhere");
    out.tx
}

/// A large packet of this payload, as its sender would leave it, and its segments.
fn train(six: bool, port: u16, flags: u8, payload: &[u8], size: u16) -> (Vec<u8>, Vec<Vec<u8>>) {
    let frame = ends(six).tcp(port, 80, flags, payload);
    let kind = if six { SegmentKind::TcpV6 } else { SegmentKind::TcpV4 };
    let left = leave_checksum(frame.clone(), ends(six).destination);
    let pieces = pieces(&left, Segment::new(kind, size));
    (frame, pieces)
}

/// What a large packet is cut into as it is: the test of whether it says what its segments said.
fn cut_again(packet: &Packet<VecBuffer>) -> Vec<Vec<u8>> {
    let bytes = packet.buffer.bytes();
    match packet.offload.segment {
        None => vec![bytes.to_vec()],
        Some(segment) => {
            assert!(crate::segment::fits(bytes, &parse(bytes).unwrap(), &packet.offload));
            pieces(bytes, segment)
        }
    }
}

proptest! {
    // Each is of tens of thousands of bytes.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cutting_gives_back_what_was_coalesced(
        trains in proptest::collection::vec((any::<bool>(), 1u16..4, 1usize..20_000, 100u16..1400, any::<bool>()), 1..6),
        order in proptest::collection::vec(0usize..6, 64), large in 0usize..4,
    ) {
        let mut waiting: Vec<_> = trains.iter().enumerate().map(|(number, &(six, port, length, size, push))| {
            let payload: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
            let (_, pieces) = train(six, port, if push { 0x18 } else { 0x10 }, &payload, size);
            pieces.into_iter()
        }).collect();
        let mut sent = Vec::new();
        for turn in order {
            let count = waiting.len();
            sent.extend(waiting[turn % count].next());
        }
        let flow = |frame: &[u8]| { let p = parse(frame).unwrap(); (p.source, p.source_port) };
        let by_flow = |frames: &[Vec<u8>]| {
            let mut flows: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
            for frame in frames {
                flows.entry(flow(frame)).or_default().push(frame.clone());
            }
            flows
        };
        let packets = sent.iter().map(|frame| packet(frame, TUN)).collect();
        let back: Vec<_> = coalesced(packets, large).iter().flat_map(cut_again).collect();
        prop_assert_eq!(by_flow(&back), by_flow(&sent));
    }
}

#[test]
fn a_train_becomes_the_packet_it_was_cut_from() {
    for six in [false, true] {
        let payload: Vec<u8> = (0..9500).map(|at| at as u8).collect();
        let (whole, pieces) = train(six, 1, 0x19, &payload, 1000);
        let out = coalesced(pieces.iter().map(|piece| packet(piece, TUN)).collect(), 1);
        let [one] = out.as_slice() else { panic!("{} packets", out.len()) };
        let transport = usize::from(parse(&whole).unwrap().transport);
        let without_sum = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            put(&mut bytes, transport + 16, [0, 0]);
            bytes
        };
        assert_eq!(without_sum(one.buffer.bytes()), without_sum(&whole));
        assert_eq!(one.offload.segment.unwrap().size, 1000);
        let mut finished = one.buffer.bytes().to_vec();
        assert!(crate::checksum::finish_partial(&mut finished, one.offload.checksum.unwrap()));
        assert_eq!(finished, whole, "finished it has the checksum of the whole");
    }
}

#[test]
fn what_differs_is_left_alone() {
    let payload = [0x5a; 3000];
    let count = |change: &dyn Fn(&mut Vec<u8>)| {
        let (_, mut pieces) = train(false, 1, 0x10, &payload, 1000);
        change(&mut pieces[1]);
        let transport = usize::from(parse(&pieces[1]).map_or(34, |parsed| parsed.transport));
        // Whatever was changed, the checksums are right.
        put(&mut pieces[1], 24, [0, 0]);
        let sum = crate::checksum::of(&pieces[1][14..34]);
        put(&mut pieces[1], 24, sum.to_be_bytes());
        put(&mut pieces[1], transport + 16, [0, 0]);
        let parsed = parse(&pieces[1]).unwrap();
        let sum = crate::checksum::Sum::ZERO
            .pseudo(parsed.source, parsed.destination, 6, pieces[1].len() - transport)
            .bytes(&pieces[1][transport..])
            .finish();
        put(&mut pieces[1], transport + 16, sum.to_be_bytes());
        coalesced(pieces.iter().map(|piece| packet(piece, TUN)).collect(), 2).len()
    };
    assert_eq!(count(&|_| {}), 1);
    for (what, at, value) in [
        ("congestion mark", 15, 3),
        ("TTL", 22, 63),
        ("identification", 19, 77),
        ("acknowledgement", 45, 9),
        ("window", 49, 9),
        ("CWR", 47, 0x90),
        ("SYN", 47, 0x12),
        ("RST", 47, 0x14),
    ] {
        assert!(count(&|frame| frame[at] = value) >= 2, "{what}");
    }
    assert_eq!(count(&|frame| frame[47] = 0x18), 2, "PSH ends a train");
    assert_eq!(count(&|frame| frame[41] ^= 1), 3, "a sequence number that is not the next");
}

#[test]
fn a_wrong_checksum_a_missing_buffer_and_another_port_leave_packets_as_they_are() {
    let (_, pieces) = train(true, 1, 0x10, &[1; 4000], 1000);
    let packets = |port| pieces.iter().map(|piece| packet(piece, port)).collect::<Vec<_>>();
    let unchanged =
        |out: Vec<Packet<VecBuffer>>| out.iter().map(|p| p.buffer.bytes().to_vec()).eq(pieces.clone());
    assert!(unchanged(coalesced(packets(OTHER), 2)));
    assert!(unchanged(coalesced(packets(TUN), 0)));
    let mut spoilt = packets(TUN);
    let last = spoilt[1].buffer.bytes().len() - 1;
    spoilt[1].buffer.bytes_mut()[last] ^= 1;
    let out = coalesced(spoilt, 2);
    assert_eq!(out.len(), 3, "the first, the spoilt one, and the other two");
    assert!(out[1].offload.segment.is_none() && out[2].offload.segment.is_some());
}

#[test]
fn what_is_no_stream_passes() {
    let datagrams = (0..4).map(|_| packet(&ends(false).udp(1, 2, &[7; 500]), TUN)).collect();
    assert_eq!(coalesced(datagrams, 2).len(), 4);
    let acknowledgements = (0..4).map(|_| packet(&ends(false).tcp(1, 2, 0x10, &[]), TUN)).collect();
    assert_eq!(coalesced(acknowledgements, 2).len(), 4);
}
