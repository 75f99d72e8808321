//! What a frame says of itself: Ethernet II, ARP, IPv4, IPv6 and the headers above them.
//!
//! [`parse`] reads and judges the form only. Whether an address may be used by who uses it is the source check's
//! business. Checksums of transport headers are the receiver's business (RFC 1812 asks a router for none).

mod common;
mod ip;
mod quoted;
mod transport;

use std::net::{IpAddr, Ipv4Addr};

use vswitch_model::{DropReason, Mac, PortMatch};

use crate::read::{chunk, length16};

pub(crate) use quoted::quoted;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// IP protocol numbers the walk knows.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// An IPv4 packet in an IP packet (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// An IPv6 packet in an IP packet (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What follows the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// An ARP packet. No other field of [`Parsed`] but the Ethernet addresses holds anything.
    Arp,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whether a packet is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The packet is no fragment; an IPv6 atomic fragment (RFC 6946) counts as whole.
    Whole,
    /// The first fragment, which holds the transport header.
    First,
    /// A later fragment, which holds none: ports are zero.
    Later,
}

/// What a frame says of itself. Offsets count from the frame's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Destination of the Ethernet header.
    pub destination_mac: Mac,
    /// Source of the Ethernet header.
    pub source_mac: Mac,
    /// What follows the Ethernet header.
    pub network: Network,
    /// Whether it is a fragment.
    pub piece: Piece,
    /// The identification all fragments of a packet share.
    pub fragment_id: u32,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol: the end of the extension header chain.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The TOS or traffic class byte: DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// IPv4's don't-fragment flag; true for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// Offset of the transport header; of the payload in a later fragment.
    pub transport: u16,
    /// Where the IP packet ends; what follows is Ethernet padding.
    pub end: u16,
    /// Source port; 0 where the protocol has none. Of an ICMP or ICMPv6 query its identifier; of a reply type and code
    /// of the query it answers, the type in the upper 8 bits.
    pub source_port: u16,
    /// Destination port; 0 where the protocol has none. Of an ICMP or ICMPv6 message its type and code, the type in the
    /// upper 8 bits; of a reply the identifier.
    pub destination_port: u16,
    /// The flags byte of a TCP header, else 0.
    pub tcp_flags: u8,
    /// Type of an ICMP or ICMPv6 message, else 0.
    pub icmp_type: u8,
    /// Code of an ICMP or ICMPv6 message, else 0.
    pub icmp_code: u8,
}

impl Parsed {
    /// Nothing known yet.
    pub const EMPTY: Self = Self {
        destination_mac: Mac([0; 6]),
        source_mac: Mac([0; 6]),
        network: Network::Arp,
        piece: Piece::Whole,
        fragment_id: 0,
        source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        protocol: 0,
        ttl: 0,
        traffic_class: 0,
        dont_fragment: false,
        transport: 0,
        end: 0,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
    };

    /// Bytes of the IP packet, headers included.
    #[must_use]
    pub const fn ip_length(&self) -> u16 {
        self.end.saturating_sub(ETHERNET as u16)
    }

    /// Source and destination port as they are told; of an ICMP or ICMPv6 message, replies too, its identifier, and its
    /// type in the upper 8 bits with its code in the lower.
    #[must_use]
    pub const fn told_ports(&self) -> (u16, u16) {
        let (source, destination) = (self.source_port, self.destination_port);
        match self.protocol {
            protocol::ICMP | protocol::ICMPV6 => {
                let identifier = if self.is_icmp_reply() { destination } else { source };
                (identifier, PortMatch::message(self.icmp_type, self.icmp_code))
            }
            _ => (source, destination),
        }
    }

    /// Whether it is an ICMP or ICMPv6 error (RFC 1122, section 3.2.2; RFC 4443, section 2.1). About these no error is sent.
    #[must_use]
    pub const fn is_icmp_error(&self) -> bool {
        match (self.piece, self.protocol, self.network) {
            (Piece::Later, ..) => false,
            (_, protocol::ICMP, Network::V4) => matches!(self.icmp_type, 3 | 4 | 5 | 11 | 12),
            (_, protocol::ICMPV6, Network::V6) => self.icmp_type < 128,
            _ => false,
        }
    }

    /// Whether it is an ICMP redirect (RFC 792). That of IPv6 is no error but neighbour discovery.
    #[must_use]
    pub const fn is_redirect(&self) -> bool {
        matches!((self.protocol, self.network, self.icmp_type), (protocol::ICMP, Network::V4, 5))
    }

    /// Whether it asks for an ICMP or ICMPv6 echo.
    #[must_use]
    pub const fn is_echo_request(&self) -> bool {
        match (self.piece, self.protocol, self.network) {
            (Piece::Whole | Piece::First, protocol::ICMP, Network::V4) => self.icmp_type == 8,
            (Piece::Whole | Piece::First, protocol::ICMPV6, Network::V6) => self.icmp_type == 128,
            _ => false,
        }
    }

    /// Whether it answers an ICMP query: such a packet never opens a flow.
    #[must_use]
    pub const fn is_icmp_reply(&self) -> bool {
        match (self.protocol, self.network) {
            (protocol::ICMP, Network::V4) => matches!(self.icmp_type, 0 | 14 | 16 | 18 | 43),
            (protocol::ICMPV6, Network::V6) => matches!(self.icmp_type, 129 | 161),
            _ => false,
        }
    }
}

/// Reads a frame. The reason says what is wrong with it.
pub fn parse(frame: &[u8]) -> Result<Parsed, DropReason> {
    let mut parsed = Parsed::EMPTY;
    parse_into(frame, &mut parsed)?;
    Ok(parsed)
}

/// Reads a frame into the place where the walk keeps what it knows; half-filled when it is refused.
#[inline]
pub(crate) fn parse_into(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    match usual_v4(frame).or_else(|| usual_v6(frame)) {
        Some(read) => {
            *parsed = read;
            Ok(())
        }
        None => parse_any(frame, parsed),
    }
}

/// Reads a frame of the most usual form: a whole packet of UDP or TCP over IPv4 without options. None: it is not of that
/// form, or not right.
#[inline(always)]
pub(crate) fn usual_v4(frame: &[u8]) -> Option<Parsed> {
    common::v4(frame)
}

/// The same over IPv6 without extension headers.
#[inline(always)]
pub(crate) fn usual_v6(frame: &[u8]) -> Option<Parsed> {
    common::v6(frame)
}

/// The long way, for any frame that there can be.
fn parse_any(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let header = chunk::<ETHERNET>(frame, 0).ok_or(DropReason::Truncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, high, low] = *header;
    *parsed = Parsed {
        destination_mac: Mac([d0, d1, d2, d3, d4, d5]),
        source_mac: Mac([s0, s1, s2, s3, s4, s5]),
        end: length16(frame.len()),
        ..Parsed::EMPTY
    };
    // Tagged frames (802.1Q) have an EtherType of their own and end here too.
    match u16::from_be_bytes([high, low]) {
        ARP => Ok(()),
        IPV4 => ip::v4(frame, parsed),
        IPV6 => ip::v6(frame, parsed),
        _ => Err(DropReason::EtherTypeUnknown),
    }
}

#[cfg(test)]
mod tests;
