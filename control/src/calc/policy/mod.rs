//! NetworkPolicies as the engine takes them: sets, policies, rules and subjects.
//!
//! One policy for each object and direction that isolates a local pod, one rule for each pair of an object's rule and
//! one of its peers. A port that is a name becomes a further rule for each number the name has, narrowed to the pods
//! that have it: the policy's own pods for ingress, the peers for egress.

use std::collections::{BTreeMap, BTreeSet};

#[allow(dead_code, reason = "read by the compiler next")]
mod from_cluster_policy;
#[allow(dead_code, reason = "read by the compiler next")]
mod from_network_policy;
#[allow(dead_code, reason = "read by the compiler next")]
mod view;

use ipnet::IpNet;
use vswitch_model::{
    Action, DesiredState, IdentityId, IdentitySet, Policy, PolicyId, PortMatch, Rule, RuleId, SetId,
    Standing, Subject, Tier, TierDefault,
};

use super::cluster::{Cluster, PodView, Selection};
use super::identity::{Identities, PodKey, Who};
use super::{Inputs, Numbering};
use crate::object::{
    IpBlock, LabelSelector, Labels, NetworkPolicy, NetworkPolicyPeer, PolicyPort, PolicyType, Protocol,
    RuleView,
};

/// Names a policy of one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicyKey {
    namespace: String,
    name: String,
    direction: PolicyType,
}

/// Names a rule: its policy, its place in the object, and for a named port the number meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleKey {
    policy: PolicyKey,
    rule: usize,
    peer: Option<usize>,
    named: Option<NamedPortKey>,
}

/// A name of a port and one number it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamedPortKey {
    name: String,
    protocol: Protocol,
    number: u16,
}

/// What a set holds, by definition rather than by members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SetKey {
    /// Pods with labels like these in namespaces like those.
    Pods(NamespaceScope, LabelSelector),
    /// Addresses.
    Block(IpBlock),
    /// Those of a set, or of all pods, that give a port's name this number.
    WithPort(Option<Box<SetKey>>, NamedPortKey),
}

/// Which namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NamespaceScope {
    /// The policy's own.
    Own(String),
    /// Those with labels like these.
    Selected(LabelSelector),
}

/// Policies that select, or may select, a pod of this node.
pub(super) fn in_force<'a>(inputs: &'a Inputs, cluster: &Cluster<'_>, node: &str) -> Vec<&'a NetworkPolicy> {
    let local: Vec<_> = cluster.local_pods(node).collect();
    let selects_local = |policy: &&NetworkPolicy| {
        let selection = |pod: &&PodView<'_>| pod.selection(policy.namespace(), &policy.spec.pod_selector);
        local.iter().any(|pod| selection(pod) != Selection::Not)
    };
    inputs.policies.values().map(AsRef::as_ref).filter(selects_local).collect()
}

/// All CIDRs that these policies speak of, excepted ones included.
pub(super) fn cidrs(policies: &[&NetworkPolicy]) -> BTreeSet<IpNet> {
    let rules =
        policies.iter().flat_map(|policy| PolicyType::ALL.map(|direction| policy.rules(direction))).flatten();
    let blocks = rules.flat_map(|rule| rule.peers).filter_map(|peer| peer.ip_block.as_ref());
    blocks.flat_map(|block| block.except.iter().copied().chain([block.cidr])).collect()
}

/// Puts sets, policies and subjects of `node` into `state`.
pub(super) fn compile(
    cluster: &Cluster<'_>,
    node: &str,
    policies: &[&NetworkPolicy],
    identities: &Identities,
    numbering: &mut Numbering,
    state: &mut DesiredState,
) {
    let local: BTreeMap<IdentityId, &PodKey> = cluster
        .local_pods(node)
        .flat_map(|pod| &pod.endpoints)
        .filter(|(endpoint, _)| endpoint.spec.node == node)
        .flat_map(|(_, addresses)| addresses)
        .filter_map(|address| identities.of_address(*address))
        .filter_map(|id| match &identities.by_number.get(&id)?.who {
            Who::Pod(pod) => Some((id, pod)),
            _ => None,
        })
        .collect();
    let mut covered: BTreeMap<IpNet, Vec<IdentityId>> = BTreeMap::new();
    for (id, key) in &identities.by_number {
        key.cidrs.iter().for_each(|cidr| covered.entry(*cidr).or_default().push(*id));
    }
    let mut compiler = Compiler { cluster, identities, covered, numbering, sets: BTreeMap::new(), state };
    // Pods that a policy may select, as far as is known: to be on the safe side nothing is allowed them.
    let mut closed = BTreeSet::new();
    // Policies come by namespace and name, and are asked in that order.
    for policy in policies {
        let of_namespace = local.iter().filter(|(_, pod)| pod.namespace == policy.namespace());
        let (mut selected, mut unknown) = (Vec::new(), Vec::new());
        for (id, pod) in of_namespace {
            match Selection::of(&policy.spec.pod_selector, pod.labels.as_ref()) {
                Selection::Selected => selected.push((*id, *pod)),
                Selection::Unknown => unknown.push(*id),
                Selection::Not => {}
            }
        }
        for direction in PolicyType::ALL.into_iter().filter(|direction| policy.isolates(*direction)) {
            if !selected.is_empty() {
                compiler.add_policy(policy, direction, &selected);
            }
            closed.extend(unknown.iter().map(|id| (*id, direction)));
        }
    }
    for (identity, direction) in closed {
        compiler.tier(identity, direction).policies.clear();
    }
}

struct Compiler<'a> {
    cluster: &'a Cluster<'a>,
    identities: &'a Identities,
    /// By CIDR of a policy: the identities within it, ascending.
    covered: BTreeMap<IpNet, Vec<IdentityId>>,
    numbering: &'a mut Numbering,
    /// Members of the sets made so far.
    sets: BTreeMap<SetKey, (SetId, Vec<IdentityId>)>,
    state: &'a mut DesiredState,
}

impl Compiler<'_> {
    fn add_policy(
        &mut self,
        policy: &NetworkPolicy,
        direction: PolicyType,
        selected: &[(IdentityId, &PodKey)],
    ) {
        let (namespace, name) = (policy.namespace().to_owned(), policy.metadata.name.clone());
        let key = PolicyKey { namespace, name, direction };
        let id = PolicyId(self.numbering.policies.number(&key));
        let mut rules = Vec::new();
        for (index, rule) in policy.rules(direction).into_iter().enumerate() {
            if rule.peers.is_empty() {
                self.add_rules(&key, index, rule, None, selected, &mut rules);
            }
            for (peer_index, peer) in rule.peers.iter().enumerate() {
                let peer = (peer_index, peer);
                self.add_rules(&key, index, rule, Some(peer), selected, &mut rules);
            }
        }
        let name = format!("NetworkPolicy {}/{}", key.namespace, key.name);
        self.state.policies.insert(id, Policy { id, name, standing: Standing::Enforced, rules });
        for (identity, _) in selected {
            self.tier(*identity, direction).policies.push(id);
        }
    }

    /// The tier that isolates an identity in a direction, which is in the state from then on.
    fn tier(&mut self, identity: IdentityId, direction: PolicyType) -> &mut Tier {
        let new = || Subject { identity, ingress: Vec::new(), egress: Vec::new() };
        let subject = self.state.subjects.entry(identity).or_insert_with(new);
        let tiers = match direction {
            PolicyType::Ingress => &mut subject.ingress,
            PolicyType::Egress => &mut subject.egress,
        };
        if tiers.is_empty() {
            tiers.push(Tier { name: "kubernetes".into(), policies: Vec::new(), default: TierDefault::Deny });
        }
        &mut tiers[0]
    }

    /// The rules for one rule of an object and one of its peers.
    fn add_rules(
        &mut self,
        policy: &PolicyKey,
        index: usize,
        rule: RuleView<'_>,
        peer: Option<(usize, &NetworkPolicyPeer)>,
        selected: &[(IdentityId, &PodKey)],
        rules: &mut Vec<Rule>,
    ) {
        let direction = policy.direction;
        let base = peer.map(|(_, peer)| set_of_peer(peer, &policy.namespace));
        let peers = base.as_ref().map(|key| self.set(key));
        let position = position(direction, index, peer.map(|(peer_index, _)| peer_index));
        let key = |named| RuleKey {
            policy: policy.clone(),
            rule: index,
            peer: peer.map(|(peer_index, _)| peer_index),
            named,
        };
        let (mut ports, mut names) = (Vec::new(), BTreeSet::new());
        for port in rule.ports {
            match port.wanted() {
                PolicyPort::Range(first, last) => {
                    ports.push(PortMatch { protocol: port.protocol.number(), first, last });
                }
                PolicyPort::Name(name) => drop(names.insert((name, port.protocol))),
            }
        }
        if !ports.is_empty() || rule.ports.is_empty() {
            let id = RuleId(self.numbering.rules.number(&key(None)));
            let position = position.clone();
            rules.push(Rule { peers, ports, ..Rule::new(id, Action::Allow, position) });
        }
        for (name, protocol) in names {
            for number in self.numbers_of(name, protocol, direction, base.as_ref(), selected) {
                let named = NamedPortKey { name: name.to_owned(), protocol, number };
                let id = RuleId(self.numbering.rules.number(&key(Some(named.clone()))));
                let (peers, subjects) = match direction {
                    PolicyType::Ingress => (peers, Some(self.set(&SetKey::WithPort(None, named)))),
                    PolicyType::Egress => {
                        (Some(self.set(&SetKey::WithPort(base.clone().map(Box::new), named))), None)
                    }
                };
                let ports = vec![PortMatch { protocol: protocol.number(), first: number, last: number }];
                let position = format!("{position}, port {name}");
                rules.push(Rule { peers, subjects, ports, ..Rule::new(id, Action::Allow, position) });
            }
        }
    }

    /// The numbers that the pods which the port is to be found at give its name.
    fn numbers_of(
        &mut self,
        name: &str,
        protocol: Protocol,
        direction: PolicyType,
        base: Option<&SetKey>,
        selected: &[(IdentityId, &PodKey)],
    ) -> BTreeSet<u16> {
        if direction == PolicyType::Ingress {
            return selected.iter().filter_map(|(_, pod)| pod.port(name, protocol)).collect();
        }
        let within = base.map(|key| self.members(key));
        let meant = |id: &IdentityId| within.as_ref().is_none_or(|members| members.binary_search(id).is_ok());
        self.identities
            .pods()
            .filter(|(id, _)| meant(id))
            .filter_map(|(_, pod)| pod.port(name, protocol))
            .collect()
    }

    /// The number of a set, which is in the state from then on.
    fn set(&mut self, key: &SetKey) -> SetId {
        if let Some((id, _)) = self.sets.get(key) {
            return *id;
        }
        let members = self.members(key);
        let id = SetId(self.numbering.sets.number(key));
        self.state.sets.insert(id, IdentitySet { id, members: members.clone() });
        self.sets.insert(key.clone(), (id, members));
        id
    }

    /// The members of a set, ascending.
    fn members(&self, key: &SetKey) -> Vec<IdentityId> {
        if let Some((_, members)) = self.sets.get(key) {
            return members.clone();
        }
        match key {
            SetKey::Pods(scope, selector) => {
                let namespaces = self.namespaces(scope);
                let meant = |pod: &PodKey| {
                    namespaces.contains(pod.namespace.as_str())
                        && Selection::of(selector, pod.labels.as_ref()) == Selection::Selected
                };
                self.identities.pods().filter(|(_, pod)| meant(pod)).map(|(id, _)| id).collect()
            }
            SetKey::Block(block) => {
                // The identities were made with these very CIDRs in mind: each is within one wholly or not at all.
                let of = |cidr: &IpNet| self.covered.get(cidr).map_or([].as_slice(), Vec::as_slice);
                let excepted =
                    |id: &IdentityId| block.except.iter().any(|except| of(except).binary_search(id).is_ok());
                of(&block.cidr).iter().filter(|id| !excepted(id)).copied().collect()
            }
            SetKey::WithPort(base, named) => {
                let within = base.as_ref().map(|key| self.members(key));
                let meant = |id: &IdentityId, pod: &PodKey| {
                    pod.port(&named.name, named.protocol) == Some(named.number)
                        && within.as_ref().is_none_or(|members| members.binary_search(id).is_ok())
                };
                self.identities.pods().filter(|(id, pod)| meant(id, pod)).map(|(id, _)| id).collect()
            }
        }
    }

    /// The namespaces meant. Containers that are no pods are in none.
    fn namespaces(&self, scope: &NamespaceScope) -> BTreeSet<&str> {
        let meant = |name: &str, labels: &Labels| match scope {
            NamespaceScope::Own(own) => name == own,
            NamespaceScope::Selected(selector) => selector.matches(labels),
        };
        let namespaces = self.cluster.namespaces.iter().filter(|(name, _)| !name.is_empty());
        namespaces.filter(|(name, labels)| meant(name, labels)).map(|(name, _)| *name).collect()
    }
}

fn set_of_peer(peer: &NetworkPolicyPeer, namespace: &str) -> SetKey {
    if let Some(block) = &peer.ip_block {
        return SetKey::Block(block.clone());
    }
    let own = || NamespaceScope::Own(namespace.to_owned());
    let scope = peer.namespace_selector.clone().map_or_else(own, NamespaceScope::Selected);
    SetKey::Pods(scope, peer.pod_selector.clone().unwrap_or_default())
}

/// Where in its object a rule was written, counted from 1: `ingress rule 1, from 2`.
pub(super) fn position(direction: PolicyType, rule: usize, peer: Option<usize>) -> String {
    let peer = peer.map(|peer| format!(", {} {}", direction.peers_field(), peer + 1)).unwrap_or_default();
    format!("{} rule {}{peer}", direction.text(), rule + 1)
}
