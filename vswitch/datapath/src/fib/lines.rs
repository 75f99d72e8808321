//! Lines: a cache line each, which leads from 32 bits of the address to an entry, or closer to it.
//!
//! An entry is a number of a leaf, below 2^31, or of a line and what that is made of.

/// In an entry: it is a line, not a leaf.
pub(super) const LINE: u32 = 1 << 31;
/// In the entry of a line: it is one of branches, not of pieces.
pub(super) const BRANCHES: u32 = 1 << 30;
/// Lines there may be.
pub(super) const LINES_MAX: usize = BRANCHES as usize;

/// Pieces of a line.
pub(super) const PIECES_MAX: usize = 8;
/// Branches of a line.
pub(super) const BRANCHES_MAX: usize = 16;
/// The word of a line of branches that has the entry of the first.
const BRANCHED: usize = 15;
/// Where what a line has not would begin: after all there is.
const FAR: u32 = i32::MAX as u32;

/// Of pieces: 8 words of where they begin, 8 with their entries. Of branches: 15 words of where they begin, and the entry of
/// the first; the others follow it. The first begins at 0, and is not among those words.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line([u32; 16]);

/// The number of the line of an entry.
#[inline]
pub(super) fn number(entry: u32) -> usize {
    (entry & (BRANCHES - 1)) as usize
}

/// Such that signed numbers are compared, which is done for four at once on any x86-64.
#[inline]
const fn signed(window: u32) -> i32 {
    (window ^ 1 << 31) as i32
}

impl Line {
    /// A line of nothing: it leads to leaf 0.
    pub(super) const NONE: &Self = &Self([0; 16]);

    /// At most [`PIECES_MAX`]: where each begins, its entry. They ascend, and the first begins where the line is asked from.
    pub(super) fn of_pieces(pieces: &[(u32, u32)]) -> Self {
        let mut line = Self::that_begin(pieces.iter().map(|(first, _)| *first));
        for (word, (_, entry)) in line.0[PIECES_MAX..].iter_mut().zip(pieces) {
            *word = *entry;
        }
        line
    }

    /// At most [`BRANCHES_MAX`] that begin so; `entry` is that of the first.
    pub(super) fn of_branches(firsts: &[u32], entry: u32) -> Self {
        let mut line = Self::that_begin(firsts.iter().copied());
        line.0[BRANCHED] = entry;
        line
    }

    /// A word is the last value before: the word is less than what has come to it.
    fn that_begin(firsts: impl Iterator<Item = u32>) -> Self {
        let mut line = [FAR; 16];
        for (word, first) in line.iter_mut().zip(firsts.skip(1)) {
            *word = signed(first.saturating_sub(1)) as u32;
        }
        Self(line)
    }

    /// The entry of the piece that `window` is in.
    #[inline]
    pub(super) fn piece(&self, window: u32) -> u32 {
        let (firsts, _) = self.0.split_at(PIECES_MAX);
        let begun: i32 = firsts.iter().map(|first| i32::from((*first as i32) < signed(window))).sum();
        self.0[PIECES_MAX + begun as usize % PIECES_MAX]
    }

    /// The entry of the branch that `window` is in.
    #[inline]
    pub(super) fn branch(&self, window: u32) -> u32 {
        // All sixteen words, and what is none of them taken back: so they are compared four at a time.
        let begun: i32 = self.0.iter().map(|first| i32::from((*first as i32) < signed(window))).sum();
        let entry = self.0[BRANCHED];
        entry.wrapping_add((begun - i32::from((entry as i32) < signed(window))) as u32)
    }
}
