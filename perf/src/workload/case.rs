//! The axes of one measurement of the engine, and its name.

use super::{Family, Size, Transport, Way};

/// Which packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of flows the engine knows.
    KnownFlow,
    /// Each the first of its flow.
    NewFlow,
}

/// One measurement. The name says kind, family, way, flows and rules, and what is not as in [`Case::BASE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Which packets of a flow.
    pub kind: Kind,
    /// Of the packets pods see; in tunnels the inner one.
    pub family: Family,
    /// What the packets carry.
    pub transport: Transport,
    /// From where to where.
    pub way: Way,
    /// How many flows the packets belong to, one after the other in no order of meaning.
    pub flows: u64,
    /// Rules of policy in force.
    pub rules: usize,
    /// Routes of this family.
    pub routes: usize,
    /// Of the frames pods see.
    pub size: Size,
    /// Packets that wait at each turn.
    pub batch: usize,
}

impl Case {
    /// A pod's packets into VXLAN: 10k flows, 1000 rules, 1000 routes, smallest frames, batches of 32.
    pub const BASE: Self = Self {
        kind: Kind::KnownFlow,
        family: Family::V4,
        transport: Transport::Udp,
        way: Way::IntoVxlan,
        flows: 10_000,
        rules: 1000,
        routes: 1000,
        size: Size::Frame(64),
        batch: 32,
    };

    /// Its name: `known-flow/v4/vxlan/flows-10k/rules-1k`, then for instance `/routes-1M/size-imix/batch-1`.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::KnownFlow => "known-flow",
            Kind::NewFlow => "new-flow",
        };
        let mut name = format!("{kind}/{}/{}", self.family.key(), self.way.key());
        if self.transport == Transport::Syn {
            name += "/syn";
        }
        if self.kind == Kind::KnownFlow {
            name += &format!("/flows-{}", count(self.flows));
        }
        name += &format!("/rules-{}", count(self.rules as u64));
        if self.routes != Self::BASE.routes {
            name += &format!("/routes-{}", count(self.routes as u64));
        }
        if self.size != Self::BASE.size {
            name += &format!("/size-{}", self.size);
        }
        if self.batch != Self::BASE.batch {
            name += &format!("/batch-{}", self.batch);
        }
        name
    }
}

/// A number as case names have it: `10k`, `1M`, `250`.
#[must_use]
pub fn count(number: u64) -> String {
    match number {
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n >= 1000 && n.is_multiple_of(1000) => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}
