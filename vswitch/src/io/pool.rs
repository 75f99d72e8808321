//! A worker's free frames.

use std::ptr::NonNull;
use std::sync::Arc;

use vswitch_datapath::Buffer;

use super::frame::{CHUNK, Frame, HEADROOM};
use super::large::KEPT;
use super::umem::{Place, Umem, UmemError};

/// Magazines a pool leaves or takes at once: as many frames as a turn hands over.
const MAGAZINES: usize = 4;

/// The free frames of one worker: taken to receive or build a packet in, put back when it has ended.
///
/// Its memory is taken at start-up. Most recently used frames go out first: their bytes are still in the cache.
#[derive(Debug)]
pub struct FramePool {
    umem: Arc<Umem>,
    free: Vec<u32>,
    free_large: Vec<u32>,
    share: usize,
}

impl FramePool {
    /// A pool with a share of `frames` of the UMEM's unclaimed frames.
    ///
    /// # Errors
    ///
    /// [`UmemError::Exhausted`] when fewer are unclaimed.
    pub fn new(umem: &Arc<Umem>, frames: usize) -> Result<Self, UmemError> {
        // Room for all: frames may come home to another worker's pool than they left.
        let mut free = Vec::with_capacity(umem.total());
        umem.claim(frames, &mut free)?;
        Ok(Self { umem: Arc::clone(umem), free, free_large: Vec::with_capacity(KEPT), share: frames })
    }

    /// The UMEM its frames are of.
    #[must_use]
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Free frames now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Frames the pool started with.
    #[must_use]
    pub fn share(&self) -> usize {
        self.share
    }

    /// Large frames that a worker with this pool may put aside for one use: a quarter of what falls to it, so that as many as
    /// there are workers leave enough to receive into.
    #[must_use]
    pub fn large_aside(&self) -> usize {
        self.umem.large.total() * self.share / self.umem.total() / 4
    }

    /// A free frame, empty and with the usual headroom; its bytes are undefined. None: the pool is exhausted.
    #[inline]
    #[must_use]
    pub fn take(&mut self) -> Option<Frame> {
        let number = self.free.pop()?;
        self.umem.place(number, Place::HELD);
        // SAFETY: the number came off a free list, where the ledger had it as free: nobody held a token of it, no ring
        // had it, and the UMEM stays mapped while a frame is not free (see `Umem`'s Drop).
        Some(unsafe { Frame::mint(self.umem.chunk(number), HEADROOM, 0) })
    }

    /// The same of the large frames, which all pools of the UMEM share.
    #[must_use]
    pub fn take_large(&mut self) -> Option<Frame> {
        let number = self.free_large.pop().or_else(|| self.umem.large.take())?;
        self.umem.large.hold(number, true);
        // SAFETY: as in `take`: the number came off a free list, and the memory stays while a frame is not free.
        Some(unsafe { Frame::mint_large(self.umem.large.chunk(number)) })
    }

    /// Gives a frame back.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        let Some(number) = self.umem.number(frame.chunk()) else { return self.put_large(frame) };
        frame.retire();
        self.umem.place(number, Place::FREE);
        self.free.push(number);
    }

    /// Gives back all that `frames` holds, which keeps its capacity.
    pub fn put_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        for frame in frames {
            self.put(frame);
        }
    }

    /// Takes up frames that ports left to the UMEM when they were closed, up to the pool's share. Locks: not for the
    /// packet path.
    pub fn top_up(&mut self) {
        let room = self.share.saturating_sub(self.free.len());
        self.umem.claim_up_to(room, &mut self.free);
    }

    /// Evens out the free frames of several workers: a pool that has plenty leaves some to the others, one that is short takes
    /// what they left. Called once a turn, by workers that hand frames to each other; a worker alone has nothing to even out.
    pub fn balance(&mut self) {
        let (short, plenty) = (self.share / 2, self.share / 2 + self.share / 8);
        for _ in 0..MAGAZINES {
            let depot = self.umem.depot();
            let moved = match self.free.len() {
                free if free < short => depot.take_to(&mut self.free),
                free if free > plenty => depot.put_from(&mut self.free),
                _ => false,
            };
            if !moved {
                return;
            }
        }
    }

    /// Takes free frames off the list to lend them to a kernel ring: up to `numbers.len()`, fewer when there are fewer.
    /// Their numbers are written to the front of `numbers`; how many is returned.
    pub(super) fn lend_free(&mut self, place: Place, numbers: &mut [u32]) -> usize {
        let count = numbers.len().min(self.free.len());
        let kept = self.free.len() - count;
        for (slot, number) in numbers.iter_mut().zip(self.free.drain(kept..)) {
            self.umem.place(number, place);
            *slot = number;
        }
        count
    }

    /// Puts numbers back that [`FramePool::lend_free`] gave but no ring took.
    pub(super) fn unlend(&mut self, numbers: &[u32]) {
        for &number in numbers {
            self.umem.place(number, Place::FREE);
            self.free.push(number);
        }
    }

    /// Lends a held frame to a kernel ring. The address of its packet in the UMEM, or the frame when it is not of this
    /// UMEM.
    #[inline]
    pub(super) fn lend(&self, frame: Frame, place: Place) -> Result<u64, Frame> {
        let Some(number) = self.umem.number(frame.chunk()) else { return Err(frame) };
        let address = number as usize * CHUNK + frame.start();
        frame.retire();
        self.umem.place(number, place);
        Ok(address as u64)
    }

    /// A frame that came back from a kernel ring with a packet: the token of the chunk around `address`, when the ledger
    /// says that it was lent to `place`. None: the kernel named a chunk it did not have.
    #[inline]
    pub(super) fn back_with_packet(&self, address: u64, length: usize, place: Place) -> Option<Frame> {
        let (number, start) = self.umem.locate(address)?;
        if !self.umem.moves(number, place, Place::HELD) {
            return None;
        }
        // SAFETY: the ledger had the chunk in this ring, so that no token of it exists, and the kernel has just
        // handed it back; the UMEM stays mapped while a frame is not free.
        Some(unsafe { Frame::mint(self.umem.chunk(number), start, length) })
    }

    /// A frame that came back from a completion ring. False: the kernel named a chunk it did not have.
    #[inline]
    pub(super) fn back_free(&mut self, address: u64, place: Place) -> bool {
        let Some((number, _)) = self.umem.locate(address) else { return false };
        let lent = self.umem.moves(number, place, Place::FREE);
        if lent {
            self.free.push(number);
        }
        lent
    }

    /// A packet of a large frame in an ordinary one: an ICMP error about a large packet is built in its place. The frame itself
    /// when it is an ordinary one, or its packet does not fit, or there is no other.
    #[cold]
    pub(super) fn move_to_small(&mut self, frame: Frame) -> Result<Frame, Frame> {
        if !frame.is_large() {
            return Err(frame);
        }
        let Some(mut small) = self.take() else { return Err(frame) };
        if small.fill(frame.bytes()) {
            self.put(frame);
            Ok(small)
        } else {
            self.put(small);
            Err(frame)
        }
    }

    fn put_large(&mut self, frame: Frame) {
        let Some(number) = self.umem.large.number(frame.chunk()) else { return Self::foreign(frame) };
        frame.retire();
        self.umem.large.hold(number, false);
        if self.free_large.len() < KEPT.min(self.large_aside()) {
            self.free_large.push(number);
        } else {
            self.umem.large.give(number);
        }
    }

    #[cold]
    fn foreign(frame: Frame) {
        debug_assert!(false, "a frame of another UMEM was put into this pool: {frame:?}");
        let _: NonNull<u8> = frame.retire();
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        self.umem.unclaim(&mut self.free);
        for number in self.free_large.drain(..) {
            self.umem.large.give(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::large::{LARGE, LARGE_HEADROOM};

    #[test]
    fn frames_are_taken_until_there_are_none() {
        let umem = Umem::plain(8).unwrap();
        let mut pool = FramePool::new(&umem, 8).unwrap();
        let mut held: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(held.len(), 8);
        let mut chunks: Vec<_> = held.iter().map(Frame::chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        assert_eq!(chunks.len(), 8, "two tokens of one chunk");
        assert_eq!(umem.account(8).leaked, 0);
        pool.put_all(held.drain(..));
        assert_eq!((pool.free(), umem.account(0).free), (8, 8));
    }

    #[test]
    fn pools_share_the_umem_and_give_it_back() {
        let umem = Umem::plain(8).unwrap();
        let mut one = FramePool::new(&umem, 6).unwrap();
        assert!(matches!(FramePool::new(&umem, 3), Err(UmemError::Exhausted { wanted: 3, left: 2 })));
        let mut two = FramePool::new(&umem, 2).unwrap();
        let frame = one.take().unwrap();
        two.put(frame);
        assert_eq!((one.free(), two.free()), (5, 3));
        drop((one, two));
        assert_eq!(FramePool::new(&umem, 8).unwrap().free(), 8);
    }

    #[test]
    fn what_comes_home_to_the_wrong_pool_gets_back() {
        let umem = Umem::plain(4096).unwrap();
        let mut one = FramePool::new(&umem, 2048).unwrap();
        let mut two = FramePool::new(&umem, 2048).unwrap();
        // All that one receives, two sends: without the depot one would be out of frames after 2048.
        for _ in 0..100 {
            for _ in 0..200 {
                let frame = one.take().expect("the pool is kept from running dry");
                two.put(frame);
            }
            one.balance();
            two.balance();
        }
        assert!(one.free() >= 1024 - 200, "{} free", one.free());
        assert!(umem.account(0).free == 4096);
        drop((one, two));
        assert_eq!(FramePool::new(&umem, 4096).unwrap().free(), 4096, "the depot's as well");
    }

    #[test]
    fn large_frames_are_accounted_for_as_well() {
        let umem = Umem::plain(1024).unwrap();
        let (mut one, mut two) = (FramePool::new(&umem, 512).unwrap(), FramePool::new(&umem, 512).unwrap());
        let mut held: Vec<Frame> = std::iter::from_fn(|| one.take_large()).collect();
        assert_eq!((held.len(), umem.account(64).leaked, umem.account(0).leaked), (64, 0, 64));
        assert_eq!(one.large_aside(), 8, "a quarter of its half");
        let frame = held.last_mut().unwrap();
        assert!(frame.is_large() && frame.set_len(65_000) && !frame.set_len(LARGE));
        frame.bytes_mut().fill(7);
        assert_eq!((frame.bytes().len(), frame.headroom()), (65_000, LARGE_HEADROOM));
        assert!(one.lend(held.pop().unwrap(), Place::HELD).is_err_and(|frame| {
            two.put(frame);
            true
        }));
        one.put_all(held);
        assert_eq!(umem.account(0).leaked, 0);
        drop(one);
        assert_eq!(std::iter::from_fn(|| two.take_large()).map(Frame::retire).count(), 64);
    }

    #[test]
    fn a_ring_gives_back_only_what_it_was_lent() {
        let umem = Umem::plain(4).unwrap();
        let mut pool = FramePool::new(&umem, 4).unwrap();
        let slot = umem.slot().unwrap();
        let mut numbers = [0; 2];
        assert_eq!(pool.lend_free(slot.fill(), &mut numbers), 2);
        let address = u64::from(numbers[0]) * CHUNK as u64 + 256;
        assert!(
            pool.back_with_packet(address, 60, slot.transmit()).is_none(),
            "it was lent to the fill ring"
        );
        let frame = pool.back_with_packet(address, 60, slot.fill()).unwrap();
        assert!(pool.back_with_packet(address, 60, slot.fill()).is_none(), "it came back twice");
        assert!(pool.back_with_packet(4 * CHUNK as u64, 60, slot.fill()).is_none(), "no such chunk");
        let sent = pool.lend(frame, slot.transmit()).unwrap();
        assert_eq!(sent, address);
        let account = umem.account(0);
        assert_eq!((account.free, account.fill, account.transmit, account.leaked), (2, 1, 1, 0));
        assert!(pool.back_free(sent, slot.transmit()));
        assert!(!pool.back_free(sent, slot.transmit()));
        drop(slot);
        pool.top_up();
        assert_eq!(pool.free(), 4, "what the ring still had came home when it was closed");
    }
}
