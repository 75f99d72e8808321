//! Object metadata, and the syntax of names and labels.

use serde::{Deserialize, Serialize};
use vswitch_model::{Invalid, PortKind};

use super::{Kind, Labels};

/// Metadata fields that an API server writes, or asks for where there is no name yet. They describe its copy of the object, not ours: dropped on reading.
pub(super) const SERVER_SIDE: &[&str] = &[
    "resourceVersion",
    "generateName",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "selfLink",
];

/// Metadata of an object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// Its name, unique in its kind and namespace.
    pub name: String,
    /// Its namespace, for kinds that live in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What selectors see.
    #[serde(
        default,
        skip_serializing_if = "Labels::is_empty",
        deserialize_with = "super::selector::null_is_default"
    )]
    pub labels: Labels,
    /// What selectors do not see.
    #[serde(
        default,
        skip_serializing_if = "Labels::is_empty",
        deserialize_with = "super::selector::null_is_default"
    )]
    pub annotations: Labels,
    /// The cluster's own identifier of this object; tells apart two objects that had one name after another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl ObjectMeta {
    /// Metadata that is a name and nothing else.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Metadata that is a namespace and a name.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::named(name) }
    }

    /// The kind of port it chooses by its annotation ([`PortKind::ANNOTATION`]), of a pod or a pool.
    #[must_use]
    pub fn port_kind(&self) -> Option<PortKind> {
        self.annotations.get(PortKind::ANNOTATION)?.parse().ok()
    }

    pub(super) fn validate(&self, kind: Kind) -> Result<(), Invalid> {
        match kind {
            Kind::Namespace | Kind::Tier => check_dns_label(&self.name),
            Kind::Endpoint | Kind::Block => check_key_part(&self.name),
            _ => check_dns_subdomain(&self.name),
        }
        .map_err(|problem| Invalid::new("name", problem))?;
        match (&self.namespace, kind.is_namespaced()) {
            (Some(namespace), true) => {
                check_dns_label(namespace).map_err(|p| Invalid::new("namespace", p))?;
            }
            (None, true) => return Err(Invalid::new("namespace", "missing")),
            (Some(_), false) => {
                return Err(Invalid::new(
                    "namespace",
                    format!("a {kind} belongs to the whole cluster; leave it out"),
                ));
            }
            (None, false) => {}
        }
        for (key, value) in &self.labels {
            check_label_key(key).map_err(|problem| Invalid::new("labels", problem))?;
            check_label_value(value).map_err(|problem| Invalid::new(format!("labels[{key}]"), problem))?;
        }
        match self.annotations.get(PortKind::ANNOTATION) {
            Some(port) if matches!(kind, Kind::Pod | Kind::IpPool) => {
                let field = || format!("annotations[{}]", PortKind::ANNOTATION);
                port.parse::<PortKind>().map(drop).map_err(|e| Invalid::new(field(), e.problem))
            }
            _ => Ok(()),
        }
    }
}

/// An address that a pod or a node can have.
pub(super) fn check_address(address: std::net::IpAddr) -> Result<(), String> {
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        Err(format!("{address} cannot be the address of a pod or node"))
    } else {
        Ok(())
    }
}

/// An RFC 1123 label: what a namespace is called.
pub(super) fn check_dns_label(name: &str) -> Result<(), String> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        Ok(())
    } else {
        Err(format!(
            "\"{name}\" is not a name: 1 to 63 lower case letters, digits and '-', no '-' at either end"
        ))
    }
}

/// An RFC 1123 subdomain: what most objects are called.
fn check_dns_subdomain(name: &str) -> Result<(), String> {
    if (1..=253).contains(&name.len()) && name.split('.').all(|part| check_dns_label(part).is_ok()) {
        Ok(())
    } else {
        Err(format!(
            "\"{name}\" is not a name: 1 to 253 lower case letters, digits, '-' and '.', each part between dots \
             beginning and ending with a letter or digit"
        ))
    }
}

/// What the agent's own objects are called: anything that can be part of a key.
fn check_key_part(name: &str) -> Result<(), String> {
    if (1..=253).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    {
        Ok(())
    } else {
        Err(format!("{name:?} is not a name: 1 to 253 characters without '/' and blanks"))
    }
}

/// `[prefix/]name`, as Kubernetes has it.
pub(super) fn check_label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_none_or(|prefix| check_dns_subdomain(prefix).is_ok())
        && is_label_word(name)
        && !name.is_empty()
    {
        Ok(())
    } else {
        Err(format!(
            "\"{key}\" is not a label key: [prefix/]name, the prefix a DNS name, the name 1 to 63 letters, digits, '-', \
             '_' and '.', beginning and ending with a letter or digit"
        ))
    }
}

/// Empty, or a word as in keys.
pub(super) fn check_label_value(value: &str) -> Result<(), String> {
    if is_label_word(value) {
        Ok(())
    } else {
        Err(format!(
            "\"{value}\" is not a label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with \
             a letter or digit"
        ))
    }
}

fn is_label_word(word: &str) -> bool {
    let inside = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let at_end = |c: Option<&u8>| c.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = word.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(|c| inside(*c)) && at_end(bytes.first()) && at_end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_syntax_is_kubernetes_own() {
        for key in ["app", "app.kubernetes.io/name", "A_b.c-d", "a/b"] {
            assert_eq!(check_label_key(key), Ok(()), "{key}");
        }
        for key in ["", "/a", "a/", "-a", "a-", "a b", "A/b/c", "Upper.Prefix/a", &"a".repeat(64)] {
            assert!(check_label_key(key).is_err(), "{key}");
        }
        assert_eq!(check_label_value(""), Ok(()));
        assert!(check_label_value("_").is_err());
    }

    #[test]
    fn a_namespace_is_asked_for_where_the_kind_has_one() {
        let field = |meta: &ObjectMeta, kind| meta.validate(kind).unwrap_err().field;
        assert_eq!(field(&ObjectMeta::named("a"), Kind::NetworkPolicy), "namespace");
        assert_eq!(field(&ObjectMeta::namespaced("x", "a"), Kind::Node), "namespace");
        assert_eq!(field(&ObjectMeta::named("A"), Kind::Node), "name");
        assert_eq!(field(&ObjectMeta::named("a.b"), Kind::Namespace), "name");
        assert_eq!(ObjectMeta::named("a.b").validate(Kind::Node), Ok(()));
    }
}
