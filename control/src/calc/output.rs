//! The state as it is worked out, and what of it has changed.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use vswitch_model::{
    Change, DesiredState, Identity, IdentityId, IdentitySet, Policy, PolicyId, PortName, SetId, Subject,
    TunnelId,
};

/// Which parts of a state have changed, by their keys; not how, which the state tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    local: bool,
    identities: BTreeSet<IdentityId>,
    sets: BTreeSet<SetId>,
    policies: BTreeSet<PolicyId>,
    subjects: BTreeSet<IdentityId>,
    tunnels: BTreeSet<TunnelId>,
    ports: BTreeSet<PortName>,
    prefixes: BTreeSet<IpNet>,
    routes: BTreeSet<IpNet>,
}

impl Touched {
    /// All that a state holds.
    #[must_use]
    pub fn all_of(state: &DesiredState) -> Self {
        Self {
            local: state.local.is_some(),
            identities: state.identities.keys().copied().collect(),
            sets: state.sets.keys().copied().collect(),
            policies: state.policies.keys().copied().collect(),
            subjects: state.subjects.keys().copied().collect(),
            tunnels: state.tunnels.keys().copied().collect(),
            ports: state.ports.keys().cloned().collect(),
            prefixes: state.prefixes.keys().copied().collect(),
            routes: state.routes.keys().copied().collect(),
        }
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is said of anything that says where packets go: ports, tunnels, routes, the local part.
    #[must_use]
    pub fn concern_ways(&self) -> bool {
        let Self { local, tunnels, ports, routes, .. } = self;
        *local || !tunnels.is_empty() || !ports.is_empty() || !routes.is_empty()
    }

    /// Adds what the other holds.
    pub fn merge(&mut self, other: Self) {
        let Self { local, identities, sets, policies, subjects, tunnels, ports, prefixes, routes } = other;
        self.local |= local;
        self.identities.extend(identities);
        self.sets.extend(sets);
        self.policies.extend(policies);
        self.subjects.extend(subjects);
        self.tunnels.extend(tunnels);
        self.ports.extend(ports);
        self.prefixes.extend(prefixes);
        self.routes.extend(routes);
    }

    /// Leaves out what is the same in both states.
    pub fn retain_differing(&mut self, from: &DesiredState, to: &DesiredState) {
        self.local &= from.local != to.local;
        self.identities.retain(|key| from.identities.get(key) != to.identities.get(key));
        self.sets.retain(|key| from.sets.get(key) != to.sets.get(key));
        self.policies.retain(|key| from.policies.get(key) != to.policies.get(key));
        self.subjects.retain(|key| from.subjects.get(key) != to.subjects.get(key));
        self.tunnels.retain(|key| from.tunnels.get(key) != to.tunnels.get(key));
        self.ports.retain(|key| from.ports.get(key) != to.ports.get(key));
        self.prefixes.retain(|key| from.prefixes.get(key) != to.prefixes.get(key));
        self.routes.retain(|key| from.routes.get(key) != to.routes.get(key));
    }

    /// The changes that lead to `to` from any state that differs from it here at most, in the order that
    /// [`DesiredState::changes_to`] gives them.
    #[must_use]
    pub fn changes(&self, to: &DesiredState) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(to.local.clone().filter(|_| self.local).map(Change::SetLocal));
        set(&self.identities, &to.identities, &mut changes, |_, v| Change::SetIdentity(v.clone()));
        set(&self.sets, &to.sets, &mut changes, |_, v| Change::SetSet(v.clone()));
        set(&self.policies, &to.policies, &mut changes, |_, v| Change::SetPolicy(v.clone()));
        set(&self.subjects, &to.subjects, &mut changes, |_, v| Change::SetSubject(v.clone()));
        set(&self.tunnels, &to.tunnels, &mut changes, |_, v| Change::SetTunnel(v.clone()));
        set(&self.ports, &to.ports, &mut changes, |_, v| Change::SetPort(v.clone()));
        set(&self.prefixes, &to.prefixes, &mut changes, |k, v| Change::SetPrefix(*k, *v));
        set(&self.routes, &to.routes, &mut changes, |k, v| Change::SetRoute(*k, v.clone()));
        remove(&self.routes, &to.routes, &mut changes, |k| Change::RemoveRoute(*k));
        remove(&self.prefixes, &to.prefixes, &mut changes, |k| Change::RemovePrefix(*k));
        remove(&self.ports, &to.ports, &mut changes, |k| Change::RemovePort(k.clone()));
        remove(&self.tunnels, &to.tunnels, &mut changes, |k| Change::RemoveTunnel(*k));
        remove(&self.subjects, &to.subjects, &mut changes, |k| Change::RemoveSubject(*k));
        remove(&self.policies, &to.policies, &mut changes, |k| Change::RemovePolicy(*k));
        remove(&self.sets, &to.sets, &mut changes, |k| Change::RemoveSet(*k));
        remove(&self.identities, &to.identities, &mut changes, |k| Change::RemoveIdentity(*k));
        changes
    }
}

fn differing<K: Ord + Clone, V: PartialEq>(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> BTreeSet<K> {
    let set = to.iter().filter(|(key, value)| from.get(key) != Some(value)).map(|(key, _)| key);
    let removed = from.keys().filter(|key| !to.contains_key(key));
    set.chain(removed).cloned().collect()
}

fn set<K: Ord, V>(
    touched: &BTreeSet<K>,
    to: &BTreeMap<K, V>,
    changes: &mut Vec<Change>,
    change: impl Fn(&K, &V) -> Change,
) {
    changes.extend(touched.iter().filter_map(|key| Some(change(key, to.get(key)?))));
}

fn remove<K: Ord, V>(
    touched: &BTreeSet<K>,
    to: &BTreeMap<K, V>,
    changes: &mut Vec<Change>,
    change: impl Fn(&K) -> Change,
) {
    changes.extend(touched.iter().filter(|key| !to.contains_key(key)).map(change));
}

/// A state that tells what of it was changed.
#[derive(Debug, Default)]
pub(super) struct Output {
    state: DesiredState,
    touched: Touched,
}

impl Output {
    pub(super) const fn state(&self) -> &DesiredState {
        &self.state
    }

    pub(super) fn into_state(self) -> DesiredState {
        self.state
    }

    /// What has changed since this was asked last.
    pub(super) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn set_identity(&mut self, identity: Identity) {
        self.touched.identities.insert(identity.id);
        self.state.identities.insert(identity.id, identity);
    }

    pub(super) fn remove_identity(&mut self, id: IdentityId) {
        self.touched.identities.insert(id);
        self.state.identities.remove(&id);
    }

    pub(super) fn set_set(&mut self, set: IdentitySet) {
        self.touched.sets.insert(set.id);
        self.state.sets.insert(set.id, set);
    }

    pub(super) fn remove_set(&mut self, id: SetId) {
        self.touched.sets.insert(id);
        self.state.sets.remove(&id);
    }

    /// Changes the members of a set.
    pub(super) fn change_set(
        &mut self,
        id: SetId,
        came: impl Iterator<Item = IdentityId>,
        went: &[IdentityId],
    ) {
        let Some(set) = self.state.sets.get_mut(&id) else { return };
        for member in came {
            if let Err(place) = set.members.binary_search(&member) {
                set.members.insert(place, member);
                self.touched.sets.insert(id);
            }
        }
        for member in went {
            if let Ok(place) = set.members.binary_search(member) {
                set.members.remove(place);
                self.touched.sets.insert(id);
            }
        }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.touched.policies.insert(policy.id);
        self.state.policies.insert(policy.id, policy);
    }

    pub(super) fn remove_policy(&mut self, id: PolicyId) -> Option<Policy> {
        self.touched.policies.insert(id);
        self.state.policies.remove(&id)
    }

    /// Sets who is subject to what, or with None that an identity is subject to nothing.
    pub(super) fn set_subject(&mut self, identity: IdentityId, subject: Option<Subject>) {
        self.touched.subjects.insert(identity);
        match subject {
            Some(subject) => drop(self.state.subjects.insert(identity, subject)),
            None => drop(self.state.subjects.remove(&identity)),
        }
    }

    /// Sets the identity of a prefix, or with None that it has none of itself.
    pub(super) fn set_prefix(&mut self, prefix: IpNet, identity: Option<IdentityId>) {
        self.touched.prefixes.insert(prefix);
        match identity {
            Some(identity) => drop(self.state.prefixes.insert(prefix, identity)),
            None => drop(self.state.prefixes.remove(&prefix)),
        }
    }

    /// Puts other prefixes in the place of all.
    pub(super) fn set_prefixes(&mut self, prefixes: BTreeMap<IpNet, IdentityId>) {
        self.touched.prefixes.extend(differing(&self.state.prefixes, &prefixes));
        self.state.prefixes = prefixes;
    }

    /// Puts other ways in the place of all: ports, tunnels, routes and the local part of `ways`.
    pub(super) fn set_ways(&mut self, ways: DesiredState) {
        let DesiredState { local, tunnels, ports, routes, .. } = ways;
        self.touched.local |= self.state.local != local;
        self.touched.tunnels.extend(differing(&self.state.tunnels, &tunnels));
        self.touched.ports.extend(differing(&self.state.ports, &ports));
        self.touched.routes.extend(differing(&self.state.routes, &routes));
        self.state.local = local;
        self.state.tunnels = tunnels;
        self.state.ports = ports;
        self.state.routes = routes;
    }
}
