//! A bare AF_XDP forwarder: our ports, and nothing decided between them. What the engine costs beyond it is our own code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use vswitch::io::afxdp::Options;
use vswitch::io::{AfXdpPort, Devices, Frame, FramePool, Port, Umem};
use vswitch_datapath::{BATCH, Packet, PortIndex};

use crate::net::Namespace;
use crate::{Error, Result};

/// Frames of its memory.
const FRAMES: usize = 16_384;
const WHAT: &str = "open a bare AF_XDP forwarder";

/// What comes by one device leaves by another, unchanged.
#[derive(Debug)]
pub struct Bare {
    from: Option<Box<AfXdpPort>>,
    to: Option<Box<AfXdpPort>>,
    pool: FramePool,
    batch: Vec<Packet<Frame>>,
    /// Packets the second device did not take.
    pub refused: u64,
    _devices: Devices,
}

impl Bare {
    /// Opens two devices of a namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn open(namespace: &Namespace, from: &str, to: &str) -> Result<Self> {
        let umem = Umem::registered(FRAMES, false).map_err(|error| Error::setup(WHAT, error))?;
        let pool = FramePool::new(&umem, FRAMES).map_err(|error| Error::setup(WHAT, error))?;
        let mut devices = Devices::new(&Arc::clone(&umem));
        let mut open = |name: &str, index| {
            let options = Options::pod(name).in_netns(Some(namespace.path()));
            let port = devices.open(&options, PortIndex(index));
            port.map(|port| Some(Box::new(port))).map_err(|error| Error::setup(WHAT, error))
        };
        let (from, to) = (open(from, 0)?, open(to, 1)?);
        let batch = Vec::with_capacity(BATCH);
        let mut bare = Self { from, to, pool, batch, refused: 0, _devices: devices };
        // Lends frames to receive into.
        bare.turn();
        Ok(bare)
    }

    /// Forwards what waits, one batch at most; how many packets it received.
    pub fn turn(&mut self) -> usize {
        self.turn_keeping(|_| true)
    }

    /// The same with a look at each packet: what `keep` does not hold with is dropped.
    pub fn turn_keeping(&mut self, mut keep: impl FnMut(&Packet<Frame>) -> bool) -> usize {
        let (Some(from), Some(to)) = (&mut self.from, &mut self.to) else { return 0 };
        to.reap(&mut self.pool);
        let received = from.receive(&mut self.pool, &mut self.batch, BATCH);
        for packet in self.batch.drain(..) {
            if !keep(&packet) {
                self.pool.put(packet.buffer);
            } else if let Err(refused) = to.transmit(&mut self.pool, packet) {
                self.refused += 1;
                self.pool.put(refused.packet.buffer);
            }
        }
        if to.unsent() {
            to.flush();
        }
        received
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for port in [self.from.take(), self.to.take()].into_iter().flatten() {
            port.close(&mut self.pool);
        }
    }
}

/// The name of a bare forwarder's thread.
pub const THREAD: &str = "bare";

/// A bare forwarder on a thread and core of its own, as an engine's worker is. It ends with the value.
#[derive(Debug)]
pub struct BareThread {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl BareThread {
    /// Starts it on `core`.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn start(namespace: &Namespace, from: &str, to: &str, core: usize) -> Result<Self> {
        let mut bare = Bare::open(namespace, from, to)?;
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, count) = (Arc::clone(&stop), Arc::clone(&refused));
        let body = move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
            while !ended.load(Ordering::Relaxed) {
                bare.turn();
                count.store(bare.refused, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(body);
        let thread = thread.map_err(|error| Error::setup("start a bare forwarder", error))?;
        Ok(Self { stop, refused, thread: Some(thread) })
    }

    /// Packets it could not send: the ring was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for BareThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed, and nothing more is to be had of it.
            let _panicked = thread.join();
        }
    }
}
