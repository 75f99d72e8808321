//! Domain names as policies write them.

/// Longest name, without the dot at its end (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
/// Longest label.
const LABEL_MAX: usize = 63;

/// `example.org`, `*.example.org`: at least two labels after the wildcard, a dot at the end allowed.
pub(super) fn check(name: &str) -> Result<(), String> {
    let whole = name.strip_suffix('.').unwrap_or(name);
    let labels = whole.strip_prefix("*.").unwrap_or(whole);
    let fits = whole.len() <= NAME_MAX && labels.contains('.') && labels.split('.').all(is_label);
    if fits {
        return Ok(());
    }
    Err(format!(
        "\"{name}\" is not a domain name: two or more labels of letters, digits, '-' and '_', each beginning and ending \
         with a letter or digit, and '*' only as a whole first label, as in example.org or *.example.org"
    ))
}

fn is_label(label: &str) -> bool {
    let inside = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let at_end = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = label.as_bytes();
    bytes.len() <= LABEL_MAX
        && bytes.iter().all(|c| inside(*c))
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
            assert_eq!(check(name), Ok(()), "{name}");
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
            assert!(check(name).is_err(), "{name}");
        }
    }
}
