//! Rows: what one subject class says to one peer class, for every protocol, port and source port.
//!
//! A row is an entry: a verdict, or the number of a line of 16 words and how to read it. A sorted line has up to eight pieces
//! of the line of ports ([`super::ports`]): how far from the start of the places below it each begins, and its entry. Where there are more pieces, a spread line has
//! 16 entries, each for a sixteenth of the places. An entry may say that from there on it is by source port. Equal lines
//! are held once: a row whose rules name up to three ports or ranges takes one of 64 bytes, and one more for each of them
//! that is by source port.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::ports::{PART_BITS, PARTS, place};
use super::{FlowPorts, Verdict};
use crate::BATCH;

/// Marks an entry that is the number of a verdict, not of a line.
const VERDICT: u32 = 1 << 31;
/// Marks the number of a sorted line; otherwise it is spread.
const SORTED: u32 = 1 << 30;
/// Marks a line, and all below it, that goes by the source port.
const BY_SOURCE: u32 = 1 << 29;
const NUMBER: u32 = BY_SOURCE - 1;
/// Where the pieces of a sorted line begin that it has not.
const FAR: u32 = i32::MAX as u32;
/// An entry of nobody: it leads to no verdict.
const NOTHING: u32 = u32::MAX;

/// What a spread line resolves of a place.
const SPREAD_BITS: u32 = 4;
/// What the places of the line of ports take.
const PLACE_BITS: u32 = PART_BITS + 3;
/// The same, as spread lines resolve it from the top.
const ROW_BITS: u32 = PLACE_BITS.next_multiple_of(SPREAD_BITS);
/// Pieces of a sorted line.
const PIECES: usize = 8;
/// Lines a flow reads at most: spread ones by port, a sorted one in place of the last of them, and so by source port.
const LINES_MAX: usize = ((ROW_BITS + PART_BITS) / SPREAD_BITS) as usize;

const _: () = assert!(PARTS <= 1 << (PLACE_BITS - PART_BITS));

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(64))]
struct Line([u32; 16]);

impl Line {
    /// At most [`PIECES`], as of [`RowsBuilder::add`]. The line tells how far from `start` each begins.
    fn sorted(start: u32, pieces: &[Piece]) -> Self {
        let mut line = [FAR; 16];
        for (at, (first, entry)) in pieces.iter().enumerate() {
            (line[at], line[PIECES + at]) = (first.saturating_sub(start), *entry);
        }
        Self(line)
    }

    /// Where the piece leads in which a place is, that is so far from the start.
    #[inline]
    fn piece(&self, far: u32) -> u32 {
        // No place is beyond 20 bits, and signed numbers are compared eight at a time.
        let (firsts, _) = self.0.split_at(PIECES);
        let begun: i32 = firsts.iter().map(|first| i32::from(*first as i32 <= far as i32)).sum();
        self.0[PIECES + (begun as usize + PIECES - 1) % PIECES]
    }
}

/// A flow on its way through a row.
#[derive(Debug, Clone, Copy)]
struct Descent {
    entry: u32,
    /// What lines go by: the place on the line of ports, then the source port.
    key: u32,
    /// Bits of it that spread lines have not resolved yet.
    left: u32,
    source: u16,
}

impl Descent {
    const NONE: Self = Self { entry: NOTHING, key: 0, left: 0, source: 0 };

    #[inline]
    fn new(row: u32, ports: FlowPorts) -> Self {
        Self { entry: row, key: place(ports), left: ROW_BITS, source: ports.source }
    }

    #[inline]
    fn is_over(&self) -> bool {
        self.entry & VERDICT != 0
    }

    /// Goes on by one line.
    #[inline]
    fn step(&mut self, lines: &[Line]) {
        if self.entry & BY_SOURCE != 0 {
            (self.key, self.left) = (u32::from(self.source), PART_BITS);
        }
        let Some(line) = lines.get((self.entry & NUMBER) as usize) else {
            self.entry = NOTHING;
            return;
        };
        self.entry = if self.entry & SORTED != 0 {
            line.piece(self.key & ((1 << self.left) - 1))
        } else {
            self.left = self.left.saturating_sub(SPREAD_BITS);
            line.0[(self.key >> self.left) as usize % 16]
        };
    }
}

/// The rows as they are asked.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    lines: Vec<Line>,
    verdicts: Vec<Verdict>,
}

impl Rows {
    /// One verdict alone, and the row of it.
    pub(super) fn uniform(verdict: Verdict) -> (Self, u32) {
        (Self { lines: Vec::new(), verdicts: vec![verdict] }, VERDICT)
    }

    #[inline]
    pub(super) fn verdict(&self, row: u32, ports: FlowPorts) -> Option<Verdict> {
        let mut descent = Descent::new(row, ports);
        for _ in 0..LINES_MAX {
            if descent.is_over() {
                break;
            }
            descent.step(&self.lines);
        }
        self.end(descent)
    }

    /// The same of up to [`BATCH`] flows, each said to `tell` in its turn. All read one line before any reads the next, so
    /// that their waits for memory overlap.
    #[inline]
    pub(super) fn verdicts(
        &self,
        asked: impl Iterator<Item = (Option<u32>, FlowPorts)>,
        mut tell: impl FnMut(usize, Verdict),
    ) {
        let mut descents = [Descent::NONE; BATCH];
        let mut count = 0;
        for (descent, (row, ports)) in descents.iter_mut().zip(asked) {
            *descent = Descent::new(row.unwrap_or(NOTHING), ports);
            count += 1;
        }
        let descents = &mut descents[..count];
        for _ in 0..LINES_MAX {
            let mut goes_on = false;
            for descent in &mut *descents {
                if !descent.is_over() {
                    descent.step(&self.lines);
                    goes_on |= !descent.is_over();
                }
            }
            if !goes_on {
                break;
            }
        }
        for (number, descent) in descents.iter().enumerate() {
            tell(number, self.end(*descent).unwrap_or(Verdict::DENY));
        }
    }

    #[inline]
    fn end(&self, descent: Descent) -> Option<Verdict> {
        let number = descent.is_over().then_some(descent.entry & !VERDICT)?;
        self.verdicts.get(number as usize).copied()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + self.verdicts.capacity() * size_of::<Verdict>()
    }

    #[cfg(test)]
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }
}

/// From this place of the line on: an entry, of one verdict or of what depends on the source port.
pub(super) type Piece = (u32, u32);

/// Rows in the making. What is there never changes: tables share it until more is added.
pub(super) struct RowsBuilder {
    rows: Arc<Rows>,
    /// By digest: a line, a verdict that has it. Should two have one, the second is held as often as it comes.
    known_lines: HashMap<u64, u32, FixedState>,
    known_verdicts: HashMap<Verdict, u32, FixedState>,
}

/// How much there was at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    lines: usize,
}

impl RowsBuilder {
    pub(super) fn new() -> Self {
        Self {
            rows: Arc::new(Rows { lines: Vec::new(), verdicts: Vec::new() }),
            known_lines: HashMap::default(),
            known_verdicts: HashMap::default(),
        }
    }

    /// The row of one verdict, and the entry of a piece.
    pub(super) fn verdict(&mut self, verdict: Verdict) -> u32 {
        let number = *self.known_verdicts.entry(verdict).or_insert_with(|| {
            let verdicts = &mut Arc::make_mut(&mut self.rows).verdicts;
            verdicts.push(verdict);
            verdicts.len() as u32 - 1
        });
        VERDICT | number
    }

    /// The row of these pieces: they ascend, begin with place 0, and no two in a row have one entry.
    pub(super) fn add(&mut self, pieces: &[Piece]) -> u32 {
        self.entry(0, ROW_BITS, pieces)
    }

    /// The entry of what depends on the source port: the places of these pieces, which are as those of [`Self::add`].
    pub(super) fn by_source(&mut self, pieces: &[Piece]) -> u32 {
        match self.entry(0, PART_BITS, pieces) {
            verdict if verdict & VERDICT != 0 => verdict,
            line => BY_SOURCE | line,
        }
    }

    /// The entry of the 2^`bits` places from `first` on, which these pieces are of: the first of them may begin before.
    fn entry(&mut self, first: u32, bits: u32, pieces: &[Piece]) -> u32 {
        if let [(_, entry)] = pieces {
            return *entry;
        }
        if pieces.len() <= PIECES {
            return SORTED | self.line(Line::sorted(first, pieces));
        }
        let bits = bits - SPREAD_BITS;
        let mut rest = pieces;
        let line = std::array::from_fn(|child| {
            let next = first + ((child as u32 + 1) << bits);
            let within = rest.partition_point(|(start, _)| *start < next);
            let entry = self.entry(next - (1 << bits), bits, &rest[..within]);
            let goes_on = rest.get(within).is_none_or(|(start, _)| *start != next);
            rest = &rest[within - usize::from(goes_on)..];
            entry
        });
        self.line(Line(line))
    }

    fn line(&mut self, line: Line) -> u32 {
        let digest = FixedState::default().hash_one(line);
        if let Some(known) = self.known_lines.get(&digest).filter(|at| self.rows.lines[**at as usize] == line)
        {
            return *known;
        }
        let lines = &mut Arc::make_mut(&mut self.rows).lines;
        lines.push(line);
        self.known_lines.insert(digest, lines.len() as u32 - 1);
        lines.len() as u32 - 1
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { lines: self.lines() }
    }

    /// Lines there are.
    pub(super) fn lines(&self) -> usize {
        self.rows.lines.len()
    }

    /// Forgets the lines that came after `mark`.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        Arc::make_mut(&mut self.rows).lines.truncate(mark.lines);
        self.known_lines.retain(|_, number| (*number as usize) < mark.lines);
    }

    /// Gives back memory that is held for more to come.
    pub(super) fn shrink(&mut self) {
        let Rows { lines, verdicts } = Arc::make_mut(&mut self.rows);
        lines.shrink_to_fit();
        verdicts.shrink_to_fit();
    }

    /// What there is now.
    pub(super) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows)
    }
}
