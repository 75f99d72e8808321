//! Tiers.

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use crate::object::manifest::{ManifestErrors, Sourced};
use crate::object::selector::null_is_default;
use crate::object::{Kind, ObjectMeta};

/// A group of policies. Tiers are asked one after another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Its name.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: TierSpec,
}

/// What a tier says.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierSpec {
    /// Its place among the tiers, lowest first. Missing: last. Among equals the name decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What becomes of a flow when some policy of the tier applies to the pod and no rule decided. Missing: `Deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<TierDefaultAction>,
}

/// What becomes of a flow that a tier did not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TierDefaultAction {
    /// It is denied.
    #[default]
    Deny,
    /// The next tier is asked.
    Pass,
}

impl Tier {
    /// The tier of policies that name none, and of Kubernetes' NetworkPolicy. It is there without an object.
    pub const DEFAULT: &str = "default";
    /// The tier of ClusterNetworkPolicy's `Admin`. It is there without an object.
    pub const ADMIN: &str = "kube-admin";
    /// The tier of ClusterNetworkPolicy's `Baseline`. It is there without an object.
    pub const BASELINE: &str = "kube-baseline";

    /// What the tiers that are always there say (api/pkg/apis/projectcalico/v3/tier.go); None for other names.
    #[must_use]
    pub fn built_in(name: &str) -> Option<TierSpec> {
        let (order, default_action) = match name {
            Self::ADMIN => (1_000.0, TierDefaultAction::Pass),
            Self::DEFAULT => (1_000_000.0, TierDefaultAction::Deny),
            Self::BASELINE => (10_000_000.0, TierDefaultAction::Pass),
            _ => return None,
        };
        Some(TierSpec { order: Some(order), default_action: Some(default_action) })
    }

    /// The tiers that are always there, in order, as objects.
    #[must_use]
    pub fn all_built_in() -> [Self; 3] {
        [Self::ADMIN, Self::DEFAULT, Self::BASELINE].map(|name| Self {
            metadata: ObjectMeta::named(name),
            spec: Self::built_in(name).unwrap_or_default(),
        })
    }

    /// An error for each of `objects` that is a policy whose tier is neither among them nor `there` nor always there.
    pub fn refuse_missing(objects: &[Sourced], there: impl Fn(&str) -> bool) -> Result<(), ManifestErrors> {
        let is_applied = |name: &str| {
            objects.iter().any(|one| one.object.kind() == Kind::Tier && one.object.meta().name == name)
        };
        let named = objects.iter().filter_map(|one| Some((one, one.object.tier()?)));
        let missing =
            named.filter(|(_, tier)| Self::built_in(tier).is_none() && !there(tier) && !is_applied(tier));
        let errors = missing.map(|(policy, tier)| {
            let problem = format!("the tier {tier} does not exist; apply it before, or in the same file");
            policy.error(Invalid::new("spec.tier", problem))
        });
        let errors: Vec<_> = errors.collect();
        if errors.is_empty() { Ok(()) } else { Err(ManifestErrors(errors)) }
    }

    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        let name = &self.metadata.name;
        let Some(built_in) = Self::built_in(name) else { return Ok(()) };
        if self.spec.order != built_in.order {
            let right = built_in.order.unwrap_or_default();
            return Err(Invalid::new("spec.order", format!("of the tier {name} must be {right}")));
        }
        let right = built_in.default_action.unwrap_or_default();
        if self.spec.default_action.unwrap_or_default() != right {
            return Err(Invalid::new("spec.defaultAction", format!("of the tier {name} must be {right:?}")));
        }
        Ok(())
    }
}
