//! A forwarder that decides nothing: AF_XDP in, AF_XDP out, by the engine's own ports. What it costs is not ours to save.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use vswitch::io::afxdp::Options;
use vswitch::io::{Devices, FramePool, Port, Umem};
use vswitch_datapath::{BATCH, PortIndex};

use crate::net::Namespace;
use crate::{Error, Result};

/// Frames of its memory, as many as the engine ships with.
const FRAMES: usize = 32_768;
/// Its thread's name.
pub(super) const THREAD: &str = "bare";

/// A thread that takes what comes by one device and sends it out of another. It ends with the value.
#[derive(Debug)]
pub(super) struct Bare {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Bare {
    /// Starts it on `core`.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub(super) fn start(namespace: &Namespace, from: &str, to: &str, core: usize) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| Error::setup("start a bare forwarder", error);
        let umem = Umem::registered(FRAMES, false).map_err(|error| failed(&error))?;
        let mut pool = FramePool::new(&umem, FRAMES).map_err(|error| failed(&error))?;
        let mut devices = Devices::new(&umem);
        let mut open = |name: &str, index| {
            let options = Options::pod(name).in_netns(Some(namespace.path()));
            devices.open(&options, PortIndex(index)).map_err(|error| failed(&error))
        };
        let (mut near, mut far) = (open(from, 0)?, open(to, 1)?);
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, count) = (Arc::clone(&stop), Arc::clone(&refused));
        let body = move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
            let mut batch = Vec::with_capacity(BATCH);
            while !ended.load(Ordering::Relaxed) {
                near.receive(&mut pool, &mut batch, BATCH);
                for packet in batch.drain(..) {
                    if let Err(back) = far.transmit(&mut pool, packet) {
                        pool.put(back.packet.buffer);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                far.flush();
                far.reap(&mut pool);
            }
            Box::new(near).close(&mut pool);
            Box::new(far).close(&mut pool);
            drop(devices);
        };
        let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(body);
        let thread = thread.map_err(|error| failed(&error))?;
        Ok(Self { stop, refused, thread: Some(thread) })
    }

    /// Packets it could not send: the ring was full.
    #[must_use]
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed, and nothing more is to be had of it.
            let _panicked = thread.join();
        }
    }
}
