//! TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), ICMP (RFC 792) and ICMPv6 (RFC 4443) headers.

use vswitch_model::DropReason;

use super::{Network, Parsed, Piece, protocol};
use crate::read::{byte, chunk};

/// Reads the transport header. Its whole fixed part must be there, in a first fragment too (RFC 1858, RFC 7112).
pub(super) fn read(frame: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    const INVALID: DropReason = DropReason::TransportHeaderInvalid;
    if parsed.piece == Piece::Later {
        return Ok(());
    }
    let start = usize::from(parsed.transport);
    let payload = frame.get(start..usize::from(parsed.end)).ok_or(DropReason::Truncated)?;
    match (parsed.protocol, parsed.network) {
        (protocol::TCP, _) => {
            ports(parsed, chunk::<20>(payload, 0).ok_or(INVALID)?);
            let header = usize::from(byte(payload, 12).ok_or(INVALID)? >> 4) * 4;
            if header < 20 || header > payload.len() {
                return Err(INVALID);
            }
            parsed.tcp_flags = byte(payload, 13).ok_or(INVALID)?;
        }
        (protocol::UDP, _) => {
            let header = chunk::<8>(payload, 0).ok_or(INVALID)?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if length < 8 || (parsed.piece == Piece::Whole && length > payload.len()) {
                return Err(INVALID);
            }
            ports(parsed, header);
        }
        (protocol::SCTP, _) => ports(parsed, chunk::<12>(payload, 0).ok_or(INVALID)?),
        (protocol::ICMP, Network::V4) | (protocol::ICMPV6, Network::V6) => {
            let header = chunk::<8>(payload, 0).ok_or(INVALID)?;
            (parsed.icmp_type, parsed.icmp_code) = (header[0], header[1]);
            let identifier = identifier(parsed.network, header);
            (parsed.source_port, parsed.destination_port) = (identifier, identifier);
        }
        _ => {}
    }
    Ok(())
}

fn ports<const N: usize>(parsed: &mut Parsed, header: &[u8; N]) {
    if let Some([a, b, c, d]) = header.first_chunk() {
        parsed.source_port = u16::from_be_bytes([*a, *b]);
        parsed.destination_port = u16::from_be_bytes([*c, *d]);
    }
}

/// The identifier of an ICMP query or its reply, which tells conversations apart as ports do; 0 in other messages.
pub(super) const fn identifier(network: Network, header: &[u8; 8]) -> u16 {
    let query = match network {
        Network::V4 => matches!(header[0], 0 | 8 | 13..=18),
        _ => matches!(header[0], 128 | 129),
    };
    if query { u16::from_be_bytes([header[4], header[5]]) } else { 0 }
}
