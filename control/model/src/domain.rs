//! Domain names, and what policies write of them.

use std::fmt;

use crate::Invalid;

/// Longest name, without the dot at its end (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
/// Longest label.
const LABEL_MAX: usize = 63;

/// A name as policies can mean it: labels of ASCII letters, digits, `-` and `_`, in lower case, without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// The name of these labels, as a DNS message has them; None when no policy can mean it.
    pub fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut name = String::new();
        for label in labels {
            if label.is_empty() || label.len() > LABEL_MAX || !label.iter().copied().all(is_inside) {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        (!name.is_empty() && name.len() <= NAME_MAX).then_some(Self(name))
    }

    /// The same of text; case and a dot at the end make no difference.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_labels(text.strip_suffix('.').unwrap_or(text).split('.').map(str::as_bytes))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One name, `example.org`, or all that end so, `*.example.org`: one or more labels stand for the `*`
/// (network-policy-api, `DomainName` of v1alpha2). In lower case, without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern(String);

impl DomainPattern {
    /// Reads `example.org` or `*.example.org`: at least two labels after the wildcard, a dot at the end allowed.
    ///
    /// # Errors
    /// What would be right, about no field.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let whole = text.strip_suffix('.').unwrap_or(text);
        let labels = whole.strip_prefix("*.").unwrap_or(whole);
        let fits = whole.len() <= NAME_MAX && labels.contains('.') && labels.split('.').all(is_label);
        if fits {
            return Ok(Self(whole.to_ascii_lowercase()));
        }
        let problem = format!(
            "\"{text}\" is not a domain name: two or more labels of letters, digits, '-' and '_', each beginning and ending \
             with a letter or digit, and '*' only as a whole first label, as in example.org or *.example.org"
        );
        Err(Invalid::new("", problem))
    }

    /// Whether it means a name.
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        match self.0.strip_prefix('*') {
            // With its dot, so that no label is met in part; `example.org` itself does not begin with one.
            Some(end) => name.0.ends_with(end),
            None => self.0 == name.0,
        }
    }

    /// The one name it means; None for a wildcard.
    #[must_use]
    pub fn name(&self) -> Option<DomainName> {
        (!self.0.starts_with('*')).then(|| DomainName(self.0.clone()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const fn is_inside(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_label(label: &str) -> bool {
    let at_end = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= LABEL_MAX
        && bytes.iter().copied().all(is_inside)
        && at_end(bytes.first())
        && at_end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_whole_first_labels() {
        let longest = format!("{}.{}", "a".repeat(63), "b".repeat(63));
        for name in [
            "kubernetes.io",
            "*.kubernetes.io",
            "Blog.Kubernetes.io.",
            "a_b.x-y.z9",
            "1.2",
            "*.a.b",
            &longest,
        ] {
            assert!(DomainPattern::new(name).is_ok(), "{name}");
        }
        let label_too_long = format!("{}.org", "a".repeat(64));
        let name_too_long = vec!["abcdefg"; 40].join(".");
        for name in [
            "",
            ".",
            "*",
            "*.",
            "io",
            "*.io",
            "www.*.io",
            "*a.b.io",
            "*.*.b.io",
            "a..b",
            ".a.b",
            "a.b..",
            "-a.b",
            "a-.b",
            "a.b-",
            "_a.b",
            "a b.c",
            "a.ü",
            "a.b:53",
            &label_too_long,
            &name_too_long,
        ] {
            let refused = DomainPattern::new(name).unwrap_err();
            assert!(refused.problem.contains("*.example.org"), "{name}");
        }
    }

    /// The examples of upstream's API.
    #[test]
    fn a_pattern_means_what_upstream_says() {
        let cases = [
            (
                "kubernetes.io",
                "kubernetes.io KUBERNETES.io. Kubernetes.IO",
                "www.kubernetes.io my-kubernetes.io",
            ),
            ("blog.kubernetes.io.", "blog.kubernetes.io", "www.kubernetes.io kubernetes.io"),
            (
                "*.Kubernetes.io",
                "www.kubernetes.io latest.blog.kubernetes.io. _srv.kubernetes.io",
                "kubernetes.io wikipedia.org my-kubernetes.io kubernetes.io.evil.org",
            ),
        ];
        for (pattern, meant, others) in cases {
            let pattern = DomainPattern::new(pattern).unwrap();
            for (names, expected) in [(meant, true), (others, false)] {
                for name in names.split(' ') {
                    assert_eq!(
                        pattern.matches(&DomainName::parse(name).unwrap()),
                        expected,
                        "{pattern} {name}"
                    );
                }
            }
        }
        assert_eq!(DomainPattern::new("*.a.b").unwrap().name(), None);
        assert_eq!(DomainPattern::new("A.b.").unwrap().name(), DomainName::parse("a.B"));
    }

    #[test]
    fn names_that_no_policy_can_mean_are_none() {
        let long = [b'a'; 64];
        let labels: [&[&[u8]]; 5] = [&[], &[b""], &[b"a b"], &[&long], &[b"w", b"\xff"]];
        for labels in labels {
            assert_eq!(DomainName::from_labels(labels.iter().copied()), None, "{labels:?}");
        }
        // A dot within a label is no boundary of labels.
        assert_eq!(DomainName::from_labels([b"a.b".as_slice(), b"c"].into_iter()), None);
    }
}
