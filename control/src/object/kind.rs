//! The registry of kinds: their names, short names and versions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Kind {
    /// `v1`.
    Namespace,
    /// `v1`.
    Pod,
    /// `v1`.
    Node,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `projectcalico.org/v3`.
    IpPool,
    /// `vswitch/v1`: a pod's attachment.
    Endpoint,
    /// `vswitch/v1`: a range of addresses that belongs to a node.
    Block,
}

struct Names {
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// The one we write first, then others we read.
    api_versions: &'static [&'static str],
    namespaced: bool,
}

impl Kind {
    /// All kinds, in the order in which a manifest that holds several is best applied.
    pub const ALL: &'static [Self] = &[
        Self::Namespace,
        Self::Node,
        Self::IpPool,
        Self::Pod,
        Self::NetworkPolicy,
        Self::Endpoint,
        Self::Block,
    ];

    const fn names(self) -> Names {
        let (name, plural, short, api_versions, namespaced): (_, _, &[&str], &[&str], _) = match self {
            Self::Namespace => ("Namespace", "namespaces", &["ns"], &["v1"], false),
            Self::Pod => ("Pod", "pods", &["po"], &["v1"], true),
            Self::Node => ("Node", "nodes", &["no"], &["v1"], false),
            Self::NetworkPolicy => {
                ("NetworkPolicy", "networkpolicies", &["netpol"], &["networking.k8s.io/v1"], true)
            }
            Self::IpPool => {
                ("IPPool", "ippools", &["pool"], &["projectcalico.org/v3", "crd.projectcalico.org/v1"], false)
            }
            Self::Endpoint => ("Endpoint", "endpoints", &["ep"], &["vswitch/v1"], false),
            Self::Block => ("Block", "blocks", &[], &["vswitch/v1"], false),
        };
        Names { name, plural, short, api_versions, namespaced }
    }

    /// As `kind:` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.names().name
    }

    /// Lower case, plural: what keys in the store begin with.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        self.names().plural
    }

    /// Other names people type.
    #[must_use]
    pub const fn short_names(self) -> &'static [&'static str] {
        self.names().short
    }

    /// The `apiVersion` we write.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        self.names().api_versions[0]
    }

    /// Every `apiVersion` we read.
    #[must_use]
    pub const fn api_versions(self) -> &'static [&'static str] {
        self.names().api_versions
    }

    /// Whether objects of it live in a namespace.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        self.names().namespaced
    }

    /// Whether people may apply and delete objects of it; the others are the agent's own.
    #[must_use]
    pub const fn is_applied_by_people(self) -> bool {
        !matches!(self, Self::Endpoint | Self::Block)
    }

    /// The kind whose plural this is.
    #[must_use]
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Invalid;

    /// Takes what people type: the name, the plural or a short name, in any case.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let typed = text.to_ascii_lowercase();
        let is = |kind: &Kind| {
            kind.name().to_ascii_lowercase() == typed
                || kind.plural() == typed
                || kind.short_names().contains(&typed.as_str())
        };
        Self::ALL.iter().copied().find(is).ok_or_else(|| {
            let known = Self::ALL.iter().map(|kind| kind.plural()).collect::<Vec<_>>().join(", ");
            Invalid::new("kind", format!("\"{text}\" is not supported; supported are {known}"))
        })
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.name().to_owned()
    }
}

impl TryFrom<String> for Kind {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_kind_alone() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in Kind::ALL {
            for name in [kind.name(), kind.plural()].iter().chain(kind.short_names()) {
                assert_eq!(name.parse::<Kind>().unwrap(), *kind, "{name}");
                assert!(seen.insert(name.to_ascii_lowercase()), "{name} is used twice");
            }
        }
        assert_eq!("NetPol".parse::<Kind>().unwrap(), Kind::NetworkPolicy);
        assert!("service".parse::<Kind>().unwrap_err().problem.contains("networkpolicies"));
    }
}
