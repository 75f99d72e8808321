//! What DNS has told pods of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_model::{DomainName, DomainPattern};

/// Names, and the addresses that are theirs as far as a pod of this node was told and it still holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LearnedNames(pub BTreeMap<DomainName, BTreeSet<IpAddr>>);

/// Who speaks of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameWanted {
    /// Policies: `ClusterNetworkPolicy guard`.
    pub policies: BTreeSet<String>,
    /// Addresses of the pods of this node that they select: what these are told counts.
    pub pods: BTreeSet<IpAddr>,
}

impl LearnedNames {
    /// The addresses of the names that one of these patterns means. One may occur several times.
    pub(super) fn of(&self, patterns: &[DomainPattern]) -> impl Iterator<Item = (&DomainName, IpAddr)> {
        let named = patterns.iter().flat_map(|pattern| self.meant_by(pattern));
        named.flat_map(|(name, addresses)| addresses.iter().map(move |address| (name, *address)))
    }

    fn meant_by(&self, pattern: &DomainPattern) -> Vec<(&DomainName, &BTreeSet<IpAddr>)> {
        match pattern.name() {
            Some(name) => self.0.get_key_value(&name).into_iter().collect(),
            None => self.0.iter().filter(|(name, _)| pattern.matches(name)).collect(),
        }
    }
}
