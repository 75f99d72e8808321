//! Which identities one end of a rule means: the members of sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vswitch_model::IdentityId;

use super::scope::{PortNumber, Scope};
use super::select::{Candidate, both, either, is_of_namespaces, not};
use super::view::{EntityMatch, Expr, Namespaces, PodMatch};
use crate::calc::address_list::{AddressList, AddressLists};
use crate::calc::identity::{Identities, IdentityKey, Who};
use crate::calc::referred::Referred;

/// Finds out who is meant.
#[derive(Debug)]
pub(in crate::calc) struct Members {
    pub(in crate::calc) referred: Arc<Referred>,
    pub(in crate::calc) identities: Identities,
    pub(in crate::calc) lists: AddressLists,
    /// By list: the identities in it.
    covered: BTreeMap<u32, BTreeSet<IdentityId>>,
    /// By namespace: the identities of its pods.
    of_namespace: BTreeMap<String, BTreeSet<IdentityId>>,
    /// By key and value: the identities of pods with such a label of their own.
    labelled: BTreeMap<String, BTreeMap<String, BTreeSet<IdentityId>>>,
    /// Those of pods of unknown labels.
    unknown: BTreeSet<IdentityId>,
}

/// A scope made ready to be asked of many identities. It stays right as long as what is referred to and the lists that
/// the scope speaks of stay as they are.
#[derive(Debug)]
pub(super) struct Prepared {
    lists_in: Vec<Option<u32>>,
    list_out: Option<u32>,
    /// NetworkSets that `pods` means.
    sets: Vec<u32>,
    /// NetworkSets that `not_pods` means, where `pods` says nothing.
    not_sets: Vec<u32>,
}

/// One identity, made ready to be asked of many scopes.
pub(super) struct Asked<'a> {
    id: IdentityId,
    key: &'a IdentityKey,
    /// None: policies cannot speak of it as a pod.
    candidate: Option<Candidate<'a>>,
}

impl Asked<'_> {
    pub(super) const fn id(&self) -> IdentityId {
        self.id
    }
}

impl Members {
    pub(in crate::calc) fn new(referred: Arc<Referred>, identities: Identities, lists: AddressLists) -> Self {
        let mut members = Self {
            referred,
            identities: Identities::default(),
            lists,
            covered: BTreeMap::new(),
            of_namespace: BTreeMap::new(),
            labelled: BTreeMap::new(),
            unknown: BTreeSet::new(),
        };
        identities.by_number.iter().for_each(|(id, key)| members.index(*id, key));
        members.identities = identities;
        members
    }

    /// Takes in an identity that is new among them.
    pub(super) fn add(&mut self, id: IdentityId) {
        if let Some(key) = self.identities.by_number.get(&id).cloned() {
            self.index(id, &key);
        }
    }

    fn index(&mut self, id: IdentityId, key: &IdentityKey) {
        for list in &key.lists {
            self.covered.entry(*list).or_default().insert(id);
        }
        let Some(pod) = key.pod() else { return };
        entry(&mut self.of_namespace, &pod.namespace).insert(id);
        match &pod.labels {
            Some(labels) => {
                for (label, value) in labels {
                    entry(entry(&mut self.labelled, label), value).insert(id);
                }
            }
            None if pod.is_pod() => {
                self.unknown.insert(id);
            }
            None => {}
        }
    }

    /// Leaves out an identity that is not among them any more.
    pub(super) fn remove(&mut self, id: IdentityId, key: &IdentityKey) {
        key.lists.iter().for_each(|list| leave(&mut self.covered, list, id));
        let Some(pod) = key.pod() else { return };
        leave(&mut self.of_namespace, &pod.namespace, id);
        for (label, value) in pod.labels.iter().flatten() {
            if let Some(values) = self.labelled.get_mut(label) {
                leave(values, value, id);
                if values.is_empty() {
                    self.labelled.remove(label);
                }
            }
        }
        self.unknown.remove(&id);
    }

    /// Whether there are pods of unknown labels, be they their own or of their namespace or service account.
    pub(super) fn has_unknown(&self) -> bool {
        !self.unknown.is_empty() || self.referred.has_unlabelled
    }

    /// The pods of an identity, as selectors see them. None: policies cannot speak of it as a pod.
    pub(super) fn candidate<'a>(&'a self, key: &'a IdentityKey) -> Option<Candidate<'a>> {
        Candidate::identity(key.pod()?, &self.referred)
    }

    /// An identity that is among them.
    pub(super) fn ask(&self, id: IdentityId) -> Option<Asked<'_>> {
        let key = self.identities.by_number.get(&id)?;
        Some(Asked { id, key, candidate: self.candidate(key) })
    }

    /// The identities meant, or, of a negative scope, not meant; ascending. Those of which it is not known count as
    /// meant or not as `unknown` says.
    pub(super) fn listed(&self, scope: &Scope, prepared: &Prepared, unknown: bool) -> Vec<IdentityId> {
        let is_listed = |id: &IdentityId| {
            self.ask(*id).is_some_and(|asked| self.is_listed(scope, prepared, &asked, unknown))
        };
        match self.fewest(scope, prepared) {
            Some(ids) => ids.into_iter().filter(is_listed).collect(),
            None => self.identities.by_number.keys().copied().filter(is_listed).collect(),
        }
    }

    /// Whether an identity is among those [`Self::listed`].
    pub(super) fn is_listed(
        &self,
        scope: &Scope,
        prepared: &Prepared,
        asked: &Asked<'_>,
        unknown: bool,
    ) -> bool {
        let is_meant = self.is_meant(scope, prepared, asked).unwrap_or(unknown);
        is_meant != scope.is_negative() && asked.id != IdentityId::UNKNOWN
    }

    /// All who may be meant, of several ways to list them the shortest, ascending. None: there is none.
    fn fewest(&self, scope: &Scope, prepared: &Prepared) -> Option<BTreeSet<IdentityId>> {
        let covered = |list: &Option<u32>| -> Vec<_> {
            list.and_then(|list| self.covered.get(&list)).into_iter().collect()
        };
        let mut ways: Vec<Vec<&BTreeSet<IdentityId>>> = prepared.lists_in.iter().map(covered).collect();
        if let Some(pods) = scope.entity.pods.as_ref().filter(|_| prepared.sets.is_empty()) {
            ways.extend(self.of_namespaces(&pods.namespaces));
            ways.extend(self.of_labels(&pods.labels));
        }
        let fewest = ways.into_iter().min_by_key(|ids| ids.iter().map(|ids| ids.len()).sum::<usize>())?;
        Some(fewest.into_iter().flatten().copied().collect())
    }

    /// The pods of namespaces. None: of all.
    fn of_namespaces(&self, namespaces: &Namespaces) -> Option<Vec<&BTreeSet<IdentityId>>> {
        match namespaces {
            Namespaces::Any => None,
            Namespaces::Named(name) => Some(self.of_namespace.get(name).into_iter().collect()),
            Namespaces::Labelled(expr) => {
                let may_be_meant = |name: &String| match self.referred.namespace(name) {
                    Some(namespace) => is_of_namespaces(expr, Some(namespace)) != Some(false),
                    None => true,
                };
                let meant = self.of_namespace.iter().filter(|(name, _)| may_be_meant(name));
                Some(meant.map(|(_, ids)| ids).collect())
            }
        }
    }

    /// The pods that have a label that an expression asks for, or may have it. None: it asks for none, or for one that a
    /// pod may have from elsewhere.
    fn of_labels(&self, expr: &Expr) -> Option<Vec<&BTreeSet<IdentityId>>> {
        let (label, value) = asked_for(expr)?;
        if self.referred.has_profiles() || Candidate::has_from_elsewhere(label) {
            return None;
        }
        let labelled = self.labelled.get(label).and_then(|values| values.get(value));
        Some(labelled.into_iter().chain([&self.unknown]).collect())
    }

    /// `unknown`: whether those of which it is not known count as meant.
    pub(super) fn prepare(&self, scope: &Scope, unknown: bool) -> Prepared {
        let number = |list: AddressList| self.lists.number(&list);
        let EntityMatch { pods, not_pods, .. } = &scope.entity;
        let sets_of = |meant: &dyn Fn(&Candidate<'_>) -> Option<bool>, unknown: bool| -> Vec<u32> {
            let sets = self.referred.network_sets.iter();
            sets.filter(|set| meant(&Candidate::network_set(set, &self.referred)).unwrap_or(unknown))
                .filter_map(|set| number(AddressList::Set(set.source.clone())))
                .collect()
        };
        let is_set_of = |wanted: &Option<PodMatch>, candidate: &Candidate<'_>| {
            wanted.as_ref().filter(|wanted| wanted.network_sets).map_or(Some(false), |w| w.selects(candidate))
        };
        Prepared {
            lists_in: scope.lists_in().into_iter().map(number).collect(),
            list_out: scope.list_out().and_then(number),
            sets: sets_of(&|set| both(is_set_of(pods, set), not(is_set_of(not_pods, set))), unknown),
            not_sets: match pods {
                Some(_) => Vec::new(),
                None => sets_of(&|set| is_set_of(not_pods, set), !unknown),
            },
        }
    }

    /// Whether an identity is meant. None: that depends on what is not known of it.
    fn is_meant(&self, scope: &Scope, prepared: &Prepared, asked: &Asked<'_>) -> Option<bool> {
        let (Scope { entity, ports, .. }, key) = (scope, asked.key);
        let is_in = |list: u32| key.lists.binary_search(&list).is_ok();
        let is_addressed = prepared.lists_in.iter().all(|list| list.is_some_and(is_in))
            && !prepared.list_out.is_some_and(is_in);
        let is_node = entity.nodes.as_ref().is_none_or(|wanted| match &key.who {
            Who::LocalNode(labels) | Who::Node(labels) => wanted.evaluate(&labels.as_ref()) == Some(true),
            _ => false,
        });
        if !is_addressed || !is_node {
            return Some(false);
        }
        let has_ports = ports.iter().all(|(name, number)| PortNumber::of(name, key) == *number);
        both(Some(has_ports), is_one_of(entity, prepared, asked))
    }
}

/// Whether it is one of the pods and NetworkSets meant.
fn is_one_of(entity: &EntityMatch, prepared: &Prepared, asked: &Asked<'_>) -> Option<bool> {
    let EntityMatch { pods, not_pods, .. } = entity;
    if pods.is_none() && not_pods.is_none() {
        return Some(true);
    }
    let is_pod_of = |wanted: &Option<PodMatch>| match (wanted, &asked.candidate) {
        (Some(wanted), Some(candidate)) => wanted.selects(candidate),
        _ => Some(false),
    };
    let in_one = |lists: &[u32]| Some(lists.iter().any(|list| asked.key.lists.binary_search(list).is_ok()));
    if pods.is_some() {
        either(both(is_pod_of(pods), not(is_pod_of(not_pods))), in_one(&prepared.sets))
    } else {
        not(either(is_pod_of(not_pods), in_one(&prepared.not_sets)))
    }
}

/// A label, key and value, that whatever is like the expression has.
fn asked_for(expr: &Expr) -> Option<(&str, &str)> {
    match expr {
        Expr::Equals(key, value) => Some((key, value)),
        Expr::In(key, values) if values.len() == 1 => Some((key, values.first()?)),
        Expr::And(terms) => terms.iter().find_map(asked_for),
        _ => None,
    }
}

/// What a key stands for, made where there is nothing; without a copy of the key where there is something.
fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.get_mut(key).expect("it is there by now")
}

fn leave<K: Ord>(map: &mut BTreeMap<K, BTreeSet<IdentityId>>, key: &K, id: IdentityId) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}
