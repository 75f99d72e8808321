//! Kubernetes' NetworkPolicy, staged.

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::policy::{StagedAction, learned};
use crate::object::selector::null_is_default;
use crate::object::{
    EgressRule, IngressRule, LabelSelector, NetworkPolicy, NetworkPolicySpec, ObjectMeta, PolicyType,
};

/// A NetworkPolicy of Kubernetes' that is not in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedKubernetesNetworkPolicy {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: StagedKubernetesPolicySpec,
}

/// What a staged NetworkPolicy says: the same as an enforced one, and what is staged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StagedKubernetesPolicySpec {
    /// What is staged. Missing: `Set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
    /// As [`NetworkPolicySpec::pod_selector`].
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty", deserialize_with = "null_is_default")]
    pub pod_selector: LabelSelector,
    /// As [`NetworkPolicySpec::policy_types`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub policy_types: Vec<PolicyType>,
    /// As [`NetworkPolicySpec::ingress`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<IngressRule>,
    /// As [`NetworkPolicySpec::egress`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<EgressRule>,
}

impl StagedKubernetesNetworkPolicy {
    /// The policy it would be.
    #[must_use]
    pub fn enforced(&self) -> NetworkPolicy {
        let spec = NetworkPolicySpec {
            pod_selector: self.spec.pod_selector.clone(),
            policy_types: self.spec.policy_types.clone(),
            ingress: self.spec.ingress.clone(),
            egress: self.spec.egress.clone(),
        };
        NetworkPolicy { metadata: self.metadata.clone(), spec }
    }

    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        match self.spec.staged_action {
            Some(StagedAction::Learn | StagedAction::Ignore) => Err(learned().within("spec")),
            Some(action @ StagedAction::Delete) => {
                let bare = StagedKubernetesPolicySpec {
                    staged_action: Some(action),
                    ..StagedKubernetesPolicySpec::default()
                };
                if self.spec == bare {
                    return Ok(());
                }
                let problem = "Delete says that the policy would go; leave out everything else";
                Err(Invalid::new("spec.stagedAction", problem))
            }
            _ => self.enforced().validate(),
        }
    }
}
