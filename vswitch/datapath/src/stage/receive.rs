//! The first stage: counts, reads, cuts off Ethernet padding, and sorts packets by the kind of port they came by.

use vswitch_model::DropReason;

use super::flow::Keys;
use super::{Context, Indices, Scratch, source, tunnelled};
use crate::counters::{Run, Stage};
use crate::flow::FlowTable;
use crate::parse::{self, Network, Parsed, parse_into};
use crate::tables::{PortEntry, Role};
use crate::{BATCH, Buffer, Packet, segment};

/// Packets by the kind of port they came by.
pub(crate) struct Received {
    /// Of pods: those of the usual form that go on. Their keys are made.
    pub(crate) own: Indices,
    /// Of uplinks: what came in VXLAN, of the usual form. Its outer headers are off, and its keys made; whether it goes on
    /// has still to be asked ([`tunnelled::check`]).
    pub(crate) tunnelled: Indices,
    /// Of pods: the rest.
    pub(crate) pods: Indices,
    pub(crate) uplinks: Indices,
    pub(crate) hosts: Indices,
}

#[inline(always)]
pub(crate) fn run<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    (flows, keys): (&FlowTable, &mut Keys),
) -> Received {
    let mut received = Received {
        own: Indices::new(),
        tunnelled: Indices::new(),
        pods: Indices::new(),
        uplinks: Indices::new(),
        hosts: Indices::new(),
    };
    let Some(first) = packets.first() else { return received };
    // What came by one port lies together.
    let (mut run, mut station) = (Run::of(first.port), context.tables.port(first.port));
    let (mut own, mut right) = (Indices::new(), Indices::new());
    for (index, packet) in packets.iter_mut().enumerate().take(BATCH) {
        if packet.port != run.port {
            sort(context, scratch, run, right, &mut received);
            (run, station, right) = (Run::of(packet.port), context.tables.port(packet.port), Indices::new());
        }
        run.add(packet.buffer.bytes().len());
        scratch.ingress[index] = packet.port;
        // While its header is at hand all is asked that every packet of a pod is.
        if station.role == Role::Pod
            && packet.offload.checksum.is_none()
            && (take_v4(scratch, (flows, keys), packet, station, index)
                || take_v6(scratch, (flows, keys), packet, station, index))
        {
            own.push(index);
            continue;
        }
        if station.role == Role::Uplink
            && packet.offload.checksum.is_none()
            && let Some(local) = context.tables.local()
            && tunnelled::take(scratch, (flows, keys), packet, (station, local), index)
        {
            received.tunnelled.push(index);
            continue;
        }
        let parsed = &mut scratch.parsed[index];
        if let Err(reason) = read(&mut packet.buffer, parsed) {
            scratch.drop(index, reason);
        } else if packet.offload.checksum.is_some()
            && !segment::fits(packet.buffer.bytes(), parsed, &packet.offload)
        {
            scratch.drop(index, DropReason::TransportHeaderInvalid);
        } else {
            right.push(index);
        }
    }
    sort(context, scratch, run, right, &mut received);
    context.counters.passed(Stage::Parse, packets.len());
    keys.made.extend(own);
    keys.made.extend(received.tunnelled);
    received.own = own;
    received
}

/// Reads a pod's packet of the usual form, cuts off what follows it, and makes its flow's key; false, and nothing changed, when
/// it is of another form, or does not go on.
#[inline(always)]
fn take_v4<B: Buffer>(
    scratch: &mut Scratch,
    keyed: (&FlowTable, &mut Keys),
    packet: &mut Packet<B>,
    station: &PortEntry,
    index: usize,
) -> bool {
    parse::usual_v4(packet.buffer.bytes())
        .is_some_and(|parsed| take(scratch, keyed, packet, station, index, &parsed))
}

/// The same of IPv6. Apart, so that what both have in common is compiled for what each of them knows.
#[inline(never)]
fn take_v6<B: Buffer>(
    scratch: &mut Scratch,
    keyed: (&FlowTable, &mut Keys),
    packet: &mut Packet<B>,
    station: &PortEntry,
    index: usize,
) -> bool {
    parse::usual_v6(packet.buffer.bytes())
        .is_some_and(|parsed| take(scratch, keyed, packet, station, index, &parsed))
}

#[inline(always)]
fn take<B: Buffer>(
    scratch: &mut Scratch,
    (flows, keys): (&FlowTable, &mut Keys),
    packet: &mut Packet<B>,
    station: &PortEntry,
    index: usize,
    parsed: &Parsed,
) -> bool {
    let end = usize::from(parsed.end);
    let goes = source::goes_at_once(packet.buffer.bytes(), parsed, station)
        && (packet.buffer.bytes().len() == end || packet.buffer.set_len(end));
    if !goes {
        return false;
    }
    let Some(hash) = keys.make::<B>(flows, index, parsed) else { return false };
    scratch.parsed[index] = *parsed;
    scratch.entropy[index] = hash;
    true
}

/// Counts a run, and puts those of its packets that are right where the port they came by leads.
#[inline(never)]
fn sort(context: &Context<'_>, scratch: &mut Scratch, run: Run, right: Indices, received: &mut Received) {
    context.counters.received_all(&run);
    match context.tables.port(run.port).role {
        Role::Pod => received.pods.extend(right),
        Role::Uplink => received.uplinks.extend(right),
        Role::Host => received.hosts.extend(right),
        Role::None => right.iter().for_each(|index| scratch.drop(index, DropReason::NotConfigured)),
    }
}

/// Reads a frame and cuts off what follows its IP packet.
#[inline(always)]
pub(crate) fn read<B: Buffer>(buffer: &mut B, parsed: &mut Parsed) -> Result<(), DropReason> {
    if let Err(reason) = parse_into(buffer.bytes(), parsed) {
        *parsed = Parsed::EMPTY;
        return Err(reason);
    }
    let end = usize::from(parsed.end);
    if parsed.network != Network::Arp && buffer.bytes().len() > end && !buffer.set_len(end) {
        return Err(DropReason::Truncated);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::testing::World;
    use crate::testing::world::{A, HOST, v4};
    use crate::{Offload, PartialChecksum, VecBuffer};

    #[test]
    fn a_checksum_left_to_us_must_be_one_of_the_packets_own() {
        let mut world = World::node(1);
        let frame = world.host_ends(v4(1, A)).udp(7, 5000, &[0x5a; 40]);
        let transport = parse(&frame).unwrap().transport;
        for (start, offset, sent) in [
            (transport, 6, 1),
            (transport, 4, 0),
            (transport, 16, 0),
            (11, 6, 0),
            (transport + 4, 4, 0),
            (transport + 16, 6, 1),
        ] {
            let offload = Offload { checksum: Some(PartialChecksum { start, offset }), segment: None };
            let packet = Packet { buffer: VecBuffer::of(&frame), port: HOST, offload };
            assert_eq!(world.walk_packets(vec![packet]).len(), sent, "start {start}, offset {offset}");
            let dropped = world.moved().iter().any(|line| line.contains("transport-header-invalid"));
            assert_eq!(dropped, sent == 0, "start {start}, offset {offset}");
        }
    }
}
