//! Rows: what one subject class says to one peer class, for every protocol and port.
//!
//! A row has an entry for each part of the line of ports ([`super::ports`]). An entry is a verdict that holds for all
//! places below it, or a node of 16 further entries, each for a sixteenth of them; four nodes deep a place is one port.
//! Where rules ask for source ports it goes on: four nodes more, and it is one source port.
//! Equal nodes are held once. A row whose rules name one port takes four nodes of 64 bytes, one that names a range at
//! most seven, whatever the other rows name; and as many again for a source port or a range of them.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::ports::{PART_BITS, PARTS, place};
use super::{FlowPorts, Verdict};

/// Marks an entry that is the number of a verdict, not of a node.
const VERDICT: u32 = 1 << 31;
/// What a node resolves of a place.
const NODE_BITS: u32 = 4;

type Row = [u32; PARTS];
type Node = [u32; 1 << NODE_BITS];

/// The rows as they are asked.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    rows: Vec<Row>,
    nodes: Vec<Node>,
    verdicts: Vec<Verdict>,
}

impl Rows {
    /// The row 0 alone, of one verdict.
    pub(super) fn uniform(verdict: Verdict) -> Self {
        Self { rows: vec![[VERDICT; PARTS]], nodes: Vec::new(), verdicts: vec![verdict] }
    }

    /// At most eight nodes are read, four where no rule asks for source ports.
    #[inline]
    pub(super) fn verdict(&self, row: u32, ports: FlowPorts) -> Option<Verdict> {
        let (part, place) = place(ports);
        let mut entry = self.rows.get(row as usize)?[part];
        let mut left = 2 * PART_BITS;
        while entry & VERDICT == 0 && left != 0 {
            left -= NODE_BITS;
            entry = self.nodes.get(entry as usize)?[(place >> left & 15) as usize];
        }
        self.verdicts.get((entry & !VERDICT) as usize).copied()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.nodes.capacity() * size_of::<Node>()
            + self.verdicts.capacity() * size_of::<Verdict>()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.rows.len(), self.nodes.len())
    }
}

/// From this place of the line on: an entry, of one verdict or of what depends on the source port.
pub(super) type Piece = (u32, u32);

/// Rows in the making. What is there never changes: tables share it until more is added.
pub(super) struct RowsBuilder {
    rows: Arc<Rows>,
    /// By digest: a row, a node, a verdict that has it. Should two have one, the second is held as often as it comes.
    known_rows: Known,
    known_nodes: Known,
    known_verdicts: HashMap<Verdict, u32, FixedState>,
}

type Known = HashMap<u64, u32, FixedState>;

/// How much there was at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    rows: usize,
    nodes: usize,
}

impl RowsBuilder {
    pub(super) fn new() -> Self {
        Self {
            rows: Arc::new(Rows { rows: Vec::new(), nodes: Vec::new(), verdicts: Vec::new() }),
            known_rows: HashMap::default(),
            known_nodes: HashMap::default(),
            known_verdicts: HashMap::default(),
        }
    }

    /// The entry of one verdict.
    pub(super) fn verdict(&mut self, verdict: Verdict) -> u32 {
        let number = *self.known_verdicts.entry(verdict).or_insert_with(|| {
            let verdicts = &mut Arc::make_mut(&mut self.rows).verdicts;
            verdicts.push(verdict);
            verdicts.len() as u32 - 1
        });
        VERDICT | number
    }

    /// The entry of what depends on the source port: the places of these pieces.
    pub(super) fn by_source(&mut self, pieces: &[Piece]) -> u32 {
        self.next_entry(0, PART_BITS, &mut { pieces })
    }

    /// The row of one verdict.
    pub(super) fn uniform(&mut self, verdict: Verdict) -> u32 {
        let verdict = self.verdict(verdict);
        self.add(&[(0, verdict)])
    }

    /// The row of these pieces: they ascend, begin with place 0, and no two in a row have one entry.
    pub(super) fn add(&mut self, pieces: &[Piece]) -> u32 {
        let mut rest = pieces;
        let row: Row =
            std::array::from_fn(|part| self.next_entry((part as u32) << PART_BITS, PART_BITS, &mut rest));
        let digest = FixedState::default().hash_one(row);
        if let Some(known) = self.known_rows.get(&digest).filter(|at| self.rows.rows[**at as usize] == row) {
            return *known;
        }
        let rows = &mut Arc::make_mut(&mut self.rows).rows;
        rows.push(row);
        self.known_rows.insert(digest, rows.len() as u32 - 1);
        rows.len() as u32 - 1
    }

    /// The entry of the 2^`bits` places from `first` on. `rest` begins with the piece `first` is in, and is brought to
    /// the one in which the next place is.
    fn next_entry(&mut self, first: u32, bits: u32, rest: &mut &[Piece]) -> u32 {
        let next = first + (1 << bits);
        let within = rest.partition_point(|(start, _)| *start < next);
        let entry = self.entry(first, bits, &rest[..within]);
        let goes_on = rest.get(within).is_none_or(|(start, _)| *start != next);
        *rest = &rest[within - usize::from(goes_on)..];
        entry
    }

    fn entry(&mut self, first: u32, bits: u32, pieces: &[Piece]) -> u32 {
        if let [(_, entry)] = pieces
            && (bits == 0 || entry & VERDICT != 0)
        {
            return *entry;
        }
        let bits = bits - NODE_BITS;
        let node: Node = if pieces.len() == 1 {
            // The source port is at the same depth everywhere.
            [self.entry(first, bits, pieces); 1 << NODE_BITS]
        } else {
            let mut rest = pieces;
            std::array::from_fn(|child| self.next_entry(first + ((child as u32) << bits), bits, &mut rest))
        };
        let digest = FixedState::default().hash_one(node);
        if let Some(known) = self.known_nodes.get(&digest).filter(|at| self.rows.nodes[**at as usize] == node)
        {
            return *known;
        }
        let nodes = &mut Arc::make_mut(&mut self.rows).nodes;
        nodes.push(node);
        self.known_nodes.insert(digest, nodes.len() as u32 - 1);
        nodes.len() as u32 - 1
    }

    pub(super) fn mark(&self) -> Mark {
        let (rows, nodes) = self.counts();
        Mark { rows, nodes }
    }

    /// Rows and nodes there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.rows.rows.len(), self.rows.nodes.len())
    }

    /// Forgets the rows and nodes that came after `mark`.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        let rows = Arc::make_mut(&mut self.rows);
        rows.rows.truncate(mark.rows);
        rows.nodes.truncate(mark.nodes);
        self.known_rows.retain(|_, number| (*number as usize) < mark.rows);
        self.known_nodes.retain(|_, number| (*number as usize) < mark.nodes);
    }

    /// Gives back memory that is held for more to come.
    pub(super) fn shrink(&mut self) {
        let Rows { rows, nodes, verdicts } = Arc::make_mut(&mut self.rows);
        rows.shrink_to_fit();
        nodes.shrink_to_fit();
        verdicts.shrink_to_fit();
    }

    /// What there is now.
    pub(super) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows)
    }
}
