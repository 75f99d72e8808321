//! Label selectors as kubectl's `--selector` has them: `app=relay,tier!=test,env in (a, b),!old`.

use std::str::FromStr;

use serde_json::Value;

use crate::object::{LabelSelector, Labels, Operator, Requirement};

/// Objects whose labels are like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(LabelSelector);

impl Selector {
    /// Whether it selects an object.
    pub(super) fn selects(&self, object: &Value) -> bool {
        let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels: Labels = labels.map(|(key, value)| (key.clone(), text(value))).collect();
        self.0.matches(&labels)
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let requirements = terms(text).into_iter().map(requirement).collect::<Result<_, String>>()?;
        let selector = LabelSelector { match_expressions: requirements, ..LabelSelector::default() };
        selector.validate().map_err(|invalid| invalid.problem)?;
        Ok(Self(selector))
    }
}

/// The terms between commas that are in no parentheses.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let term = term.trim();
    let of = |key: &str, operator, values: Vec<&str>| Requirement {
        key: key.trim().to_owned(),
        operator,
        values: values.into_iter().map(|value| value.trim().to_owned()).collect(),
    };
    if let Some(list) = term.strip_suffix(')') {
        let wrong = || format!("{term}: \"key in (a, b)\" or \"key notin (a, b)\" would be right");
        let (before, values) = list.split_once('(').ok_or_else(wrong)?;
        let (key, word) = before.trim().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        let operator = match word {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            _ => return Err(wrong()),
        };
        return Ok(of(key, operator, values.split(',').collect()));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(of(key, Operator::NotIn, vec![value]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(of(key, Operator::In, vec![value]));
    }
    Ok(match term.strip_prefix('!') {
        Some(key) => of(key, Operator::DoesNotExist, Vec::new()),
        None => of(term, Operator::Exists, Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_mean_what_kubectl_says() {
        let objects = [json!({"app": "relay", "env": "a"}), json!({"app": "phone"}), Value::Null];
        let objects = objects.map(|labels| json!({"metadata": {"labels": labels}}));
        for (text, expected) in [
            ("app=relay", [true, false, false]),
            ("app==relay,env=a", [true, false, false]),
            ("app!=relay", [false, true, true]),
            ("env in (a, b)", [true, false, false]),
            ("env notin (a,b),app", [false, true, false]),
            ("!env", [false, true, true]),
            ("app, !env", [false, true, false]),
        ] {
            let selector: Selector = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(objects.each_ref().map(|object| selector.selects(object)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["", "a=b=c", "a of (b)", "(a)", "a in (b", "-a=b", "a=b,,c"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
