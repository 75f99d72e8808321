//! Label expressions: the one form that Kubernetes' LabelSelectors and Calico's selector language are turned into.
//!
//! The language is Calico's (its documentation: "Selectors", under NetworkPolicy). Weakest first: `||`, `&&`, `!`.
//!
//! | written | holds when |
//! |---|---|
//! | `all()`, nothing at all | always |
//! | `global()` | always; as a namespaceSelector it means what is in no namespace, which its user has to see to |
//! | `has(k)` | the label is there |
//! | `k == "v"`, `k in {"v", "w"}` | the label is there with this value, with one of these |
//! | `k != "v"`, `k not in {"v", "w"}` | the label is not there, or has another value |
//! | `k contains "v"`, `k starts with "v"`, `k ends with "v"` | the label is there and its value does that |

use std::collections::BTreeSet;

use super::Labels;

mod convert;
mod lexer;
mod parser;
mod print;
mod selector;
#[cfg(test)]
mod tests;

pub use parser::{MAX_DEPTH, MAX_LENGTH, ParseError};
pub use selector::Selector;

/// What labels must be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// Anything.
    All,
    /// Anything; for whoever reads a namespaceSelector it means what is in no namespace.
    Global,
    /// The label is there.
    Has(String),
    /// The label is there with this value.
    Equals(String, String),
    /// The label is not there, or has another value.
    NotEquals(String, String),
    /// The label is there with one of these values. Of none: never.
    In(String, BTreeSet<String>),
    /// The label is not there, or has none of these values.
    NotIn(String, BTreeSet<String>),
    /// The label is there and this is part of its value.
    Contains(String, String),
    /// The label is there and its value begins with this.
    StartsWith(String, String),
    /// The label is there and its value ends with this.
    EndsWith(String, String),
    /// Each of these holds.
    And(Vec<Self>),
    /// One of these holds.
    Or(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
}

/// What is known of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'a> {
    /// It is there with this value.
    Value(&'a str),
    /// It is not there.
    Absent,
    /// Nothing is known.
    Unknown,
}

/// Something with labels, some or all of which may be unknown.
pub trait LabelSource {
    /// What is known of the label of this key.
    fn label(&self, key: &str) -> Known<'_>;
}

impl LabelSource for Labels {
    fn label(&self, key: &str) -> Known<'_> {
        self.get(key).map_or(Known::Absent, |value| Known::Value(value))
    }
}

/// None: the labels are not known.
impl LabelSource for Option<&Labels> {
    fn label(&self, key: &str) -> Known<'_> {
        self.map_or(Known::Unknown, |labels| labels.label(key))
    }
}

impl Expr {
    /// All of these; what always holds is left out.
    #[must_use]
    pub fn all_of(terms: impl IntoIterator<Item = Self>) -> Self {
        let mut terms: Vec<_> = terms.into_iter().filter(|term| *term != Self::All).collect();
        match terms.len() {
            0 => Self::All,
            1 => terms.remove(0),
            _ => Self::And(terms),
        }
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// Whether labels that are known are like this.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.evaluate(labels) == Some(true)
    }

    /// Whether labels are like this. None: that depends on what is not known of them.
    #[must_use]
    pub fn evaluate(&self, labels: &(impl LabelSource + ?Sized)) -> Option<bool> {
        let value = |key: &str, holds: &dyn Fn(&str) -> bool, absent: bool| match labels.label(key) {
            Known::Value(value) => Some(holds(value)),
            Known::Absent => Some(absent),
            Known::Unknown => None,
        };
        match self {
            Self::All | Self::Global => Some(true),
            Self::Has(key) => value(key, &|_| true, false),
            Self::Equals(key, wanted) => value(key, &|found| found == wanted, false),
            Self::NotEquals(key, unwanted) => value(key, &|found| found != unwanted, true),
            Self::In(key, wanted) => value(key, &|found| wanted.contains(found), false),
            Self::NotIn(key, unwanted) => value(key, &|found| !unwanted.contains(found), true),
            Self::Contains(key, part) => value(key, &|found| found.contains(part.as_str()), false),
            Self::StartsWith(key, start) => value(key, &|found| found.starts_with(start.as_str()), false),
            Self::EndsWith(key, end) => value(key, &|found| found.ends_with(end.as_str()), false),
            Self::And(terms) => decide(terms.iter().map(|term| term.evaluate(labels)), false),
            Self::Or(terms) => decide(terms.iter().map(|term| term.evaluate(labels)), true),
            Self::Not(term) => term.evaluate(labels).map(|holds| !holds),
        }
    }
}

/// `deciding` once one is; unknown when none is but one might be; else the opposite.
fn decide(terms: impl Iterator<Item = Option<bool>>, deciding: bool) -> Option<bool> {
    let mut result = Some(!deciding);
    for term in terms {
        match term {
            Some(holds) if holds == deciding => return Some(deciding),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}
