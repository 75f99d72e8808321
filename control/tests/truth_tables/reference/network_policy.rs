//! NetworkPolicy, networking.k8s.io/v1: policies add up, and what none of them allows a pod they select is denied.

use serde::Deserialize;
use serde_json::Value;

use super::{Direction, Flow, LabelSelector, Pod, Policy, Said, World, covers};
use crate::scene::protocol_number;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    pod_selector: LabelSelector,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(alias = "from", alias = "to")]
    peers: Option<Vec<Peer>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    ip_block: Option<IpBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IpBlock {
    cidr: String,
    except: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    protocol: Option<String>,
    /// A number or a name.
    port: Option<Value>,
    end_port: Option<u16>,
}

#[derive(Debug)]
pub(super) struct NetworkPolicy {
    namespace: String,
    spec: Spec,
}

impl NetworkPolicy {
    pub(super) fn read(namespace: String, spec: Value) -> Self {
        Self { namespace, spec: serde_json::from_value(spec).unwrap() }
    }
}

impl Policy for NetworkPolicy {
    fn applies(&self, _: &World, pod: &Pod, direction: Direction) -> bool {
        let types = self.spec.policy_types.as_deref().unwrap_or_default();
        let speaks = match direction {
            // Without a list every policy is of ingress, and of egress when it has a rule of it.
            Direction::Ingress => types.is_empty() || types.iter().any(|kind| kind == "Ingress"),
            Direction::Egress if types.is_empty() => {
                self.spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
            }
            Direction::Egress => types.iter().any(|kind| kind == "Egress"),
        };
        speaks && pod.namespace == self.namespace && self.spec.pod_selector.selects(&pod.labels)
    }

    fn says(&self, world: &World, flow: &Flow<'_>, direction: Direction) -> Option<Said> {
        let rules = match direction {
            Direction::Ingress => &self.spec.ingress,
            Direction::Egress => &self.spec.egress,
        };
        let peer = flow.peer(direction);
        let matches = |rule: &Rule| {
            let (peers, ports) = (rule.peers.as_deref(), rule.ports.as_deref());
            let (peers, ports) = (peers.unwrap_or_default(), ports.unwrap_or_default());
            (peers.is_empty() || peers.iter().any(|wanted| wanted.is(world, &self.namespace, peer)))
                && (ports.is_empty() || ports.iter().any(|wanted| wanted.is(world, flow)))
        };
        rules.iter().flatten().any(matches).then_some(Said::Allow)
    }
}

impl Peer {
    fn is(&self, world: &World, own_namespace: &str, end: &crate::scene::End) -> bool {
        if let Some(block) = &self.ip_block {
            let excepted = block.except.iter().flatten().any(|cidr| covers(cidr, end.address));
            return covers(&block.cidr, end.address) && !excepted;
        }
        let Some(pod) = world.pod(end) else { return false };
        let namespace = match &self.namespace_selector {
            Some(selector) => selector.selects(world.namespace_labels(&pod.namespace)),
            None => pod.namespace == own_namespace,
        };
        namespace && self.pod_selector.as_ref().is_none_or(|selector| selector.selects(&pod.labels))
    }
}

impl Port {
    fn is(&self, world: &World, flow: &Flow<'_>) -> bool {
        let protocol = self.protocol.as_deref().unwrap_or("TCP");
        if flow.protocol != protocol_number(protocol) {
            return false;
        }
        match (&self.port, self.end_port) {
            (None, _) => true,
            // A name means what the receiver means by it.
            (Some(Value::String(name)), _) => world.pod(flow.to).is_some_and(|pod| {
                let mut meant = pod.ports.iter().filter(|(n, p, _)| n == name && p == protocol);
                meant.next().is_some_and(|(_, _, number)| *number == flow.port)
            }),
            (Some(number), end) => {
                let first = number.as_u64().unwrap();
                (first..=end.map_or(first, u64::from)).contains(&u64::from(flow.port))
            }
        }
    }
}
