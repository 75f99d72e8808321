//! Namespaces, pods and nodes: other people's objects. What of them means nothing to us is accepted and not kept.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::meta::check_address;
use super::network_policy::Protocol;
use super::selector::null_is_default;
use super::{Flannel, Labels, ObjectMeta};

/// A namespace: a name and labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name and labels.
    pub metadata: ObjectMeta,
}

impl Namespace {
    /// The label every namespace has by itself (Kubernetes sets it since 1.21).
    pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

    /// The labels selectors see: its own, and its name.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let mut labels = self.metadata.labels.clone();
        labels.insert(Self::NAME_LABEL.to_owned(), self.metadata.name.clone());
        labels
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "every kind has one")]
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// A pod, as far as it concerns its traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pod {
    /// Its name, namespace and labels.
    pub metadata: ObjectMeta,
    /// Where it runs and what it listens at.
    #[serde(default)]
    pub spec: PodSpec,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "PodStatus::is_empty")]
    pub status: PodStatus,
}

/// Where a pod runs and what it listens at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The node it runs on, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Whether it has no network of its own: it is the node then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// The service account it runs as. Missing: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Its containers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub containers: Vec<Container>,
    /// Containers that run before those, and beside them when they are always restarted.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub init_containers: Vec<Container>,
}

/// A container, as far as it names ports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The ports it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container one that goes on beside the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// What policies may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number, 1 to 65535.
    pub container_port: u16,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What is known of a running pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Succeeded` and `Failed` pods have no address any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Its first address.
    #[serde(default, rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// All its addresses.
    #[serde(
        default,
        rename = "podIPs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub pod_ips: Vec<PodIp>,
}

/// One address of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIp {
    /// The address.
    pub ip: IpAddr,
}

impl PodStatus {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Pod {
    /// Addresses its status gives it, without those of a pod that has ended or is its node.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || self.spec.host_network {
            return BTreeSet::new();
        }
        self.status.pod_ips.iter().map(|pod_ip| pod_ip.ip).chain(self.status.pod_ip).collect()
    }

    /// The service account it runs as, in its own namespace.
    #[must_use]
    pub fn service_account(&self) -> &str {
        self.spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
    }

    /// Its named ports: name, protocol, number. When containers share a name and protocol the first is meant, as in
    /// Kubernetes (`FindPort`, pkg/api/pod/util.go).
    #[must_use]
    pub fn named_ports(&self) -> Vec<(String, Protocol, u16)> {
        let beside =
            self.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut named: Vec<(String, Protocol, u16)> = Vec::new();
        for port in self.spec.containers.iter().chain(beside).flat_map(|container| &container.ports) {
            if let Some(name) = &port.name
                && !named.iter().any(|(n, protocol, _)| n == name && *protocol == port.protocol)
            {
                named.push((name.clone(), port.protocol, port.container_port));
            }
        }
        named.sort();
        named
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        for (list, containers) in
            [("containers", &self.spec.containers), ("initContainers", &self.spec.init_containers)]
        {
            for (i, container) in containers.iter().enumerate() {
                if let Some(p) = container.ports.iter().position(|port| port.container_port == 0) {
                    let field = format!("spec.{list}[{i}].ports[{p}].containerPort");
                    return Err(Invalid::new(field, "0 is not a port: 1 to 65535"));
                }
            }
        }
        for (index, address) in self.status.pod_ips.iter().map(|p| p.ip).chain(self.status.pod_ip).enumerate()
        {
            check_address(address).map_err(|p| Invalid::new(format!("status.podIPs[{index}]"), p))?;
        }
        Ok(())
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Node {
    /// Its name, labels, and the annotations by which nodes tell each other their addresses.
    pub metadata: ObjectMeta,
    /// What the cluster gave it.
    #[serde(default)]
    pub spec: NodeSpec,
    /// Its addresses as Kubernetes knows them.
    #[serde(default, skip_serializing_if = "NodeStatus::is_empty")]
    pub status: NodeStatus,
}

/// What the cluster gave a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Ranges its pods' addresses come from, one of each family. Routed only where the node has no block.
    #[serde(
        default,
        rename = "podCIDRs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub pod_cidrs: Vec<IpNet>,
}

/// What is known of a running node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub addresses: Vec<NodeAddress>,
}

/// One address of a node. Kubernetes also puts host names here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address or name.
    pub address: String,
}

impl NodeStatus {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

impl Node {
    /// Annotation: underlay address with prefix length, `192.0.2.1/24`.
    pub const IPV4_ADDRESS: &str = "projectcalico.org/IPv4Address";
    /// Annotation: the same for IPv6.
    pub const IPV6_ADDRESS: &str = "projectcalico.org/IPv6Address";
    /// Annotation: the node's own address in the pods' network, IPv4.
    pub const IPV4_TUNNEL_ADDRESS: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
    /// Annotation: the same for IPv6.
    pub const IPV6_TUNNEL_ADDRESS: &str = "projectcalico.org/IPv6VXLANTunnelAddr";
    /// Annotation: the node's own IPv4 address in the pods' network where that is in IP-in-IP.
    pub const IPV4_IPIP_ADDRESS: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
    /// Annotation: Ethernet address of its IPv4 VTEP.
    pub const VTEP_MAC_V4: &str = "projectcalico.org/VXLANTunnelMACAddr";
    /// Annotation: Ethernet address of its IPv6 VTEP.
    pub const VTEP_MAC_V6: &str = "projectcalico.org/VXLANTunnelMACAddrV6";
    /// Annotation: the VXLAN network it has an end of, `4096:4789` ([`super::Vxlan`]).
    pub const VXLAN: &str = "vswitch/vxlan";

    /// An annotation's value, read; an error names the annotation.
    pub fn annotation<T: std::str::FromStr>(&self, name: &str, like: &str) -> Result<Option<T>, Invalid> {
        let Some(text) = self.metadata.annotations.get(name) else { return Ok(None) };
        let wrong = |_| {
            let field = format!("metadata.annotations[{name}]");
            Invalid::new(field, format!("\"{text}\" cannot be read; a value like {like} would be right"))
        };
        text.parse().map(Some).map_err(wrong)
    }

    /// Whether it speaks flannel's VXLAN to others: flannel runs there, and nothing that writes Calico's annotations.
    #[must_use]
    pub fn is_flannels(&self) -> bool {
        let calico = [Self::IPV4_ADDRESS, Self::IPV6_ADDRESS];
        !calico.iter().any(|name| self.metadata.annotations.contains_key(*name))
            && Flannel::of(self).is_some()
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let underlay_v4 = self.annotation::<ipnet::Ipv4Net>(Self::IPV4_ADDRESS, "192.0.2.1/24")?;
        let underlay_v6 = self.annotation::<ipnet::Ipv6Net>(Self::IPV6_ADDRESS, "2001:db8::1/64")?;
        let tunnel_v4 = self.annotation::<Ipv4Addr>(Self::IPV4_TUNNEL_ADDRESS, "10.244.0.1")?;
        let tunnel_v6 = self.annotation::<Ipv6Addr>(Self::IPV6_TUNNEL_ADDRESS, "fd00::1")?;
        let ip_in_ip = self.annotation::<Ipv4Addr>(Self::IPV4_IPIP_ADDRESS, "10.244.0.1")?;
        for (name, address) in [
            (Self::IPV4_IPIP_ADDRESS, ip_in_ip.map(IpAddr::from)),
            (Self::IPV4_ADDRESS, underlay_v4.map(|net| net.addr().into())),
            (Self::IPV6_ADDRESS, underlay_v6.map(|net| net.addr().into())),
            (Self::IPV4_TUNNEL_ADDRESS, tunnel_v4.map(IpAddr::from)),
            (Self::IPV6_TUNNEL_ADDRESS, tunnel_v6.map(IpAddr::from)),
        ] {
            address
                .map_or(Ok(()), check_address)
                .map_err(|p| Invalid::new(format!("metadata.annotations[{name}]"), p))?;
        }
        self.annotation::<vswitch_model::Mac>(Self::VTEP_MAC_V4, "66:00:00:00:00:01")?;
        self.annotation::<vswitch_model::Mac>(Self::VTEP_MAC_V6, "66:00:00:00:00:01")?;
        self.annotation::<super::Vxlan>(Self::VXLAN, "4096:4789")?;
        for (index, cidr) in self.spec.pod_cidrs.iter().enumerate() {
            super::ranges::check_cidr(*cidr)
                .map_err(|p| Invalid::new(format!("spec.podCIDRs[{index}]"), p))?;
        }
        Ok(())
    }
}
