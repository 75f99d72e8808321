//! Profiles: what applies to pods by their namespace or service account once no tier decided.

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::rule::{Rule, RuleAction, check_rules};
use crate::object::meta::{check_dns_label, check_label_key, check_label_value};
use crate::object::selector::null_is_default;
use crate::object::{Labels, ObjectMeta, PolicyType};

/// A profile. Only a namespace's (`kns.NAMESPACE`) and a service account's (`ksa.NAMESPACE.NAME`) can be: no pod refers
/// to any other. A namespace without one allows everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: ProfileSpec,
}

/// What a profile says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileSpec {
    /// Rules for what comes in, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<Rule>,
    /// Rules for what goes out, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<Rule>,
    /// Labels of its pods, beside their own, which come first.
    #[serde(default, skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub labels_to_apply: Labels,
}

/// Whose profile it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileOf<'a> {
    /// Of the pods of this namespace.
    Namespace(&'a str),
    /// Of the pods of the namespace that run as the service account.
    ServiceAccount(&'a str, &'a str),
}

impl Profile {
    /// Whose it is; None for a name that no pod refers to.
    #[must_use]
    pub fn of(&self) -> Option<ProfileOf<'_>> {
        let name = &self.metadata.name;
        let namespace = name.strip_prefix("kns.").filter(|namespace| check_dns_label(namespace).is_ok());
        let account = || name.strip_prefix("ksa.")?.split_once('.').filter(|(_, name)| !name.is_empty());
        namespace
            .map(ProfileOf::Namespace)
            .or_else(|| account().map(|(namespace, name)| ProfileOf::ServiceAccount(namespace, name)))
    }

    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        if self.of().is_none() {
            let problem = "no pod refers to a profile of this name; kns.NAMESPACE and ksa.NAMESPACE.NAME are those of \
                           pods";
            return Err(Invalid::new("metadata.name", problem));
        }
        for (direction, rules) in
            [(PolicyType::Ingress, &self.spec.ingress), (PolicyType::Egress, &self.spec.egress)]
        {
            check_rules(rules, direction, false).map_err(|e| e.within("spec"))?;
            if let Some(index) = rules.iter().position(|rule| rule.action == RuleAction::Pass) {
                let field = format!("spec.{}[{index}].action", direction.text());
                return Err(Invalid::new(
                    field,
                    "Pass leads to the next tier, and after profiles there is none",
                ));
            }
        }
        for (key, value) in &self.spec.labels_to_apply {
            check_label_key(key).map_err(|problem| Invalid::new("spec.labelsToApply", problem))?;
            check_label_value(value)
                .map_err(|problem| Invalid::new(format!("spec.labelsToApply[{key}]"), problem))?;
        }
        Ok(())
    }
}
