//! Policies of every kind as the engine takes them.
//!
//! An object is turned into a [`view::PolicyView`] by a function of its kind (`from_*`), the views are put in the order
//! in which they are asked ([`in_order()`]), and those that may select a pod of the node are compiled: into sets of
//! identities ([`scope`], [`members`], [`sets`]), ranges of ports ([`ports`]), [`rules`], and what applies to whom
//! ([`Compiler`]).
//!
//! What is not known counts against the flow. A pod of unknown labels, its own or of its namespace or service account, that a policy may select is denied everything in
//! the directions the policy speaks of; as the other end of a rule it is not who is allowed, it is who is denied, and
//! where it might be passed on to the next tier it is denied.

use std::collections::BTreeMap;

use ipnet::IpNet;

mod cases;
mod compile;
mod from_calico;
mod from_cluster_policy;
mod from_network_policy;
mod in_order;
mod in_place;
mod members;
mod names;
mod ports;
mod rules;
mod scope;
pub(super) mod select;
mod selected;
mod sets;
mod subjects;
pub(super) mod view;

pub(super) use compile::{Compiler, Moves, PolicyKey};
pub(super) use in_order::{Placed, in_order};
pub(super) use in_place::InPlace;
pub(super) use members::Members;
pub(super) use names::names_wanted;
pub(super) use rules::RuleKey;
pub use selected::selected_pods;
pub(super) use sets::SetKey;

use self::scope::everything;
use self::select::Candidate;
use self::view::{EntityMatch, RuleView};
use super::LearnedNames;
use super::address_list::AddressList;
use super::referred::Referred;
use crate::object::PolicyType;

/// What policies want of addresses.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// The lists of CIDRs they speak of, excepted ones included.
    pub(super) lists: BTreeMap<AddressList, Vec<IpNet>>,
    /// Whether one of them asks for labels of nodes.
    pub(super) labels_of_nodes: bool,
}

impl Wanted {
    /// What these policies want.
    pub(super) fn by<'a>(
        policies: impl Iterator<Item = &'a Placed>,
        referred: &Referred,
        names: &LearnedNames,
    ) -> Self {
        let mut wanted = Self::default();
        for rule in policies.flat_map(rules_of) {
            for entity in [&rule.peer, &rule.own] {
                wanted.add(entity, referred, names);
            }
            if let Some(family) = rule.traffic.ip_version {
                let nets = vec![everything(family)];
                wanted.lists.insert(AddressList::nets(&nets), nets);
            }
        }
        wanted
    }

    fn add(&mut self, entity: &EntityMatch, referred: &Referred, names: &LearnedNames) {
        for nets in [&entity.nets, &entity.not_nets].into_iter().filter(|nets| !nets.is_empty()) {
            self.lists.insert(AddressList::nets(nets), nets.clone());
        }
        self.labels_of_nodes |= entity.nodes.is_some();
        if let Some(service) = &entity.service {
            let (namespace, name) = (&service.namespace, &service.name);
            let ports = referred.service_ports(namespace, name);
            let ports = ports.into_iter().filter(|_| service.with_ports).map(Some);
            for port in ports.chain([None]) {
                let nets = referred.service_addresses(namespace, name, port).map(IpNet::from);
                let list = AddressList::Service(namespace.clone(), name.clone(), port);
                self.lists.insert(list, nets.collect());
            }
        }
        if !entity.domains.is_empty() {
            let addresses = names.of(&entity.domains).map(|(_, address)| IpNet::from(address));
            self.lists.insert(AddressList::Domains(entity.domains.clone()), addresses.collect());
        }
        for pods in [&entity.pods, &entity.not_pods].into_iter().flatten().filter(|pods| pods.network_sets) {
            let sets = referred.network_sets.iter();
            for set in sets.filter(|set| pods.selects(&Candidate::network_set(set, referred)) != Some(false))
            {
                self.lists.insert(AddressList::Set(set.source.clone()), set.nets().to_vec());
            }
        }
    }
}

/// The rules of both directions, as far as they are asked.
fn rules_of(placed: &Placed) -> impl Iterator<Item = &RuleView> {
    let directions = PolicyType::ALL.into_iter().filter_map(|direction| placed.view.rules(direction));
    directions.flatten().filter(|_| placed.tier.is_some())
}

/// Where in its object a rule was written, counted from 1: `ingress rule 1, from 2`.
fn position(direction: PolicyType, rule: usize, peer: Option<usize>) -> String {
    let peer = peer.map(|peer| format!(", {} {}", direction.peers_field(), peer + 1)).unwrap_or_default();
    format!("{} rule {}{peer}", direction.text(), rule + 1)
}
