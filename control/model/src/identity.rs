//! Identities: numbers that stand for "everything with these labels" or "everything in this CIDR".
//!
//! The agent gives one number to all addresses that no policy can tell apart. The FIB leaf of an address holds its
//! identity, so policy never looks at an address.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one identity. Dense, so that the engine can index arrays by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityId(pub u32);

impl IdentityId {
    /// An address nobody has described. It is denied by every pod that has a policy, and is what an address has
    /// before the agent has spoken.
    pub const UNKNOWN: Self = Self(0);
    /// First number the agent may give out.
    pub const FIRST_ASSIGNED: u32 = 16;
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of thing an identity stands for. Only [`IdentityKind::LocalNode`] changes a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentityKind {
    /// Addresses outside the cluster that no CIDR of a policy covers, or that one does.
    World,
    /// This node itself. It always reaches its own pods (probes), whatever their policy says.
    LocalNode,
    /// Another node.
    Node,
    /// Pods with the same labels, namespace and port names, at addresses covered by the same CIDRs.
    Pod,
}

/// One identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub id: IdentityId,
    /// What it stands for.
    pub kind: IdentityKind,
    /// For people: for instance `pod default {app=web}` or `cidr 10.0.0.0/8`.
    pub description: String,
}

/// Names a set of identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetId(pub u32);

/// A set of identities, which rules refer to. The members are sorted and unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentitySet {
    /// Its number.
    pub id: SetId,
    /// Its members, ascending.
    pub members: Vec<IdentityId>,
}
