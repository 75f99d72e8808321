//! Peer classes: identities that are in the same sets of peers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vswitch_model::{DesiredState, IdentityId, IdentityKind, Rule, SetId};

use super::PolicyDirection;

/// Class 0: those that are in no set, the unknown identity among them.
pub(super) struct PeerClasses {
    pub(super) count: usize,
    pub(super) of: BTreeMap<IdentityId, u32>,
    /// Ascending.
    of_set: HashMap<SetId, Vec<u32>>,
    /// The class of the local node, where that is always allowed.
    pub(super) local_node: Option<u32>,
}

impl PeerClasses {
    pub(super) fn new(state: &DesiredState, direction: PolicyDirection, rules: &[&Rule]) -> Self {
        let sets: BTreeSet<SetId> =
            rules.iter().flat_map(|rule| [rule.peers, rule.not_peers]).flatten().collect();
        let mut sets_of: BTreeMap<IdentityId, Vec<SetId>> = BTreeMap::new();
        for set in &sets {
            for member in members(state, *set).iter().filter(|member| **member != IdentityId::UNKNOWN) {
                sets_of.entry(*member).or_default().push(*set);
            }
        }
        let exempt = |id: &IdentityId| {
            let kind = state.identities.get(id).map(|identity| identity.kind);
            direction == PolicyDirection::Ingress && kind == Some(IdentityKind::LocalNode)
        };
        let mut numbers: HashMap<Vec<SetId>, u32> = HashMap::from([(Vec::new(), 0)]);
        let mut of = BTreeMap::new();
        for (id, sets) in sets_of.into_iter().filter(|(id, _)| !exempt(id)) {
            let next = numbers.len() as u32;
            of.insert(id, *numbers.entry(sets).or_insert(next));
        }
        let mut of_set: HashMap<SetId, Vec<u32>> = HashMap::new();
        for (sets, class) in &numbers {
            sets.iter().for_each(|set| of_set.entry(*set).or_default().push(*class));
        }
        of_set.values_mut().for_each(|classes| classes.sort_unstable());
        let mut count = numbers.len();
        let mut local_node = None;
        for id in state.identities.keys().filter(|id| **id != IdentityId::UNKNOWN && exempt(id)) {
            let class = *local_node.get_or_insert_with(|| {
                count += 1;
                count as u32 - 1
            });
            of.insert(*id, class);
        }
        Self { count, of, of_set, local_node }
    }

    /// The classes that make a difference to a rule: those it names, or when it names everybody those it excepts.
    pub(super) fn told_apart(&self, rule: &Rule) -> impl Iterator<Item = u32> {
        let of_set =
            |set: Option<SetId>| set.and_then(|set| self.of_set.get(&set)).map_or(&[][..], Vec::as_slice);
        let excepted = of_set(rule.not_peers);
        let (classes, less) = match rule.peers {
            Some(_) => (of_set(rule.peers), excepted),
            None => (excepted, &[][..]),
        };
        classes.iter().copied().filter(|class| less.binary_search(class).is_err())
    }
}

pub(super) fn members(state: &DesiredState, set: SetId) -> &[IdentityId] {
    state.sets.get(&set).map_or(&[], |set| &set.members)
}
