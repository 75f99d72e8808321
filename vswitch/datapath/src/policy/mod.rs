//! Policy as class tables: two loads for the ends, one for the port, two for the verdict, whatever the rules are.
//!
//! In each direction the identities fall into subject classes (the same rules apply to their pods) and peer classes (in
//! the same sets), and the protocols and ports into port classes (the same port matches name them). A cell for each
//! pair of subject and peer class leads to a row, a row has one verdict for each port class; equal rows are held once.
//!
//! Limits: [`PolicyTooLarge`] says which was reached and what it would have taken. Memory is 8 bytes an identity
//! number, 4 bytes a cell, 4 bytes a row and port class, and 128 KiB for each of TCP, UDP and SCTP that a rule names,
//! in each direction; equal ones of these are held once.

mod build;
pub mod oracle;
mod ports;
#[cfg(test)]
mod tests;

use vswitch_model::{IdentityId, RuleId};

pub use build::PolicyTooLarge;
use ports::PortClasses;

/// What policy says of a flow at one end, and which rule said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether the flow may be.
    pub allow: bool,
    /// What decided: a rule, or one of the reserved numbers of [`RuleId`].
    pub rule: RuleId,
}

impl Verdict {
    /// Isolated, and no rule matched; also what an unknown subject gets.
    pub const DENY: Self = Self { allow: false, rule: RuleId::NO_RULE_MATCHED };
    /// No policy isolates the direction, or everything passed after the last tier.
    pub const NOT_ISOLATED: Self = Self { allow: true, rule: RuleId::NOT_ISOLATED };
    /// The local node reaches its own pods.
    pub const LOCAL_NODE: Self = Self { allow: true, rule: RuleId::LOCAL_NODE };
}

/// Which way, seen from the pod whose policy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyDirection {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Who may open flows to whom. Immutable.
#[derive(Debug, Clone)]
pub struct PolicyTables {
    ingress: DirectionTable,
    egress: DirectionTable,
}

impl PolicyTables {
    /// The tables of an engine that knows nothing: every subject is unknown, and denied.
    #[must_use]
    pub fn deny_all() -> Self {
        Self { ingress: DirectionTable::deny_all(), egress: DirectionTable::deny_all() }
    }

    /// What the receiving pod (`subject`) says of a flow from `peer`. `port` is the destination port, 0 where the
    /// protocol has none.
    #[inline]
    #[must_use]
    pub fn ingress(&self, subject: IdentityId, peer: IdentityId, protocol: u8, port: u16) -> Verdict {
        self.ingress.verdict(subject, peer, protocol, port)
    }

    /// What the sending pod (`subject`) says of a flow to `peer`.
    #[inline]
    #[must_use]
    pub fn egress(&self, subject: IdentityId, peer: IdentityId, protocol: u8, port: u16) -> Verdict {
        self.egress.verdict(subject, peer, protocol, port)
    }

    /// The same with the direction as a value.
    #[must_use]
    pub fn verdict(
        &self,
        direction: PolicyDirection,
        subject: IdentityId,
        peer: IdentityId,
        protocol: u8,
        port: u16,
    ) -> Verdict {
        match direction {
            PolicyDirection::Ingress => self.ingress(subject, peer, protocol, port),
            PolicyDirection::Egress => self.egress(subject, peer, protocol, port),
        }
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.ingress.memory_bytes() + self.egress.memory_bytes()
    }
}

/// The classes of one identity.
#[derive(Debug, Clone, Copy, Default)]
struct Classes {
    /// Where the cells of its subject class start.
    subject: u32,
    /// Its peer class: which of those cells.
    peer: u32,
}

#[derive(Debug, Clone)]
struct DirectionTable {
    /// By identity number. 0, the unknown identity, is always there and stands for those beyond the end.
    identities: Vec<Classes>,
    /// By subject and peer class: where the row starts.
    cells: Vec<u32>,
    ports: PortClasses,
    /// By row and port class: number of a verdict.
    rows: Vec<u32>,
    verdicts: Vec<Verdict>,
}

impl DirectionTable {
    fn deny_all() -> Self {
        Self {
            identities: vec![Classes::default()],
            cells: vec![0],
            ports: PortClasses::default(),
            rows: vec![0],
            verdicts: vec![Verdict::DENY],
        }
    }

    #[inline]
    fn verdict(&self, subject: IdentityId, peer: IdentityId, protocol: u8, port: u16) -> Verdict {
        let cell = self.classes(subject).subject as usize + self.classes(peer).peer as usize;
        let class = usize::from(self.ports.class(protocol, port));
        let row = self.cells.get(cell).and_then(|row| self.rows.get(*row as usize + class));
        row.and_then(|verdict| self.verdicts.get(*verdict as usize)).copied().unwrap_or(Verdict::DENY)
    }

    #[inline]
    fn classes(&self, identity: IdentityId) -> Classes {
        match self.identities.get(identity.0 as usize) {
            Some(classes) => *classes,
            None => self.identities.first().copied().unwrap_or_default(),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.identities.capacity() * size_of::<Classes>()
            + (self.cells.capacity() + self.rows.capacity()) * 4
            + self.ports.memory_bytes()
            + self.verdicts.capacity() * size_of::<Verdict>()
    }
}
