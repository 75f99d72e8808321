//! A socket's TX ring, mapped a second time: xsk-rs cannot describe a packet that begins in the headroom.

use std::io;
use std::mem::size_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{XDP_MMAP_OFFSETS, XDP_PGOFF_TX_RING, XDP_RING_NEED_WAKEUP, xdp_desc, xdp_mmap_offsets};

use crate::io::mapping::Mapping;

/// The producer's side of a TX ring. The only producer: xsk-rs's own `TxQueue` is kept, but never produced on.
#[derive(Debug)]
pub(super) struct TxRing {
    mapping: Mapping,
    producer_at: usize,
    consumer_at: usize,
    flags_at: usize,
    descriptors_at: usize,
    size: u32,
    /// Next descriptor to write. Runs over; `% size` is its place.
    next: u32,
    /// What the kernel has been told.
    published: u32,
    /// What the kernel was last seen to have consumed.
    consumed: u32,
}

impl TxRing {
    /// Maps the ring of a socket that was made with a TX ring of `size` descriptors, a power of two.
    pub(super) fn map(socket: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let offsets = offsets(socket)?.tx;
        let descriptors_at = offsets.desc as usize;
        let length = descriptors_at + size as usize * size_of::<xdp_desc>();
        let length = NonZeroUsize::new(length).ok_or_else(|| io::Error::other("a ring of no length"))?;
        let mapping = Mapping::shared(length, socket, XDP_PGOFF_TX_RING)?;
        let mut ring = Self {
            mapping,
            producer_at: offsets.producer as usize,
            consumer_at: offsets.consumer as usize,
            flags_at: offsets.flags as usize,
            descriptors_at,
            size,
            next: 0,
            published: 0,
            consumed: 0,
        };
        ring.next = ring.word(ring.producer_at).load(Ordering::Relaxed);
        ring.published = ring.next;
        ring.consumed = ring.word(ring.consumer_at).load(Ordering::Acquire);
        Ok(ring)
    }

    /// Writes a descriptor, which the kernel sees after [`TxRing::publish`]. False when the ring is full.
    #[inline]
    pub(super) fn push(&mut self, address: u64, length: u32) -> bool {
        if self.free() == 0 {
            return false;
        }
        let place = (self.next & (self.size - 1)) as usize;
        let at = self.descriptors_at + place * size_of::<xdp_desc>();
        debug_assert!(at + size_of::<xdp_desc>() <= self.mapping.length());
        // SAFETY: `place` is below `size`, and the mapping holds `size` descriptors from `descriptors_at` on.
        let descriptor = unsafe { self.mapping.address().add(at) }.cast::<xdp_desc>();
        // SAFETY: descriptors are aligned as the kernel laid them out, and between `consumed + size` and `next` the kernel
        // does not read them; it reads this one only after `publish` has released it.
        unsafe { descriptor.write(xdp_desc { addr: address, len: length, options: 0 }) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Descriptors that can be pushed, looking at the kernel's progress only when there seem to be none.
    #[inline]
    pub(super) fn free(&mut self) -> u32 {
        let free = self.size - self.next.wrapping_sub(self.consumed);
        if free > 0 {
            return free;
        }
        self.consumed = self.word(self.consumer_at).load(Ordering::Acquire);
        self.size - self.next.wrapping_sub(self.consumed)
    }

    /// Lets the kernel see what was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published != self.next {
            self.word(self.producer_at).store(self.next, Ordering::Release);
            self.published = self.next;
        }
    }

    /// Descriptors the kernel has not consumed yet.
    #[inline]
    pub(super) fn unsent(&self) -> u32 {
        self.next.wrapping_sub(self.word(self.consumer_at).load(Ordering::Acquire))
    }

    /// Whether there may be any, from what was last seen: no look at the kernel's memory.
    #[inline]
    pub(super) fn maybe_unsent(&self) -> bool {
        self.next != self.consumed
    }

    /// Brings what was last seen up to date.
    #[inline]
    pub(super) fn look(&mut self) {
        self.consumed = self.word(self.consumer_at).load(Ordering::Acquire);
    }

    /// Whether the kernel must be told by a system call.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.word(self.flags_at).load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at + size_of::<AtomicU32>() <= self.mapping.length());
        // SAFETY: the kernel gave `at` as the offset of a 32-bit word of the ring's first page, which is mapped.
        let word: NonNull<AtomicU32> = unsafe { self.mapping.address().add(at) }.cast();
        // SAFETY: aligned as the kernel laid it out, mapped while `self` lives, and only ever accessed atomically.
        unsafe { word.as_ref() }
    }
}

fn offsets(socket: BorrowedFd<'_>) -> io::Result<xdp_mmap_offsets> {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut offsets: xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut length = size_of::<xdp_mmap_offsets>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the structure's size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == size_of::<xdp_mmap_offsets>() => Ok(offsets),
        0 => Err(io::Error::other("the kernel's ring offsets have another form: 5.4 or newer is needed")),
        _ => Err(io::Error::last_os_error()),
    }
}
