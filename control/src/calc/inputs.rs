//! Everything the calculation reads: the objects of the cluster, by kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::object::{
    AdminNetworkPolicy, BaselineAdminNetworkPolicy, Block, ClusterNetworkPolicy, Endpoint, EndpointSlice,
    IpPool, Key, Kind, Namespace, NetworkPolicy, Node, Object, Pod, Service, ServiceAccount, calico,
};

/// Namespace and name.
pub type NamespacedName = (String, String);

/// The objects of the cluster at one moment. Cheap to clone a few times a second, not a packet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inputs {
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Pods.
    pub pods: BTreeMap<NamespacedName, Arc<Pod>>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Policies.
    pub policies: BTreeMap<NamespacedName, Arc<NetworkPolicy>>,
    /// ClusterNetworkPolicies by name.
    pub cluster_policies: BTreeMap<String, Arc<ClusterNetworkPolicy>>,
    /// AdminNetworkPolicies by name.
    pub admin_policies: BTreeMap<String, Arc<AdminNetworkPolicy>>,
    /// BaselineAdminNetworkPolicies by name.
    pub baseline_policies: BTreeMap<String, Arc<BaselineAdminNetworkPolicy>>,
    /// Service accounts.
    pub service_accounts: BTreeMap<NamespacedName, Arc<ServiceAccount>>,
    /// Services.
    pub services: BTreeMap<NamespacedName, Arc<Service>>,
    /// Endpoint slices.
    pub endpoint_slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    /// Calico's policies.
    pub calico_policies: BTreeMap<NamespacedName, Arc<calico::NetworkPolicy>>,
    /// Calico's policies of the cluster by name.
    pub global_policies: BTreeMap<String, Arc<calico::GlobalNetworkPolicy>>,
    /// Tiers by name; those that are there without an object are not among them.
    pub tiers: BTreeMap<String, Arc<calico::Tier>>,
    /// Network sets.
    pub network_sets: BTreeMap<NamespacedName, Arc<calico::NetworkSet>>,
    /// Network sets of the cluster by name.
    pub global_network_sets: BTreeMap<String, Arc<calico::GlobalNetworkSet>>,
    /// Profiles by name.
    pub profiles: BTreeMap<String, Arc<calico::Profile>>,
    /// Staged policies of Calico's.
    pub staged_policies: BTreeMap<NamespacedName, Arc<calico::StagedNetworkPolicy>>,
    /// Staged policies of the cluster by name.
    pub staged_global_policies: BTreeMap<String, Arc<calico::StagedGlobalNetworkPolicy>>,
    /// Staged policies of Kubernetes'.
    pub staged_kubernetes_policies: BTreeMap<NamespacedName, Arc<calico::StagedKubernetesNetworkPolicy>>,
    /// Policies of the whole cluster that are there and cannot be read: each denies every pod everything.
    pub unreadable: BTreeSet<Key>,
    /// Pools by name.
    pub pools: BTreeMap<String, Arc<IpPool>>,
    /// Endpoints by name.
    pub endpoints: BTreeMap<String, Arc<Endpoint>>,
    /// Blocks by name.
    pub blocks: BTreeMap<String, Arc<Block>>,
}

impl Inputs {
    /// Adds an object, or replaces the one of the same key.
    pub fn set(&mut self, object: Object) {
        let key = object.key();
        self.unreadable.remove(&key);
        let Key { namespace, name, .. } = key;
        match object {
            Object::Namespace(object) => drop(self.namespaces.insert(name, Arc::new(object))),
            Object::Pod(object) => drop(self.pods.insert((namespace, name), Arc::new(object))),
            Object::Node(object) => drop(self.nodes.insert(name, Arc::new(object))),
            Object::NetworkPolicy(object) => drop(self.policies.insert((namespace, name), Arc::new(object))),
            Object::ClusterNetworkPolicy(object) => {
                drop(self.cluster_policies.insert(name, Arc::new(object)));
            }
            Object::AdminNetworkPolicy(object) => drop(self.admin_policies.insert(name, Arc::new(object))),
            Object::BaselineAdminNetworkPolicy(object) => {
                drop(self.baseline_policies.insert(name, Arc::new(object)));
            }
            Object::ServiceAccount(object) => {
                drop(self.service_accounts.insert((namespace, name), Arc::new(object)));
            }
            Object::Service(object) => drop(self.services.insert((namespace, name), Arc::new(object))),
            Object::EndpointSlice(object) => {
                drop(self.endpoint_slices.insert((namespace, name), Arc::new(object)));
            }
            Object::IpPool(object) => drop(self.pools.insert(name, Arc::new(object))),
            Object::CalicoNetworkPolicy(object) => {
                drop(self.calico_policies.insert((namespace, name), Arc::new(object)));
            }
            Object::GlobalNetworkPolicy(object) => drop(self.global_policies.insert(name, Arc::new(object))),
            Object::Tier(object) => drop(self.tiers.insert(name, Arc::new(object))),
            Object::NetworkSet(object) => drop(self.network_sets.insert((namespace, name), Arc::new(object))),
            Object::GlobalNetworkSet(object) => drop(self.global_network_sets.insert(name, Arc::new(object))),
            Object::Profile(object) => drop(self.profiles.insert(name, Arc::new(object))),
            Object::StagedNetworkPolicy(object) => {
                drop(self.staged_policies.insert((namespace, name), Arc::new(object)));
            }
            Object::StagedGlobalNetworkPolicy(object) => {
                drop(self.staged_global_policies.insert(name, Arc::new(object)));
            }
            Object::StagedKubernetesNetworkPolicy(object) => {
                drop(self.staged_kubernetes_policies.insert((namespace, name), Arc::new(object)));
            }
            Object::Endpoint(object) => drop(self.endpoints.insert(name, Arc::new(object))),
            Object::Block(object) => drop(self.blocks.insert(name, Arc::new(object))),
        }
    }

    /// Removes the object of this key, if there is one.
    pub fn remove(&mut self, key: &Key) {
        self.unreadable.remove(key);
        let full_name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Namespace => drop(self.namespaces.remove(&key.name)),
            Kind::Pod => drop(self.pods.remove(&full_name)),
            Kind::Node => drop(self.nodes.remove(&key.name)),
            Kind::NetworkPolicy => drop(self.policies.remove(&full_name)),
            Kind::ClusterNetworkPolicy => drop(self.cluster_policies.remove(&key.name)),
            Kind::AdminNetworkPolicy => drop(self.admin_policies.remove(&key.name)),
            Kind::BaselineAdminNetworkPolicy => drop(self.baseline_policies.remove(&key.name)),
            Kind::ServiceAccount => drop(self.service_accounts.remove(&full_name)),
            Kind::Service => drop(self.services.remove(&full_name)),
            Kind::EndpointSlice => drop(self.endpoint_slices.remove(&full_name)),
            Kind::IpPool => drop(self.pools.remove(&key.name)),
            Kind::CalicoNetworkPolicy => drop(self.calico_policies.remove(&full_name)),
            Kind::GlobalNetworkPolicy => drop(self.global_policies.remove(&key.name)),
            Kind::Tier => drop(self.tiers.remove(&key.name)),
            Kind::NetworkSet => drop(self.network_sets.remove(&full_name)),
            Kind::GlobalNetworkSet => drop(self.global_network_sets.remove(&key.name)),
            Kind::Profile => drop(self.profiles.remove(&key.name)),
            Kind::StagedNetworkPolicy => drop(self.staged_policies.remove(&full_name)),
            Kind::StagedGlobalNetworkPolicy => drop(self.staged_global_policies.remove(&key.name)),
            Kind::StagedKubernetesNetworkPolicy => drop(self.staged_kubernetes_policies.remove(&full_name)),
            Kind::Endpoint => drop(self.endpoints.remove(&key.name)),
            Kind::Block => drop(self.blocks.remove(&key.name)),
        }
    }
}

impl FromIterator<Object> for Inputs {
    fn from_iter<T: IntoIterator<Item = Object>>(objects: T) -> Self {
        let mut inputs = Self::default();
        for object in objects {
            inputs.set(object);
        }
        inputs
    }
}
