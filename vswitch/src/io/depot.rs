//! Free frames on their way from one worker's pool to another's.
//!
//! A frame that one worker received and another sent comes home to the other's pool. What one pool has too many of goes back by
//! the depot, in magazines, so that two workers meet once for many frames.

use crossbeam::queue::ArrayQueue;

/// Frames of a magazine.
pub(super) const MAGAZINE: usize = 64;
/// Of all frames, the share that the depot holds at most.
const SHARE: usize = 16;

/// Magazines of free frames that belong to no pool. Neither end waits for the other.
#[derive(Debug)]
pub(super) struct Depot(ArrayQueue<[u32; MAGAZINE]>);

impl Depot {
    /// The depot of a UMEM with so many frames.
    pub(super) fn new(frames: usize) -> Self {
        Self(ArrayQueue::new((frames / MAGAZINE / SHARE).max(1)))
    }

    /// Takes the last magazine's worth of `free`, when there is room. Whether it did.
    pub(super) fn put_from(&self, free: &mut Vec<u32>) -> bool {
        let Some(last) = free.last_chunk::<MAGAZINE>() else { return false };
        let put = !self.0.is_full() && self.0.push(*last).is_ok();
        if put {
            free.truncate(free.len() - MAGAZINE);
        }
        put
    }

    /// Adds a magazine to `free`, when there is one. Whether it did.
    pub(super) fn take_to(&self, free: &mut Vec<u32>) -> bool {
        let magazine = self.0.pop();
        free.extend(magazine.iter().flatten());
        magazine.is_some()
    }
}
