//! Whether a rule means a flow. None everywhere: that depends on what is not known of a pod.

use super::{Flow, Place};
use crate::calc::cluster::Owner;
use crate::calc::policy::select::{Candidate, both, either, not};
use crate::calc::policy::view::{
    EntityMatch, FlowEnd, IpVersion, PodMatch, PortView, Ports, RuleView, ServiceMatch, Traffic,
};
use crate::object::PolicyType;

impl Flow<'_> {
    /// Whether the rule means the flow.
    pub(super) fn is_meant(&self, rule: &RuleView, direction: PolicyType) -> Option<bool> {
        both(self.are_ends_meant(rule, direction), self.is_traffic_meant(rule, direction))
    }

    /// Whether the rule means both ends, at whatever port.
    pub(super) fn are_ends_meant(&self, rule: &RuleView, direction: PolicyType) -> Option<bool> {
        let (own, other) = self.ends(direction);
        both(self.is_entity(&rule.peer, other), self.is_entity(&rule.own, own))
    }

    /// Whether the rule means the protocol and ports, whoever is at the ends.
    pub(super) fn is_traffic_meant(&self, rule: &RuleView, direction: PolicyType) -> Option<bool> {
        let from = self.is_at_one_of(&rule.traffic, FlowEnd::Source);
        both(self.is_meant_but_for_source_port(rule, direction), from)
    }

    /// Whether the rule means the protocol and the destination port.
    pub(super) fn is_meant_but_for_source_port(
        &self,
        rule: &RuleView,
        direction: PolicyType,
    ) -> Option<bool> {
        let ip_version = rule.traffic.ip_version;
        let is_of_family =
            ip_version.is_none_or(|version| (version == IpVersion::V4) == self.to.address.is_ipv4());
        let destination = match direction {
            PolicyType::Ingress => &rule.own,
            PolicyType::Egress => &rule.peer,
        };
        let service = destination.service.as_ref().filter(|service| service.with_ports);
        let is_at_service = service.is_none_or(|service| self.is_at_port_of(service));
        both(Some(is_of_family && is_at_service), self.is_at_one_of(&rule.traffic, FlowEnd::Destination))
    }

    /// Whether the port of an end is one of those that are meant there.
    fn is_at_one_of(&self, traffic: &Traffic, end: FlowEnd) -> Option<bool> {
        let (any_of, none_of) = traffic.at(end);
        let one_of =
            |ports: &[PortView]| ports.iter().map(|port| self.is_at(port, end)).fold(Some(false), either);
        let is_wanted = if any_of.is_empty() { Some(true) } else { one_of(any_of) };
        both(is_wanted, not(one_of(none_of)))
    }

    fn is_at(&self, port: &PortView, end: FlowEnd) -> Option<bool> {
        if port.protocol != self.protocol {
            return Some(false);
        }
        let (place, own) = match end {
            FlowEnd::Source => (self.from, self.source_port),
            FlowEnd::Destination => (self.to, self.port),
        };
        match &port.ports {
            Ports::Range(first, last) => {
                let has_numbers = matches!(self.protocol, 1 | 6 | 17 | 58 | 132);
                Some(!has_numbers || (*first..=*last).contains(&own))
            }
            Ports::Named(name) => {
                let Some(Owner::Pod(pod)) = place.owner else { return Some(false) };
                let pod = &self.cluster.pods[pod];
                if pod.labels.is_none() && !pod.name.is_empty() {
                    return None;
                }
                let is_it = |protocol: u8, number| protocol == self.protocol && number == own;
                Some(
                    pod.ports
                        .iter()
                        .any(|(n, protocol, number)| n == name && is_it(protocol.number(), *number)),
                )
            }
        }
    }

    /// Names of ports that the rule asks for, of the flow's protocol, and that the destination, a pod whose ports are
    /// known, does not have.
    pub(super) fn names_not_of_pod<'r>(&self, rule: &'r RuleView) -> Vec<&'r str> {
        let Some(Owner::Pod(pod)) = self.to.owner else { return Vec::new() };
        let pod = &self.cluster.pods[pod];
        if pod.labels.is_none() {
            return Vec::new();
        }
        let is_its = |name: &str| {
            pod.ports.iter().any(|(known, protocol, _)| known == name && protocol.number() == self.protocol)
        };
        let names = rule.traffic.any_of.iter().filter(|port| port.protocol == self.protocol);
        let names = names.filter_map(|port| match &port.ports {
            Ports::Named(name) => Some(name.as_str()),
            Ports::Range(..) => None,
        });
        names.filter(|name| !is_its(name)).collect()
    }

    /// The named ports of the destination, where that is a pod: `sip UDP 5060, web TCP 80`.
    pub(super) fn ports_of_pod(&self) -> String {
        let Some(Owner::Pod(pod)) = self.to.owner else { return String::new() };
        let ports = self.cluster.pods[pod].ports.iter();
        let named: Vec<_> = ports
            .map(|(name, protocol, number)| {
                format!("{name} {} {number}", format!("{protocol:?}").to_uppercase())
            })
            .collect();
        if named.is_empty() { "it names none".to_owned() } else { named.join(", ") }
    }

    fn is_at_port_of(&self, service: &ServiceMatch) -> bool {
        let endpoints = self.cluster.referred.service(&service.namespace, &service.name);
        endpoints.iter().filter(|some| some.addresses.contains(&self.to.address)).any(|some| {
            some.ports.iter().any(|(protocol, first, last)| {
                *protocol == self.protocol && (*first..=*last).contains(&self.port)
            })
        })
    }

    fn is_entity(&self, entity: &EntityMatch, place: Place<'_>) -> Option<bool> {
        let EntityMatch { pods, not_pods, nets, not_nets, nodes, domains, service } = entity;
        let address = place.address;
        let is_in_nets = nets.is_empty() || nets.iter().any(|net| net.contains(&address));
        let is_node = nodes.as_ref().is_none_or(|wanted| match place.owner {
            Some(Owner::Node(name)) => {
                self.cluster.nodes.get(name).is_some_and(|node| wanted.matches(&node.labels))
            }
            _ => false,
        });
        let is_endpoint = service.as_ref().is_none_or(|service| {
            let endpoints = self.cluster.referred.service(&service.namespace, &service.name);
            endpoints.iter().any(|some| some.addresses.contains(&address))
        });
        let is_excepted = not_nets.iter().any(|net| net.contains(&address));
        let is_named = domains.is_empty() || self.names.of(domains).any(|(_, known)| known == address);
        if !is_in_nets || is_excepted || !is_node || !is_endpoint || !is_named {
            return Some(false);
        }
        match (pods, not_pods) {
            (None, None) => Some(true),
            (Some(wanted), None) => self.is_one_of(place, wanted, None),
            (Some(wanted), Some(unwanted)) => self.is_one_of(place, wanted, Some(unwanted)),
            (None, Some(unwanted)) => not(self.is_one_of(place, unwanted, None)),
        }
    }

    /// Whether one of those who have the address, the pod and NetworkSets, is wanted and not unwanted.
    fn is_one_of(&self, place: Place<'_>, wanted: &PodMatch, unwanted: Option<&PodMatch>) -> Option<bool> {
        let is_wanted = |candidate: &Candidate<'_>, is_set: bool| {
            let selects = |pods: &PodMatch| {
                if is_set && !pods.network_sets { Some(false) } else { pods.selects(candidate) }
            };
            both(selects(wanted), not(unwanted.map_or(Some(false), selects)))
        };
        let pod = match place.owner {
            Some(Owner::Pod(pod)) => Candidate::pod(&self.cluster.pods[pod], &self.cluster.referred),
            _ => None,
        };
        let is_pod = pod.map_or(Some(false), |pod| is_wanted(&pod, false));
        let sets = self.cluster.referred.network_sets.iter();
        let sets = sets.filter(|set| set.nets().iter().any(|net| net.contains(&place.address)));
        sets.map(|set| is_wanted(&Candidate::network_set(set, &self.cluster.referred), true))
            .fold(is_pod, either)
    }
}
