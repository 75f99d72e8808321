//! The cluster-wide kinds of policy.networking.k8s.io: ClusterNetworkPolicy v1alpha2, and the two it came from,
//! AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1, which say the same in other words.

use serde::Deserialize;
use serde_json::Value;

use super::{Direction, Flow, LabelSelector, Placed, Pod, Policy, Said, TierPlace, World, covers};
use crate::scene::{End, LEARNED, SCTP, TCP, UDP, protocol_number};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    tier: Option<String>,
    /// A BaselineAdminNetworkPolicy has none.
    priority: Option<u16>,
    subject: Selection,
    #[serde(default)]
    ingress: Vec<Rule>,
    #[serde(default)]
    egress: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "name")]
    _name: Option<String>,
    action: String,
    #[serde(alias = "from", alias = "to")]
    peers: Vec<Selection>,
    /// v1alpha2.
    protocols: Option<Vec<Protocol>>,
    /// v1alpha1.
    ports: Option<Vec<Port>>,
}

/// Exactly one field is set. A subject is one of the first two.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    namespaces: Option<LabelSelector>,
    pods: Option<NamespacedPod>,
    nodes: Option<LabelSelector>,
    networks: Option<Vec<String>>,
    domain_names: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NamespacedPod {
    namespace_selector: LabelSelector,
    pod_selector: LabelSelector,
}

/// Exactly one field is set.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Protocol {
    tcp: Option<Transport>,
    udp: Option<Transport>,
    sctp: Option<Transport>,
    destination_named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Transport {
    destination_port: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Number {
    number: Option<u16>,
    range: Option<Range>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    start: u16,
    end: u16,
    /// v1alpha1.
    protocol: Option<String>,
}

/// v1alpha1: exactly one field is set.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    port_number: Option<PortNumber>,
    named_port: Option<String>,
    port_range: Option<Range>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortNumber {
    protocol: Option<String>,
    port: u16,
}

/// Reads an object of one of the three kinds.
pub(super) fn read(kind: &str, name: String, spec: Value) -> Placed {
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let tier = match (kind, spec.tier.as_deref()) {
        ("ClusterNetworkPolicy", Some("Admin")) | ("AdminNetworkPolicy", None) => "kube-admin",
        ("ClusterNetworkPolicy", Some("Baseline")) | ("BaselineAdminNetworkPolicy", None) => "kube-baseline",
        other => panic!("no tier: {other:?}"),
    };
    let tier = TierPlace::built_in(tier).unwrap();
    // The one policy without a priority comes after those that have one.
    let order = spec.priority.map_or(f64::INFINITY, f64::from);
    Placed { tier, order, name, policy: Box::new(ClusterPolicy(spec)) }
}

struct ClusterPolicy(Spec);

impl ClusterPolicy {
    fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.0.ingress,
            Direction::Egress => &self.0.egress,
        }
    }
}

impl Policy for ClusterPolicy {
    fn applies(&self, world: &World, pod: &Pod, direction: Direction) -> bool {
        !self.rules(direction).is_empty() && self.0.subject.selects(world, pod)
    }

    fn says(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> Option<Said> {
        let matches = |rule: &&Rule| {
            rule.peers.iter().any(|peer| peer.is(world, flow.peer(direction))) && rule.has_port(world, flow)
        };
        let rule = self.rules(direction).iter().find(matches)?;
        Some(match rule.action.as_str() {
            "Accept" | "Allow" => Said::Allow,
            "Deny" => Said::Deny,
            "Pass" => Said::Pass,
            other => panic!("no action: {other}"),
        })
    }
}

impl Selection {
    fn selects(&self, world: &World, pod: &Pod) -> bool {
        let namespace = world.namespace_labels(&pod.namespace);
        let by_pod = |pods: &NamespacedPod| {
            pods.namespace_selector.selects(namespace) && pods.pod_selector.selects(&pod.labels)
        };
        self.namespaces.as_ref().is_some_and(|selector| selector.selects(namespace))
            || self.pods.as_ref().is_some_and(by_pod)
    }

    fn is(&self, world: &World, end: &End) -> bool {
        let is_node = |selector: &LabelSelector| {
            world.node_labels(end.address).is_some_and(|labels| selector.selects(labels))
        };
        world.pod(end).is_some_and(|pod| self.selects(world, pod))
            || self.nodes.as_ref().is_some_and(is_node)
            || self.networks.iter().flatten().any(|cidr| covers(cidr, end.address))
            || self.domain_names.iter().flatten().any(|name| is_told_of(name, end))
    }
}

/// Whether DNS gave the address for the name, or for one that ends so where it begins with `*`.
fn is_told_of(wanted: &str, end: &End) -> bool {
    LEARNED.iter().any(|(name, address)| {
        let is_name = match wanted.strip_prefix('*') {
            Some(ending) => name.ends_with(ending),
            None => *name == wanted,
        };
        is_name && address.parse() == Ok(end.address)
    })
}

impl Rule {
    fn has_port(&self, world: &World, flow: &Flow<'_>) -> bool {
        let protocol = |protocol: &Protocol| protocol.is(world, flow);
        let port = |port: &Port| port.is(world, flow);
        self.protocols.as_ref().is_none_or(|list| list.iter().any(protocol))
            && self.ports.as_ref().is_none_or(|list| list.is_empty() || list.iter().any(port))
    }
}

impl Protocol {
    fn is(&self, world: &World, flow: &Flow<'_>) -> bool {
        let mut transports = [(TCP, &self.tcp), (UDP, &self.udp), (SCTP, &self.sctp)].into_iter();
        transports.any(|(protocol, transport)| {
            protocol == flow.protocol && transport.as_ref().is_some_and(|transport| transport.is(flow.port))
        }) || self.destination_named_port.as_ref().is_some_and(|name| is_named(world, flow, name))
    }
}

impl Transport {
    fn is(&self, port: u16) -> bool {
        self.destination_port.as_ref().is_none_or(|wanted| {
            wanted.number == Some(port)
                || wanted.range.as_ref().is_some_and(|range| (range.start..=range.end).contains(&port))
        })
    }
}

impl Port {
    fn is(&self, world: &World, flow: &Flow<'_>) -> bool {
        let is_of = |protocol: &Option<String>| {
            protocol_number(protocol.as_deref().unwrap_or("TCP")) == flow.protocol
        };
        self.port_number.as_ref().is_some_and(|port| is_of(&port.protocol) && port.port == flow.port)
            || self.named_port.as_ref().is_some_and(|name| is_named(world, flow, name))
            || self
                .port_range
                .as_ref()
                .is_some_and(|range| is_of(&range.protocol) && (range.start..=range.end).contains(&flow.port))
    }
}

/// Whether the receiver calls this port of this protocol so. The name says nothing of the protocol.
fn is_named(world: &World, flow: &Flow<'_>, name: &str) -> bool {
    world.pod(flow.to).is_some_and(|pod| {
        pod.ports.iter().any(|(own, protocol, number)| {
            own == name && protocol_number(protocol) == flow.protocol && *number == flow.port
        })
    })
}
