//! Frames that open flows and answer them, and what to know them by when they come out.

use std::net::IpAddr;

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use vswitch_datapath::checksum;
use vswitch_datapath::testing::frames::{Ends, mend_icmpv6};

use crate::scene::{ICMP, ICMPV6, Probe, SCTP, TCP, UDP};

/// What a frame is known by: addresses, protocol, and the first four bytes behind the IP header, which are both ports,
/// or type, code and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) head: [u8; 4],
}

/// The first packet of a flow.
pub(super) fn first(ends: Ends, probe: &Probe) -> Vec<u8> {
    let Probe { protocol, port, source_port, .. } = *probe;
    match protocol {
        TCP => ends.tcp(source_port, port, 0x02, &[]),
        UDP => ends.udp(source_port, port, b"first"),
        SCTP => sctp(ends, source_port, port, 1),
        ICMP | ICMPV6 => icmp(ends, port),
        _ => raw(ends, protocol, b"neither ports nor types"),
    }
}

/// What the receiver of that sends back; `ends` are its own. None: ICMP has none of its own here.
pub(super) fn answer(ends: Ends, probe: &Probe) -> Option<Vec<u8>> {
    let Probe { protocol, port, source_port, .. } = *probe;
    Some(match protocol {
        TCP => ends.tcp(port, source_port, 0x12, &[]),
        UDP => ends.udp(port, source_port, b"answer"),
        SCTP => sctp(ends, port, source_port, 2),
        _ => return None,
    })
}

/// An SCTP packet with one INIT (1) or INIT ACK (2) chunk (RFC 9260, sections 3.3.2 and 3.3.3).
fn sctp(ends: Ends, source_port: u16, destination_port: u16, chunk: u8) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend(source_port.to_be_bytes());
    packet.extend(destination_port.to_be_bytes());
    // The verification tag of INIT is zero; the checksum comes last.
    packet.extend(if chunk == 1 { [0; 4] } else { [0, 0, 0, 9] });
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 20]);
    // Initiate tag, window, streams out and in, first TSN.
    packet.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    raw(ends, SCTP, &packet)
}

/// CRC-32C, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc));
    !bytes.iter().fold(u32::MAX, byte)
}

/// An ICMP or ICMPv6 message of the type and code of `port`.
fn icmp(ends: Ends, port: u16) -> Vec<u8> {
    let [kind, code] = port.to_be_bytes();
    // Each end has identifiers of its own, or what it asks were an answer to what the other asked.
    let identifier = if ends.source < ends.destination { 9 } else { 10 };
    let mut message = vec![kind, code, 0, 0, 0, identifier, 0, 1];
    // A timestamp has twelve bytes more.
    message.extend(b"twelve bytes");
    if ends.source.is_ipv4() {
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        return raw(ends, ICMP, &message);
    }
    let mut frame = raw(ends, ICMPV6, &message);
    mend_icmpv6(&mut frame);
    frame
}

fn raw(ends: Ends, protocol: u8, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ends.builder().write(&mut frame, IpNumber(protocol), packet).unwrap();
    frame
}

/// Reads what a frame is known by.
pub(super) fn known(frame: &[u8]) -> Known {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination, payload) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        NetSlice::Arp(_) => panic!("nobody asks by ARP"),
    };
    let head = payload.payload.first_chunk().copied().unwrap();
    Known { source, destination, protocol: payload.ip_number.0, head }
}

/// Where a VXLAN packet goes on the underlay.
pub(super) fn outer_destination(frame: &[u8]) -> Option<IpAddr> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let destination = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    (udp.destination_port() == 4789).then_some(destination)
}
