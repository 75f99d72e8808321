//! What a list of changes touches, by key.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{Change, IdentityId, PolicyId, PortName, SetId, TunnelId};

/// The keys of what was set or removed, whether or not it is another for it. Everything else of the state is as it was.
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
}
