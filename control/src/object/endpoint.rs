//! A pod's attachment: the agent's own record of one interface in one sandbox.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_model::{Attachment, Invalid, Mac, PortName, limits};

use super::meta::check_address;
use super::{Key, Kind, ObjectMeta};

/// One interface of one sandbox. Two sandboxes of one pod are two endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its name, made by [`Endpoint::name_of`].
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: EndpointSpec,
}

/// What an endpoint is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// The node it is on.
    pub node: String,
    /// The pod's namespace; empty for a container that is no pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The pod's name; empty for a container that is no pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The cluster's identifier of the pod, when the runtime told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The sandbox (CNI_CONTAINERID).
    pub container_id: String,
    /// Name of the pod's end (CNI_IFNAME).
    pub interface: String,
    /// The CNI network it belongs to; empty for one that no CNI plugin made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Name of the port.
    pub port: PortName,
    /// How it is attached.
    pub attachment: Attachment,
    /// The pod's Ethernet address; zeros on a tun.
    pub mac: Mac,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod's MTU, in bytes.
    pub mtu: u16,
}

impl Endpoint {
    /// The name of the endpoint of this interface in this sandbox.
    #[must_use]
    pub fn name_of(container_id: &str, interface: &str) -> String {
        format!("{container_id}.{interface}")
    }

    /// The key of the endpoint of this interface in this sandbox.
    #[must_use]
    pub fn key_of(container_id: &str, interface: &str) -> Key {
        Key::cluster(Kind::Endpoint, Self::name_of(container_id, interface))
    }

    /// An endpoint, named after its sandbox and interface.
    #[must_use]
    pub fn new(spec: EndpointSpec) -> Self {
        Self { metadata: ObjectMeta::named(Self::name_of(&spec.container_id, &spec.interface)), spec }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        let expected = Self::name_of(&spec.container_id, &spec.interface);
        if self.metadata.name != expected {
            return Err(Invalid::new("metadata.name", format!("must be {expected}")));
        }
        if spec.node.is_empty() {
            return Err(Invalid::new("spec.node", "must not be empty"));
        }
        if spec.namespace.is_empty() != spec.pod.is_empty() {
            return Err(Invalid::new(
                "spec.pod",
                "a pod has a namespace and a name; what is no pod has neither",
            ));
        }
        if !spec.attachment.allows(spec.mac) {
            return Err(Invalid::new("spec.mac", format!("{} cannot be a pod's address", spec.mac)));
        }
        if !(limits::MTU_MIN..=limits::MTU_MAX).contains(&spec.mtu) {
            let range = format!("{} to {}", limits::MTU_MIN, limits::MTU_MAX);
            return Err(Invalid::new("spec.mtu", format!("{} is out of range: {range}", spec.mtu)));
        }
        if spec.addresses.is_empty() || spec.addresses.len() > limits::ADDRESSES_PER_PORT_MAX {
            let range = format!("1 to {}", limits::ADDRESSES_PER_PORT_MAX);
            return Err(Invalid::new("spec.addresses", format!("{} of them: {range}", spec.addresses.len())));
        }
        for (index, address) in spec.addresses.iter().enumerate() {
            check_address(*address).map_err(|p| Invalid::new(format!("spec.addresses[{index}]"), p))?;
        }
        Ok(())
    }
}
