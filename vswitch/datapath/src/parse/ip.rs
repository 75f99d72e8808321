//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use std::net::{Ipv4Addr, Ipv6Addr};

use vswitch_model::DropReason;

use super::{ETHERNET, Network, Parsed, Piece, protocol, transport};
use crate::checksum;
use crate::read::{be16, be32, byte, chunk, length16};

/// Most extension headers of one packet. RFC 8200 sets no limit; RFC 8504 (5.3) lets a node have one, and 8 is its figure.
pub(super) const EXTENSIONS_MAX: usize = 8;

pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const AUTHENTICATION: u8 = 51;
pub(super) const DESTINATION_OPTIONS: u8 = 60;

/// Reads an IPv4 header and what follows it.
pub(super) fn v4(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let ip = frame.get(ETHERNET..).ok_or(DropReason::Truncated)?;
    let fixed = chunk::<20>(ip, 0).ok_or(DropReason::Truncated)?;
    let header_length = usize::from(fixed[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header_length < 20 || total < header_length {
        return Err(DropReason::Ipv4HeaderInvalid);
    }
    let packet = ip.get(..total).ok_or(DropReason::Truncated)?;
    let header = packet.get(..header_length).ok_or(DropReason::Truncated)?;
    if !checksum::is_right(header) {
        return Err(DropReason::Ipv4HeaderInvalid);
    }
    if header_length > fixed.len() && is_source_routed(&header[fixed.len()..]) {
        return Err(DropReason::SourceRouted);
    }
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    parsed.network = Network::V4;
    parsed.source = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into();
    parsed.destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into();
    parsed.protocol = fixed[9];
    parsed.ttl = fixed[8];
    parsed.traffic_class = fixed[1];
    parsed.dont_fragment = flags & 0x4000 != 0;
    parsed.fragment_id = u32::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    parsed.transport = length16(ETHERNET + header_length);
    parsed.end = length16(ETHERNET + total);
    let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
    parsed.piece = piece(offset, more, total - header_length).ok_or(DropReason::Ipv4HeaderInvalid)?;
    // RFC 3128: a fragment at offset 8 could overwrite the TCP flags that policy saw.
    if offset == 8 && parsed.protocol == protocol::TCP {
        return Err(DropReason::TransportHeaderInvalid);
    }
    transport::read(frame, parsed)
}

/// Whether options of an IPv4 header name routers to pass: loose or strict source and record route (RFC 791, section
/// 3.1). Linux drops these unless told otherwise (`net/ipv4/ip_input.c`, `ip_rcv_options`). Options that are malformed are
/// looked at no further: their receiver refuses them.
#[cold]
fn is_source_routed(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        options = match options {
            [LOOSE | STRICT, ..] => return true,
            [NO_OPERATION, rest @ ..] => rest,
            [] | [END, ..] => return false,
            [_, length, ..] if *length >= 2 => options.get(usize::from(*length)..).unwrap_or_default(),
            [_, ..] => return false,
        };
    }
}

/// What a fragment's offset and more-fragments flag make of it; None for one that cannot be: a length between two
/// fragments that is no multiple of 8, or an end beyond the longest packet.
fn piece(offset: usize, more: bool, payload: usize) -> Option<Piece> {
    let possible =
        offset + payload <= usize::from(u16::MAX) && (!more || (payload.is_multiple_of(8) && payload > 0));
    possible.then_some(match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    })
}

/// Reads an IPv6 header, its extension headers and what follows them.
pub(super) fn v6(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let ip = frame.get(ETHERNET..).ok_or(DropReason::Truncated)?;
    let fixed = chunk::<40>(ip, 0).ok_or(DropReason::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::Ipv6HeaderInvalid);
    }
    let end = ETHERNET + 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let packet = frame.get(..end).ok_or(DropReason::Truncated)?;
    parsed.network = Network::V6;
    parsed.source = address(fixed, 8).into();
    parsed.destination = address(fixed, 24).into();
    parsed.ttl = fixed[7];
    parsed.traffic_class = fixed[0] << 4 | fixed[1] >> 4;
    parsed.dont_fragment = true;
    parsed.end = length16(end);
    extensions(packet, fixed[6], parsed)?;
    transport::read(packet, parsed)
}

fn address(fixed: &[u8; 40], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[at..at + 16]);
    octets.into()
}

/// Follows the chain of extension headers to the transport header.
fn extensions(packet: &[u8], first: u8, parsed: &mut Parsed) -> Result<(), DropReason> {
    const INVALID: DropReason = DropReason::Ipv6HeaderInvalid;
    let mut at = ETHERNET + 40;
    let mut next = first;
    for count in 0..=EXTENSIONS_MAX {
        let length = match next {
            // RFC 8200, section 4.1: hop-by-hop options come first or not at all.
            HOP_BY_HOP if count > 0 => return Err(INVALID),
            // RFC 5095: a type 0 routing header with segments left must not be followed.
            ROUTING if byte(packet, at + 2) == Some(0) && byte(packet, at + 3) != Some(0) => {
                return Err(DropReason::SourceRouted);
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (length(packet, at)? + 1) * 8,
            AUTHENTICATION => (length(packet, at)? + 2) * 4,
            FRAGMENT => {
                let field = usize::from(be16(packet, at + 2).ok_or(INVALID)?);
                parsed.fragment_id = be32(packet, at + 4).ok_or(INVALID)?;
                let (offset, more) = (field & !7, field & 1 != 0);
                parsed.piece = piece(offset, more, packet.len().saturating_sub(at + 8)).ok_or(INVALID)?;
                8
            }
            _ => {
                parsed.protocol = next;
                parsed.transport = length16(at);
                return Ok(());
            }
        };
        next = byte(packet, at).ok_or(INVALID)?;
        at += length;
        if at > packet.len() {
            return Err(INVALID);
        }
        if parsed.piece == Piece::Later {
            parsed.protocol = next;
            parsed.transport = length16(at);
            return Ok(());
        }
    }
    Err(INVALID)
}

fn length(packet: &[u8], at: usize) -> Result<usize, DropReason> {
    byte(packet, at + 1).map(usize::from).ok_or(DropReason::Ipv6HeaderInvalid)
}
