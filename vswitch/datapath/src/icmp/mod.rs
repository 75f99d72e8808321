//! ICMP errors of a router (RFC 1812, section 4.3; RFC 4443, section 3), built around the packet they speak of.

mod limit;

use std::net::IpAddr;

use crate::Buffer;
use crate::checksum::{self, Sum};
use crate::parse::{ETHERNET, Network, Parsed, Piece, protocol};
use crate::read::{length16, put, put_slice};

pub use limit::{ErrorLimits, Limited, Limiter, Receiver, SourceLimiter};

/// Longest ICMP error over IPv4 (RFC 1812, section 4.3.2.3).
const LENGTH_V4_MAX: usize = 576;
/// Longest ICMPv6 error: the least MTU (RFC 4443, section 2.4 c).
const LENGTH_V6_MAX: usize = 1280;
/// TTL of what we send ourselves (RFC 1700).
pub(crate) const TTL: u8 = 64;
/// Precedence of a router's errors: internetwork control (RFC 1812, section 4.3.2.5).
pub(crate) const TOS: u8 = 0xc0;

/// What a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit exceeded in transit.
    TimeExceeded,
    /// The packet is larger than the way allows.
    TooBig {
        /// The largest that fits, in bytes of the IP packet.
        mtu: u16,
    },
    /// No way leads to the destination's network.
    NetworkUnreachable,
    /// A way leads to its network, and it is not there, or does not answer.
    HostUnreachable,
    /// It is us, and nothing listens.
    PortUnreachable,
    /// It is us, and we do not speak that.
    ProtocolUnreachable,
}

impl IcmpError {
    /// Type, code and the second word of the header.
    const fn header(self, network: Network) -> (u8, u8, u32) {
        match (self, network) {
            (Self::TimeExceeded, Network::V6) => (3, 0, 0),
            (Self::TimeExceeded, _) => (11, 0, 0),
            (Self::TooBig { mtu }, Network::V6) => (2, 0, mtu as u32),
            (Self::TooBig { mtu }, _) => (3, 4, mtu as u32),
            (Self::NetworkUnreachable, Network::V6) => (1, 0, 0),
            (Self::NetworkUnreachable, _) => (3, 0, 0),
            (Self::HostUnreachable, Network::V6) => (1, 3, 0),
            (Self::HostUnreachable, _) => (3, 1, 0),
            (Self::PortUnreachable, Network::V6) => (1, 4, 0),
            (Self::PortUnreachable, _) => (3, 3, 0),
            // A parameter problem of the next header field of the fixed header (RFC 4443, section 3.4).
            (Self::ProtocolUnreachable, Network::V6) => (4, 1, 6),
            (Self::ProtocolUnreachable, _) => (3, 2, 0),
        }
    }
}

/// Whether an error about this packet may be sent: not about errors, and not about later fragments (RFC 1122, section
/// 3.2.2; RFC 4443, section 2.4 e). Group and unspecified addresses have ended at the source check.
#[must_use]
pub fn may_report(parsed: &Parsed) -> bool {
    !parsed.is_icmp_error() && parsed.piece != Piece::Later
}

/// Turns the packet that `parsed` describes into an ICMP error about it, from `source` to whoever sent it. Ethernet addresses
/// are left for the way out. False when there is no headroom for it or `source` is of the other family.
#[must_use]
pub fn build<B: Buffer>(buffer: &mut B, parsed: &Parsed, error: IcmpError, source: IpAddr) -> bool {
    let (ip_header, longest) = match parsed.network {
        Network::V4 => (20, LENGTH_V4_MAX),
        Network::V6 => (40, LENGTH_V6_MAX),
        Network::Arp => return false,
    };
    let added = ip_header + 8;
    let quoted = usize::from(parsed.ip_length()).min(longest - added);
    if source.is_ipv4() != parsed.source.is_ipv4()
        || buffer.bytes().len() < ETHERNET + quoted
        || !buffer.grow_front(added)
        || !buffer.set_len(ETHERNET + added + quoted)
    {
        return false;
    }
    let frame = buffer.bytes_mut();
    // The old Ethernet header lies `added` bytes in; the new one goes before it, the ICMP header over it.
    frame.copy_within(added + 12..added + ETHERNET, 12);
    let (kind, code, rest) = error.header(parsed.network);
    let message = ETHERNET + ip_header;
    put(frame, message, [kind, code, 0, 0]);
    put(frame, message + 4, rest.to_be_bytes());
    let length = 8 + quoted;
    let sum = match (source, parsed.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0; 20];
            // An unfragmentable packet needs no identification (RFC 6864).
            header[..8].copy_from_slice(&[0x45, TOS, 0, 0, 0, 0, 0x40, 0]);
            header[2..4].copy_from_slice(&length16(20 + length).to_be_bytes());
            (header[8], header[9]) = (TTL, protocol::ICMP);
            header[12..16].copy_from_slice(&from.octets());
            header[16..].copy_from_slice(&to.octets());
            let checksum = checksum::of(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            put(frame, ETHERNET, header);
            Sum::ZERO
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            put(frame, ETHERNET, [0x60 | TOS >> 4, TOS << 4, 0, 0]);
            put(frame, ETHERNET + 4, length16(length).to_be_bytes());
            put(frame, ETHERNET + 6, [protocol::ICMPV6, TTL]);
            put_slice(frame, ETHERNET + 8, &from.octets());
            put_slice(frame, ETHERNET + 24, &to.octets());
            Sum::ZERO.pseudo(source, parsed.source, protocol::ICMPV6, length)
        }
        _ => return false,
    };
    let checksum = frame.get(message..).map_or(0, |bytes| sum.bytes(bytes).finish());
    put(frame, message + 2, checksum.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice, icmpv4};

    use super::*;
    use crate::VecBuffer;
    use crate::parse::parse;

    #[test]
    fn an_error_quotes_what_it_is_about() {
        let mut frame = Vec::new();
        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 1).udp(7, 9);
        builder.write(&mut frame, &[0x5a; 1000]).unwrap();
        let parsed = parse(&frame).unwrap();
        let mut buffer = VecBuffer::of(&frame);
        assert!(build(&mut buffer, &parsed, IcmpError::TooBig { mtu: 900 }, [169, 254, 1, 1].into()));
        let sliced = SlicedPacket::from_ethernet(buffer.bytes()).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("{sliced:?}") };
        let unreachable = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 900 };
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(unreachable));
        assert_eq!(icmp.payload(), &frame[14..14 + 548]);
        assert_eq!(buffer.bytes().len(), 14 + 576);
        let back = parse(buffer.bytes()).unwrap();
        assert!(checksum::is_right(&buffer.bytes()[34..]) && back.is_icmp_error());
        assert_eq!((back.source, back.destination), ([169, 254, 1, 1].into(), [10, 0, 0, 1].into()));
        let quoted = crate::parse::quoted(buffer.bytes(), &back).unwrap();
        assert_eq!(
            (quoted.source_port, quoted.destination_port, quoted.destination),
            (7, 9, [10, 0, 0, 2].into())
        );
    }

    #[test]
    fn without_headroom_nothing_is_built() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([1; 16], [2; 16], 1)
            .udp(7, 9)
            .write(&mut frame, &[1])
            .unwrap();
        let parsed = parse(&frame).unwrap();
        let mut buffer = VecBuffer::with_headroom(&frame, 20);
        assert!(!build(&mut buffer, &parsed, IcmpError::TimeExceeded, IpAddr::from([3u8; 16])));
    }
}
