//! What policies refer to by name or labels besides pods and nodes: tiers, service accounts, NetworkSets, services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_model::TierDefault;

use super::Inputs;
use super::address_list::ServicePort;
use super::policy::view::{Order, Source, TierName};
use crate::object::calico::{ProfileOf, Tier, TierDefaultAction, TierSpec};
use crate::object::{EndpointSlice, Kind, Labels};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Referred<'a> {
    /// Calico's tiers by name.
    tiers: BTreeMap<&'a str, TierView>,
    /// Labels of service accounts, by namespace and name.
    accounts: BTreeMap<&'a str, BTreeMap<&'a str, &'a Labels>>,
    pub(super) network_sets: Vec<NetworkSetView<'a>>,
    /// Labels that profiles lend, by namespace and, where it is one's, service account.
    profile_labels: BTreeMap<(&'a str, Option<&'a str>), &'a Labels>,
    /// Endpoints of services, by namespace and name.
    services: BTreeMap<&'a str, BTreeMap<&'a str, Vec<ServiceEndpoints>>>,
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
pub(super) struct NetworkSetView<'a> {
    pub(super) source: Source,
    /// None: of the whole cluster.
    pub(super) namespace: Option<&'a str>,
    pub(super) labels: &'a Labels,
    pub(super) nets: &'a [IpNet],
}

/// Endpoints with the same ports: addresses, and what they are to be reached at.
#[derive(Debug)]
pub(super) struct ServiceEndpoints {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<ServicePort>,
}

impl<'a> Referred<'a> {
    pub(super) fn of(inputs: &'a Inputs) -> Self {
        let mut referred = Self::default();
        for ((namespace, name), account) in &inputs.service_accounts {
            let accounts = referred.accounts.entry(namespace).or_default();
            accounts.insert(name, &account.metadata.labels);
        }
        for ((namespace, _), slice) in &inputs.endpoint_slices {
            if let Some(service) = slice.service() {
                let services = referred.services.entry(namespace).or_default();
                services.entry(service).or_default().push(ServiceEndpoints::of(slice));
            }
        }
        for (name, tier) in &inputs.tiers {
            referred.tiers.insert(name, TierView::of(name, &tier.spec));
        }
        referred.network_sets = network_sets(inputs);
        for profile in inputs.profiles.values() {
            let whose = match profile.of() {
                Some(ProfileOf::Namespace(namespace)) => (namespace, None),
                Some(ProfileOf::ServiceAccount(namespace, account)) => (namespace, Some(account)),
                None => continue,
            };
            referred.profile_labels.insert(whose, &profile.spec.labels_to_apply);
        }
        referred
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
        let of = |account| self.profile_labels.get(&(namespace, account)).copied();
        [of(None), account.and_then(|account| of(Some(account)))]
    }

    /// Labels of a service account, if it has any.
    pub(super) fn account(&self, namespace: &str, name: &str) -> Option<&Labels> {
        self.accounts.get(namespace)?.get(name).copied()
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

fn network_sets(inputs: &Inputs) -> Vec<NetworkSetView<'_>> {
    let own = inputs.network_sets.iter().map(|((namespace, name), set)| NetworkSetView {
        source: Source { kind: Kind::NetworkSet, namespace: namespace.clone(), name: name.clone() },
        namespace: Some(namespace),
        labels: &set.metadata.labels,
        nets: &set.spec.nets,
    });
    let global = inputs.global_network_sets.iter().map(|(name, set)| NetworkSetView {
        source: Source { kind: Kind::GlobalNetworkSet, namespace: String::new(), name: name.clone() },
        namespace: None,
        labels: &set.metadata.labels,
        nets: &set.spec.nets,
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
