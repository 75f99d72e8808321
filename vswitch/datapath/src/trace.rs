//! What became of single packets, told step by step to whoever asked.
//!
//! A trace costs one branch a batch while nobody asks. The records go through a bounded queue; when its reader is too slow
//! records are lost, and the next one says how many.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use vswitch_model::{DropReason, RuleId, TunnelId};

use crate::encap::Carried;
use crate::flow::FlowTable;
use crate::parse::{Network, Parsed, protocol};
use crate::stage::flow::key_of;
use crate::stage::{Fate, Scratch};
use crate::tables::{Adjacency, Headers, Tables};
use crate::{BATCH, Buffer, Now, Packet, PortIndex};

/// Bytes of a packet kept in its record.
pub const HEAD: usize = 128;
/// Most steps of one record.
pub const STEPS_MAX: usize = 8;

/// Which packets are traced. What is `None` matches all. Addresses, protocol and ports are those of the inner packet when
/// it came by a tunnel; ARP and what could not be read has none, and matches only when nothing is asked of them.
#[derive(Debug, Clone, Default)]
pub struct TraceFilter {
    /// Its source.
    pub source: Option<IpAddr>,
    /// Its destination.
    pub destination: Option<IpAddr>,
    /// Its source or destination.
    pub address: Option<IpAddr>,
    /// Its IP protocol number.
    pub protocol: Option<u8>,
    /// Its source or destination port.
    pub port: Option<u16>,
    /// The port it came by.
    pub in_port: Option<PortIndex>,
    /// Only packets that were dropped.
    pub drops_only: bool,
}

impl TraceFilter {
    fn matches(&self, parsed: Option<&Parsed>, in_port: PortIndex, dropped: bool) -> bool {
        let of_packet = match parsed {
            Some(packet) => {
                let (source, destination) = (packet.source, packet.destination);
                self.source.is_none_or(|wanted| wanted == source)
                    && self.destination.is_none_or(|wanted| wanted == destination)
                    && self.address.is_none_or(|wanted| wanted == source || wanted == destination)
                    && self.protocol.is_none_or(|wanted| wanted == packet.protocol)
                    && self
                        .port
                        .is_none_or(|port| port == packet.source_port || port == packet.destination_port)
            }
            None => {
                let addresses = self.source.or(self.destination).or(self.address);
                addresses.is_none() && self.protocol.is_none() && self.port.is_none()
            }
        };
        of_packet && self.in_port.is_none_or(|wanted| wanted == in_port) && (dropped || !self.drops_only)
    }
}

/// What was decided about a packet at one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It was read.
    Parsed {
        /// Source address.
        source: IpAddr,
        /// Destination address.
        destination: IpAddr,
        /// IP protocol number.
        protocol: u8,
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// Its tunnel headers were taken off: a tunnel to the node it came from, and what it came in.
    Decapsulated(TunnelId, Carried),
    /// The engine answered it as the pod's gateway.
    Answered,
    /// It opened a flow, which these rules allowed.
    FlowOpened {
        /// What decided at the sender's end.
        egress: RuleId,
        /// What decided at the receiver's end.
        ingress: RuleId,
    },
    /// It belongs to a flow, which these rules allowed.
    FlowKnown {
        /// What decided at the originator's end.
        egress: RuleId,
        /// What decided at the responder's end.
        ingress: RuleId,
    },
    /// A rule denied it.
    Denied(RuleId),
    /// Its way was chosen.
    Routed(Way),
    /// It was dropped, and an ICMP error left in its place.
    Reported(DropReason),
}

/// The kind of way a packet took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To a pod of this node.
    Pod,
    /// To the node's kernel.
    Host,
    /// To another node, as it is.
    Direct,
    /// To another node, by this tunnel.
    Tunnel(TunnelId, Headers),
}

impl Way {
    pub(crate) fn of(adjacency: &Adjacency) -> Option<Self> {
        match adjacency {
            Adjacency::Pod { .. } => Some(Self::Pod),
            Adjacency::Host { .. } => Some(Self::Host),
            Adjacency::Direct { .. } => Some(Self::Direct),
            Adjacency::Tunnel { tunnel, template, .. } => Some(Self::Tunnel(*tunnel, template.headers())),
            Adjacency::Unresolved { .. } | Adjacency::Drop(_) => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("to a pod of this node"),
            Self::Host => f.write_str("to this node's kernel"),
            Self::Direct => f.write_str("to another node, not encapsulated"),
            Self::Tunnel(tunnel, headers) => {
                write!(f, "to another node, by {} tunnel {tunnel}", headers.name())
            }
        }
    }
}

impl Step {
    /// The stage it belongs to, for people.
    #[must_use]
    pub const fn stage(&self) -> &'static str {
        match self {
            Self::Parsed { .. } => "parse",
            Self::Decapsulated(..) => "decapsulate",
            Self::Answered => "answer",
            Self::FlowOpened { .. } | Self::FlowKnown { .. } => "flow",
            Self::Denied(_) => "policy",
            Self::Routed(_) => "route",
            Self::Reported(_) => "icmp-error",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parsed { source, destination, protocol, ports } => {
                write!(f, "{source} to {destination}, protocol {protocol}")?;
                match *protocol {
                    protocol::TCP | protocol::UDP | protocol::SCTP => {
                        write!(f, ", ports {} to {}", ports.0, ports.1)
                    }
                    protocol::ICMP | protocol::ICMPV6 => {
                        let [kind, code] = ports.1.to_be_bytes();
                        write!(f, ", type {kind} code {code}, identifier {}", ports.0)
                    }
                    _ => Ok(()),
                }
            }
            Self::Decapsulated(tunnel, carried) => {
                write!(f, "from the node of tunnel {tunnel}, in {carried}")
            }
            Self::Answered => f.write_str("answered as the pod's gateway"),
            Self::FlowOpened { egress, ingress } => {
                write!(f, "opened a flow: egress by rule {egress}, ingress by rule {ingress}")
            }
            Self::FlowKnown { egress, ingress } => {
                write!(f, "known flow: egress by rule {egress}, ingress by rule {ingress}")
            }
            Self::Denied(rule) => write!(f, "denied by rule {rule}"),
            Self::Routed(way) => way.fmt(f),
            Self::Reported(reason) => write!(f, "dropped ({reason}), and the sender told so"),
        }
    }
}

/// What became of one packet.
#[derive(Debug, Clone)]
pub struct TraceRecord {
    /// When its batch was handled.
    pub time: Now,
    /// The port it came by.
    pub in_port: PortIndex,
    /// Its length as it came, in bytes.
    pub length: usize,
    head: [u8; HEAD],
    steps: [Option<Step>; STEPS_MAX],
    /// The port it left by, or why it ended. A packet an ICMP error was sent for ended.
    pub outcome: Result<PortIndex, DropReason>,
    /// Records lost since the last one because the reader was too slow.
    pub lost: u64,
}

impl TraceRecord {
    /// Its first bytes as it came, at most [`HEAD`].
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head[..self.length.min(HEAD)]
    }

    /// What was decided, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }
}

/// A trace being taken.
#[derive(Debug, Clone)]
pub struct TraceSpec {
    /// Which packets.
    pub filter: TraceFilter,
    /// Where the records go; its capacity bounds their memory.
    pub records: Arc<ArrayQueue<TraceRecord>>,
}

/// A worker's end of a trace.
#[derive(Debug)]
pub(crate) struct Tracer {
    spec: TraceSpec,
    heads: Box<[[u8; HEAD]; BATCH]>,
    lengths: [usize; BATCH],
    lost: u64,
}

impl Tracer {
    pub(crate) fn new(spec: TraceSpec) -> Self {
        Self { spec, heads: Box::new([[0; HEAD]; BATCH]), lengths: [0; BATCH], lost: 0 }
    }

    /// Keeps how the packets came, before any stage changes them.
    pub(crate) fn capture<B: Buffer>(&mut self, packets: &[Packet<B>]) {
        for ((packet, head), length) in packets.iter().zip(self.heads.iter_mut()).zip(&mut self.lengths) {
            let bytes = packet.buffer.bytes();
            let kept = bytes.len().min(HEAD);
            head[..kept].copy_from_slice(&bytes[..kept]);
            *length = bytes.len();
        }
    }

    /// Tells what became of the batch's packets.
    pub(crate) fn record(
        &mut self,
        scratch: &Scratch,
        tables: &Tables,
        flows: &FlowTable,
        now: Now,
        count: usize,
    ) {
        for index in 0..count.min(BATCH) {
            let outcome = match (scratch.reported[index], scratch.fates.of(index)) {
                (Some(reason), _) | (None, Fate::Dropped(reason) | Fate::Reported(reason, _)) => Err(reason),
                (None, Fate::Sent | Fate::Held | Fate::Split | Fate::Segmented | Fate::Walking) => {
                    Ok(scratch.egress[index])
                }
            };
            let parsed = Some(&scratch.parsed[index]).filter(|parsed| parsed.network != Network::Arp);
            let in_port = scratch.ingress[index];
            if !self.spec.filter.matches(parsed, in_port, outcome.is_err()) {
                continue;
            }
            let record = TraceRecord {
                time: now,
                in_port,
                length: self.lengths[index],
                head: self.heads[index],
                steps: steps(scratch, tables, flows, index),
                outcome,
                lost: self.lost,
            };
            if self.spec.records.push(record).is_ok() {
                self.lost = 0;
            } else {
                self.lost += 1;
            }
        }
    }
}

fn steps(scratch: &Scratch, tables: &Tables, flows: &FlowTable, index: usize) -> [Option<Step>; STEPS_MAX] {
    let parsed = &scratch.parsed[index];
    // Its record may be another flow's by now: a later packet of the batch may have made it give way.
    let key = key_of(parsed).map(|(key, _)| key);
    let flow = scratch.flow[index].and_then(|(flow, opened)| Some((flows.get(flow)?, opened)));
    let flow = flow.filter(|(flow, _)| Some(flow.key) == key);
    let way = Way::of(tables.adjacency(scratch.adjacency[index]));
    [
        scratch.tunnel[index].map(|(tunnel, carried)| Step::Decapsulated(tunnel, carried)),
        (parsed.network != Network::Arp).then_some(Step::Parsed {
            source: parsed.source,
            destination: parsed.destination,
            protocol: parsed.protocol,
            ports: parsed.told_ports(),
        }),
        scratch.answered[index].then_some(Step::Answered),
        flow.map(|(flow, opened)| {
            let (egress, ingress) = (flow.egress, flow.ingress);
            if opened { Step::FlowOpened { egress, ingress } } else { Step::FlowKnown { egress, ingress } }
        }),
        scratch.denied[index].map(Step::Denied),
        way.filter(|_| scratch.routed(index)).map(Step::Routed),
        scratch.reported[index].map(Step::Reported),
        None,
    ]
}
