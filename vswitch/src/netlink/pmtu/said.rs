//! What an error says: a packet of ours was too big for the next hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_datapath::checksum;
use vswitch_datapath::encap::{UDP, VXLAN};
use vswitch_datapath::parse::{self, ETHERNET, protocol};

use crate::netlink::TunnelKind;

/// First port our tunnel packets are sent from (RFC 7348, section 5).
const SOURCE_PORT_MIN: u16 = 49_152;
/// What every IPv4 host takes in, and no path we believe in falls below (RFC 791, section 3.1).
const LEAST_V4: u16 = 576;
/// No less is believed of a path over IPv4 where the quote ends before the address that the packet within came from.
const LEAST_UNKNOWN: u16 = 1280;
/// Least MTU of IPv6; a router that says less is not believed (RFC 8201, section 4).
const LEAST_V6: u32 = 1280;
/// MTUs there are, for routers that do not say theirs (RFC 1191, section 7.1).
const PLATEAUS: [u16; 7] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006];

/// One router's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// Who sent the packet that was too big.
    pub(super) source: IpAddr,
    /// Where it went.
    pub(super) remote: IpAddr,
    /// What it was.
    pub(super) quoted: Quoted,
    /// Whose packet it carried, if that much is quoted. Over IPv6 it is.
    pub(super) inner: Option<IpAddr>,
    /// The largest that passes, in bytes of the IP packet.
    pub(super) mtu: u16,
    /// Who says so.
    pub(super) by: IpAddr,
}

/// What the start of a tunnel packet says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoted {
    /// VXLAN.
    Vxlan {
        /// The UDP port it went to.
        port: u16,
        /// The network, if that much is quoted.
        vni: Option<u32>,
    },
    /// IP in IP (RFC 2003), or IPv6 in it (RFC 4213).
    IpIp,
}

impl Quoted {
    /// Whether it may be a packet of this kind.
    pub(super) fn may_be(self, kind: TunnelKind) -> bool {
        match (self, kind) {
            (Self::Vxlan { port, vni }, TunnelKind::Vxlan { port: sent_to, vni: sent_in }) => {
                port == sent_to && vni.is_none_or(|vni| vni == sent_in.get())
            }
            (Self::IpIp, TunnelKind::IpIp) => true,
            _ => false,
        }
    }
}

/// Reads an IPv4 packet that a raw socket got: ICMP's "fragmentation needed" about a tunnel packet.
pub(super) fn read_v4(packet: &[u8]) -> Option<Said> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let by = Ipv4Addr::from(*packet.get(12..)?.first_chunk()?).into();
    let message = packet.get(header..)?;
    let (fixed, quote) = message.split_first_chunk::<8>()?;
    // The kernel gives raw sockets a packet before it has looked at its ICMP header.
    if fixed[..2] != [3, 4] || !checksum::is_right(message) {
        return None;
    }
    let said = u16::from_be_bytes([fixed[6], fixed[7]]);
    let ip = quote.first_chunk::<20>()?;
    let (length, fragment) = (be16(ip, 2)?, be16(ip, 6)?);
    if ip[0] >> 4 != 4 || fragment & 0x1fff != 0 {
        return None;
    }
    let (own, more) = (usize::from(ip[0] & 0xf) * 4, fragment & 0x2000 != 0);
    let mtu = if said == 0 { *PLATEAUS.iter().find(|mtu| **mtu < length).unwrap_or(&LEAST_V4) } else { said };
    let (quoted, inner) = tunnel(ip[9], length.checked_sub(own as u16)?, quote.get(own..)?)?;
    // A word that does not say whose packet it is about is easily made up: it may cost so much and no more.
    let mtu = mtu.max(if inner.is_some() { LEAST_V4 } else { LEAST_UNKNOWN });
    // A packet that was to be cut on the way was none of ours, and one that fits was not too big.
    if more || length <= mtu {
        return None;
    }
    Some(Said {
        source: Ipv4Addr::from(*ip[12..].first_chunk()?).into(),
        remote: Ipv4Addr::from(*ip[16..].first_chunk()?).into(),
        quoted,
        inner,
        mtu,
        by,
    })
}

/// Reads an ICMPv6 message of `by`, whose checksum the kernel has verified: "packet too big" about a tunnel packet. It quotes as much
/// as fits into the least MTU (RFC 4443, section 3.2): headers that are not all there were not ours.
pub(super) fn read_v6(message: &[u8], by: IpAddr) -> Option<Said> {
    let (fixed, quote) = message.split_first_chunk::<8>()?;
    let said = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let (ip, payload) = quote.split_first_chunk::<40>()?;
    let carried = be16(ip, 4)?;
    let length = 40 + u32::from(carried);
    if fixed[..2] != [2, 0] || ip[0] >> 4 != 6 || said < LEAST_V6 || length <= said {
        return None;
    }
    let (quoted, inner) = tunnel(ip[6], carried, payload)?;
    Some(Said {
        source: Ipv6Addr::from(*ip[8..].first_chunk::<16>()?).into(),
        remote: Ipv6Addr::from(*ip[24..].first_chunk::<16>()?).into(),
        quoted,
        inner: Some(inner?),
        mtu: u16::try_from(said).ok()?,
        by,
    })
}

/// What a tunnel packet was that carried `length` bytes behind its IP header, and whose packet it carried, as far as that is
/// quoted. None when it is no tunnel packet of ours: less than 8 bytes of it (RFC 792), or a length in them that is not the
/// outer header's.
fn tunnel(kind: u8, length: u16, payload: &[u8]) -> Option<(Quoted, Option<IpAddr>)> {
    let start = payload.first_chunk::<8>()?;
    match kind {
        protocol::UDP if be16(start, 0)? >= SOURCE_PORT_MIN && be16(start, 4)? == length => {
            let port = be16(payload, 2)?;
            let vni = payload.get(UDP + 4..).and_then(|rest| rest.first_chunk());
            let vni = vni.map(|[a, b, c]: &[u8; 3]| u32::from_be_bytes([0, *a, *b, *c]));
            let frame = payload.get(UDP + VXLAN..).unwrap_or_default();
            let packet = frame.get(ETHERNET..).unwrap_or_default();
            let inner = match be16(frame, ETHERNET - 2) {
                Some(parse::IPV4) => source(protocol::IPV4, packet),
                Some(parse::IPV6) => source(protocol::IPV6, packet),
                _ => None,
            };
            Some((Quoted::Vxlan { port, vni }, inner))
        }
        protocol::IPV4 if start[0] >> 4 == 4 && be16(start, 2)? == length => {
            Some((Quoted::IpIp, source(kind, payload)))
        }
        protocol::IPV6 if start[0] >> 4 == 6 && 40 + u32::from(be16(start, 4)?) == u32::from(length) => {
            Some((Quoted::IpIp, source(kind, payload)))
        }
        _ => None,
    }
}

/// Who sent the packet within, of the family that its protocol number says.
fn source(kind: u8, packet: &[u8]) -> Option<IpAddr> {
    match (kind, packet.first()? >> 4) {
        (protocol::IPV4, 4) => Some(Ipv4Addr::from(*packet.get(12..)?.first_chunk()?).into()),
        (protocol::IPV6, 6) => Some(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
