//! Everything the calculation reads: the objects of the cluster, by kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::LearnedNames;
use super::objects::{Named, Namespaced};
use crate::object::{
    AdminNetworkPolicy, BaselineAdminNetworkPolicy, Block, ClusterNetworkPolicy, Endpoint, EndpointSlice,
    IpPool, Key, Kind, Namespace, NetworkPolicy, Node, Object, Pod, ServiceAccount, calico,
};

/// Namespace and name.
pub type NamespacedName = (String, String);

/// The objects of the cluster at one moment. A copy shares what neither has changed since.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inputs {
    /// Namespaces by name.
    pub namespaces: Named<Namespace>,
    /// Pods.
    pub pods: Namespaced<Pod>,
    /// Nodes by name.
    pub nodes: Named<Node>,
    /// Policies.
    pub policies: Namespaced<NetworkPolicy>,
    /// ClusterNetworkPolicies by name.
    pub cluster_policies: Named<ClusterNetworkPolicy>,
    /// AdminNetworkPolicies by name.
    pub admin_policies: Named<AdminNetworkPolicy>,
    /// BaselineAdminNetworkPolicies by name.
    pub baseline_policies: Named<BaselineAdminNetworkPolicy>,
    /// Service accounts.
    pub service_accounts: Namespaced<ServiceAccount>,
    /// Endpoint slices.
    pub endpoint_slices: Namespaced<EndpointSlice>,
    /// Calico's policies.
    pub calico_policies: Namespaced<calico::NetworkPolicy>,
    /// Calico's policies of the cluster by name.
    pub global_policies: Named<calico::GlobalNetworkPolicy>,
    /// Tiers by name; those that are there without an object are not among them.
    pub tiers: Named<calico::Tier>,
    /// Network sets.
    pub network_sets: Namespaced<calico::NetworkSet>,
    /// Network sets of the cluster by name.
    pub global_network_sets: Named<calico::GlobalNetworkSet>,
    /// Profiles by name.
    pub profiles: Named<calico::Profile>,
    /// Staged policies of Calico's.
    pub staged_policies: Namespaced<calico::StagedNetworkPolicy>,
    /// Staged policies of the cluster by name.
    pub staged_global_policies: Named<calico::StagedGlobalNetworkPolicy>,
    /// Staged policies of Kubernetes'.
    pub staged_kubernetes_policies: Namespaced<calico::StagedKubernetesNetworkPolicy>,
    /// Policies of the whole cluster that are there and cannot be read: each denies every pod everything.
    pub unreadable: BTreeSet<Key>,
    /// Namespaces and service accounts that are there and cannot be read: their labels are not known.
    pub unlabelled: BTreeSet<Key>,
    /// Pools by name.
    pub pools: Named<IpPool>,
    /// Endpoints by name.
    pub endpoints: Named<Endpoint>,
    /// Blocks by name.
    pub blocks: Named<Block>,
    /// What DNS has told pods of this node: no object, and another on each node.
    pub names: Arc<LearnedNames>,
}

impl Inputs {
    /// Adds an object, or replaces the one of the same key.
    pub fn set(&mut self, object: Object) {
        let key = object.key();
        self.unreadable.remove(&key);
        self.unlabelled.remove(&key);
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
            // No policy refers to one: Calico's mean their endpoint slices.
            Object::Service(_) => {}
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

    /// A policy, or what policies go by besides: tiers, sets, profiles, and what labels and services their selectors find.
    /// Not pods: who is unknown is denied. None: there is none, or the key is that of something else.
    #[must_use]
    pub fn policy_or_part(&self, key: &Key) -> Option<Object> {
        let full_name = (key.namespace.clone(), key.name.clone());
        let name = &key.name;
        Some(match key.kind {
            Kind::NetworkPolicy => copy(self.policies.get(&full_name)?),
            Kind::ClusterNetworkPolicy => copy(self.cluster_policies.get(name)?),
            Kind::AdminNetworkPolicy => copy(self.admin_policies.get(name)?),
            Kind::BaselineAdminNetworkPolicy => copy(self.baseline_policies.get(name)?),
            Kind::CalicoNetworkPolicy => copy(self.calico_policies.get(&full_name)?),
            Kind::GlobalNetworkPolicy => copy(self.global_policies.get(name)?),
            Kind::StagedNetworkPolicy => copy(self.staged_policies.get(&full_name)?),
            Kind::StagedGlobalNetworkPolicy => copy(self.staged_global_policies.get(name)?),
            Kind::StagedKubernetesNetworkPolicy => copy(self.staged_kubernetes_policies.get(&full_name)?),
            Kind::Tier => copy(self.tiers.get(name)?),
            Kind::NetworkSet => copy(self.network_sets.get(&full_name)?),
            Kind::GlobalNetworkSet => copy(self.global_network_sets.get(name)?),
            Kind::Profile => copy(self.profiles.get(name)?),
            Kind::Namespace => copy(self.namespaces.get(name)?),
            Kind::ServiceAccount => copy(self.service_accounts.get(&full_name)?),
            Kind::EndpointSlice => copy(self.endpoint_slices.get(&full_name)?),
            _ => return None,
        })
    }

    /// How many policies there are that are in force, of all kinds.
    #[must_use]
    pub fn policies_in_force(&self) -> usize {
        let of_cluster =
            self.cluster_policies.len() + self.admin_policies.len() + self.baseline_policies.len();
        let calicos = self.calico_policies.len() + self.global_policies.len();
        self.policies.len() + of_cluster + calicos + self.unreadable.len()
    }

    /// How many policies there are that are staged, of all kinds.
    #[must_use]
    pub fn policies_staged(&self) -> usize {
        let calicos = self.staged_policies.len() + self.staged_global_policies.len();
        calicos + self.staged_kubernetes_policies.len()
    }

    /// Removes all objects of a kind.
    pub fn clear(&mut self, kind: Kind) {
        self.unreadable.retain(|key| key.kind != kind);
        self.unlabelled.retain(|key| key.kind != kind);
        match kind {
            Kind::Namespace => self.namespaces = Named::default(),
            Kind::Pod => self.pods = Namespaced::default(),
            Kind::Node => self.nodes = Named::default(),
            Kind::NetworkPolicy => self.policies = Namespaced::default(),
            Kind::ClusterNetworkPolicy => self.cluster_policies = Named::default(),
            Kind::AdminNetworkPolicy => self.admin_policies = Named::default(),
            Kind::BaselineAdminNetworkPolicy => self.baseline_policies = Named::default(),
            Kind::ServiceAccount => self.service_accounts = Namespaced::default(),
            Kind::Service => {}
            Kind::EndpointSlice => self.endpoint_slices = Namespaced::default(),
            Kind::IpPool => self.pools = Named::default(),
            Kind::CalicoNetworkPolicy => self.calico_policies = Namespaced::default(),
            Kind::GlobalNetworkPolicy => self.global_policies = Named::default(),
            Kind::Tier => self.tiers = Named::default(),
            Kind::NetworkSet => self.network_sets = Namespaced::default(),
            Kind::GlobalNetworkSet => self.global_network_sets = Named::default(),
            Kind::Profile => self.profiles = Named::default(),
            Kind::StagedNetworkPolicy => self.staged_policies = Namespaced::default(),
            Kind::StagedGlobalNetworkPolicy => self.staged_global_policies = Named::default(),
            Kind::StagedKubernetesNetworkPolicy => self.staged_kubernetes_policies = Namespaced::default(),
            Kind::Endpoint => self.endpoints = Named::default(),
            Kind::Block => self.blocks = Named::default(),
        }
    }

    /// Removes the object of this key, if there is one.
    pub fn remove(&mut self, key: &Key) {
        self.unreadable.remove(key);
        self.unlabelled.remove(key);
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
            Kind::Service => {}
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

fn copy<T: Clone + Into<Object>>(object: &Arc<T>) -> Object {
    T::clone(object).into()
}

/// In what objects and others are the same, besides pods. Maps that share their parts are found equal without a look at
/// these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Same {
    /// What policies refer to by name or labels, besides pods and nodes.
    pub(super) referred: bool,
    /// Policies; profiles are among what is referred to.
    pub(super) policies: bool,
    /// Addresses and whose they are, as far as no pod's object says that, and where packets go.
    pub(super) addresses: bool,
}

impl Inputs {
    pub(super) fn same_as(&self, other: &Self) -> Same {
        // All by name: a kind that is forgotten here would not be followed.
        let Self {
            namespaces,
            pods: _,
            nodes,
            policies,
            cluster_policies,
            admin_policies,
            baseline_policies,
            service_accounts,
            endpoint_slices,
            calico_policies,
            global_policies,
            tiers,
            network_sets,
            global_network_sets,
            profiles,
            staged_policies,
            staged_global_policies,
            staged_kubernetes_policies,
            unreadable,
            unlabelled,
            pools,
            endpoints,
            blocks,
            names: _,
        } = self;
        Same {
            referred: namespaces.is_equal(&other.namespaces)
                && service_accounts.is_equal(&other.service_accounts)
                && endpoint_slices.is_equal(&other.endpoint_slices)
                && tiers.is_equal(&other.tiers)
                && network_sets.is_equal(&other.network_sets)
                && global_network_sets.is_equal(&other.global_network_sets)
                && profiles.is_equal(&other.profiles)
                && *unlabelled == other.unlabelled,
            policies: policies.is_equal(&other.policies)
                && cluster_policies.is_equal(&other.cluster_policies)
                && admin_policies.is_equal(&other.admin_policies)
                && baseline_policies.is_equal(&other.baseline_policies)
                && calico_policies.is_equal(&other.calico_policies)
                && global_policies.is_equal(&other.global_policies)
                && staged_policies.is_equal(&other.staged_policies)
                && staged_global_policies.is_equal(&other.staged_global_policies)
                && staged_kubernetes_policies.is_equal(&other.staged_kubernetes_policies)
                && *unreadable == other.unreadable,
            addresses: nodes.is_equal(&other.nodes)
                && endpoints.is_equal(&other.endpoints)
                && blocks.is_equal(&other.blocks)
                && pools.is_equal(&other.pools),
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
