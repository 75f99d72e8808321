//! `policy.networking.k8s.io`: policies of the whole cluster. [`ClusterNetworkPolicy`] is v1alpha2;
//! [`AdminNetworkPolicy`] and [`BaselineAdminNetworkPolicy`] are its older spellings, v1alpha1.
//!
//! Fields and limits are those of the definitions upstream (kubernetes-sigs/network-policy-api, `apis/`). What the
//! three say is read through one view: [`ClusterPolicy`].

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_model::{DomainPattern, Invalid};

use super::ranges::check_range;
use super::selector::null_is_default;
use super::{Flannel, LabelSelector, Object, PolicyType, Protocol};

#[cfg(test)]
mod tests;
mod v1alpha1;
mod v1alpha2;

pub use v1alpha1::{
    AdminAction, AdminEgressRule, AdminIngressRule, AdminNetworkPolicy, AdminNetworkPolicySpec, AdminPort,
    BaselineAdminNetworkPolicy, BaselineAdminNetworkPolicySpec, NumberedPort, PortSpan,
};
pub use v1alpha2::{
    ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterProtocol,
    DestinationPort, PortRange, ProtocolMatch,
};

/// Longest name of a rule, in characters.
const RULE_NAME_MAX: usize = 100;
/// Most networks or domain names of one peer.
const OF_ONE_PEER_MAX: usize = 25;
/// Largest priority; 0 is asked first.
const PRIORITY_MAX: i64 = 1000;

/// Which side of the policies of namespaces a policy of the cluster is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterTier {
    /// Before them, and above them.
    Admin,
    /// After them, for pods none of them isolates.
    Baseline,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterAction {
    /// Lets it through, past all further policy of this direction.
    Accept,
    /// Drops it.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

/// The pods a policy is for: exactly one of the fields. Pods on the host's network are never meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSubject {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
}

/// Pods by their labels and those of their namespace: both must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespacedPods {
    /// Which namespaces. Missing or empty: all.
    #[serde(default, deserialize_with = "null_is_default")]
    pub namespace_selector: LabelSelector,
    /// Which of their pods. Empty: all.
    pub pod_selector: LabelSelector,
}

/// Who sends: exactly one of the fields. Pods on the host's network are never meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressPeer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
}

/// Who is sent to: exactly one of the fields. Pods on the host's network are meant by `nodes` and `networks` alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressPeer {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
    /// The addresses of these nodes. Empty: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Blocks of addresses, inside and outside the cluster; at most 25.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub networks: Vec<IpNet>,
    /// Names, `example.org` or `*.example.org`; at most 25, in rules that accept only.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub domain_names: Vec<String>,
}

/// What a checked peer, or a policy's subject, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterPeer<'a> {
    /// Pods.
    Pods {
        /// Of namespaces with labels like these.
        namespaces: &'a LabelSelector,
        /// With labels like these. None: all.
        pods: Option<&'a LabelSelector>,
    },
    /// Nodes with labels like these.
    Nodes(&'a LabelSelector),
    /// Addresses in any of these.
    Networks(&'a [IpNet]),
    /// Addresses that any of these names has.
    DomainNames(&'a [String]),
}

/// What a checked rule asks of the destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterPort<'a> {
    /// A number in this range, both ends included.
    Range(Protocol, u16, u16),
    /// The number, and with it the protocol, that the destination pod gives this name.
    Name(&'a str),
}

/// A rule of any of the three kinds and either direction.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterRule<'a> {
    /// What its author calls it; may be empty.
    pub name: &'a str,
    /// What it does.
    pub action: ClusterAction,
    /// The other end: any of these.
    pub peers: Vec<ClusterPeer<'a>>,
    /// Ports at the destination: any of these. Empty: every port of every protocol.
    pub ports: Vec<ClusterPort<'a>>,
}

/// A policy of any of the three kinds.
pub trait ClusterPolicy {
    /// On which side of the policies of namespaces it is.
    fn tier(&self) -> ClusterTier;
    /// Its place within the tier, 0 (first) to 1000. None: after all that have one.
    fn priority(&self) -> Option<u16>;
    /// The pods it is for.
    fn subject(&self) -> ClusterPeer<'_>;
    /// Its rules in their order. None: it does not speak of that direction.
    fn rules(&self, direction: PolicyType) -> Vec<ClusterRule<'_>>;
}

impl Object {
    /// What an object says that can be read and kept, but is not enforced, or should be otherwise: the field, and why.
    /// People must not be let apply it.
    pub fn unenforced(&self) -> Result<(), Invalid> {
        if let Some(reason) = self.kind().unenforced() {
            return Err(Invalid::new("kind", reason));
        }
        match self {
            Self::Node(node) => Flannel::check(node),
            Self::IpPool(pool) => pool.check_fit(),
            _ => Ok(()),
        }
    }
}

impl NamespacedPods {
    fn validate(&self) -> Result<(), Invalid> {
        self.namespace_selector.validate().map_err(|e| e.within("namespaceSelector"))?;
        self.pod_selector.validate().map_err(|e| e.within("podSelector"))
    }

    fn meant(&self) -> ClusterPeer<'_> {
        ClusterPeer::Pods { namespaces: &self.namespace_selector, pods: Some(&self.pod_selector) }
    }
}

/// Namespaces or pods: which of the two is given.
fn pods_meant<'a>(
    namespaces: Option<&'a LabelSelector>,
    pods: Option<&'a NamespacedPods>,
) -> Option<ClusterPeer<'a>> {
    let of_namespaces = namespaces.map(|namespaces| ClusterPeer::Pods { namespaces, pods: None });
    of_namespaces.or_else(|| pods.map(NamespacedPods::meant))
}

fn check_pods(namespaces: Option<&LabelSelector>, pods: Option<&NamespacedPods>) -> Result<(), Invalid> {
    namespaces.map_or(Ok(()), LabelSelector::validate).map_err(|e| e.within("namespaces"))?;
    pods.map_or(Ok(()), NamespacedPods::validate).map_err(|e| e.within("pods"))
}

/// Exactly one of these fields must be given.
fn check_one(fields: &[(&str, bool)]) -> Result<(), Invalid> {
    let names = |given: bool| {
        let meant = fields.iter().filter(|(_, is_given)| !given || *is_given);
        meant.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    match names(true)[..] {
        [_] => Ok(()),
        [] => Err(Invalid::new("", format!("says nothing: one of {} is needed", names(false).join(", ")))),
        [first, second, ..] => Err(Invalid::new(second, format!("cannot stand beside {first}"))),
    }
}

fn check_count(field: &str, count: usize, least: usize, most: usize) -> Result<(), Invalid> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let right = if least == 0 { format!("at most {most}") } else { format!("{least} to {most}") };
    Err(Invalid::new(field, format!("{count} entries; {right} would be right")))
}

fn check_priority(priority: i64) -> Result<(), Invalid> {
    if (0..=PRIORITY_MAX).contains(&priority) {
        return Ok(());
    }
    Err(Invalid::new("priority", format!("{priority} is not a priority: 0 (asked first) to {PRIORITY_MAX}")))
}

fn check_rule_name(name: &str) -> Result<(), Invalid> {
    match name.chars().count() {
        0..=RULE_NAME_MAX => Ok(()),
        length => {
            Err(Invalid::new("name", format!("is {length} characters long; at most {RULE_NAME_MAX} may be")))
        }
    }
}

fn check_port(field: &str, number: i64) -> Result<(), Invalid> {
    match u16::try_from(number) {
        Ok(1..) => Ok(()),
        _ => Err(Invalid::new(field, format!("{number} is not a port: 1 to 65535"))),
    }
}

/// A port that was checked when its object was read.
fn checked(number: i64) -> u16 {
    u16::try_from(number).expect("checked when the object was read")
}

impl ClusterSubject {
    fn validate(&self) -> Result<(), Invalid> {
        check_one(&[("namespaces", self.namespaces.is_some()), ("pods", self.pods.is_some())])?;
        check_pods(self.namespaces.as_ref(), self.pods.as_ref())
    }

    fn meant(&self) -> ClusterPeer<'_> {
        pods_meant(self.namespaces.as_ref(), self.pods.as_ref()).expect("checked when the object was read")
    }
}

impl IngressPeer {
    fn validate(&self) -> Result<(), Invalid> {
        check_one(&[("namespaces", self.namespaces.is_some()), ("pods", self.pods.is_some())])?;
        check_pods(self.namespaces.as_ref(), self.pods.as_ref())
    }

    fn meant(&self) -> ClusterPeer<'_> {
        pods_meant(self.namespaces.as_ref(), self.pods.as_ref()).expect("checked when the object was read")
    }
}

impl EgressPeer {
    /// `domain_names` says why there may be none; None when there may be some.
    fn validate(&self, no_domain_names: Option<&str>) -> Result<(), Invalid> {
        check_one(&[
            ("namespaces", self.namespaces.is_some()),
            ("pods", self.pods.is_some()),
            ("nodes", self.nodes.is_some()),
            ("networks", !self.networks.is_empty()),
            ("domainNames", !self.domain_names.is_empty()),
        ])?;
        check_pods(self.namespaces.as_ref(), self.pods.as_ref())?;
        self.nodes.as_ref().map_or(Ok(()), LabelSelector::validate).map_err(|e| e.within("nodes"))?;
        for (field, count) in [("networks", self.networks.len()), ("domainNames", self.domain_names.len())] {
            check_count(field, count, 0, OF_ONE_PEER_MAX)?;
        }
        for (index, network) in self.networks.iter().enumerate() {
            let fail = |problem| Invalid::new(format!("networks[{index}]"), problem);
            check_range(*network).map_err(fail)?;
            if self.networks[..index].contains(network) {
                return Err(fail(format!("{network} is in the list already")));
            }
        }
        if let Some(reason) = no_domain_names.filter(|_| !self.domain_names.is_empty()) {
            return Err(Invalid::new("domainNames", reason));
        }
        for (index, name) in self.domain_names.iter().enumerate() {
            let field = format!("domainNames[{index}]");
            DomainPattern::new(name).map_err(|e| e.within(&field))?;
            if self.domain_names[..index].contains(name) {
                return Err(Invalid::new(field, format!("{name} is in the list already")));
            }
        }
        Ok(())
    }

    fn meant(&self) -> ClusterPeer<'_> {
        pods_meant(self.namespaces.as_ref(), self.pods.as_ref())
            .or_else(|| self.nodes.as_ref().map(ClusterPeer::Nodes))
            .unwrap_or(match &self.networks[..] {
                [] => ClusterPeer::DomainNames(&self.domain_names),
                networks => ClusterPeer::Networks(networks),
            })
    }

    /// Whether it means pods, the only ones whose ports have names.
    fn has_named_ports(&self) -> bool {
        self.namespaces.is_some() || self.pods.is_some()
    }
}

fn check_ingress_peers(from: &[IngressPeer], most: usize) -> Result<(), Invalid> {
    check_count("from", from.len(), 1, most)?;
    for (index, peer) in from.iter().enumerate() {
        peer.validate().map_err(|e| e.within(&format!("from[{index}]")))?;
    }
    Ok(())
}

fn check_egress_peers(
    to: &[EgressPeer],
    most: usize,
    asks_port_name: bool,
    no_domain_names: Option<&str>,
) -> Result<(), Invalid> {
    check_count("to", to.len(), 1, most)?;
    for (index, peer) in to.iter().enumerate() {
        let field = format!("to[{index}]");
        peer.validate(no_domain_names).map_err(|e| e.within(&field))?;
        if asks_port_name && !peer.has_named_ports() {
            let problem = "nodes, networks and domainNames have no named ports, and this rule asks for one";
            return Err(Invalid::new(field, problem));
        }
    }
    Ok(())
}
