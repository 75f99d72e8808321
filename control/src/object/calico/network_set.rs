//! Ranges of addresses with labels.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use crate::object::ObjectMeta;
use crate::object::ranges::{check_range, ranges_or_addresses};
use crate::object::selector::null_is_default;

/// Ranges that rules of policies of its namespace select by its labels, and others by its namespace's too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSet {
    /// Its name, namespace and labels.
    pub metadata: ObjectMeta,
    /// What is in it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: NetworkSetSpec,
}

/// Ranges that rules of GlobalNetworkPolicies, and those with the namespaceSelector `global()`, select by its labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalNetworkSet {
    /// Its name and labels.
    pub metadata: ObjectMeta,
    /// What is in it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: NetworkSetSpec,
}

/// What is in a set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSetSpec {
    /// Ranges, of either family, in any order; an address is the range of it alone. Bits beyond a length are of no effect, as in Calico.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "ranges_or_addresses")]
    pub nets: Vec<IpNet>,
}

impl NetworkSet {
    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        check(&self.metadata, &self.spec)
    }
}

impl GlobalNetworkSet {
    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        check(&self.metadata, &self.spec)
    }
}

fn check(metadata: &ObjectMeta, spec: &NetworkSetSpec) -> Result<(), Invalid> {
    const NAMESPACE: &str = "projectcalico.org/namespace";
    if metadata.labels.contains_key(NAMESPACE) {
        let problem = "every namespaced set has this label by itself; leave it out";
        return Err(Invalid::new(format!("metadata.labels[{NAMESPACE}]"), problem));
    }
    for (index, net) in spec.nets.iter().enumerate() {
        // Other than in a rule, upstream takes bits beyond the length here.
        check_range(*net).map_err(|problem| Invalid::new(format!("spec.nets[{index}]"), problem))?;
    }
    Ok(())
}
