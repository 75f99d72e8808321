//! What people name for `get`, `describe` and `delete`: `KIND [NAME...]`, or `KIND/NAME...` as kubectl has it.

/// One object, or all of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) kind: String,
    pub(super) name: Option<String>,
}

/// What `words`, of which there is one at least, name. The error says what would be right.
pub(super) fn targets(words: &[String]) -> Result<Vec<Target>, String> {
    let Some((first, names)) = words.split_first() else { return Err("which kind?".to_owned()) };
    if first.contains(',') {
        return Err(format!("{first}: one kind at a time, or KIND/NAME for each object"));
    }
    if first.contains('/') {
        return words.iter().map(|word| kind_and_name(word)).collect();
    }
    if let Some(name) = names.iter().find(|name| name.contains('/')) {
        let hint = match name.split_once('/') {
            Some((namespace, name)) if !namespace.contains('/') && !name.contains('/') => {
                format!("{name} --namespace {namespace}, if that is its namespace")
            }
            _ => "a name has no \"/\"".to_owned(),
        };
        return Err(format!("{name} is not a name: {hint}"));
    }
    let of = |name: Option<&String>| Target { kind: first.clone(), name: name.cloned() };
    if names.is_empty() {
        return Ok(vec![of(None)]);
    }
    Ok(names.iter().map(|name| of(Some(name))).collect())
}

fn kind_and_name(word: &str) -> Result<Target, String> {
    match word.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Target { kind: kind.to_owned(), name: Some(name.to_owned()) })
        }
        _ => Err(format!("{word} is not KIND/NAME, as each must be where one is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Vec<(String, Option<String>)>, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        targets(&words).map(|all| all.into_iter().map(|one| (one.kind, one.name)).collect())
    }

    #[test]
    fn objects_are_named_in_both_of_kubectls_ways() {
        let one = |kind: &str, name: &str| (kind.to_owned(), Some(name.to_owned()));
        assert_eq!(of("pods"), Ok(vec![("pods".to_owned(), None)]));
        assert_eq!(of("pods a b"), Ok(vec![one("pods", "a"), one("pods", "b")]));
        assert_eq!(of("pod/a netpol/b"), Ok(vec![one("pod", "a"), one("netpol", "b")]));
    }

    #[test]
    fn what_is_neither_is_refused_with_what_would_be_right() {
        for (line, says) in [
            ("pods,netpol", "one kind at a time"),
            ("netpol media/relay", "relay --namespace media"),
            ("pod/a b", "b is not KIND/NAME"),
            ("pod/", "pod/ is not KIND/NAME"),
            ("pod/x/a", "pod/x/a is not KIND/NAME"),
        ] {
            let said = of(line).unwrap_err();
            assert!(said.contains(says), "{line}: {said}");
        }
    }
}
