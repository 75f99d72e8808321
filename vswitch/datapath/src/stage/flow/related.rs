//! ICMP errors: they belong to the flow whose packet they quote.

use vswitch_model::DropReason;

use super::keys::key_of;
use super::{Memory, Stale, revalidate};
use crate::counters::Stage;
use crate::flow::{Direction, Flow};
use crate::parse::{Parsed, quoted};
use crate::stage::{Context, Indices, Scratch};
use crate::tables::Role;
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
            .and_then(|quote| flow_of(context, memory, &quote));
        match way {
            Some((flow, direction, hash)) => {
                scratch.adjacency[index] = flow.adjacencies[direction.reverse() as usize];
                scratch.entropy[index] = hash;
                next.push(index);
                context.counters.passed(Stage::RelatedError, 1);
            }
            None => scratch.drop(index, DropReason::FlowUnknown),
        }
    }
}

/// The flow a quoted packet belongs to, when the tables still allow it and lead it on, and which way that packet went.
fn flow_of<'a>(
    context: &Context<'_>,
    memory: &'a mut Memory<'_>,
    quote: &Parsed,
) -> Option<(&'a Flow, Direction, u64)> {
    let (key, orientation) = key_of(quote)?;
    let Memory { flows, log, .. } = memory;
    let hash = flows.hash(&key);
    let found = flows.lookup(&key, hash)?;
    let flow = flows.get_mut(found)?;
    if flow.revision != context.tables.revision
        && let Err(stale) = revalidate(context, flow, log, hash)
    {
        if matches!(stale, Stale::Astray) {
            flows.remove(found);
        }
        return None;
    }
    let flow = flows.get(found)?;
    (!flow.is_expired(context.now)).then(|| (flow, flow.direction(orientation), hash))
}
