//! Who may send what: packets of pods and of the node. What a pod asks of its gateway is answered here.

use std::net::IpAddr;

use vswitch_model::{DropReason, Mac};

use super::{Context, Fate, Indices, Scratch, is_destination, is_source, is_source_v4};
use crate::counters::Stage;
use crate::icmp::IcmpError;
use crate::neighbour::{self, owns};
use crate::parse::{ETHERNET, Network, Parsed, Piece, protocol};
use crate::tables::{GATEWAY_V4, GATEWAY_V6, PortEntry};
use crate::{Buffer, Packet, PortIndex, checksum};

/// A pod speaks for itself only: its Ethernet address, its IP addresses, to the gateway.
pub(crate) fn pods<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    from: &Indices,
    next: &mut Indices,
) {
    let mut answered = 0;
    // What came by one port lies together.
    let (mut port, mut station) = (PortIndex(0), context.tables.port(PortIndex(0)));
    for index in from.iter() {
        let Some(packet) = packets.get_mut(index) else { continue };
        if packet.port != port {
            (port, station) = (packet.port, context.tables.port(packet.port));
        }
        if goes(&scratch.parsed[index], station) {
            next.push(index);
            continue;
        }
        match pod(packet, &scratch.parsed[index], station) {
            Ok(()) => {
                scratch.fates.set(index, Fate::Sent);
                scratch.answered[index] = true;
                answered += 1;
            }
            Err(fate) => scratch.end(index, fate),
        }
    }
    context.counters.passed(Stage::Answer, answered);
}

/// Whether a packet is its sender's own, and for somebody behind the gateway. ARP bears no addresses here, and nobody owns
/// none.
fn goes(parsed: &Parsed, station: &PortEntry) -> bool {
    parsed.source_mac == station.mac
        && parsed.destination_mac == Mac::GATEWAY
        && (goes_v4(parsed, station) || goes_v6(parsed, station))
}

/// The same, by the Ethernet addresses as they stand in its frame.
#[inline(always)]
pub(crate) fn goes_at_once(frame: &[u8], parsed: &Parsed, station: &PortEntry) -> bool {
    station.sends_to_gateway(frame) && (goes_v4(parsed, station) || goes_v6(parsed, station))
}

/// The same of IPv4 addresses.
#[inline(always)]
fn goes_v4(parsed: &Parsed, station: &PortEntry) -> bool {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (parsed.source, parsed.destination) else {
        return false;
    };
    station.owns_v4(source.to_bits()) && is_source_v4(destination) && destination != GATEWAY_V4
}

/// The same of IPv6 addresses.
#[inline]
fn goes_v6(parsed: &Parsed, station: &PortEntry) -> bool {
    parsed.network == Network::V6
        && owns(station, parsed.source)
        && is_destination(parsed.destination)
        && !is_gateway(parsed.destination)
        // Neighbour discovery never leaves its link: a pod may ask for another's address by unicast, too.
        && !is_discovery(parsed)
}

/// Answers a packet that does not go on, or says why it is not answered.
#[cold]
fn pod<B: Buffer>(packet: &mut Packet<B>, parsed: &Parsed, station: &PortEntry) -> Result<(), Fate> {
    if parsed.source_mac != station.mac {
        return Err(Fate::Dropped(DropReason::SpoofedMac));
    }
    if parsed.destination_mac != Mac::GATEWAY || parsed.network == Network::Arp {
        return to_group(packet, parsed, station).map_err(Fate::Dropped);
    }
    to_gateway(packet, parsed, station)
}

/// Packets to the link: ARP requests and neighbour discovery. The rest is for nobody here.
#[cold]
fn to_group<B: Buffer>(
    packet: &mut Packet<B>,
    parsed: &Parsed,
    station: &PortEntry,
) -> Result<(), DropReason> {
    if parsed.destination_mac != Mac::GATEWAY && !parsed.destination_mac.is_multicast() {
        return Err(DropReason::MacNotOurs);
    }
    if parsed.network == Network::Arp {
        neighbour::answer_arp(&mut packet.buffer, station)?;
    } else if is_discovery(parsed) {
        neighbour::answer_solicitation(&mut packet.buffer, parsed, station)?;
    } else {
        return Err(DropReason::DestinationInvalid);
    }
    Ok(())
}

/// Packets to the gateway itself, and those that are wrong.
#[cold]
fn to_gateway<B: Buffer>(packet: &mut Packet<B>, parsed: &Parsed, station: &PortEntry) -> Result<(), Fate> {
    if is_discovery(parsed) {
        return neighbour::answer_solicitation(&mut packet.buffer, parsed, station).map_err(Fate::Dropped);
    }
    let link_local = matches!(parsed.source, IpAddr::V6(source) if source.is_unicast_link_local());
    let own = owns(station, parsed.source) || (link_local && is_gateway(parsed.destination));
    if !own {
        return Err(Fate::Dropped(if is_source(parsed.source) || link_local {
            DropReason::SpoofedAddress
        } else {
            DropReason::SourceInvalid
        }));
    }
    if !is_gateway(parsed.destination) || parsed.piece != Piece::Whole {
        return Err(Fate::Dropped(DropReason::DestinationInvalid));
    }
    if !parsed.is_echo_request() {
        const INVALID: DropReason = DropReason::DestinationInvalid;
        return Err(refused(parsed).map_or(Fate::Dropped(INVALID), |error| Fate::Reported(INVALID, error)));
    }
    // The reply is as long as the request, and has to fit the pod's device: one that came does not tell that one leaves.
    if parsed.ip_length() > station.mtu {
        return Err(Fate::Dropped(DropReason::TooBig));
    }
    if let Some(partial) = packet.offload.checksum.take()
        && !checksum::finish_partial(packet.buffer.bytes_mut(), partial)
    {
        return Err(Fate::Dropped(DropReason::TransportHeaderInvalid));
    }
    neighbour::answer_echo(&mut packet.buffer, parsed, station.mac);
    Ok(())
}

/// What is said of a packet to the gateway that is no ping (RFC 1812, section 5.2.7.1; RFC 4443, sections 3.1 and 3.4). None:
/// of ICMP we do not know nothing is said (RFC 1122, section 3.2.2), nor of what follows extension headers.
fn refused(parsed: &Parsed) -> Option<IcmpError> {
    match (parsed.protocol, parsed.network) {
        (protocol::TCP | protocol::UDP | protocol::SCTP, _) => Some(IcmpError::PortUnreachable),
        (protocol::ICMP, Network::V4) | (protocol::ICMPV6, Network::V6) => None,
        (_, Network::V6) if usize::from(parsed.transport) != ETHERNET + 40 => None,
        _ => Some(IcmpError::ProtocolUnreachable),
    }
}

#[inline]
pub(crate) fn is_gateway(address: IpAddr) -> bool {
    address == IpAddr::V4(GATEWAY_V4) || address == IpAddr::V6(GATEWAY_V6)
}

#[inline]
fn is_discovery(parsed: &Parsed) -> bool {
    parsed.network == Network::V6
        && parsed.protocol == protocol::ICMPV6
        && parsed.piece == Piece::Whole
        && neighbour::DISCOVERY.contains(&parsed.icmp_type)
}

/// The node may send from any address but those of its pods.
pub(crate) fn hosts(context: &Context<'_>, scratch: &mut Scratch, from: &Indices, next: &mut Indices) {
    for index in from.iter() {
        match host(context, &scratch.parsed[index]) {
            Ok(()) => next.push(index),
            Err(reason) => scratch.drop(index, reason),
        }
    }
}

fn host(context: &Context<'_>, parsed: &Parsed) -> Result<(), DropReason> {
    if parsed.network == Network::Arp {
        return Err(DropReason::ArpInvalid);
    }
    addresses(parsed)?;
    let leaf = context.tables.lookup(parsed.source);
    if context.tables.adjacency(leaf.adjacency).is_pod() { Err(DropReason::SpoofedAddress) } else { Ok(()) }
}

/// Source and destination are such as a router forwards.
#[inline]
pub(crate) fn addresses(parsed: &Parsed) -> Result<(), DropReason> {
    if !is_source(parsed.source) {
        return Err(DropReason::SourceInvalid);
    }
    if is_destination(parsed.destination) { Ok(()) } else { Err(DropReason::DestinationInvalid) }
}
