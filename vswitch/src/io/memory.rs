//! A port in memory: two bounded queues of packets, and at their other end whoever tests or measures.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};
use vswitch_datapath::{Buffer, Offload, Packet, PortIndex};
use vswitch_model::DropReason;

use super::frame::{CHUNK, HEADROOM};
use super::{Capabilities, Frame, FramePool, Port, PortState, PortStatistics, Refused};

/// A packet outside the UMEM.
#[derive(Debug)]
struct Slot {
    bytes: Vec<u8>,
    offload: Offload,
}

/// One direction: as many slots as its capacity, each in one of the two queues or being copied.
#[derive(Debug)]
struct Lane {
    full: ArrayQueue<Slot>,
    empty: ArrayQueue<Slot>,
}

impl Lane {
    fn new(capacity: usize) -> Self {
        let lane = Self { full: ArrayQueue::new(capacity), empty: ArrayQueue::new(capacity) };
        for _ in 0..capacity {
            let slot = Slot { bytes: Vec::with_capacity(CHUNK), offload: Offload::default() };
            lane.empty.push(slot).expect("the queue holds as many slots as are made");
        }
        lane
    }

    /// False: full, or longer than a slot.
    fn send(&self, bytes: &[u8], offload: Offload) -> bool {
        if bytes.len() > CHUNK {
            return false;
        }
        let Some(mut slot) = self.empty.pop() else { return false };
        slot.bytes.clear();
        slot.bytes.extend_from_slice(bytes);
        slot.offload = offload;
        self.full.push(slot).is_ok()
    }

    fn receive<T>(&self, take: impl FnOnce(&Slot) -> T) -> Option<T> {
        let slot = self.full.pop()?;
        let taken = take(&slot);
        // A lane has exactly as many slots as its queues have places.
        let _ = self.empty.push(slot);
        Some(taken)
    }
}

#[derive(Debug)]
struct Wire {
    to_port: Lane,
    to_peer: Lane,
    closed: AtomicBool,
    /// Set while the event below is raised; spares a system call for each packet.
    raised: AtomicBool,
    event: EventFd,
}

/// The worker's end.
#[derive(Debug)]
pub struct MemoryPort {
    name: String,
    index: PortIndex,
    capabilities: Capabilities,
    wire: Arc<Wire>,
    statistics: PortStatistics,
}

/// The other end: sends what the port receives, and receives what it sends. May be cloned and used by any thread.
#[derive(Debug, Clone)]
pub struct MemoryPeer {
    wire: Arc<Wire>,
}

/// A port and its other end, with room for `capacity` packets in each direction. The port passes partial checksums on.
///
/// # Errors
///
/// The kernel's, when it has no event descriptor left.
pub fn pair(name: &str, index: PortIndex, capacity: usize) -> nix::Result<(MemoryPort, MemoryPeer)> {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let wire = Arc::new(Wire {
        to_port: Lane::new(capacity.max(1)),
        to_peer: Lane::new(capacity.max(1)),
        closed: AtomicBool::new(false),
        raised: AtomicBool::new(false),
        event,
    });
    let port = MemoryPort {
        name: name.to_owned(),
        index,
        capabilities: Capabilities {
            partial_checksum: true,
            large: false,
            frame_length_max: CHUNK - HEADROOM,
        },
        wire: Arc::clone(&wire),
        statistics: PortStatistics::default(),
    };
    Ok((port, MemoryPeer { wire }))
}

impl MemoryPort {
    /// The same port with other capabilities. Where partial checksums do not pass, it finishes them.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }
}

impl MemoryPeer {
    /// Puts a packet on the wire. False: the queue is full, the port is closed, or the packet is longer than a frame.
    pub fn send(&self, bytes: &[u8]) -> bool {
        self.send_offload(bytes, Offload::default())
    }

    /// The same for a packet that leaves something to be done.
    pub fn send_offload(&self, bytes: &[u8], offload: Offload) -> bool {
        let wire = &self.wire;
        let sent = !self.closed() && bytes.len() <= CHUNK - HEADROOM && wire.to_port.send(bytes, offload);
        if sent && !wire.raised.swap(true, Ordering::AcqRel) {
            // The only error is an overflowing counter, which is raised too.
            let _ = wire.event.write(1);
        }
        sent
    }

    /// Takes the next packet the port has sent.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.receive_offload().map(|(bytes, _)| bytes)
    }

    /// The same with what is left to be done to it.
    #[must_use]
    pub fn receive_offload(&self) -> Option<(Vec<u8>, Offload)> {
        self.wire.to_peer.receive(|slot| (slot.bytes.clone(), slot.offload))
    }

    /// Lets `look` see the next packet the port has sent, without copying it. For measurements.
    pub fn receive_with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.wire.to_peer.receive(|slot| look(&slot.bytes))
    }

    /// Packets waiting for the port to receive them.
    #[must_use]
    pub fn unreceived(&self) -> usize {
        self.wire.to_port.full.len()
    }

    /// Whether the port was closed.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.wire.closed.load(Ordering::Acquire)
    }
}

impl Port for MemoryPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> PortIndex {
        self.index
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn state(&self) -> PortState {
        PortState::Up
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize {
        if self.wire.raised.load(Ordering::Acquire) {
            // Lowered before looking: what comes after the look raises it again.
            let _ = self.wire.event.read();
            self.wire.raised.store(false, Ordering::Release);
        }
        let budget = budget.min(into.capacity() - into.len());
        let mut received = 0;
        while received < budget && !self.wire.to_port.full.is_empty() {
            let Some(mut frame) = pool.take() else {
                self.statistics.frames_exhausted += 1;
                break;
            };
            match self.wire.to_port.receive(|slot| (frame.fill(&slot.bytes), slot.offload)) {
                Some((true, offload)) => {
                    into.push(Packet { buffer: frame, port: self.index, offload });
                    received += 1;
                }
                Some((false, _)) => {
                    self.statistics.receive_dropped += 1;
                    pool.put(frame);
                }
                None => pool.put(frame),
            }
        }
        self.raise();
        received
    }

    fn waiting(&mut self) -> usize {
        self.wire.to_port.full.len()
    }

    fn transmit(&mut self, pool: &mut FramePool, mut packet: Packet<Frame>) -> Result<(), Refused> {
        if packet.buffer.bytes().len() > self.capabilities.frame_length_max {
            return Err(Refused::new(packet, DropReason::TransmitRefused));
        }
        if !self.capabilities.partial_checksum && !super::offload::settle(&mut packet) {
            return Err(Refused::new(packet, DropReason::TransmitRefused));
        }
        if !self.wire.to_peer.send(packet.buffer.bytes(), packet.offload) {
            return Err(Refused::new(packet, DropReason::TransmitRingFull));
        }
        pool.put(packet.buffer);
        Ok(())
    }

    fn flush(&mut self) {}

    fn reap(&mut self, _: &mut FramePool) {}

    fn unsent(&self) -> bool {
        false
    }

    fn fd(&self, number: usize) -> Option<BorrowedFd<'_>> {
        (number == 0).then(|| self.wire.event.as_fd())
    }

    fn statistics(&mut self) -> PortStatistics {
        self.statistics
    }

    fn close(self: Box<Self>, _: &mut FramePool) {}
}

impl MemoryPort {
    /// More is waiting than was taken: stay readable.
    fn raise(&self) {
        if !self.wire.to_port.full.is_empty() && !self.wire.raised.swap(true, Ordering::AcqRel) {
            let _ = self.wire.event.write(1);
        }
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        self.wire.closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use vswitch_datapath::PartialChecksum;

    use super::*;
    use crate::io::Umem;

    fn setup(frames: usize, capacity: usize) -> (FramePool, Box<MemoryPort>, MemoryPeer) {
        let pool = FramePool::new(&Umem::plain(frames).unwrap(), frames).unwrap();
        let (port, peer) = pair("mem0", PortIndex(7), capacity).unwrap();
        (pool, Box::new(port), peer)
    }

    fn readable(port: &MemoryPort) -> bool {
        let mut fds = [PollFd::new(port.fd(0).unwrap(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn packets_pass_both_ways_in_order() {
        let (mut pool, mut port, peer) = setup(8, 4);
        for n in 0..3u8 {
            assert!(peer.send(&[n; 60]));
        }
        let mut batch = Vec::with_capacity(64);
        assert_eq!(port.receive(&mut pool, &mut batch, 2), 2);
        assert_eq!(port.receive(&mut pool, &mut batch, 64), 1);
        for (n, packet) in batch.drain(..).enumerate() {
            assert_eq!((packet.port, packet.buffer.bytes()[0]), (PortIndex(7), n as u8));
            port.transmit(&mut pool, packet).unwrap();
        }
        let seen: Vec<u8> = std::iter::from_fn(|| peer.receive()).map(|bytes| bytes[0]).collect();
        assert_eq!(seen, [0, 1, 2]);
        port.close(&mut pool);
        assert!(peer.closed() && !peer.send(&[0; 60]));
        assert_eq!(pool.free(), 8);
    }

    #[test]
    fn a_full_queue_gives_the_packet_back() {
        let (mut pool, mut port, peer) = setup(8, 2);
        let mut refused = 0;
        for _ in 0..4 {
            let mut frame = pool.take().unwrap();
            assert!(frame.fill(&[1; 60]));
            let packet = Packet { buffer: frame, port: PortIndex(7), offload: Offload::default() };
            if let Err(back) = port.transmit(&mut pool, packet) {
                assert_eq!(back.reason, DropReason::TransmitRingFull);
                pool.put(back.packet.buffer);
                refused += 1;
            }
        }
        assert_eq!((refused, pool.free()), (2, 8));
        assert_eq!(std::iter::from_fn(|| peer.receive()).count(), 2);
    }

    #[test]
    fn an_exhausted_pool_leaves_packets_queued_and_is_counted() {
        let (mut pool, mut port, peer) = setup(2, 4);
        assert!((0..3).all(|_| peer.send(&[0; 60])));
        let mut batch = Vec::with_capacity(64);
        assert_eq!(port.receive(&mut pool, &mut batch, 64), 2);
        assert_eq!((peer.unreceived(), port.statistics().frames_exhausted), (1, 1));
        pool.put_all(batch.drain(..).map(|packet| packet.buffer));
        assert_eq!(port.receive(&mut pool, &mut batch, 64), 1);
        pool.put_all(batch.drain(..).map(|packet| packet.buffer));
    }

    #[test]
    fn it_is_readable_exactly_while_something_waits() {
        let (mut pool, mut port, peer) = setup(8, 4);
        assert!(!readable(&port));
        assert!(peer.send(&[0; 60]) && peer.send(&[0; 60]));
        assert!(readable(&port));
        let mut batch = Vec::with_capacity(64);
        port.receive(&mut pool, &mut batch, 1);
        assert!(readable(&port), "one is still waiting");
        port.receive(&mut pool, &mut batch, 64);
        assert!(!readable(&port));
        assert!(peer.send(&[0; 60]) && readable(&port));
        pool.put_all(batch.drain(..).map(|packet| packet.buffer));
    }

    #[test]
    fn a_partial_checksum_passes_or_is_finished() {
        for passes in [true, false] {
            let (mut pool, port, peer) = setup(2, 2);
            let capabilities = Capabilities { partial_checksum: passes, ..port.capabilities() };
            let mut port = port.with_capabilities(capabilities);
            let checksum = Some(PartialChecksum { start: 14, offset: 4 });
            assert!(peer.send_offload(&[0x11; 60], Offload { checksum, segment: None }));
            let mut batch = Vec::with_capacity(2);
            port.receive(&mut pool, &mut batch, 2);
            port.transmit(&mut pool, batch.pop().unwrap()).unwrap();
            let (bytes, offload) = peer.receive_offload().unwrap();
            assert_eq!(offload.checksum.is_some(), passes);
            assert_eq!(bytes[18..20] == [0x11, 0x11], passes);
        }
    }
}
