//! Flows: what a packet belongs to, and whether it may. Known flows are advanced; for the others the tables are asked
//! and, when they allow it, a record is made.

mod asked;
mod keys;
mod newcomers;
mod related;

use vswitch_model::DropReason;

use super::forward::{self, Leaving};
use super::{Context, Fate, Indices, Scratch, tunnelled};
use crate::counters::Stage;
use crate::flow::{Direction, Flow, FlowIndex, FlowTable, Line, Standing, TcpFlags, TcpSegment, Windows};
use crate::flow_log::FlowLog;
use crate::fragment::FragmentTable;
use crate::parse::{Parsed, Piece, protocol};
use crate::tables::{Adjacency, Denied, Role};
use crate::{Buffer, Mark, Packet, PortIndex, Probe, dns};

use asked::tell_again;
use related::related;

pub(crate) use asked::Misses;
pub(crate) use keys::{Keys, key_of};
pub(crate) use newcomers::Newcomers;

/// What a worker remembers of flows.
pub(crate) struct Memory<'a> {
    pub(crate) flows: &'a mut FlowTable,
    pub(crate) fragments: &'a mut FragmentTable,
    pub(crate) keys: &'a mut Keys,
    pub(crate) misses: &'a mut Misses,
    pub(crate) newcomers: &'a mut Newcomers,
    pub(crate) log: &'a mut FlowLog,
}

/// Runs the stage over the packets of `from`, and over those that are `tunnelled`, of which has still to be asked who sent them;
/// those that may go on are added to `next`. Some of their keys may have been made.
#[inline(always)]
pub(crate) fn run<B: Buffer, P: Probe>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    memory: &mut Memory<'_>,
    (from, tunnelled): (&Indices, Indices),
    next: &mut Indices,
    probe: &mut P,
) {
    let mut errors = Indices::new();
    for index in from.without(memory.keys.made).iter() {
        if scratch.parsed[index].piece != Piece::Whole && !join(context, scratch, memory.fragments, index) {
            continue;
        }
        let parsed = &scratch.parsed[index];
        if parsed.is_icmp_error() {
            errors.push(index);
        } else if let Some(hash) = memory.keys.make::<B>(memory.flows, index, parsed) {
            scratch.entropy[index] = hash;
            memory.keys.made.push(index);
        } else {
            scratch.drop(index, DropReason::FlowUnknown);
        }
    }
    probe.mark(Mark::Key);
    memory.keys.look_up(memory.flows, &scratch.entropy);
    if !tunnelled.is_empty() {
        tunnelled::check(context, scratch, packets, (memory.flows, memory.keys), tunnelled);
    }
    let count = memory.keys.made.len();
    probe.mark(Mark::Lookup);
    let misses = hits(context, scratch, packets, memory, next);
    probe.mark(Mark::Advance);
    if !misses.is_empty() {
        let admitted =
            if memory.newcomers.is_limited() { memory.newcomers.admit(scratch, &misses) } else { misses };
        memory.misses.ask(context, scratch, admitted.iter());
        for (number, index) in admitted.iter().enumerate() {
            let Some(packet) = packets.get(index) else { continue };
            match miss(context, scratch, packet, memory, number, index) {
                Ok(()) => next.push(index),
                Err(fate) => scratch.end(index, fate),
            }
        }
        memory.misses.count(context);
    }
    context.counters.passed(Stage::FlowHit, count - misses.len());
    context.counters.passed(Stage::FlowMiss, misses.len());
    if !errors.is_empty() {
        related(context, scratch, packets, memory, &errors, next);
    }
    if !misses.is_empty() || !errors.is_empty() {
        probe.mark(Mark::Miss);
    }
}

/// Remembers a first fragment, or gives a later one its ports. False when that ends it.
#[cold]
fn join(context: &Context<'_>, scratch: &mut Scratch, fragments: &mut FragmentTable, index: usize) -> bool {
    let parsed = &mut scratch.parsed[index];
    let joined = match parsed.piece {
        Piece::Whole => Ok(()),
        Piece::First => fragments.first(parsed, context.now).map_err(|_| DropReason::FragmentTableFull),
        Piece::Later => fragments.later(parsed, context.now).then_some(()).ok_or(DropReason::FragmentUnknown),
    };
    context.counters.passed(Stage::Fragment, 1);
    joined.map_err(|reason| scratch.drop(index, reason)).is_ok()
}

/// Advances the flows that are known, and sends their packets; gives the packets of those that are not. Whom more has to be
/// asked of before it is sent is added to `next`.
#[inline(always)]
fn hits<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &mut [Packet<B>],
    memory: &mut Memory<'_>,
    next: &mut Indices,
) -> Indices {
    let (mut misses, mut leaving) = (Indices::new(), Leaving::default());
    let Memory { flows, keys, log, .. } = memory;
    for index in keys.made.iter() {
        let Some(packet) = packets.get_mut(index) else { continue };
        // A flow that an earlier packet of the batch ended is found no more.
        let flow = keys.found[index].and_then(|found| Some((found, flows.line(found)?)));
        let Some((found, mut flow)) = flow else {
            misses.push(index);
            continue;
        };
        let parsed = &scratch.parsed[index];
        let flags = TcpFlags(parsed.tcp_flags);
        let direction = flow.direction(keys.orientations[index]);
        if flow.is_reopened_by(direction, flags) {
            misses.push(index);
            continue;
        }
        if flow.is_expired(context.now) {
            flows.remove(found);
            misses.push(index);
            continue;
        }
        if !flow.is_of(context.tables.revision) {
            let hash = scratch.entropy[index];
            match revalidate(context, flows, found, log, hash) {
                Ok(()) => {}
                Err(Stale::Denied(denied)) => {
                    context.counters.rules.denied(denied.rule, context.tables.revision, parsed.ip_length());
                    flows.update(found, |flow| revoke(context, flow, direction, denied, log, hash));
                    scratch.denied[index] = Some(denied.rule);
                    scratch.drop(index, denied.reason);
                    continue;
                }
                Err(Stale::Astray) => {
                    flows.remove(found);
                    misses.push(index);
                    continue;
                }
            }
            let Some(again) = flows.line(found) else {
                misses.push(index);
                continue;
            };
            flow = again;
        }
        let way = flow.adjacency(direction);
        let advanced = if parsed.protocol == protocol::TCP {
            advance_tcp(context, flows.line_with_windows(found), direction, parsed, packet)
        } else {
            advance(context, flow, direction, parsed)
        };
        if let Err(reason) = advanced {
            scratch.drop(index, reason);
            continue;
        }
        scratch.flow[index] = Some((found, false));
        scratch.adjacency[index] = way;
        if parsed.source_port == dns::PORT && direction == Direction::Reply {
            scratch.answers.push(index);
        }
        // At once, while all of it is at hand.
        if !forward::send(context, scratch, packet, index, context.tables.adjacency(way), &mut leaving) {
            next.push(index);
        }
    }
    leaving.note(context, scratch);
    misses
}

/// The TCP segment that a packet carries whole.
#[inline]
fn tcp_segment<'a, B: Buffer>(packet: &'a Packet<B>, parsed: &Parsed) -> Option<TcpSegment<'a>> {
    if parsed.protocol != protocol::TCP || parsed.piece != Piece::Whole {
        return None;
    }
    TcpSegment::read(packet.buffer.bytes(), parsed)
}

/// Takes a packet of TCP into its flow.
#[inline(never)]
fn advance_tcp<B: Buffer>(
    context: &Context<'_>,
    flow: Option<(&mut Line, Option<&mut Windows>)>,
    direction: Direction,
    parsed: &Parsed,
    packet: &Packet<B>,
) -> Result<(), DropReason> {
    let Some((flow, windows)) = flow else { return Ok(()) };
    if let Some(windows) = windows {
        // Of fragments the numbers are not known.
        let standing = tcp_segment(packet, parsed).map(|segment| windows.take(direction, &segment));
        match standing {
            Some(Standing::Within) => {}
            Some(Standing::Aside) => {
                flow.count(direction, parsed.ip_length());
                return Ok(());
            }
            Some(Standing::Outside) => return Err(DropReason::TcpOutOfWindow),
            None => windows.give_up(),
        }
    }
    advance(context, flow, direction, parsed)
}

/// Takes a packet into its flow; of TCP one that stands within the window.
#[inline(always)]
fn advance(
    context: &Context<'_>,
    flow: &mut Line,
    direction: Direction,
    parsed: &Parsed,
) -> Result<(), DropReason> {
    if parsed.piece == Piece::Later {
        // It bears no TCP flags: the first one spoke for all.
        flow.count(direction, parsed.ip_length());
        flow.see(context.now);
        return Ok(());
    }
    flow.advance(direction, TcpFlags(parsed.tcp_flags), parsed.ip_length(), context.now)
}

/// Why a flow may not go on as newer tables have it.
enum Stale {
    /// They deny it. It is judged again with each of its packets: they may allow it one day.
    Denied(Denied),
    /// They lead it back to where it came from: the packet is taken as the first of a new flow, which gives it its reason.
    Astray,
}

/// Judges a flow by tables that are newer than those it was judged by.
#[cold]
fn revalidate(
    context: &Context<'_>,
    flows: &mut FlowTable,
    found: FlowIndex,
    log: &mut FlowLog,
    hash: u64,
) -> Result<(), Stale> {
    let judged = flows.update(found, |flow| {
        rejudge(context, flow, log, hash).map_err(Stale::Denied)?;
        // A responder that has moved to another node is not followed there: the sender's node has to.
        let way = context.tables.adjacency(flow.adjacencies[Direction::Original as usize]);
        let loops = route(context, flow.in_port, way) == Err(DropReason::RouteLoops);
        if loops { Err(Stale::Astray) } else { Ok(()) }
    });
    judged.unwrap_or(Err(Stale::Astray))
}

/// Takes note of one more packet of a flow that the tables deny, whichever end sent it, and tells of it.
#[cold]
fn revoke(
    context: &Context<'_>,
    flow: &mut Flow,
    direction: Direction,
    denied: Denied,
    log: &mut FlowLog,
    hash: u64,
) {
    if flow.revoke(direction, context.now) {
        context.counters.flows_revoked.add(1);
    }
    tell_again(context, flow, &Err(denied), log, hash);
}

/// Judges a flow by the tables of now where that may make a difference; counts it for the rules that allow it from now
/// on, and tells of it as of a new one.
fn rejudge(context: &Context<'_>, flow: &mut Flow, log: &mut FlowLog, hash: u64) -> Result<(), Denied> {
    let before = (flow.egress, flow.ingress, flow.revision);
    let outcome = context.tables.revalidate(flow, hash);
    if outcome != Ok(None) {
        context.counters.passed(Stage::Revalidate, 1);
    }
    if let Some(judgement) = outcome? {
        context.counters.rules.rejudged(before, flow);
        tell_again(context, flow, &Ok(judgement), log, hash);
    }
    Ok(())
}

/// A packet of no known flow, the `number`th of those: the tables say whether it may open one.
fn miss<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packet: &Packet<B>,
    memory: &mut Memory<'_>,
    number: usize,
    index: usize,
) -> Result<(), Fate> {
    let (key, orientation) = (memory.keys.keys[index], memory.keys.orientations[index]);
    let hash = scratch.entropy[index];
    let parsed = &scratch.parsed[index];
    // An earlier packet of the batch may have opened it; and one that this packet opens anew is still there.
    let there = memory.flows.lookup(&key, hash);
    if let Some(found) = there
        && let Some((flow, windows)) = memory.flows.line_with_windows(found)
        && let direction = flow.direction(orientation)
        && !flow.is_reopened_by(direction, TcpFlags(parsed.tcp_flags))
    {
        let way = flow.adjacency(direction);
        let advanced = if parsed.protocol == protocol::TCP {
            advance_tcp(context, Some((flow, windows)), direction, parsed, packet)
        } else {
            advance(context, flow, direction, parsed)
        };
        advanced.map_err(Fate::Dropped)?;
        scratch.flow[index] = Some((found, false));
        scratch.adjacency[index] = way;
        return Ok(());
    }
    // The first fragment opens the flow or nothing does.
    if parsed.piece == Piece::Later {
        return Err(Fate::Dropped(DropReason::FragmentUnknown));
    }
    if parsed.is_icmp_reply() {
        return Err(Fate::Dropped(DropReason::FlowUnknown));
    }
    let (asked, judged) = memory.misses.asked(context, parsed, number);
    if asked.is_to_be_told(judged) {
        asked.tell(judged, memory.log, hash);
    }
    let judgement = judged.as_ref().map_err(|denied| {
        scratch.denied[index] = Some(denied.rule);
        Fate::Dropped(denied.reason)
    })?;
    let flow = asked.open(judgement, key, orientation)?;
    let (adjacency, rules) = (flow.adjacencies[Direction::Original as usize], [flow.egress, flow.ingress]);
    let found =
        memory.flows.insert_at(there, hash, &flow).map_err(|_| Fate::Dropped(DropReason::FlowTableFull))?;
    context.counters.flows_evicted.add(memory.flows.take_evicted());
    if let Some((flow, windows)) = memory.flows.line_with_windows(found) {
        flow.count(Direction::Original, parsed.ip_length());
        if parsed.protocol == protocol::TCP
            && let Some(windows) = windows
        {
            *windows = tcp_segment(packet, parsed).as_ref().map_or_else(Windows::default, Windows::of);
        }
    }
    memory.misses.opened(rules);
    scratch.flow[index] = Some((found, true));
    scratch.adjacency[index] = adjacency;
    Ok(())
}

/// Whether a way leads on: not nowhere, and not back to where the packet came from.
fn route(context: &Context<'_>, in_port: PortIndex, way: &Adjacency) -> Result<(), DropReason> {
    if let Some(reason) = way.drop_reason() {
        return Err(reason);
    }
    let same = way.port() == Some(in_port);
    let both_uplinks = || {
        let role = |port| context.tables.port(port).role == Role::Uplink;
        role(in_port) && way.port().is_some_and(role)
    };
    if same || both_uplinks() { Err(DropReason::RouteLoops) } else { Ok(()) }
}
