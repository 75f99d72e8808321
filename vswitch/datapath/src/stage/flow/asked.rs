//! Asking policy about flows, and telling of them.

use std::net::IpAddr;

use vswitch_model::DropReason;

use super::route;
use crate::PortIndex;
use crate::flow::{Direction, Flow, FlowKey, NewFlow, Orientation, TcpFlags};
use crate::flow_log::{FlowLog, FlowRecord, FlowVerdict};
use crate::icmp::IcmpError;
use crate::parse::Parsed;
use crate::policy::FlowPorts;
use crate::stage::{Context, Fate};
use crate::tables::{Denied, Judgement, Leaf, StagedVerdict, Tables};

/// The first packet of a flow, as policy is asked about it.
pub(super) struct Asked<'a> {
    context: &'a Context<'a>,
    in_port: PortIndex,
    parsed: &'a Parsed,
    source: Leaf,
    destination: Leaf,
    ports: FlowPorts,
}

impl<'a> Asked<'a> {
    pub(super) fn of(context: &'a Context<'a>, in_port: PortIndex, parsed: &'a Parsed) -> Self {
        let tables = context.tables;
        let (source, destination) = (tables.lookup(parsed.source), tables.lookup(parsed.destination));
        let ports = FlowPorts {
            protocol: parsed.protocol,
            destination: parsed.destination_port,
            source: parsed.source_port,
        };
        Self { context, in_port, parsed, source, destination, ports }
    }

    pub(super) fn judge(&self) -> Result<Judgement, Denied> {
        let Self { in_port, source, destination, ports, .. } = *self;
        self.context.tables.judge(in_port, source, destination, ports)
    }

    /// Whether anybody wants to know more of it than that it was opened.
    #[inline]
    pub(super) fn is_to_be_told(&self, judged: &Result<Judgement, Denied>) -> bool {
        is_to_be_told(self.context.tables, judged)
    }

    /// Counts what was said for the rules that said it, and tells of it where that is worth it.
    #[cold]
    pub(super) fn tell(&self, judged: &Result<Judgement, Denied>, log: &mut FlowLog, hash: u64) {
        let Self { context, in_port, parsed, source, destination, ports } = *self;
        if let Err(Denied { rule, .. }) = judged {
            context.counters.rules.denied(*rule, context.tables.revision, parsed.ip_length());
        }
        let told = Told {
            context,
            in_port,
            ends: [parsed.source, parsed.destination],
            leaves: [source, destination],
            told_ports: parsed.told_ports(),
            ports,
        };
        told.tell(judged, log, hash);
    }

    /// The record of a flow that policy allows, where a way leads on. Policy came first: who may not send learns nothing
    /// about routes.
    pub(super) fn open(
        &self,
        judgement: Judgement,
        key: FlowKey,
        orientation: Orientation,
    ) -> Result<Flow, Fate> {
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

/// Whether anybody wants to know more of what was judged so than that it was.
#[inline]
fn is_to_be_told(tables: &Tables, judged: &Result<Judgement, Denied>) -> bool {
    let unmarked = judged.is_ok_and(|judgement| judgement.marks == [None; 2]);
    !unmarked || tables.policy.staged().is_some()
}

/// Counts for the rules that log, and for what is staged, that a flow was judged anew, and tells of it: the policy that
/// says so may not have been there when it was opened.
pub(super) fn tell_again(
    context: &Context<'_>,
    flow: &Flow,
    judged: &Result<Judgement, Denied>,
    log: &mut FlowLog,
    hash: u64,
) {
    let tables = context.tables;
    if !is_to_be_told(tables, judged) {
        return;
    }
    let [(source, source_port), (destination, destination_port)] =
        [flow.end(Direction::Original), flow.end(Direction::Reply)];
    let told = Told {
        context,
        in_port: flow.in_ports[Direction::Original as usize],
        ends: [source, destination],
        leaves: [tables.lookup(source), tables.lookup(destination)],
        told_ports: (source_port, destination_port),
        ports: flow.policy_ports(),
    };
    told.tell(judged, log, hash);
}

/// A flow that was judged. Arrays have the originator first.
struct Told<'a> {
    context: &'a Context<'a>,
    in_port: PortIndex,
    ends: [IpAddr; 2],
    leaves: [Leaf; 2],
    /// As [`FlowRecord::ports`].
    told_ports: (u16, u16),
    /// As policy sees them.
    ports: FlowPorts,
}

impl Told<'_> {
    fn tell(&self, judged: &Result<Judgement, Denied>, log: &mut FlowLog, hash: u64) {
        let Context { tables, now, counters } = *self.context;
        let (verdict, marks) = match judged {
            Ok(Judgement { egress, ingress, marks, .. }) => {
                (FlowVerdict::Allowed { egress: *egress, ingress: *ingress }, *marks)
            }
            Err(Denied { reason, rule, marks }) => {
                (FlowVerdict::Denied { reason: *reason, rule: *rule }, *marks)
            }
        };
        // A flood of what is denied comes here, packet by packet, and nearly all of it is neither marked nor staged.
        if marks != [None; 2] {
            marks.into_iter().flatten().for_each(|rule| counters.rules.marked(rule, tables.revision));
        }
        let allowed = judged.is_ok();
        let staged = if tables.policy.staged().is_some() { self.staged_otherwise(allowed) } else { None };
        if allowed && marks == [None; 2] && staged.is_none() {
            return;
        }
        let Self { in_port, ends: [source, destination], leaves, ports, told_ports, .. } = *self;
        log.tell(now, hash, allowed, || FlowRecord {
            time: now,
            revision: tables.revision,
            in_port,
            source,
            destination,
            protocol: ports.protocol,
            ports: told_ports,
            identities: leaves.map(|leaf| leaf.identity),
            verdict,
            marks,
            staged,
            suppressed: 0,
        });
    }

    /// Counts what would be said, were what is staged in force, and gives it where that is another verdict.
    fn staged_otherwise(&self, allowed: bool) -> Option<StagedVerdict> {
        let Self { in_port, leaves: [source, destination], ports, .. } = *self;
        let Context { tables, counters, .. } = *self.context;
        let staged = tables.judge_staged(in_port, source, destination, ports)?;
        for verdict in [staged.egress, staged.ingress].into_iter().flatten() {
            counters.rules.staged(verdict.allow, verdict.rule, tables.revision);
        }
        Some(staged).filter(|staged| staged.allow() != allowed)
    }
}
