//! Calico's kinds, `projectcalico.org/v3`, as of Calico 3.32.
//!
//! | kind | what it is |
//! |---|---|
//! | NetworkPolicy, GlobalNetworkPolicy | rules in order, of the pods of a namespace or of the cluster |
//! | Tier | a group of policies, with an order among the tiers and what becomes of flows that none of it decided |
//! | NetworkSet, GlobalNetworkSet | ranges of addresses with labels, by which rules select them |
//! | Profile | rules after all tiers, and labels, of a namespace's or a service account's pods |
//! | StagedNetworkPolicy, StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy | policies that are counted and decide nothing |
//!
//! What we cannot do is refused by the name of its field: layer 7 (`http`), and what only host endpoints have
//! (`doNotTrack`, `preDNAT`, `applyOnForward`).

mod entity;
mod network_set;
mod policy;
mod port;
mod profile;
mod rule;
mod staged;
#[cfg(test)]
mod tests;
mod tier;

pub use entity::{EntityRule, ServiceAccountMatch, ServiceMatch};
pub use network_set::{GlobalNetworkSet, NetworkSet, NetworkSetSpec};
pub use policy::{
    GlobalNetworkPolicy, NetworkPolicy, PerformanceHint, PolicySpec, StagedAction, StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
};
pub use port::{Port, RuleProtocol};
pub use profile::{Profile, ProfileOf, ProfileSpec};
pub use rule::{IcmpMatch, Rule, RuleAction, RuleMetadata};
pub use staged::{StagedKubernetesNetworkPolicy, StagedKubernetesPolicySpec};
pub use tier::{Tier, TierDefaultAction, TierSpec};

impl super::Object {
    /// The tier that a policy of Calico's names; None for other objects.
    #[must_use]
    pub fn tier(&self) -> Option<&str> {
        match self {
            Self::CalicoNetworkPolicy(policy) => Some(policy.spec.tier()),
            Self::GlobalNetworkPolicy(policy) => Some(policy.spec.tier()),
            Self::StagedNetworkPolicy(policy) => Some(policy.spec.tier()),
            Self::StagedGlobalNetworkPolicy(policy) => Some(policy.spec.tier()),
            _ => None,
        }
    }
}

/// Most rules of one direction of a policy: the limit of Calico's CRDs.
pub const MAX_RULES: usize = 1024;
/// Most ranges of addresses in one list of a rule: the limit of Calico's CRDs.
pub const MAX_NETS: usize = 256;
/// Most ports in one list of a rule: the limit of Calico's CRDs.
pub const MAX_PORTS: usize = 50;
/// Longest selector of a policy, in characters: the limit of Calico's CRDs.
pub const MAX_SELECTOR: usize = 1024;
