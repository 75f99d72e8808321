//! TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), ICMP (RFC 792) and ICMPv6 (RFC 4443) headers.

use vswitch_model::{DropReason, PortMatch};

use super::{Network, Parsed, Piece, protocol};
use crate::read::{byte, chunk};

/// Reads the transport header. Its whole fixed part must be there, in a first fragment too (RFC 1858, RFC 7112).
#[inline]
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
            (parsed.source_port, parsed.destination_port) = message_ports(parsed.network, header);
        }
        _ => {}
    }
    Ok(())
}

#[inline]
fn ports<const N: usize>(parsed: &mut Parsed, header: &[u8; N]) {
    if let Some([a, b, c, d]) = header.first_chunk() {
        parsed.source_port = u16::from_be_bytes([*a, *b]);
        parsed.destination_port = u16::from_be_bytes([*c, *d]);
    }
}

/// What stands for ports in an ICMP message, so that a query and its reply belong to one flow and no two kinds of query
/// do: the identifier at the end that asks, type and code of the query ([`vswitch_model::PortMatch::message`]) at the end
/// that is asked. Messages without an identifier have 0 in its place.
pub(super) const fn message_ports(network: Network, header: &[u8; 8]) -> (u16, u16) {
    let [kind, code, _, _, high, low, ..] = *header;
    let identifier = u16::from_be_bytes([high, low]);
    match (network, kind) {
        (Network::V4, 8 | 13 | 15 | 17 | 42) | (Network::V6, 128 | 160) => {
            (identifier, PortMatch::message(kind, code))
        }
        (Network::V4, 0) => (PortMatch::message(8, code), identifier),
        (Network::V4, 14 | 16 | 18) | (Network::V6, 129) => (PortMatch::message(kind - 1, code), identifier),
        // The code of a reply says how it went, that of a request is 0 (RFC 8335, sections 2 and 3).
        (Network::V4, 43) | (Network::V6, 161) => (PortMatch::message(kind - 1, 0), identifier),
        _ => (0, PortMatch::message(kind, code)),
    }
}
