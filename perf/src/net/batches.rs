//! The generator for one core: a batch of frames at a time, by a packet socket.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessage, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, sendmmsg, socket,
};

use super::{Namespace, Pattern};
use crate::{Error, Result};

/// Frames of a batch.
pub const BATCH: usize = 64;

/// Sends batches of frames out of a device. All the kernel does on the way, the far end's receive work included, is done
/// inside [`Batches::send`] (a veth has no queueing discipline that could hold frames back).
pub struct Batches {
    socket: OwnedFd,
    addresses: Vec<Option<LinkAddr>>,
    headers: MultiHeaders<LinkAddr>,
    pattern: Pattern,
    frames: Vec<Vec<u8>>,
    next: u64,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Batches {
    /// Sends frames of `pattern` out of `interface` of `namespace`.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn new(namespace: &Namespace, interface: &str, pattern: &Pattern) -> Result<Self> {
        let failed = |cause: &dyn std::fmt::Display| Error::setup(format!("send on {interface}"), cause);
        let (socket, address) = namespace.enter(|| {
            let mut all = getifaddrs().map_err(|errno| failed(&errno))?;
            let address = all.find_map(|entry| {
                (entry.interface_name == interface)
                    .then_some(entry.address)?
                    .as_ref()?
                    .as_link_addr()
                    .copied()
            });
            // No protocol: it receives nothing.
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
                .map_err(|errno| failed(&errno))?;
            Ok((socket, address.ok_or_else(|| failed(&"there is none of this name"))?))
        })??;
        Ok(Self {
            socket,
            addresses: vec![Some(address); BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
            frames: vec![pattern.templates()[0].clone(); BATCH],
            pattern: pattern.clone(),
            next: 0,
        })
    }

    /// Writes the next frames, `count` of them and at most [`BATCH`]; [`Batches::send`] sends them.
    pub fn prepare(&mut self, count: usize, due_ns: u64) {
        self.frames.resize_with(count.min(BATCH), || self.pattern.templates()[0].clone());
        for frame in &mut self.frames {
            self.pattern.write(self.next, due_ns, frame);
            self.next += 1;
        }
    }

    /// Takes frames of somebody else for the next batch, [`BATCH`] of them at most.
    pub fn prepare_these(&mut self, frames: &[Vec<u8>]) {
        self.frames.clear();
        self.frames.extend(frames.iter().take(BATCH).cloned());
    }

    /// What was prepared, to be changed.
    pub fn prepared_frames(&mut self) -> &mut [Vec<u8>] {
        &mut self.frames
    }

    /// Sends what was prepared; how many frames. One system call.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when the kernel did not take them all.
    #[inline]
    pub fn send(&mut self) -> Result<usize> {
        let slices: [[IoSlice<'_>; 1]; BATCH] =
            std::array::from_fn(|index| [IoSlice::new(self.frames.get(index).map_or(&[], Vec::as_slice))]);
        let (count, none): (usize, &[ControlMessage<'_>]) = (self.frames.len(), &[]);
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            &slices[..count],
            &self.addresses[..count],
            none,
            MsgFlags::empty(),
        );
        match sent.map(Iterator::count) {
            Ok(sent) if sent == count => Ok(count),
            Ok(_) => Err(Error::setup("send a batch", "the kernel took only a part of it")),
            Err(errno) => Err(Error::setup("send a batch", errno)),
        }
    }

    /// Frames prepared so far.
    #[must_use]
    pub fn prepared(&self) -> u64 {
        self.next
    }
}
