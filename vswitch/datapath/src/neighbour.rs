//! What the engine answers to a pod as its gateway: ARP (RFC 826), neighbour solicitations (RFC 4861) and pings.
//!
//! A pod's link is point to point to a router. Whatever the pod asks for, the router answers with its own Ethernet
//! address, except for the pod's own addresses. Requests become replies in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_model::{DropReason, Mac};

use crate::Buffer;
use crate::checksum::{self, Sum};
use crate::icmp::TTL;
use crate::parse::{ETHERNET, Network, Parsed, protocol};
use crate::read::{be16, byte, chunk, put, put_slice};
use crate::tables::PortEntry;

/// Neighbour solicitation.
pub(crate) const SOLICITATION: u8 = 135;
/// Types of neighbour discovery: router solicitation to redirect.
pub(crate) const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// The link-local address a station makes of its Ethernet address.
#[must_use]
pub const fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether an address is one of a pod's.
#[inline]
pub(crate) fn owns(station: &PortEntry, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => station.owns_v4(address.to_bits()),
        IpAddr::V6(address) => station.owns_v6(address.to_bits()),
    }
}

/// Turns an ARP request of a pod into the reply. Requests for the pod's own addresses (announcements, RFC 5227) and
/// everything that is no request end as [`DropReason::ArpInvalid`]: there is nothing to say.
pub fn answer_arp<B: Buffer>(buffer: &mut B, station: &PortEntry) -> Result<(), DropReason> {
    const LENGTH: usize = ETHERNET + 28;
    let arp = chunk::<28>(buffer.bytes(), ETHERNET).ok_or(DropReason::Truncated)?;
    let (sender_mac, sender) = (&arp[8..14], Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]));
    let target = Ipv4Addr::new(arp[24], arp[25], arp[26], arp[27]);
    // Ethernet, IPv4, their lengths; request.
    if arp[..8] != [0, 1, 8, 0, 6, 4, 0, 1] {
        return Err(DropReason::ArpInvalid);
    }
    if sender_mac != station.mac.0 {
        return Err(DropReason::SpoofedMac);
    }
    // A probe has no sender address yet.
    if !sender.is_unspecified() && !owns(station, sender.into()) {
        return Err(DropReason::SpoofedAddress);
    }
    if owns(station, target.into())
        || target.is_unspecified()
        || target.is_multicast()
        || target.is_broadcast()
    {
        return Err(DropReason::ArpInvalid);
    }
    if !buffer.set_len(LENGTH) {
        return Err(DropReason::Truncated);
    }
    let frame = buffer.bytes_mut();
    put(frame, 0, station.mac.0);
    put(frame, 6, Mac::GATEWAY.0);
    put(frame, ETHERNET + 6, 2u16.to_be_bytes());
    put(frame, ETHERNET + 8, Mac::GATEWAY.0);
    put(frame, ETHERNET + 14, target.octets());
    put(frame, ETHERNET + 18, station.mac.0);
    put(frame, ETHERNET + 24, sender.octets());
    Ok(())
}

/// Turns a pod's neighbour solicitation into an advertisement. Everything else of neighbour discovery ends as
/// [`DropReason::NeighbourDiscoveryInvalid`]: router solicitations (the pod's default route is static),
/// advertisements (nobody asked) and duplicate address detection (nobody else is on this link; silence means unique).
pub fn answer_solicitation<B: Buffer>(
    buffer: &mut B,
    parsed: &Parsed,
    station: &PortEntry,
) -> Result<(), DropReason> {
    const INVALID: DropReason = DropReason::NeighbourDiscoveryInvalid;
    let start = usize::from(parsed.transport);
    let message = buffer.bytes().get(start..usize::from(parsed.end)).ok_or(DropReason::Truncated)?;
    let sum = Sum::ZERO.pseudo(parsed.source, parsed.destination, protocol::ICMPV6, message.len());
    // RFC 4861, section 7.1.1.
    let sound = parsed.ttl == 255
        && (parsed.icmp_type, parsed.icmp_code) == (SOLICITATION, 0)
        && message.len() >= 24
        && sum.bytes(message).fold() == 0xffff;
    let IpAddr::V6(source) = parsed.source else { return Err(INVALID) };
    if !sound || source.is_unspecified() {
        return Err(INVALID);
    }
    let target = Ipv6Addr::from(*chunk::<16>(message, 8).ok_or(INVALID)?);
    check_options(message, station.mac)?;
    if !source.is_unicast_link_local() && !owns(station, source.into()) {
        return Err(DropReason::SpoofedAddress);
    }
    let own = owns(station, target.into()) || target == link_local(station.mac) || target == source;
    if own || target.is_multicast() || target.is_unspecified() {
        return Err(INVALID);
    }
    if !buffer.set_len(ETHERNET + 40 + 32) {
        return Err(DropReason::Truncated);
    }
    write_advertisement(buffer.bytes_mut(), station.mac, source, target);
    Ok(())
}

/// Every option has a length, and a source link-layer address is the pod's own.
fn check_options(message: &[u8], mac: Mac) -> Result<(), DropReason> {
    const INVALID: DropReason = DropReason::NeighbourDiscoveryInvalid;
    let mut at = 24;
    while at < message.len() {
        let length = usize::from(byte(message, at + 1).ok_or(INVALID)?) * 8;
        let option = message.get(at..at + length).filter(|option| !option.is_empty()).ok_or(INVALID)?;
        if option[0] == 1 && option.get(2..8) != Some(&mac.0) {
            return Err(DropReason::SpoofedMac);
        }
        at += length;
    }
    Ok(())
}

fn write_advertisement(frame: &mut [u8], mac: Mac, asker: Ipv6Addr, target: Ipv6Addr) {
    const MESSAGE: usize = ETHERNET + 40;
    put(frame, 0, mac.0);
    put(frame, 6, Mac::GATEWAY.0);
    put(frame, ETHERNET, [0x60, 0, 0, 0, 0, 32, protocol::ICMPV6, 255]);
    put_slice(frame, ETHERNET + 8, &target.octets());
    put_slice(frame, ETHERNET + 24, &asker.octets());
    // Router, solicited, override.
    put(frame, MESSAGE, [136, 0, 0, 0, 0xe0, 0, 0, 0]);
    put_slice(frame, MESSAGE + 8, &target.octets());
    put(frame, MESSAGE + 24, [2, 1]);
    put(frame, MESSAGE + 26, Mac::GATEWAY.0);
    let sum = Sum::ZERO.pseudo(target.into(), asker.into(), protocol::ICMPV6, 32);
    let checksum = frame.get(MESSAGE..).map_or(0, |message| sum.bytes(message).finish());
    put(frame, MESSAGE + 2, checksum.to_be_bytes());
}

/// Turns a whole echo request into its reply.
pub fn answer_echo<B: Buffer>(buffer: &mut B, parsed: &Parsed, mac: Mac) {
    let frame = buffer.bytes_mut();
    put(frame, 0, mac.0);
    put(frame, 6, Mac::GATEWAY.0);
    let (addresses, length, reply) = match parsed.network {
        Network::V4 => (ETHERNET + 12, 4, 0u8),
        _ => (ETHERNET + 8, 16, 129),
    };
    // The sums of header and pseudo-header do not change when two addresses swap places.
    for at in addresses..addresses + length {
        if at + length < frame.len() {
            frame.swap(at, at + length);
        }
    }
    if parsed.network == Network::V4 {
        set_ttl_v4(frame, TTL);
    } else {
        put(frame, ETHERNET + 7, [TTL]);
    }
    let at = usize::from(parsed.transport);
    if let (Some(old), Some(sum)) = (be16(frame, at), be16(frame, at + 2)) {
        let new = u16::from_be_bytes([reply, 0]);
        put(frame, at, new.to_be_bytes());
        put(frame, at + 2, checksum::updated(sum, old, new).to_be_bytes());
    }
}

/// Sets an IPv4 packet's TTL and mends its header's checksum.
#[inline]
pub(crate) fn set_ttl_v4(frame: &mut [u8], ttl: u8) {
    let Some(word) = frame.get_mut(ETHERNET + 8..).and_then(<[u8]>::first_chunk_mut::<4>) else { return };
    let [old, protocol, high, low] = *word;
    let [before, after] = [old, ttl].map(|ttl| u16::from_be_bytes([ttl, protocol]));
    let [high, low] = checksum::updated(u16::from_be_bytes([high, low]), before, after).to_be_bytes();
    *word = [ttl, protocol, high, low];
}
