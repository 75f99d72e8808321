//! Kubernetes' selectors as expressions.

use super::Expr;
use crate::object::{LabelSelector, Operator, Requirement};

impl From<&LabelSelector> for Expr {
    fn from(selector: &LabelSelector) -> Self {
        let labels = selector.match_labels.iter();
        let equal = labels.map(|(key, value)| Self::Equals(key.clone(), value.clone()));
        Self::all_of(equal.chain(selector.match_expressions.iter().map(Self::from)))
    }
}

impl From<&Requirement> for Expr {
    fn from(requirement: &Requirement) -> Self {
        let key = requirement.key.clone();
        let values = || requirement.values.iter().cloned().collect();
        match requirement.operator {
            Operator::In => Self::In(key, values()),
            Operator::NotIn => Self::NotIn(key, values()),
            Operator::Exists => Self::Has(key),
            Operator::DoesNotExist => Self::Not(Box::new(Self::Has(key))),
        }
    }
}
