//! What is wrong with a value from outside: the field, what it held, and what would be right.

/// A value that cannot be accepted. It names the field by its path, for instance `ports[3].mac`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field, from the outermost message inwards.
    pub field: String,
    /// What it held and what would be right.
    pub problem: String,
}

impl Invalid {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same error seen from one level further out: `mac` inside `ports[3]` is `ports[3].mac`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let field = if self.field.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.field) };
        Self { field, problem: self.problem }
    }
}
