//! The rows of one subject class, by peer class: blocks of 256, which tables share as long as they stay as they are.

use std::sync::Arc;

/// Peer classes of a block, as a power of two.
pub(super) const BLOCK_BITS: u32 = 8;
const BLOCK: usize = 1 << BLOCK_BITS;

/// Rows.
pub(super) type Block = Arc<[u32; BLOCK]>;

/// Blocks that `count` peer classes take, at least one.
pub(super) const fn blocks(count: usize) -> usize {
    let blocks = count.div_ceil(BLOCK);
    if blocks == 0 { 1 } else { blocks }
}

/// The cells of one subject class.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    /// The row of those peer classes that make no difference to any rule; cells to come have it.
    others: u32,
    blocks: Vec<Block>,
}

impl Cells {
    /// Room for `count` peer classes that make no difference.
    pub(super) fn new(others: u32, count: usize) -> Self {
        let mut cells = Self { others, blocks: Vec::new() };
        cells.resize(count);
        cells
    }

    pub(super) fn others(&self) -> u32 {
        self.others
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Makes room for `count` peer classes, and for no more. Blocks in which nobody makes a difference are one.
    pub(super) fn resize(&mut self, count: usize) {
        if self.blocks.len() != blocks(count) {
            self.blocks.resize(blocks(count), Arc::new([self.others; BLOCK]));
        }
    }

    /// The block is copied if tables share it, and only when the cell is another.
    pub(super) fn set(&mut self, peer_class: u32, row: u32) {
        let (block, cell) = place(peer_class);
        if let Some(block) = self.blocks.get_mut(block)
            && block[cell] != row
        {
            Arc::make_mut(block)[cell] = row;
        }
    }
}

/// The block of a peer class, and its place there.
#[inline]
pub(super) fn place(peer_class: u32) -> (usize, usize) {
    ((peer_class >> BLOCK_BITS) as usize, peer_class as usize % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_stays_as_it_was() {
        let mut cells = Cells::new(7, 300);
        let before = cells.clone();
        cells.set(299, 7);
        assert!(Arc::ptr_eq(&cells.blocks()[1], &before.blocks()[1]), "nothing changed");
        cells.set(299, 8);
        let (block, cell) = place(299);
        assert_eq!((before.blocks()[block][cell], cells.blocks()[block][cell]), (7, 8));
        assert!(Arc::ptr_eq(&cells.blocks()[0], &before.blocks()[0]));
        cells.resize(513);
        assert_eq!((cells.blocks().len(), cells.blocks()[2][0], cells.others()), (3, 7, 7));
    }
}
