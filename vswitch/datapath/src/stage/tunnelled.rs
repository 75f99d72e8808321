//! Packets that come in VXLAN, as nearly all that tunnels bring do: outer and inner headers are read, and the outer ones taken
//! off, in one go. Whether who sent one may is asked of its flow: who has the address that its answers are sent to may. Of all
//! that is of another form, or belongs to no known flow, the tables are asked ([`uplink`]).

use std::net::{IpAddr, Ipv4Addr};

use vswitch_model::{DropReason, Mac, TunnelId};

use super::flow::Keys;
use super::source::addresses;
use super::{Context, Indices, Scratch, uplink};
use crate::counters::Stage;
use crate::encap::{Carried, UDP, VXLAN, combine_traffic_class, vni};
use crate::flow::FlowTable;
use crate::parse::{self, Parsed, protocol};
use crate::read::be16;
use crate::tables::{Adjacency, Leaf, LocalEntry, PortEntry};
use crate::{BATCH, Buffer, Offload, Packet};

/// What outer headers said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outer {
    source: IpAddr,
    vni: u32,
    traffic_class: u8,
}

impl Outer {
    pub(crate) const EMPTY: Self =
        Self { source: IpAddr::V4(Ipv4Addr::UNSPECIFIED), vni: 0, traffic_class: 0 };
}

/// Takes the outer headers off, reads what they carried, and makes its flow's key; false, and nothing of the packet changed,
/// when it is of another form, or does not go on.
#[inline(never)]
pub(crate) fn take<B: Buffer>(
    scratch: &mut Scratch,
    keyed: (&FlowTable, &mut Keys),
    packet: &mut Packet<B>,
    us: (&PortEntry, &LocalEntry),
    index: usize,
) -> bool {
    match parse::usual_v4(packet.buffer.bytes()) {
        Some(outer) => take_off(scratch, keyed, packet, us, index, &outer),
        None => take_over_v6(scratch, keyed, packet, us, index),
    }
}

/// The same over IPv6. Apart, so that what both have in common is compiled for what each of them knows.
#[inline(never)]
fn take_over_v6<B: Buffer>(
    scratch: &mut Scratch,
    keyed: (&FlowTable, &mut Keys),
    packet: &mut Packet<B>,
    us: (&PortEntry, &LocalEntry),
    index: usize,
) -> bool {
    parse::usual_v6(packet.buffer.bytes())
        .is_some_and(|outer| take_off(scratch, keyed, packet, us, index, &outer))
}

#[inline(always)]
fn take_off<B: Buffer>(
    scratch: &mut Scratch,
    (flows, keys): (&FlowTable, &mut Keys),
    packet: &mut Packet<B>,
    (uplink, local): (&PortEntry, &LocalEntry),
    index: usize,
    outer: &Parsed,
) -> bool {
    let frame = packet.buffer.bytes();
    let udp = usize::from(outer.transport);
    let start = udp + UDP + VXLAN;
    let is_ours = outer.protocol == protocol::UDP
        && outer.destination_mac == uplink.mac
        && local.underlay.contains(&Some(outer.destination));
    let Some(vni) = vni(frame, udp + UDP).filter(|_| is_ours) else { return false };
    let Some(macs) = local.networks.macs(outer.destination_port, vni) else { return false };
    let end = be16(frame, udp + 4).map_or(0, |length| udp + usize::from(length));
    let Some(carried) = frame.get(start..end) else { return false };
    let taken = match parse::usual_v4(carried) {
        Some(parsed) => key::<B>(scratch, (flows, keys), &parsed, &macs, index),
        None => take_v6::<B>(scratch, (flows, keys), carried, &macs, index),
    };
    // Together with what follows the inner packet.
    if !taken.is_some_and(|end| packet.buffer.set_len(start + end)) {
        return false;
    }
    packet.buffer.cut_front(start);
    // What the sender left undone concerned the outer packet.
    packet.offload = Offload::default();
    scratch.outer[index % BATCH] = Outer { source: outer.source, vni, traffic_class: outer.traffic_class };
    true
}

/// Reads an IPv6 packet that was carried, and keeps it as [`key`] does.
#[inline(never)]
fn take_v6<B: Buffer>(
    scratch: &mut Scratch,
    keyed: (&FlowTable, &mut Keys),
    carried: &[u8],
    macs: &[Mac; 2],
    index: usize,
) -> Option<usize> {
    key::<B>(scratch, keyed, &parse::usual_v6(carried)?, macs, index)
}

/// Keeps what was read when it may go on; gives where it ends.
#[inline(always)]
fn key<B: Buffer>(
    scratch: &mut Scratch,
    (flows, keys): (&FlowTable, &mut Keys),
    parsed: &Parsed,
    macs: &[Mac; 2],
    index: usize,
) -> Option<usize> {
    if !macs.contains(&parsed.destination_mac) || addresses(parsed).is_err() {
        return None;
    }
    scratch.entropy[index % BATCH] = keys.make::<B>(flows, index, parsed)?;
    scratch.parsed[index % BATCH] = *parsed;
    Some(usize::from(parsed.end))
}

/// Ends those of the packets `taken` whose sender does not speak for them: they are taken out of the keys that were made, which
/// have been looked up.
#[inline(never)]
pub(crate) fn check<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    (flows, keys): (&mut FlowTable, &mut Keys),
    taken: Indices,
) {
    let Some(local) = context.tables.local() else { return };
    let mut asked = Indices::new();
    let mut ended = Indices::new();
    for index in taken.iter() {
        match answers_lead_to(context, (flows, keys), index, scratch.outer[index].source) {
            Some(tunnel) => {
                if !combine(scratch, packets, local, tunnel, index) {
                    ended.push(index);
                }
            }
            None => asked.push(index),
        }
    }
    if !asked.is_empty() {
        let sources = uplink::leaves(context, scratch, &asked, |parsed| parsed.source);
        for (index, source) in asked.iter().zip(sources) {
            match speaks_for(context, scratch, index, source) {
                Ok(tunnel) if combine(scratch, packets, local, tunnel, index) => continue,
                Ok(_) => {}
                Err(reason) => scratch.drop(index, reason),
            }
            ended.push(index);
        }
    }
    keys.made = keys.made.without(ended);
    context.counters.passed(Stage::Decapsulate, taken.without(ended).len());
}

/// The tunnel to whoever has this underlay address, when it is by that that a packet's flow is answered as the tables have it.
#[inline(always)]
fn answers_lead_to(
    context: &Context<'_>,
    (flows, keys): (&mut FlowTable, &Keys),
    index: usize,
    source: IpAddr,
) -> Option<TunnelId> {
    let (found, orientation) = keys.found(index)?;
    let flow = flows.line(found).filter(|flow| flow.is_of(context.tables.revision))?;
    let back = flow.adjacency(flow.direction(orientation).reverse());
    match context.tables.adjacency(back) {
        Adjacency::Tunnel { template, tunnel, .. } if template.leads_to(source) => Some(*tunnel),
        _ => None,
    }
}

/// The tunnel to whoever sent a packet, when the leaf of its source says that this lives there.
fn speaks_for(
    context: &Context<'_>,
    scratch: &mut Scratch,
    index: usize,
    source: Leaf,
) -> Result<TunnelId, DropReason> {
    let Outer { source: sender, vni, .. } = scratch.outer[index];
    let peer = context.tables.tunnel_from(sender).ok_or(DropReason::TunnelPeerUnknown)?;
    scratch.tunnel[index] = Some((peer.tunnel, Carried::Vxlan(vni)));
    if context.tables.lives_behind(source, peer) {
        Ok(peer.tunnel)
    } else {
        Err(DropReason::TunnelSourceInvalid)
    }
}

/// Takes what the outer traffic class says into the inner one. False: that ends it.
#[inline(always)]
fn combine<B: Buffer>(
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    local: &LocalEntry,
    tunnel: TunnelId,
    index: usize,
) -> bool {
    let Some(packet) = packets.get_mut(index) else { return false };
    let Outer { vni, traffic_class, .. } = scratch.outer[index];
    scratch.tunnel[index] = Some((tunnel, Carried::Vxlan(vni)));
    let parsed = &mut scratch.parsed[index];
    let combined =
        combine_traffic_class(packet.buffer.bytes_mut(), parsed, traffic_class, local.kept_of_outer);
    combined.map_err(|reason| scratch.drop(index, reason)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VecBuffer;
    use crate::testing::World;
    use crate::testing::frames;
    use crate::testing::world::{A, B, UPLINK, v4};

    #[test]
    fn a_congested_underlay_makes_no_packet_unusual() {
        let world = World::node(1);
        let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, b"media");
        let mut frame = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner);
        frame[15] = 3;
        frames::mend_ipv4(&mut frame);
        let offload = Offload::default();
        let mut packet = Packet { buffer: VecBuffer::of(&frame), port: UPLINK, offload };
        let (flows, mut keys) = (FlowTable::new(64, 1), Keys::new());
        let us = (world.tables.port(UPLINK), world.tables.local().unwrap());
        assert!(take(&mut Scratch::new(), (&flows, &mut keys), &mut packet, us, 0));
        assert_eq!(packet.buffer.bytes(), inner);
    }
}
