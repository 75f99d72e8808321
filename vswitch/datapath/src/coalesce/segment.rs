//! One TCP segment, as far as coalescing goes by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{self, Sum};
use crate::parse::{ETHERNET, IPV4, IPV6, protocol};
use crate::read::{be16, be32, byte, chunk, length16, put};
use crate::{Buffer, Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
/// Bytes of TCP options that are compared; longer ones are not coalesced. There are never more than 40.
const OPTIONS_MAX: usize = 40;

/// What is looked at of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    port: PortIndex,
    source: IpAddr,
    destination: IpAddr,
    ports: u32,
    /// TTL and traffic class; of IPv4 the don't-fragment flag, of IPv6 the flow label.
    ip: [u32; 3],
    /// IPv4's.
    identification: u16,
    pub(super) sequence: u32,
    /// Acknowledgement number and window.
    acknowledged: (u32, u16),
    /// Length of the header, and bits that are reserved.
    offset: u8,
    pub(super) flags: u8,
    options: [u8; OPTIONS_MAX],
    /// Where the TCP header is.
    transport: usize,
    /// Bytes before the payload.
    pub(super) headers: usize,
    /// Bytes of the payload.
    pub(super) payload: usize,
    /// It is a large packet already.
    large: bool,
}

/// Reads a packet. None: it is no TCP segment, or one with headers that are not looked at.
pub(super) fn look<B: Buffer>(packet: &Packet<B>) -> Option<Seen> {
    let frame = packet.buffer.bytes();
    match be16(frame, ETHERNET - 2)? {
        IPV4 => v4(frame, packet.port),
        IPV6 => v6(frame, packet.port),
        _ => None,
    }
    .map(|seen| Seen { large: packet.offload.segment.is_some(), ..seen })
}

fn v4(frame: &[u8], port: PortIndex) -> Option<Seen> {
    let fixed = chunk::<20>(frame, ETHERNET)?;
    let field = u16::from_be_bytes([fixed[6], fixed[7]]);
    if fixed[0] != 0x45 || fixed[9] != protocol::TCP || field & 0x3fff != 0 {
        return None;
    }
    let address = |at| be32(fixed, at).map(Ipv4Addr::from_bits).map(IpAddr::V4);
    let ip = [fixed[8].into(), fixed[1].into(), u32::from(field >> 14)];
    let seen = Seen { port, ip, ..tcp(frame, ETHERNET + 20, address(12)?, address(16)?)? };
    Some(Seen { identification: u16::from_be_bytes([fixed[4], fixed[5]]), ..seen })
}

fn v6(frame: &[u8], port: PortIndex) -> Option<Seen> {
    let fixed = chunk::<40>(frame, ETHERNET)?;
    if fixed[0] >> 4 != 6 || fixed[6] != protocol::TCP {
        return None;
    }
    let address = |at| chunk::<16>(fixed, at).map(|bytes| IpAddr::V6(Ipv6Addr::from_octets(*bytes)));
    let ip = [fixed[7].into(), 0, be32(fixed, 0)?];
    Some(Seen { port, ip, ..tcp(frame, ETHERNET + 40, address(8)?, address(24)?)? })
}

fn tcp(frame: &[u8], transport: usize, source: IpAddr, destination: IpAddr) -> Option<Seen> {
    let header = usize::from(byte(frame, transport + 12)? >> 4) * 4;
    let options = frame.get(transport + 20..transport + header)?;
    let mut seen = Seen {
        port: PortIndex(0),
        source,
        destination,
        ports: be32(frame, transport)?,
        ip: [0; 3],
        identification: 0,
        sequence: be32(frame, transport + 4)?,
        acknowledged: (be32(frame, transport + 8)?, be16(frame, transport + 14)?),
        offset: byte(frame, transport + 12)?,
        flags: byte(frame, transport + 13)?,
        options: [0; OPTIONS_MAX],
        transport,
        headers: transport + header,
        payload: frame.len().checked_sub(transport + header)?,
        large: false,
    };
    seen.options.get_mut(..options.len())?.copy_from_slice(options);
    Some(seen)
}

impl Seen {
    pub(super) fn is_same_flow(&self, other: &Self) -> bool {
        (self.ports, self.port, self.destination, self.source)
            == (other.ports, other.port, other.destination, other.source)
    }

    /// Whether a segment that comes `count` after this one is alike: everything the same but FIN and PSH, and IPv4's
    /// identification, which counts up (or, where nobody may cut the packet, stays: RFC 6864).
    pub(super) fn is_like(&self, other: &Self, count: usize) -> bool {
        let step = other.identification.wrapping_sub(self.identification);
        let counts = usize::from(step) == count || (step == 0 && self.ip[2] & 1 == 1);
        !other.large
            && (self.source.is_ipv6() || counts)
            && self.ip == other.ip
            && self.acknowledged == other.acknowledged
            && (self.flags ^ other.flags) & !(FIN | PSH) == 0
            && (self.offset, &self.options) == (other.offset, &other.options)
    }

    /// Whether others may be appended to it: it has data, and nothing in it ends a train of segments.
    pub(super) fn may_begin(&self) -> bool {
        !self.large && self.payload > 0 && self.flags & !(ACK | ECE) == 0
    }

    /// Whether it ends a train that it may be part of.
    pub(super) fn ends(&self) -> bool {
        self.flags & (FIN | PSH) != 0
    }

    /// The sequence number after it.
    pub(super) fn next(&self) -> u32 {
        self.sequence.wrapping_add(self.payload as u32)
    }

    /// Whether its checksum is right, or still to be finished by who sends it on.
    pub(super) fn is_sound<B: Buffer>(&self, packet: &Packet<B>) -> bool {
        let tcp = packet.buffer.bytes().get(self.transport..).unwrap_or_default();
        match packet.offload.checksum {
            Some(partial) => (usize::from(partial.start), partial.offset) == (self.transport, 16),
            None => self.sum(tcp.len()).bytes(tcp).fold() == 0xffff,
        }
    }

    fn sum(&self, length: usize) -> Sum {
        Sum::ZERO.pseudo(self.source, self.destination, protocol::TCP, length)
    }

    /// Makes a packet that begins with this segment, and has others behind it, a large one. `flags`: those of all of them,
    /// which are `count`.
    pub(super) fn finish<B: Buffer>(&self, packet: &mut Packet<B>, flags: u8, count: usize) {
        let frame = packet.buffer.bytes_mut();
        let length = frame.len();
        if self.source.is_ipv4() {
            put(frame, ETHERNET + 2, length16(length - ETHERNET).to_be_bytes());
            put(frame, ETHERNET + 10, [0, 0]);
            let sum = frame.get(ETHERNET..ETHERNET + 20).map_or(0, checksum::of);
            put(frame, ETHERNET + 10, sum.to_be_bytes());
        } else {
            put(frame, ETHERNET + 4, length16(length - ETHERNET - 40).to_be_bytes());
        }
        put(frame, self.transport + 13, [flags]);
        let sum = self.sum(length - self.transport).fold();
        put(frame, self.transport + 16, sum.to_be_bytes());
        let kind = if self.source.is_ipv4() { SegmentKind::TcpV4 } else { SegmentKind::TcpV6 };
        packet.offload = Offload {
            checksum: Some(PartialChecksum { start: self.transport as u16, offset: 16 }),
            segment: Some(Segment { kind, size: self.payload as u16, packets: count as u8 }),
        };
    }
}
