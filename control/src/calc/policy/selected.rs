//! Which pods a policy of Calico's selects, for people.

use std::collections::BTreeSet;

use super::from_calico;
use super::select::Candidate;
use crate::calc::cluster::Cluster;
use crate::calc::{Inputs, NamespacedName};
use crate::object::Object;

/// The pods with addresses that a policy of Calico's selects; of other objects none.
#[must_use]
pub fn selected_pods(inputs: &Inputs, object: &Object) -> Vec<NamespacedName> {
    let view = match object {
        Object::CalicoNetworkPolicy(policy) => from_calico::network_policy(policy),
        Object::GlobalNetworkPolicy(policy) => from_calico::global_network_policy(policy),
        Object::StagedNetworkPolicy(policy) => from_calico::staged_network_policy(policy),
        Object::StagedGlobalNetworkPolicy(policy) => from_calico::staged_global_network_policy(policy),
        Object::StagedKubernetesNetworkPolicy(policy) => {
            from_calico::staged_kubernetes_network_policy(policy)
        }
        _ => return Vec::new(),
    };
    let cluster = Cluster::of(inputs, &mut BTreeSet::new());
    let selects = |pod: &Candidate<'_>| view.subject.selects(pod) == Some(true);
    let pods = cluster
        .pods
        .iter()
        .filter(|pod| Candidate::pod(pod, &cluster.referred).is_some_and(|pod| selects(&pod)));
    pods.map(|pod| (pod.namespace.to_owned(), pod.name.to_owned())).collect()
}
