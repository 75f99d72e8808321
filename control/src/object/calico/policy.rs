//! Policies, of a namespace and of the cluster, enforced and staged. All four have one spec; what a kind does not have is
//! refused by name.

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::Rule;
use super::entity::{Globals, check_selector};
use super::rule::{RuleAction, check_rules};
use super::tier::Tier;
use crate::object::expression::Selector;
use crate::object::selector::null_is_default;
use crate::object::{Kind, ObjectMeta, PolicyType};

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// Staged kinds: what is staged. Missing: `Set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
    /// The tier it is in. Missing: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Its place in the tier, lowest first. Missing: last. Among equals the name decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Labels of the pods it applies to. Missing: all.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub selector: Selector,
    /// Global kinds: labels of their namespaces. Missing: all.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub namespace_selector: Selector,
    /// Labels of their service accounts. Missing: all.
    #[serde(default, skip_serializing_if = "Selector::is_blank", deserialize_with = "null_is_default")]
    pub service_account_selector: Selector,
    /// Directions it applies to. Missing: those it has rules for; ingress when it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub types: Vec<PolicyType>,
    /// Rules for what comes in, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<Rule>,
    /// Rules for what goes out, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<Rule>,
    /// Global kinds: `true` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub do_not_track: Option<bool>,
    /// Global kinds: `true` is refused.
    #[serde(default, rename = "preDNAT", skip_serializing_if = "Option::is_none")]
    pub pre_dnat: Option<bool>,
    /// Global kinds: `true` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_on_forward: Option<bool>,
    /// Hints, which by definition change no verdict. Ours is the same with and without.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub performance_hints: Vec<PerformanceHint>,
}

/// What a staged policy stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StagedAction {
    /// A policy that would be added, or put in the place of the one of its name.
    Set,
    /// The policy of its name, which would be deleted.
    Delete,
    /// Calico's own tools': refused.
    Learn,
    /// Calico's own tools': refused.
    Ignore,
}

/// How a policy could be made ready sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PerformanceHint {
    /// Some pod of every node will need it.
    AssumeNeededOnEveryNode,
}

macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident: $kind:ident;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name {
                /// Its name, its namespace where it has one.
                pub metadata: ObjectMeta,
                /// What it says.
                #[serde(default, deserialize_with = "null_is_default")]
                pub spec: PolicySpec,
            }

            impl $name {
                pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
                    self.spec.validate(Kind::$kind).map_err(|e| e.within("spec"))
                }
            }
        )+
    };
}

policies! {
    /// A policy of the pods of a namespace.
    NetworkPolicy: CalicoNetworkPolicy;
    /// A policy of pods of any namespace.
    GlobalNetworkPolicy: GlobalNetworkPolicy;
    /// A policy of a namespace that is not in force.
    StagedNetworkPolicy: StagedNetworkPolicy;
    /// A policy of the cluster that is not in force.
    StagedGlobalNetworkPolicy: StagedGlobalNetworkPolicy;
}

impl NetworkPolicy {
    /// A policy that denies the pods of a namespace everything before others of its tier are asked: what stands in for
    /// one that cannot be read.
    #[must_use]
    pub fn closed(namespace: &str, name: &str) -> Self {
        Self { metadata: ObjectMeta::namespaced(namespace, name), spec: PolicySpec::closed() }
    }
}

impl GlobalNetworkPolicy {
    /// The same of all pods.
    #[must_use]
    pub fn closed(name: &str) -> Self {
        Self { metadata: ObjectMeta::named(name), spec: PolicySpec::closed() }
    }
}

impl PolicySpec {
    fn closed() -> Self {
        let deny = vec![Rule::all(RuleAction::Deny)];
        let types = PolicyType::ALL.to_vec();
        Self { order: Some(f64::MIN), types, ingress: deny.clone(), egress: deny, ..Self::default() }
    }

    /// The tier it is in.
    #[must_use]
    pub fn tier(&self) -> &str {
        self.tier.as_deref().filter(|tier| !tier.is_empty()).unwrap_or(Tier::DEFAULT)
    }

    /// Whether it applies to a direction.
    #[must_use]
    pub fn applies_to(&self, direction: PolicyType) -> bool {
        if !self.types.is_empty() {
            return self.types.contains(&direction);
        }
        match direction {
            PolicyType::Ingress => !self.ingress.is_empty() || self.egress.is_empty(),
            PolicyType::Egress => !self.egress.is_empty(),
        }
    }

    /// Its rules for a direction it applies to. None: it does not.
    #[must_use]
    pub fn rules(&self, direction: PolicyType) -> Option<&[Rule]> {
        let rules = match direction {
            PolicyType::Ingress => &self.ingress,
            PolicyType::Egress => &self.egress,
        };
        self.applies_to(direction).then_some(rules.as_slice())
    }

    fn validate(&self, kind: Kind) -> Result<(), Invalid> {
        self.check_fields_of(kind)?;
        if let Some(tier) = self.tier.as_deref().filter(|tier| !tier.is_empty()) {
            crate::object::meta::check_dns_label(tier).map_err(|problem| Invalid::new("tier", problem))?;
        }
        if self.types.len() == 2 && self.types[0] == self.types[1] || self.types.len() > 2 {
            return Err(Invalid::new("types", "at most two: Ingress and Egress, each once"));
        }
        for (field, selector) in [
            ("selector", &self.selector),
            ("namespaceSelector", &self.namespace_selector),
            ("serviceAccountSelector", &self.service_account_selector),
        ] {
            check_selector(field, selector, Globals::Refused)?;
        }
        check_rules(&self.ingress, PolicyType::Ingress, kind.is_namespaced())?;
        check_rules(&self.egress, PolicyType::Egress, kind.is_namespaced())
    }

    /// Refuses by name what the kind does not have, and what we do not enforce.
    fn check_fields_of(&self, kind: Kind) -> Result<(), Invalid> {
        let is_global = !kind.is_namespaced();
        for (field, given) in [
            ("namespaceSelector", !self.namespace_selector.is_blank()),
            ("doNotTrack", self.do_not_track.is_some()),
            ("preDNAT", self.pre_dnat.is_some()),
            ("applyOnForward", self.apply_on_forward.is_some()),
        ] {
            if given && !is_global {
                let problem = format!("unknown field of a {kind}; a GlobalNetworkPolicy has it");
                return Err(Invalid::new(field, problem));
            }
        }
        for (field, value) in [
            ("doNotTrack", self.do_not_track),
            ("preDNAT", self.pre_dnat),
            ("applyOnForward", self.apply_on_forward),
        ] {
            if value == Some(true) {
                let problem = "true is about host endpoints, which do not exist here; pods are tracked and policed \
                               without it";
                return Err(Invalid::new(field, problem));
            }
        }
        let is_staged = matches!(kind, Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy);
        match self.staged_action {
            Some(_) if !is_staged => {
                let problem = format!("unknown field of a {kind}; the Staged kinds have it");
                Err(Invalid::new("stagedAction", problem))
            }
            Some(StagedAction::Learn | StagedAction::Ignore) => Err(learned()),
            Some(StagedAction::Delete) => self.check_deletes(),
            _ => Ok(()),
        }
    }

    /// What only says that another would go has nothing else to say.
    fn check_deletes(&self) -> Result<(), Invalid> {
        let bare = Self { staged_action: self.staged_action, tier: self.tier.clone(), ..Self::default() };
        if *self == bare {
            return Ok(());
        }
        Err(Invalid::new("stagedAction", "Delete says that the policy would go; leave out all but the tier"))
    }
}

/// Refuses what Calico's own tools write.
pub(super) fn learned() -> Invalid {
    Invalid::new("stagedAction", "only Set and Delete are supported")
}
