//! A socket's four rings, mapped a second time: xsk-rs cannot describe a packet that begins in the headroom, copies every
//! descriptor into a larger one of its own, and calls a function for each.
//!
//! xsk-rs's own queues are kept, since they own the socket, but nothing is ever produced or consumed by them.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{
    XDP_MMAP_OFFSETS, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_RING_NEED_WAKEUP,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, xdp_desc, xdp_mmap_offsets, xdp_ring_offset,
};

use crate::io::mapping::Mapping;

/// All rings of a socket.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) rx: Consumer<xdp_desc>,
    pub(super) tx: Producer<xdp_desc>,
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
}

impl Mapped {
    /// Maps the rings of a socket that was made with `size` descriptors in each, a power of two.
    pub(super) fn of(socket: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let offsets = offsets(socket)?;
        // SAFETY: the kernel's layout of the rings (include/uapi/linux/if_xdp.h): descriptors of packets in these two.
        let rx = unsafe { Ring::map(socket, &offsets.rx, XDP_PGOFF_RX_RING, size)? };
        // SAFETY: as above.
        let tx = unsafe { Ring::map(socket, &offsets.tx, XDP_PGOFF_TX_RING, size)? };
        // SAFETY: as above, but addresses in these two.
        let fill = unsafe { Ring::map(socket, &offsets.fr, XDP_UMEM_PGOFF_FILL_RING as i64, size)? };
        // SAFETY: as above.
        let completion =
            unsafe { Ring::map(socket, &offsets.cr, XDP_UMEM_PGOFF_COMPLETION_RING as i64, size)? };
        Ok(Self {
            rx: Consumer::of(rx),
            tx: Producer::of(tx),
            fill: Producer::of(fill),
            completion: Consumer::of(completion),
        })
    }
}

/// A ring that both sides map.
struct Ring<T> {
    mapping: Mapping,
    producer_at: usize,
    consumer_at: usize,
    flags_at: usize,
    descriptors_at: usize,
    size: u32,
    of: PhantomData<T>,
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<T: Copy> Ring<T> {
    /// # Safety
    ///
    /// What the kernel maps at `page_offset` is a ring of `size` times `T`, a power of two, with these offsets.
    unsafe fn map(
        socket: BorrowedFd<'_>,
        offsets: &xdp_ring_offset,
        page_offset: i64,
        size: u32,
    ) -> io::Result<Self> {
        let descriptors_at = offsets.desc as usize;
        let length = NonZeroUsize::new(descriptors_at + size as usize * size_of::<T>());
        let length = length.ok_or_else(|| io::Error::other("a ring of no length"))?;
        Ok(Self {
            mapping: Mapping::shared(length, socket, page_offset)?,
            producer_at: offsets.producer as usize,
            consumer_at: offsets.consumer as usize,
            flags_at: offsets.flags as usize,
            descriptors_at,
            size,
            of: PhantomData,
        })
    }

    /// The place of a descriptor: `number` runs over.
    #[inline]
    fn place(&self, number: u32) -> NonNull<T> {
        let at = self.descriptors_at + (number & (self.size - 1)) as usize * size_of::<T>();
        debug_assert!(at + size_of::<T>() <= self.mapping.length());
        // SAFETY: the number is cut to below `size`, and the mapping holds `size` descriptors from `descriptors_at` on.
        unsafe { self.mapping.address().add(at) }.cast()
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.word(self.producer_at)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.word(self.consumer_at)
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

/// The producer's side of a ring, of which it is the only one.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Next descriptor to write. Runs over.
    next: u32,
    /// What the kernel has been told.
    published: u32,
    /// What the kernel was last seen to have consumed.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    fn of(ring: Ring<T>) -> Self {
        let next = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        Self { ring, next, published: next, consumed }
    }

    /// Writes a descriptor, which the kernel sees after [`Producer::publish`]. False when the ring is full.
    #[inline]
    pub(super) fn push(&mut self, descriptor: T) -> bool {
        if self.free() == 0 {
            return false;
        }
        let place = self.ring.place(self.next);
        // SAFETY: descriptors are aligned as the kernel laid them out, and between `consumed + size` and `next` the kernel
        // does not read them; it reads this one only after `publish` has released it.
        unsafe { place.write(descriptor) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Descriptors that can be pushed, looking at the kernel's progress only when there seem to be none.
    #[inline]
    pub(super) fn free(&mut self) -> u32 {
        let free = self.ring.size - self.next.wrapping_sub(self.consumed);
        if free > 0 {
            return free;
        }
        self.look();
        self.ring.size - self.next.wrapping_sub(self.consumed)
    }

    /// Lets the kernel see what was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published != self.next {
            self.ring.producer().store(self.next, Ordering::Release);
            self.published = self.next;
        }
    }

    /// Descriptors the kernel has not consumed yet.
    #[inline]
    pub(super) fn unconsumed(&self) -> u32 {
        self.next.wrapping_sub(self.ring.consumer().load(Ordering::Acquire))
    }

    /// Whether there may be any, from what was last seen: no look at the kernel's memory.
    #[inline]
    pub(super) fn maybe_unconsumed(&self) -> bool {
        self.next != self.consumed
    }

    /// Brings what was last seen up to date.
    #[inline]
    pub(super) fn look(&mut self) {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
    }

    /// Whether the kernel must be told by a system call.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.word(self.ring.flags_at).load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }
}

/// The consumer's side of a ring, of which it is the only one.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Next descriptor to read. Runs over.
    next: u32,
    /// What the kernel was last seen to have produced.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    fn of(ring: Ring<T>) -> Self {
        let next = ring.consumer().load(Ordering::Relaxed);
        let produced = ring.producer().load(Ordering::Acquire);
        Self { ring, next, produced }
    }

    /// Descriptors that are there to be taken. Looks at the kernel's progress only when fewer than `most` are known.
    #[inline]
    pub(super) fn waiting(&mut self, most: u32) -> u32 {
        if self.produced.wrapping_sub(self.next) < most {
            self.produced = self.ring.producer().load(Ordering::Acquire);
        }
        self.produced.wrapping_sub(self.next)
    }

    /// Takes the next descriptor. None: [`Consumer::waiting`] has seen no more.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            return None;
        }
        // SAFETY: aligned as the kernel laid it out, and written before `produced` was released, which was acquired; the kernel
        // writes it again only after `release`.
        let descriptor = unsafe { self.ring.place(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(descriptor)
    }

    /// Lets the kernel use the places of what was taken again.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
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
