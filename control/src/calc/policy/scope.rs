//! Which identities one end of a rule means: the members of sets.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::IdentityId;

use super::select::{Candidate, both, either, not};
use super::view::{EntityMatch, IpVersion, Namespaces, PodMatch};
use crate::calc::address_list::{AddressList, AddressLists, ServicePort};
use crate::calc::cluster::Cluster;
use crate::calc::identity::{Identities, IdentityKey, Who};
use crate::object::Protocol;

/// One end of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::calc) struct Scope {
    pub(super) entity: EntityMatch,
    /// Only addresses of this family.
    pub(super) family: Option<IpVersion>,
    /// Only endpoints of the entity's service that are to be reached at this port.
    pub(super) service_port: Option<ServicePort>,
    /// Only where each of these names has this number.
    pub(super) ports: Vec<(PortName, PortNumber)>,
}

/// A name of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::calc) struct PortName {
    pub(super) name: String,
    pub(super) protocol: Protocol,
}

/// What a name of a port comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::calc) enum PortNumber {
    /// This number.
    Number(u16),
    /// None: whoever it is gives no port this name.
    Absent,
    /// Some number or none: the pod's ports are not known.
    Unknown,
}

impl PortNumber {
    /// What the name comes to there.
    pub(super) fn of(name: &PortName, key: &IdentityKey) -> Self {
        let Some(pod) = key.pod().filter(|pod| pod.is_pod()) else { return Self::Absent };
        if pod.labels.is_none() {
            return Self::Unknown;
        }
        let mut ports = pod.ports.iter();
        let found = ports.find(|(n, protocol, _)| *n == name.name && *protocol == name.protocol);
        found.map_or(Self::Absent, |(_, _, number)| Self::Number(*number))
    }
}

impl Scope {
    /// Whether it means everybody.
    pub(super) fn is_everybody(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it says only who is not meant: then nobody knows all its members, those it does not mean are listed.
    pub(super) fn is_negative(&self) -> bool {
        let Self { entity, family, ports, .. } = self;
        let EntityMatch { pods, nets, nodes, domains, service, .. } = entity;
        pods.is_none()
            && nets.is_empty()
            && nodes.is_none()
            && domains.is_empty()
            && service.is_none()
            && family.is_none()
            && ports.iter().all(|(_, number)| *number == PortNumber::Absent)
    }

    /// The lists of CIDRs an address has to be in, all of them.
    pub(super) fn lists_in(&self) -> Vec<AddressList> {
        let EntityMatch { nets, service, .. } = &self.entity;
        let nets = (!nets.is_empty()).then(|| AddressList::nets(nets));
        let service = service.as_ref().map(|service| {
            AddressList::Service(service.namespace.clone(), service.name.clone(), self.service_port)
        });
        let family = self.family.map(|family| AddressList::nets(&[everything(family)]));
        nets.into_iter().chain(service).chain(family).collect()
    }

    /// The list of CIDRs it must not be in.
    pub(super) fn list_out(&self) -> Option<AddressList> {
        let nets = &self.entity.not_nets;
        (!nets.is_empty()).then(|| AddressList::nets(nets))
    }
}

/// All addresses of a family.
pub(super) fn everything(family: IpVersion) -> IpNet {
    match family {
        IpVersion::V4 => Ipv4Net::default().into(),
        IpVersion::V6 => Ipv6Net::default().into(),
    }
}

/// Finds out who is meant.
pub(super) struct Members<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    pub(super) identities: &'a Identities,
    pub(super) lists: &'a AddressLists,
    /// By list: the identities in it, ascending.
    covered: BTreeMap<u32, Vec<IdentityId>>,
    /// By namespace: the identities of its pods, ascending.
    of_namespace: BTreeMap<&'a str, Vec<IdentityId>>,
}

/// A scope made ready to be asked of many identities.
struct Prepared<'a> {
    scope: &'a Scope,
    lists_in: Vec<Option<u32>>,
    list_out: Option<u32>,
    /// NetworkSets that `pods` means.
    sets: Vec<u32>,
    /// NetworkSets that `not_pods` means, where `pods` says nothing.
    not_sets: Vec<u32>,
}

impl<'a> Members<'a> {
    pub(super) fn new(cluster: &'a Cluster<'a>, identities: &'a Identities, lists: &'a AddressLists) -> Self {
        let mut covered: BTreeMap<u32, Vec<IdentityId>> = BTreeMap::new();
        for (id, key) in &identities.by_number {
            key.lists.iter().for_each(|list| covered.entry(*list).or_default().push(*id));
        }
        let mut of_namespace: BTreeMap<&str, Vec<IdentityId>> = BTreeMap::new();
        for (id, pod) in identities.pods() {
            of_namespace.entry(&pod.namespace).or_default().push(id);
        }
        Self { cluster, identities, lists, covered, of_namespace }
    }

    /// The identities meant, or, of a negative scope, not meant; ascending. Those of which it is not known count as
    /// meant or not as `unknown` says.
    pub(super) fn listed(&self, scope: &Scope, unknown: bool) -> Vec<IdentityId> {
        let prepared = self.prepare(scope);
        let listed = !scope.is_negative();
        let is_listed = |id: &IdentityId, key: &IdentityKey| {
            self.is_meant(&prepared, key).unwrap_or(unknown) == listed && *id != IdentityId::UNKNOWN
        };
        match self.shortest(&prepared) {
            Some(ids) => {
                let known = ids.iter().filter_map(|id| Some((id, self.identities.by_number.get(id)?)));
                known.filter(|(id, key)| is_listed(id, key)).map(|(id, _)| *id).collect()
            }
            None => {
                let all = self.identities.by_number.iter();
                all.filter(|(id, key)| is_listed(id, key)).map(|(id, _)| *id).collect()
            }
        }
    }

    /// The shortest list that holds all who may be meant. None: there is none.
    fn shortest(&self, prepared: &Prepared<'_>) -> Option<&[IdentityId]> {
        let own = match &prepared.scope.entity.pods {
            Some(PodMatch { namespaces: Namespaces::Named(name), .. }) if prepared.sets.is_empty() => {
                Some(self.of_namespace.get(name.as_str()).map_or(&[][..], Vec::as_slice))
            }
            _ => None,
        };
        let covered =
            |list: &Option<u32>| list.and_then(|list| self.covered.get(&list)).map_or(&[][..], Vec::as_slice);
        prepared.lists_in.iter().map(covered).chain(own).min_by_key(|ids| ids.len())
    }

    fn prepare<'s>(&self, scope: &'s Scope) -> Prepared<'s> {
        let number = |list: AddressList| self.lists.number(&list);
        let EntityMatch { pods, not_pods, .. } = &scope.entity;
        let sets_of = |meant: &dyn Fn(&Candidate<'_>) -> Option<bool>| -> Vec<u32> {
            let sets = self.cluster.referred.network_sets.iter();
            sets.filter(|set| meant(&Candidate::network_set(set, self.cluster)) == Some(true))
                .filter_map(|set| number(AddressList::Set(set.source.clone())))
                .collect()
        };
        let is_set_of = |wanted: &Option<PodMatch>, candidate: &Candidate<'_>| {
            wanted.as_ref().filter(|wanted| wanted.network_sets).map_or(Some(false), |w| w.selects(candidate))
        };
        Prepared {
            scope,
            lists_in: scope.lists_in().into_iter().map(number).collect(),
            list_out: scope.list_out().and_then(number),
            sets: sets_of(&|set| both(is_set_of(pods, set), not(is_set_of(not_pods, set)))),
            not_sets: if pods.is_some() { Vec::new() } else { sets_of(&|set| is_set_of(not_pods, set)) },
        }
    }

    /// Whether an identity is meant. None: that depends on what is not known of it.
    fn is_meant(&self, prepared: &Prepared<'_>, key: &IdentityKey) -> Option<bool> {
        let Scope { entity, ports, .. } = prepared.scope;
        let is_in = |list: u32| key.lists.binary_search(&list).is_ok();
        let is_addressed = prepared.lists_in.iter().all(|list| list.is_some_and(is_in))
            && !prepared.list_out.is_some_and(is_in)
            && entity.domains.is_empty();
        let is_node = entity.nodes.as_ref().is_none_or(|wanted| match &key.who {
            Who::LocalNode(labels) | Who::Node(labels) => wanted.evaluate(&labels.as_ref()) == Some(true),
            _ => false,
        });
        if !is_addressed || !is_node {
            return Some(false);
        }
        let has_ports = ports.iter().all(|(name, number)| PortNumber::of(name, key) == *number);
        both(Some(has_ports), self.is_one_of(prepared, key))
    }

    /// Whether it is one of the pods and NetworkSets meant.
    fn is_one_of(&self, prepared: &Prepared<'_>, key: &IdentityKey) -> Option<bool> {
        let EntityMatch { pods, not_pods, .. } = &prepared.scope.entity;
        if pods.is_none() && not_pods.is_none() {
            return Some(true);
        }
        let candidate = key.pod().and_then(|pod| Candidate::identity(pod, self.cluster));
        let is_pod_of = |wanted: &Option<PodMatch>| match (wanted, &candidate) {
            (Some(wanted), Some(candidate)) => wanted.selects(candidate),
            _ => Some(false),
        };
        let in_one = |lists: &[u32]| Some(lists.iter().any(|list| key.lists.binary_search(list).is_ok()));
        if pods.is_some() {
            either(both(is_pod_of(pods), not(is_pod_of(not_pods))), in_one(&prepared.sets))
        } else {
            not(either(is_pod_of(not_pods), in_one(&prepared.not_sets)))
        }
    }
}
