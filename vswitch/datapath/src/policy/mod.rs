//! Policy as class tables: two loads for the ends, two for the pair of them, mostly one and at most five for the port, as
//! many for the source port where rules ask for one, and one for the verdict, whatever the rules are.
//!
//! In each direction the identities fall into subject classes (the same rules apply to their pods) and peer classes (in
//! the same sets). A cell for each pair of subject and peer class leads to a row, a row has a verdict for each protocol
//! and port (and source port), as a tree in which what is equal is held once.
//!
//! Memory is 24 bytes an identity number, at most 4 bytes a cell and 64 bytes a line of a row, in each direction:
//! 10,000 rules with a CIDR and a port of their own take 1 MB, 100,000 take 12 MB. Limits are stated in `limits.rs`. Pods
//! with whose policy one is reached are denied everything ([`PolicyTables::refused`]), all others have theirs.
//!
//! A change of the state leads to tables that share with those before what it does not concern: see `follow.rs`.

mod cells;
mod changes;
mod compiler;
mod direction;
mod follow;
mod limits;
pub mod oracle;
mod peers;
mod ports;
mod rows;
mod subject;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use vswitch_model::{IdentityId, RuleId, Standing};

use cells::{Block, Cells, place};
use changes::Changes;
pub(crate) use compiler::PolicyCompiler;
pub use limits::{PolicyTooLarge, RefusedPolicy};
use rows::Rows;

use crate::BATCH;
use crate::tables::Revision;

/// What policy says of a flow at one end, and which rule said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether the flow may be.
    pub allow: bool,
    /// What decided: a rule, or one of the reserved numbers of [`RuleId`].
    pub rule: RuleId,
    /// The first rule of [`vswitch_model::Action::Log`] that matched before that.
    pub log: Option<RuleId>,
}

impl Verdict {
    /// Isolated by a tier that says nothing of what denies; also what an unknown subject gets.
    pub const DENY: Self = Self::of(false, RuleId::NO_RULE_MATCHED);
    /// No policy isolates the direction, or everything passed after the last tier.
    pub const NOT_ISOLATED: Self = Self::of(true, RuleId::NOT_ISOLATED);
    /// The pod's policy is beyond a limit, so nothing is allowed it.
    pub const TOO_LARGE: Self = Self::of(false, RuleId::TOO_LARGE);
    /// The local node reaches its own pods.
    pub const LOCAL_NODE: Self = Self::of(true, RuleId::LOCAL_NODE);

    /// A verdict that nothing is to be logged of.
    #[must_use]
    pub const fn of(allow: bool, rule: RuleId) -> Self {
        Self { allow, rule, log: None }
    }
}

/// What rules compare of a flow besides its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowPorts {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; for ICMP and ICMPv6 type and code ([`vswitch_model::PortMatch::message`]). Means nothing where
    /// the protocol has none.
    pub destination: u16,
    /// Source port; means nothing but for TCP, UDP and SCTP.
    pub source: u16,
}

impl FlowPorts {
    /// From source port 0, which none but a rule that names it tells from others.
    #[must_use]
    pub const fn to(protocol: u8, destination: u16) -> Self {
        Self { protocol, destination, source: 0 }
    }
}

/// A flow as policy is asked about it at one end.
#[derive(Debug, Clone, Copy)]
pub struct PolicyQuestion {
    /// Whose policy.
    pub subject: IdentityId,
    /// The other end.
    pub peer: IdentityId,
    /// Its ports.
    pub ports: FlowPorts,
}

/// Which policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Those in force.
    InForce,
    /// Those that would be in force if all that is staged were.
    Staged,
}

impl View {
    /// Whether a policy belongs to it.
    #[must_use]
    pub const fn holds(self, standing: Standing) -> bool {
        match self {
            Self::InForce => !matches!(standing, Standing::Staged),
            Self::Staged => !matches!(standing, Standing::StagedRemoval),
        }
    }
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
    /// Another such pair, where something is staged.
    staged: Option<Box<StagedTables>>,
    changes: Changes,
    refused: Vec<RefusedPolicy>,
}

/// What would be in force if all that is staged were: as [`PolicyTables`], asked once for a new flow.
#[derive(Debug, Clone)]
pub struct StagedTables {
    ingress: DirectionTable,
    egress: DirectionTable,
}

impl PolicyTables {
    /// The tables of an engine that knows nothing: every subject is unknown, and denied.
    #[must_use]
    pub fn deny_all() -> Self {
        let [ingress, egress] = [DirectionTable::deny_all(), DirectionTable::deny_all()];
        Self { ingress, egress, staged: None, changes: Changes::default(), refused: Vec::new() }
    }

    /// What the receiving pod (`subject`) says of a flow from `peer`.
    #[inline]
    #[must_use]
    pub fn ingress(&self, subject: IdentityId, peer: IdentityId, ports: FlowPorts) -> Verdict {
        self.ingress.verdict(subject, peer, ports)
    }

    /// What the sending pod (`subject`) says of a flow to `peer`.
    #[inline]
    #[must_use]
    pub fn egress(&self, subject: IdentityId, peer: IdentityId, ports: FlowPorts) -> Verdict {
        self.egress.verdict(subject, peer, ports)
    }

    /// The same with the direction as a value.
    #[must_use]
    pub fn verdict(
        &self,
        direction: PolicyDirection,
        subject: IdentityId,
        peer: IdentityId,
        ports: FlowPorts,
    ) -> Verdict {
        match direction {
            PolicyDirection::Ingress => self.ingress(subject, peer, ports),
            PolicyDirection::Egress => self.egress(subject, peer, ports),
        }
    }

    /// The verdicts of up to [`BATCH`] flows, of more the rest is left alone, each said to `tell` in its turn: as
    /// [`Self::verdict`], but all take one step before any takes the next, so that their waits for memory overlap.
    #[inline]
    pub fn verdicts(
        &self,
        direction: PolicyDirection,
        asked: impl Iterator<Item = PolicyQuestion> + Clone,
        tell: impl FnMut(usize, Verdict),
    ) {
        match direction {
            PolicyDirection::Ingress => self.ingress.verdicts(asked, tell),
            PolicyDirection::Egress => self.egress.verdicts(asked, tell),
        }
    }

    /// What would be said if what is staged were in force; None where nothing is staged.
    #[inline]
    #[must_use]
    pub fn staged(&self) -> Option<&StagedTables> {
        self.staged.as_deref()
    }

    /// Says that these tables, `now`, come after those of `before`: flows judged by them are judged again only where a
    /// pod's policy is not as it was. Without, all are.
    pub fn follow(&mut self, before: (&Self, Revision), now: Revision) {
        self.changes.follow(&before.0.changes, before.1, now);
    }

    /// Whether the policy of `subject` may be another than in the tables `then`.
    #[must_use]
    pub fn changed_since(&self, direction: PolicyDirection, subject: IdentityId, then: Revision) -> bool {
        self.changes.since(direction, subject, then)
    }

    /// Whether something is staged for `subject` that may be another than in the tables `then`.
    #[must_use]
    pub fn staged_changed_since(
        &self,
        direction: PolicyDirection,
        subject: IdentityId,
        then: Revision,
    ) -> bool {
        self.changes.staged_since(direction, subject, then)
    }

    /// Whether no policy isolates `subject`.
    #[must_use]
    pub fn is_open(&self, direction: PolicyDirection, subject: IdentityId) -> bool {
        let table = match direction {
            PolicyDirection::Ingress => &self.ingress,
            PolicyDirection::Egress => &self.egress,
        };
        table.open.is_some_and(|open| table.classes(subject).subject == open)
    }

    /// Whose policy is too large to be in force.
    #[must_use]
    pub fn refused(&self) -> &[RefusedPolicy] {
        &self.refused
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let staged = self.staged().map_or(0, |it| it.ingress.memory_bytes() + it.egress.memory_bytes());
        self.ingress.memory_bytes() + self.egress.memory_bytes() + staged + self.changes.memory_bytes()
    }
}

impl StagedTables {
    /// As [`PolicyTables::verdict`].
    #[must_use]
    pub fn verdict(
        &self,
        direction: PolicyDirection,
        subject: IdentityId,
        peer: IdentityId,
        ports: FlowPorts,
    ) -> Verdict {
        let table = match direction {
            PolicyDirection::Ingress => &self.ingress,
            PolicyDirection::Egress => &self.egress,
        };
        table.verdict(subject, peer, ports)
    }
}

/// The classes of one identity.
#[derive(Debug, Clone, Copy, Default)]
struct Classes {
    /// The first block of cells of its subject class.
    subject: u32,
    /// Its peer class: which cell of which of those.
    peer: u32,
}

/// What did not change is shared with the tables before.
#[derive(Debug, Clone)]
struct DirectionTable {
    /// By identity number. 0, the unknown identity, is always there and stands for those beyond the end.
    identities: Arc<[Classes]>,
    /// By subject and peer class: the row.
    blocks: Arc<[Block]>,
    rows: Arc<Rows>,
    /// The first block of those that no policy isolates.
    open: Option<u32>,
}

impl DirectionTable {
    fn deny_all() -> Self {
        let (rows, row) = Rows::uniform(Verdict::DENY);
        let (identities, blocks) = (Arc::new([Classes::default()]), Cells::new(row, 1).blocks().into());
        Self { identities, blocks, rows: Arc::new(rows), open: None }
    }

    #[inline]
    fn verdict(&self, subject: IdentityId, peer: IdentityId, ports: FlowPorts) -> Verdict {
        let row = self.row(self.cell(subject, peer));
        row.and_then(|row| self.rows.verdict(row, ports)).unwrap_or(Verdict::DENY)
    }

    #[inline]
    fn verdicts(
        &self,
        asked: impl Iterator<Item = PolicyQuestion> + Clone,
        tell: impl FnMut(usize, Verdict),
    ) {
        let mut cells = [(0, 0); BATCH];
        for (cell, question) in cells.iter_mut().zip(asked.clone()) {
            *cell = self.cell(question.subject, question.peer);
        }
        let rows = cells.iter().zip(asked).map(|(cell, question)| (self.row(*cell), question.ports));
        self.rows.verdicts(rows, tell);
    }

    /// The block, and the place in it.
    #[inline]
    fn cell(&self, subject: IdentityId, peer: IdentityId) -> (usize, usize) {
        let (block, cell) = place(self.classes(peer).peer);
        (self.classes(subject).subject as usize + block, cell)
    }

    #[inline]
    fn row(&self, (block, cell): (usize, usize)) -> Option<u32> {
        self.blocks.get(block).map(|block| block[cell % block.len()])
    }

    #[inline]
    fn classes(&self, identity: IdentityId) -> Classes {
        match self.identities.get(identity.0 as usize) {
            Some(classes) => *classes,
            None => self.identities.first().copied().unwrap_or_default(),
        }
    }

    fn memory_bytes(&self) -> usize {
        let blocks: BTreeSet<_> = self.blocks.iter().map(|block| Arc::as_ptr(block).addr()).collect();
        size_of_val(&*self.identities)
            + size_of_val(&*self.blocks)
            + blocks.len() * size_of::<[u32; 1 << cells::BLOCK_BITS]>()
            + self.rows.memory_bytes()
    }
}
