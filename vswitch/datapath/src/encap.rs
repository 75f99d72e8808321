//! Tunnels: VXLAN (RFC 7348) and IP-in-IP (RFC 2003, RFC 4213, RFC 2473), any family in any: putting headers on from a
//! prebuilt template, and taking them off.

use std::fmt;

use vswitch_model::{DropReason, Mac};

use crate::Buffer;
use crate::checksum::{self, Sum};
use crate::parse::{self, ETHERNET, Network, Parsed, Piece, protocol};
use crate::read::{be16, chunk, length16, put};
use crate::tables::{Headers, LocalEntry, TunnelTemplate};

/// Bytes of a VXLAN header.
pub const VXLAN: usize = 8;
/// Bytes of a UDP header.
pub const UDP: usize = 8;

/// Puts a template before a packet; its last part replaces the packet's Ethernet header. What differs from packet to
/// packet is filled in: lengths, DSCP and ECN, the UDP source port of VXLAN (49152 to 65535) and the flow label of IPv6
/// (RFC 6438), by the flow's hash so that the underlay spreads flows, and the checksums: of the IPv4 header, and over
/// IPv6 of UDP; over IPv4 UDP has none.
#[inline(always)]
pub fn encapsulate<B: Buffer>(
    buffer: &mut B,
    template: &TunnelTemplate,
    traffic_class: u8,
    entropy: u64,
) -> Result<(), DropReason> {
    let traffic_class = template.traffic_class(traffic_class);
    if template.headers() == Headers::VxlanV4 {
        vxlan_v4(buffer, template, traffic_class, entropy)
    } else {
        encapsulate_otherwise(buffer, template, traffic_class, entropy)
    }
}

#[inline(always)]
fn vxlan_v4<B: Buffer>(
    buffer: &mut B,
    template: &TunnelTemplate,
    traffic_class: u8,
    entropy: u64,
) -> Result<(), DropReason> {
    let (front, length) = lay::<{ Headers::VxlanV4.length() }, B>(buffer, template)?;
    outer_v4(front, traffic_class, length);
    put(front, ETHERNET + 20, source_port(entropy).to_be_bytes());
    put(front, ETHERNET + 24, length.saturating_sub(20).to_be_bytes());
    Ok(())
}

/// The same in all but the most usual headers, with the outer traffic class.
#[inline(never)]
fn encapsulate_otherwise<B: Buffer>(
    buffer: &mut B,
    template: &TunnelTemplate,
    traffic_class: u8,
    entropy: u64,
) -> Result<(), DropReason> {
    match template.headers() {
        Headers::VxlanV6 => {
            let (front, length) = lay::<{ Headers::VxlanV6.length() }, B>(buffer, template)?;
            outer_v6(front, traffic_class, length, entropy);
            udp_v6(buffer.bytes_mut(), source_port(entropy), length.saturating_sub(40));
        }
        Headers::VxlanV4 => vxlan_v4(buffer, template, traffic_class, entropy)?,
        Headers::IpIpV4 => {
            let (front, length) = lay::<{ Headers::IpIpV4.length() }, B>(buffer, template)?;
            outer_v4(front, traffic_class, length);
        }
        Headers::IpIpV6 => {
            let (front, length) = lay::<{ Headers::IpIpV6.length() }, B>(buffer, template)?;
            outer_v6(front, traffic_class, length, entropy);
        }
    }
    Ok(())
}

#[inline]
fn source_port(entropy: u64) -> u16 {
    0xc000 | (entropy & 0x3fff) as u16
}

/// Copies the `N` bytes of a template to the front, over the Ethernet header: of constant length, so a few moves. What was
/// laid, and the length of the outer IP packet.
#[inline(always)]
fn lay<'a, const N: usize, B: Buffer>(
    buffer: &'a mut B,
    template: &TunnelTemplate,
) -> Result<(&'a mut [u8; N], u16), DropReason> {
    if !buffer.grow_front(N - ETHERNET) {
        return Err(DropReason::HeadroomExhausted);
    }
    let frame = buffer.bytes_mut();
    let length = length16(frame.len() - ETHERNET);
    let (front, headers) =
        frame.first_chunk_mut::<N>().zip(template.bytes.first_chunk()).ok_or(DropReason::Truncated)?;
    *front = *headers;
    Ok((front, length))
}

#[inline(always)]
fn outer_v4<const N: usize>(front: &mut [u8; N], traffic_class: u8, length: u16) {
    // The template's checksum is that of the header while these two fields are zero.
    let before = be16(front, ETHERNET + 10).unwrap_or_default();
    put(front, ETHERNET + 1, [traffic_class]);
    put(front, ETHERNET + 2, length.to_be_bytes());
    // Of what a word was and is now that it became `length`, one's complement; and so of the other field, which was zero.
    let sum = checksum::updated(before, !u16::from(traffic_class), length);
    put(front, ETHERNET + 10, sum.to_be_bytes());
}

#[inline(always)]
fn outer_v6<const N: usize>(front: &mut [u8; N], traffic_class: u8, length: u16, entropy: u64) {
    let flow_label = (entropy >> 14) as u32 & 0xf_ffff;
    put(front, ETHERNET, (0x6000_0000 | u32::from(traffic_class) << 20 | flow_label).to_be_bytes());
    put(front, ETHERNET + 4, length.saturating_sub(40).to_be_bytes());
}

/// Over the whole frame, whose outer UDP packet has this length.
#[inline(never)]
fn udp_v6(frame: &mut [u8], source_port: u16, length: u16) {
    let udp = ETHERNET + 40;
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

/// What carries a packet, by its outer headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// UDP to a port at which we accept VXLAN.
    Vxlan,
    /// An IP header.
    IpIp,
}

/// What carries a packet to our end of the tunnels; None when it is for none of them. A fragment of one is refused.
#[inline]
pub fn carrier(parsed: &Parsed, local: &LocalEntry) -> Result<Option<Carrier>, DropReason> {
    let carrier = match parsed.protocol {
        protocol::UDP => Carrier::Vxlan,
        protocol::IPV4 | protocol::IPV6 => Carrier::IpIp,
        _ => return Ok(None),
    };
    if !local.underlay.contains(&Some(parsed.destination)) {
        return Ok(None);
    }
    // A later fragment has no port to go by. Nothing else we take from the uplink has this destination.
    let accepted = carrier == Carrier::IpIp
        || parsed.piece == Piece::Later
        || local.networks.has_port(parsed.destination_port);
    match parsed.piece {
        _ if !accepted => Ok(None),
        Piece::Whole => Ok(Some(carrier)),
        Piece::First | Piece::Later => Err(DropReason::TunnelFragment),
    }
}

/// What a packet came in, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// VXLAN, of this network.
    Vxlan(u32),
    /// IP-in-IP.
    IpIp,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan(vni) => write!(f, "VXLAN {vni}"),
            Self::IpIp => f.write_str("IPIP"),
        }
    }
}

/// Takes the outer headers off, so that an Ethernet frame is left, and says what the packet came in and which Ethernet
/// addresses the frame may be for.
#[inline]
pub fn decapsulate<B: Buffer>(
    buffer: &mut B,
    outer: &Parsed,
    carrier: Carrier,
    local: &LocalEntry,
) -> Result<(Carried, [Mac; 2]), DropReason> {
    match carrier {
        Carrier::Vxlan => take_vxlan_off(buffer, outer, local),
        Carrier::IpIp => take_ip_off(buffer, outer),
    }
}

/// The VNI of the VXLAN header that a frame has at `at`; None when it is not right. Flags other than "VNI is valid" are refused,
/// as Linux does (drivers/net/vxlan/vxlan_core.c, `vxlan_rcv`).
#[inline]
pub(crate) fn vni(frame: &[u8], at: usize) -> Option<u32> {
    let header = u64::from_be_bytes(*chunk::<VXLAN>(frame, at)?);
    (header >> 32 == 0x0800_0000 && header & 0xff == 0).then_some(header as u32 >> 8)
}

/// The outer UDP checksum is not verified (RFC 7348, section 5 leaves that open): inner packets have their own.
#[inline]
fn take_vxlan_off<B: Buffer>(
    buffer: &mut B,
    outer: &Parsed,
    local: &LocalEntry,
) -> Result<(Carried, [Mac; 2]), DropReason> {
    let udp = usize::from(outer.transport);
    let header = udp + UDP;
    let frame = buffer.bytes();
    let length = usize::from(be16(frame, udp + 4).ok_or(DropReason::Truncated)?);
    if length < UDP + VXLAN + ETHERNET || frame.len() < header + VXLAN {
        return Err(DropReason::Truncated);
    }
    let vni = vni(frame, header).ok_or(DropReason::TunnelHeaderInvalid)?;
    let macs = local.networks.macs(outer.destination_port, vni).ok_or(DropReason::TunnelHeaderInvalid)?;
    if !buffer.set_len(udp + length) {
        return Err(DropReason::Truncated);
    }
    buffer.cut_front(header + VXLAN);
    Ok((Carried::Vxlan(vni), macs))
}

/// The inner packet has no Ethernet header: the outer one's takes its place before it, with the inner packet's type.
#[inline]
fn take_ip_off<B: Buffer>(buffer: &mut B, outer: &Parsed) -> Result<(Carried, [Mac; 2]), DropReason> {
    // An IP header is longer than an Ethernet header.
    buffer.cut_front(usize::from(outer.transport) - ETHERNET);
    let kind = if outer.protocol == protocol::IPV4 { parse::IPV4 } else { parse::IPV6 };
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (outer.destination_mac.0, outer.source_mac.0);
    let [m, n] = kind.to_be_bytes();
    if !put(buffer.bytes_mut(), 0, [a, b, c, d, e, f, g, h, i, j, k, l, m, n]) {
        return Err(DropReason::Truncated);
    }
    Ok((Carried::IpIp, [outer.destination_mac; 2]))
}

/// Carries congestion marks of the outer header into the inner one (RFC 6040, section 4.2), and of its DSCP the bits
/// `kept`. A mark on a packet that cannot carry one ends it, since its sender would never hear of the congestion.
#[inline]
pub fn combine_traffic_class(
    frame: &mut [u8],
    inner: &mut Parsed,
    outer: u8,
    kept: u8,
) -> Result<(), DropReason> {
    const NOT_CAPABLE: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CONGESTION: u8 = 3;
    let ecn = match (inner.traffic_class & 3, outer & 3) {
        (NOT_CAPABLE, CONGESTION) => return Err(DropReason::TunnelHeaderInvalid),
        (ECT_0 | ECT_1, CONGESTION) => CONGESTION,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    let traffic_class = inner.traffic_class & !(kept | 3) | outer & kept | ecn;
    if traffic_class != inner.traffic_class {
        set_traffic_class(frame, inner, traffic_class);
    }
    Ok(())
}

fn set_traffic_class(frame: &mut [u8], inner: &mut Parsed, traffic_class: u8) {
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
}

#[cfg(test)]
mod tests;
