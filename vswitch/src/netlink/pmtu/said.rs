//! What an error says: a packet of ours was too big for the next hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_datapath::checksum;
use vswitch_datapath::parse::protocol;

/// IP in IP (RFC 2003), and IPv6 in it (RFC 4213).
const TUNNELS: [u8; 2] = [4, 41];
/// First port our tunnel packets are sent from (RFC 7348, section 5).
const SOURCE_PORT_MIN: u16 = 49_152;
/// What every IPv4 host takes in, and no path we believe in falls below (RFC 791, section 3.1).
const LEAST_V4: u16 = 576;
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
    /// The UDP port it went to. None: it was IP in IP.
    pub(super) port: Option<u16>,
    /// The largest that passes, in bytes of the IP packet.
    pub(super) mtu: u16,
}

/// Reads an IPv4 packet that a raw socket got: ICMP's "fragmentation needed" about a tunnel packet.
pub(super) fn read_v4(packet: &[u8]) -> Option<Said> {
    let header = usize::from(packet.first()? & 0xf) * 4;
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
    // A packet that was to be cut on the way was none of ours, and one that fits was not too big.
    if more || length <= mtu {
        return None;
    }
    Some(Said {
        source: Ipv4Addr::from(*ip[12..].first_chunk()?).into(),
        remote: Ipv4Addr::from(*ip[16..].first_chunk()?).into(),
        port: tunnel(ip[9], quote.get(own..)?)?,
        mtu: mtu.max(LEAST_V4),
    })
}

/// Reads an ICMPv6 message, whose checksum the kernel has verified: "packet too big" about a tunnel packet.
pub(super) fn read_v6(message: &[u8]) -> Option<Said> {
    let (fixed, quote) = message.split_first_chunk::<8>()?;
    let said = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let (ip, payload) = quote.split_first_chunk::<40>()?;
    let length = 40 + u32::from(be16(ip, 4)?);
    if fixed[..2] != [2, 0] || ip[0] >> 4 != 6 || said < LEAST_V6 || length <= said {
        return None;
    }
    Some(Said {
        source: Ipv6Addr::from(*ip[8..].first_chunk::<16>()?).into(),
        remote: Ipv6Addr::from(*ip[24..].first_chunk::<16>()?).into(),
        port: tunnel(ip[6], payload)?,
        mtu: u16::try_from(said).ok()?,
    })
}

/// The UDP port of a tunnel packet, or that it is IP in IP; None when it is neither.
fn tunnel(kind: u8, payload: &[u8]) -> Option<Option<u16>> {
    match kind {
        protocol::UDP if be16(payload, 0)? >= SOURCE_PORT_MIN => Some(Some(be16(payload, 2)?)),
        _ => TUNNELS.contains(&kind).then_some(None),
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
