//! ICMP errors: they belong to the flow whose packet they quote.

use vswitch_model::DropReason;

use super::keys::key_of;
use super::{Memory, Stale, revalidate};
use crate::counters::Stage;
use crate::parse::{Parsed, quoted};
use crate::stage::{Context, Indices, Scratch};
use crate::tables::{AdjacencyIndex, Role};
use crate::{Buffer, Packet};

/// Sends ICMP errors to the end of the flow whose packet they quote. The flow neither advances nor lives longer by them.
#[cold]
pub(super) fn related<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &[Packet<B>],
    memory: &mut Memory<'_>,
    errors: &Indices,
    next: &mut Indices,
) {
    for index in errors.iter() {
        let Some(packet) = packets.get(index) else { continue };
        let parsed = &scratch.parsed[index];
        let from_pod = context.tables.port(scratch.ingress[index]).role == Role::Pod;
        let way = Some(parsed)
            // Whom to send by is for a pod's own router to say, and that is us, who never does (RFC 1122, section 3.2.2.2).
            .filter(|error| !error.is_redirect())
            .and_then(|error| quoted(packet.buffer.bytes(), error))
            // To the one who sent what is quoted; and a pod only speaks of what was sent to itself.
            .filter(|quote| quote.source == parsed.destination)
            .filter(|quote| !from_pod || quote.destination == parsed.source)
            .and_then(|quote| way_back(context, memory, &quote));
        match way {
            Some((adjacency, hash)) => {
                scratch.adjacency[index] = adjacency;
                scratch.entropy[index] = hash;
                next.push(index);
                context.counters.passed(Stage::RelatedError, 1);
            }
            None => scratch.drop(index, DropReason::FlowUnknown),
        }
    }
}

/// The way back to who sent a quoted packet, when the tables still allow its flow and lead it on; and the flow's hash.
fn way_back(context: &Context<'_>, memory: &mut Memory<'_>, quote: &Parsed) -> Option<(AdjacencyIndex, u64)> {
    let (key, orientation) = key_of(quote)?;
    let Memory { flows, log, .. } = memory;
    let hash = flows.hash(&key);
    let found = flows.lookup(&key, hash)?;
    let line = flows.line(found)?;
    if !line.is_of(context.tables.revision)
        && let Err(stale) = revalidate(context, flows, found, log, hash)
    {
        if matches!(stale, Stale::Astray) {
            flows.remove(found);
        }
        return None;
    }
    let line = flows.line(found)?;
    let back = line.direction(orientation).reverse();
    (!line.is_expired(context.now)).then(|| (line.adjacency(back), hash))
}
