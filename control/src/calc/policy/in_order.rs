//! All policies, in the order in which they are asked.

use std::collections::BTreeSet;

use vswitch_model::policy::Standing as ModelStanding;

use super::select::Candidate;
use super::view::{PolicyView, Source, Standing};
use super::{from_calico, from_cluster_policy, from_network_policy};
use crate::calc::Inputs;
use crate::calc::referred::{Referred, TierView};
use crate::object::{ClusterPolicy, Kind};

/// A policy in its place.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::calc) struct Placed {
    pub(in crate::calc) view: PolicyView,
    /// None: its tier is not there. It is asked nothing, and who it selects is closed.
    pub(in crate::calc) tier: Option<TierView>,
    pub(in crate::calc) standing: ModelStanding,
}

impl Placed {
    /// Whether it is in force.
    pub(in crate::calc) fn is_enforced(&self) -> bool {
        self.standing != ModelStanding::Staged
    }

    /// Whether it selects a pod. None: that depends on what is not known of the pod.
    pub(in crate::calc) fn selects(&self, pod: &Candidate<'_>) -> Option<bool> {
        self.view.subject.selects(pod)
    }
}

/// Every policy there is: tier by tier, in a tier by order, then by name, namespace and kind, as Calico has it
/// (felix/calc/policy_sorter.go). Policies whose tier is not there come last; staged removals are not among them.
pub(in crate::calc) fn in_order(
    inputs: &Inputs,
    referred: &Referred,
    problems: &mut BTreeSet<String>,
) -> Vec<Placed> {
    let views = views(inputs);
    let is_there = |view: &&PolicyView| referred.tier(&view.tier).is_some();
    let replaced: BTreeSet<Source> = views.iter().filter(is_there).filter_map(replaces).collect();
    let mut placed: Vec<_> = views
        .into_iter()
        .filter_map(|view| {
            let standing = match view.standing {
                Standing::Enforced if replaced.contains(&view.source) => ModelStanding::StagedRemoval,
                Standing::Enforced => ModelStanding::Enforced,
                Standing::Staged(_) => ModelStanding::Staged,
                Standing::StagedRemoval(_) => return None,
            };
            let tier = referred.tier(&view.tier);
            if tier.is_none() {
                problems.insert(problem(&view));
            }
            Some(Placed { view, tier, standing })
        })
        .collect();
    placed.sort_by_cached_key(key);
    placed
}

/// Each kind by its own way; one line a kind.
fn views(inputs: &Inputs) -> Vec<PolicyView> {
    let mut views = Vec::new();
    views.extend(inputs.policies.values().map(|policy| from_network_policy::view(policy)));
    let cluster =
        |kind, name: &str, policy: &dyn ClusterPolicy| from_cluster_policy::view(kind, name, policy);
    views.extend(inputs.cluster_policies.iter().map(|(n, p)| cluster(Kind::ClusterNetworkPolicy, n, &**p)));
    views.extend(inputs.admin_policies.iter().map(|(n, p)| cluster(Kind::AdminNetworkPolicy, n, &**p)));
    views.extend(
        inputs.baseline_policies.iter().map(|(n, p)| cluster(Kind::BaselineAdminNetworkPolicy, n, &**p)),
    );
    views.extend(inputs.unreadable.iter().map(|key| from_cluster_policy::unreadable(key.kind, &key.name)));
    views.extend(inputs.calico_policies.values().map(|policy| from_calico::network_policy(policy)));
    views.extend(inputs.global_policies.values().map(|policy| from_calico::global_network_policy(policy)));
    views.extend(inputs.staged_policies.values().map(|p| from_calico::staged_network_policy(p)));
    views
        .extend(inputs.staged_global_policies.values().map(|p| from_calico::staged_global_network_policy(p)));
    let staged = inputs.staged_kubernetes_policies.values();
    views.extend(staged.map(|policy| from_calico::staged_kubernetes_network_policy(policy)));
    views.extend(from_calico::profiles(inputs));
    views
}

/// Among equals the text decides that felix makes of name, namespace and kind, where Kubernetes' kinds say so.
fn key(placed: &Placed) -> impl Ord + use<> {
    let Placed { view: PolicyView { source, order, .. }, tier, .. } = placed;
    let kind = match source.kind {
        Kind::NetworkPolicy => "KubernetesNetworkPolicy",
        Kind::ClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
        kind => kind.name(),
    };
    let text = format!("{}/{}/{kind}", source.name, source.namespace);
    (tier.is_none(), tier.as_ref().map(|tier| tier.place.clone()), *order, text)
}

/// The policy a staged one stands for.
fn replaces(view: &PolicyView) -> Option<Source> {
    match view.standing {
        Standing::Enforced => None,
        Standing::Staged(kind) | Standing::StagedRemoval(kind) => {
            Some(Source { kind, ..view.source.clone() })
        }
    }
}

fn problem(view: &PolicyView) -> String {
    let tier = match &view.tier {
        super::view::TierName::Named(name) => name.as_str(),
        _ => "",
    };
    match view.standing {
        Standing::Enforced => {
            format!(
                "{} is in tier {tier}, which is not there: until it is, all is denied its pods",
                view.source
            )
        }
        _ => format!("{} is in tier {tier}, which is not there: it is left out", view.source),
    }
}
