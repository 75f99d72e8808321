//! Policy as the engine gets it: ordered tiers of ordered policies of ordered rules over sets of identities.
//!
//! A packet that opens a flow from one identity to another is judged at each local end: the sender's egress and the
//! receiver's ingress. In one direction:
//!
//! 1. A [`Subject`] without tiers in that direction is not isolated: allowed.
//! 2. Otherwise the tiers are asked in order, in a tier its policies in order, in a policy its rules in order. The
//!    first rule that matches decides: Allow and Deny end it, Pass goes on with the next tier.
//! 3. When no rule of a tier matched, [`TierDefault`] says whether that denies or passes.
//! 4. After the last tier everything that passed is allowed.
//!
//! Whatever the rules say, the local node reaches its own pods, and replies belong to the flow they answer.

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
    /// The verdict of isolation when no rule matched.
    pub const NO_RULE_MATCHED: Self = Self(1);
    /// The verdict for the local node.
    pub const LOCAL_NODE: Self = Self(2);
    /// The verdict of a policy that is too large for the engine: all but the local node is denied.
    pub const TOO_LARGE: Self = Self(3);
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
}

/// A protocol and a range of destination ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMatch {
    /// IP protocol number. Ports are compared for TCP (6), UDP (17) and SCTP (132) only.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, at least `first`.
    pub last: u16,
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
    /// The pod's own end: its identity is in this set. None: every subject of the policy. It narrows a rule whose
    /// port is a name that means different numbers on different pods.
    pub subjects: Option<SetId>,
    /// Destination ports of the flow, any of them. Empty: every protocol and port.
    pub ports: Vec<PortMatch>,
    /// Where the rule was written, for people: `ingress rule 2, from 1, port 3`.
    pub position: String,
}

/// One policy, of one direction: an object that speaks of both becomes two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its number.
    pub id: PolicyId,
    /// Kind, namespace and name: `NetworkPolicy media/relay`.
    pub name: String,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
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
