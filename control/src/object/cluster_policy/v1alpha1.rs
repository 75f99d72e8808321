//! `policy.networking.k8s.io/v1alpha1`: AdminNetworkPolicy and BaselineAdminNetworkPolicy, the older spellings.

use serde::{Deserialize, Serialize};
use vswitch_model::Invalid;

use super::super::network_policy::check_port_name;
use super::{
    ClusterAction, ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, ClusterSubject, ClusterTier,
    EgressPeer, IngressPeer, check_count, check_egress_peers, check_ingress_peers, check_one, check_port,
    check_priority, check_rule_name, checked, null_is_default,
};
use crate::object::{ObjectMeta, PolicyType, Protocol};

/// Most rules of a direction, and most peers or ports of a rule.
const ENTRIES_MAX: usize = 100;
/// There is one baseline, and this is its name.
const BASELINE_NAME: &str = "default";

/// An AdminNetworkPolicy: the Admin tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminNetworkPolicy {
    /// Its name.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: AdminNetworkPolicySpec,
}

/// What an AdminNetworkPolicy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminNetworkPolicySpec {
    /// 0 to 1000; lower is asked first.
    pub priority: i64,
    /// The pods it is for.
    pub subject: ClusterSubject,
    /// Rules for what comes in, in their order; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<AdminIngressRule>,
    /// Rules for what goes out, in their order; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<AdminEgressRule>,
}

/// The BaselineAdminNetworkPolicy, named `default`: the Baseline tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineAdminNetworkPolicy {
    /// Its name, `default`.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: BaselineAdminNetworkPolicySpec,
}

/// What a BaselineAdminNetworkPolicy says. No rule of it passes, and none names domains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineAdminNetworkPolicySpec {
    /// The pods it is for.
    pub subject: ClusterSubject,
    /// Rules for what comes in, in their order; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub ingress: Vec<AdminIngressRule>,
    /// Rules for what goes out, in their order; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress: Vec<AdminEgressRule>,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAction {
    /// Lets it through, past all further policy of this direction.
    Allow,
    /// Drops it.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

/// One ingress rule: any of the peers, at any of the ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminIngressRule {
    /// What its author calls it, at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// What it does.
    pub action: AdminAction,
    /// Who sends; 1 to 100.
    pub from: Vec<IngressPeer>,
    /// Ports at the selected pods, at most 100. Missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<AdminPort>>,
}

/// One egress rule: any of the peers, at any of the ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminEgressRule {
    /// What its author calls it, at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// What it does.
    pub action: AdminAction,
    /// Who is sent to; 1 to 100.
    pub to: Vec<EgressPeer>,
    /// Ports at the peers, at most 100. Missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<AdminPort>>,
}

/// A port, a range or a name: exactly one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminPort {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_number: Option<NumberedPort>,
    /// The port a container of the destination pod calls so, of whatever protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_port: Option<String>,
    /// Ports from one number to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range: Option<PortSpan>,
}

/// One port of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberedPort {
    /// The protocol.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: i64,
}

/// A range of ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpan {
    /// The protocol.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: Protocol,
    /// Its first, 1 to 65535.
    pub start: i64,
    /// Its last, not below the first.
    pub end: i64,
}

impl AdminNetworkPolicy {
    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        let AdminNetworkPolicySpec { priority, subject, ingress, egress } = &self.spec;
        check_priority(*priority)
            .and_then(|()| check(ClusterTier::Admin, subject, ingress, egress))
            .map_err(|e| e.within("spec"))
    }
}

impl BaselineAdminNetworkPolicy {
    pub(in crate::object) fn validate(&self) -> Result<(), Invalid> {
        if self.metadata.name != BASELINE_NAME {
            let problem = format!("there is one baseline, and it is called {BASELINE_NAME}");
            return Err(Invalid::new("metadata.name", problem));
        }
        let BaselineAdminNetworkPolicySpec { subject, ingress, egress } = &self.spec;
        check(ClusterTier::Baseline, subject, ingress, egress).map_err(|e| e.within("spec"))
    }
}

impl ClusterPolicy for AdminNetworkPolicy {
    fn tier(&self) -> ClusterTier {
        ClusterTier::Admin
    }

    fn priority(&self) -> Option<u16> {
        Some(checked(self.spec.priority))
    }

    fn subject(&self) -> ClusterPeer<'_> {
        self.spec.subject.meant()
    }

    fn rules(&self, direction: PolicyType) -> Vec<ClusterRule<'_>> {
        rules(direction, &self.spec.ingress, &self.spec.egress)
    }
}

impl ClusterPolicy for BaselineAdminNetworkPolicy {
    fn tier(&self) -> ClusterTier {
        ClusterTier::Baseline
    }

    fn priority(&self) -> Option<u16> {
        None
    }

    fn subject(&self) -> ClusterPeer<'_> {
        self.spec.subject.meant()
    }

    fn rules(&self, direction: PolicyType) -> Vec<ClusterRule<'_>> {
        rules(direction, &self.spec.ingress, &self.spec.egress)
    }
}

fn check(
    tier: ClusterTier,
    subject: &ClusterSubject,
    ingress: &[AdminIngressRule],
    egress: &[AdminEgressRule],
) -> Result<(), Invalid> {
    subject.validate().map_err(|e| e.within("subject"))?;
    check_count("ingress", ingress.len(), 0, ENTRIES_MAX)?;
    check_count("egress", egress.len(), 0, ENTRIES_MAX)?;
    for (index, rule) in ingress.iter().enumerate() {
        rule.validate(tier).map_err(|e| e.within(&format!("ingress[{index}]")))?;
    }
    for (index, rule) in egress.iter().enumerate() {
        rule.validate(tier).map_err(|e| e.within(&format!("egress[{index}]")))?;
    }
    Ok(())
}

fn rules<'a>(
    direction: PolicyType,
    ingress: &'a [AdminIngressRule],
    egress: &'a [AdminEgressRule],
) -> Vec<ClusterRule<'a>> {
    match direction {
        PolicyType::Ingress => ingress.iter().map(AdminIngressRule::meant).collect(),
        PolicyType::Egress => egress.iter().map(AdminEgressRule::meant).collect(),
    }
}

impl AdminAction {
    const fn meant(self) -> ClusterAction {
        match self {
            Self::Allow => ClusterAction::Accept,
            Self::Deny => ClusterAction::Deny,
            Self::Pass => ClusterAction::Pass,
        }
    }

    fn validate(self, tier: ClusterTier) -> Result<(), Invalid> {
        match (self, tier) {
            (Self::Pass, ClusterTier::Baseline) => {
                Err(Invalid::new("action", "there is nothing to pass to after the baseline: Allow or Deny"))
            }
            _ => Ok(()),
        }
    }
}

impl AdminIngressRule {
    fn validate(&self, tier: ClusterTier) -> Result<(), Invalid> {
        check_rule_name(&self.name)?;
        self.action.validate(tier)?;
        check_ports(self.ports.as_deref())?;
        check_ingress_peers(&self.from, ENTRIES_MAX)
    }

    fn meant(&self) -> ClusterRule<'_> {
        ClusterRule {
            name: &self.name,
            action: self.action.meant(),
            peers: self.from.iter().map(IngressPeer::meant).collect(),
            ports: self.ports.iter().flatten().map(AdminPort::meant).collect(),
        }
    }
}

impl AdminEgressRule {
    fn validate(&self, tier: ClusterTier) -> Result<(), Invalid> {
        check_rule_name(&self.name)?;
        self.action.validate(tier)?;
        check_ports(self.ports.as_deref())?;
        let asks_port_name = self.ports.iter().flatten().any(|port| port.named_port.is_some());
        let no_domain_names = match (tier, self.action) {
            (ClusterTier::Baseline, _) => Some("not for a baseline"),
            (ClusterTier::Admin, AdminAction::Allow) => None,
            (ClusterTier::Admin, _) => Some("may only be allowed: the action must be Allow"),
        };
        check_egress_peers(&self.to, ENTRIES_MAX, asks_port_name, no_domain_names)
    }

    fn meant(&self) -> ClusterRule<'_> {
        ClusterRule {
            name: &self.name,
            action: self.action.meant(),
            peers: self.to.iter().map(EgressPeer::meant).collect(),
            ports: self.ports.iter().flatten().map(AdminPort::meant).collect(),
        }
    }
}

fn check_ports(ports: Option<&[AdminPort]>) -> Result<(), Invalid> {
    let Some(ports) = ports else { return Ok(()) };
    check_count("ports", ports.len(), 1, ENTRIES_MAX)?;
    for (index, port) in ports.iter().enumerate() {
        port.validate().map_err(|e| e.within(&format!("ports[{index}]")))?;
    }
    Ok(())
}

impl AdminPort {
    fn validate(&self) -> Result<(), Invalid> {
        check_one(&[
            ("portNumber", self.port_number.is_some()),
            ("namedPort", self.named_port.is_some()),
            ("portRange", self.port_range.is_some()),
        ])?;
        if let Some(one) = &self.port_number {
            check_port("portNumber.port", one.port)?;
        }
        if let Some(name) = &self.named_port {
            check_port_name(name).map_err(|p| Invalid::new("namedPort", p))?;
        }
        let Some(PortSpan { start, end, .. }) = self.port_range else { return Ok(()) };
        check_port("portRange.start", start)?;
        check_port("portRange.end", end)?;
        if start <= end {
            return Ok(());
        }
        Err(Invalid::new("portRange.end", format!("{end} is below start {start}")))
    }

    fn meant(&self) -> ClusterPort<'_> {
        if let Some(one) = &self.port_number {
            return ClusterPort::Range(one.protocol, checked(one.port), checked(one.port));
        }
        match &self.port_range {
            Some(span) => ClusterPort::Range(span.protocol, checked(span.start), checked(span.end)),
            None => ClusterPort::Name(self.named_port.as_deref().unwrap_or_default()),
        }
    }
}
