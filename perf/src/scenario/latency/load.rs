//! A neighbour that keeps the memory busy.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use crate::{Error, Result};

/// Bytes it writes to, over and over: larger than what caches of one core hold.
const BYTES: usize = 64 << 20;
/// Bytes between two writes: a line of the cache.
const LINE: usize = 64;
/// Writes between two looks whether to end.
const WRITES: usize = 4096;

/// A thread on a core, at the lowest priority. Beside a generator, which never sleeps, it has about 1.5 % of the core, some
/// milliseconds at a time. It ends with the value.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when its priority cannot be set.
    pub(super) fn start(core: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, (tell, told)) = (Arc::clone(&stop), channel());
        let body = move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
            if tell.send(be_nice()).is_err() {
                return;
            }
            let (mut memory, mut at) = (vec![0_u8; BYTES], 0);
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..WRITES {
                    memory[at] = memory[at].wrapping_add(1);
                    at = (at + LINE) % BYTES;
                }
            }
            std::hint::black_box(&memory);
        };
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(body);
        let thread = thread.map_err(|error| Error::setup("start a thread", error))?;
        let load = Self { stop, thread: Some(thread) };
        told.recv().map_err(|error| Error::setup("start a neighbour", error))??;
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that can panic.
            let _ended = thread.join();
        }
    }
}

/// Gives the calling thread the lowest priority.
fn be_nice() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    let mut command = Command::new("renice");
    command.args(["-n", "19", "-p", &thread]);
    vswitch_testbeds::command::run(&mut command)
        .map(drop)
        .map_err(|error| Error::setup("set a thread's priority", error))
}
