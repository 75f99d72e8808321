//! Identities: classes of addresses that no policy in force can tell apart.
//!
//! What policies can see of an address is which of their lists of CIDRs cover it and, when it is a pod's, the pod's
//! namespace, labels, service account and port names; when it is a node's, the node's labels, if a policy asks for
//! any. Two addresses with the same of all that have one identity. The labels of namespaces, service accounts and
//! NetworkSets are not part of it: they change which sets an identity is in.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::{Identity, IdentityId, IdentityKind};

use super::Numbering;
use super::address_list::AddressLists;
use super::cluster::{Cluster, NamedPort, Owner, PodView, describe_labels};
use crate::object::{Labels, Pod};

/// What an identity stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdentityKey {
    pub(super) who: Who,
    /// The address lists that cover its addresses, ascending.
    pub(super) lists: Vec<u32>,
}

/// Whose addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Nobody's in the cluster.
    World,
    /// This node's own. Its labels, if a policy asks for those of nodes.
    LocalNode(Option<Labels>),
    /// Another node's.
    Node(Option<Labels>),
    /// Pods'.
    Pod(PodKey),
}

/// What policies can see of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodKey {
    /// Empty for a container that is no pod.
    pub(super) namespace: String,
    /// None: not known, nor are its service account and ports.
    pub(super) labels: Option<Labels>,
    /// Name of its service account. None: not known.
    pub(super) account: Option<String>,
    pub(super) ports: Vec<NamedPort>,
}

/// What has an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// The addresses of a prefix, as far as nothing else here has them.
    World(IpNet),
    /// An address that is somebody's in the cluster.
    Address(IpAddr),
}

impl Holder {
    pub(super) fn prefix(self) -> IpNet {
        match self {
            Self::World(prefix) => prefix,
            Self::Address(address) => address.into(),
        }
    }
}

/// All identities, and which addresses have them.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) by_number: BTreeMap<IdentityId, IdentityKey>,
    world: BTreeMap<IpNet, IdentityId>,
    addresses: BTreeMap<IpAddr, IdentityId>,
    /// How many of those have it.
    holders: BTreeMap<IdentityId, usize>,
    /// What came since it was last asked.
    added: BTreeSet<IdentityId>,
    /// What nobody had at some time since it was last asked.
    unheld: BTreeSet<IdentityId>,
}

impl Identities {
    /// `nodes_have_labels`: whether a policy in force asks for labels of nodes.
    pub(super) fn of(
        cluster: &Cluster<'_>,
        node: &str,
        lists: &AddressLists,
        nodes_have_labels: bool,
        numbering: &mut Numbering,
    ) -> Self {
        let mut identities = Self::default();
        for prefix in lists.cidrs().chain(EVERYTHING) {
            let key = IdentityKey { who: Who::World, lists: lists.covering(prefix) };
            identities.give(Holder::World(prefix), Some(key), numbering);
        }
        // By address, not by pod or node: whoever lost an address to another must not get its identity.
        for (address, owner) in &cluster.owners {
            let who = Who::of(*owner, cluster, node, nodes_have_labels);
            let key = IdentityKey { who, lists: lists.covering(IpNet::from(*address)) };
            identities.give(Holder::Address(*address), Some(key), numbering);
        }
        identities.added.clear();
        identities
    }

    /// Gives an identity, or takes the one it had when there is none.
    pub(super) fn give(&mut self, holder: Holder, key: Option<IdentityKey>, numbering: &mut Numbering) {
        let id = key.map(|key| {
            let id = IdentityId(numbering.identities.number(&key));
            if let Entry::Vacant(entry) = self.by_number.entry(id) {
                entry.insert(key);
                self.added.insert(id);
            }
            *self.holders.entry(id).or_default() += 1;
            id
        });
        let before = match (holder, id) {
            (Holder::World(prefix), Some(id)) => self.world.insert(prefix, id),
            (Holder::World(prefix), None) => self.world.remove(&prefix),
            (Holder::Address(address), Some(id)) => self.addresses.insert(address, id),
            (Holder::Address(address), None) => self.addresses.remove(&address),
        };
        let Some(before) = before else { return };
        if let Some(holders) = self.holders.get_mut(&before) {
            *holders -= 1;
            if *holders == 0 {
                self.unheld.insert(before);
            }
        }
    }

    /// What came since it was asked last, and, with their keys, what nobody has any more: that is forgotten.
    pub(super) fn settle(
        &mut self,
        numbering: &mut Numbering,
    ) -> (BTreeSet<IdentityId>, BTreeMap<IdentityId, IdentityKey>) {
        let mut added = std::mem::take(&mut self.added);
        let mut removed = BTreeMap::new();
        for id in std::mem::take(&mut self.unheld) {
            if self.holders.get(&id) == Some(&0) {
                self.holders.remove(&id);
                if let Some(key) = self.by_number.remove(&id) {
                    numbering.identities.release(&key);
                    if !added.remove(&id) {
                        removed.insert(id, key);
                    }
                }
            }
        }
        (added, removed)
    }

    /// The identity that a prefix has, of itself or as somebody's address.
    pub(super) fn of_prefix(&self, prefix: IpNet) -> Option<IdentityId> {
        let is_address = prefix.prefix_len() == prefix.max_prefix_len();
        let address = is_address.then(|| self.of_address(prefix.addr())).flatten();
        address.or_else(|| self.world.get(&prefix).copied())
    }

    /// The identity of an address that is somebody's.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<IdentityId> {
        self.addresses.get(&address).copied()
    }

    /// Whose an address is.
    pub(super) fn who_has(&self, address: IpAddr) -> Option<&Who> {
        Some(&self.by_number.get(&self.of_address(address)?)?.who)
    }

    /// All addresses that are somebody's, ascending.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// The prefixes of the world, ascending.
    pub(super) fn world(&self) -> impl Iterator<Item = IpNet> {
        self.world.keys().copied()
    }

    /// All prefixes with their identities.
    pub(super) fn prefixes(&self) -> BTreeMap<IpNet, IdentityId> {
        let mut prefixes = self.world.clone();
        prefixes.extend(self.addresses.iter().map(|(address, id)| (IpNet::from(*address), *id)));
        prefixes
    }
}

/// All addresses of each family.
pub(super) const EVERYTHING: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

impl Who {
    /// `nodes_have_labels` as in [`Identities::of`].
    pub(super) fn of(owner: Owner<'_>, cluster: &Cluster<'_>, node: &str, nodes_have_labels: bool) -> Self {
        let labels = |name: &str| {
            cluster.nodes.get(name).filter(|_| nodes_have_labels).map(|node| node.labels.clone())
        };
        match owner {
            Owner::Node(name) if name == node => Self::LocalNode(labels(name)),
            Owner::Node(name) => Self::Node(labels(name)),
            Owner::Pod(place) => Self::Pod(PodKey::of(&cluster.pods[place])),
        }
    }
}

impl Who {
    /// Whether it is what [`Self::of`] makes.
    pub(super) fn is(
        &self,
        owner: Owner<'_>,
        cluster: &Cluster<'_>,
        node: &str,
        nodes_have_labels: bool,
    ) -> bool {
        match (self, owner) {
            (Self::Pod(known), Owner::Pod(place)) => {
                let PodView { namespace, labels, account, ports, .. } = &cluster.pods[place];
                known.namespace == *namespace
                    && known.labels == *labels
                    && known.account.as_deref() == *account
                    && known.ports == *ports
            }
            (Self::LocalNode(_) | Self::Node(_), Owner::Node(_)) => {
                *self == Self::of(owner, cluster, node, nodes_have_labels)
            }
            _ => false,
        }
    }
}

impl PodKey {
    pub(super) fn of(pod: &PodView<'_>) -> Self {
        Self {
            namespace: pod.namespace.to_owned(),
            labels: pod.labels.clone(),
            account: pod.account.map(str::to_owned),
            ports: pod.ports.clone(),
        }
    }

    /// What policies can see of a pod of a namespace. None: there is no object that describes it.
    pub(super) fn of_object(namespace: &str, pod: Option<&Pod>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            labels: pod.map(|pod| pod.metadata.labels.clone()),
            account: pod.map(|pod| pod.service_account().to_owned()),
            ports: pod.map(Pod::named_ports).unwrap_or_default(),
        }
    }

    /// Whether policies can speak of it; of a container that is no pod they cannot.
    pub(super) const fn is_pod(&self) -> bool {
        !self.namespace.is_empty()
    }
}

impl IdentityKey {
    pub(super) const fn pod(&self) -> Option<&PodKey> {
        match &self.who {
            Who::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// As the engine has it.
    pub(super) fn model(&self, id: IdentityId, lists: &AddressLists) -> Identity {
        let kind = match self.who {
            Who::World => IdentityKind::World,
            Who::LocalNode(_) => IdentityKind::LocalNode,
            Who::Node(_) => IdentityKind::Node,
            Who::Pod(_) => IdentityKind::Pod,
        };
        Identity { id, kind, description: self.describe(lists) }
    }

    fn describe(&self, lists: &AddressLists) -> String {
        let of_node = |node: &str, labels: &Option<Labels>| match labels {
            None => node.to_owned(),
            labels => format!("{node} {}", describe_labels(labels.as_ref())),
        };
        let who = match &self.who {
            Who::World => "world".to_owned(),
            Who::LocalNode(labels) => of_node("this node", labels),
            Who::Node(labels) => of_node("another node", labels),
            Who::Pod(pod) if !pod.is_pod() => "container that is no pod".to_owned(),
            Who::Pod(pod) => {
                let account = pod.account.as_deref().filter(|account| *account != "default");
                let account = account.map(|account| format!(" as {account}")).unwrap_or_default();
                format!("pod {} {}{account}", pod.namespace, describe_labels(pod.labels.as_ref()))
            }
        };
        let covered: Vec<_> = self.lists.iter().map(|list| lists.name(*list)).collect();
        if covered.is_empty() { who } else { format!("{who} in {}", covered.join(", ")) }
    }
}
