//! Policies of several shapes, and what is asked of each of their rules.
//!
//! A node of [`PODS`] pods, each with an identity of its own. All rules are about what the pods receive, and name UDP
//! ports. For every rule there is an [`Ask`]: a pod it applies to, a peer and a port it matches. What the first packet of
//! such a flow is told may still be said by a rule before it; those that are denied are left out.

mod ask;
mod make;
mod rules;
#[cfg(test)]
mod tests;

use vswitch_model::DesiredState;

use super::{Family, Node, count};
use make::Maker;

pub use ask::{Ask, Asks, SPREADS, Spread};

/// Pods of the node.
pub const PODS: usize = 200;

/// How policies are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Policies of ten rules, each on four of the pods. A rule names three /24s (IPv6: /64s), of a tenth as many as there
    /// are rules, and a port.
    Policies,
    /// One policy on all pods. A rule names one of sixteen groups of four peers, and a range of eight ports of its own.
    Ranges,
    /// Policies of ten rules, each on a quarter of the pods. A rule names one of 32 groups of 8 of the same 32 peers, and
    /// three ranges of ports, all drawn at random so that they overlap; every fourth denies.
    Overlaps,
    /// Rules of a CIDR of its own each, with lengths as in the Internet, and a port of its own, on all pods.
    Blocks,
    /// One rule that names so many CIDRs, on all pods.
    List,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Policies, Self::Ranges, Self::Overlaps, Self::Blocks, Self::List];

    /// Its name in case names.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Ranges => "ranges",
            Self::Overlaps => "overlaps",
            Self::Blocks => "blocks",
            Self::List => "list",
        }
    }

    /// What there are so many of.
    #[must_use]
    pub const fn counted(self) -> &'static str {
        match self {
            Self::Policies | Self::Ranges | Self::Overlaps => "rules",
            Self::Blocks | Self::List => "cidrs",
        }
    }
}

/// So many rules, or CIDRs, of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// How they are made up.
    pub shape: Shape,
    /// Of the packets.
    pub family: Family,
    /// Rules, or CIDRs: 16 to 100,000.
    pub count: usize,
}

/// A node with policies, and what is asked of them.
#[derive(Debug, Clone)]
pub struct Ruled {
    /// The node.
    pub node: Node,
    /// What the engine is told.
    pub desired: DesiredState,
    /// One for each rule (of [`Shape::List`]: for each CIDR), in no order of meaning.
    pub asks: Vec<Ask>,
}

impl Policies {
    /// `policies/v4/rules-10k`.
    #[must_use]
    pub fn name(self) -> String {
        let Self { shape, family, count: number } = self;
        format!("{}/{}/{}-{}", shape.key(), family.key(), shape.counted(), count(number as u64))
    }

    /// The policies on a node. The same every time.
    #[must_use]
    pub fn make(self) -> Ruled {
        let Self { shape, family, count } = self;
        let mut maker = Maker::new(family);
        match shape {
            Shape::Policies => rules::policies(&mut maker, count),
            Shape::Ranges => rules::ranges(&mut maker, count),
            Shape::Overlaps => rules::overlaps(&mut maker, count),
            Shape::Blocks => rules::blocks(&mut maker, count),
            Shape::List => rules::list(&mut maker, count),
        }
        maker.finish()
    }
}
