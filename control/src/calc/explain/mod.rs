//! Why the first packet of a flow would pass or not, read straight from the objects.
//!
//! This is another way to the verdicts that [`super::calculate`] compiles, kept apart from it on purpose: each is the
//! other's oracle in tests. What they share is the form policies are read in, their order, and which labels a selector
//! means. Here a rule is asked of an address, a pod and a port; there is no set, identity or range of what is left.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, Owner, describe_labels};
use super::policy::{Placed, in_order};
use super::{Inputs, LearnedNames};
use crate::object::PolicyType;

mod ends;
mod judge;
mod listing;
mod matching;
mod source_port;
mod words;

pub use listing::Listed;

/// One end of a flow, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A pod, by namespace and name.
    Pod(String, String),
    /// An address, whoever has it.
    Address(IpAddr),
}

impl FromStr for End {
    type Err = std::convert::Infallible;

    /// `namespace/pod`, `pod` (namespace default), or an address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::within("default", text))
    }
}

impl End {
    /// `namespace/pod`, `pod` (of the namespace given), or an address. `node/name` is a pod's name here; who has no such
    /// pod takes it for a node.
    #[must_use]
    pub fn within(namespace: &str, text: &str) -> Self {
        text.parse().map(Self::Address).unwrap_or_else(|_| {
            let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
            Self::Pod(namespace.to_owned(), name.to_owned())
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "{namespace}/{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The flow asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who sends its first packet.
    pub from: End,
    /// Who gets it.
    pub to: End,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; of ICMP and ICMPv6 `type << 8 | code`; means nothing for other protocols.
    pub port: u16,
    /// Source port, which means nothing but for TCP, UDP and SCTP. None: one that no rule names.
    pub source_port: Option<u16>,
    /// Family wanted where both ends have both: true for IPv4, false for IPv6, None for IPv4 when there is one.
    pub is_ipv4: Option<bool>,
}

/// Why it cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such pod, and what may have been meant.
    #[error("pod {0} is not there{1}")]
    NoPod(End, String),
    /// The pod has no address.
    #[error("pod {0} is there, but has no address: {1}")]
    NoAddress(End, &'static str),
    /// A word that can only be meant for an address.
    #[error("{0} is not an address; 10.0.0.1 or fd00::1 would be one")]
    NotAnAddress(String),
    /// The ends have no family in common, or not the one asked for.
    #[error("{0} and {1} have no address of one family{2}")]
    NoFamily(End, End, &'static str),
}

/// What would become of the flow, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether both ends allow it.
    pub allowed: bool,
    /// The sender, in words.
    pub from: String,
    /// The address it sends from.
    pub from_address: IpAddr,
    /// The node that is or has the sender, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_node: Option<String>,
    /// The port it sends from: the one asked about, or one that no rule names.
    pub source_port: u16,
    /// The receiver, in words.
    pub to: String,
    /// The address it sends to.
    pub to_address: IpAddr,
    /// The node that is or has the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_node: Option<String>,
    /// Whether the sender is a pod, and the receiver another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_pod: bool,
    /// What the sender's egress says.
    pub egress: Side,
    /// What the receiver's ingress says.
    pub ingress: Side,
}

/// What one end says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Side {
    /// Whether it allows the flow.
    pub allowed: bool,
    /// Whether any policy isolates it in this direction.
    pub isolated: bool,
    /// Policies that isolate it, in the order they are asked, with their tier unless it is the default one:
    /// `ClusterNetworkPolicy guard (tier kube-admin)`, `NetworkPolicy media/relay`.
    pub policies: Vec<String>,
    /// The policy that decided; empty when none did.
    pub policy: String,
    /// Where in it: `ingress rule 1, from 2`.
    pub position: String,
    /// In words.
    pub reason: String,
    /// What would have to change to turn it round.
    pub hint: String,
    /// What would become of it if all that is staged were in force; empty when nothing that is staged concerns it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub staged: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |allowed| if allowed { "allowed" } else { "denied" };
        writeln!(f, "{}: {} -> {}", verdict(self.allowed), self.from, self.to)?;
        for (name, side) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            write!(f, "  {name}: {}: {}", verdict(side.allowed), side.reason)?;
            if !side.hint.is_empty() {
                write!(f, "\n    {}", side.hint)?;
            }
            if !side.staged.is_empty() {
                write!(f, "\n    staged: {}", side.staged)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Explanation {
    /// Takes in that pods may not send such a tunnel packet of their own: then policy is not asked as it leaves.
    pub fn refuse_tunnel(&mut self) {
        self.allowed = false;
        self.egress = Side {
            reason: "pods may not send tunnel packets of this kind".to_owned(),
            hint: "vxlan_from_pods and ipip_from_pods of the node's agent would let them".to_owned(),
            ..Side::default()
        };
    }
}

/// What would become of the first packet of a flow, and why.
pub fn explain(inputs: &Inputs, question: &Question) -> Result<Explanation, ExplainError> {
    Explainer::new(inputs).explain(question)
}

/// Answers any number of questions about the same objects.
#[derive(Debug)]
pub struct Explainer<'a> {
    inputs: &'a Inputs,
    cluster: Cluster<'a>,
    /// In the order in which they are asked.
    policies: Vec<Placed>,
}

impl<'a> Explainer<'a> {
    /// Reads the objects.
    #[must_use]
    pub fn new(inputs: &'a Inputs) -> Self {
        // Whoever calculates tells of problems.
        let mut problems = BTreeSet::new();
        let cluster = Cluster::of(inputs, &mut problems);
        let policies = in_order(inputs, &cluster.referred, &mut problems);
        Self { inputs, cluster, policies }
    }

    /// What would become of the first packet of a flow, and why.
    pub fn explain(&self, question: &Question) -> Result<Explanation, ExplainError> {
        let flow = self.flow(question)?;
        let (from, to) = (flow.from, flow.to);
        let (egress, ingress) = (flow.judge(PolicyType::Egress), flow.judge(PolicyType::Ingress));
        Ok(Explanation {
            allowed: egress.allowed && ingress.allowed,
            from: flow.describe(from),
            from_address: from.address,
            from_node: flow.node_of(from),
            source_port: flow.source_port,
            to: flow.describe(to),
            to_address: to.address,
            to_node: flow.node_of(to),
            leaves_pod: flow.leaves_pod(),
            egress,
            ingress,
        })
    }

    fn flow(&self, question: &Question) -> Result<Flow<'_>, ExplainError> {
        let (from, to) = ends::ends(self.inputs, &self.cluster, question)?;
        let (protocol, port) = (question.protocol, question.port);
        let names = &*self.inputs.names;
        let source_port = question.source_port.unwrap_or_else(|| self.unnamed_source_port(protocol, from));
        Ok(Flow {
            policies: &self.policies,
            cluster: &self.cluster,
            from,
            to,
            protocol,
            port,
            source_port,
            is_any_source_port: question.source_port.is_none(),
            names,
        })
    }
}

/// An address, and who has it.
#[derive(Clone, Copy)]
struct Place<'a> {
    address: IpAddr,
    owner: Option<Owner<'a>>,
}

/// The flow, and what there is to judge it by.
struct Flow<'a> {
    policies: &'a [Placed],
    cluster: &'a Cluster<'a>,
    from: Place<'a>,
    to: Place<'a>,
    protocol: u8,
    port: u16,
    source_port: u16,
    /// Whether nobody asked about that one.
    is_any_source_port: bool,
    names: &'a LearnedNames,
}

impl<'a> Flow<'a> {
    /// The pod's own end, and the other.
    const fn ends(&self, direction: PolicyType) -> (Place<'a>, Place<'a>) {
        match direction {
            PolicyType::Ingress => (self.to, self.from),
            PolicyType::Egress => (self.from, self.to),
        }
    }

    fn leaves_pod(&self) -> bool {
        let Place { address, owner } = self.from;
        match owner {
            Some(Owner::Pod(pod)) => {
                owner != self.to.owner || !self.cluster.pods[pod].has_together(address, self.to.address)
            }
            _ => false,
        }
    }

    fn node_of(&self, place: Place<'_>) -> Option<String> {
        match place.owner? {
            Owner::Node(name) => Some(name.to_owned()),
            Owner::Pod(pod) => self.cluster.pods[pod].addresses.get(&place.address)?.map(ToOwned::to_owned),
        }
    }

    fn describe(&self, place: Place<'_>) -> String {
        let address = place.address;
        match place.owner {
            None => address.to_string(),
            Some(Owner::Node(name)) => format!("node {name} ({address})"),
            Some(Owner::Pod(pod)) => {
                let pod = &self.cluster.pods[pod];
                let labels = describe_labels(pod.labels.as_ref());
                match pod.name {
                    "" => format!("a container that is no pod ({address})"),
                    name => format!("pod {}/{name} {labels} ({address})", pod.namespace),
                }
            }
        }
    }

    fn describe_port(&self) -> String {
        let [kind, code] = self.port.to_be_bytes();
        match self.protocol {
            6 => format!("TCP {}", self.port),
            17 => format!("UDP {}", self.port),
            132 => format!("SCTP {}", self.port),
            1 => format!("ICMP type {kind} code {code}"),
            58 => format!("ICMPv6 type {kind} code {code}"),
            other => format!("protocol {other}"),
        }
    }
}
