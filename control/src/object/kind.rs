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
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    BaselineAdminNetworkPolicy,
    /// `v1`.
    ServiceAccount,
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `projectcalico.org/v3`.
    IpPool,
    /// `projectcalico.org/v3`. Its name is also that of Kubernetes' own.
    CalicoNetworkPolicy,
    /// `projectcalico.org/v3`.
    GlobalNetworkPolicy,
    /// `projectcalico.org/v3`.
    Tier,
    /// `projectcalico.org/v3`.
    NetworkSet,
    /// `projectcalico.org/v3`.
    GlobalNetworkSet,
    /// `projectcalico.org/v3`.
    Profile,
    /// `projectcalico.org/v3`.
    StagedNetworkPolicy,
    /// `projectcalico.org/v3`.
    StagedGlobalNetworkPolicy,
    /// `projectcalico.org/v3`.
    StagedKubernetesNetworkPolicy,
    /// `vswitch/v1`: a pod's attachment.
    Endpoint,
    /// `vswitch/v1`: a range of addresses that belongs to a node.
    Block,
}

/// Calico's: the one of its API, and the one its own storage in Kubernetes had.
const CALICO: &[&str] = &["projectcalico.org/v3", "crd.projectcalico.org/v1"];

/// Our own. What agents of every version read is written. A group has a dot in Kubernetes, and `.internal` is nobody's: an
/// API server has them by the other.
const OWN: &[&str] = &["vswitch/v1", "vswitch.internal/v1"];

struct Names {
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// The one we write first, then others we read.
    api_versions: &'static [&'static str],
    namespaced: bool,
}

const CLUSTER_POLICY_NEW: &[&str] = &["policy.networking.k8s.io/v1alpha2"];
const CLUSTER_POLICY_OLD: &[&str] = &["policy.networking.k8s.io/v1alpha1"];

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All kinds, in the order in which a manifest that holds several is best applied.
    pub const ALL: &'static [Self] = &[
        Self::Namespace,
        Self::Node,
        Self::IpPool,
        Self::ServiceAccount,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::Tier,
        Self::NetworkSet,
        Self::GlobalNetworkSet,
        Self::Profile,
        Self::CalicoNetworkPolicy,
        Self::GlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
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
            Self::ClusterNetworkPolicy => {
                ("ClusterNetworkPolicy", "clusternetworkpolicies", &["cnp"], CLUSTER_POLICY_NEW, false)
            }
            Self::AdminNetworkPolicy => {
                ("AdminNetworkPolicy", "adminnetworkpolicies", &["anp"], CLUSTER_POLICY_OLD, false)
            }
            Self::BaselineAdminNetworkPolicy => {
                let (name, plural) = ("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies");
                (name, plural, &["banp"], CLUSTER_POLICY_OLD, false)
            }
            Self::ServiceAccount => ("ServiceAccount", "serviceaccounts", &["sa"], &["v1"], true),
            Self::Service => ("Service", "services", &["svc"], &["v1"], true),
            Self::EndpointSlice => ("EndpointSlice", "endpointslices", &[], &["discovery.k8s.io/v1"], true),
            Self::IpPool => ("IPPool", "ippools", &["pool"], CALICO, false),
            Self::CalicoNetworkPolicy => {
                let short = &["caliconetworkpolicy", "caliconetworkpolicies"];
                ("NetworkPolicy", "networkpolicies.projectcalico.org", short, CALICO, true)
            }
            Self::GlobalNetworkPolicy => {
                ("GlobalNetworkPolicy", "globalnetworkpolicies", &["gnp", "cgnp"], CALICO, false)
            }
            Self::Tier => ("Tier", "tiers", &[], CALICO, false),
            Self::NetworkSet => ("NetworkSet", "networksets", &["netset", "netsets"], CALICO, true),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets", &["gns"], CALICO, false),
            Self::Profile => ("Profile", "profiles", &[], CALICO, false),
            Self::StagedNetworkPolicy => {
                ("StagedNetworkPolicy", "stagednetworkpolicies", &["snp", "scnp"], CALICO, true)
            }
            Self::StagedGlobalNetworkPolicy => {
                ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", &["sgnp"], CALICO, false)
            }
            Self::StagedKubernetesNetworkPolicy => {
                ("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", &["sknp"], CALICO, true)
            }
            Self::Endpoint => ("Endpoint", "endpoints", &["ep"], OWN, false),
            Self::Block => ("Block", "blocks", &[], OWN, false),
        };
        Names { name, plural, short, api_versions, namespaced }
    }

    /// As `kind:` has it. Calico's NetworkPolicy and Kubernetes' have the same; `apiVersion` tells them apart, and the
    /// text of a kind ([`fmt::Display`]).
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

    /// The `apiVersion` we write, but to an API server.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        self.names().api_versions[0]
    }

    /// The `apiVersion` by which an API server has it.
    #[must_use]
    pub const fn served_version(self) -> &'static str {
        match self {
            Self::Endpoint | Self::Block => OWN[1],
            _ => self.api_version(),
        }
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

    /// Why objects of it must not be applied, though they can be read: nothing enforces what they say yet.
    #[must_use]
    pub const fn unenforced(self) -> Option<&'static str> {
        match self {
            Self::Service => {
                Some("services are not implemented yet; policies refer to them by EndpointSlices")
            }
            _ => None,
        }
    }

    /// Whether it is `policy.networking.k8s.io`'s: a policy of the whole cluster, none of whose fields could say that it
    /// denies everything.
    #[must_use]
    pub const fn is_cluster_policy(self) -> bool {
        matches!(
            self,
            Self::ClusterNetworkPolicy | Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy
        )
    }

    /// Whether `status` in a manifest is something that only a server writes, and says nothing to us.
    pub(super) const fn has_servers_status(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::AdminNetworkPolicy
                | Self::BaselineAdminNetworkPolicy
                | Self::Tier
        )
    }

    /// The kind whose plural this is.
    #[must_use]
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    /// Its name, in full where another kind has the same: `NetworkPolicy.projectcalico.org`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CalicoNetworkPolicy => "NetworkPolicy.projectcalico.org",
            other => other.name(),
        })
    }
}

impl FromStr for Kind {
    type Err = Invalid;

    /// Takes what people type: the name, the plural or a short name, in any case.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let typed = text.to_ascii_lowercase();
        let is = |kind: &Kind| {
            kind.to_string().to_ascii_lowercase() == typed
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
        kind.to_string()
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
            let names = [kind.to_string(), kind.plural().to_owned()].map(|name| name.to_ascii_lowercase());
            for name in names.into_iter().chain(kind.short_names().iter().map(|name| (*name).to_owned())) {
                assert_eq!(name.parse::<Kind>().unwrap(), *kind, "{name}");
                assert!(seen.insert(name.clone()), "{name} is used twice");
            }
        }
        for kind in Kind::ALL {
            let group = kind.served_version().rsplit_once('/').map_or("", |(group, _)| group);
            assert!(group.is_empty() || group.contains('.'), "no API server has {group}");
            assert!(kind.api_versions().contains(&kind.served_version()), "{kind}");
        }
        assert_eq!("NetPol".parse::<Kind>().unwrap(), Kind::NetworkPolicy);
        assert!("deployment".parse::<Kind>().unwrap_err().problem.contains("networkpolicies"));
        assert_eq!("networkpolicy.projectcalico.org".parse::<Kind>().unwrap(), Kind::CalicoNetworkPolicy);
    }
}
