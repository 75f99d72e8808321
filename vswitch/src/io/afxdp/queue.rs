//! One AF_XDP socket: one receive queue of a device, with its four rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::xdp_desc;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt};
use vswitch_datapath::{BATCH, Buffer, Offload, Packet, PortIndex};
use xsk_rs::socket::XdpStatistics;
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

use super::ring::Mapped;
use crate::io::umem::{Slot, Umem};
use crate::io::{Frame, FramePool, PortState, PortStatistics};

/// System calls of one flush before the rest is left to the next one.
const KICKS_MAX: u32 = 32;
/// Visits that found little after which a socket is lent half as many frames: some 50 ms of a worker that spins.
const QUIET_TURNS: u32 = 1 << 20;
/// A socket is busy when at once this part of the frames it is lent had come.
const BUSY_PART: usize = 2;
/// It is quiet when less than this part had.
const QUIET_PART: usize = 8;
/// Fewest frames lent at once, so that the ring is not touched for each packet.
const REFILL: usize = 16;
/// Frames a quiet socket is lent once half of the pool is gone, so that there are some for ports to come.
const MODEST: usize = 64;
/// Frames a quiet socket is lent once three quarters of the pool are gone, and any socket once all but an eighth is: what is
/// between is for the busy ones, however many quiet ones there are.
const FRUGAL: usize = 32;

/// How many frames a socket is lent to receive into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// When it is idle: what comes while the worker is away for a moment. Fewer when frames run short.
    pub idle: usize,
    /// At most, when it is busy: at most the size of the rings.
    pub busy: usize,
}

/// Fields are dropped in this order: our mapping before the socket, the ledger's slot after it.
#[derive(Debug)]
pub(super) struct Queue {
    rings: Mapped,
    /// The socket itself, and what else xsk-rs has of it.
    socket: Rings,
    slot: Slot,
    fill: Fill,
    /// Frames it is to be lent now, between `fill.idle` and `fill.busy`.
    target: usize,
    lent: usize,
    in_flight: usize,
    /// There was no room, and the kernel made none: it is asked again after the next look for sent frames, and not for
    /// every packet.
    full: bool,
    quiet: u32,
    numbers: Box<[u32; BATCH]>,
    state: PortState,
    counted: PortStatistics,
}

/// A socket as xsk-rs gives it: open while these are.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) fill: FillQueue,
    #[expect(dead_code, reason = "kept for the socket's life: completions are taken from our own mapping")]
    pub(super) completion: CompQueue,
}

impl Queue {
    /// The socket with these rings, which were made with `size` descriptors each.
    pub(super) fn new(rings: Rings, size: u32, fill: Fill, slot: Slot) -> io::Result<Self> {
        Ok(Self {
            rings: Mapped::of(borrow(&rings.tx), size)?,
            socket: rings,
            slot,
            fill,
            target: fill.idle,
            lent: 0,
            in_flight: 0,
            full: false,
            quiet: 0,
            numbers: Box::new([0; BATCH]),
            state: PortState::Up,
            counted: PortStatistics::default(),
        })
    }

    pub(super) fn state(&self) -> PortState {
        self.state
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket.tx)
    }

    pub(super) fn receive(
        &mut self,
        pool: &mut FramePool,
        into: &mut Vec<Packet<Frame>>,
        port: PortIndex,
        budget: usize,
    ) -> usize {
        let budget = budget.min(BATCH).min(into.capacity() - into.len());
        let found = self.rings.rx.waiting(budget as u32) as usize;
        let count = found.min(budget);
        self.follow_load(found);
        for xdp_desc { addr, len, .. } in std::iter::from_fn(|| self.rings.rx.pop()).take(count) {
            match pool.back_with_packet(addr, len as usize, self.slot.fill()) {
                Some(frame) => {
                    self.lent -= 1;
                    into.push(Packet { buffer: frame, port, offload: Offload::default() });
                }
                None => self.counted.invalid_descriptors += 1,
            }
        }
        if count > 0 {
            self.rings.rx.release();
        }
        if self.state != PortState::Gone {
            self.refill(pool);
        }
        count
    }

    /// Packets that wait to be received.
    #[inline]
    pub(super) fn waiting(&mut self) -> usize {
        self.rings.rx.waiting(u32::MAX) as usize
    }

    /// A socket is lent more frames when it was found to have used up half of them, so that a longer absence would have lost
    /// packets; fewer when for long it has used next to none. No more than it needs: the frames of a ring go round, and those
    /// of a long one have left the caches when their turn comes.
    #[inline]
    fn follow_load(&mut self, found: usize) {
        if found > 0 && found * BUSY_PART >= self.lent {
            self.quiet = 0;
            self.target = (self.target * 2).min(self.fill.busy);
        } else if found > 0 && found * QUIET_PART >= self.lent {
            self.quiet = 0;
        } else {
            self.quiet += 1;
            if self.quiet >= QUIET_TURNS {
                self.quiet = 0;
                self.target = (self.target / 2).max(self.fill.idle);
            }
        }
    }

    /// How many frames it may have by what it needs, and by what the pool has left.
    #[inline]
    fn affordable(&self, pool: &FramePool) -> usize {
        let (free, share, quiet) = (pool.free(), pool.share(), self.target == self.fill.idle);
        match free {
            _ if free < share / 8 || (quiet && free < share / 4) => self.target.min(FRUGAL),
            _ if quiet && free < share / 2 => self.target.min(MODEST),
            _ => self.target,
        }
    }

    #[inline]
    fn refill(&mut self, pool: &mut FramePool) {
        // Asked anew for every batch: the first to come must not take what the next are to begin with.
        while self.lent + REFILL <= self.affordable(pool) {
            let wanted = (self.affordable(pool) - self.lent).min(BATCH);
            let count = pool.lend_free(self.slot.fill(), &mut self.numbers[..wanted]);
            if count == 0 {
                self.counted.frames_exhausted += 1;
                break;
            }
            let numbers = &self.numbers[..count];
            // The ledger has these chunks lent to this ring now: no token of them exists, no other ring has them.
            let pushed =
                numbers.iter().take_while(|&&number| self.rings.fill.push(Umem::address(number))).count();
            self.lent += pushed;
            if pushed < count {
                pool.unlend(&numbers[pushed..]);
                break;
            }
        }
        self.rings.fill.publish();
        if self.rings.fill.needs_wakeup() {
            self.counted.kicks += 1;
            // Its failure is the device's: the next kick or look will tell.
            let _ = self.socket.fill.wakeup(self.socket.rx.fd_mut(), 0);
        }
    }

    /// Room for one more packet, making some when there is none.
    #[inline]
    pub(super) fn has_room(&mut self, pool: &mut FramePool, completions: usize) -> bool {
        if self.rings.tx.free() > 0 && self.in_flight < completions {
            return true;
        }
        if self.full {
            return false;
        }
        self.flush();
        self.reap(pool);
        self.full = self.rings.tx.free() == 0 || self.in_flight >= completions;
        !self.full
    }

    /// Queues a packet for which there is room. Gives the frame back when it is not of this UMEM.
    #[inline]
    pub(super) fn push(&mut self, pool: &FramePool, frame: Frame) -> Result<(), Frame> {
        let length = frame.bytes().len() as u32;
        let address = pool.lend(frame, self.slot.transmit())?;
        let pushed = self.rings.tx.push(xdp_desc { addr: address, len: length, options: 0 });
        debug_assert!(pushed, "the caller saw room");
        self.in_flight += 1;
        Ok(())
    }

    #[inline]
    pub(super) fn unsent(&self) -> bool {
        self.state == PortState::Up && self.rings.tx.maybe_unconsumed()
    }

    pub(super) fn flush(&mut self) {
        if !self.rings.tx.maybe_unconsumed() || self.state == PortState::Gone {
            return;
        }
        self.rings.tx.publish();
        self.rings.tx.look();
        let mut kicks = 0;
        while self.rings.tx.maybe_unconsumed() && self.rings.tx.needs_wakeup() && kicks < KICKS_MAX {
            let before = self.rings.tx.unconsumed();
            let result = send(self.fd().as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT);
            self.counted.kicks += 1;
            self.rings.tx.look();
            kicks += 1;
            let progress = self.rings.tx.unconsumed() != before;
            if !self.kicked(result.err(), progress) {
                return;
            }
            self.counted.kicks_repeated += u64::from(self.rings.tx.maybe_unconsumed());
        }
    }

    /// Whether it is worth trying again at once, after a kick with this result.
    fn kicked(&mut self, error: Option<Errno>, progress: bool) -> bool {
        match error {
            None => {
                self.state = PortState::Up;
                progress
            }
            // The budget is used up, or the completion ring or the socket's buffer is full (xsk_generic_xmit).
            Some(Errno::EAGAIN) => progress,
            // One packet was consumed and dropped by the device.
            Some(Errno::EBUSY) => {
                self.counted.transmit_refused += 1;
                progress
            }
            Some(Errno::ENOBUFS | Errno::EINTR) => false,
            // Down, or being deleted: only the socket's own error tells which.
            Some(Errno::ENETDOWN) => {
                self.look_for_device();
                if self.state != PortState::Gone {
                    self.state = PortState::Down;
                }
                false
            }
            // Unbound: the device is no more (xsk_notifier).
            Some(_) => {
                self.state = PortState::Gone;
                false
            }
        }
    }

    /// The kernel leaves ENETDOWN in the socket when its device is deleted.
    fn look_for_device(&mut self) {
        if getsockopt(&self.fd(), sockopt::SocketError).is_ok_and(|error| error != 0) {
            self.state = PortState::Gone;
        }
    }

    pub(super) fn reap(&mut self, pool: &mut FramePool) {
        self.full = false;
        if self.in_flight == 0 || self.rings.completion.waiting(self.in_flight as u32) == 0 {
            return;
        }
        while let Some(address) = self.rings.completion.pop() {
            if pool.back_free(address, self.slot.transmit()) {
                self.in_flight -= 1;
            } else {
                self.counted.invalid_descriptors += 1;
            }
        }
        self.rings.completion.release();
    }

    pub(super) fn statistics(&mut self) -> PortStatistics {
        self.look_for_device();
        let kernel: XdpStatistics = self.socket.tx.fd().xdp_statistics().unwrap_or_default();
        PortStatistics {
            receive_ring_full: kernel.rx_ring_full(),
            fill_ring_empty: kernel.rx_fill_ring_empty_descs(),
            // The kernel counts what it had no frame for here too.
            receive_dropped: kernel.rx_dropped().saturating_sub(kernel.rx_fill_ring_empty_descs()),
            invalid_descriptors: self.counted.invalid_descriptors
                + kernel.rx_invalid_descs()
                + kernel.tx_invalid_descs(),
            ..self.counted
        }
    }
}

fn borrow(tx: &TxQueue) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open while the queue, which is borrowed for as long, keeps its socket.
    unsafe { BorrowedFd::borrow_raw(tx.fd().as_raw_fd()) }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}
