//! Frames, built by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use vswitch_model::Mac;

use crate::checksum::{self, Sum};
use crate::neighbour::link_local;
use crate::parse::{ETHERNET, protocol};

/// Ends of a frame: Ethernet and IP addresses.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Ethernet source.
    pub source_mac: Mac,
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// IP source.
    pub source: IpAddr,
    /// IP destination, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Ends {
    /// The ends of a pod's frame: its Ethernet address and the gateway's. TTL 64.
    #[must_use]
    pub const fn of_pod(source_mac: Mac, source: IpAddr, destination: IpAddr) -> Self {
        Self { source_mac, destination_mac: Mac::GATEWAY, source, destination, ttl: 64 }
    }

    /// The same with the IP addresses the other way round, as the node's kernel would answer.
    #[must_use]
    pub const fn answered(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    /// The same with another TTL.
    #[must_use]
    pub const fn with_ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// etherparse's builder with these Ethernet and IP headers.
    #[must_use]
    pub fn builder(self) -> PacketBuilderStep<IpHeaders> {
        let step = PacketBuilder::ethernet2(self.source_mac.0, self.destination_mac.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                step.ipv4(source.octets(), destination.octets(), self.ttl)
            }
            (source, destination) => step.ipv6(octets(source), octets(destination), self.ttl),
        }
    }

    /// A UDP packet.
    #[must_use]
    pub fn udp(self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        written(self.builder().udp(source_port, destination_port).write(&mut frame, payload).is_ok());
        frame
    }

    /// A TCP segment with these flags (the header's flags byte), numbered as the first after an opening: both SYNs are number
    /// 1, and are acknowledged.
    #[must_use]
    pub fn tcp(self, source_port: u16, destination_port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let sequence = if flags & 2 != 0 { 1 } else { 2 };
        self.tcp_at(source_port, destination_port, flags, (sequence, 2), payload)
    }

    /// The same with a sequence number, and a number it acknowledges if the flags say that it does.
    #[must_use]
    pub fn tcp_at(
        self,
        source_port: u16,
        destination_port: u16,
        flags: u8,
        (sequence, acknowledgement): (u32, u32),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut header = etherparse::TcpHeader::new(source_port, destination_port, sequence, 1024);
        header.acknowledgment_number = if flags & 16 != 0 { acknowledgement } else { 0 };
        header.fin = flags & 1 != 0;
        header.syn = flags & 2 != 0;
        header.rst = flags & 4 != 0;
        header.ack = flags & 16 != 0;
        let mut frame = Vec::new();
        written(self.builder().tcp_header(header).write(&mut frame, payload).is_ok());
        frame
    }

    /// An echo request, ICMP or ICMPv6.
    #[must_use]
    pub fn ping(self, identifier: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.builder();
        written(match self.source {
            IpAddr::V4(_) => builder.icmpv4_echo_request(identifier, 1).write(&mut frame, payload).is_ok(),
            IpAddr::V6(_) => builder.icmpv6_echo_request(identifier, 1).write(&mut frame, payload).is_ok(),
        });
        frame
    }

    /// An echo reply, ICMP or ICMPv6.
    #[must_use]
    pub fn pong(self, identifier: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.builder();
        written(match self.source {
            IpAddr::V4(_) => builder.icmpv4_echo_reply(identifier, 1).write(&mut frame, payload).is_ok(),
            IpAddr::V6(_) => builder.icmpv6_echo_reply(identifier, 1).write(&mut frame, payload).is_ok(),
        });
        frame
    }
}

fn written(written: bool) {
    assert!(written, "a vector takes every packet that is not too long for its headers");
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A VXLAN packet around `inner`, a whole Ethernet frame. The outer UDP checksum is zero over IPv4.
#[must_use]
pub fn vxlan(outer: Ends, vni: u32, port: u16, inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0];
    payload.extend((vni << 8).to_be_bytes());
    payload.extend(inner);
    let mut frame = outer.udp(50_000, port, &payload);
    if outer.source.is_ipv4() {
        frame[40..42].fill(0);
    }
    frame
}

/// `inner`, the IP packet of an Ethernet frame, behind another IP header.
#[must_use]
pub fn ip_in_ip(outer: Ends, inner: &[u8]) -> Vec<u8> {
    let carried = if inner[12..14] == [0x08, 0x00] { protocol::IPV4 } else { protocol::IPV6 };
    let mut frame = Vec::new();
    written(outer.builder().write(&mut frame, carried.into(), &inner[ETHERNET..]).is_ok());
    frame
}

/// An ARP request.
#[must_use]
pub fn arp_request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Mac::BROADCAST.0.to_vec();
    frame.extend(sender_mac.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender_mac.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    // Padded to the least Ethernet frame, as a real one.
    frame.resize(60, 0);
    frame
}

/// A neighbour solicitation with a source link-layer address, sent to the target's solicited-node group.
#[must_use]
pub fn solicitation(sender_mac: Mac, sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let low = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(low[13]),
        u16::from_be_bytes([low[14], low[15]]),
    );
    let mut frame = vec![0x33, 0x33, 0xff, low[13], low[14], low[15]];
    frame.extend(sender_mac.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, protocol::ICMPV6, 255]);
    frame.extend(sender.octets());
    frame.extend(group.octets());
    frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target.octets());
    frame.extend([1, 1]);
    frame.extend(sender_mac.0);
    mend_icmpv6(&mut frame);
    frame
}

/// The same from the sender's link-local address.
#[must_use]
pub fn solicitation_from(sender_mac: Mac, target: Ipv6Addr) -> Vec<u8> {
    solicitation(sender_mac, link_local(sender_mac), target)
}

/// Computes the checksum of an ICMPv6 packet without extension headers anew, after a change.
pub fn mend_icmpv6(frame: &mut [u8]) {
    let (source, destination) = (ipv6_at(frame, ETHERNET + 8), ipv6_at(frame, ETHERNET + 24));
    frame[56..58].fill(0);
    let message = &frame[54..];
    let sum = Sum::ZERO.pseudo(source, destination, protocol::ICMPV6, message.len()).bytes(message).finish();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
}

fn ipv6_at(frame: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&frame[at..at + 16]);
    octets.into()
}

/// Computes the checksum of an IPv4 header anew, after a change.
pub fn mend_ipv4(frame: &mut [u8]) {
    let end = ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4;
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[ETHERNET..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Clears IPv4's don't-fragment flag, which etherparse sets, and gives an identification.
#[must_use]
pub fn may_fragment(mut frame: Vec<u8>, identification: u16) -> Vec<u8> {
    frame[18..20].copy_from_slice(&identification.to_be_bytes());
    frame[20..22].fill(0);
    mend_ipv4(&mut frame);
    frame
}

/// A whole IPv4 packet in two fragments, the first with `first` bytes of payload, a multiple of 8.
#[must_use]
pub fn cut_v4(frame: &[u8], first: usize) -> [Vec<u8>; 2] {
    assert!(first.is_multiple_of(8), "fragments are counted in units of 8 bytes");
    let piece = |bytes: &[u8], field: usize| {
        let mut piece = frame[..34].to_vec();
        piece.extend(bytes);
        piece[16..18].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        piece[20..22].copy_from_slice(&(field as u16).to_be_bytes());
        mend_ipv4(&mut piece);
        piece
    };
    [piece(&frame[34..34 + first], 0x2000), piece(&frame[34 + first..], first / 8)]
}

/// A whole IPv6 packet without extension headers in two fragments, likewise.
#[must_use]
pub fn cut_v6(frame: &[u8], first: usize, identification: u32) -> [Vec<u8>; 2] {
    assert!(first.is_multiple_of(8), "fragments are counted in units of 8 bytes");
    let piece = |bytes: &[u8], field: u16| {
        let mut piece = frame[..54].to_vec();
        piece.extend([frame[20], 0]);
        piece.extend(field.to_be_bytes());
        piece.extend(identification.to_be_bytes());
        piece.extend(bytes);
        piece[20] = 44;
        piece[18..20].copy_from_slice(&((8 + bytes.len()) as u16).to_be_bytes());
        piece
    };
    [piece(&frame[54..54 + first], 1), piece(&frame[54 + first..], first as u16)]
}

/// Whether the transport checksum of a whole TCP, UDP, ICMP or ICMPv6 packet is right.
#[must_use]
pub fn transport_checksum_is_right(frame: &[u8]) -> bool {
    let Ok(parsed) = crate::parse::parse(frame) else { return false };
    let payload = &frame[usize::from(parsed.transport)..usize::from(parsed.end)];
    let sum = if parsed.protocol == protocol::ICMP {
        Sum::ZERO
    } else {
        Sum::ZERO.pseudo(parsed.source, parsed.destination, parsed.protocol, payload.len())
    };
    sum.bytes(payload).fold() == 0xffff
}
