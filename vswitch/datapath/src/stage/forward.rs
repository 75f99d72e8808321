//! What a router does to a packet on its way out: TTL, size, checksums, the next hop's headers; and ICMP errors for
//! senders of what cannot go on.

use std::net::IpAddr;

use vswitch_model::{DropReason, Mac};

use super::source::is_gateway;
use super::{Context, Fate, Indices, Scratch};
use crate::counters::Stage;
use crate::icmp::{self, ErrorLimits, IcmpError, Limited, Receiver};
use crate::parse::{ETHERNET, Network, Parsed, protocol};
use crate::read::put;
use crate::tables::{Adjacency, AdjacencyIndex, GATEWAY_V4, GATEWAY_V6};
use crate::{Buffer, Packet, Segment, checksum, encap, segment};

/// Decides for each packet of `from` whether it fits and lives long enough; sends those that do.
pub(crate) fn run<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    from: &Indices,
) {
    let mut leaving = Leaving::default();
    for index in from.iter() {
        let Some(packet) = packets.get_mut(index) else { continue };
        let way = context.tables.adjacency(scratch.adjacency[index]);
        if !send(context, scratch, packet, index, way, &mut leaving) {
            check_and_send(context, scratch, packet, index, way, &mut leaving);
        }
    }
    leaving.note(context, scratch);
}

/// Packets that leave, to be noted together.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    sent: Indices,
    encapsulated: usize,
}

impl Leaving {
    #[inline]
    pub(crate) fn note(&self, context: &Context<'_>, scratch: &mut Scratch) {
        scratch.fates.sent_too(self.sent);
        context.counters.passed(Stage::Encapsulate, self.encapsulated);
    }
}

/// Sends a packet by a way when nothing more has to be asked of it. False, and nothing done: it is to be checked.
#[inline(always)]
pub(crate) fn send<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packet: &mut Packet<B>,
    index: usize,
    way: &Adjacency,
    leaving: &mut Leaving,
) -> bool {
    let parsed = &scratch.parsed[index];
    let goes = goes(packet, parsed, way);
    if goes {
        decrement_ttl(packet.buffer.bytes_mut(), parsed);
        match headers(context, packet, parsed.traffic_class, way, scratch.entropy[index]) {
            Ok(tunnelled) => {
                leaving.encapsulated += usize::from(tunnelled);
                leaving.sent.push(index);
            }
            Err(reason) => scratch.drop(index, reason),
        }
    }
    goes
}

/// Checks a packet, and sends it when that finds nothing.
#[inline(never)]
fn check_and_send<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packet: &mut Packet<B>,
    index: usize,
    way: &Adjacency,
    leaving: &mut Leaving,
) {
    let parsed = &scratch.parsed[index];
    let fate = match check(context, packet, parsed, way) {
        Fate::Walking => {
            decrement_ttl(packet.buffer.bytes_mut(), parsed);
            leave(context, packet, parsed.traffic_class, scratch.adjacency[index], scratch.entropy[index])
        }
        fate => fate,
    };
    if fate == Fate::Sent {
        leaving.sent.push(index);
    } else {
        scratch.end(index, fate);
    }
}

/// Whether nothing more has to be asked of a packet that goes by a way: it lives on and fits, and is not to be cut. Nothing
/// fits a way that leads nowhere.
#[inline(always)]
fn goes<B>(packet: &Packet<B>, parsed: &Parsed, way: &Adjacency) -> bool {
    parsed.ttl > 1 && parsed.ip_length() <= way.mtu() && packet.offload.segment.is_none()
}

/// Whether a packet goes on by a way: [`Fate::Walking`] when it does. Nothing has been changed, so that an error quotes
/// what was sent.
fn check<B: Buffer>(context: &Context<'_>, packet: &Packet<B>, parsed: &Parsed, way: &Adjacency) -> Fate {
    if let Some(reason) = way.drop_reason() {
        return match reason {
            DropReason::NoRoute | DropReason::RouteUnreachable | DropReason::NextHopUnresolved => {
                Fate::unreachable(reason)
            }
            _ => Fate::Dropped(reason),
        };
    }
    if parsed.ttl <= 1 {
        return Fate::Reported(DropReason::TtlExpired, IcmpError::TimeExceeded);
    }
    let mtu = way.mtu();
    if let Some(segment) = packet.offload.segment {
        return check_large(context, packet, parsed, segment, way);
    }
    if parsed.ip_length() <= mtu {
        return Fate::Walking;
    }
    if parsed.dont_fragment {
        return Fate::Reported(DropReason::TooBig, IcmpError::TooBig { mtu });
    }
    // A piece has 8 bytes behind its header at least (RFC 791, section 3.2).
    let header = usize::from(parsed.transport).saturating_sub(ETHERNET);
    if usize::from(mtu) < header + 8 { Fate::Dropped(DropReason::TooBig) } else { Fate::Split }
}

/// The same of a large packet: its pieces have to fit. Of TCP that does not forbid fragments they are made to. Of datagrams the
/// sender is told: its next ones may be smaller.
fn check_large<B: Buffer>(
    context: &Context<'_>,
    packet: &Packet<B>,
    parsed: &Parsed,
    segment: Segment,
    way: &Adjacency,
) -> Fate {
    // Whether it can be cut was asked with its checksum.
    if packet.offload.checksum.is_none() {
        return Fate::Dropped(DropReason::TransportHeaderInvalid);
    }
    let mtu = way.mtu();
    let headers = segment::headers(packet.buffer.bytes(), parsed).saturating_sub(ETHERNET);
    if headers + usize::from(segment.size) > usize::from(mtu) {
        if parsed.protocol == protocol::TCP && !parsed.dont_fragment && usize::from(mtu) > headers {
            return Fate::Segmented;
        }
        return Fate::Reported(DropReason::TooBig, IcmpError::TooBig { mtu });
    }
    let whole = way.port().is_some_and(|port| context.tables.port(port).takes_large);
    if whole { Fate::Walking } else { Fate::Segmented }
}

/// Of a packet that lives on: its TTL is 1 at least.
#[inline]
pub(crate) fn decrement_ttl(frame: &mut [u8], parsed: &Parsed) {
    let ttl = parsed.ttl.saturating_sub(1);
    if parsed.network != Network::V4 {
        put(frame, ETHERNET + 7, [ttl]);
    } else if let Some([.., place, _, high, low]) = frame.first_chunk_mut::<{ ETHERNET + 12 }>() {
        // The word of TTL and protocol is less by 0x100, whatever it was.
        let sum = checksum::updated(u16::from_be_bytes([*high, *low]), 0x0100, 0);
        [*high, *low] = sum.to_be_bytes();
        *place = ttl;
    }
}

/// Gives a packet the headers of its way and the port it leaves by. Everything has been checked but the headroom.
#[inline(never)]
pub(crate) fn leave<B: Buffer>(
    context: &Context<'_>,
    packet: &mut Packet<B>,
    traffic_class: u8,
    way: AdjacencyIndex,
    entropy: u64,
) -> Fate {
    match headers(context, packet, traffic_class, context.tables.adjacency(way), entropy) {
        Ok(tunnelled) => {
            context.counters.passed(Stage::Encapsulate, usize::from(tunnelled));
            Fate::Sent
        }
        Err(reason) => Fate::Dropped(reason),
    }
}

/// The same; whether they are those of a tunnel.
#[inline(always)]
fn headers<B: Buffer>(
    context: &Context<'_>,
    packet: &mut Packet<B>,
    traffic_class: u8,
    way: &Adjacency,
    entropy: u64,
) -> Result<bool, DropReason> {
    if packet.offload.checksum.is_some() {
        finish_for(context, packet, way)?;
    }
    match way {
        Adjacency::Tunnel { port, template, .. } => {
            packet.port = *port;
            encap::encapsulate(&mut packet.buffer, template, traffic_class, entropy)?;
            return Ok(true);
        }
        Adjacency::Pod { port, dst_mac, src_mac, .. } | Adjacency::Direct { port, dst_mac, src_mac, .. } => {
            packet.port = *port;
            ethernet(packet.buffer.bytes_mut(), *dst_mac, *src_mac);
        }
        // The host port takes the Ethernet header off.
        Adjacency::Host { port, .. } => packet.port = *port,
        Adjacency::Unresolved { .. } | Adjacency::Drop(_) => {
            return Err(way.drop_reason().unwrap_or(DropReason::NoRoute));
        }
    }
    Ok(false)
}

#[inline]
fn ethernet(frame: &mut [u8], destination: Mac, source: Mac) {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination.0, source.0);
    put(frame, 0, [a, b, c, d, e, f, g, h, i, j, k, l]);
}

/// Finishes a checksum where the port a packet leaves by will not.
#[cold]
fn finish_for<B: Buffer>(
    context: &Context<'_>,
    packet: &mut Packet<B>,
    way: &Adjacency,
) -> Result<(), DropReason> {
    let finishes = |port| context.tables.port(port).finishes_checksums;
    if way.is_tunnelled() || !way.port().is_some_and(finishes) {
        return finish_checksum(context, packet);
    }
    Ok(())
}

/// Finishes a checksum that no later port will.
#[cold]
pub(crate) fn finish_checksum<B: Buffer>(
    context: &Context<'_>,
    packet: &mut Packet<B>,
) -> Result<(), DropReason> {
    if let Some(partial) = packet.offload.checksum.take() {
        context.counters.passed(Stage::Checksum, 1);
        if !checksum::finish_partial(packet.buffer.bytes_mut(), partial) {
            return Err(DropReason::TransportHeaderInvalid);
        }
    }
    Ok(())
}

/// Turns packets that end with a word to their sender into that word, within the rate limit.
#[cold]
pub(crate) fn report<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    limits: &mut ErrorLimits,
) {
    for index in scratch.reports.iter() {
        let Some(packet) = packets.get_mut(index) else { continue };
        let Fate::Reported(reason, error) = scratch.fates.of(index) else { continue };
        scratch.drop(index, reason);
        let parsed = &scratch.parsed[index];
        if !icmp::may_report(parsed) {
            continue;
        }
        // What cannot be answered takes nothing from the limit.
        let back = context.tables.lookup(parsed.source).adjacency;
        let way = context.tables.adjacency(back);
        if way.drop_reason().is_some() {
            continue;
        }
        if let Err(limited) =
            limits.of(receiver(context, parsed, way), error).allow(parsed.source, context.now)
        {
            let stage = match limited {
                Limited::Source => Stage::IcmpErrorLimitedSource,
                Limited::All => Stage::IcmpErrorLimited,
            };
            context.counters.passed(stage, 1);
            continue;
        }
        if !icmp::build(&mut packet.buffer, parsed, error, own_address(context, parsed, way)) {
            continue;
        }
        packet.offload = crate::Offload::default();
        let fate = leave(context, packet, icmp::TOS, back, scratch.entropy[index]);
        if fate == Fate::Sent {
            context.counters.passed(Stage::IcmpError, 1);
            context.counters.dropped(scratch.ingress[index], reason);
            scratch.reported[index] = Some(reason);
            scratch.fates.set(index, fate);
        }
    }
}

/// Who an error about a packet goes to, which leads `back`.
fn receiver(context: &Context<'_>, about: &Parsed, back: &Adjacency) -> Receiver {
    match back {
        Adjacency::Pod { .. } => Receiver::Pod,
        Adjacency::Tunnel { .. } => Receiver::Cluster,
        // Behind the host there may be anybody.
        Adjacency::Host { .. } if context.tables.is_own(about.source) => Receiver::Cluster,
        _ => Receiver::Outside,
    }
}

/// Whose name our errors bear: the gateway's about what was sent to it; else the node's own address among the pods, by which
/// every node knows us, and the gateway's without one. An IPv4 kernel drops what comes from an address of its own, so the node
/// is told by the gateway. Those behind the node are not: no link-local address may reach them (RFC 3927, section 2.7). The
/// node's kernel passes theirs on where `accept_local` says so.
fn own_address(context: &Context<'_>, about: &Parsed, back: &Adjacency) -> IpAddr {
    if is_gateway(about.destination) {
        return about.destination;
    }
    let local = context.tables.local();
    if about.source.is_ipv6() {
        local.and_then(|local| local.host_v6).unwrap_or(GATEWAY_V6).into()
    } else if matches!(back, Adjacency::Host { .. }) && context.tables.is_own(about.source) {
        GATEWAY_V4.into()
    } else {
        local.and_then(|local| local.host_v4).unwrap_or(GATEWAY_V4).into()
    }
}
