//! Policy as the engine gets it: ordered tiers of ordered policies of ordered rules over sets of identities.
//!
//! A packet that opens a flow from one identity to another is judged at each local end: the sender's egress and the
//! receiver's ingress. In one direction:
//!
//! 1. A [`Subject`] without tiers in that direction is not isolated: allowed.
//! 2. Otherwise the tiers are asked in order, in a tier its policies in order, in a policy its rules in order. The
//!    first rule that matches decides: Allow and Deny end it, Pass goes on with the next tier. Log decides nothing: it
//!    marks the flow and the next rule is asked. Of several the first is what the flow's record names.
//! 3. When no rule of a tier matched, [`TierDefault`] says whether that denies or passes. What it denies counts with the
//!    [`PolicyEnd`] of the last policy of the tier.
//! 4. After the last tier everything that passed is allowed.
//!
//! Whatever the rules say, the local node reaches its own pods, and replies belong to the flow they answer.
//!
//! That is what is in force. Policies may be staged besides ([`Standing`]), and what is staged is judged apart, as if it
//! were in force, and told, but decides nothing. In each of the two views only its policies are there, and neither is a
//! tier that holds policies of the other view alone. A tier that holds no policy at all is in both.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{IdentityId, SetId};

/// Names one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyId(pub u32);

/// Names one rule across all policies; what a verdict points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u32);

impl RuleId {
    /// The verdict of a direction that no policy isolates.
    pub const NOT_ISOLATED: Self = Self(0);
    /// The verdict of isolation when no rule matched, and of a tier whose last policy has no [`PolicyEnd`].
    pub const NO_RULE_MATCHED: Self = Self(1);
    /// The verdict for the local node.
    pub const LOCAL_NODE: Self = Self(2);
    /// The verdict of a policy that is too large for the engine: all but the local node is denied.
    pub const TOO_LARGE: Self = Self(3);
    /// What denies a pod's own tunnel packets, before policy is asked.
    pub const TUNNEL_FROM_POD: Self = Self(4);
    /// First number the agent may give out.
    pub const FIRST_ASSIGNED: u32 = 16;
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The direction allows the flow.
    Allow,
    /// The direction denies the flow.
    Deny,
    /// Go on with the next tier.
    Pass,
    /// Mark the flow, and go on with the next rule.
    Log,
}

/// Whether a policy is in force, and whether it would be if all that is staged were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// In force, with or without what is staged.
    #[default]
    Enforced,
    /// Not in force; it would be.
    Staged,
    /// In force; it would not be: what is staged removes it or takes its place.
    StagedRemoval,
}

/// A protocol and a range of its ports, or of ICMP messages, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMatch {
    /// IP protocol number. Numbers are compared for TCP (6), UDP (17), SCTP (132), ICMP (1) and ICMPv6 (58) only.
    pub protocol: u8,
    /// First port; for ICMP and ICMPv6 the type in the upper 8 bits and the code in the lower, see [`Self::message`].
    pub first: u16,
    /// Last port or message, at least `first`.
    pub last: u16,
}

impl PortMatch {
    /// An ICMP or ICMPv6 message as what is compared: the type in the upper 8 bits, the code in the lower.
    #[must_use]
    pub const fn message(kind: u8, code: u8) -> u16 {
        u16::from_be_bytes([kind, code])
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number, unique across all policies.
    pub id: RuleId,
    /// What it does.
    pub action: Action,
    /// The other end: its identity is in this set. None: any, the unknown identity included.
    pub peers: Option<SetId>,
    /// And not in this one. The unknown identity is in no set.
    pub not_peers: Option<SetId>,
    /// The pod's own end: its identity is in this set. None: every subject of the policy. It narrows a rule whose
    /// port is a name that means different numbers on different pods.
    pub subjects: Option<SetId>,
    /// And not in this one.
    pub not_subjects: Option<SetId>,
    /// Destination ports of the flow, any of them. Empty: every protocol and port.
    pub ports: Vec<PortMatch>,
    /// And its source ports, any of them. Empty: every protocol and port. Here numbers are compared for TCP, UDP and SCTP
    /// only; a range of another protocol means all of that.
    #[serde(default)]
    pub source_ports: Vec<PortMatch>,
    /// Where the rule was written, for people: `ingress rule 2, from 1, port 3`.
    pub position: String,
}

impl Rule {
    /// A rule that matches everything, to be narrowed.
    #[must_use]
    pub const fn new(id: RuleId, action: Action, position: String) -> Self {
        Self {
            id,
            action,
            peers: None,
            not_peers: None,
            subjects: None,
            not_subjects: None,
            ports: Vec::new(),
            source_ports: Vec::new(),
            position,
        }
    }
}

/// One policy, of one direction: an object that speaks of both becomes two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its number.
    pub id: PolicyId,
    /// Kind, namespace and name: `NetworkPolicy media/relay`.
    pub name: String,
    /// Whether it is in force.
    pub standing: Standing,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
    /// What comes after them. None: [`RuleId::NO_RULE_MATCHED`] stands for it.
    pub end: Option<PolicyEnd>,
}

/// The end of a policy, which denies what no rule of a tier matched, where the policy is the last of those of the tier
/// that apply and the tier's default is [`TierDefault::Deny`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEnd {
    /// Its number, unique among those of all rules.
    pub id: RuleId,
    /// For people: `ingress: no rule matched`.
    pub position: String,
}

impl Policy {
    /// Everything in it that a verdict may point at, rules and end: its number, and its place.
    pub fn places(&self) -> impl Iterator<Item = (RuleId, &str)> {
        let rules = self.rules.iter().map(|rule| (rule.id, rule.position.as_str()));
        rules.chain(self.end.iter().map(|end| (end.id, end.position.as_str())))
    }

    /// What denies where it is the last of its tier.
    #[must_use]
    pub fn denies_by(&self) -> RuleId {
        self.end.as_ref().map_or(RuleId::NO_RULE_MATCHED, |end| end.id)
    }
}

/// What a tier does with a flow that none of its rules matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TierDefault {
    /// Deny it.
    Deny,
    /// Go on with the next tier.
    Pass,
}

/// The policies of one tier that apply to a subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tier {
    /// For people: `kubernetes`, `admin`.
    pub name: String,
    /// Policies, in order.
    pub policies: Vec<PolicyId>,
    /// What follows when none of them matched.
    pub default: TierDefault,
}

/// What applies to the pods of one identity. An identity without a subject is not isolated in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Whose pods.
    pub identity: IdentityId,
    /// Tiers for flows to them. Empty: not isolated.
    pub ingress: Vec<Tier>,
    /// Tiers for flows from them. Empty: not isolated.
    pub egress: Vec<Tier>,
}
