//! Identities: classes of addresses that no policy in force can tell apart.
//!
//! What policies can see of an address is which of their CIDRs cover it and, when it is a pod's, the pod's namespace,
//! labels and port names. Two addresses with the same of all that have one identity. A namespace's labels are not part
//! of it: they change which sets an identity is in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::{Identity, IdentityId, IdentityKind};

use super::Numbering;
use super::cluster::{Cluster, NamedPort, Owner, PodView, describe_labels};
use crate::object::Labels;

/// What an identity stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdentityKey {
    pub(super) who: Who,
    /// The CIDRs of policies that cover its addresses, sorted.
    pub(super) cidrs: Vec<IpNet>,
}

/// Whose addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Nobody's in the cluster.
    World,
    /// This node's own.
    LocalNode,
    /// Another node's.
    Node,
    /// Pods'.
    Pod(PodKey),
}

/// What policies can see of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodKey {
    /// Empty for a container that is no pod.
    pub(super) namespace: String,
    /// None: not known.
    pub(super) labels: Option<Labels>,
    pub(super) ports: Vec<NamedPort>,
}

/// All identities, and which addresses have them.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) by_number: BTreeMap<IdentityId, IdentityKey>,
    pub(super) prefixes: BTreeMap<IpNet, IdentityId>,
}

impl Identities {
    pub(super) fn of(
        cluster: &Cluster<'_>,
        node: &str,
        cidrs: &BTreeSet<IpNet>,
        numbering: &mut Numbering,
    ) -> Self {
        let mut identities = Self::default();
        let covering = Covering::new(cidrs);
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        for prefix in cidrs.iter().chain(&everything) {
            let key = IdentityKey { who: Who::World, cidrs: covering.of(*prefix) };
            identities.give(*prefix, key, numbering);
        }
        // By address, not by pod or node: whoever lost an address to another must not get its identity.
        for (address, owner) in &cluster.owners {
            let who = match owner {
                Owner::Node(name) if *name == node => Who::LocalNode,
                Owner::Node(_) => Who::Node,
                Owner::Pod(place) => Who::Pod(PodKey::of(&cluster.pods[*place])),
            };
            let prefix = IpNet::from(*address);
            identities.give(prefix, IdentityKey { who, cidrs: covering.of(prefix) }, numbering);
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
        self.by_number.iter().filter_map(|(id, key)| match &key.who {
            Who::Pod(pod) => Some((*id, pod)),
            _ => None,
        })
    }

    /// As the engine has them.
    pub(super) fn into_model(self) -> BTreeMap<IdentityId, Identity> {
        let model = |(id, key): (IdentityId, IdentityKey)| {
            let kind = match key.who {
                Who::World => IdentityKind::World,
                Who::LocalNode => IdentityKind::LocalNode,
                Who::Node => IdentityKind::Node,
                Who::Pod(_) => IdentityKind::Pod,
            };
            (id, Identity { id, kind, description: key.describe() })
        };
        self.by_number.into_iter().map(model).collect()
    }
}

impl PodKey {
    fn of(pod: &PodView<'_>) -> Self {
        Self { namespace: pod.namespace.to_owned(), labels: pod.labels.clone(), ports: pod.ports.clone() }
    }

    /// The number the pod gives this port.
    pub(super) fn port(&self, name: &str, protocol: crate::object::Protocol) -> Option<u16> {
        self.ports.iter().find(|(n, p, _)| n == name && *p == protocol).map(|(_, _, number)| *number)
    }
}

impl IdentityKey {
    fn describe(&self) -> String {
        let who = match &self.who {
            Who::World => "world".to_owned(),
            Who::LocalNode => "this node".to_owned(),
            Who::Node => "another node".to_owned(),
            Who::Pod(PodKey { namespace, .. }) if namespace.is_empty() => {
                "container that is no pod".to_owned()
            }
            Who::Pod(pod) => format!("pod {} {}", pod.namespace, describe_labels(pod.labels.as_ref())),
        };
        let cidrs: Vec<_> = self.cidrs.iter().map(ToString::to_string).collect();
        if cidrs.is_empty() { who } else { format!("{who} in {}", cidrs.join(", ")) }
    }
}

/// Finds the CIDRs that cover a prefix: one look-up for each length that occurs.
struct Covering<'a> {
    cidrs: &'a BTreeSet<IpNet>,
    lengths_v4: BTreeSet<u8>,
    lengths_v6: BTreeSet<u8>,
}

impl<'a> Covering<'a> {
    fn new(cidrs: &'a BTreeSet<IpNet>) -> Self {
        let lengths = |v4: bool| {
            cidrs
                .iter()
                .filter(|cidr| cidr.addr().is_ipv4() == v4)
                .map(IpNet::prefix_len)
                .collect::<BTreeSet<_>>()
        };
        Self { cidrs, lengths_v4: lengths(true), lengths_v6: lengths(false) }
    }

    fn of(&self, prefix: IpNet) -> Vec<IpNet> {
        let lengths = if prefix.addr().is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths
            .range(..=prefix.prefix_len())
            .filter_map(|length| IpNet::new(prefix.addr(), *length).ok().map(|net| net.trunc()))
            .filter(|cidr| self.cidrs.contains(cidr))
            .collect()
    }
}
