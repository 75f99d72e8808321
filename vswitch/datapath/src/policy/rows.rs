//! Rows: what one subject class says to one peer class, for every protocol and port.
//!
//! A row has an entry for each part of the line of ports ([`super::ports`]). An entry is a verdict that holds for all
//! places below it, or a node of 16 further entries, each for a sixteenth of them; four nodes deep a place is one port.
//! Equal nodes are held once. A row whose rules name one port takes four nodes of 64 bytes, one that names a range at
//! most seven, whatever the other rows name.

use std::collections::HashMap;

use super::Verdict;
use super::ports::{PART_BITS, PARTS, place};

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

    /// At most four nodes are read.
    #[inline]
    pub(super) fn verdict(&self, row: u32, protocol: u8, port: u16) -> Option<Verdict> {
        let (part, place) = place(protocol, port);
        let mut entry = self.rows.get(row as usize)?[part];
        let mut left = PART_BITS;
        while entry & VERDICT == 0 && left != 0 {
            left -= NODE_BITS;
            entry = self.nodes.get(entry as usize)?[usize::from(place >> left & 15)];
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

/// From this place of the line on: the number of a verdict.
pub(super) type Piece = (u32, u32);

/// Rows in the making.
pub(super) struct RowsBuilder {
    rows: Rows,
    known_rows: HashMap<Row, u32, foldhash::fast::RandomState>,
    known_nodes: HashMap<Node, u32, foldhash::fast::RandomState>,
    known_verdicts: HashMap<Verdict, u32, foldhash::fast::RandomState>,
}

/// How much there was at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    rows: usize,
    nodes: usize,
}

impl RowsBuilder {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows { rows: Vec::new(), nodes: Vec::new(), verdicts: Vec::new() },
            known_rows: HashMap::default(),
            known_nodes: HashMap::default(),
            known_verdicts: HashMap::default(),
        }
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) -> u32 {
        let verdicts = &mut self.rows.verdicts;
        *self.known_verdicts.entry(verdict).or_insert_with(|| {
            verdicts.push(verdict);
            verdicts.len() as u32 - 1
        })
    }

    /// The row of one verdict.
    pub(super) fn uniform(&mut self, verdict: Verdict) -> u32 {
        let verdict = self.verdict(verdict);
        self.add(&[(0, verdict)])
    }

    /// The row of these pieces: they ascend, begin with place 0, and no two in a row have one verdict.
    pub(super) fn add(&mut self, pieces: &[Piece]) -> u32 {
        let mut rest = pieces;
        let row =
            std::array::from_fn(|part| self.next_entry((part as u32) << PART_BITS, PART_BITS, &mut rest));
        let rows = &mut self.rows.rows;
        *self.known_rows.entry(row).or_insert_with(|| {
            rows.push(row);
            rows.len() as u32 - 1
        })
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
        if let [(_, verdict)] = pieces {
            return VERDICT | verdict;
        }
        let bits = bits - NODE_BITS;
        let mut rest = pieces;
        let node =
            std::array::from_fn(|child| self.next_entry(first + ((child as u32) << bits), bits, &mut rest));
        let nodes = &mut self.rows.nodes;
        *self.known_nodes.entry(node).or_insert_with(|| {
            nodes.push(node);
            nodes.len() as u32 - 1
        })
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { rows: self.rows.rows.len(), nodes: self.rows.nodes.len() }
    }

    /// Rows and nodes there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.rows.rows.len(), self.rows.nodes.len())
    }

    /// Forgets the rows and nodes that came after `mark`.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        self.rows.rows.truncate(mark.rows);
        self.rows.nodes.truncate(mark.nodes);
        self.known_rows.retain(|_, number| (*number as usize) < mark.rows);
        self.known_nodes.retain(|_, number| (*number as usize) < mark.nodes);
    }

    pub(super) fn finish(self) -> Rows {
        let Rows { mut rows, mut nodes, mut verdicts } = self.rows;
        rows.shrink_to_fit();
        nodes.shrink_to_fit();
        verdicts.shrink_to_fit();
        Rows { rows, nodes, verdicts }
    }
}
