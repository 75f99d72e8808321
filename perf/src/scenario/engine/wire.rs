//! Ports in memory that cost as little as a port can: what a turn takes is the switch's own, and one copy of each packet.
//!
//! What a port is to receive lies ready before the turn; what it transmits is counted. Both as an AF_XDP port would: a
//! copy into a frame of the pool for each packet (there the kernel's), one look at a shared word for each visit.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use vswitch::engine::{Device, DeviceError, Devices};
use vswitch::io::{Capabilities, Frame, FramePool, Port, PortState, PortStatistics, Refused, Umem};
use vswitch_datapath::{Buffer, Offload, Packet, PortIndex};
use vswitch_xdp::TunnelEndpoint;

/// Longest frame that is carried, without FCS: a chunk less its headroom.
const FRAME_MAX: usize = 2048 - 256;

/// The far end of a port.
#[derive(Debug, Default)]
pub struct Wire {
    /// Frames of `staged` that may be received now.
    waiting: AtomicUsize,
    /// Packets that wait behind those, and do not lie ready yet.
    behind: AtomicUsize,
    staged: Mutex<Staged>,
    /// Packets the port has transmitted, as of its last flush.
    arrived: AtomicU64,
    /// Every so many packets one is lost on the wire; 0: none is.
    lose_every: AtomicU64,
    /// The packet transmitted last, when somebody wants to see it.
    kept: Mutex<Option<Vec<u8>>>,
}

/// Frames lying ready. The vector's frames keep their memory.
#[derive(Debug, Default)]
struct Staged {
    frames: Vec<Vec<u8>>,
    next: usize,
    end: usize,
}

impl Wire {
    /// Lays `count` frames ready in place of those before, written by `write`, which is given their number.
    pub fn stage(&self, count: usize, mut write: impl FnMut(usize, &mut Vec<u8>)) {
        let mut staged = locked(&self.staged);
        if staged.frames.len() < count {
            staged.frames.resize_with(count, || Vec::with_capacity(FRAME_MAX));
        }
        staged.frames.iter_mut().take(count).enumerate().for_each(|(number, frame)| write(number, frame));
        (staged.next, staged.end) = (0, count);
    }

    /// Lays the same frames ready again.
    pub fn rewind(&self) {
        locked(&self.staged).next = 0;
    }

    /// Lets the port receive `count` of the frames that lie ready; fewer when there are no more.
    pub fn release(&self, count: usize) -> usize {
        let staged = locked(&self.staged);
        let count = count.min(staged.end - staged.next);
        self.waiting.store(count, Ordering::Relaxed);
        count
    }

    /// Has the port know of so many packets that wait behind those released.
    pub fn queue_behind(&self, count: usize) {
        self.behind.store(count, Ordering::Relaxed);
    }

    /// Packets released and not received yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Packets that came out at this end.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// From now on loses one of so many packets without a word: what a measurement has to notice.
    #[cfg(test)]
    pub fn lose_every(&self, packets: u64) {
        self.lose_every.store(packets, Ordering::Relaxed);
    }

    /// Keeps the packet transmitted last; gives the one kept so far.
    #[cfg(test)]
    pub fn keep(&self) -> Vec<u8> {
        locked(&self.kept).replace(Vec::new()).unwrap_or_default()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker's end.
#[derive(Debug)]
pub struct WirePort {
    name: String,
    index: PortIndex,
    wire: Arc<Wire>,
    transmitted: u64,
    lost: u64,
    lose_every: u64,
    keep: bool,
}

impl WirePort {
    /// The port at the near end of `wire`.
    #[must_use]
    pub fn new(name: &str, index: PortIndex, wire: Arc<Wire>) -> Self {
        Self { name: name.to_owned(), index, wire, transmitted: 0, lost: 0, lose_every: 0, keep: false }
    }
}

impl Port for WirePort {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> PortIndex {
        self.index
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { partial_checksum: false, large: false, frame_length_max: FRAME_MAX }
    }

    fn state(&self) -> PortState {
        PortState::Up
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize {
        let waiting = self.wire.waiting.load(Ordering::Relaxed);
        if waiting == 0 {
            return 0;
        }
        let mut staged = locked(&self.wire.staged);
        let Staged { frames, next, end } = &mut *staged;
        let budget = budget.min(waiting).min(into.capacity() - into.len());
        let before = *next;
        for bytes in frames[*next..*end].iter().take(budget) {
            let Some(mut frame) = pool.take() else { break };
            if !frame.fill(bytes) {
                pool.put(frame);
                break;
            }
            into.push(Packet { buffer: frame, port: self.index, offload: Offload::default() });
            *next += 1;
        }
        self.wire.waiting.store(waiting - (*next - before), Ordering::Relaxed);
        *next - before
    }

    fn waiting(&mut self) -> usize {
        self.wire.waiting() + self.wire.behind.load(Ordering::Relaxed)
    }

    fn transmit(&mut self, pool: &mut FramePool, packet: Packet<Frame>) -> Result<(), Refused> {
        if self.keep
            && let Some(kept) = &mut *locked(&self.wire.kept)
        {
            packet.buffer.bytes().clone_into(kept);
        }
        pool.put(packet.buffer);
        self.transmitted += 1;
        if self.lose_every > 0 && self.transmitted.is_multiple_of(self.lose_every) {
            self.lost += 1;
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.wire.arrived.store(self.transmitted - self.lost, Ordering::Relaxed);
        self.lose_every = self.wire.lose_every.load(Ordering::Relaxed);
        self.keep = locked(&self.wire.kept).is_some();
    }

    fn reap(&mut self, _: &mut FramePool) {}

    fn unsent(&self) -> bool {
        false
    }

    fn fd(&self, _: usize) -> Option<BorrowedFd<'_>> {
        None
    }

    fn statistics(&mut self) -> PortStatistics {
        PortStatistics::default()
    }

    fn close(self: Box<Self>, _: &mut FramePool) {}
}

/// The far ends of all ports by name. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Wires(Arc<Mutex<BTreeMap<String, Arc<Wire>>>>);

impl Wires {
    /// The far end of a port; it is made when nobody has asked for it yet.
    #[must_use]
    pub fn of(&self, port: &str) -> Arc<Wire> {
        Arc::clone(locked(&self.0).entry(port.to_owned()).or_default())
    }

    /// Packets that came out at all far ends.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        locked(&self.0).values().map(|wire| wire.arrived()).sum()
    }
}

/// Opens such ports.
#[derive(Debug)]
pub struct WireDevices {
    umem: Arc<Umem>,
    wires: Wires,
}

impl WireDevices {
    /// Devices whose ports take their frames from `umem`.
    #[must_use]
    pub fn new(umem: Arc<Umem>, wires: Wires) -> Self {
        Self { umem, wires }
    }
}

impl Devices for WireDevices {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn kind(&self, _: &Device) -> &'static str {
        "memory"
    }

    fn open(&mut self, device: &Device, index: PortIndex) -> Result<Box<dyn Port>, DeviceError> {
        let (Device::Pod { interface, .. }
        | Device::Tun { interface, .. }
        | Device::Uplink { interface }
        | Device::Host { interface }) = device;
        Ok(Box::new(WirePort::new(interface.as_str(), index, self.wires.of(interface.as_str()))))
    }

    fn steer(&mut self, _: &[IpNet], _: &[TunnelEndpoint]) -> Result<(), DeviceError> {
        Ok(())
    }
}
