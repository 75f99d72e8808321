//! What comes from the underlay: tunnel packets, whose outer headers come off, and packets for our pods as they are.

use std::net::IpAddr;

use vswitch_model::{DropReason, TunnelId};

use super::source::addresses;
use super::{Context, Indices, Scratch, receive};
use crate::counters::Stage;
use crate::encap::{self, Endpoint};
use crate::parse::{Network, Parsed};
use crate::tables::LocalEntry;
use crate::{Buffer, Packet};

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
    let endpoint = endpoint(local);
    let mut decapsulated = 0;
    for index in from.iter() {
        let Some(packet) = packets.get_mut(index) else { continue };
        match enter(context, local, &endpoint, packet, &mut scratch.parsed[index]) {
            Ok(tunnel) => {
                scratch.tunnel[index] = tunnel;
                decapsulated += usize::from(tunnel.is_some());
                next.push(index);
            }
            Err(reason) => scratch.drop(index, reason),
        }
    }
    context.counters.passed(Stage::Decapsulate, decapsulated);
}

fn endpoint(local: &LocalEntry) -> Endpoint {
    Endpoint {
        addresses: [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)],
        port: local.vxlan_port,
        vni: local.vni.get(),
    }
}

/// Lets a packet in; gives the tunnel it came by.
#[inline]
fn enter<B: Buffer>(
    context: &Context<'_>,
    local: &LocalEntry,
    endpoint: &Endpoint,
    packet: &mut Packet<B>,
    parsed: &mut Parsed,
) -> Result<Option<TunnelId>, DropReason> {
    if parsed.network == Network::Arp {
        return Err(DropReason::UplinkNotOurs);
    }
    if parsed.destination_mac != context.tables.port(packet.port).mac {
        return Err(DropReason::MacNotOurs);
    }
    if encap::is_tunnelled(parsed, endpoint)? {
        return tunnelled(context, local, endpoint, packet, parsed).map(Some);
    }
    // As it is: for a pod of ours, and from anybody but one, or this node (policy always lets the node in), or whom a tunnel
    // leads to: from there packets come by the tunnel, which knows its peers (RFC 3704, section 2.2).
    addresses(parsed)?;
    let destination = context.tables.lookup(parsed.destination);
    if !context.tables.adjacency(destination.adjacency).is_pod() {
        return Err(DropReason::UplinkNotOurs);
    }
    let source = context.tables.adjacency(context.tables.lookup(parsed.source).adjacency);
    if source.is_pod() || source.is_tunnelled() || context.tables.is_own(parsed.source) {
        return Err(DropReason::SpoofedAddress);
    }
    Ok(None)
}

#[inline]
fn tunnelled<B: Buffer>(
    context: &Context<'_>,
    local: &LocalEntry,
    endpoint: &Endpoint,
    packet: &mut Packet<B>,
    parsed: &mut Parsed,
) -> Result<TunnelId, DropReason> {
    let peer = context.tables.tunnel_from(parsed.source).ok_or(DropReason::TunnelPeerUnknown)?;
    encap::decapsulate(&mut packet.buffer, parsed, endpoint)?;
    let outer = parsed.traffic_class;
    // What the sender left undone concerns the outer packet, and is gone with its headers.
    packet.offload = crate::Offload::default();
    receive::read(&mut packet.buffer, parsed)?;
    if parsed.network == Network::Arp {
        return Err(DropReason::ArpInvalid);
    }
    if parsed.destination_mac != local.vtep_mac_v4 && parsed.destination_mac != local.vtep_mac_v6 {
        return Err(DropReason::MacNotOurs);
    }
    addresses(parsed)?;
    if !context.tables.lives_behind(context.tables.lookup(parsed.source), peer) {
        return Err(DropReason::TunnelSourceInvalid);
    }
    encap::combine_ecn(packet.buffer.bytes_mut(), parsed, outer)?;
    Ok(peer.tunnel)
}
