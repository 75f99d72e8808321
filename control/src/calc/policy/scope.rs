//! What one end of a rule means.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::view::{EntityMatch, IpVersion};
use crate::calc::address_list::{AddressList, ServicePort};
use crate::calc::identity::IdentityKey;
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
        let EntityMatch { nets, service, domains, .. } = &self.entity;
        let nets = (!nets.is_empty()).then(|| AddressList::nets(nets));
        let service = service.as_ref().map(|service| {
            AddressList::Service(service.namespace.clone(), service.name.clone(), self.service_port)
        });
        let family = self.family.map(|family| AddressList::nets(&[everything(family)]));
        let domains = (!domains.is_empty()).then(|| AddressList::Domains(domains.clone()));
        nets.into_iter().chain(service).chain(family).chain(domains).collect()
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
