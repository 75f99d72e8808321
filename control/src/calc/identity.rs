//! Identities: classes of addresses that no policy in force can tell apart.
//!
//! What policies can see of an address is which of their lists of CIDRs cover it and, when it is a pod's, the pod's
//! namespace, labels, service account and port names; when it is a node's, the node's labels, if a policy asks for
//! any. Two addresses with the same of all that have one identity. The labels of namespaces, service accounts and
//! NetworkSets are not part of it: they change which sets an identity is in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::{Identity, IdentityId, IdentityKind};

use super::Numbering;
use super::address_list::AddressLists;
use super::cluster::{Cluster, NamedPort, Owner, PodView, describe_labels};
use crate::object::Labels;

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

/// All identities, and which addresses have them.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) by_number: BTreeMap<IdentityId, IdentityKey>,
    pub(super) prefixes: BTreeMap<IpNet, IdentityId>,
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
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        for prefix in lists.cidrs().chain(everything) {
            let key = IdentityKey { who: Who::World, lists: lists.covering(prefix) };
            identities.give(prefix, key, numbering);
        }
        // By address, not by pod or node: whoever lost an address to another must not get its identity.
        for (address, owner) in &cluster.owners {
            let labels = |name: &str| {
                cluster.nodes.get(name).filter(|_| nodes_have_labels).map(|node| node.labels.clone())
            };
            let who = match owner {
                Owner::Node(name) if *name == node => Who::LocalNode(labels(name)),
                Owner::Node(name) => Who::Node(labels(name)),
                Owner::Pod(place) => Who::Pod(PodKey::of(&cluster.pods[*place])),
            };
            let prefix = IpNet::from(*address);
            identities.give(prefix, IdentityKey { who, lists: lists.covering(prefix) }, numbering);
        }
        identities
    }

    fn give(&mut self, prefix: IpNet, key: IdentityKey, numbering: &mut Numbering) {
        let id = IdentityId(numbering.identities.number(&key));
        self.by_number.insert(id, key);
        self.prefixes.insert(prefix, id);
    }

    /// The identity of an address that is somebody's.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<IdentityId> {
        self.prefixes.get(&IpNet::from(address)).copied()
    }

    /// The identities of pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = (IdentityId, &PodKey)> {
        self.by_number.iter().filter_map(|(id, key)| Some((*id, key.pod()?)))
    }

    /// As the engine has them.
    pub(super) fn into_model(self, lists: &AddressLists) -> BTreeMap<IdentityId, Identity> {
        let model = |(id, key): (IdentityId, IdentityKey)| {
            let kind = match key.who {
                Who::World => IdentityKind::World,
                Who::LocalNode(_) => IdentityKind::LocalNode,
                Who::Node(_) => IdentityKind::Node,
                Who::Pod(_) => IdentityKind::Pod,
            };
            (id, Identity { id, kind, description: key.describe(lists) })
        };
        self.by_number.into_iter().map(model).collect()
    }
}

impl PodKey {
    fn of(pod: &PodView<'_>) -> Self {
        Self {
            namespace: pod.namespace.to_owned(),
            labels: pod.labels.clone(),
            account: pod.account.map(str::to_owned),
            ports: pod.ports.clone(),
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
