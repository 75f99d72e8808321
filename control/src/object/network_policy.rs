//! `networking.k8s.io/v1` NetworkPolicy, whole.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::ranges::check_range;
use super::selector::null_is_default;
use super::{LabelSelector, ObjectMeta};

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: NetworkPolicySpec,
}

/// What a NetworkPolicy says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicySpec {
    /// The pods of its namespace it isolates. Empty: all of them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub pod_selector: LabelSelector,
    /// Directions it isolates. Missing or empty: ingress, and egress when there is an egress rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub policy_types: Vec<PolicyType>,
    /// What may come in.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<EgressRule>,
}

/// One ingress rule: any of the peers, at any of the ports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// Ports at the selected pods. Missing or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ports: Vec<NetworkPolicyPort>,
    /// Who may come. Missing or empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub from: Vec<NetworkPolicyPeer>,
}

/// One egress rule: any of the peers, at any of the ports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Ports at the peers. Missing or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ports: Vec<NetworkPolicyPort>,
    /// Where to. Missing or empty: everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub to: Vec<NetworkPolicyPeer>,
}

/// A rule of either direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RuleView<'a> {
    /// Ports at the destination. Empty: all.
    pub ports: &'a [NetworkPolicyPort],
    /// The other end. Empty: everybody.
    pub peers: &'a [NetworkPolicyPeer],
}

/// A direction, as a policy isolates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyType {
    /// To the selected pods.
    Ingress,
    /// From the selected pods.
    Egress,
}

impl PolicyType {
    /// Both, ingress first.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Lower case: `ingress`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// What the list of peers is called: `from` or `to`.
    #[must_use]
    pub const fn peers_field(self) -> &'static str {
        match self {
            Self::Ingress => "from",
            Self::Egress => "to",
        }
    }
}

/// One peer: a block of addresses, or pods by their labels and those of their namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicyPeer {
    /// Which pods. Missing: all of the selected namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Which namespaces. Missing: the policy's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Which addresses, instead of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A block of addresses without some of it. Bits beyond a length are of no effect, as upstream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The block.
    pub cidr: IpNet,
    /// What is not meant; each lies strictly within the block.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub except: Vec<IpNet>,
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicyPort {
    /// The protocol.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: Protocol,
    /// Number or name. Missing: every port of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// Last number of a range that begins at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i64>,
}

/// A port as manifests have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    String(String),
}

/// What a checked [`NetworkPolicyPort`] asks of the destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyPort<'a> {
    /// A number in this range, both ends included.
    Range(u16, u16),
    /// The number the destination pod gives this name.
    Name(&'a str),
}

/// A transport protocol policies can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Protocol number 6.
    #[default]
    Tcp,
    /// Protocol number 17.
    Udp,
    /// Protocol number 132.
    Sctp,
}

impl Protocol {
    /// Its number in IP headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl Serialize for IntOrString {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::String(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number 1 to 65535 or a port's name")
            }

            fn visit_i64<E>(self, number: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<IntOrString, E> {
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
                i64::try_from(number).map(IntOrString::Int).map_err(wrong)
            }

            fn visit_str<E>(self, name: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl IpBlock {
    /// Whether it means `address`.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|except| except.contains(&address))
    }

    fn validate(&self) -> Result<(), Invalid> {
        check_range(self.cidr).map_err(|problem| Invalid::new("cidr", problem))?;
        let cidr = self.cidr.trunc();
        for (index, except) in self.except.iter().enumerate() {
            let field = || format!("except[{index}]");
            check_range(*except).map_err(|problem| Invalid::new(field(), problem))?;
            let except = except.trunc();
            if !cidr.contains(&except) || cidr == except {
                return Err(Invalid::new(field(), format!("{except} does not lie strictly within {cidr}")));
            }
        }
        Ok(())
    }
}

impl NetworkPolicyPort {
    /// What it asks of the destination port.
    #[must_use]
    pub fn wanted(&self) -> PolicyPort<'_> {
        let number = |n: i64| u16::try_from(n).expect("checked when the object was read");
        match &self.port {
            None => PolicyPort::Range(0, u16::MAX),
            Some(IntOrString::Int(first)) => {
                PolicyPort::Range(number(*first), number(self.end_port.unwrap_or(*first)))
            }
            Some(IntOrString::String(name)) => PolicyPort::Name(name),
        }
    }

    fn validate(&self) -> Result<(), Invalid> {
        let check = |field: &str, n: i64| {
            let wrong = || Invalid::new(field, format!("{n} is not a port: 1 to 65535"));
            if (1..=65535).contains(&n) { Ok(()) } else { Err(wrong()) }
        };
        match (&self.port, self.end_port) {
            (Some(IntOrString::Int(first)), end) => {
                check("port", *first)?;
                if let Some(end) = end {
                    check("endPort", end)?;
                    if end < *first {
                        return Err(Invalid::new("endPort", format!("{end} is below port {first}")));
                    }
                }
                Ok(())
            }
            (_, Some(_)) => Err(Invalid::new("endPort", "needs a port that is a number")),
            (Some(IntOrString::String(name)), None) => {
                check_port_name(name).map_err(|p| Invalid::new("port", p))
            }
            (None, None) => Ok(()),
        }
    }
}

impl NetworkPolicyPeer {
    fn validate(&self) -> Result<(), Invalid> {
        match (&self.ip_block, self.pod_selector.is_some() || self.namespace_selector.is_some()) {
            (Some(_), true) => {
                Err(Invalid::new("ipBlock", "cannot stand beside podSelector or namespaceSelector"))
            }
            (None, false) => {
                Err(Invalid::new("", "names no peer: podSelector, namespaceSelector or ipBlock is needed"))
            }
            (Some(block), false) => block.validate().map_err(|e| e.within("ipBlock")),
            (None, true) => {
                for (field, selector) in
                    [("podSelector", &self.pod_selector), ("namespaceSelector", &self.namespace_selector)]
                {
                    selector.as_ref().map_or(Ok(()), LabelSelector::validate).map_err(|e| e.within(field))?;
                }
                Ok(())
            }
        }
    }
}

impl NetworkPolicy {
    /// A policy that isolates every pod of a namespace and allows nothing: what stands in for one that cannot be
    /// read.
    #[must_use]
    pub fn closed(namespace: &str, name: &str) -> Self {
        let spec =
            NetworkPolicySpec { policy_types: PolicyType::ALL.to_vec(), ..NetworkPolicySpec::default() };
        Self { metadata: ObjectMeta::namespaced(namespace, name), spec }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Whether it isolates the pods it selects in this direction.
    #[must_use]
    pub fn isolates(&self, direction: PolicyType) -> bool {
        match (self.spec.policy_types.as_slice(), direction) {
            ([], PolicyType::Ingress) => true,
            ([], PolicyType::Egress) => !self.spec.egress.is_empty(),
            (types, direction) => types.contains(&direction),
        }
    }

    /// Its rules for a direction it isolates; none for the other.
    #[must_use]
    pub fn rules(&self, direction: PolicyType) -> Vec<RuleView<'_>> {
        if !self.isolates(direction) {
            return Vec::new();
        }
        match direction {
            PolicyType::Ingress => self
                .spec
                .ingress
                .iter()
                .map(|rule| RuleView { ports: &rule.ports, peers: &rule.from })
                .collect(),
            PolicyType::Egress => {
                self.spec.egress.iter().map(|rule| RuleView { ports: &rule.ports, peers: &rule.to }).collect()
            }
        }
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let spec = &self.spec;
        spec.pod_selector.validate().map_err(|e| e.within("spec.podSelector"))?;
        if spec.policy_types.len() > 2 {
            return Err(Invalid::new("spec.policyTypes", "at most two: Ingress and Egress"));
        }
        for (index, rule) in spec.ingress.iter().enumerate() {
            check_rule(PolicyType::Ingress, &rule.ports, &rule.from)
                .map_err(|e| e.within(&format!("spec.ingress[{index}]")))?;
        }
        for (index, rule) in spec.egress.iter().enumerate() {
            check_rule(PolicyType::Egress, &rule.ports, &rule.to)
                .map_err(|e| e.within(&format!("spec.egress[{index}]")))?;
        }
        Ok(())
    }
}

fn check_rule(
    direction: PolicyType,
    ports: &[NetworkPolicyPort],
    peers: &[NetworkPolicyPeer],
) -> Result<(), Invalid> {
    for (index, port) in ports.iter().enumerate() {
        port.validate().map_err(|e| e.within(&format!("ports[{index}]")))?;
    }
    for (index, peer) in peers.iter().enumerate() {
        peer.validate().map_err(|e| e.within(&format!("{}[{index}]", direction.peers_field())))?;
    }
    Ok(())
}

/// An IANA service name (RFC 6335, section 5.1).
pub(super) fn check_port_name(name: &str) -> Result<(), String> {
    let word = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    let hyphens = name.starts_with('-') || name.ends_with('-') || name.contains("--");
    if (1..=15).contains(&name.len()) && word && !hyphens && name.bytes().any(|c| c.is_ascii_lowercase()) {
        Ok(())
    } else {
        Err(format!(
            "\"{name}\" is neither a port number nor a port's name: 1 to 15 lower case letters, digits and single '-' \
             inside, at least one letter"
        ))
    }
}
