//! A tun device: packets to and from a kernel's own stack. The host port is one, and so are pods' ports that ask for it.
//!
//! The device carries no Ethernet header, so the port puts one before what it reads and takes it off what it writes.
//! What the kernel left to be done passes as it is, both ways (virtio header): checksums to be finished, and large packets to
//! be cut into TCP segments or UDP datagrams. Each packet is a system call: the device has no batches, and a large packet is the
//! one way to spare some.

mod device;
#[cfg(test)]
mod tests;
mod virtio;

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use vswitch_datapath::{Buffer, Offload, Packet, PortIndex};
use vswitch_model::{DropReason, Mac};

use super::ethtool::request;
use super::frame::{CHUNK, HEADROOM};
use super::large::{LARGE, LARGE_HEADROOM};
use super::{Capabilities, Frame, FramePool, Port, PortState, PortStatistics, Refused, netns};
pub use device::TunError;
use device::{Life, MTU_MAX, MTU_MIN, control, make};
use virtio::{NO_SEGMENTS, VIRTIO, header_of, offload_of};

/// Destination of what comes in by a tun port: the gateway, as of what pods send.
pub const ENTRY_DESTINATION: Mac = Mac::GATEWAY;
/// Source of what comes in by a tun port: none, as [`vswitch_model::Port::mac`] of a pod with a tun.
pub const ENTRY_SOURCE: Mac = Mac([0; 6]);

const ETHERNET: usize = 14;
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];
/// Bytes of a packet that an ordinary frame has room for.
const SMALL: usize = CHUNK - HEADROOM - ETHERNET;
/// Large packets taken at a visit, of whatever length: their frames are in the cache still when they are written, and the
/// segments they are cut into, some 46 each, fit a veth's ring of 256.
pub const LARGE_BUDGET: usize = 4;

/// A tun device.
#[derive(Debug)]
pub struct TunPort {
    name: String,
    index: PortIndex,
    file: File,
    state: PortState,
    counted: PortStatistics,
    /// Packets read since there was none left.
    unemptied: usize,
}

impl TunPort {
    /// Makes the device `name` with an MTU of `mtu` bytes and sets it up, in the network namespace at `netns` or in the
    /// calling thread's. It has no address, not even a link-local one: that is for who makes it.
    ///
    /// # Errors
    ///
    /// [`TunError`]; nothing is left behind then.
    pub fn open(name: &str, mtu: u16, netns: Option<&Path>, index: PortIndex) -> Result<Self, TunError> {
        Self::open_for(Life::Port, name, mtu, netns, index)
    }

    /// The same with a device that stays when the port goes, with its addresses and routes; one that is there from before is
    /// taken up again.
    ///
    /// # Errors
    ///
    /// [`TunError`]; a device that is not set up as wanted may be left behind then.
    pub fn open_persistent(name: &str, mtu: u16, netns: &Path, index: PortIndex) -> Result<Self, TunError> {
        Self::open_for(Life::Persistent, name, mtu, Some(netns), index)
    }

    fn open_for(
        life: Life,
        name: &str,
        mtu: u16,
        netns: Option<&Path>,
        index: PortIndex,
    ) -> Result<Self, TunError> {
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            return Err(TunError::Mtu { name: name.to_owned(), mtu });
        }
        let file = netns::within(netns, || make(life, name, mtu)).map_err(|source| TunError::Netns {
            name: name.to_owned(),
            netns: netns.unwrap_or(Path::new("")).to_owned(),
            source,
        })??;
        let counted = PortStatistics::default();
        Ok(Self { name: name.to_owned(), index, file, state: PortState::Up, counted, unemptied: 0 })
    }

    /// Reads one packet: into the large frame, as one piece with its virtio header, which is what costs the kernel least, and one
    /// that fits from there into the ordinary one. Without a large frame only what fits is taken.
    fn read(&mut self, frame: &mut Frame, large: Option<&mut Frame>) -> nix::Result<Read> {
        let mut header = [0; VIRTIO];
        let (count, room, area) = match large {
            Some(large) => {
                let area = &mut large.receive_area()[ETHERNET - VIRTIO..];
                let count = told(rustix::io::read(&self.file, &mut *area))?;
                header.copy_from_slice(&area[..VIRTIO]);
                (count, LENGTH_MAX, Some(&area[VIRTIO..]))
            }
            None => {
                let (packet, mut beyond) = (&mut frame.receive_area()[ETHERNET..], [0]);
                let mut areas =
                    [IoSliceMut::new(&mut header), IoSliceMut::new(packet), IoSliceMut::new(&mut beyond)];
                (told(rustix::io::readv(&self.file, &mut areas))?, SMALL + 1, None)
            }
        };
        self.state = PortState::Up;
        let length = count.saturating_sub(VIRTIO);
        // One that fills the room may have been longer: the kernel cuts it off.
        let Some(offload) = offload_of(&header, length).filter(|_| length > 0 && length < room) else {
            return Ok(if length > SMALL || header[1] != NO_SEGMENTS {
                Read::RefusedLarge
            } else {
                Read::Refused
            });
        };
        if length > SMALL {
            return Ok(Read::Large(length, offload));
        }
        if let Some(area) = area {
            frame.receive_area()[ETHERNET..][..length].copy_from_slice(&area[..length]);
        }
        Ok(Read::Small(length, offload))
    }

    /// Why a read or write failed, told by what it means for the port.
    fn failed(&mut self, error: Errno) -> DropReason {
        match error {
            Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => DropReason::TransmitRingFull,
            // The device is set down (tun_get_user).
            Errno::EIO => {
                self.state = PortState::Down;
                DropReason::TransmitRefused
            }
            // The device was deleted under us (tun_chr_write_iter).
            Errno::EBADFD => {
                self.state = PortState::Gone;
                DropReason::PortGone
            }
            _ => DropReason::TransmitRefused,
        }
    }
}

impl Port for TunPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> PortIndex {
        self.index
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { partial_checksum: true, large: true, frame_length_max: CHUNK - HEADROOM }
    }

    fn state(&self) -> PortState {
        self.state
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize {
        let budget = budget.min(into.capacity() - into.len());
        let (mut tried, mut large_tried) = (0, 0);
        let mut large = pool.take_large();
        while tried < budget && large_tried < LARGE_BUDGET && self.state != PortState::Gone {
            let Some(mut frame) = pool.take() else {
                self.counted.frames_exhausted += 1;
                break;
            };
            let (read, offload) = match self.read(&mut frame, large.as_mut()) {
                Ok(Read::Small(length, offload)) => {
                    large_tried += usize::from(offload.segment.is_some());
                    (finish(frame, pool, length), offload)
                }
                Ok(Read::Large(length, offload)) => {
                    let read = large.take().and_then(|large| finish(large, pool, length));
                    pool.put(frame);
                    large_tried += 1;
                    large = pool.take_large();
                    (read, offload)
                }
                Ok(refused @ (Read::Refused | Read::RefusedLarge)) => {
                    large_tried += usize::from(matches!(refused, Read::RefusedLarge));
                    pool.put(frame);
                    (None, Offload::default())
                }
                Err(error) => {
                    pool.put(frame);
                    if error != Errno::EAGAIN {
                        self.failed(error);
                    }
                    break;
                }
            };
            tried += 1;
            match read {
                Some(buffer) => into.push(Packet { buffer, port: self.index, offload }),
                None => self.counted.receive_dropped += 1,
            }
        }
        pool.put_all(large);
        self.unemptied = if tried == budget || large_tried == LARGE_BUDGET {
            self.unemptied.saturating_add(tried)
        } else {
            0
        };
        tried
    }

    fn stopped_short(&self) -> bool {
        self.unemptied > 0
    }

    fn waiting(&mut self) -> usize {
        self.unemptied
    }

    fn transmit(&mut self, pool: &mut FramePool, mut packet: Packet<Frame>) -> Result<(), Refused> {
        let Some(header) = header_of(&packet) else {
            return Err(Refused::new(packet, DropReason::TransmitRefused));
        };
        self.counted.kicks += 1;
        // One piece, for what that spares: the virtio header stands where the Ethernet header ends.
        let written = packet.buffer.bytes_mut().split_at_mut_checked(ETHERNET - VIRTIO).map(|(_, piece)| {
            let ethernet: [u8; VIRTIO] =
                std::array::from_fn(|at| std::mem::replace(&mut piece[at], header[at]));
            let written = told(rustix::io::write(&self.file, piece));
            piece[..VIRTIO].copy_from_slice(&ethernet);
            written
        });
        match written {
            Some(Ok(_)) => {
                self.state = PortState::Up;
                pool.put(packet.buffer);
                Ok(())
            }
            Some(Err(error)) => Err(Refused::new(packet, self.failed(error))),
            None => Err(Refused::new(packet, DropReason::TransmitRefused)),
        }
    }

    fn flush(&mut self) {}

    fn reap(&mut self, _: &mut FramePool) {}

    fn unsent(&self) -> bool {
        false
    }

    fn fd(&self, number: usize) -> Option<BorrowedFd<'_>> {
        (number == 0).then(|| self.file.as_fd())
    }

    fn statistics(&mut self) -> PortStatistics {
        // Fails with EBADFD once there is no device behind the descriptor.
        let asked = request(&self.name)
            .and_then(|mut answer| control(&self.file, libc::TUNGETIFF, (&raw mut answer).cast()));
        if asked.is_err_and(|error| error.raw_os_error() == Some(libc::EBADFD)) {
            self.state = PortState::Gone;
        }
        self.counted
    }

    fn close(self: Box<Self>, _: &mut FramePool) {}
}

/// A packet that was read, of so many bytes, and what is left to be done to it.
enum Read {
    /// It is in the frame.
    Small(usize, Offload),
    /// It is in the large one.
    Large(usize, Offload),
    /// It is none of ours to carry.
    Refused,
    /// The same of one that cost as much as a large one.
    RefusedLarge,
}

/// Largest packet, one less than the room there is.
const LENGTH_MAX: usize = LARGE - LARGE_HEADROOM - ETHERNET;

/// What a system call said. Made without glibc, which would make each a point where its thread can be cancelled.
fn told(result: rustix::io::Result<usize>) -> nix::Result<usize> {
    result.map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// Puts an Ethernet header before a packet of `length` bytes that was read into `frame`. None, and the frame is in the pool:
/// it is not IP.
fn finish(mut frame: Frame, pool: &mut FramePool, length: usize) -> Option<Frame> {
    let (ethernet, packet) = frame.receive_area().split_at_mut(ETHERNET);
    let ethertype = match packet[0] >> 4 {
        4 => ETHERTYPE_V4,
        6 => ETHERTYPE_V6,
        _ => {
            pool.put(frame);
            return None;
        }
    };
    ethernet[..6].copy_from_slice(&ENTRY_DESTINATION.0);
    ethernet[6..12].copy_from_slice(&ENTRY_SOURCE.0);
    ethernet[12..].copy_from_slice(&ethertype);
    frame.set_received(0, ETHERNET + length);
    Some(frame)
}
