//! What policies refer to by name or labels besides pods and nodes: tiers, service accounts, NetworkSets, services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_model::TierDefault;

use super::Inputs;
use super::address_list::ServicePort;
use super::policy::view::{Order, Source, TierName};
use crate::object::{EndpointSlice, Labels};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Referred<'a> {
    /// Calico's tiers by name.
    tiers: BTreeMap<&'a str, TierView>,
    /// Labels of service accounts, by namespace and name.
    accounts: BTreeMap<&'a str, BTreeMap<&'a str, &'a Labels>>,
    pub(super) network_sets: Vec<NetworkSetView<'a>>,
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
        referred
    }

    /// The tier of this name. None: it is not there.
    ///
    /// Orders and names are those Calico 3.31 gives the tiers it makes itself (api/pkg/apis/projectcalico/v3/tier.go,
    /// libcalico-go/lib/names/policy.go).
    pub(super) fn tier(&self, name: &TierName) -> Option<TierView> {
        let own = |order: f64, name: &str, passes| TierView {
            place: TierPlace { is_profiles: false, order: Order(Some(order)), name: name.to_owned() },
            passes,
        };
        match name {
            TierName::Admin => Some(own(1_000.0, "kube-admin", true)),
            TierName::Baseline => Some(own(10_000_000.0, "kube-baseline", true)),
            TierName::Profiles => {
                let place =
                    TierPlace { is_profiles: true, order: Order(None), name: TierView::PROFILES.to_owned() };
                Some(TierView { place, passes: false })
            }
            TierName::Named(name) => match self.tiers.get(name.as_str()) {
                None if name == "default" => Some(own(1_000_000.0, "default", false)),
                tier => tier.cloned(),
            },
        }
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

    pub(super) const fn default(&self) -> TierDefault {
        if self.passes { TierDefault::Pass } else { TierDefault::Deny }
    }
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
