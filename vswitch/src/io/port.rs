//! What a port is, whatever is behind it.
//!
//! # Life of a port
//!
//! A port is opened by the function of its kind (`AfXdpPort::open`, `TunPort::open`, `memory::pair`, ...) on any thread, and
//! then moved to the worker that owns it; from then on only that worker calls it, between two of its sleeps:
//!
//! | step | call | when | what it does |
//! |---|---|---|---|
//! | 1 | [`Port::receive`] | every turn for hot ports, seldom for cold ones | moves up to a budget of packets to the worker; lends free frames to the kernel in their place; [`Port::waiting`] says what is left |
//! | 2 | [`Port::transmit`] | for each packet that leaves by it | takes the packet, or gives it back with the drop reason |
//! | 3 | [`Port::flush`] | once a turn for each port that was transmitted on | hands what was queued to the kernel, in one system call where there is one |
//! | 4 | [`Port::reap`] | once a turn, before frames run short | brings sent frames home to the pool |
//! | 5 | [`Port::fd`] | before the worker sleeps | what to wait for, each of several queues by itself; readable when there is something to receive |
//! | 6 | [`Port::statistics`] | seldom: it makes system calls | counters, and a fresh look whether the device is still there |
//! | 7 | [`Port::close`] | once, last | ends the port; every frame it had is in the pool afterwards |
//!
//! Steps 1 to 5 never block, allocate or panic. A port whose device vanishes goes on being called: it receives nothing
//! and gives back what it is to transmit ([`DropReason::PortGone`]), until it is closed. A device that is only down comes
//! back by itself.
//!
//! Dropping a port instead of closing it is allowed: its frames go to the UMEM then, and
//! [`FramePool::top_up`] finds them there. Closing takes the kernel 10 to 30 ms for an AF_XDP port, in which the worker would
//! stand still: a worker that carries traffic hands the port to another thread to be dropped, and tops up when that is done.

use std::os::fd::BorrowedFd;

use vswitch_datapath::{Packet, PortIndex};
use vswitch_model::DropReason;

use super::{Frame, FramePool};

/// A packet that a port did not take.
#[derive(Debug)]
pub struct Refused {
    /// The packet, unchanged.
    pub packet: Packet<Frame>,
    /// Why.
    pub reason: DropReason,
}

impl Refused {
    pub(crate) fn new(packet: Packet<Frame>, reason: DropReason) -> Self {
        Self { packet, reason }
    }
}

/// What a port can do with a packet that leaves by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A checksum that is to be finished passes as it is. Where this is false the port finishes it in software, which
    /// costs a pass over the packet.
    pub partial_checksum: bool,
    /// A packet that is to be cut into segments passes as it is.
    pub large: bool,
    /// Longest Ethernet frame it can send or receive, in bytes without FCS; of what is to be cut, its pieces.
    pub frame_length_max: usize,
}

/// Whether a port's device works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortState {
    /// It works.
    Up,
    /// It is there, but set down. Packets wait in the ring until it is full.
    Down,
    /// It is no more. Close the port.
    Gone,
}

/// What only a port knows; packets, bytes and drops by reason are the worker's counters. All count from opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStatistics {
    /// Packets the kernel dropped because our receive ring was full: the worker was too slow.
    pub receive_ring_full: u64,
    /// Packets the kernel dropped because it had no frame to receive into.
    pub fill_ring_empty: u64,
    /// Packets the kernel dropped on receiving for another reason, such as one that is larger than a frame.
    pub receive_dropped: u64,
    /// Descriptors the kernel, or we, refused as invalid. More than zero is a bug.
    pub invalid_descriptors: u64,
    /// Times the pool had no frame for the port.
    pub frames_exhausted: u64,
    /// System calls to hand over or to wake.
    pub kicks: u64,
    /// Of these, how many had to be repeated because the kernel was busy.
    pub kicks_repeated: u64,
    /// Packets the kernel refused on transmission after it had taken them.
    pub transmit_refused: u64,
}

impl PortStatistics {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            receive_ring_full: self.receive_ring_full + other.receive_ring_full,
            fill_ring_empty: self.fill_ring_empty + other.fill_ring_empty,
            receive_dropped: self.receive_dropped + other.receive_dropped,
            invalid_descriptors: self.invalid_descriptors + other.invalid_descriptors,
            frames_exhausted: self.frames_exhausted + other.frames_exhausted,
            kicks: self.kicks + other.kicks,
            kicks_repeated: self.kicks_repeated + other.kicks_repeated,
            transmit_refused: self.transmit_refused + other.transmit_refused,
        }
    }
}

/// Something that frames enter and leave by. The module's documentation tells its life.
pub trait Port: Send {
    /// The name of its device, for people.
    fn name(&self) -> &str;

    /// The number it was opened with: [`Packet::port`] of what it receives.
    fn index(&self) -> PortIndex;

    /// What it can do. Does not change.
    fn capabilities(&self) -> Capabilities;

    /// Whether its device works, as far as the last calls showed. No system call.
    fn state(&self) -> PortState;

    /// Appends up to `budget` received packets to `into`, within its capacity, and returns how many came: those it refused
    /// count as well, since they cost as much.
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize;

    /// Whether the last [`Port::receive`] brought less than its budget although more may wait: it stopped at packets that cost
    /// more than their number tells.
    fn stopped_short(&self) -> bool {
        false
    }

    /// Packets that can be received now, at least: what a visit that did not empty it has left. A device that does not tell
    /// is taken to go on as it did: as many as it has brought since it was last found empty, 0 when it has just been.
    fn waiting(&mut self) -> usize;

    /// Queues a packet, which leaves with the next [`Port::flush`]; or gives it back with the reason.
    fn transmit(&mut self, pool: &mut FramePool, packet: Packet<Frame>) -> Result<(), Refused>;

    /// Hands what is queued to the kernel. What it cannot take now goes with the next flush.
    fn flush(&mut self);

    /// Brings frames that have been sent home to the pool.
    fn reap(&mut self, pool: &mut FramePool);

    /// Whether it holds packets that were queued but not handed over yet: the worker must not sleep long then.
    fn unsent(&self) -> bool;

    /// One of its descriptors, numbered from 0: readable when there is something to receive by it. None: it has no more of them;
    /// where it has none at all, it never has anything, or cannot tell.
    fn fd(&self, number: usize) -> Option<BorrowedFd<'_>>;

    /// Its counters. Makes system calls.
    fn statistics(&mut self) -> PortStatistics;

    /// Ends it. All frames it had are in the pool when this returns, or in the UMEM if the pool has its full share.
    fn close(self: Box<Self>, pool: &mut FramePool);
}
