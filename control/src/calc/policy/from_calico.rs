//! Calico's policies, profiles, and what is staged.
//!
//! What selectors of a rule mean follows libcalico-go (lib/backend/syncersv1/updateprocessors/rules.go): they mean pods
//! and network sets; in a policy of a namespace those of its namespace, unless a namespaceSelector names others. A
//! notSelector means whatever is selected, in any namespace, and everybody else is left over.

use super::from_network_policy;
use super::position;
use super::view::{
    AccountMatch, EntityMatch, Expr, IpVersion, Namespaces, Order, PodMatch, PolicyView, PortView, Ports,
    RuleAction, RuleView, ServiceMatch, Source, Standing, TierName, Traffic,
};
use crate::calc::Inputs;
use crate::object::calico::{
    self, EntityRule, IcmpMatch, PolicySpec, Port, ProfileOf, Rule, RuleProtocol, ServiceAccountMatch,
    StagedAction,
};
use crate::object::expression::Selector;
use crate::object::{Kind, ObjectMeta, PolicyType};

/// A policy of a namespace's pods.
pub(crate) fn network_policy(policy: &calico::NetworkPolicy) -> PolicyView {
    view(Kind::CalicoNetworkPolicy, &policy.metadata, &policy.spec, Standing::Enforced)
}

/// A policy of pods of any namespace.
pub(crate) fn global_network_policy(policy: &calico::GlobalNetworkPolicy) -> PolicyView {
    view(Kind::GlobalNetworkPolicy, &policy.metadata, &policy.spec, Standing::Enforced)
}

/// The first, staged.
pub(crate) fn staged_network_policy(policy: &calico::StagedNetworkPolicy) -> PolicyView {
    let standing = staged(policy.spec.staged_action, Kind::CalicoNetworkPolicy);
    view(Kind::StagedNetworkPolicy, &policy.metadata, &policy.spec, standing)
}

/// The second, staged.
pub(crate) fn staged_global_network_policy(policy: &calico::StagedGlobalNetworkPolicy) -> PolicyView {
    let standing = staged(policy.spec.staged_action, Kind::GlobalNetworkPolicy);
    view(Kind::StagedGlobalNetworkPolicy, &policy.metadata, &policy.spec, standing)
}

/// Kubernetes' own, staged.
pub(crate) fn staged_kubernetes_network_policy(policy: &calico::StagedKubernetesNetworkPolicy) -> PolicyView {
    let standing = staged(policy.spec.staged_action, Kind::NetworkPolicy);
    let mut view = from_network_policy::view(&policy.enforced());
    view.source.kind = Kind::StagedKubernetesNetworkPolicy;
    view.standing = standing;
    view
}

/// Profiles that pods have. A namespace without one of its own allows everything before its service accounts' are asked,
/// so that those say nothing there.
pub(crate) fn profiles(inputs: &Inputs) -> Vec<PolicyView> {
    let is_asked = |namespace: &str| inputs.profiles.contains_key(&format!("kns.{namespace}"));
    let view = |profile: &calico::Profile| {
        let (namespace, account, order) = match profile.of()? {
            ProfileOf::Namespace(namespace) => (namespace, None, 0.0),
            ProfileOf::ServiceAccount(namespace, name) => (namespace, Some(name), 1.0),
        };
        let account = account.map(|name| AccountMatch { names: vec![name.to_owned()], labels: Expr::All });
        let rules = |direction, rules| Some(rule_views(direction, rules, None));
        is_asked(namespace).then(|| PolicyView {
            source: source(Kind::Profile, &profile.metadata),
            tier: TierName::Profiles,
            order: Order(Some(order)),
            standing: Standing::Enforced,
            subject: PodMatch {
                namespaces: Namespaces::Named(namespace.to_owned()),
                account,
                ..PodMatch::default()
            },
            ingress: rules(PolicyType::Ingress, &profile.spec.ingress),
            egress: rules(PolicyType::Egress, &profile.spec.egress),
        })
    };
    inputs.profiles.values().filter_map(|profile| view(profile)).collect()
}

fn staged(action: Option<StagedAction>, of: Kind) -> Standing {
    match action {
        Some(StagedAction::Delete) => Standing::StagedRemoval(of),
        _ => Standing::Staged(of),
    }
}

fn source(kind: Kind, metadata: &ObjectMeta) -> Source {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    Source { kind, namespace, name: metadata.name.clone() }
}

fn view(kind: Kind, metadata: &ObjectMeta, spec: &PolicySpec, standing: Standing) -> PolicyView {
    let source = source(kind, metadata);
    let namespace = kind.is_namespaced().then_some(source.namespace.as_str());
    let rules = |direction| spec.rules(direction).map(|rules| rule_views(direction, rules, namespace));
    let (ingress, egress) = (rules(PolicyType::Ingress), rules(PolicyType::Egress));
    let subject = PodMatch {
        namespaces: namespaces(&spec.namespace_selector, namespace),
        labels: spec.selector.expr().clone(),
        account: account(&[], &spec.service_account_selector),
        network_sets: false,
    };
    let tier = TierName::Named(spec.tier().to_owned());
    PolicyView { source, tier, order: Order(spec.order), standing, subject, ingress, egress }
}

/// Those with labels like these; without a selector those of the policy, which are all of a policy without one.
fn namespaces(selector: &Selector, own: Option<&str>) -> Namespaces {
    match own {
        _ if !selector.is_blank() => Namespaces::Labelled(selector.expr().clone()),
        Some(own) => Namespaces::Named(own.to_owned()),
        None => Namespaces::Any,
    }
}

/// None: any service account, and none at all.
fn account(names: &[String], selector: &Selector) -> Option<AccountMatch> {
    let says_something = !names.is_empty() || !selector.is_blank();
    says_something.then(|| AccountMatch { names: names.to_vec(), labels: selector.expr().clone() })
}

fn rule_views(direction: PolicyType, rules: &[Rule], namespace: Option<&str>) -> Vec<RuleView> {
    rules.iter().enumerate().map(|(index, rule)| rule_view(direction, index, rule, namespace)).collect()
}

fn rule_view(direction: PolicyType, index: usize, rule: &Rule, namespace: Option<&str>) -> RuleView {
    let from = entity(&rule.source, namespace, false);
    let to = entity(&rule.destination, namespace, true);
    let (peer, own) = match direction {
        PolicyType::Ingress => (from, to),
        PolicyType::Egress => (to, from),
    };
    RuleView {
        action: match rule.action {
            calico::RuleAction::Allow => RuleAction::Allow,
            calico::RuleAction::Deny => RuleAction::Deny,
            calico::RuleAction::Log => RuleAction::Log,
            calico::RuleAction::Pass => RuleAction::Pass,
        },
        peer,
        own,
        traffic: traffic(rule),
        position: position(direction, index, None),
    }
}

fn entity(rule: &EntityRule, namespace: Option<&str>, is_destination: bool) -> EntityMatch {
    let accounts = rule.service_accounts.as_ref();
    let account = accounts.and_then(|ServiceAccountMatch { names, selector }| account(names, selector));
    let is_positive = !rule.selector.is_blank() || !rule.namespace_selector.is_blank() || account.is_some();
    // In a namespace, not to be one of some pods is still to be one of the namespace's.
    let is_scoped = namespace.is_some() && !rule.not_selector.is_blank();
    let pods = (is_positive || is_scoped).then(|| PodMatch {
        namespaces: namespaces(&rule.namespace_selector, namespace),
        labels: rule.selector.expr().clone(),
        account,
        network_sets: true,
    });
    let not_pods = (!rule.not_selector.is_blank()).then(|| PodMatch {
        labels: rule.not_selector.expr().clone(),
        network_sets: true,
        ..PodMatch::default()
    });
    let service = rule.services.as_ref().map(|service| {
        let given = service.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        ServiceMatch {
            namespace: given.or(namespace).unwrap_or_default().to_owned(),
            name: service.name.clone(),
            with_ports: is_destination,
        }
    });
    let (nets, not_nets) = (rule.nets.clone(), rule.not_nets.clone());
    EntityMatch { pods, not_pods, nets, not_nets, service, ..EntityMatch::default() }
}

fn traffic(rule: &Rule) -> Traffic {
    let any_of = match (rule.protocol, rule.destination.ports.as_slice()) {
        (None, []) => Vec::new(),
        (Some(protocol), []) => {
            vec![icmp(protocol, rule.icmp).unwrap_or_else(|| PortView::all(protocol.number()))]
        }
        (protocol, ports) => ports.iter().flat_map(|port| port_views(port, protocol)).collect(),
    };
    let mut none_of: Vec<_> =
        rule.not_protocol.map(|protocol| PortView::all(protocol.number())).into_iter().collect();
    none_of.extend(rule.protocol.and_then(|protocol| icmp(protocol, rule.not_icmp)));
    let ports =
        |ports: &[Port]| ports.iter().flat_map(|port| port_views(port, rule.protocol)).collect::<Vec<_>>();
    none_of.extend(ports(&rule.destination.not_ports));
    let ip_version = rule.ip_version.map(|version| if version == 4 { IpVersion::V4 } else { IpVersion::V6 });
    Traffic {
        any_of,
        none_of,
        source_any_of: ports(&rule.source.ports),
        source_none_of: ports(&rule.source.not_ports),
        ip_version,
    }
}

/// Messages of a type. None: nothing is said of them.
fn icmp(protocol: RuleProtocol, icmp: Option<IcmpMatch>) -> Option<PortView> {
    let IcmpMatch { kind, code } = icmp?;
    let kind = u16::from(kind?) << 8;
    let (first, last) = code.map_or((0, 255), |code| (code, code));
    let ports = Ports::Range(kind | u16::from(first), kind | u16::from(last));
    Some(PortView { protocol: protocol.number(), ports })
}

/// Without a protocol there are only names, which mean ports of any.
fn port_views(port: &Port, protocol: Option<RuleProtocol>) -> Vec<PortView> {
    let ports = match port {
        Port::Range(first, last) => Ports::Range(*first, *last),
        Port::Name(name) => Ports::Named(name.clone()),
    };
    let any = [RuleProtocol::TCP, RuleProtocol::UDP, RuleProtocol::SCTP];
    let protocols = protocol.map_or_else(|| any.to_vec(), |protocol| vec![protocol]);
    let view = |protocol: RuleProtocol| PortView { protocol: protocol.number(), ports: ports.clone() };
    protocols.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests;
