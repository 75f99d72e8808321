//! Which policies are for a pod, and which are in a tier, for people.

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_model::policy::Standing;

use super::Explainer;
use crate::calc::cluster::PodView;
use crate::calc::policy::Placed;
use crate::calc::policy::select::Candidate;
use crate::calc::policy::view::TierName;
use crate::object::Kind;
use crate::object::calico::StagedAction;

/// A policy in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whether it is of the whole cluster.
    pub of_cluster: bool,
    /// `GlobalNetworkPolicy guard (tier security)`, `StagedNetworkPolicy media/relay: staged`.
    pub text: String,
}

impl Explainer<'_> {
    /// All policies that select a pod, of every kind, in the order in which they are asked. None of one that has no Pod
    /// object, or is on the host's network.
    pub fn policies_of(&mut self, namespace: &str, name: &str) -> Vec<Listed> {
        let Some(pod) = self.inputs.pods.find(namespace, name) else { return Vec::new() };
        if pod.spec.host_network {
            return Vec::new();
        }
        // The cluster is nobody else's. Of a pod without an address it does not know the namespace.
        if let Some(referred) = Arc::get_mut(&mut self.cluster.referred) {
            referred.describe_namespace(namespace);
        }
        let view = PodView {
            namespace,
            name,
            labels: Some(pod.metadata.labels.clone()),
            account: Some(pod.service_account()),
            ports: Vec::new(),
            addresses: BTreeMap::new(),
            endpoints: Vec::new(),
        };
        let Some(candidate) = Candidate::pod(&view, &self.cluster.referred) else { return Vec::new() };
        let selecting = self.policies.iter().filter(|placed| placed.selects(&candidate) == Some(true));
        selecting
            .map(|placed| Listed { of_cluster: placed.view.source.namespace.is_empty(), text: text(placed) })
            .collect()
    }

    /// All policies of a namespace, in the order in which they are asked.
    #[must_use]
    pub fn policies_within(&self, namespace: &str) -> Vec<String> {
        self.policies.iter().filter(|placed| placed.view.source.namespace == namespace).map(text).collect()
    }

    /// All policies of a tier, in the order in which they are asked; then what stages that one of them goes.
    #[must_use]
    pub fn policies_in(&self, tier: &str) -> Vec<String> {
        let is_in = |placed: &&Placed| placed.tier.as_ref().is_some_and(|of| of.place.name == tier);
        let standing = self.policies.iter().filter(is_in);
        let mut texts: Vec<String> =
            standing.map(|placed| format!("{}{}", placed.view.source, standing_of(placed))).collect();
        let goes = |action: Option<StagedAction>| action == Some(StagedAction::Delete);
        for ((namespace, name), policy) in &self.inputs.staged_policies {
            if goes(policy.spec.staged_action) && policy.spec.tier() == tier {
                texts.push(format!("{} {namespace}/{name}: stages a removal", Kind::StagedNetworkPolicy));
            }
        }
        for (name, policy) in &self.inputs.staged_global_policies {
            if goes(policy.spec.staged_action) && policy.spec.tier() == tier {
                texts.push(format!("{} {name}: stages a removal", Kind::StagedGlobalNetworkPolicy));
            }
        }
        texts
    }
}

/// The policy, its tier unless that is the default one, and its standing unless it is in force.
fn text(placed: &Placed) -> String {
    let standing = standing_of(placed);
    match (&placed.tier, &placed.view.tier) {
        (Some(tier), _) => format!("{}{standing}", super::words::name_in(placed, tier)),
        (None, TierName::Named(name)) => {
            format!("{} (tier {name}, which is not there){standing}", placed.view.source)
        }
        (None, _) => format!("{}{standing}", placed.view.source),
    }
}

fn standing_of(placed: &Placed) -> &'static str {
    match placed.standing {
        Standing::Enforced => "",
        Standing::Staged => ": staged",
        Standing::StagedRemoval => ": in force, removal staged",
    }
}
