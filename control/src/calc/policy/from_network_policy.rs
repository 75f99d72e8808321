//! Kubernetes' NetworkPolicy.

use ipnet::IpNet;

use super::position;
use super::view::{
    EntityMatch, Expr, Namespaces, Order, PodMatch, PolicyView, PortView, Ports, RuleAction, RuleView,
    Source, Standing, TierName, Traffic,
};
use crate::object::{
    Kind, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, PolicyPort, PolicyType, RuleView as ObjectRule,
};

/// The policy as the compiler reads it: one rule for each pair of its rules and one of their peers.
pub(crate) fn view(policy: &NetworkPolicy) -> PolicyView {
    let namespace = policy.namespace().to_owned();
    let rules = |direction: PolicyType| {
        policy.isolates(direction).then(|| {
            let rules = policy.rules(direction).into_iter().enumerate();
            rules.flat_map(|(index, rule)| rule_views(&namespace, direction, index, rule)).collect()
        })
    };
    PolicyView {
        source: Source {
            kind: Kind::NetworkPolicy,
            namespace: namespace.clone(),
            name: policy.metadata.name.clone(),
        },
        tier: TierName::Named("default".into()),
        order: Order::KUBERNETES,
        standing: Standing::Enforced,
        subject: PodMatch {
            namespaces: Namespaces::Named(namespace.clone()),
            labels: Expr::from(&policy.spec.pod_selector),
            ..PodMatch::default()
        },
        ingress: rules(PolicyType::Ingress),
        egress: rules(PolicyType::Egress),
    }
}

fn rule_views(namespace: &str, direction: PolicyType, index: usize, rule: ObjectRule<'_>) -> Vec<RuleView> {
    let traffic = Traffic { any_of: rule.ports.iter().map(port).collect(), ..Traffic::default() };
    let view = |peer, peer_index| RuleView {
        action: RuleAction::Allow,
        peer,
        own: EntityMatch::default(),
        traffic: traffic.clone(),
        position: position(direction, index, peer_index),
    };
    if rule.peers.is_empty() {
        return vec![view(EntityMatch::default(), None)];
    }
    let peers = rule.peers.iter().enumerate();
    peers.map(|(peer_index, peer)| view(entity(peer, namespace), Some(peer_index))).collect()
}

fn entity(peer: &NetworkPolicyPeer, namespace: &str) -> EntityMatch {
    if let Some(block) = &peer.ip_block {
        return EntityMatch {
            nets: vec![block.cidr.trunc()],
            not_nets: block.except.iter().map(IpNet::trunc).collect(),
            ..EntityMatch::default()
        };
    }
    let own = || Namespaces::Named(namespace.to_owned());
    let pods = PodMatch {
        namespaces: peer.namespace_selector.as_ref().map(Expr::from).map_or_else(own, Namespaces::Labelled),
        labels: peer.pod_selector.as_ref().map_or(Expr::All, Expr::from),
        ..PodMatch::default()
    };
    EntityMatch { pods: Some(pods), ..EntityMatch::default() }
}

fn port(port: &NetworkPolicyPort) -> PortView {
    let ports = match port.wanted() {
        PolicyPort::Range(first, last) => Ports::Range(first, last),
        PolicyPort::Name(name) => Ports::Named(name.to_owned()),
    };
    PortView { protocol: port.protocol.number(), ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Object, manifest};

    fn of(spec: &str) -> PolicyView {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: x, name: p}}, spec: {{{spec}}}}}"
        );
        let mut documents = manifest::parse("test", "default", &text).unwrap();
        let Object::NetworkPolicy(policy) = documents.remove(0).object else { panic!("another kind") };
        view(&policy)
    }

    #[test]
    fn each_peer_is_a_rule_of_its_own() {
        let peers = "from: [{ipBlock: {cidr: 10.9.9.9/8, except: [10.1.9.9/16]}}, {podSelector: {}}, {namespaceSelector: {}}]";
        let seen = of(&format!("podSelector: {{}}, ingress: [{{{peers}, ports: [{{port: http}}]}}, {{}}]"));
        assert_eq!(seen.source.to_string(), "NetworkPolicy x/p");
        assert_eq!(seen.egress, None, "it says nothing of egress");
        let rules = seen.ingress.unwrap();
        let positions: Vec<_> = rules.iter().map(|rule| rule.position.as_str()).collect();
        assert_eq!(
            positions,
            ["ingress rule 1, from 1", "ingress rule 1, from 2", "ingress rule 1, from 3", "ingress rule 2"]
        );
        assert_eq!(rules[0].peer.nets, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(rules[0].peer.not_nets, ["10.1.0.0/16".parse().unwrap()]);
        let namespaces = |rule: &RuleView| rule.peer.pods.as_ref().unwrap().namespaces.clone();
        assert_eq!(namespaces(&rules[1]), Namespaces::Named("x".into()));
        assert_eq!(namespaces(&rules[2]), Namespaces::Labelled(Expr::All));
        assert_eq!(rules[2].traffic.any_of, [PortView { protocol: 6, ports: Ports::Named("http".into()) }]);
        assert_eq!((&rules[3].peer, &rules[3].traffic), (&EntityMatch::default(), &Traffic::default()));
    }

    #[test]
    fn a_direction_without_rules_is_closed() {
        assert_eq!(of("podSelector: {}, policyTypes: [Egress]").egress, Some(vec![]));
    }
}
