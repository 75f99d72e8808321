//! What a policy says, whatever its kind: the one form that [`super::Compiler`] and [`crate::calc::explain()`] read.
//!
//! Each kind has its own way here (`from_*`), a function of one object: what it takes other objects to know (the order
//! of a tier, the labels of a namespace, the addresses of a service) is left as a name.
//!
//! In a match all fields that say something must hold (AND); in a list one entry is enough (OR). A match that says
//! nothing matches everybody.

use std::cmp::Ordering;
use std::fmt;

use ipnet::IpNet;
use vswitch_model::DomainPattern;

pub(crate) use crate::object::expression::Expr;
use crate::object::{Kind, PolicyType};

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PolicyView {
    /// The object it is.
    pub(crate) source: Source,
    pub(crate) tier: TierName,
    /// Its place within the tier.
    pub(crate) order: Order,
    pub(crate) standing: Standing,
    /// The pods it applies to.
    pub(crate) subject: PodMatch,
    /// Rules for flows to its pods, in order. None: it says nothing of them, which isolates nobody.
    pub(crate) ingress: Option<Vec<RuleView>>,
    /// The same for flows from its pods.
    pub(crate) egress: Option<Vec<RuleView>>,
}

impl PolicyView {
    /// Rules for a direction. None: it says nothing of it.
    pub(crate) fn rules(&self, direction: PolicyType) -> Option<&[RuleView]> {
        match direction {
            PolicyType::Ingress => self.ingress.as_deref(),
            PolicyType::Egress => self.egress.as_deref(),
        }
    }
}

/// Names the object of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    /// Empty for kinds of the whole cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Source {
    /// `NetworkPolicy media/relay`, `ClusterNetworkPolicy guard`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// The tier a policy is in. Which order it has, and whether it is there, is for the cluster to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TierName {
    /// Of ClusterNetworkPolicy and AdminNetworkPolicy.
    Admin,
    /// Calico's; `default` also holds Kubernetes' NetworkPolicy.
    Named(String),
    /// Of ClusterNetworkPolicy and BaselineAdminNetworkPolicy.
    Baseline,
    /// After all tiers.
    Profiles,
}

/// A place within a tier: lowest first, those without one last. Among equals the name decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Order(pub(crate) Option<f64>);

impl Order {
    /// What Calico gives Kubernetes' NetworkPolicy (libcalico-go/lib/backend/k8s/conversion/conversion.go).
    pub(crate) const KUBERNETES: Self = Self(Some(1000.0));
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.unwrap_or(f64::INFINITY).total_cmp(&other.0.unwrap_or(f64::INFINITY))
    }
}

/// Whether a policy is in force. A staged one stands for the one of the same namespace and name, and of the kind given,
/// if that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is.
    Enforced,
    /// It would be, in the other's place.
    Staged(Kind),
    /// The other would not be; this one has no rules.
    StagedRemoval(Kind),
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RuleView {
    pub(crate) action: RuleAction,
    /// The other end.
    pub(crate) peer: EntityMatch,
    /// The policy's own pod, narrower than the policy's subject.
    pub(crate) own: EntityMatch,
    pub(crate) traffic: Traffic,
    /// Where in its object it was written, counted from 1, other than every other rule of the direction:
    /// `ingress rule 1, from 2`.
    pub(crate) position: String,
}

/// What a rule that matches does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleAction {
    /// The direction allows the flow.
    Allow,
    /// The direction denies the flow.
    Deny,
    /// Go on with the next tier.
    Pass,
    /// Record the flow, and go on with the next rule.
    Log,
}

/// One end of a flow: all of this at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct EntityMatch {
    /// It is one of these.
    pub(crate) pods: Option<PodMatch>,
    /// It is none of these. Where `pods` says something too, what is one of those is judged by itself: an address in
    /// two NetworkSets is meant when one of them is of the one and not of the other.
    pub(crate) not_pods: Option<PodMatch>,
    /// Its address is in one of these. Empty: says nothing.
    pub(crate) nets: Vec<IpNet>,
    /// Its address is in none of these.
    pub(crate) not_nets: Vec<IpNet>,
    /// It is a node with labels like these.
    pub(crate) nodes: Option<Expr>,
    /// Its address is one that DNS gave for one of these names; ascending. Empty: says nothing.
    pub(crate) domains: Vec<DomainPattern>,
    /// It is an endpoint of this service.
    pub(crate) service: Option<ServiceMatch>,
}

/// The endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceMatch {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Whether the flow's port must be that of the endpoint too, as it is where a service is a destination.
    pub(crate) with_ports: bool,
}

/// Pods, and where they are meant NetworkSets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodMatch {
    pub(crate) namespaces: Namespaces,
    /// What their labels must be like.
    pub(crate) labels: Expr,
    /// What their service account must be like.
    pub(crate) account: Option<AccountMatch>,
    /// Whether the addresses of NetworkSets with such labels, in such namespaces, are meant besides pods.
    pub(crate) network_sets: bool,
}

impl Default for PodMatch {
    /// All pods.
    fn default() -> Self {
        Self { namespaces: Namespaces::Any, labels: Expr::All, account: None, network_sets: false }
    }
}

/// Which namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Namespaces {
    /// All, and what is in none.
    #[default]
    Any,
    /// This one.
    Named(String),
    /// Those with labels like these. `all()` means what is in a namespace, `global()` what is in none.
    Labelled(Expr),
}

/// What a service account must be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AccountMatch {
    /// It has one of these names. Empty: any.
    pub(crate) names: Vec<String>,
    /// What its labels must be like.
    pub(crate) labels: Expr,
}

/// Protocols, and ports of those that have them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Traffic {
    /// To one of these. Empty: everything.
    pub(crate) any_of: Vec<PortView>,
    /// To none of these.
    pub(crate) none_of: Vec<PortView>,
    /// And from one of these. Empty: everything.
    pub(crate) source_any_of: Vec<PortView>,
    /// And from none of these.
    pub(crate) source_none_of: Vec<PortView>,
    /// Of this family alone.
    pub(crate) ip_version: Option<IpVersion>,
}

/// An end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowEnd {
    /// Which sends its first packet.
    Source,
    /// Which gets it.
    Destination,
}

impl FlowEnd {
    /// The end that is the policy's own pod, and the other.
    pub(crate) const fn own_and_peer(direction: PolicyType) -> (Self, Self) {
        match direction {
            PolicyType::Ingress => (Self::Destination, Self::Source),
            PolicyType::Egress => (Self::Source, Self::Destination),
        }
    }
}

impl Traffic {
    /// The ports of an end: one of the first, if there are any, and none of the second.
    pub(crate) fn at(&self, end: FlowEnd) -> (&[PortView], &[PortView]) {
        match end {
            FlowEnd::Source => (&self.source_any_of, &self.source_none_of),
            FlowEnd::Destination => (&self.any_of, &self.none_of),
        }
    }

    /// Whether it depends on the source port.
    pub(crate) fn has_source_ports(&self) -> bool {
        self.at(FlowEnd::Source) != (&[], &[])
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortView {
    /// IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) ports: Ports,
}

impl PortView {
    /// All of a protocol.
    pub(crate) const fn all(protocol: u8) -> Self {
        Self { protocol, ports: Ports::Range(0, u16::MAX) }
    }
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ports {
    /// From, to, both included. Of ICMP (1) and ICMPv6 (58): `type << 8 | code`. Protocols without ports: 0 to 65535.
    Range(u16, u16),
    /// The number the pod at that end gives this name; only of TCP, UDP and SCTP.
    Named(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_go_up_and_none_is_last() {
        let mut orders = [None, Some(10.0), Some(-1.5), Some(1000.0)].map(Order);
        orders.sort();
        assert_eq!(orders, [Some(-1.5), Some(10.0), Some(1000.0), None].map(Order));
    }
}
