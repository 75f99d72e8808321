//! What comes from the underlay: tunnel packets, whose outer headers come off, and packets for our pods as they are.

use std::net::IpAddr;

use vswitch_model::DropReason;

use super::source::addresses;
use super::{Context, Indices, Scratch, receive};
use crate::counters::Stage;
use crate::encap::{self, Carried};
use crate::parse::{Network, Parsed};
use crate::tables::{Leaf, LocalEntry, TunnelPeer};
use crate::{BATCH, Buffer, Packet};

/// Whose tunnel a packet came by, in what, and the outer traffic class. None: it came as it is.
type Tunnelled = Option<(TunnelPeer, Carried, u8)>;

pub(crate) fn run<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    from: &Indices,
    next: &mut Indices,
) {
    if from.is_empty() {
        return;
    }
    let Some(local) = context.tables.local() else {
        from.iter().for_each(|index| scratch.drop(index, DropReason::NotConfigured));
        return;
    };
    let mut came: [Tunnelled; BATCH] = [None; BATCH];
    let (mut entered, mut direct) = (Indices::new(), Indices::new());
    for index in from.iter() {
        let Some(packet) = packets.get_mut(index) else { continue };
        match enter(context, local, packet, &mut scratch.parsed[index]) {
            Ok(tunnelled) => {
                came[index] = tunnelled;
                entered.push(index);
                if tunnelled.is_none() {
                    direct.push(index);
                }
            }
            Err(reason) => scratch.drop(index, reason),
        }
    }
    // All at once, so that their waits for memory overlap.
    let sources = leaves(context, scratch, &entered, |parsed| parsed.source);
    let mut destinations = leaves(context, scratch, &direct, |parsed| parsed.destination).into_iter();
    let mut decapsulated = 0;
    for (index, source) in entered.iter().zip(sources) {
        let Some(packet) = packets.get_mut(index) else { continue };
        let parsed = &mut scratch.parsed[index];
        let checked = match came[index] {
            Some((peer, carried, outer)) => {
                scratch.tunnel[index] = Some((peer.tunnel, carried));
                check_tunnelled(context, local, packet, parsed, (peer, outer), source)
            }
            None => check_direct(context, parsed, source, destinations.next().unwrap_or_default()),
        };
        match checked {
            Ok(()) => {
                decapsulated += usize::from(came[index].is_some());
                next.push(index);
            }
            Err(reason) => scratch.drop(index, reason),
        }
    }
    context.counters.passed(Stage::Decapsulate, decapsulated);
}

/// The leaves of one end of each packet of `indices`, in their order.
#[inline]
pub(super) fn leaves(
    context: &Context<'_>,
    scratch: &Scratch,
    indices: &Indices,
    end: impl Fn(&Parsed) -> IpAddr + Copy,
) -> [Leaf; BATCH] {
    let mut leaves = [Leaf::default(); BATCH];
    context.tables.lookup_batch(indices.iter().map(|index| end(&scratch.parsed[index])), &mut leaves);
    leaves
}

/// Takes the headers of a tunnel off. Whether who sent it may is asked later.
#[inline]
fn enter<B: Buffer>(
    context: &Context<'_>,
    local: &LocalEntry,
    packet: &mut Packet<B>,
    parsed: &mut Parsed,
) -> Result<Tunnelled, DropReason> {
    if parsed.network == Network::Arp {
        return Err(DropReason::UplinkNotOurs);
    }
    if parsed.destination_mac != context.tables.port(packet.port).mac {
        return Err(DropReason::MacNotOurs);
    }
    let Some(carrier) = encap::carrier(parsed, local)? else {
        addresses(parsed)?;
        return Ok(None);
    };
    let peer = context.tables.tunnel_from(parsed.source).ok_or(DropReason::TunnelPeerUnknown)?;
    let (carried, macs) = encap::decapsulate(&mut packet.buffer, parsed, carrier, local)?;
    let outer = parsed.traffic_class;
    // What the sender left undone concerns the outer packet, and is gone with its headers.
    packet.offload = crate::Offload::default();
    receive::read(&mut packet.buffer, parsed)?;
    if parsed.network == Network::Arp {
        return Err(DropReason::ArpInvalid);
    }
    if !macs.contains(&parsed.destination_mac) {
        return Err(DropReason::MacNotOurs);
    }
    addresses(parsed)?;
    Ok(Some((peer, carried, outer)))
}

/// As it is: for a pod of ours, and from anybody but one, or this node (policy always lets the node in). Whom a tunnel leads
/// to comes by a tunnel, which knows its peers (RFC 3704, section 2.2), or from the station of that node itself, where it is
/// on our link: it may have been told before us that nothing is encapsulated any more. From a router comes anybody's.
#[inline]
fn check_direct(
    context: &Context<'_>,
    parsed: &Parsed,
    source: Leaf,
    destination: Leaf,
) -> Result<(), DropReason> {
    if !context.tables.adjacency(destination.adjacency).is_pod() {
        return Err(DropReason::UplinkNotOurs);
    }
    let way = context.tables.adjacency(source.adjacency);
    let strange = way.is_tunnelled() && !context.tables.is_tunnel_end(source.adjacency, parsed.source_mac);
    if way.is_pod() || strange || context.tables.is_own(parsed.source) {
        return Err(DropReason::SpoofedAddress);
    }
    Ok(())
}

/// By a tunnel: from who lives behind it.
#[inline]
fn check_tunnelled<B: Buffer>(
    context: &Context<'_>,
    local: &LocalEntry,
    packet: &mut Packet<B>,
    parsed: &mut Parsed,
    (peer, outer): (TunnelPeer, u8),
    source: Leaf,
) -> Result<(), DropReason> {
    if !context.tables.lives_behind(source, peer) {
        return Err(DropReason::TunnelSourceInvalid);
    }
    encap::combine_traffic_class(packet.buffer.bytes_mut(), parsed, outer, local.kept_of_outer)
}
