//! Label selectors.

use serde::{Deserialize, Deserializer, Serialize};
use vswitch_model::Invalid;

use super::Labels;
use super::meta::{check_label_key, check_label_value};

/// Reads `null` as the empty value, as Kubernetes does for lists and maps.
pub(super) fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What labels must be like. Empty: anything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub match_labels: Labels,
    /// Further requirements, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
    /// What it is compared with: at least one for In and NotIn, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub values: Vec<String>,
}

/// What a requirement asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there with one of the values.
    In,
    /// The label is not there, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether `labels` are what the selector asks for.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        for (key, value) in &self.match_labels {
            check_label_key(key).map_err(|problem| Invalid::new("matchLabels", problem))?;
            check_label_value(value)
                .map_err(|problem| Invalid::new(format!("matchLabels[{key}]"), problem))?;
        }
        for (index, requirement) in self.match_expressions.iter().enumerate() {
            requirement.validate().map_err(|e| e.within(&format!("matchExpressions[{index}]")))?;
        }
        Ok(())
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let has_one = || labels.get(&self.key).is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => has_one(),
            Operator::NotIn => !has_one(),
            Operator::Exists => labels.contains_key(&self.key),
            Operator::DoesNotExist => !labels.contains_key(&self.key),
        }
    }

    fn validate(&self) -> Result<(), Invalid> {
        check_label_key(&self.key).map_err(|problem| Invalid::new("key", problem))?;
        let takes_values = matches!(self.operator, Operator::In | Operator::NotIn);
        if takes_values && self.values.is_empty() {
            return Err(Invalid::new("values", format!("{:?} needs at least one value", self.operator)));
        }
        if !takes_values && !self.values.is_empty() {
            return Err(Invalid::new(
                "values",
                format!("{:?} takes no values; leave them out", self.operator),
            ));
        }
        for (index, value) in self.values.iter().enumerate() {
            check_label_value(value).map_err(|problem| Invalid::new(format!("values[{index}]"), problem))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(operator: Operator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        LabelSelector {
            match_expressions: vec![Requirement { key: "a".into(), operator, values }],
            ..LabelSelector::default()
        }
    }

    #[test]
    fn operators_mean_what_kubernetes_says() {
        let (one, two, none) = (labels(&[("a", "1")]), labels(&[("a", "2")]), labels(&[("b", "1")]));
        for (selector, expected) in [
            (LabelSelector::default(), [true, true, true]),
            (LabelSelector { match_labels: one.clone(), ..LabelSelector::default() }, [true, false, false]),
            (expression(Operator::In, &["1", "3"]), [true, false, false]),
            (expression(Operator::NotIn, &["1", "3"]), [false, true, true]),
            (expression(Operator::Exists, &[]), [true, true, false]),
            (expression(Operator::DoesNotExist, &[]), [false, false, true]),
        ] {
            assert_eq!(selector.validate(), Ok(()));
            assert_eq!([&one, &two, &none].map(|labels| selector.matches(labels)), expected, "{selector:?}");
        }
    }

    #[test]
    fn values_are_asked_for_only_where_they_mean_something() {
        for selector in [
            expression(Operator::In, &[]),
            expression(Operator::NotIn, &[]),
            expression(Operator::Exists, &["1"]),
            expression(Operator::DoesNotExist, &["1"]),
        ] {
            assert_eq!(selector.validate().unwrap_err().field, "matchExpressions[0].values", "{selector:?}");
        }
    }
}
