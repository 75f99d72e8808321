//! Labels, and Kubernetes' way to select by them (meta/v1 LabelSelector).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn labels_of(value: &Value) -> Labels {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), super::text(value))).collect()
}

/// Everything in it has to hold; an empty one selects everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelSelector {
    match_labels: Option<Labels>,
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl LabelSelector {
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        let mut pairs = self.match_labels.iter().flatten();
        pairs.all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().flatten().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let is_listed = value.is_some_and(|value| self.values.iter().flatten().any(|listed| listed == value));
        match self.operator.as_str() {
            "In" => is_listed,
            // A label that is not there is in no list.
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("no operator of Kubernetes: {other}"),
        }
    }
}
