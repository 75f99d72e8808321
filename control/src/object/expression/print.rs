//! Expressions as text, which reads back as the same expression. The form is the one Calico normalises selectors to.

use std::fmt;

use super::Expr;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Equals(key, value) => write!(f, "{key} == {}", Quoted(value)),
            Self::NotEquals(key, value) => write!(f, "{key} != {}", Quoted(value)),
            Self::In(key, values) => {
                write!(f, "{key} in ")?;
                list(f, "{", values.iter().map(|value| Quoted(value)), ", ", "}")
            }
            Self::NotIn(key, values) => {
                write!(f, "{key} not in ")?;
                list(f, "{", values.iter().map(|value| Quoted(value)), ", ", "}")
            }
            Self::Contains(key, value) => write!(f, "{key} contains {}", Quoted(value)),
            Self::StartsWith(key, value) => write!(f, "{key} starts with {}", Quoted(value)),
            Self::EndsWith(key, value) => write!(f, "{key} ends with {}", Quoted(value)),
            Self::And(terms) => list(f, "(", terms, " && ", ")"),
            Self::Or(terms) => list(f, "(", terms, " || ", ")"),
            Self::Not(term) => write!(f, "!{term}"),
        }
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    open: &str,
    items: impl IntoIterator<Item = impl fmt::Display>,
    between: &str,
    close: &str,
) -> fmt::Result {
    f.write_str(open)?;
    for (index, item) in items.into_iter().enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { between })?;
    }
    f.write_str(close)
}

/// A text in the quotes that it does not hold itself: none holds both, as there would be no way to write it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}
