//! The state as it is worked out, and what of it has changed.

use std::collections::BTreeMap;

use ipnet::IpNet;
use vswitch_model::{
    DesiredState, Identity, IdentityId, IdentitySet, Policy, PolicyId, SetId, Subject, Touched, differing,
};

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
