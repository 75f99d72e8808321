//! The memory all frames are of, and the ledger that says where each of them is.

use std::io;
use std::mem::ManuallyDrop;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xsk_rs::config::{FrameSize, Interface, QueueSize, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue};

use super::depot::Depot;
use super::frame::CHUNK;
use super::large::LargeFrames;
use super::mapping::Mapping;
use super::netns;
use super::rings::{RINGS, socket_config};

/// Most frames one UMEM may have: 8 GiB of them.
pub const FRAMES_MAX: usize = 1 << 22;
/// Most ring owners (sockets) at once.
const SLOTS_MAX: u16 = 16_384;

/// Why there is no UMEM, or no frame of it.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// A number of frames that cannot be.
    #[error("a UMEM of {0} frames: between 1 and {FRAMES_MAX} are possible")]
    FrameCount(usize),
    /// The memory was not given.
    #[error("no memory for {frames} frames, which take {} MiB: {source}; lower `frames` of vswitchd.toml", (frames * CHUNK) >> 20)]
    Memory {
        /// Frames wanted.
        frames: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not register the memory for AF_XDP.
    #[error(
        "no AF_XDP memory of {frames} frames: {reason}; needs CAP_NET_RAW, CAP_SYS_ADMIN and a kernel with AF_XDP"
    )]
    Register {
        /// Frames wanted.
        frames: usize,
        /// What went wrong.
        reason: String,
    },
    /// Fewer frames are unclaimed than a pool wants.
    #[error(
        "{wanted} frames wanted, {left} left in the UMEM: raise the number of frames, or give each worker fewer"
    )]
    Exhausted {
        /// Frames wanted.
        wanted: usize,
        /// Frames unclaimed.
        left: usize,
    },
    /// The memory is not registered for AF_XDP, which a socket needs.
    #[error("this UMEM is plain memory, which AF_XDP sockets cannot use")]
    NotRegistered,
    /// Too many sockets.
    #[error("more than {SLOTS_MAX} sockets on one UMEM")]
    Slots,
}

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    /// On a free list.
    pub(super) const FREE: Self = Self(0);
    /// Held by the worker, as a token.
    pub(super) const HELD: Self = Self(1);

    const FIRST_SLOT: u16 = 2;

    /// In the receiving rings of a socket: fill ring, RX ring, or between them in the kernel.
    const fn fill(slot: u16) -> Self {
        Self(Self::FIRST_SLOT + 2 * slot)
    }

    /// In the sending rings of a socket: TX ring, completion ring, or between them in the kernel.
    const fn transmit(slot: u16) -> Self {
        Self(Self::FIRST_SLOT + 2 * slot + 1)
    }
}

/// How many frames are where. They are counted in the ledger, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameAccount {
    /// All there are.
    pub total: usize,
    /// On free lists.
    pub free: usize,
    /// Lent to the kernel to receive into.
    pub fill: usize,
    /// Lent to the kernel to be sent.
    pub transmit: usize,
    /// Held by workers, as they say, less the large ones.
    pub held: usize,
    /// In none of these places, large ones included. Zero, or there is a bug.
    pub leaked: usize,
}

/// Memory divided into [`CHUNK`]s, shared by all sockets and workers of the process.
pub struct Umem {
    base: NonNull<u8>,
    /// One entry a frame, a [`Place`]. Written by whoever moves the frame; a frame's handing over between threads
    /// orders the entries with it, which is why relaxed stores do.
    ledger: Box<[AtomicU16]>,
    /// Free frames that belong to no pool.
    unclaimed: Mutex<Vec<u32>>,
    slots: Mutex<Vec<u16>>,
    depot: Depot,
    /// Those for large packets.
    pub(super) large: LargeFrames,
    backing: ManuallyDrop<Backing>,
}

/// What the memory is.
pub(super) enum Backing {
    /// Ordinary memory: for ports that copy. Held for its Drop.
    Plain(#[expect(dead_code, reason = "kept mapped, reached through `base`")] Mapping),
    /// Memory the kernel knows.
    Registered(Box<Registration>),
}

/// Memory that the kernel knows for AF_XDP.
pub(super) struct Registration {
    umem: xsk_rs::Umem,
    /// Where it is.
    address: usize,
    /// The first socket. All others inherit its flags, and could not be bound once its device is gone.
    _anchor: Mutex<Anchor>,
}

type Anchor = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Makes a registration whose anchor is bound to the loopback of a network namespace that nothing else is in: it can be
/// neither deleted nor taken by another program, and goes with the socket, however the process ends.
fn register(frames: usize, huge_pages: bool) -> Result<Registration, UmemError> {
    let failed = |reason: String| UmemError::Register { frames, reason };
    let made = netns::in_new(|| {
        let rings = QueueSize::new(RINGS).map_err(|error| failed(error.to_string()))?;
        let chunk = FrameSize::new(CHUNK as u32).map_err(|error| failed(error.to_string()))?;
        let config = UmemConfig::builder()
            .frame_size(chunk)
            .fill_queue_size(rings)
            .comp_queue_size(rings)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let count = u32::try_from(frames).ok().and_then(NonZeroU32::new);
        let count = count.ok_or(UmemError::FrameCount(frames))?;
        let (umem, descriptors) =
            xsk_rs::Umem::new(config, count, huge_pages).map_err(|error| refused(frames, &error))?;
        let mut first = *descriptors.first().ok_or(UmemError::FrameCount(frames))?;
        // SAFETY: the descriptor is of this UMEM, and nobody uses its memory yet.
        let packet = unsafe { umem.data_mut(&mut first) }.contents_mut().as_mut_ptr();
        let address = packet.expose_provenance() - first.addr();
        let loopback: Interface = "lo".parse().map_err(|_| failed("no loopback".to_owned()))?;
        // SAFETY: no program of libxdp's is loaded (INHIBIT_PROG_LOAD), as the contract asks.
        let anchor = unsafe { Socket::new(socket_config(), &umem, &loopback, 0) }
            .map_err(|error| refused(frames, &error))?;
        Ok(Registration { umem, address, _anchor: Mutex::new(anchor) })
    });
    made.map_err(|error| failed(format!("no private network namespace: {error}")))?
}

/// What a refusal of the kernel's means: that memory is short, which fewer frames mend, or anything else.
fn refused(frames: usize, error: &(dyn std::error::Error + 'static)) -> UmemError {
    let cause = error.source();
    let errno = cause.and_then(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    match (errno, cause) {
        (Some(errno @ libc::ENOMEM), _) => {
            UmemError::Memory { frames, source: io::Error::from_raw_os_error(errno) }
        }
        (_, Some(cause)) => UmemError::Register { frames, reason: format!("{error}: {cause}") },
        (_, None) => UmemError::Register { frames, reason: error.to_string() },
    }
}

// SAFETY: `base` is an address of the process; the chunks behind it are reached only through tokens.
unsafe impl Send for Umem {}
// SAFETY: as above; everything else in it is atomic or behind a lock.
unsafe impl Sync for Umem {}

impl Umem {
    /// Frames in ordinary memory, for memory, tun and pcap ports: needs no privilege.
    ///
    /// # Errors
    ///
    /// [`UmemError::FrameCount`], [`UmemError::Memory`].
    pub fn plain(frames: usize) -> Result<Arc<Self>, UmemError> {
        let length = check_count(frames)?;
        let mapping = Mapping::anonymous(length).map_err(|source| UmemError::Memory { frames, source })?;
        // SAFETY: the mapping is CHUNK * frames long, and lives in the backing.
        let large = large_for(frames)?;
        // SAFETY: as above.
        Ok(unsafe { Self::over(mapping.address(), frames, large, Backing::Plain(mapping)) })
    }

    /// Frames that AF_XDP sockets can use, of every device in every network namespace.
    ///
    /// # Errors
    ///
    /// [`UmemError::FrameCount`], [`UmemError::Register`].
    pub fn registered(frames: usize, huge_pages: bool) -> Result<Arc<Self>, UmemError> {
        check_count(frames)?;
        let large = large_for(frames)?;
        let registration = register(frames, huge_pages)?;
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(registration.address));
        let base = base.ok_or_else(|| {
            let reason = "it is at address zero".to_owned();
            UmemError::Register { frames, reason }
        })?;
        // SAFETY: xsk-rs maps `frames` chunks of CHUNK bytes in one piece, in which a descriptor's address is the offset
        // from the beginning; they stay mapped while its `Umem` lives, which is in the backing.
        Ok(unsafe { Self::over(base, frames, large, Backing::Registered(Box::new(registration))) })
    }

    /// # Safety
    ///
    /// `base` is the first of `frames` chunks that stay mapped while `backing` lives.
    unsafe fn over(base: NonNull<u8>, frames: usize, large: LargeFrames, backing: Backing) -> Arc<Self> {
        Arc::new(Self {
            base,
            ledger: (0..frames).map(|_| AtomicU16::new(Place::FREE.0)).collect(),
            unclaimed: Mutex::new((0..frames as u32).rev().collect()),
            slots: Mutex::new((0..SLOTS_MAX).rev().collect()),
            depot: Depot::new(frames),
            large,
            backing: ManuallyDrop::new(backing),
        })
    }

    /// Frames there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.ledger.len()
    }

    /// Where the frames are, when workers say that they hold `held` of them, large ones included. Exact when workers and kernel stand still.
    #[must_use]
    pub fn account(&self, held: usize) -> FrameAccount {
        let mut account = FrameAccount { total: self.total(), held, ..FrameAccount::default() };
        for entry in &self.ledger {
            match entry.load(Ordering::Relaxed) {
                place if place == Place::FREE.0 => account.free += 1,
                place if place == Place::HELD.0 => {}
                place if (place - Place::FIRST_SLOT).is_multiple_of(2) => account.fill += 1,
                _ => account.transmit += 1,
            }
        }
        let known = account.free + account.fill + account.transmit + held;
        // Large frames are counted with those that are held only: one that is lost shows as one of the others.
        let large = self.large.total() - self.large.free();
        account.leaked = (account.total + large).saturating_sub(known);
        account.held = held.saturating_sub(large);
        account
    }

    /// A place in the ledger for one socket's rings.
    pub(super) fn slot(self: &Arc<Self>) -> Result<Slot, UmemError> {
        let number = locked(&self.slots).pop().ok_or(UmemError::Slots)?;
        Ok(Slot { umem: Arc::clone(self), number })
    }

    /// What the kernel knows the memory as.
    pub(super) fn registration(&self) -> Result<&xsk_rs::Umem, UmemError> {
        match &*self.backing {
            Backing::Registered(registration) => Ok(&registration.umem),
            Backing::Plain(_) => Err(UmemError::NotRegistered),
        }
    }

    /// The chunk's address as rings name it: its offset from the first.
    #[inline]
    pub(super) const fn address(number: u32) -> u64 {
        number as u64 * CHUNK as u64
    }

    /// First byte of the chunk.
    #[inline]
    pub(super) fn chunk(&self, number: u32) -> NonNull<u8> {
        debug_assert!((number as usize) < self.total());
        // SAFETY: numbers come from this UMEM's free lists or `number`, and are below `total`; the chunks are one
        // mapping.
        unsafe { self.base.add(number as usize * CHUNK) }
    }

    /// The number of the chunk at `chunk`. None: it is of another UMEM.
    #[inline]
    pub(super) fn number(&self, chunk: NonNull<u8>) -> Option<u32> {
        let offset = chunk.addr().get().checked_sub(self.base.addr().get())?;
        let number = offset / CHUNK;
        (number < self.total()).then_some(number as u32)
    }

    /// The number of the chunk around `address`, and the offset in it. None: beyond the end.
    #[inline]
    pub(super) fn locate(&self, address: u64) -> Option<(u32, usize)> {
        let number = usize::try_from(address).ok()? / CHUNK;
        (number < self.total()).then_some((number as u32, address as usize % CHUNK))
    }

    /// Enters where a frame is now.
    #[inline]
    pub(super) fn place(&self, number: u32, place: Place) {
        self.ledger[number as usize].store(place.0, Ordering::Relaxed);
    }

    /// Enters where a frame is now, when it was where it is said to have been.
    #[inline]
    pub(super) fn moves(&self, number: u32, from: Place, to: Place) -> bool {
        let entry = &self.ledger[number as usize];
        let was = entry.load(Ordering::Relaxed) == from.0;
        if was {
            entry.store(to.0, Ordering::Relaxed);
        }
        was
    }

    /// Free frames between two pools.
    #[inline]
    pub(super) fn depot(&self) -> &Depot {
        &self.depot
    }

    pub(super) fn claim(&self, wanted: usize, into: &mut Vec<u32>) -> Result<(), UmemError> {
        let mut unclaimed = locked(&self.unclaimed);
        // What ended pools left.
        while unclaimed.len() < wanted && self.depot.take_to(&mut unclaimed) {}
        let left = unclaimed.len();
        let kept = left.checked_sub(wanted).ok_or(UmemError::Exhausted { wanted, left })?;
        into.extend(unclaimed.drain(kept..));
        Ok(())
    }

    pub(super) fn claim_up_to(&self, wanted: usize, into: &mut Vec<u32>) {
        let mut unclaimed = locked(&self.unclaimed);
        let kept = unclaimed.len().saturating_sub(wanted);
        into.extend(unclaimed.drain(kept..));
    }

    pub(super) fn unclaim(&self, numbers: &mut Vec<u32>) {
        locked(&self.unclaimed).append(numbers);
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // A frame that is not free is a token somewhere, or known to the kernel: then the memory must stay, for ever.
        if self.ledger.iter().all(|entry| entry.load(Ordering::Relaxed) == Place::FREE.0) {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.backing) };
        }
    }
}

impl std::fmt::Debug for Umem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Umem").field("frames", &self.total()).finish_non_exhaustive()
    }
}

/// One socket's places in the ledger. Dropped after the socket: every frame its rings still had is free again then, for
/// [`FramePool::top_up`](super::FramePool::top_up).
#[derive(Debug)]
pub(super) struct Slot {
    umem: Arc<Umem>,
    number: u16,
}

impl Slot {
    pub(super) fn fill(&self) -> Place {
        Place::fill(self.number)
    }

    pub(super) fn transmit(&self) -> Place {
        Place::transmit(self.number)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let umem = &self.umem;
        let (fill, transmit) = (self.fill(), self.transmit());
        let mut recovered = (0..umem.total() as u32)
            .filter(|&number| {
                umem.moves(number, fill, Place::FREE) || umem.moves(number, transmit, Place::FREE)
            })
            .collect();
        umem.unclaim(&mut recovered);
        locked(&umem.slots).push(self.number);
    }
}

fn check_count(frames: usize) -> Result<NonZeroUsize, UmemError> {
    let length = if frames <= FRAMES_MAX { NonZeroUsize::new(frames * CHUNK) } else { None };
    length.ok_or(UmemError::FrameCount(frames))
}

fn large_for(frames: usize) -> Result<LargeFrames, UmemError> {
    LargeFrames::beside(frames).map_err(|source| UmemError::Memory { frames, source })
}

/// The lists behind these locks are whole at every step, so that a panic elsewhere spoils nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_frames_that_cannot_be_is_refused() {
        assert!(matches!(Umem::plain(0), Err(UmemError::FrameCount(0))));
        assert!(matches!(Umem::plain(FRAMES_MAX + 1), Err(UmemError::FrameCount(_))));
    }

    #[test]
    fn short_memory_is_told_from_what_else_the_kernel_refuses() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to map it")]
        struct Failed(#[source] io::Error);
        let said = |errno| refused(1 << 20, &Failed(io::Error::from_raw_os_error(errno))).to_string();
        let short = said(libc::ENOMEM);
        assert!(short.starts_with("no memory for 1048576 frames, which take 2048 MiB: "), "{short}");
        assert!(short.ends_with("lower `frames` of vswitchd.toml"), "{short}");
        assert!(said(libc::EPERM).contains("needs CAP_NET_RAW"), "{}", said(libc::EPERM));
    }

    #[test]
    fn a_new_umem_is_free() {
        let account = Umem::plain(16).unwrap().account(0);
        assert_eq!(account, FrameAccount { total: 16, free: 16, ..FrameAccount::default() });
    }

    #[test]
    fn chunks_and_numbers_agree() {
        let umem = Umem::plain(16).unwrap();
        for number in 0..16 {
            assert_eq!(umem.number(umem.chunk(number)), Some(number));
        }
        let other = Umem::plain(1).unwrap();
        assert_eq!(other.number(umem.chunk(3)).or(umem.number(other.chunk(0))), None);
        assert_eq!(umem.locate(2048 * 3 + 200), Some((3, 200)));
        assert_eq!(umem.locate(2048 * 16), None);
    }
}
