//! Service accounts, services and endpoint slices: other people's objects, as far as policies can refer to them. What
//! of them means nothing to us is accepted and not kept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::network_policy::Protocol;
use super::selector::null_is_default;
use super::{Labels, ObjectMeta};

/// A service account: what pods of one purpose run as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAccount {
    /// Its name, namespace and labels.
    pub metadata: ObjectMeta,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, namespace and labels.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: ServiceSpec,
}

/// What a service says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`. Missing: `ClusterIP`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The pods behind it.
    #[serde(default, skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub selector: Labels,
    /// Its addresses, or `None` for one without.
    #[serde(
        default,
        rename = "clusterIPs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub cluster_ips: Vec<String>,
    /// Its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePort {
    /// What it is called.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// Its protocol.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: Protocol,
    /// Its number, 1 to 65535.
    pub port: u16,
}

/// Where (a part of) a service is to be found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Its name, namespace and labels, of which one names the service.
    pub metadata: ObjectMeta,
    /// What `endpoints` holds.
    pub address_type: AddressType,
    /// The places.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub endpoints: Vec<ServiceEndpoint>,
    /// The ports at each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ports: Vec<EndpointPort>,
}

/// What an endpoint slice lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressType {
    /// IPv4 addresses.
    IPv4,
    /// IPv6 addresses.
    IPv6,
    /// Domain names.
    #[serde(rename = "FQDN")]
    Fqdn,
}

/// One place of a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEndpoint {
    /// Its addresses, or names.
    #[serde(default, deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// How it is.
    #[serde(
        default,
        skip_serializing_if = "EndpointConditions::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub conditions: EndpointConditions,
    /// The node it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

/// How a place of a service is. What is missing is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointConditions {
    /// Whether it takes traffic. Not known: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// The same, whether or not it is about to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Whether it is about to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// A port at the places of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointPort {
    /// What it is called.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// Its protocol.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: Protocol,
    /// Its number. None: every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl EndpointConditions {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ServiceAccount {
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "every kind has one")]
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Service {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        match self.spec.ports.iter().position(|port| port.port == 0) {
            None => Ok(()),
            Some(index) => {
                Err(Invalid::new(format!("spec.ports[{index}].port"), "0 is not a port: 1 to 65535"))
            }
        }
    }
}

impl EndpointSlice {
    /// The label that names the service a slice belongs to.
    pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

    /// The service it belongs to, in its own namespace.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get(Self::SERVICE_LABEL).map(String::as_str)
    }

    /// Its addresses, each once for each place that has it; none when it lists names.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let is_address = self.address_type != AddressType::Fqdn;
        let addresses = self.endpoints.iter().filter(move |_| is_address).flat_map(|place| &place.addresses);
        addresses.filter_map(|address| address.parse().ok())
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let fits = |address: &str| match self.address_type {
            AddressType::IPv4 => address.parse::<std::net::Ipv4Addr>().is_ok(),
            AddressType::IPv6 => address.parse::<std::net::Ipv6Addr>().is_ok(),
            AddressType::Fqdn => true,
        };
        for (e, endpoint) in self.endpoints.iter().enumerate() {
            if let Some(a) = endpoint.addresses.iter().position(|address| !fits(address)) {
                let field = format!("endpoints[{e}].addresses[{a}]");
                let problem = format!("\"{}\" is no {:?} address", endpoint.addresses[a], self.address_type);
                return Err(Invalid::new(field, problem));
            }
        }
        match self.ports.iter().position(|port| port.port == Some(0)) {
            None => Ok(()),
            Some(index) => Err(Invalid::new(format!("ports[{index}].port"), "0 is not a port: 1 to 65535")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Object, manifest};
    use super::*;

    fn read(text: &str) -> Result<Object, manifest::ManifestError> {
        manifest::parse("s.yaml", "x", text).map(|mut documents| documents.remove(0).object)
    }

    #[test]
    fn what_policies_can_refer_to_is_kept_of_services() {
        let Ok(Object::EndpointSlice(slice)) = read(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-1, labels: {kubernetes.io/service-name: dns}, generateName: dns-}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true, serving: null}, nodeName: n1, zone: a, targetRef: {kind: Pod}}
- {addresses: [10.0.0.2, 10.0.0.3], hints: {forZones: []}}
ports: [{name: dns, protocol: UDP, port: 53, appProtocol: dns}, {name: '', port: null}]",
        ) else {
            panic!("no slice")
        };
        assert_eq!((slice.service(), slice.addresses().count()), (Some("dns"), 3));
        assert_eq!(slice.ports[0].port, Some(53));
        assert_eq!(slice.ports[1], EndpointPort::default());
        assert_eq!(slice.endpoints[0].conditions.ready, Some(true));
        let object = Object::from(slice);
        assert_eq!(Object::from_json(&object.to_json()), Ok(object));

        let service = read(
            "{apiVersion: v1, kind: Service, metadata: {name: dns}, spec: {clusterIP: None, clusterIPs: [None], ports: \
             [{port: 53, protocol: UDP, targetPort: dns}]}, status: {loadBalancer: {}}}",
        );
        assert!(matches!(service, Ok(Object::Service(service)) if service.spec.ports[0].port == 53));
        let account =
            read("{apiVersion: v1, kind: ServiceAccount, metadata: {name: sip}, secrets: [{name: a}]}");
        assert_eq!(account.unwrap().key().to_string(), "serviceaccounts/x/sip");
    }

    #[test]
    fn slices_hold_what_they_say_they_do() {
        let slice = |rest: &str| {
            format!("{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: a}}, {rest}}}")
        };
        for (rest, field) in [
            ("addressType: IPv6, endpoints: [{addresses: [10.0.0.1]}]", "endpoints[0].addresses[0]"),
            ("addressType: IPv4, ports: [{port: 0}]", "ports[0].port"),
            ("addressType: DNS", "addressType"),
            ("endpoints: []", ""),
        ] {
            assert_eq!(read(&slice(rest)).unwrap_err().field, field, "{rest}");
        }
        let names = read(&slice("addressType: FQDN, endpoints: [{addresses: [a.example]}]"));
        assert!(matches!(names, Ok(Object::EndpointSlice(slice)) if slice.addresses().count() == 0));
    }
}
