//! The FIB: which leaf an address has, by longest match.
//!
//! A table of the address's first 16 bits leads to a leaf or to a node; a node spends one more byte. A node does not
//! hold its 256 entries but the runs of equal ones: 256 bits mark where a run starts, and the number of marks up to the
//! byte is the entry's place. IPv6 nodes are path-compressed: one that differs from its surroundings in a single
//! subtree sits at the byte where that subtree branches.
//!
//! The cost of a lookup is set by how deep the prefixes nest in bytes (at most 2 nodes for IPv4, 14 for IPv6), not by
//! how many there are. A node takes 64 bytes and each of its runs 4; a prefix adds at most two nodes for IPv4 and
//! rarely more than two for IPv6, so a million host routes take about 80 MB, and 256 KiB a family when there are none.

mod build;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;

pub use build::{FibTooLarge, Range, merge, ranges};

use crate::BATCH;

/// What [`Fib`] is indexed by.
pub trait Address: Copy {
    /// Whether nodes may skip bytes; without it the comparison of the skipped bytes is compiled out.
    const COMPRESSED: bool;

    /// The first 16 bits.
    fn top(self) -> u16;

    /// Byte `depth`, 0 being the first.
    fn byte(self, depth: u8) -> u8;

    /// Whether the first `depth` bytes are those of `path`, which is aligned to the left.
    fn is_under(self, path: u128, depth: u8) -> bool;
}

impl Address for u32 {
    const COMPRESSED: bool = false;

    #[inline]
    fn top(self) -> u16 {
        (self >> 16) as u16
    }

    #[inline]
    fn byte(self, depth: u8) -> u8 {
        (self >> ((3 - (depth & 3)) * 8)) as u8
    }

    #[inline]
    fn is_under(self, _path: u128, _depth: u8) -> bool {
        true
    }
}

impl Address for u128 {
    const COMPRESSED: bool = true;

    #[inline]
    fn top(self) -> u16 {
        (self >> 112) as u16
    }

    #[inline]
    fn byte(self, depth: u8) -> u8 {
        (self >> ((15 - (depth & 15)) * 8)) as u8
    }

    #[inline]
    fn is_under(self, path: u128, depth: u8) -> bool {
        (self ^ path).leading_zeros() >= u32::from(depth) * 8
    }
}

/// In an entry: what follows is the number of a node, not of a leaf.
const NODE: u32 = 1 << 31;
const DIRECT: usize = 1 << 16;

/// One byte of the address, one cache line.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Node {
    /// Bit `i % 64` of word `i / 64`: entry `i` differs from the one before. Bit 0 is always set.
    starts: [u64; 4],
    /// The bytes that lead here, aligned to the left; compared when bytes were skipped.
    path: u128,
    /// Place of this node's first run in the entries.
    base: u32,
    /// The leaf of addresses that are not under `path`.
    aside: u32,
    /// How many runs start before each word.
    ranks: [u8; 4],
    /// Which byte of the address this node looks at.
    depth: u8,
}

/// Longest match from addresses of one family to numbers of leaves. Immutable, and shared by its clones. An empty one gives
/// leaf 0 to all.
#[derive(Debug, Clone)]
pub struct Fib<A> {
    direct: Arc<[u32; DIRECT]>,
    nodes: Arc<[Node]>,
    entries: Arc<[u32]>,
    family: PhantomData<A>,
}

impl<A: Address> Fib<A> {
    /// The leaf of `address`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: A) -> u32 {
        self.descend(address, self.direct[usize::from(address.top())])
    }

    /// The leaves of a batch; as many as the shorter slice holds. All go down one level before any goes down the next,
    /// so that their waits for memory overlap.
    #[inline]
    pub fn lookup_batch(&self, addresses: &[A], leaves: &mut [u32]) {
        for (addresses, leaves) in addresses.chunks(BATCH).zip(leaves.chunks_mut(BATCH)) {
            self.lookup_chunk(addresses, leaves);
        }
    }

    /// At most [`BATCH`] of them.
    fn lookup_chunk(&self, addresses: &[A], leaves: &mut [u32]) {
        // Those that are at a node, and where their next entry is.
        let mut pending = [0u8; BATCH];
        let mut places = [0usize; BATCH];
        let mut count = 0;
        for ((number, address), leaf) in (0..).zip(addresses).zip(leaves.iter_mut()) {
            *leaf = self.direct[usize::from(address.top())];
            pending[count % BATCH] = number;
            count += usize::from(*leaf & NODE != 0);
        }
        while count > 0 {
            let mut inside = 0;
            for at in 0..count {
                let number = pending[at % BATCH];
                let (Some(leaf), Some(address)) =
                    (leaves.get_mut(usize::from(number)), addresses.get(usize::from(number)))
                else {
                    continue;
                };
                match self.nodes.get((*leaf ^ NODE) as usize) {
                    Some(node) if !A::COMPRESSED || address.is_under(node.path, node.depth) => {
                        pending[inside % BATCH] = number;
                        places[inside % BATCH] = node.place(address.byte(node.depth));
                        inside += 1;
                    }
                    node => *leaf = node.map_or(0, |node| node.aside),
                }
            }
            count = 0;
            for at in 0..inside {
                let number = pending[at % BATCH];
                let entry = self.entries.get(places[at % BATCH]).copied().unwrap_or(0);
                if let Some(leaf) = leaves.get_mut(usize::from(number)) {
                    *leaf = entry;
                }
                pending[count % BATCH] = number;
                count += usize::from(entry & NODE != 0);
            }
        }
    }

    #[inline]
    fn descend(&self, address: A, mut entry: u32) -> u32 {
        while entry & NODE != 0 {
            let Some(node) = self.nodes.get((entry ^ NODE) as usize) else { return 0 };
            if A::COMPRESSED && !address.is_under(node.path, node.depth) {
                return node.aside;
            }
            entry = self.entries.get(node.place(address.byte(node.depth))).copied().unwrap_or(0);
        }
        entry
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        DIRECT * 4 + size_of_val(&*self.nodes) + size_of_val(&*self.entries)
    }
}

impl<A> Default for Fib<A> {
    fn default() -> Self {
        Self {
            direct: Arc::new([0; DIRECT]),
            nodes: Arc::from([]),
            entries: Arc::from([]),
            family: PhantomData,
        }
    }
}

impl Node {
    /// Place of the entry of `byte` in the entries.
    #[inline]
    fn place(&self, byte: u8) -> usize {
        let word = usize::from(byte >> 6);
        let up_to_here = self.starts[word] & (u64::MAX >> (63 - (byte & 63)));
        (self.base as usize + usize::from(self.ranks[word]) + up_to_here.count_ones() as usize)
            .wrapping_sub(1)
    }
}
