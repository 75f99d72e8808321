//! What serde says of a value, without the names of Rust's types.

/// `invalid type: string "x", expected u16` says what would be right.
pub(super) fn words(problem: &str) -> String {
    let Some((found, expected)) = problem.rsplit_once(", expected ") else { return problem.to_owned() };
    let right = match expected {
        "u8" => "a number from 0 to 255",
        "u16" => "a number from 0 to 65535",
        "u32" => "a number from 0 to 4294967295",
        "u64" | "usize" => "a number from 0 up",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "fields and their values",
        other if other.starts_with("struct ") => "fields and their values",
        _ => return problem.to_owned(),
    };
    format!("{found}; {right} would be right")
}

#[cfg(test)]
mod tests {
    use crate::object::manifest::parse;

    #[test]
    fn no_type_of_rust_is_named() {
        for (spec, problem) in [
            ("{podSelector: x}", "fields and their values would be right"),
            ("{podSelector: {matchLabels: {a: 1}}}", "text would be right"),
            ("{podSelector: {}, ingress: {}}", "a list would be right"),
        ] {
            let text = format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a, namespace: x}}, spec: {spec}}}"
            );
            let error = parse("f", "default", &text).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("struct"), "{spec}: {error}");
        }
        for kept in ["unknown field `a`, expected `b` or `c`", "missing field `a`"] {
            assert_eq!(super::words(kept), kept);
        }
    }
}
