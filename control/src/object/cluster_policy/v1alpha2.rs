//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::super::network_policy::check_port_name;
use super::{
    ClusterAction, ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, ClusterSubject, ClusterTier,
    EgressPeer, IngressPeer, check_count, check_egress_peers, check_ingress_peers, check_one, check_port,
    check_priority, check_rule_name, checked, null_is_default,
};
use crate::object::{ObjectMeta, PolicyType, Protocol};

/// Most rules of a direction, and most peers or protocols of a rule.
const ENTRIES_MAX: usize = 25;

/// A ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNetworkPolicy {
    /// Its name.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: ClusterNetworkPolicySpec,
}

/// What a ClusterNetworkPolicy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNetworkPolicySpec {
    /// Before the policies of namespaces, or after them.
    pub tier: ClusterTier,
    /// 0 to 1000; lower is asked first.
    pub priority: i64,
    /// The pods it is for.
    pub subject: ClusterSubject,
    /// Rules for what comes in, in their order; at most 25.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<ClusterIngressRule>,
    /// Rules for what goes out, in their order; at most 25.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<ClusterEgressRule>,
}

/// One ingress rule: any of the peers, at any of the ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIngressRule {
    /// What its author calls it, at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// What it does.
    pub action: ClusterAction,
    /// Who sends; 1 to 25.
    pub from: Vec<IngressPeer>,
    /// Ports at the selected pods, at most 25. Missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// One egress rule: any of the peers, at any of the ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterEgressRule {
    /// What its author calls it, at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// What it does.
    pub action: ClusterAction,
    /// Who is sent to; 1 to 25.
    pub to: Vec<EgressPeer>,
    /// Ports at the peers, at most 25. Missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// Ports of one protocol, or a port's name: exactly one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterProtocol {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ProtocolMatch>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<ProtocolMatch>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ProtocolMatch>,
    /// The port a container of the destination pod calls so, of whatever protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// What is asked of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtocolMatch {
    /// The port.
    pub destination_port: DestinationPort,
}

/// One port or a range: exactly one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationPort {
    /// 1 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Both ends included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortRange>,
}

/// A range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// Its first, 1 to 65535.
    pub start: i64,
    /// Its last, above the first.
    pub end: i64,
}

impl ClusterNetworkPolicy {
    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        self.spec.validate().map_err(|e| e.within("spec"))
    }
}

impl ClusterPolicy for ClusterNetworkPolicy {
    fn tier(&self) -> ClusterTier {
        self.spec.tier
    }

    fn priority(&self) -> Option<u16> {
        Some(checked(self.spec.priority))
    }

    fn subject(&self) -> ClusterPeer<'_> {
        self.spec.subject.meant()
    }

    fn rules(&self, direction: PolicyType) -> Vec<ClusterRule<'_>> {
        match direction {
            PolicyType::Ingress => self.spec.ingress.iter().map(ClusterIngressRule::meant).collect(),
            PolicyType::Egress => self.spec.egress.iter().map(ClusterEgressRule::meant).collect(),
        }
    }
}

impl ClusterNetworkPolicySpec {
    fn validate(&self) -> Result<(), Invalid> {
        check_priority(self.priority)?;
        self.subject.validate().map_err(|e| e.within("subject"))?;
        check_count("ingress", self.ingress.len(), 0, ENTRIES_MAX)?;
        check_count("egress", self.egress.len(), 0, ENTRIES_MAX)?;
        for (index, rule) in self.ingress.iter().enumerate() {
            rule.validate().map_err(|e| e.within(&format!("ingress[{index}]")))?;
        }
        for (index, rule) in self.egress.iter().enumerate() {
            rule.validate().map_err(|e| e.within(&format!("egress[{index}]")))?;
        }
        Ok(())
    }
}

impl ClusterIngressRule {
    fn validate(&self) -> Result<(), Invalid> {
        check_rule_name(&self.name)?;
        check_protocols(self.protocols.as_deref())?;
        check_ingress_peers(&self.from, ENTRIES_MAX)
    }

    fn meant(&self) -> ClusterRule<'_> {
        ClusterRule {
            name: &self.name,
            action: self.action,
            peers: self.from.iter().map(IngressPeer::meant).collect(),
            ports: ports(self.protocols.as_deref()),
        }
    }
}

impl ClusterEgressRule {
    fn validate(&self) -> Result<(), Invalid> {
        check_rule_name(&self.name)?;
        check_protocols(self.protocols.as_deref())?;
        let asks_port_name =
            self.protocols.iter().flatten().any(|protocol| protocol.destination_named_port.is_some());
        let no_domain_names = (self.action != ClusterAction::Accept)
            .then_some("may only be accepted: the action must be Accept");
        check_egress_peers(&self.to, ENTRIES_MAX, asks_port_name, no_domain_names)
    }

    fn meant(&self) -> ClusterRule<'_> {
        ClusterRule {
            name: &self.name,
            action: self.action,
            peers: self.to.iter().map(EgressPeer::meant).collect(),
            ports: ports(self.protocols.as_deref()),
        }
    }
}

fn check_protocols(protocols: Option<&[ClusterProtocol]>) -> Result<(), Invalid> {
    let Some(protocols) = protocols else { return Ok(()) };
    check_count("protocols", protocols.len(), 1, ENTRIES_MAX)?;
    for (index, protocol) in protocols.iter().enumerate() {
        protocol.validate().map_err(|e| e.within(&format!("protocols[{index}]")))?;
    }
    Ok(())
}

fn ports(protocols: Option<&[ClusterProtocol]>) -> Vec<ClusterPort<'_>> {
    protocols.into_iter().flatten().map(ClusterProtocol::meant).collect()
}

impl ClusterProtocol {
    /// The protocol asked for, when it is not by a port's name.
    fn by_number(&self) -> Option<(&'static str, Protocol, &ProtocolMatch)> {
        [
            ("tcp", Protocol::Tcp, &self.tcp),
            ("udp", Protocol::Udp, &self.udp),
            ("sctp", Protocol::Sctp, &self.sctp),
        ]
        .into_iter()
        .find_map(|(field, protocol, asked)| Some((field, protocol, asked.as_ref()?)))
    }

    fn validate(&self) -> Result<(), Invalid> {
        check_one(&[
            ("tcp", self.tcp.is_some()),
            ("udp", self.udp.is_some()),
            ("sctp", self.sctp.is_some()),
            ("destinationNamedPort", self.destination_named_port.is_some()),
        ])?;
        if let Some(name) = &self.destination_named_port {
            return check_port_name(name).map_err(|p| Invalid::new("destinationNamedPort", p));
        }
        let Some((field, _, asked)) = self.by_number() else { return Ok(()) };
        asked.destination_port.validate().map_err(|e| e.within(&format!("{field}.destinationPort")))
    }

    fn meant(&self) -> ClusterPort<'_> {
        match (self.by_number(), &self.destination_named_port) {
            (Some((_, protocol, asked)), _) => {
                let (first, last) = asked.destination_port.meant();
                ClusterPort::Range(protocol, first, last)
            }
            (None, name) => ClusterPort::Name(name.as_deref().unwrap_or_default()),
        }
    }
}

impl DestinationPort {
    fn validate(&self) -> Result<(), Invalid> {
        check_one(&[("number", self.number.is_some()), ("range", self.range.is_some())])?;
        if let Some(number) = self.number {
            check_port("number", number)?;
        }
        let Some(PortRange { start, end }) = self.range else { return Ok(()) };
        check_port("range.start", start)?;
        check_port("range.end", end)?;
        if start < end {
            return Ok(());
        }
        Err(Invalid::new("range.end", format!("{end} is not above start {start}; number is for one port")))
    }

    /// First and last.
    fn meant(&self) -> (u16, u16) {
        let range = self.range.map(|range| (range.start, range.end));
        let (first, last) =
            range.or(self.number.map(|number| (number, number))).expect("checked when the object was read");
        (checked(first), checked(last))
    }
}
