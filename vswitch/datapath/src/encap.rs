//! VXLAN (RFC 7348): putting headers on from a prebuilt template, and taking them off.

use std::net::IpAddr;

use vswitch_model::DropReason;

use crate::Buffer;
use crate::checksum::{self, Sum};
use crate::parse::{ETHERNET, Network, Parsed, Piece, protocol};
use crate::read::{be16, be32, byte, length16, put, put_slice};

/// Bytes of a VXLAN header.
pub const VXLAN: usize = 8;
/// Bytes of a UDP header.
pub const UDP: usize = 8;

/// Puts a template before a packet: outer Ethernet, IP, UDP and VXLAN headers and the inner Ethernet header, which
/// replaces the packet's own. What differs from packet to packet is filled in: lengths, DSCP and ECN (copied from the
/// inner packet: RFC 2983 uniform, RFC 6040 normal mode), the UDP source port (49152 to 65535, by the flow's hash so that
/// the underlay spreads flows), and the checksums: of the IPv4 header, and over IPv6 of UDP; over IPv4 UDP has none.
pub fn encapsulate<B: Buffer>(
    buffer: &mut B,
    template: &[u8],
    traffic_class: u8,
    entropy: u64,
) -> Result<(), DropReason> {
    let outer = template.len().saturating_sub(ETHERNET);
    if !buffer.grow_front(outer) {
        return Err(DropReason::HeadroomExhausted);
    }
    let frame = buffer.bytes_mut();
    if !put_slice(frame, 0, template) {
        return Err(DropReason::Truncated);
    }
    let ip_length = frame.len() - ETHERNET;
    let source_port = 0xc000 | (entropy & 0x3fff) as u16;
    if byte(frame, ETHERNET).is_some_and(|version| version >> 4 == 4) {
        put(frame, ETHERNET + 1, [traffic_class]);
        put(frame, ETHERNET + 2, length16(ip_length).to_be_bytes());
        // The template's checksum is that of the header while these two fields are zero.
        let before = be16(frame, ETHERNET + 10).unwrap_or_default();
        let sum = Sum::ZERO.word(!before).word(traffic_class.into()).word(length16(ip_length)).finish();
        put(frame, ETHERNET + 10, sum.to_be_bytes());
        put(frame, ETHERNET + 20, source_port.to_be_bytes());
        put(frame, ETHERNET + 24, length16(ip_length - 20).to_be_bytes());
    } else {
        let udp = ETHERNET + 40;
        let length = length16(ip_length - 40);
        put(frame, ETHERNET, [0x60 | traffic_class >> 4, traffic_class << 4]);
        put(frame, ETHERNET + 4, length.to_be_bytes());
        put(frame, udp, source_port.to_be_bytes());
        put(frame, udp + 4, length.to_be_bytes());
        put(frame, udp + 6, [0, 0]);
        let addresses = frame.get(ETHERNET + 8..udp).unwrap_or_default();
        let sum = Sum::ZERO.bytes(addresses).word(protocol::UDP.into()).word(length);
        let sum = match sum.bytes(frame.get(udp..).unwrap_or_default()).finish() {
            0 => 0xffff,
            sum => sum,
        };
        put(frame, udp + 6, sum.to_be_bytes());
    }
    Ok(())
}

/// Where this node accepts VXLAN.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// The node's underlay addresses.
    pub addresses: [Option<IpAddr>; 2],
    /// UDP destination port.
    pub port: u16,
    /// The network.
    pub vni: u32,
}

/// Whether a packet is for our end of the tunnels, by its outer headers; a fragment of one is refused.
pub fn is_tunnelled(parsed: &Parsed, endpoint: &Endpoint) -> Result<bool, DropReason> {
    if parsed.protocol != protocol::UDP || !endpoint.addresses.contains(&Some(parsed.destination)) {
        return Ok(false);
    }
    match parsed.piece {
        // A later fragment has no port to go by. Nothing else we take from the uplink has this destination.
        Piece::Later => Err(DropReason::TunnelFragment),
        _ if parsed.destination_port != endpoint.port => Ok(false),
        Piece::First => Err(DropReason::TunnelFragment),
        Piece::Whole => Ok(true),
    }
}

/// Takes the outer headers off: checks the VXLAN header and cuts to the inner Ethernet frame. Flags other than "VNI is
/// valid" are refused, as Linux does (drivers/net/vxlan/vxlan_core.c, `vxlan_rcv`). The outer UDP checksum is not
/// verified (RFC 7348, section 5 leaves that open): inner packets have their own.
pub fn decapsulate<B: Buffer>(buffer: &mut B, outer: &Parsed, endpoint: &Endpoint) -> Result<(), DropReason> {
    let udp = usize::from(outer.transport);
    let header = udp + UDP;
    let frame = buffer.bytes();
    let length = usize::from(be16(frame, udp + 4).ok_or(DropReason::Truncated)?);
    let (flags, vni) = be32(frame, header).zip(be32(frame, header + 4)).ok_or(DropReason::Truncated)?;
    if length < UDP + VXLAN + ETHERNET {
        return Err(DropReason::Truncated);
    }
    if flags != 0x0800_0000 || vni != endpoint.vni << 8 {
        return Err(DropReason::TunnelHeaderInvalid);
    }
    if !buffer.set_len(udp + length) {
        return Err(DropReason::Truncated);
    }
    buffer.cut_front(header + VXLAN);
    Ok(())
}

/// Carries congestion marks of the outer header into the inner one (RFC 6040, section 4.2). A mark on a packet that
/// cannot carry one ends it, since its sender would never hear of the congestion.
pub fn combine_ecn(frame: &mut [u8], inner: &mut Parsed, outer: u8) -> Result<(), DropReason> {
    const NOT_CAPABLE: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CONGESTION: u8 = 3;
    let combined = match (inner.traffic_class & 3, outer & 3) {
        (NOT_CAPABLE, CONGESTION) => return Err(DropReason::TunnelHeaderInvalid),
        (ECT_0 | ECT_1, CONGESTION) => CONGESTION,
        (ECT_0, ECT_1) => ECT_1,
        _ => return Ok(()),
    };
    let traffic_class = inner.traffic_class & !3 | combined;
    if inner.network == Network::V4 {
        if let (Some(old), Some(sum)) = (be16(frame, ETHERNET), be16(frame, ETHERNET + 10)) {
            let new = old & 0xff00 | u16::from(traffic_class);
            put(frame, ETHERNET, new.to_be_bytes());
            put(frame, ETHERNET + 10, checksum::updated(sum, old, new).to_be_bytes());
        }
    } else if let Some(old) = be16(frame, ETHERNET) {
        put(frame, ETHERNET, (old & 0xf00f | u16::from(traffic_class) << 4).to_be_bytes());
    }
    inner.traffic_class = traffic_class;
    Ok(())
}

#[cfg(test)]
mod tests;
