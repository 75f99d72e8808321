//! What policies refer to by name or labels besides pods and nodes: tiers, service accounts, NetworkSets, services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_model::TierDefault;

use super::address_list::ServicePort;
use super::objects::Namespaced;
use super::policy::view::{Order, Source, TierName};
use super::{Inputs, NamespacedName};
use crate::object::calico::{
    GlobalNetworkSet, NetworkSet, Profile, ProfileOf, Tier, TierDefaultAction, TierSpec,
};
use crate::object::expression::{Known, LabelSource};
use crate::object::{EndpointSlice, Key, Kind, Labels, Namespace, ServiceAccount};

/// All of them. It does not refer to the objects it was made of, so that it can be kept.
#[derive(Debug, Default)]
pub(super) struct Referred {
    /// Calico's tiers by name.
    tiers: BTreeMap<String, TierView>,
    namespaces: BTreeMap<String, NamespaceView>,
    accounts: Namespaced<ServiceAccount>,
    /// Service accounts that are there and whose labels are not known, by namespace and name.
    unlabelled_accounts: BTreeSet<NamespacedName>,
    /// Whether labels of namespaces or service accounts are not known.
    pub(super) has_unlabelled: bool,
    pub(super) network_sets: Vec<NetworkSetView>,
    /// By namespace.
    profiles: BTreeMap<String, Profiles>,
    /// Endpoints of services, by namespace and name.
    services: BTreeMap<String, BTreeMap<String, Vec<ServiceEndpoints>>>,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamespaceView {
    pub(super) name: String,
    /// None: not known but for its name's.
    labels: Option<Labels>,
}

impl NamespaceView {
    /// The label of this key.
    pub(super) fn own_label(&self, key: &str) -> Known<'_> {
        match &self.labels {
            Some(labels) => labels.label(key),
            None if key == Namespace::NAME_LABEL => Known::Value(&self.name),
            None => Known::Unknown,
        }
    }
}

/// Labels of a service account.
#[derive(Debug, Clone, Copy)]
pub(super) enum AccountLabels<'a> {
    Known(&'a Labels),
    /// It is not described, so it has none.
    None,
    Unknown,
}

impl AccountLabels<'_> {
    /// The label of this key.
    pub(super) fn label(&self, key: &str) -> Known<'_> {
        match self {
            Self::Known(labels) => labels.label(key),
            Self::None => Known::Absent,
            Self::Unknown => Known::Unknown,
        }
    }
}

/// Profiles of a namespace.
#[derive(Debug, Default)]
struct Profiles {
    own: Option<Arc<Profile>>,
    of_accounts: BTreeMap<String, Arc<Profile>>,
}

/// A tier: where it is, and what follows when no rule of it matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TierView {
    pub(super) place: TierPlace,
    pub(super) passes: bool,
}

/// The place of a tier among all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TierPlace {
    /// Profiles come after everything else.
    is_profiles: bool,
    order: Order,
    /// Decides among equals.
    pub(super) name: String,
}

/// A NetworkSet.
#[derive(Debug)]
pub(super) struct NetworkSetView {
    pub(super) source: Source,
    /// None: of the whole cluster.
    pub(super) namespace: Option<String>,
    object: NetworkSetObject,
}

#[derive(Debug)]
enum NetworkSetObject {
    Own(Arc<NetworkSet>),
    Global(Arc<GlobalNetworkSet>),
}

impl NetworkSetView {
    pub(super) fn labels(&self) -> &Labels {
        match &self.object {
            NetworkSetObject::Own(set) => &set.metadata.labels,
            NetworkSetObject::Global(set) => &set.metadata.labels,
        }
    }

    pub(super) fn nets(&self) -> &[IpNet] {
        match &self.object {
            NetworkSetObject::Own(set) => &set.spec.nets,
            NetworkSetObject::Global(set) => &set.spec.nets,
        }
    }
}

/// Endpoints with the same ports: addresses, and what they are to be reached at.
#[derive(Debug)]
pub(super) struct ServiceEndpoints {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<ServicePort>,
}

impl Referred {
    pub(super) fn of(inputs: &Inputs) -> Self {
        let mut referred = Self { accounts: inputs.service_accounts.clone(), ..Self::default() };
        for (name, namespace) in &inputs.namespaces {
            let view = NamespaceView { name: name.clone(), labels: Some(namespace.labels()) };
            referred.namespaces.insert(name.clone(), view);
        }
        referred.has_unlabelled = !inputs.unlabelled.is_empty();
        for Key { kind, namespace, name } in &inputs.unlabelled {
            if *kind == Kind::ServiceAccount {
                referred.unlabelled_accounts.insert((namespace.clone(), name.clone()));
            } else {
                let view = NamespaceView { name: name.clone(), labels: None };
                referred.namespaces.insert(name.clone(), view);
            }
        }
        for ((namespace, _), slice) in &inputs.endpoint_slices {
            if let Some(service) = slice.service() {
                let services = referred.services.entry(namespace.clone()).or_default();
                services.entry(service.to_owned()).or_default().push(ServiceEndpoints::of(slice));
            }
        }
        for (name, tier) in &inputs.tiers {
            referred.tiers.insert(name.clone(), TierView::of(name, &tier.spec));
        }
        referred.network_sets = network_sets(inputs);
        inputs.network_sets.keys().for_each(|(namespace, _)| referred.describe_namespace(namespace));
        for profile in inputs.profiles.values() {
            match profile.of() {
                Some(ProfileOf::Namespace(namespace)) => {
                    referred.profiles.entry(namespace.to_owned()).or_default().own =
                        Some(Arc::clone(profile));
                }
                Some(ProfileOf::ServiceAccount(namespace, account)) => {
                    let profiles = referred.profiles.entry(namespace.to_owned()).or_default();
                    profiles.of_accounts.insert(account.to_owned(), Arc::clone(profile));
                }
                None => {}
            }
        }
        referred
    }

    /// Sees to it that a namespace has labels: one that nobody has described has its name's alone.
    pub(super) fn describe_namespace(&mut self, name: &str) {
        if !self.namespaces.contains_key(name) {
            let by_name = Labels::from([(Namespace::NAME_LABEL.to_owned(), name.to_owned())]);
            let view = NamespaceView { name: name.to_owned(), labels: Some(by_name) };
            self.namespaces.insert(name.to_owned(), view);
        }
    }

    /// A namespace; all are there that pods and NetworkSets are in.
    pub(super) fn namespace(&self, name: &str) -> Option<&NamespaceView> {
        self.namespaces.get(name)
    }

    /// All namespaces that are described or have pods or NetworkSets.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &NamespaceView> {
        self.namespaces.values()
    }

    /// Whether pods may have labels from profiles.
    pub(super) fn has_profiles(&self) -> bool {
        !self.profiles.is_empty()
    }

    /// The tier of this name. None: it is not there.
    pub(super) fn tier(&self, name: &TierName) -> Option<TierView> {
        let named = |name: &str| {
            let built_in = || Some(TierView::of(name, &Tier::built_in(name)?));
            self.tiers.get(name).cloned().or_else(built_in)
        };
        match name {
            TierName::Admin => named(Tier::ADMIN),
            TierName::Baseline => named(Tier::BASELINE),
            TierName::Named(name) => named(name),
            TierName::Profiles => {
                let place =
                    TierPlace { is_profiles: true, order: Order(None), name: TierView::PROFILES.to_owned() };
                Some(TierView { place, passes: false })
            }
        }
    }

    /// Labels that profiles lend the pods of a namespace, and those of them that run as `account`; the first of a name
    /// counts.
    pub(super) fn profile_labels(&self, namespace: &str, account: Option<&str>) -> [Option<&Labels>; 2] {
        let Some(profiles) = self.profiles.get(namespace) else { return [None; 2] };
        let of_account = account.and_then(|account| profiles.of_accounts.get(account));
        [profiles.own.as_ref(), of_account]
            .map(|profile| profile.map(|profile| &profile.spec.labels_to_apply))
    }

    /// Labels of a service account.
    pub(super) fn account(&self, namespace: &str, name: &str) -> AccountLabels<'_> {
        let is_it = |(of, account): &NamespacedName| of == namespace && account == name;
        match self.accounts.find(namespace, name) {
            Some(account) => AccountLabels::Known(&account.metadata.labels),
            None if self.unlabelled_accounts.iter().any(is_it) => AccountLabels::Unknown,
            None => AccountLabels::None,
        }
    }

    /// The endpoints of a service; none when it is not there.
    pub(super) fn service(&self, namespace: &str, name: &str) -> &[ServiceEndpoints] {
        let service = self.services.get(namespace).and_then(|services| services.get(name));
        service.map_or(&[], Vec::as_slice)
    }

    /// The addresses of the endpoints of a service; of those that have it, when a port is given.
    pub(super) fn service_addresses(
        &self,
        namespace: &str,
        name: &str,
        port: Option<ServicePort>,
    ) -> impl Iterator<Item = IpAddr> {
        let endpoints = self.service(namespace, name).iter();
        let endpoints = endpoints.filter(move |e| port.is_none_or(|port| e.ports.contains(&port)));
        endpoints.flat_map(|endpoints| &endpoints.addresses).copied()
    }

    /// The ports that endpoints of a service are to be reached at.
    pub(super) fn service_ports(&self, namespace: &str, name: &str) -> BTreeSet<ServicePort> {
        self.service(namespace, name).iter().flat_map(|endpoints| &endpoints.ports).copied().collect()
    }
}

impl TierView {
    /// Name of what comes after all tiers. No tier can have it: `<` and `>` are in no name.
    pub(super) const PROFILES: &str = "<profiles>";

    fn of(name: &str, spec: &TierSpec) -> Self {
        let place = TierPlace { is_profiles: false, order: Order(spec.order), name: name.to_owned() };
        Self { place, passes: spec.default_action.unwrap_or_default() == TierDefaultAction::Pass }
    }

    pub(super) const fn default(&self) -> TierDefault {
        if self.passes { TierDefault::Pass } else { TierDefault::Deny }
    }
}

fn network_sets(inputs: &Inputs) -> Vec<NetworkSetView> {
    let own = inputs.network_sets.iter().map(|((namespace, name), set)| NetworkSetView {
        source: Source { kind: Kind::NetworkSet, namespace: namespace.clone(), name: name.clone() },
        namespace: Some(namespace.clone()),
        object: NetworkSetObject::Own(Arc::clone(set)),
    });
    let global = inputs.global_network_sets.iter().map(|(name, set)| NetworkSetView {
        source: Source { kind: Kind::GlobalNetworkSet, namespace: String::new(), name: name.clone() },
        namespace: None,
        object: NetworkSetObject::Global(Arc::clone(set)),
    });
    own.chain(global).collect()
}

impl ServiceEndpoints {
    fn of(slice: &EndpointSlice) -> Self {
        let port = |port: &crate::object::EndpointPort| match port.port {
            Some(number) => (port.protocol.number(), number, number),
            None => (port.protocol.number(), 0, u16::MAX),
        };
        Self { addresses: slice.addresses().collect(), ports: slice.ports.iter().map(port).collect() }
    }
}
