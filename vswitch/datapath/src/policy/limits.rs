//! How much policy there may be, and what is said of more.

use vswitch_model::{IdentityId, PolicyId};

use super::{PolicyDirection, View};

/// Policy that the class tables cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{direction:?} policy would take at least {takes} {what}, but at most {most} are supported")]
pub struct PolicyTooLarge {
    /// Of which direction.
    pub direction: PolicyDirection,
    /// What there are too many of.
    pub what: &'static str,
    /// How many it would take.
    pub takes: usize,
    /// How many are supported.
    pub most: usize,
}

/// Pods whose policy is too large. They are denied everything in that direction ([`vswitch_model::RuleId::TOO_LARGE`])
/// but the local node; everybody else's policy is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPolicy {
    /// Of which view: what is staged is refused apart, which denies nothing.
    pub view: View,
    /// What it would have taken.
    pub error: PolicyTooLarge,
    /// The pods.
    pub subjects: Vec<IdentityId>,
    /// The policies that apply to them in that direction.
    pub policies: Vec<PolicyId>,
}

/// How much policy of one direction may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest identity number: 8 bytes for each below it.
    pub(super) identity_number: usize,
    /// Pairs of a subject class and a peer class: at most 4 bytes each.
    pub(super) cells: usize,
    /// Distinct lines of rows: 64 bytes each.
    pub(super) lines: usize,
    /// Pairs of a rule of one subject class and a peer class it names, while compiling: 8 bytes each.
    pub(super) matches: usize,
    /// What bounds the time to compile: a rule looked at for a peer class, or a stretch of ports for a row.
    pub(super) steps: usize,
}

impl Limits {
    pub(super) const DEFAULT: Self =
        Self { identity_number: 1 << 22, cells: 1 << 25, lines: 1 << 21, matches: 1 << 25, steps: 1 << 26 };
}
