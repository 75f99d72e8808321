//! The first stage: counts, reads, cuts off Ethernet padding, and sorts packets by the kind of port they came by.

use vswitch_model::DropReason;

use super::{Context, Indices, Scratch};
use crate::counters::{Run, Stage};
use crate::parse::{Network, Parsed, parse_into};
use crate::tables::Role;
use crate::{BATCH, Buffer, Packet, segment};

/// Packets by the kind of port they came by.
pub(crate) struct Received {
    pub(crate) pods: Indices,
    pub(crate) uplinks: Indices,
    pub(crate) hosts: Indices,
}

pub(crate) fn run<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
) -> Received {
    let mut received = Received { pods: Indices::new(), uplinks: Indices::new(), hosts: Indices::new() };
    let Some(first) = packets.first() else { return received };
    // What came by one port lies together.
    let mut run = Run::of(first.port);
    let mut role = context.tables.port(run.port).role;
    for (index, packet) in packets.iter_mut().enumerate().take(BATCH) {
        if packet.port != run.port {
            context.counters.received_all(&run);
            run = Run::of(packet.port);
            role = context.tables.port(run.port).role;
        }
        run.add(packet.buffer.bytes().len());
        scratch.ingress[index] = packet.port;
        let parsed = &mut scratch.parsed[index];
        if let Err(reason) = read(&mut packet.buffer, parsed) {
            scratch.drop(index, reason);
            continue;
        }
        if packet.offload.checksum.is_some() && !segment::fits(packet.buffer.bytes(), parsed, &packet.offload)
        {
            scratch.drop(index, DropReason::TransportHeaderInvalid);
            continue;
        }
        match role {
            Role::Pod => received.pods.push(index),
            Role::Uplink => received.uplinks.push(index),
            Role::Host => received.hosts.push(index),
            Role::None => scratch.drop(index, DropReason::NotConfigured),
        }
    }
    context.counters.received_all(&run);
    context.counters.passed(Stage::Parse, packets.len());
    received
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
