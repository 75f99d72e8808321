//! Ports on AF_XDP: veths of pods, and uplinks. Copy mode, any driver.
//!
//! [`Devices`] opens them: it keeps the steering program of each network namespace, and knows what is ours. A port holds its
//! sockets, one a receive queue, and the program's attachment to its device.

mod open;
mod queue;
mod ring;

#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vswitch_datapath::{Buffer, Packet, PortIndex};
use vswitch_model::DropReason;
use vswitch_xdp::{Device, Mode};

pub use open::{Devices, OpenError, Options};
pub use queue::Fill;
use queue::Queue;

use super::frame::{CHUNK, HEADROOM};
use super::rings::RINGS;
use super::{Capabilities, Frame, FramePool, Port, PortState, PortStatistics, Refused, offload};

/// Shortest frame the kernel transmits: an Ethernet header.
const FRAME_LENGTH_MIN: usize = 14;
/// A port that is down is tried again every so many flushes.
const DOWN_FLUSHES: u32 = 256;

/// A device with its AF_XDP sockets, or a part of them. Made by [`Devices::open`] and [`Devices::open_parts`].
///
/// Fields are dropped in this order: the program is taken off the device before the sockets close.
#[derive(Debug)]
pub struct AfXdpPort {
    name: String,
    index: PortIndex,
    /// Of all parts; the last one to go takes the program off.
    device: Arc<Device>,
    queues: Vec<Queue>,
    /// The queue that is received from first, in turn.
    turn: usize,
    down_flushes: u32,
}

impl AfXdpPort {
    /// Whether the driver runs the program, or the kernel's slower generic hook.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.device.mode()
    }

    /// Its receive queues, each with its socket.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }
}

impl Port for AfXdpPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> PortIndex {
        self.index
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { partial_checksum: false, large: false, frame_length_max: CHUNK - HEADROOM }
    }

    fn state(&self) -> PortState {
        let states = || self.queues.iter().map(Queue::state);
        if states().any(|state| state == PortState::Gone) {
            PortState::Gone
        } else if states().any(|state| state == PortState::Down) {
            PortState::Down
        } else {
            PortState::Up
        }
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize {
        let count = self.queues.len();
        let mut received = 0;
        for step in 0..count {
            let queue = &mut self.queues[(self.turn + step) % count];
            received += queue.receive(pool, into, self.index, budget - received);
        }
        self.turn = (self.turn + 1) % count;
        received
    }

    fn transmit(&mut self, pool: &mut FramePool, mut packet: Packet<Frame>) -> Result<(), Refused> {
        let length = packet.buffer.bytes().len();
        let queue = &mut self.queues[0];
        if queue.state() == PortState::Gone {
            return Err(Refused::new(packet, DropReason::PortGone));
        }
        if length < FRAME_LENGTH_MIN || !offload::settle(&mut packet) {
            return Err(Refused::new(packet, DropReason::TransmitRefused));
        }
        if !queue.has_room(pool, RINGS as usize) {
            return Err(Refused::new(packet, DropReason::TransmitRingFull));
        }
        let Packet { buffer, port, offload } = packet;
        queue
            .push(pool, buffer)
            .or_else(|buffer| match pool.move_to_small(buffer) {
                Ok(small) => queue.push(pool, small),
                Err(buffer) => Err(buffer),
            })
            .map_err(|buffer| Refused::new(Packet { buffer, port, offload }, DropReason::TransmitRefused))
    }

    fn waiting(&mut self) -> usize {
        self.queues.iter_mut().map(Queue::waiting).sum()
    }

    fn flush(&mut self) {
        if self.queues[0].state() == PortState::Down {
            self.down_flushes = (self.down_flushes + 1) % DOWN_FLUSHES;
            if self.down_flushes != 0 {
                return;
            }
        }
        self.queues[0].flush();
    }

    fn reap(&mut self, pool: &mut FramePool) {
        self.queues[0].reap(pool);
    }

    fn unsent(&self) -> bool {
        self.queues[0].unsent()
    }

    fn fd(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.queues.get(number).map(Queue::fd)
    }

    fn statistics(&mut self) -> PortStatistics {
        self.queues.iter_mut().map(Queue::statistics).fold(PortStatistics::default(), PortStatistics::plus)
    }

    fn close(mut self: Box<Self>, pool: &mut FramePool) {
        self.queues[0].flush();
        self.queues[0].reap(pool);
        drop(self);
        pool.top_up();
    }
}
