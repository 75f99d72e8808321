//! The FIB: which leaf an address has, by longest match.
//!
//! A table by the first bits of the address (24 of IPv4, 22 of IPv6) has an entry for each of their values: a leaf, or a
//! line that tells more. It does not hold the entries but the runs of equal ones: a group of 32 is a word of marks where a
//! run starts, and the place of its first run; the number of marks up to an entry leads to its run. So most of what the
//! Internet routes takes two loads, whatever there is beside it.
//!
//! Lines (`lines`) are for what is longer: a line of pieces is up to eight stretches of the next 32 bits of the address and
//! the entry of each; where there are more, lines of branches lead to it, as in a B+ tree. An entry of a piece may again be
//! a line, which looks at the 32 bits after those.
//!
//! The groups take 4 MiB for IPv4 and 1 MiB for IPv6, of which only those are touched, by a build or a look-up, that hold
//! something else than the first address has. A run takes 4 bytes, a line 64: a million routes with lengths as in the
//! Internet take 11 MiB, a quarter of a million of IPv6 6 MiB.

mod build;
mod lines;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;

pub use build::{FibTooLarge, Range, merge, ranges};

use crate::BATCH;
use lines::{BRANCHES, LINE, Line};

/// What [`Fib`] is indexed by.
pub trait Address: Copy {
    /// By how many bits the table goes: of IPv4 what nearly all prefixes of the Internet have at most.
    const TOP_BITS: u32;

    /// The first 32 bits.
    fn first(self) -> u32;

    /// The 32 bits from bit `depth` on, with zeros after the last.
    fn window(self, depth: u32) -> u32;
}

impl Address for u32 {
    const TOP_BITS: u32 = 24;

    #[inline]
    fn first(self) -> u32 {
        self
    }

    #[inline]
    fn window(self, depth: u32) -> u32 {
        self.checked_shl(depth).unwrap_or(0)
    }
}

impl Address for u128 {
    // /54 is still in the first window.
    const TOP_BITS: u32 = 22;

    #[inline]
    fn first(self) -> u32 {
        (self >> 96) as u32
    }

    #[inline]
    fn window(self, depth: u32) -> u32 {
        (self.checked_shl(depth).unwrap_or(0) >> 96) as u32
    }
}

/// Entries of a group, as a power of two.
const GROUP_BITS: u32 = 5;
/// Bits that a line looks at.
const WINDOW_BITS: u32 = 32;
/// Of fewer addresses one after the other is found sooner.
const FEW: usize = 4;

/// 32 entries of the table by the first bits: below, bit `i` says that entry `i` differs from the one before (bit 0 is never
/// set); above, the place of the run of entry 0. 0 is the group whose entries all are the first run.
type Group = u64;

/// Longest match from addresses of one family to numbers of leaves. Immutable, and shared by its clones. An empty one gives
/// leaf 0 to all.
#[derive(Debug, Clone)]
pub struct Fib<A> {
    levels: Arc<Levels>,
    family: PhantomData<A>,
}

#[derive(Debug, Default)]
struct Levels {
    /// By the first bits.
    groups: Vec<Group>,
    /// An entry each.
    runs: Vec<u32>,
    lines: Vec<Line>,
}

impl<A: Address> Fib<A> {
    /// The leaf of `address`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: A) -> u32 {
        let (marks, base) = self.levels.group(address);
        let mut entry = self.levels.run(base + marks.count_ones());
        let mut depth = A::TOP_BITS;
        while entry & LINE != 0 {
            let (line, window) = (self.levels.line(entry), address.window(depth));
            if entry & BRANCHES != 0 {
                entry = line.branch(window);
            } else {
                entry = line.piece(window);
                depth += WINDOW_BITS;
            }
        }
        entry
    }

    /// The leaves of a batch; as many as the shorter slice holds. All take one step before any takes the next, so that their
    /// waits for memory overlap.
    #[inline]
    pub fn lookup_batch(&self, addresses: &[A], leaves: &mut [u32]) {
        for (addresses, leaves) in addresses.chunks(BATCH).zip(leaves.chunks_mut(BATCH)) {
            let count = addresses.len().min(leaves.len());
            let (addresses, leaves) = (&addresses[..count], &mut leaves[..count]);
            if count < FEW {
                for (address, leaf) in addresses.iter().zip(leaves) {
                    *leaf = self.lookup(*address);
                }
            } else if self.levels.start(addresses, leaves) {
                self.levels.descend(addresses, leaves);
            }
        }
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let Levels { groups, runs, lines } = &*self.levels;
        size_of_val(&**groups) + size_of_val(&**runs) + size_of_val(&**lines)
    }
}

impl<A> Default for Fib<A> {
    fn default() -> Self {
        Self { levels: Arc::default(), family: PhantomData }
    }
}

impl Levels {
    /// The marks of the group of `address` up to its entry, the entry's topmost, and the place of the group's first run.
    #[inline]
    fn group<A: Address>(&self, address: A) -> (u32, u32) {
        let entry = address.first() >> (32 - A::TOP_BITS);
        let group = self.groups.get((entry >> GROUP_BITS) as usize).copied().unwrap_or(0);
        ((group as u32) << (!entry % (1 << GROUP_BITS)), (group >> 32) as u32)
    }

    #[inline]
    fn run(&self, place: u32) -> u32 {
        self.runs.get(place as usize).copied().unwrap_or(0)
    }

    #[inline]
    fn line(&self, entry: u32) -> &Line {
        self.lines.get(lines::number(entry)).unwrap_or(Line::NONE)
    }

    /// Gives at most [`BATCH`] addresses their entries by their first bits; whether any of them is a line.
    #[inline]
    fn start<A: Address>(&self, addresses: &[A], entries: &mut [u32]) -> bool {
        let mut marks = [0; BATCH];
        for ((address, entry), marks) in addresses.iter().zip(&mut *entries).zip(&mut marks) {
            (*marks, *entry) = self.group(*address);
        }
        // By itself: without loads it is done for several at once.
        for (entry, marks) in entries.iter_mut().zip(&marks) {
            *entry += marks.count_ones();
        }
        let mut any = 0;
        for entry in entries {
            *entry = self.run(*entry);
            any |= *entry;
        }
        any & LINE != 0
    }

    /// Follows the lines among the entries of at most [`BATCH`] addresses until all are leaves. Lines of branches and of
    /// pieces by turns: which it is is nothing a processor could guess.
    fn descend<A: Address>(&self, addresses: &[A], entries: &mut [u32]) {
        let (mut windows, mut depths) = ([0; BATCH], [A::TOP_BITS as u8; BATCH]);
        let (mut at_branches, mut at_pieces) = (Numbers::NONE, Numbers::NONE);
        for (window, address) in windows.iter_mut().zip(addresses) {
            *window = address.window(A::TOP_BITS);
        }
        for (number, entry) in entries.iter().enumerate().take(BATCH) {
            at_branches.push_if(number, entry & (LINE | BRANCHES) == LINE | BRANCHES);
            at_pieces.push_if(number, entry & (LINE | BRANCHES) == LINE);
        }
        while at_branches.count + at_pieces.count > 0 {
            for at in 0..std::mem::take(&mut at_branches.count) {
                let number = at_branches.get(at);
                let Some(entry) = entries.get_mut(number) else { continue };
                *entry = self.line(*entry).branch(windows[number]);
                at_branches.push_if(number, *entry & BRANCHES != 0);
                at_pieces.push_if(number, *entry & BRANCHES == 0);
            }
            if at_branches.count > 0 {
                continue;
            }
            for at in 0..std::mem::take(&mut at_pieces.count) {
                let number = at_pieces.get(at);
                let Some(entry) = entries.get_mut(number) else { continue };
                *entry = self.line(*entry).piece(windows[number]);
                if *entry & LINE == 0 {
                    continue;
                }
                depths[number] += WINDOW_BITS as u8;
                windows[number] = addresses.get(number).map_or(0, |it| it.window(depths[number].into()));
                at_branches.push_if(number, *entry & BRANCHES != 0);
                at_pieces.push_if(number, *entry & BRANCHES == 0);
            }
        }
    }
}

/// Numbers of addresses of a batch.
struct Numbers {
    list: [u8; BATCH],
    count: usize,
}

impl Numbers {
    const NONE: Self = Self { list: [0; BATCH], count: 0 };

    /// Without a branch: the place after the last is written in any case. One at a time may be read and pushed again.
    #[inline]
    fn push_if(&mut self, number: usize, on: bool) {
        self.list[self.count % BATCH] = number as u8;
        self.count += usize::from(on);
    }

    #[inline]
    fn get(&self, at: usize) -> usize {
        usize::from(self.list[at % BATCH]) % BATCH
    }
}
