//! A rule: what it matches and what it does then.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vswitch_model::Invalid;

use super::entity::{End, EntityRule, at_most};
use super::{MAX_RULES, Port, RuleProtocol};
use crate::object::selector::null_is_default;
use crate::object::{Labels, PolicyType};

/// A rule. It matches when all that it says holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// What it does.
    pub action: RuleAction,
    /// IPv4 (4) or IPv6 (6) alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<u8>,
    /// This protocol alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<RuleProtocol>,
    /// Every protocol but this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<RuleProtocol>,
    /// These ICMP messages alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpMatch>,
    /// Every ICMP message but these.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<IcmpMatch>,
    /// Where the flow comes from.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub source: EntityRule,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_is_default")]
    pub destination: EntityRule,
    /// Layer 7: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Value>,
    /// What people note of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

fn is_default(entity: &EntityRule) -> bool {
    *entity == EntityRule::default()
}

/// What a rule that matches does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// The flow is allowed, in this direction.
    Allow,
    /// The flow is denied.
    Deny,
    /// The flow is recorded, and the next rule asked.
    Log,
    /// The next tier is asked.
    Pass,
}

/// ICMP messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpMatch {
    /// Of this type, 0 to 254. Missing: all.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// Of this code, 0 to 255, which needs a type. Missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// What people note of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleMetadata {
    /// Names and values, of no effect.
    #[serde(default, skip_serializing_if = "Labels::is_empty", deserialize_with = "null_is_default")]
    pub annotations: Labels,
}

/// Checks the rules of one direction. `has_namespace`: of a policy that has one.
pub(super) fn check_rules(rules: &[Rule], direction: PolicyType, has_namespace: bool) -> Result<(), Invalid> {
    at_most(direction.text(), rules.len(), MAX_RULES)?;
    for (index, rule) in rules.iter().enumerate() {
        rule.validate(direction, has_namespace)
            .map_err(|e| e.within(&format!("{}[{index}]", direction.text())))?;
    }
    Ok(())
}

impl Rule {
    /// One that matches everything.
    #[must_use]
    pub fn all(action: RuleAction) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EntityRule::default(),
            destination: EntityRule::default(),
            http: None,
            metadata: None,
        }
    }

    fn validate(&self, direction: PolicyType, has_namespace: bool) -> Result<(), Invalid> {
        if self.http.is_some() {
            return Err(Invalid::new("http", "is layer 7, which is not enforced here; leave it out"));
        }
        self.validate_protocol()?;
        for (field, end, entity) in
            [("source", End::Source, &self.source), ("destination", End::Destination, &self.destination)]
        {
            entity.validate(end, has_namespace).map_err(|e| e.within(field))?;
        }
        let (field, own) = match direction {
            PolicyType::Ingress => ("destination.services", &self.destination),
            PolicyType::Egress => ("source.services", &self.source),
        };
        if own.services.is_some() {
            let problem =
                "is the policy's own end; services are for the source of ingress, the destination of egress";
            return Err(Invalid::new(field, problem));
        }
        self.validate_ports()?;
        self.validate_families()
    }

    fn validate_protocol(&self) -> Result<(), Invalid> {
        if let Some(version) = self.ip_version.filter(|version| ![4, 6].contains(version)) {
            return Err(Invalid::new("ipVersion", format!("{version} is none; 4 or 6 would be right")));
        }
        for (field, icmp) in [("icmp", self.icmp), ("notICMP", self.not_icmp)] {
            let Some(icmp) = icmp else { continue };
            if !self.protocol.is_some_and(RuleProtocol::is_icmp) {
                return Err(Invalid::new(field, "needs the protocol ICMP or ICMPv6"));
            }
            match (icmp.kind, icmp.code) {
                (None, Some(_)) => return Err(Invalid::new(format!("{field}.code"), "needs a type")),
                (Some(255), _) => {
                    return Err(Invalid::new(format!("{field}.type"), "255 is no type: 0 to 254"));
                }
                _ => {}
            }
        }
        for (field, protocol) in [("protocol", self.protocol), ("notProtocol", self.not_protocol)] {
            let needed = match protocol {
                Some(RuleProtocol::ICMP) => 4,
                Some(RuleProtocol::ICMPV6) => 6,
                _ => continue,
            };
            if let Some(version) = self.ip_version.filter(|version| *version != needed) {
                return Err(Invalid::new(field, format!("is of IPv{needed}, but ipVersion is {version}")));
            }
        }
        Ok(())
    }

    fn validate_ports(&self) -> Result<(), Invalid> {
        let Self { protocol, source, destination, .. } = self;
        for (field, ports) in [
            ("source.ports", &source.ports),
            ("source.notPorts", &source.not_ports),
            ("destination.ports", &destination.ports),
            ("destination.notPorts", &destination.not_ports),
        ] {
            let numbered = ports.iter().any(|port| matches!(port, Port::Range(..)));
            let problem = match protocol {
                None if numbered => "needs a protocol: TCP, UDP or SCTP".to_owned(),
                Some(protocol) if !ports.is_empty() && !protocol.has_ports() => {
                    format!("needs the protocol TCP, UDP or SCTP; {protocol} has no ports")
                }
                _ => continue,
            };
            return Err(Invalid::new(field, problem));
        }
        Ok(())
    }

    /// No flow has ends of two families, so ranges of both could match none.
    fn validate_families(&self) -> Result<(), Invalid> {
        let mut family = self.ip_version.map(|version| (version == 4, "ipVersion".to_owned()));
        for (end, entity) in [("source", &self.source), ("destination", &self.destination)] {
            for (list, nets) in [("nets", &entity.nets), ("notNets", &entity.not_nets)] {
                for (index, net) in nets.iter().enumerate() {
                    let (is_four, field) = (matches!(net, IpNet::V4(_)), format!("{end}.{list}[{index}]"));
                    match &family {
                        Some((four, first)) if *four != is_four => {
                            let problem = format!("{net} is not of the family of {first}; make it two rules");
                            return Err(Invalid::new(field, problem));
                        }
                        Some(_) => {}
                        None => family = Some((is_four, format!("{net} in {end}.{list}"))),
                    }
                }
            }
        }
        Ok(())
    }
}
