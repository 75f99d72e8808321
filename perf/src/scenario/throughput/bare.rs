//! The bare forwarder on a thread and core of its own, as an engine's worker is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::net::Namespace;
use crate::peer::Bare;
use crate::{Error, Result};

/// Its thread's name.
pub(super) const THREAD: &str = "bare";

/// A running bare forwarder. It ends with the value.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts it on `core`.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub(super) fn start(namespace: &Namespace, from: &str, to: &str, core: usize) -> Result<Self> {
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
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed, and nothing more is to be had of it.
            let _panicked = thread.join();
        }
    }
}
