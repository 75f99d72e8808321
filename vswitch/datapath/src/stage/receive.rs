//! The first stage: counts, reads, cuts off Ethernet padding, and sorts packets by the kind of port they came by.

use vswitch_model::DropReason;

use super::{Context, Indices, Scratch};
use crate::counters::Stage;
use crate::parse::{Network, parse};
use crate::tables::Role;
use crate::{Buffer, Packet};

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
    for (index, packet) in packets.iter_mut().enumerate() {
        scratch.ingress[index] = packet.port;
        context.counters.received(packet.port, packet.buffer.bytes().len());
        match read(&mut packet.buffer) {
            Ok(parsed) => {
                scratch.parsed[index] = parsed;
                scratch.read[index] = true;
            }
            Err(reason) => {
                scratch.drop(index, reason);
                continue;
            }
        }
        match context.tables.port(packet.port).role {
            Role::Pod => received.pods.push(index),
            Role::Uplink => received.uplinks.push(index),
            Role::Host => received.hosts.push(index),
            Role::None => scratch.drop(index, DropReason::NotConfigured),
        }
    }
    context.counters.passed(Stage::Parse, packets.len());
    received
}

/// Reads a frame and cuts off what follows its IP packet.
pub(crate) fn read<B: Buffer>(buffer: &mut B) -> Result<crate::parse::Parsed, DropReason> {
    let parsed = parse(buffer.bytes())?;
    let end = usize::from(parsed.end);
    if parsed.network != Network::Arp && buffer.bytes().len() > end && !buffer.set_len(end) {
        return Err(DropReason::Truncated);
    }
    Ok(parsed)
}
