//! The packet that an ICMP error quotes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ip::{self, EXTENSIONS_MAX};
use super::{Network, Parsed, protocol};
use crate::read::{be16, byte, chunk};

/// Reads the packet that an ICMP or ICMPv6 error speaks of: as much of it as names a flow. `None` when it is cut too
/// short, is a later fragment, or is an error itself.
pub(crate) fn quoted(frame: &[u8], error: &Parsed) -> Option<Parsed> {
    let quote = frame.get(usize::from(error.transport) + 8..usize::from(error.end))?;
    let mut parsed = Parsed { network: error.network, ..Parsed::EMPTY };
    let header = match error.network {
        Network::V4 => {
            let fixed = chunk::<20>(quote, 0)?;
            let later = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff != 0;
            if fixed[0] >> 4 != 4 || fixed[0] & 0xf < 5 || later {
                return None;
            }
            parsed.source = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into();
            parsed.destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into();
            parsed.protocol = fixed[9];
            usize::from(fixed[0] & 0xf) * 4
        }
        Network::V6 => {
            let fixed = chunk::<40>(quote, 0)?;
            if fixed[0] >> 4 != 6 {
                return None;
            }
            parsed.source = Ipv6Addr::from(*chunk::<16>(fixed, 8)?).into();
            parsed.destination = Ipv6Addr::from(*chunk::<16>(fixed, 24)?).into();
            let (protocol, transport) = behind_extensions(quote, fixed[6])?;
            parsed.protocol = protocol;
            transport
        }
        Network::Arp => return None,
    };
    match (parsed.protocol, parsed.network) {
        (protocol::TCP | protocol::UDP | protocol::SCTP, _) => {
            parsed.source_port = be16(quote, header)?;
            parsed.destination_port = be16(quote, header + 2)?;
        }
        (protocol::ICMP, Network::V4) | (protocol::ICMPV6, Network::V6) => {
            let message = chunk::<8>(quote, header)?;
            parsed.icmp_type = message[0];
            (parsed.source_port, parsed.destination_port) =
                super::transport::message_ports(parsed.network, message);
        }
        _ => {}
    }
    (!parsed.is_icmp_error()).then_some(parsed)
}

/// The protocol behind IPv6 extension headers, and where its header is; None for a later fragment.
fn behind_extensions(quote: &[u8], first: u8) -> Option<(u8, usize)> {
    let (mut next, mut at) = (first, 40);
    for _ in 0..=EXTENSIONS_MAX {
        let length = match next {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DESTINATION_OPTIONS => {
                (usize::from(byte(quote, at + 1)?) + 1) * 8
            }
            ip::AUTHENTICATION => (usize::from(byte(quote, at + 1)?) + 2) * 4,
            ip::FRAGMENT if be16(quote, at + 2)? & !7 == 0 => 8,
            ip::FRAGMENT => return None,
            _ => return Some((next, at)),
        };
        next = byte(quote, at)?;
        at += length;
    }
    None
}
