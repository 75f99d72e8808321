//! What the engine would do with the first packet of a flow, in words. It asks the tables the walk asks.

use std::fmt;
use std::net::IpAddr;

use vswitch_model::{DropReason, RuleId};

use crate::PortIndex;
use crate::parse::protocol;
use crate::policy::{FlowPorts, Verdict};
use crate::stage::source::is_gateway;
use crate::stage::{is_destination, is_source};
use crate::tables::{Adjacency, AdjacencyIndex, Leaf, Question, Role, StagedVerdict, Tables};
use crate::trace::Way;

/// A packet that might come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Who sends it; where it comes in follows from that.
    pub source: IpAddr,
    /// Who it is for.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; means nothing but for TCP, UDP and SCTP.
    pub source_port: u16,
    /// Destination port; 0 for protocols without.
    pub destination_port: u16,
}

/// One direction's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleVerdict {
    /// Whether it allows the flow.
    pub allowed: bool,
    /// What decided.
    pub rule: RuleId,
}

/// What was decided, and why, at one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainStep {
    /// The stage.
    pub stage: &'static str,
    /// What it decided, in words.
    pub detail: String,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The port it would come by, when that is known.
    pub in_port: Option<PortIndex>,
    /// Step by step.
    pub steps: Vec<ExplainStep>,
    /// The sender's end, when that is a pod of this node.
    pub egress: Option<RuleVerdict>,
    /// The receiver's end, when that is a pod of this node.
    pub ingress: Option<RuleVerdict>,
    /// The port it would leave by (the first of them, where there are several next hops), or why it would end.
    pub outcome: Result<PortIndex, DropReason>,
}

impl Explanation {
    fn say(&mut self, stage: &'static str, detail: impl fmt::Display) {
        self.steps.push(ExplainStep { stage, detail: detail.to_string() });
    }
}

/// Walks a hypothetical first packet through the tables. Both directions of policy are asked even when the first denies,
/// so that everything that stands in the way is told at once.
#[must_use]
pub fn explain(tables: &Tables, query: &Query) -> Explanation {
    let mut told = Explanation {
        in_port: None,
        steps: Vec::new(),
        egress: None,
        ingress: None,
        outcome: Err(DropReason::NotConfigured),
    };
    told.outcome = walk(tables, query, &mut told);
    match told.outcome {
        Ok(port) => told.say("transmit", format_args!("sent by port {}", name(tables, port))),
        Err(reason) => told.say("drop", format_args!("{reason}: {}", reason.meaning())),
    }
    told
}

fn walk(tables: &Tables, query: &Query, told: &mut Explanation) -> Result<PortIndex, DropReason> {
    if tables.local().is_none() {
        return Err(DropReason::NotConfigured);
    }
    if query.source.is_ipv4() != query.destination.is_ipv4() {
        told.say("parse", "source and destination are of different families");
        return Err(DropReason::DestinationInvalid);
    }
    let (source, destination) = (tables.lookup(query.source), tables.lookup(query.destination));
    let in_port = enter(tables, query, source, told)?;
    told.in_port = Some(in_port);
    if is_gateway(query.destination) && tables.port(in_port).role == Role::Pod {
        if !matches!(query.protocol, protocol::ICMP | protocol::ICMPV6) {
            return Err(DropReason::DestinationInvalid);
        }
        told.say("answer", "the engine answers pings of the pod's gateway itself");
        return Ok(in_port);
    }
    if !is_destination(query.destination) {
        return Err(DropReason::DestinationInvalid);
    }
    let way = tables.adjacency(destination.adjacency);
    describe(tables, told, query.destination, destination, way);
    policy(tables, query, in_port, source, destination, told)?;
    if let Some(reason) = way.drop_reason() {
        return Err(reason);
    }
    let port = way.port().ok_or(DropReason::NoRoute)?;
    let uplink = |port| tables.port(port).role == Role::Uplink;
    if port == in_port || (uplink(port) && uplink(in_port)) {
        return Err(DropReason::RouteLoops);
    }
    // By whichever next hop it goes.
    let mtu = tables.members(destination.adjacency).map(Adjacency::mtu).min().unwrap_or_default();
    told.say("forward", format_args!("fits up to {mtu} bytes"));
    Ok(port)
}

/// Where a packet from `source` would come in.
fn enter(
    tables: &Tables,
    query: &Query,
    leaf: Leaf,
    told: &mut Explanation,
) -> Result<PortIndex, DropReason> {
    if !is_source(query.source) {
        return Err(DropReason::SourceInvalid);
    }
    let (address, identity) = (query.source, leaf.identity);
    let adjacency = tables.adjacency(leaf.adjacency);
    let port = match adjacency {
        Adjacency::Unresolved { .. } => {
            tables.ports().find(|(_, port)| port.role == Role::Uplink).map(|(port, _)| port)
        }
        _ => adjacency.port(),
    };
    let Some(port) = port else {
        told.say(
            "source",
            format_args!(
                "{address} (identity {identity}): no route leads there, so nothing comes from there"
            ),
        );
        return Err(adjacency.drop_reason().unwrap_or(DropReason::NoRoute));
    };
    let kind = match tables.port(port).role {
        Role::Pod => "a pod of this node",
        Role::Host => "behind this node's kernel",
        Role::Uplink => "on another node",
        Role::None => "behind a port that is gone",
    };
    let name = name(tables, port);
    told.say("source", format_args!("{address} is {kind} (identity {identity}); it comes by port {name}"));
    Ok(port)
}

fn describe(tables: &Tables, told: &mut Explanation, address: IpAddr, leaf: Leaf, adjacency: &Adjacency) {
    let identity = leaf.identity;
    match Way::of(adjacency) {
        Some(way) => told.say("route", format_args!("{address} (identity {identity}): {way}")),
        None => told.say("route", format_args!("{address} (identity {identity}): no way there")),
    }
    if let Some(group) = tables.groups.get(&leaf.adjacency) {
        let hops: Vec<String> = group.shares().map(|(index, share)| hop(tables, index, share)).collect();
        told.say("next-hop", format_args!("one of {}, by the flow's hash: {}", hops.len(), hops.join(", ")));
    }
}

/// A next hop of several, in words.
fn hop(tables: &Tables, index: AdjacencyIndex, share: usize) -> String {
    let adjacency = tables.adjacency(index);
    match (adjacency.station(), adjacency.port()) {
        (Some(mac), Some(port)) => format!("{mac} by port {} ({share} %)", name(tables, port)),
        _ => format!("one that is not resolved ({share} %)"),
    }
}

fn policy(
    tables: &Tables,
    query: &Query,
    in_port: PortIndex,
    source: Leaf,
    destination: Leaf,
    told: &mut Explanation,
) -> Result<(), DropReason> {
    let Query { protocol, source_port, destination_port, .. } = *query;
    let ports = FlowPorts { protocol, destination: destination_port, source: source_port };
    let is_pods = tables.port(in_port).role == Role::Pod;
    let is_refused = is_pods && tables.refuses_tunnel(ports);
    if is_pods {
        let verdict = if is_refused {
            Verdict { allow: false, rule: RuleId::TUNNEL_FROM_POD, log: None }
        } else {
            tables.policy.egress(source.identity, destination.identity, ports)
        };
        told.egress = Some(RuleVerdict { allowed: verdict.allow, rule: verdict.rule });
        told.say("policy-egress", Words(verdict));
    }
    if tables.adjacency(destination.adjacency).is_pod() {
        let verdict = tables.policy.ingress(destination.identity, source.identity, ports);
        told.ingress = Some(RuleVerdict { allowed: verdict.allow, rule: verdict.rule });
        told.say("policy-ingress", Words(verdict));
    }
    let staged = tables.judge_staged(&Question { in_port, source, destination, ports });
    if let Some(StagedVerdict { egress, ingress }) = staged {
        for (stage, verdict) in [("staged-egress", egress), ("staged-ingress", ingress)] {
            if let Some(verdict) = verdict {
                told.say(stage, format_args!("were what is staged in force: {}", Words(verdict)));
            }
        }
    }
    if is_refused {
        return Err(DropReason::TunnelFromPod);
    }
    if told.egress.is_some_and(|verdict| !verdict.allowed) {
        return Err(DropReason::PolicyEgress);
    }
    if told.ingress.is_some_and(|verdict| !verdict.allowed) {
        return Err(DropReason::PolicyIngress);
    }
    Ok(())
}

/// A verdict for people.
struct Words(Verdict);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Verdict { allow, rule, log }) = *self;
        f.write_str(if allow { "allowed" } else { "denied" })?;
        match rule {
            RuleId::NOT_ISOLATED => {
                f.write_str(": no policy isolates the pod, or those that do leave it to be allowed")
            }
            RuleId::NO_RULE_MATCHED => f.write_str(": policy isolates the pod, and no rule matched"),
            RuleId::TOO_LARGE => {
                f.write_str(": the pod's policy is too large for the engine, see its status")
            }
            RuleId::LOCAL_NODE => f.write_str(": the node always reaches its own pods"),
            RuleId::TUNNEL_FROM_POD => f.write_str(": pods may not send tunnel packets of this kind"),
            rule => write!(f, " by rule {rule}"),
        }?;
        log.map_or(Ok(()), |log| write!(f, ", and logged by rule {log}"))
    }
}

fn name(tables: &Tables, port: PortIndex) -> String {
    tables.port(port).name.as_ref().map_or_else(|| format!("number {}", port.0), ToString::to_string)
}
