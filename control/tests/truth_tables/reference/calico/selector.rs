//! Calico's selector language, read and evaluated in one pass: `team == 'a' && !has(old) || zone in {'x', 'y'}`.
//! `&&` binds closer than `||`.

use super::super::Labels;

/// Whether labels are as the text says.
///
/// # Panics
/// When the text is no selector.
pub(super) fn selects(text: &str, labels: &Labels) -> bool {
    selects_or(text, labels, true)
}

/// The same where `all()` means something of its own.
pub(super) fn selects_or(text: &str, labels: &Labels, all: bool) -> bool {
    let mut reader = Reader { rest: text.trim_start(), labels, all };
    if reader.rest.is_empty() {
        return true;
    }
    let selects = reader.any_of();
    assert!(reader.rest.is_empty(), "{text}: what is {:?}", reader.rest);
    selects
}

struct Reader<'a> {
    rest: &'a str,
    labels: &'a Labels,
    all: bool,
}

impl<'a> Reader<'a> {
    fn any_of(&mut self) -> bool {
        let mut holds = self.all_of();
        while self.take("||") {
            // Both sides are read, whatever the first says.
            holds |= self.all_of();
        }
        holds
    }

    fn all_of(&mut self) -> bool {
        let mut holds = self.one();
        while self.take("&&") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.take("!") {
            return !self.one();
        }
        if self.take("(") {
            let holds = self.any_of();
            self.want(")");
            return holds;
        }
        if self.take("all()") {
            return self.all;
        }
        if self.take("has(") {
            let key = self.key();
            self.want(")");
            return self.labels.contains_key(key);
        }
        let key = self.key();
        let value = self.labels.get(key).map(String::as_str);
        self.compare(value)
    }

    /// What is said of a label's value; a label that is not there is equal to nothing and in no set.
    fn compare(&mut self, value: Option<&str>) -> bool {
        if self.take("==") {
            value == Some(self.string())
        } else if self.take("!=") {
            value != Some(self.string())
        } else if self.take("not in") {
            !self.set().contains(&value)
        } else if self.take("in") {
            self.set().contains(&value)
        } else if self.take("contains") {
            let part = self.string();
            value.is_some_and(|value| value.contains(part))
        } else if self.take("starts with") {
            let part = self.string();
            value.is_some_and(|value| value.starts_with(part))
        } else if self.take("ends with") {
            let part = self.string();
            value.is_some_and(|value| value.ends_with(part))
        } else {
            panic!("what is {:?}", self.rest)
        }
    }

    fn set(&mut self) -> Vec<Option<&'a str>> {
        self.want("{");
        let mut values = Vec::new();
        while !self.take("}") {
            values.push(Some(self.string()));
            self.take(",");
        }
        values
    }

    fn string(&mut self) -> &'a str {
        let quote = self.rest.chars().next().unwrap();
        let (text, rest) = self.rest[1..].split_once(quote).unwrap();
        self.rest = rest.trim_start();
        text
    }

    fn key(&mut self) -> &'a str {
        let is_of_key = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let end = self.rest.find(|c| !is_of_key(c)).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        key
    }

    fn want(&mut self, token: &str) {
        assert!(self.take(token), "{token} is missing before {:?}", self.rest);
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.map_or(self.rest, str::trim_start);
        rest.is_some()
    }
}

#[test]
fn selectors_mean_what_their_documentation_says() {
    let labels = [("role", "web server"), ("zone", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let labels = Labels::from(labels);
    for (text, expected) in [
        ("", true),
        ("all()", true),
        ("zone == 'a'", true),
        ("zone != 'a'", false),
        ("other != \"a\"", true),
        ("zone in {'b','a'} && role starts with 'web'", true),
        ("zone not in { 'b' }", true),
        ("other not in {'b'}", true),
        ("has(other) || role ends with 'server'", true),
        ("!has(zone) || zone == 'b' && all()", false),
        ("!(zone == 'b' || has(other))", true),
        ("role contains 'b s'", true),
    ] {
        assert_eq!(selects(text, &labels), expected, "{text}");
    }
}
