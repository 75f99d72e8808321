//! Memory mapped from the kernel, unmapped when dropped.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A mapping of its own: nothing else unmaps it.
#[derive(Debug)]
pub(super) struct Mapping {
    address: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and this type hands out nothing but its address.
unsafe impl Send for Mapping {}
// SAFETY: as above; reading or writing through the address is up to who dereferences it.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed, resident memory of `length` bytes that belongs to no file.
    pub(super) fn anonymous(length: NonZeroUsize) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1, 0)
    }

    /// `length` bytes of `fd` from `offset` on, shared with the kernel: a socket's ring.
    pub(super) fn shared(length: NonZeroUsize, fd: BorrowedFd<'_>, offset: i64) -> io::Result<Self> {
        Self::map(length, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(length: NonZeroUsize, flags: i32, fd: i32, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a null hint lets the kernel choose an unused range, so no existing mapping is replaced.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length.get(), protection, flags, fd, offset) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned a null address"))?;
        Ok(Self { address, length })
    }

    /// The first byte. Valid while the mapping lives.
    pub(super) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Bytes mapped.
    pub(super) fn length(&self) -> usize {
        self.length.get()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and is unmapped only here.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length.get()) };
    }
}
