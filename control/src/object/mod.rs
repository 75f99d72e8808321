//! The objects people and the agent keep in the store, as their upstream manifests.
//!
//! | kind | written by | unknown fields |
//! |---|---|---|
//! | Namespace, Pod, Node, ServiceAccount, Service, EndpointSlice | others (Kubernetes, people) | accepted: they are not ours to judge |
//! | policies and what Calico's refer to, IPPool | people | refused: a field we do not enforce is an error that names it |
//! | Endpoint, Block | the agent | refused |
//!
//! [`manifest::parse`] reads YAML; [`Object::from_json`] and [`Object::to_json`] are the form in the store. An object
//! that exists is valid: shape and meaning have both been checked, so nothing past this module judges one again.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod block;
pub mod calico;
mod closed;
mod cluster_policy;
mod core;
mod endpoint;
pub mod expression;
mod flannel;
mod ip_pool;
mod kind;
pub mod manifest;
mod meta;
mod network_policy;
mod ranges;
mod selector;
mod service;
#[cfg(test)]
mod tests;
mod vxlan;

pub use block::{Block, BlockSpec};
pub use cluster_policy::{
    AdminAction, AdminEgressRule, AdminIngressRule, AdminNetworkPolicy, AdminNetworkPolicySpec, AdminPort,
    BaselineAdminNetworkPolicy, BaselineAdminNetworkPolicySpec, ClusterAction, ClusterEgressRule,
    ClusterIngressRule, ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterPeer, ClusterPolicy,
    ClusterPort, ClusterProtocol, ClusterRule, ClusterSubject, ClusterTier, DestinationPort, EgressPeer,
    IngressPeer, NamespacedPods, NumberedPort, PortRange, PortSpan, ProtocolMatch,
};
pub use core::{
    Container, ContainerPort, Namespace, Node, NodeAddress, NodeSpec, NodeStatus, Pod, PodIp, PodSpec,
    PodStatus,
};
pub use endpoint::{Endpoint, EndpointSpec};
pub use flannel::{Flannel, Vtep};
pub use ip_pool::{AllowedUse, EncapsulationMode, IpPool, IpPoolSpec};
pub use kind::Kind;
pub use manifest::ManifestError;
pub use meta::ObjectMeta;
pub use network_policy::{
    EgressRule, IngressRule, IntOrString, IpBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec, PolicyPort, PolicyType, Protocol, RuleView,
};
pub(crate) use ranges::masked;
pub use selector::{LabelSelector, Operator, Requirement};
pub use service::{
    AddressType, EndpointConditions, EndpointPort, EndpointSlice, Service, ServiceAccount, ServiceEndpoint,
    ServicePort, ServiceSpec,
};
pub use vxlan::{NoVxlan, Vxlan};

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// Names one object: its kind, its namespace when the kind has them, its name. Its text is the key in the store:
/// `networkpolicies/media/relay`, `nodes/n1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds of the whole cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object in a namespace. For a kind of the whole cluster the namespace is left out.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let namespace = if kind.is_namespaced() { namespace.into() } else { String::new() };
        Self { kind, namespace, name: name.into() }
    }

    /// The key of an object of a kind that belongs to the whole cluster.
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self::new(kind, "", name)
    }

    /// The key that `path` is the text of; None when it is not one.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let kind = parts.next().and_then(Kind::from_plural)?;
        let namespace = if kind.is_namespaced() { parts.next()? } else { "" };
        let name = parts.next()?;
        (parts.next().is_none() && !name.is_empty()).then(|| Self::new(kind, namespace, name))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.plural())?;
        if self.kind.is_namespaced() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

macro_rules! objects {
    ($($kind:ident($type:ty),)+) => {
        /// One object of any kind.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "kept behind Arc where there are many")]
        pub enum Object {
            $(#[doc = concat!("A ", stringify!($kind), ".")] $kind($type),)+
        }

        impl Object {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),+ }
            }

            /// Its metadata.
            #[must_use]
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata),+ }
            }

            /// Its metadata, to change.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$kind(object) => &mut object.metadata),+ }
            }

            /// The object `body` (without `apiVersion` and `kind`) describes, its shape checked.
            fn from_body(kind: Kind, body: &Value) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
                match kind {
                    $(Kind::$kind => serde_path_to_error::deserialize::<_, $type>(body).map(Self::$kind)),+
                }
            }

            fn body(&self) -> serde_json::Result<Value> {
                match self { $(Self::$kind(object) => serde_json::to_value(object)),+ }
            }

            fn validate_spec(&self) -> Result<(), vswitch_model::Invalid> {
                match self { $(Self::$kind(object) => object.validate()),+ }
            }
        }

        $(impl From<$type> for Object {
            fn from(object: $type) -> Self {
                Self::$kind(object)
            }
        })+
    };
}

objects! {
    Namespace(Namespace),
    Pod(Pod),
    Node(Node),
    NetworkPolicy(NetworkPolicy),
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    AdminNetworkPolicy(AdminNetworkPolicy),
    BaselineAdminNetworkPolicy(BaselineAdminNetworkPolicy),
    ServiceAccount(ServiceAccount),
    Service(Service),
    EndpointSlice(EndpointSlice),
    IpPool(IpPool),
    CalicoNetworkPolicy(calico::NetworkPolicy),
    GlobalNetworkPolicy(calico::GlobalNetworkPolicy),
    Tier(calico::Tier),
    NetworkSet(calico::NetworkSet),
    GlobalNetworkSet(calico::GlobalNetworkSet),
    Profile(calico::Profile),
    StagedNetworkPolicy(calico::StagedNetworkPolicy),
    StagedGlobalNetworkPolicy(calico::StagedGlobalNetworkPolicy),
    StagedKubernetesNetworkPolicy(calico::StagedKubernetesNetworkPolicy),
    Endpoint(Endpoint),
    Block(Block),
}

impl Object {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> Key {
        let meta = self.meta();
        Key::new(self.kind(), meta.namespace.as_deref().unwrap_or_default(), &meta.name)
    }

    /// Whether its metadata and its content mean something; the error names the field.
    pub fn validate(&self) -> Result<(), vswitch_model::Invalid> {
        self.meta().validate(self.kind()).map_err(|e| e.within("metadata"))?;
        self.validate_spec()
    }

    /// The whole object, with `apiVersion` and `kind`, as manifests have it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let body = self.body().expect("string keys and finite numbers only, which JSON can always hold");
        let Value::Object(body) = body else { unreachable!("every kind is a struct") };
        let mut whole = serde_json::Map::new();
        whole.insert("apiVersion".into(), self.kind().api_version().into());
        whole.insert("kind".into(), self.kind().name().into());
        whole.extend(body);
        Value::Object(whole)
    }

    /// The form kept in the store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.to_value().to_string().into_bytes()
    }

    /// The object kept in the store as `bytes`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let value = serde_json::from_slice(bytes).map_err(|e| ManifestError::syntax("stored object", &e))?;
        manifest::from_value("stored object", "default", 0, value)
    }
}
