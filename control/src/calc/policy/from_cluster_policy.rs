//! Policies of the whole cluster: ClusterNetworkPolicy, and its older spellings AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy.

use ipnet::IpNet;
use vswitch_model::DomainPattern;

use super::view::{
    EntityMatch, Expr, Namespaces, Order, PodMatch, PolicyView, PortView, Ports, RuleAction, RuleView,
    Source, Standing, TierName, Traffic,
};
use crate::object::{
    ClusterAction, ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, ClusterTier, Kind, PolicyType,
    Protocol,
};

/// The policy as the compiler reads it: one rule for each pair of its rules and one of their peers. It says nothing of a
/// direction it has no rules for.
pub(crate) fn view(kind: Kind, name: &str, policy: &dyn ClusterPolicy) -> PolicyView {
    let rules = |direction: PolicyType| {
        let rules = policy.rules(direction);
        let views = rules.iter().enumerate().flat_map(|(index, rule)| rule_views(direction, index, rule));
        (!rules.is_empty()).then(|| views.collect())
    };
    PolicyView {
        source: Source { kind, namespace: String::new(), name: name.to_owned() },
        tier: match policy.tier() {
            ClusterTier::Admin => TierName::Admin,
            ClusterTier::Baseline => TierName::Baseline,
        },
        order: Order(policy.priority().map(f64::from)),
        standing: Standing::Enforced,
        subject: entity(policy.subject()).pods.expect("a subject is pods"),
        ingress: rules(PolicyType::Ingress),
        egress: rules(PolicyType::Egress),
    }
}

/// What stands in for a policy that cannot be read: before all others it denies every pod everything.
pub(crate) fn unreadable(kind: Kind, name: &str) -> PolicyView {
    let deny = || {
        let everything = RuleView {
            action: RuleAction::Deny,
            peer: EntityMatch::default(),
            own: EntityMatch::default(),
            traffic: Traffic::default(),
            position: "which cannot be read".to_owned(),
        };
        Some(vec![everything])
    };
    PolicyView {
        source: Source { kind, namespace: String::new(), name: name.to_owned() },
        tier: TierName::Admin,
        order: Order(Some(-1.0)),
        standing: Standing::Enforced,
        subject: PodMatch { namespaces: Namespaces::Labelled(Expr::All), ..PodMatch::default() },
        ingress: deny(),
        egress: deny(),
    }
}

fn rule_views(direction: PolicyType, index: usize, rule: &ClusterRule<'_>) -> Vec<RuleView> {
    let traffic = Traffic { any_of: rule.ports.iter().flat_map(ports).collect(), ..Traffic::default() };
    let name = if rule.name.is_empty() { String::new() } else { format!(" \"{}\"", rule.name) };
    let view = |(peer_index, peer): (usize, &ClusterPeer<'_>)| RuleView {
        action: match rule.action {
            ClusterAction::Accept => RuleAction::Allow,
            ClusterAction::Deny => RuleAction::Deny,
            ClusterAction::Pass => RuleAction::Pass,
        },
        peer: entity(*peer),
        own: EntityMatch::default(),
        traffic: traffic.clone(),
        position: format!(
            "{} rule {}{name}, {} {}",
            direction.text(),
            index + 1,
            direction.peers_field(),
            peer_index + 1
        ),
    };
    rule.peers.iter().enumerate().map(view).collect()
}

fn entity(peer: ClusterPeer<'_>) -> EntityMatch {
    let mut entity = EntityMatch::default();
    match peer {
        ClusterPeer::Pods { namespaces, pods } => {
            entity.pods = Some(PodMatch {
                namespaces: Namespaces::Labelled(Expr::from(namespaces)),
                labels: pods.map_or(Expr::All, Expr::from),
                ..PodMatch::default()
            });
        }
        ClusterPeer::Nodes(nodes) => entity.nodes = Some(Expr::from(nodes)),
        ClusterPeer::Networks(networks) => entity.nets = networks.iter().map(IpNet::trunc).collect(),
        ClusterPeer::DomainNames(names) => {
            let read = |name: &String| DomainPattern::new(name).expect("checked when the object was read");
            entity.domains = names.iter().map(read).collect();
            entity.domains.sort();
            entity.domains.dedup();
        }
    }
    entity
}

/// A port's name is asked for without its protocol: it is a port of any.
fn ports(port: &ClusterPort<'_>) -> Vec<PortView> {
    match *port {
        ClusterPort::Range(protocol, first, last) => {
            vec![PortView { protocol: protocol.number(), ports: Ports::Range(first, last) }]
        }
        ClusterPort::Name(name) => {
            let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            let named = |protocol: Protocol| PortView {
                protocol: protocol.number(),
                ports: Ports::Named(name.to_owned()),
            };
            protocols.map(named).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Object, manifest};

    fn of(text: &str) -> PolicyView {
        let object = manifest::parse("test", "default", text).unwrap().remove(0).object;
        let (kind, name) = (object.kind(), object.meta().name.clone());
        match &object {
            Object::ClusterNetworkPolicy(policy) => view(kind, &name, policy),
            Object::AdminNetworkPolicy(policy) => view(kind, &name, policy),
            Object::BaselineAdminNetworkPolicy(policy) => view(kind, &name, policy),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_peer_is_a_rule_of_its_own() {
        let seen = of("
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 7
  subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {c: d}}}}
  egress:
  - {action: Accept, to: [{namespaces: {}}, {pods: {podSelector: {matchLabels: {e: f}}}}], protocols: [{destinationNamedPort: sip}, {udp: {destinationPort: {range: {start: 5, end: 9}}}}]}
  - {name: out, action: Deny, to: [{nodes: {}}, {networks: [10.0.0.1/8, '::/0']}]}
  - {action: Pass, to: [{namespaces: {}}]}");
        assert_eq!(seen.source.to_string(), "ClusterNetworkPolicy guard");
        assert_eq!((&seen.tier, seen.order, &seen.ingress), (&TierName::Admin, Order(Some(7.0)), &None));
        assert_ne!(
            (&seen.subject.namespaces, &seen.subject.labels),
            (&Namespaces::Any, &PodMatch::default().labels)
        );
        let rules = seen.egress.unwrap();
        let positions: Vec<_> = rules.iter().map(|rule| (rule.position.as_str(), rule.action)).collect();
        assert_eq!(
            positions,
            [
                ("egress rule 1, to 1", RuleAction::Allow),
                ("egress rule 1, to 2", RuleAction::Allow),
                ("egress rule 2 \"out\", to 1", RuleAction::Deny),
                ("egress rule 2 \"out\", to 2", RuleAction::Deny),
                ("egress rule 3, to 1", RuleAction::Pass),
            ]
        );
        let asked = |protocol| PortView { protocol, ports: Ports::Named("sip".into()) };
        let range = PortView { protocol: 17, ports: Ports::Range(5, 9) };
        assert_eq!(rules[0].traffic.any_of, [asked(6), asked(17), asked(132), range]);
        assert_eq!(rules[2].traffic, Traffic::default(), "every port of every protocol, ICMP too");
        assert_eq!(
            rules[2].peer,
            EntityMatch { nodes: rules[2].peer.nodes.clone(), ..EntityMatch::default() }
        );
        assert!(rules[2].peer.nodes.is_some() && rules[0].peer.pods.is_some());
        assert_eq!(rules[3].peer.nets, ["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()]);
    }

    #[test]
    fn the_older_spellings_are_the_same_tiers() {
        let head = "apiVersion: policy.networking.k8s.io/v1alpha1, kind";
        let spec = "subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]";
        let admin = of(&format!(
            "{{{head}: AdminNetworkPolicy, metadata: {{name: a}}, spec: {{priority: 0, {spec}}}}}"
        ));
        let baseline = of(&format!(
            "{{{head}: BaselineAdminNetworkPolicy, metadata: {{name: default}}, spec: {{{spec}}}}}"
        ));
        assert_eq!((&admin.tier, admin.order), (&TierName::Admin, Order(Some(0.0))));
        assert_eq!((&baseline.tier, baseline.order), (&TierName::Baseline, Order(None)));
        for seen in [admin, baseline] {
            assert_eq!(seen.egress, None, "without rules it says nothing");
            assert_eq!(seen.ingress.unwrap()[0].action, RuleAction::Allow);
        }
    }
}
