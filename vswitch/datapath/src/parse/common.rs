//! The short way: UDP and TCP in whole packets without options or extension headers, as nearly all are. What is not of
//! that form, or not right, is left to the long way, which says what it is or what is wrong with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use vswitch_model::Mac;

use super::{ETHERNET, IPV4, IPV6, Network, Parsed, Piece, protocol};
use crate::checksum;
use crate::read::chunk;

/// Where the transport header begins.
const TRANSPORT_V4: usize = ETHERNET + 20;
const TRANSPORT_V6: usize = ETHERNET + 40;
/// The shortest frames that are read here: up to the end of a UDP header.
const SHORTEST_V4: usize = TRANSPORT_V4 + 8;
const SHORTEST_V6: usize = TRANSPORT_V6 + 8;
/// IPv4's don't-fragment flag, among flags and fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;

/// Reads a frame of IPv4; None when it goes the long way.
#[inline(always)]
pub(super) fn v4(frame: &[u8]) -> Option<Parsed> {
    let header = frame.first_chunk::<SHORTEST_V4>()?;
    let fragment = be16(header, 20);
    if be16(header, 12) != IPV4 || header[14] != 0x45 || fragment & !DONT_FRAGMENT != 0 {
        return None;
    }
    let end = (ETHERNET as u16).checked_add(be16(header, 16))?;
    let flags = transport(frame, header, (TRANSPORT_V4, end), header[23])?;
    if !header[ETHERNET..].first_chunk().is_some_and(checksum::is_right_v4) {
        return None;
    }
    Some(Parsed {
        network: Network::V4,
        fragment_id: u32::from(be16(header, 18)),
        source: Ipv4Addr::new(header[26], header[27], header[28], header[29]).into(),
        destination: Ipv4Addr::new(header[30], header[31], header[32], header[33]).into(),
        protocol: header[23],
        ttl: header[22],
        traffic_class: header[15],
        dont_fragment: fragment != 0,
        ..ends(header, (TRANSPORT_V4, end), flags)
    })
}

/// The same for IPv6.
#[inline(always)]
pub(super) fn v6(frame: &[u8]) -> Option<Parsed> {
    let header = frame.first_chunk::<SHORTEST_V6>()?;
    if be16(header, 12) != IPV6 || header[14] >> 4 != 6 {
        return None;
    }
    let end = (TRANSPORT_V6 as u16).checked_add(be16(header, 18))?;
    let flags = transport(frame, header, (TRANSPORT_V6, end), header[20])?;
    let (source, destination) = (chunk::<16>(header, 22)?, chunk::<16>(header, 38)?);
    Some(Parsed {
        network: Network::V6,
        source: Ipv6Addr::from_octets(*source).into(),
        destination: Ipv6Addr::from_octets(*destination).into(),
        protocol: header[20],
        ttl: header[21],
        traffic_class: header[14] << 4 | header[15] >> 4,
        dont_fragment: true,
        ..ends(header, (TRANSPORT_V6, end), flags)
    })
}

/// The TCP flags, 0 of UDP, when the header of either at `start` is right and lies, with what it announces, before `end`,
/// and that in the frame.
#[inline(always)]
fn transport<const N: usize>(
    frame: &[u8],
    header: &[u8; N],
    (start, end): (usize, u16),
    protocol: u8,
) -> Option<u8> {
    if usize::from(end) > frame.len() {
        return None;
    }
    let room = usize::from(end).checked_sub(start)?;
    match protocol {
        protocol::UDP => (8..=room).contains(&usize::from(be16(header, start + 4))).then_some(0),
        protocol::TCP => {
            let [offset, flags] = *chunk::<2>(frame, start + 12)?;
            (20..=room).contains(&(usize::from(offset >> 4) * 4)).then_some(flags)
        }
        _ => None,
    }
}

/// What both families have in the same place, or as far behind the IP header.
#[inline(always)]
fn ends<const N: usize>(header: &[u8; N], (start, end): (usize, u16), tcp_flags: u8) -> Parsed {
    Parsed {
        destination_mac: Mac([header[0], header[1], header[2], header[3], header[4], header[5]]),
        source_mac: Mac([header[6], header[7], header[8], header[9], header[10], header[11]]),
        piece: Piece::Whole,
        transport: start as u16,
        end,
        source_port: be16(header, start),
        destination_port: be16(header, start + 2),
        tcp_flags,
        ..Parsed::EMPTY
    }
}

/// A number of the header. All places are constants, so that nothing is compared with its length.
#[inline(always)]
fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}
