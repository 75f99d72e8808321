//! Flows: what a packet belongs to, and whether it may. Known flows are advanced; for the others the tables are asked
//! and, when they allow it, a record is made.

use std::net::IpAddr;

use vswitch_model::DropReason;

use super::{Context, Fate, Indices, Scratch};
use crate::counters::Stage;
use crate::flow::{Direction, Flow, FlowIndex, FlowKey, FlowTable, NewFlow, Orientation, TcpFlags};
use crate::flow_log::{FlowLog, FlowRecord, FlowVerdict};
use crate::fragment::FragmentTable;
use crate::icmp::IcmpError;
use crate::parse::{Parsed, Piece, protocol, quoted};
use crate::tables::{Adjacency, Denied, Judgement, Leaf, Role, StagedVerdict};
use crate::{BATCH, Buffer, Mark, Packet, PortIndex, Probe};

/// The keys of a batch's packets, in the order of `packets`: dense, for the batched look-up.
#[derive(Debug)]
pub(crate) struct Keys {
    packets: Indices,
    keys: [FlowKey; BATCH],
    hashes: [u64; BATCH],
    orientations: [Orientation; BATCH],
    found: [Option<FlowIndex>; BATCH],
}

impl Keys {
    pub(crate) fn new() -> Self {
        let (key, orientation) = FlowKey::v4(0, 0, 0, 0, 0);
        Self {
            packets: Indices::new(),
            keys: [key; BATCH],
            hashes: [0; BATCH],
            orientations: [orientation; BATCH],
            found: [None; BATCH],
        }
    }

    #[inline]
    fn push(&mut self, flows: &FlowTable, index: usize, key: (FlowKey, Orientation)) -> u64 {
        let at = self.packets.len() & (BATCH - 1);
        self.packets.push(index);
        (self.keys[at], self.orientations[at]) = key;
        self.hashes[at] = flows.hash(&key.0);
        self.hashes[at]
    }
}

/// What a worker remembers of flows.
pub(crate) struct Memory<'a> {
    pub(crate) flows: &'a mut FlowTable,
    pub(crate) fragments: &'a mut FragmentTable,
    pub(crate) keys: &'a mut Keys,
    pub(crate) log: &'a mut FlowLog,
}

/// Runs the stage over the packets of `from`; those that may go on are added to `next`.
pub(crate) fn run<B: Buffer, P: Probe>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &[Packet<B>],
    memory: &mut Memory<'_>,
    from: &Indices,
    next: &mut Indices,
    probe: &mut P,
) {
    memory.keys.packets = Indices::new();
    let mut errors = Indices::new();
    for index in from.iter() {
        if scratch.parsed[index].piece != Piece::Whole && !join(context, scratch, memory.fragments, index) {
            continue;
        }
        let parsed = &scratch.parsed[index];
        if parsed.is_icmp_error() {
            errors.push(index);
        } else if let Some(key) = key_of(parsed) {
            scratch.entropy[index] = memory.keys.push(memory.flows, index, key);
        } else {
            scratch.drop(index, DropReason::FlowUnknown);
        }
    }
    let count = memory.keys.packets.len().min(BATCH);
    probe.mark(Mark::Key);
    let keys = &mut *memory.keys;
    memory.flows.lookup_batch(&keys.keys[..count], &keys.hashes[..count], &mut keys.found[..count]);
    probe.mark(Mark::Lookup);
    let misses = hits(context, scratch, memory, next);
    probe.mark(Mark::Advance);
    for at in misses.iter() {
        let index = usize::from(memory.keys.packets.items[at]);
        match miss(context, scratch, memory, at, index) {
            Ok(()) => next.push(index),
            Err(fate) => scratch.fate[index] = fate,
        }
    }
    context.counters.passed(Stage::FlowHit, count - misses.len());
    context.counters.passed(Stage::FlowMiss, misses.len());
    if !errors.is_empty() {
        related(context, scratch, packets, memory.flows, &errors, next);
    }
    if !misses.is_empty() || !errors.is_empty() {
        probe.mark(Mark::Miss);
    }
}

#[inline]
fn key_of(parsed: &Parsed) -> Option<(FlowKey, Orientation)> {
    let (source, destination) = (parsed.source_port, parsed.destination_port);
    match (parsed.source, parsed.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            Some(FlowKey::v4(a.to_bits(), source, b.to_bits(), destination, parsed.protocol))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            Some(FlowKey::v6(a.to_bits(), source, b.to_bits(), destination, parsed.protocol))
        }
        _ => None,
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

/// Advances the flows that are known; gives the places of those that are not.
#[inline]
fn hits(
    context: &Context<'_>,
    scratch: &mut Scratch,
    memory: &mut Memory<'_>,
    next: &mut Indices,
) -> Indices {
    let mut misses = Indices::new();
    for (at, index) in memory.keys.packets.iter().enumerate() {
        let at = at & (BATCH - 1);
        // A flow that an earlier packet of the batch ended is found no more.
        let flow = memory.keys.found[at].and_then(|found| Some((found, memory.flows.get_mut(found)?)));
        let Some((found, flow)) = flow else {
            misses.push(at);
            continue;
        };
        let parsed = &scratch.parsed[index];
        let flags = TcpFlags(parsed.tcp_flags);
        let direction = flow.direction(memory.keys.orientations[at]);
        if flow.is_reopened_by(direction, flags) {
            misses.push(at);
            continue;
        }
        if flow.is_expired(context.now) {
            memory.flows.remove(found);
            misses.push(at);
            continue;
        }
        if flow.revision != context.tables.revision && !revalidate(context, flow) {
            memory.flows.remove(found);
            misses.push(at);
            continue;
        }
        match advance(context, flow, direction, parsed) {
            Ok(()) => {
                scratch.flow[index] = Some((found, false));
                scratch.adjacency[index] = flow.adjacencies[direction as usize];
                next.push(index);
            }
            Err(reason) => scratch.drop(index, reason),
        }
    }
    misses
}

#[inline]
fn advance(
    context: &Context<'_>,
    flow: &mut Flow,
    direction: Direction,
    parsed: &Parsed,
) -> Result<(), DropReason> {
    if parsed.piece == Piece::Later {
        // It bears no TCP flags: the first one spoke for all.
        flow.count(direction, parsed.ip_length());
        flow.last_seen = context.now;
        return Ok(());
    }
    flow.advance(direction, TcpFlags(parsed.tcp_flags), parsed.ip_length(), context.now)
}

/// Judges a flow by tables that are newer than those it was judged by. False when they deny it, or lead it back to where
/// it came from: the packet is then taken as the first of a new flow, which gives it its reason.
#[cold]
fn revalidate(context: &Context<'_>, flow: &mut Flow) -> bool {
    if rejudge(context, flow).is_err() {
        context.counters.flows_revoked.add(1);
        return false;
    }
    // A responder that has moved to another node is not followed there: the sender's node has to.
    let [in_port, _] = flow.in_ports;
    let way = context.tables.adjacency(flow.adjacencies[Direction::Original as usize]);
    route(context, in_port, way) != Err(DropReason::RouteLoops)
}

/// Judges a flow by the tables of now where that may make a difference, and counts it for the rules that allow it from
/// now on.
fn rejudge(context: &Context<'_>, flow: &mut Flow) -> Result<(), Denied> {
    let before = (flow.egress, flow.ingress, flow.revision);
    let outcome = context.tables.revalidate(flow);
    if outcome != Ok(false) {
        context.counters.passed(Stage::Revalidate, 1);
    }
    if outcome? {
        context.counters.rules.rejudged(before, flow);
    }
    Ok(())
}

/// A packet of no known flow: the tables say whether it may open one.
fn miss(
    context: &Context<'_>,
    scratch: &mut Scratch,
    memory: &mut Memory<'_>,
    at: usize,
    index: usize,
) -> Result<(), Fate> {
    let (key, hash, orientation) =
        (memory.keys.keys[at], memory.keys.hashes[at], memory.keys.orientations[at]);
    let parsed = &scratch.parsed[index];
    // An earlier packet of the batch may have opened it; and one that this packet opens anew is still there.
    if let Some(found) = memory.flows.lookup(&key, hash)
        && let Some(flow) = memory.flows.get_mut(found)
        && let direction = flow.direction(orientation)
        && !flow.is_reopened_by(direction, TcpFlags(parsed.tcp_flags))
    {
        advance(context, flow, direction, parsed).map_err(Fate::Dropped)?;
        scratch.flow[index] = Some((found, false));
        scratch.adjacency[index] = flow.adjacencies[direction as usize];
        return Ok(());
    }
    // The first fragment opens the flow or nothing does.
    if parsed.piece == Piece::Later {
        return Err(Fate::Dropped(DropReason::FragmentUnknown));
    }
    if parsed.is_icmp_reply() {
        return Err(Fate::Dropped(DropReason::FlowUnknown));
    }
    let in_port = scratch.ingress[index];
    let asked = Asked::of(context, in_port, parsed);
    let judged = asked.judge();
    if asked.is_to_be_told(&judged) {
        asked.tell(&judged, memory.log, hash);
    }
    let judgement = judged.map_err(|denied| {
        scratch.denied[index] = Some(denied.rule);
        Fate::Dropped(denied.reason)
    })?;
    let flow = asked.open(judgement, key, orientation)?;
    let adjacency = flow.adjacencies[Direction::Original as usize];
    let found = memory.flows.insert(hash, flow).map_err(|_| Fate::Dropped(DropReason::FlowTableFull))?;
    context.counters.flows_evicted.add(memory.flows.take_evicted());
    if let Some(flow) = memory.flows.get_mut(found) {
        flow.count(Direction::Original, parsed.ip_length());
        context.counters.rules.opened(flow);
    }
    context.counters.flows_created.add(1);
    scratch.flow[index] = Some((found, true));
    scratch.adjacency[index] = adjacency;
    Ok(())
}

/// The first packet of a flow, as policy is asked about it.
struct Asked<'a> {
    context: &'a Context<'a>,
    in_port: PortIndex,
    parsed: &'a Parsed,
    source: Leaf,
    destination: Leaf,
    port: u16,
}

impl<'a> Asked<'a> {
    fn of(context: &'a Context<'a>, in_port: PortIndex, parsed: &'a Parsed) -> Self {
        let tables = context.tables;
        let (source, destination) = (tables.lookup(parsed.source), tables.lookup(parsed.destination));
        let port = policy_port(parsed.protocol, parsed.destination_port);
        Self { context, in_port, parsed, source, destination, port }
    }

    fn judge(&self) -> Result<Judgement, Denied> {
        let Self { in_port, source, destination, .. } = *self;
        self.context.tables.judge(in_port, source, destination, self.parsed.protocol, self.port)
    }

    /// Whether anybody wants to know more of it than that it was opened.
    #[inline]
    fn is_to_be_told(&self, judged: &Result<Judgement, Denied>) -> bool {
        let unmarked = judged.is_ok_and(|judgement| judgement.marks == [None; 2]);
        !unmarked || self.context.tables.policy.staged().is_some()
    }

    /// Counts what was said for the rules that said it, and tells of it where that is worth it.
    #[cold]
    fn tell(&self, judged: &Result<Judgement, Denied>, log: &mut FlowLog, hash: u64) {
        let Context { tables, now, counters } = *self.context;
        let (rules, revision) = (&counters.rules, tables.revision);
        let (verdict, marks) = match judged {
            Ok(Judgement { egress, ingress, marks, .. }) => {
                (FlowVerdict::Allowed { egress: *egress, ingress: *ingress }, *marks)
            }
            Err(Denied { reason, rule, marks }) => {
                rules.denied(*rule, revision, self.parsed.ip_length());
                (FlowVerdict::Denied { reason: *reason, rule: *rule }, *marks)
            }
        };
        // A flood of what is denied comes here, packet by packet, and nearly all of it is neither marked nor staged.
        if marks != [None; 2] {
            marks.into_iter().flatten().for_each(|rule| rules.marked(rule, revision));
        }
        let Self { in_port, source, destination, parsed, .. } = *self;
        let allowed = judged.is_ok();
        let staged = if tables.policy.staged().is_some() { self.staged_otherwise(allowed) } else { None };
        if allowed && marks == [None; 2] && staged.is_none() {
            return;
        }
        log.tell(now, hash, allowed, || FlowRecord {
            time: now,
            revision,
            in_port,
            source: parsed.source,
            destination: parsed.destination,
            protocol: parsed.protocol,
            ports: parsed.told_ports(),
            identities: [source.identity, destination.identity],
            verdict,
            marks,
            staged,
            suppressed: 0,
        });
    }

    /// Counts what would be said, were what is staged in force, and gives it where that is another verdict.
    fn staged_otherwise(&self, allowed: bool) -> Option<StagedVerdict> {
        let Self { in_port, source, destination, parsed, .. } = *self;
        let Context { tables, counters, .. } = *self.context;
        let staged = tables.judge_staged(in_port, source, destination, parsed.protocol, self.port)?;
        for verdict in [staged.egress, staged.ingress].into_iter().flatten() {
            counters.rules.staged(verdict.allow, verdict.rule, tables.revision);
        }
        Some(staged).filter(|staged| staged.allow() != allowed)
    }

    /// The record of a flow that policy allows, where a way leads on. Policy came first: who may not send learns nothing
    /// about routes.
    fn open(&self, judgement: Judgement, key: FlowKey, orientation: Orientation) -> Result<Flow, Fate> {
        let Self { context, in_port, .. } = *self;
        let way = context.tables.adjacency(self.destination.adjacency);
        route(context, in_port, way).map_err(|reason| match reason {
            DropReason::NoRoute | DropReason::RouteUnreachable => {
                Fate::Reported(reason, IcmpError::Unreachable)
            }
            _ => Fate::Dropped(reason),
        })?;
        let new = NewFlow {
            key,
            orientation,
            in_port,
            reply_port: way.port(),
            judgement,
            revision: context.tables.revision,
            tcp_flags: TcpFlags(self.parsed.tcp_flags),
            now: context.now,
        };
        Flow::new(&new).map_err(Fate::Dropped)
    }
}

/// The destination port as policy sees it: type and code of an ICMP message, 0 for protocols without ports.
pub(crate) fn policy_port(protocol: u8, port: u16) -> u16 {
    match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6 => port,
        _ => 0,
    }
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

/// Sends ICMP errors to the end of the flow whose packet they quote. The flow neither advances nor lives longer by them.
#[cold]
fn related<B: Buffer>(
    context: &Context<'_>,
    scratch: &mut Scratch,
    packets: &[Packet<B>],
    flows: &mut FlowTable,
    errors: &Indices,
    next: &mut Indices,
) {
    for index in errors.iter() {
        let Some(packet) = packets.get(index) else { continue };
        let parsed = &scratch.parsed[index];
        let from_pod = context.tables.port(scratch.ingress[index]).role == Role::Pod;
        let way = quoted(packet.buffer.bytes(), parsed)
            // To the one who sent what is quoted; and a pod only speaks of what was sent to itself.
            .filter(|quote| quote.source == parsed.destination)
            .filter(|quote| !from_pod || quote.destination == parsed.source)
            .and_then(|quote| flow_of(context, flows, &quote));
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

/// The flow a quoted packet belongs to, when the tables still allow it, and which way that packet went.
fn flow_of<'a>(
    context: &Context<'_>,
    flows: &'a mut FlowTable,
    quote: &Parsed,
) -> Option<(&'a Flow, Direction, u64)> {
    let (key, orientation) = key_of(quote)?;
    let hash = flows.hash(&key);
    let found = flows.lookup(&key, hash)?;
    let flow = flows.get_mut(found)?;
    let current = flow.revision == context.tables.revision || rejudge(context, flow).is_ok();
    (current && !flow.is_expired(context.now)).then(|| (&*flow, flow.direction(orientation), hash))
}
