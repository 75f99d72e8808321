//! Why the first packet of a flow would pass or not, read straight from the objects.
//!
//! This is another way to the verdicts that [`super::calculate`] compiles, kept apart from it on purpose: each is the
//! other's oracle in tests.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Inputs;
use super::cluster::{Cluster, Owner, PodView, Selection, describe_labels};
use super::policy::position;
use crate::object::{
    LabelSelector, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, PolicyPort, PolicyType,
};

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
        Ok(text.parse().map(Self::Address).unwrap_or_else(|_| {
            let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
            Self::Pod(namespace.to_owned(), name.to_owned())
        }))
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
    /// Destination port; means nothing for protocols without ports.
    pub port: u16,
    /// Family wanted where both ends have both: true for IPv4, false for IPv6, None for IPv4 when there is one.
    pub is_ipv4: Option<bool>,
}

/// Why it cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such pod, or none with addresses.
    #[error("pod {0} is not there, or has no address yet")]
    NoPod(End),
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
    /// The receiver, in words.
    pub to: String,
    /// The address it sends to.
    pub to_address: IpAddr,
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
    /// Policies that isolate it, in the order they are asked: `NetworkPolicy media/relay`.
    pub policies: Vec<String>,
    /// The policy that decided; empty when none did.
    pub policy: String,
    /// Where in it: `ingress rule 1, from 2`.
    pub position: String,
    /// In words.
    pub reason: String,
    /// What would have to change to turn it round.
    pub hint: String,
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
            writeln!(f)?;
        }
        Ok(())
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
}

impl<'a> Explainer<'a> {
    /// Reads the objects.
    #[must_use]
    pub fn new(inputs: &'a Inputs) -> Self {
        Self { inputs, cluster: Cluster::of(inputs, &mut std::collections::BTreeSet::new()) }
    }

    /// What would become of the first packet of a flow, and why.
    pub fn explain(&self, question: &Question) -> Result<Explanation, ExplainError> {
        let (from, to) = ends(self.inputs, &self.cluster, question)?;
        let (protocol, port) = (question.protocol, question.port);
        let flow = Flow { inputs: self.inputs, cluster: &self.cluster, from, to, protocol, port };
        let (egress, ingress) = (flow.judge(PolicyType::Egress), flow.judge(PolicyType::Ingress));
        Ok(Explanation {
            allowed: egress.allowed && ingress.allowed,
            from: flow.describe(from),
            from_address: from.address,
            to: flow.describe(to),
            to_address: to.address,
            egress,
            ingress,
        })
    }
}

/// An address, and who has it.
#[derive(Clone, Copy)]
struct Place<'a> {
    address: IpAddr,
    owner: Option<Owner<'a>>,
}

fn ends<'a>(
    inputs: &Inputs,
    cluster: &Cluster<'a>,
    question: &Question,
) -> Result<(Place<'a>, Place<'a>), ExplainError> {
    let (from, to) = (addresses(inputs, cluster, &question.from)?, addresses(inputs, cluster, &question.to)?);
    let families = match question.is_ipv4 {
        None => vec![true, false],
        Some(is_ipv4) => vec![is_ipv4],
    };
    let of_family =
        |addresses: &[IpAddr], is_ipv4| addresses.iter().copied().find(|a| a.is_ipv4() == is_ipv4);
    let pair =
        families.into_iter().find_map(|is_ipv4| Some((of_family(&from, is_ipv4)?, of_family(&to, is_ipv4)?)));
    let Some((from, to)) = pair else {
        let asked = match question.is_ipv4 {
            None => "",
            Some(true) => ": IPv4 was asked for",
            Some(false) => ": IPv6 was asked for",
        };
        return Err(ExplainError::NoFamily(question.from.clone(), question.to.clone(), asked));
    };
    let place = |address| Place { address, owner: cluster.owners.get(&address).copied() };
    Ok((place(from), place(to)))
}

fn addresses(inputs: &Inputs, cluster: &Cluster<'_>, end: &End) -> Result<Vec<IpAddr>, ExplainError> {
    let (namespace, name) = match end {
        End::Address(address) => return Ok(vec![*address]),
        End::Pod(namespace, name) => (namespace, name),
    };
    let pod = cluster.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name);
    let mut found: Vec<IpAddr> = pod.map(|pod| pod.addresses.keys().copied().collect()).unwrap_or_default();
    if let Some(object) = inputs.pods.get(&(namespace.clone(), name.clone()))
        && object.spec.host_network
        && let Some(node) = object.spec.node_name.as_deref().and_then(|node| cluster.nodes.get(node))
    {
        found.extend(&node.addresses);
    }
    if found.is_empty() { Err(ExplainError::NoPod(end.clone())) } else { Ok(found) }
}

struct Flow<'a> {
    inputs: &'a Inputs,
    cluster: &'a Cluster<'a>,
    from: Place<'a>,
    to: Place<'a>,
    protocol: u8,
    port: u16,
}

/// A rule that does not let the flow through, and what is missing.
struct NearMiss {
    place: String,
    peer_matches: bool,
}

impl<'a> Flow<'a> {
    fn judge(&self, direction: PolicyType) -> Side {
        let (own, other) = match direction {
            PolicyType::Ingress => (self.to, self.from),
            PolicyType::Egress => (self.from, self.to),
        };
        let Some(Owner::Pod(pod)) = own.owner else {
            return Side::open(format!("{} is no pod: no policy speaks of it", self.describe(own)));
        };
        let pod = &self.cluster.pods[pod];
        if own.owner == other.owner && pod.has_together(own.address, other.address) {
            return Side::open("a pod always reaches itself".into());
        }
        if let (PolicyType::Ingress, Some(Owner::Node(node))) = (direction, other.owner)
            && pod.addresses.get(&own.address) == Some(&Some(node))
        {
            return Side::open(format!("node {node} always reaches its own pods"));
        }
        let may_select = self.isolating(pod, direction, Selection::Unknown);
        let policies = self.isolating(pod, direction, Selection::Selected);
        if !may_select.is_empty() {
            return Side {
                isolated: true,
                policies: policies.iter().chain(&may_select).map(|policy| name_of(policy)).collect(),
                reason: format!(
                    "the labels of {} are not known, and a policy may select it",
                    self.describe(own)
                ),
                hint: "nothing is allowed until its Pod object is there".into(),
                ..Side::default()
            };
        }
        if policies.is_empty() {
            let mut side =
                Side::open(format!("no policy isolates {} for {}", self.describe(own), direction.text()));
            side.hint = format!(
                "any policy that selects it, with {direction:?} among its policyTypes, would isolate it"
            );
            return side;
        }
        let (matching, misses) = self.read(&policies, other, direction);
        self.verdict(&policies, other, &matching, &misses)
    }

    /// Policies that isolate a direction of the pod, if they select it like this.
    fn isolating(&self, pod: &PodView<'_>, direction: PolicyType, like: Selection) -> Vec<&'a NetworkPolicy> {
        let policies = self.inputs.policies.values().map(AsRef::as_ref);
        policies
            .filter(|policy: &&NetworkPolicy| {
                pod.selection(policy.namespace(), &policy.spec.pod_selector) == like
            })
            .filter(|policy| policy.isolates(direction))
            .collect()
    }

    /// The rules that let the flow through, by policy and position, and those that nearly do.
    fn read(
        &self,
        policies: &[&NetworkPolicy],
        other: Place<'_>,
        direction: PolicyType,
    ) -> (Vec<(String, String)>, Vec<NearMiss>) {
        let (mut matching, mut misses) = (Vec::new(), Vec::new());
        for policy in policies {
            for (index, rule) in policy.rules(direction).into_iter().enumerate() {
                let port = rule.ports.is_empty() || rule.ports.iter().any(|port| self.is_at(port));
                let peers: Vec<Option<&NetworkPolicyPeer>> =
                    if rule.peers.is_empty() { vec![None] } else { rule.peers.iter().map(Some).collect() };
                for (peer_index, peer) in peers.into_iter().enumerate() {
                    let place = position(direction, index, peer.map(|_| peer_index));
                    let is_peer = peer.is_none_or(|peer| self.is_peer(policy, peer, other));
                    if port && is_peer {
                        matching.push((name_of(policy), place));
                    } else if port || is_peer {
                        let place = format!("{}, {place}", name_of(policy));
                        misses.push(NearMiss { place, peer_matches: is_peer });
                    }
                }
            }
        }
        (matching, misses)
    }

    fn verdict(
        &self,
        policies: &[&NetworkPolicy],
        other: Place<'_>,
        matching: &[(String, String)],
        misses: &[NearMiss],
    ) -> Side {
        let names: Vec<_> = policies.iter().map(|policy| name_of(policy)).collect();
        let mut side = Side { isolated: true, policies: names, ..Side::default() };
        let (peer, port) = (self.describe(other), self.describe_port());
        if let [(policy, place), others @ ..] = matching {
            side.allowed = true;
            (side.policy, side.position) = (policy.clone(), place.clone());
            side.reason = format!("{policy}, {place} allows it");
            let others: Vec<_> = others.iter().map(|(policy, place)| format!("{policy}, {place}")).collect();
            side.hint = if others.is_empty() {
                "without that rule it would be denied".into()
            } else {
                format!("without that rule it would still be allowed, by {}", others.join("; "))
            };
            return side;
        }
        side.reason = format!("isolated by {}; no rule matched", side.policies.join(", "));
        side.hint = match misses.iter().max_by_key(|miss| miss.peer_matches) {
            Some(NearMiss { place, peer_matches: true }) => {
                format!("{place} admits {peer}, but not at {port}: its ports would have to have that")
            }
            Some(NearMiss { place, .. }) => {
                format!("{place} is open at {port}, but not for {peer}: that would have to match it")
            }
            None => format!("a rule of any of these would have to admit {peer} at {port}"),
        };
        side
    }

    fn is_peer(&self, policy: &NetworkPolicy, peer: &NetworkPolicyPeer, other: Place<'_>) -> bool {
        if let Some(block) = &peer.ip_block {
            return block.contains(other.address);
        }
        let Some(Owner::Pod(pod)) = other.owner else { return false };
        let pod = &self.cluster.pods[pod];
        let is_namespace = match &peer.namespace_selector {
            None => pod.namespace == policy.namespace(),
            Some(selector) => selector.matches(&pod.namespace_labels),
        };
        let selects =
            |selector: &LabelSelector| Selection::of(selector, pod.labels.as_ref()) == Selection::Selected;
        !pod.name.is_empty() && is_namespace && peer.pod_selector.as_ref().is_none_or(selects)
    }

    fn is_at(&self, port: &NetworkPolicyPort) -> bool {
        if port.protocol.number() != self.protocol {
            return false;
        }
        match port.wanted() {
            PolicyPort::Range(first, last) => (first..=last).contains(&self.port),
            PolicyPort::Name(name) => match self.to.owner {
                Some(Owner::Pod(pod)) => {
                    self.cluster.pods[pod].ports.contains(&(name.to_owned(), port.protocol, self.port))
                }
                _ => false,
            },
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
        match self.protocol {
            6 => format!("TCP {}", self.port),
            17 => format!("UDP {}", self.port),
            132 => format!("SCTP {}", self.port),
            1 | 58 => "ICMP".into(),
            other => format!("protocol {other}"),
        }
    }
}

impl Side {
    fn open(reason: String) -> Self {
        Self { allowed: true, reason, ..Self::default() }
    }
}

fn name_of(policy: &NetworkPolicy) -> String {
    format!("NetworkPolicy {}/{}", policy.namespace(), policy.metadata.name)
}
