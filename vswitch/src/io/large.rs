//! Frames for packets that are still to be cut into segments, of up to 64 KB. The kernel never sees them: they are filled and
//! emptied by reading and writing tun devices, and by coalescing.

use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::mapping::Mapping;

/// Bytes a large frame can hold, headroom included: what 16 bits count.
pub const LARGE: usize = u16::MAX as usize;
/// Bytes before a large packet. It is never encapsulated as it is.
pub const LARGE_HEADROOM: usize = 128;
/// Ordinary frames for each large one.
const FRAMES_PER_LARGE: usize = 256;
/// Free ones that a pool keeps for itself: most recently used, they are in the cache still.
pub(super) const KEPT: usize = 8;
/// Fewest there are, 4 MB: with few frames large packets would not be received at all.
const LARGE_MIN: usize = 64;
/// From one frame to the next.
const STRIDE: usize = LARGE + 1;

/// The large frames of a UMEM, and which of them are free.
pub(super) struct LargeFrames {
    memory: ManuallyDrop<Option<Mapping>>,
    held: Box<[AtomicBool]>,
    /// Free ones that are in no pool: one worker may read what another writes, so that all share them.
    free: ArrayQueue<u32>,
}

impl LargeFrames {
    /// Those that belong to so many ordinary ones.
    pub(super) fn beside(frames: usize) -> io::Result<Self> {
        let count = (frames / FRAMES_PER_LARGE).max(LARGE_MIN);
        let length = NonZeroUsize::new(count * STRIDE);
        let free = ArrayQueue::new(count);
        for number in 0..count as u32 {
            free.push(number).ok();
        }
        Ok(Self {
            memory: ManuallyDrop::new(length.map(Mapping::anonymous).transpose()?),
            held: (0..count).map(|_| AtomicBool::new(false)).collect(),
            free,
        })
    }

    pub(super) fn total(&self) -> usize {
        self.held.len()
    }

    pub(super) fn free(&self) -> usize {
        self.held.iter().filter(|held| !held.load(Ordering::Relaxed)).count()
    }

    /// First byte of a frame, of [`LARGE`].
    pub(super) fn chunk(&self, number: u32) -> NonNull<u8> {
        let base = self.memory.as_ref().map_or(NonNull::dangling(), Mapping::address);
        debug_assert!((number as usize) < self.total());
        // SAFETY: numbers come from the free lists, and are below `total`; the frames are one mapping.
        unsafe { base.add(number as usize * STRIDE) }
    }

    /// The number of the frame at `chunk`. None: it is none of these.
    pub(super) fn number(&self, chunk: NonNull<u8>) -> Option<u32> {
        let base = self.memory.as_ref()?.address().addr().get();
        let number = chunk.addr().get().checked_sub(base)? / STRIDE;
        (number < self.total()).then_some(number as u32)
    }

    /// Enters whether a token of the frame exists.
    pub(super) fn hold(&self, number: u32, held: bool) {
        if let Some(entry) = self.held.get(number as usize) {
            entry.store(held, Ordering::Relaxed);
        }
    }

    pub(super) fn take(&self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes a free frame back, for which there is always room.
    pub(super) fn give(&self, number: u32) {
        self.free.push(number).ok();
    }
}

impl Drop for LargeFrames {
    fn drop(&mut self) {
        // As of the UMEM itself: memory that a token may lead to must stay.
        if self.free() == self.total() {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}
