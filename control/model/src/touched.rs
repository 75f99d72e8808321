//! What of a state changes, by key.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::{Change, DesiredState, IdentityId, PolicyId, PortName, SetId, TunnelId};

/// The keys of what was set or removed, whether or not it is another for it; not how, which the state tells. Everything
/// else of the state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// What this node is to the others.
    pub local: bool,
    /// Identities.
    pub identities: BTreeSet<IdentityId>,
    /// Sets.
    pub sets: BTreeSet<SetId>,
    /// Policies.
    pub policies: BTreeSet<PolicyId>,
    /// Subjects, by their identity.
    pub subjects: BTreeSet<IdentityId>,
    /// Tunnels.
    pub tunnels: BTreeSet<TunnelId>,
    /// Ports.
    pub ports: BTreeSet<PortName>,
    /// Prefixes that carry an identity.
    pub prefixes: BTreeSet<IpNet>,
    /// Prefixes of routes.
    pub routes: BTreeSet<IpNet>,
}

impl Touched {
    /// What `changes` touch.
    #[must_use]
    pub fn of<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut touched = Self::default();
        changes.into_iter().for_each(|change| touched.add(change));
        touched
    }

    /// Where two states differ.
    #[must_use]
    pub fn between(from: &DesiredState, to: &DesiredState) -> Self {
        Self {
            local: from.local != to.local,
            identities: differing(&from.identities, &to.identities),
            sets: differing(&from.sets, &to.sets),
            policies: differing(&from.policies, &to.policies),
            subjects: differing(&from.subjects, &to.subjects),
            tunnels: differing(&from.tunnels, &to.tunnels),
            ports: differing(&from.ports, &to.ports),
            prefixes: differing(&from.prefixes, &to.prefixes),
            routes: differing(&from.routes, &to.routes),
        }
    }

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

    fn add(&mut self, change: &Change) {
        match change {
            Change::SetLocal(_) => self.local = true,
            Change::SetIdentity(identity) => drop(self.identities.insert(identity.id)),
            Change::SetSet(set) => drop(self.sets.insert(set.id)),
            Change::SetPolicy(policy) => drop(self.policies.insert(policy.id)),
            Change::SetSubject(subject) => drop(self.subjects.insert(subject.identity)),
            Change::SetTunnel(tunnel) => drop(self.tunnels.insert(tunnel.id)),
            Change::SetPort(port) => drop(self.ports.insert(port.name.clone())),
            Change::SetPrefix(prefix, _) | Change::RemovePrefix(prefix) => {
                self.prefixes.insert(*prefix);
            }
            Change::SetRoute(prefix, _) | Change::RemoveRoute(prefix) => {
                self.routes.insert(*prefix);
            }
            Change::RemovePort(name) => drop(self.ports.insert(name.clone())),
            Change::RemoveTunnel(id) => drop(self.tunnels.insert(*id)),
            Change::RemoveSubject(id) => drop(self.subjects.insert(*id)),
            Change::RemovePolicy(id) => drop(self.policies.insert(*id)),
            Change::RemoveSet(id) => drop(self.sets.insert(*id)),
            Change::RemoveIdentity(id) => drop(self.identities.insert(*id)),
        }
    }

    /// Whether it is everything's policy that stays: the tables of policy depend on nothing else.
    #[must_use]
    pub fn spares_policy(&self) -> bool {
        self.identities.is_empty()
            && self.sets.is_empty()
            && self.policies.is_empty()
            && self.subjects.is_empty()
    }

    /// Whether the ways of packets stay: they depend on nothing else of the state.
    #[must_use]
    pub fn spares_routes(&self) -> bool {
        !self.local && self.tunnels.is_empty() && self.ports.is_empty() && self.routes.is_empty()
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

    /// The changes that lead to `to` from any state that differs from it here at most: what others refer to is set before
    /// them, and removed after them.
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

/// The keys under which two maps differ.
pub fn differing<K: Ord + Clone, V: PartialEq>(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> BTreeSet<K> {
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
