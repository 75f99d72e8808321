//! One end of a Calico rule (projectcalico.org/v3 EntityRule).

use serde::Deserialize;
use serde_json::Value;

use super::super::{Flow, Labels, Pod, Slice, World, covers};
use super::selector::{selects, selects_or};
use crate::scene::{End, protocol_number};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Entity {
    nets: Vec<String>,
    not_nets: Vec<String>,
    selector: String,
    not_selector: String,
    namespace_selector: String,
    service_accounts: Option<ServiceAccounts>,
    services: Option<Service>,
    ports: Vec<Value>,
    not_ports: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ServiceAccounts {
    names: Vec<String>,
    selector: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    /// The policy's own, where it is not said.
    namespace: Option<String>,
}

/// What an address is, to selectors: pods, and any number of network sets.
struct Candidate<'a> {
    labels: Labels,
    /// None: in no namespace.
    namespace: Option<&'a str>,
    pod: Option<&'a Pod>,
}

impl Entity {
    /// Whether an end is meant. `namespace` is the policy's own; None: it is of the whole cluster.
    pub(super) fn is(&self, world: &World, namespace: Option<&str>, end: &End) -> bool {
        let in_any = |nets: &[String]| nets.iter().any(|net| covers(net, end.address));
        self.slices(world, namespace)
            .is_none_or(|slices| slices.iter().any(|slice| slice.addresses.contains(&end.address)))
            && (self.nets.is_empty() || in_any(&self.nets))
            && !in_any(&self.not_nets)
            && self.is_selected(world, namespace, end)
    }

    /// As soon as one selector says something, rules of a policy in a namespace mean that namespace, or those they
    /// select. Without any other, `notSelector` means all that is not selected by it, wherever and whatever it is.
    fn is_selected(&self, world: &World, namespace: Option<&str>, end: &End) -> bool {
        let candidates = candidates(world, end);
        let says_something = !self.selector.is_empty()
            || !self.namespace_selector.is_empty()
            || self.service_accounts.is_some()
            || (namespace.is_some() && !self.not_selector.is_empty());
        let is_excluded = |candidate: &Candidate<'_>| {
            !self.not_selector.is_empty() && selects(&self.not_selector, &candidate.labels)
        };
        if !says_something {
            return !candidates.iter().any(is_excluded);
        }
        candidates
            .iter()
            .any(|candidate| self.selects(world, namespace, candidate) && !is_excluded(candidate))
    }

    fn selects(&self, world: &World, own: Option<&str>, candidate: &Candidate<'_>) -> bool {
        let namespace = match (self.namespace_selector.as_str(), own) {
            ("", None) => true,
            ("", Some(own)) => candidate.namespace == Some(own),
            ("global()", _) => candidate.namespace.is_none(),
            (selector, _) => {
                // What is in no namespace has no label of one; `all()` means what is in any.
                let labels = candidate.namespace.map(|namespace| world.calico_namespace_labels(namespace));
                selects_or(selector, &labels.unwrap_or_default(), candidate.namespace.is_some())
            }
        };
        let account = |wanted: &ServiceAccounts| {
            let Some(pod) = candidate.pod else { return false };
            let labels = world.account_labels(pod);
            (wanted.names.is_empty() || wanted.names.contains(&pod.service_account))
                && selects(&wanted.selector, &labels)
        };
        namespace
            && selects(&self.selector, &candidate.labels)
            && self.service_accounts.as_ref().is_none_or(account)
    }

    /// What there is of the service. None: none is asked for.
    fn slices<'a>(&self, world: &'a World, namespace: Option<&str>) -> Option<Vec<&'a Slice>> {
        let service = self.services.as_ref()?;
        let namespace = service.namespace.as_deref().or(namespace).unwrap();
        let is_of = |slice: &&Slice| slice.service.0 == namespace && slice.service.1 == service.name;
        Some(world.slices.iter().filter(is_of).collect())
    }

    /// Whether the flow goes to a port that is meant, this being its destination. Of a service it has to be one of the
    /// ports that it has at that address.
    pub(super) fn has_port(&self, world: &World, namespace: Option<&str>, flow: &Flow<'_>) -> bool {
        let is_at = |slice: &&Slice| {
            slice.addresses.contains(&flow.to.address) && slice.ports.contains(&(flow.protocol, flow.port))
        };
        if self.slices(world, namespace).is_some_and(|slices| !slices.iter().any(is_at)) {
            return false;
        }
        self.is_one_of_ports(world, flow.to, flow.protocol, flow.port)
    }

    /// Whether the flow comes from a port that is meant, this being its source.
    pub(super) fn has_source_port(&self, world: &World, flow: &Flow<'_>) -> bool {
        self.is_one_of_ports(world, flow.from, flow.protocol, flow.source_port)
    }

    fn is_one_of_ports(&self, world: &World, end: &End, protocol: u8, number: u16) -> bool {
        let one_of = |ports: &[Value]| ports.iter().any(|port| is_port(world, end, (protocol, number), port));
        (self.ports.is_empty() || one_of(&self.ports)) && !one_of(&self.not_ports)
    }
}

fn candidates<'a>(world: &'a World, end: &End) -> Vec<Candidate<'a>> {
    let pod = world.pod(end).map(|pod| Candidate {
        labels: world.calico_pod_labels(pod),
        namespace: Some(pod.namespace.as_str()),
        pod: Some(pod),
    });
    let sets = world.network_sets.iter().filter(|set| set.nets.iter().any(|net| covers(net, end.address)));
    let sets = sets.map(|set| {
        let mut labels = set.labels.clone();
        if let Some(namespace) = &set.namespace {
            labels.insert("projectcalico.org/namespace".to_owned(), namespace.clone());
        }
        Candidate { labels, namespace: set.namespace.as_deref(), pod: None }
    });
    pod.into_iter().chain(sets).collect()
}

/// A number, a range `first:last`, or a name that this end gives a port of the flow's protocol.
fn is_port(world: &World, end: &End, (protocol, own): (u8, u16), port: &Value) -> bool {
    if let Some(number) = port.as_u64() {
        return number == u64::from(own);
    }
    let text = port.as_str().unwrap();
    if let Some((first, last)) = text.split_once(':') {
        return (first.parse().unwrap()..=last.parse().unwrap()).contains(&own);
    }
    if let Ok(number) = text.parse::<u16>() {
        return number == own;
    }
    world.pod(end).is_some_and(|pod| {
        pod.ports
            .iter()
            .any(|(name, of, number)| name == text && protocol_number(of) == protocol && *number == own)
    })
}
