//! One chunk of the UMEM, as an owned token.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use vswitch_datapath::{Buffer, PortIndex};

use super::large::{LARGE, LARGE_HEADROOM};

/// Bytes of a chunk: headroom, packet and tailroom together. The smallest the kernel allows.
pub const CHUNK: usize = 2048;
/// The port of a packet that nobody has said it of.
const NOWHERE: PortIndex = PortIndex(u16::MAX);
/// Bytes before a packet as it is received: what the kernel keeps free for XDP programs (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// Frames that were dropped instead of being put back, in this process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The right to use one chunk of a UMEM. Whoever holds it is the only one to read or write the chunk.
///
/// Not `Clone`, and not to be dropped: it ends by [`FramePool::put`](super::FramePool::put) or in a port's ring. Dropping
/// one is a bug of ours; it panics in debug builds, is counted ([`lost`]), and shows as leaked in the account.
///
/// ```text
/// chunk: | headroom | bytes   | tailroom |
///        0        start      end       CHUNK, or LARGE of a large frame
/// ```
pub struct Frame {
    chunk: NonNull<u8>,
    start: u16,
    end: u16,
    /// The port its packet came by, where workers share the ports.
    origin: PortIndex,
    large: bool,
}

// SAFETY: the token is the only right to its chunk, and the chunk's memory is not bound to a thread.
unsafe impl Send for Frame {}

/// How many frames have been dropped instead of being put back since the process started.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

impl Frame {
    /// The token of the chunk at `chunk`, holding the bytes from `start` on.
    ///
    /// # Safety
    ///
    /// 1. `chunk` is the first of [`CHUNK`] bytes of a UMEM, mapped for as long as the token exists.
    /// 2. No other token of the chunk exists, and the kernel does not use it.
    ///
    /// `start` and `length` are cut to what fits the chunk.
    pub(super) unsafe fn mint(chunk: NonNull<u8>, start: usize, length: usize) -> Self {
        let start = start.min(CHUNK);
        let end = (start + length.min(CHUNK)).min(CHUNK);
        Self { chunk, start: start as u16, end: end as u16, origin: NOWHERE, large: false }
    }

    /// The token of the large frame at `chunk`, empty and with its headroom.
    ///
    /// # Safety
    ///
    /// As of [`Frame::mint`], with [`LARGE`] bytes.
    pub(super) unsafe fn mint_large(chunk: NonNull<u8>) -> Self {
        Self { chunk, start: LARGE_HEADROOM as u16, end: LARGE_HEADROOM as u16, origin: NOWHERE, large: true }
    }

    /// Whether it is one for packets of up to 64 KB.
    pub(super) fn is_large(&self) -> bool {
        self.large
    }

    /// The port its packet came by, as far as somebody has said so since it was empty.
    pub(crate) fn origin(&self) -> PortIndex {
        self.origin
    }

    /// Says by which port its packet came.
    #[inline]
    pub(crate) fn set_origin(&mut self, origin: PortIndex) {
        self.origin = origin;
    }

    /// Bytes of its chunk.
    #[inline]
    fn capacity(&self) -> usize {
        if self.large { LARGE } else { CHUNK }
    }

    /// Bytes before a packet as it is received.
    #[inline]
    fn usual_headroom(&self) -> usize {
        if self.large { LARGE_HEADROOM } else { HEADROOM }
    }

    /// Ends the token without giving the chunk back: it is now somewhere else (free list, ring), as the ledger says.
    pub(super) fn retire(self) -> NonNull<u8> {
        ManuallyDrop::new(self).chunk
    }

    /// The chunk's first byte.
    pub(super) fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    /// Bytes between the chunk's first and the packet's first.
    pub(super) fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Makes the frame hold a copy of `bytes` behind the usual headroom. False, and nothing changed, when they do not
    /// fit.
    #[must_use]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        let Some(area) = self.receive_area().get_mut(..bytes.len()) else { return false };
        area.copy_from_slice(bytes);
        self.set_received(0, bytes.len());
        true
    }

    /// The chunk behind the usual headroom, to be written before [`Frame::set_received`] says how much was.
    pub(super) fn receive_area(&mut self) -> &mut [u8] {
        let (start, capacity) = (self.usual_headroom(), self.capacity());
        self.memory_mut(start, capacity)
    }

    /// Bytes of the chunk. `start` to `end` lie within its capacity, in this order.
    #[inline]
    fn memory_mut(&mut self, start: usize, end: usize) -> &mut [u8] {
        debug_assert!(start <= end && end <= self.capacity());
        // SAFETY: 1. the chunk is mapped and as long as its capacity while the token lives (contracts of `mint` and
        // `mint_large`), and the callers keep within it; 2. the only token is borrowed mutably, so that nobody else reads or
        // writes the chunk.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr().wrapping_add(start), end - start) }
    }

    /// The packet is now the `length` bytes that start `skip` bytes into the area of [`Frame::receive_area`].
    pub(super) fn set_received(&mut self, skip: usize, length: usize) {
        let start = (self.usual_headroom() + skip).min(self.capacity());
        self.start = start as u16;
        self.end = (start + length).min(self.capacity()) as u16;
    }
}

impl Buffer for Frame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let (start, end) = (usize::from(self.start), usize::from(self.end));
        debug_assert!(start <= end && end <= self.capacity());
        // SAFETY: 1. start <= end <= capacity: every function here keeps it; 2. the chunk is mapped and as long as its
        // capacity while the token lives (contracts of `mint` and `mint_large`); 3. only who holds the token, borrowed here,
        // may write it.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().wrapping_add(start), end - start) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (usize::from(self.start), usize::from(self.end));
        self.memory_mut(start, end)
    }

    #[inline]
    fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    #[inline]
    fn tailroom(&self) -> usize {
        self.capacity() - usize::from(self.end)
    }

    #[inline]
    fn grow_front(&mut self, count: usize) -> bool {
        let fits = count <= usize::from(self.start);
        if fits {
            self.start -= count as u16;
        }
        fits
    }

    #[inline]
    fn cut_front(&mut self, count: usize) {
        self.start = usize::from(self.start).saturating_add(count).min(usize::from(self.end)) as u16;
    }

    #[inline]
    fn set_len(&mut self, length: usize) -> bool {
        let fits = length <= self.capacity() - usize::from(self.start);
        if fits {
            self.end = self.start + length as u16;
        }
        fits
    }

    #[inline(always)]
    fn foretell<T>(_place: &T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction is one that every x86-64 processor has, and reads nothing that the program sees.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(_place).cast());
        }
    }

    #[inline]
    fn follow(&mut self, other: &Self) {
        self.origin = other.origin;
    }
}

impl Drop for Frame {
    #[cold]
    fn drop(&mut self) {
        LOST.fetch_add(1, Ordering::Relaxed);
        debug_assert!(std::thread::panicking(), "a frame was dropped instead of being put back: {self:?}");
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:p}, {}..{})", self.chunk, self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{FramePool, Umem};

    fn frame_of(bytes: &[u8]) -> (FramePool, Frame) {
        let mut pool = FramePool::new(&Umem::plain(4).unwrap(), 4).unwrap();
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(bytes));
        (pool, frame)
    }

    #[test]
    fn it_grows_and_shrinks_at_both_ends() {
        let (mut pool, mut frame) = frame_of(b"payload");
        assert_eq!((frame.headroom(), frame.tailroom()), (HEADROOM, CHUNK - HEADROOM - 7));
        assert!(frame.grow_front(4));
        frame.bytes_mut()[..4].copy_from_slice(b"head");
        assert_eq!(frame.bytes(), b"headpayload");
        frame.cut_front(6);
        assert_eq!(frame.bytes(), b"yload");
        assert!(frame.set_len(2));
        assert_eq!(frame.bytes(), b"yl");
        frame.cut_front(100);
        assert_eq!(frame.bytes(), b"");
        pool.put(frame);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let (mut pool, mut frame) = frame_of(b"payload");
        assert!(!frame.grow_front(HEADROOM + 1));
        assert!(!frame.set_len(CHUNK - HEADROOM + 1));
        assert!(!frame.fill(&[0; CHUNK]));
        assert_eq!(frame.bytes(), b"payload");
        assert!(frame.grow_front(HEADROOM) && frame.set_len(CHUNK));
        assert_eq!(frame.bytes().len(), CHUNK);
        pool.put(frame);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_dropped_frame_is_noticed_and_accounted() {
        let umem = Umem::plain(4).unwrap();
        let mut pool = FramePool::new(&umem, 4).unwrap();
        let frame = pool.take().unwrap();
        let before = lost();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame)));
        assert!(panicked.is_err());
        assert!(lost() > before);
        assert_eq!(umem.account(0).leaked, 1);
    }
}
