//! One thread that keeps a schedule, by packet sockets in any number of namespaces.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, sendmmsg, socket,
};
use nix::time::{ClockId, clock_gettime};

use super::frame::Ends;
use super::{Frame, Planned, Schedule, Stamp};
use crate::{Error, Result};

/// Packets that leave in one system call, at most. The receiving end works them off one by one as they come, so this
/// saves calls and makes no burst.
const BATCH: usize = 64;
/// From the call to the first packet: time to get everything into the caches.
const LEAD_NS: u64 = 1_000_000;

/// Now, by the clock that XDP programs read too (`bpf_ktime_get_ns`), in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Where packets enter the network: an interface, and the frames that leave by it.
#[derive(Debug)]
pub struct Source {
    socket: OwnedFd,
    interface: LinkAddr,
    frames: Vec<Frame>,
    /// Packets stamped and not sent yet: their streams.
    waiting: Vec<u32>,
}

impl Source {
    /// Sends by `interface` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or no privilege to send raw frames.
    pub fn open(interface: &str, ends: Ends, payload: usize) -> Result<Self> {
        let failed = |cause: String| Error::setup(format!("send frames by {interface}"), cause);
        let address = getifaddrs()
            .map_err(|errno| failed(errno.to_string()))?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .ok_or_else(|| failed("there is no such interface".to_owned()))?;
        // No protocol: it only sends.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| failed(errno.to_string()))?;
        let frame = Frame::new(ends, payload)?;
        Ok(Self {
            socket,
            interface: address,
            frames: vec![frame; BATCH],
            waiting: Vec::with_capacity(BATCH),
        })
    }

    /// Sends what waits. What the device does not take is refused: an open loop does not ask again.
    fn flush(&mut self, headers: &mut MultiHeaders<LinkAddr>, refused: &mut [u32]) -> Result<()> {
        let slices: Vec<[IoSlice<'_>; 1]> =
            self.frames[..self.waiting.len()].iter().map(|frame| [IoSlice::new(frame.bytes())]).collect();
        let to = [Some(self.interface); BATCH];
        let mut at = 0;
        while at < slices.len() {
            let left = slices.len() - at;
            let outcome = sendmmsg(
                self.socket.as_raw_fd(),
                headers,
                &slices[at..],
                &to[..left],
                [],
                MsgFlags::MSG_DONTWAIT,
            );
            match outcome.map(Iterator::count) {
                Ok(sent) => at += sent,
                Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::setup("send a packet of a stream", errno)),
            }
            // It ended early because the next packet was not taken: the ring of the veth is full (ENOBUFS), or the
            // socket's buffer. That one is lost here.
            if let Some(stream) = self.waiting.get(at) {
                refused[*stream as usize] += 1;
                at += 1;
            }
        }
        self.waiting.clear();
        Ok(())
    }
}

/// Where the packets of one stream enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Which of the sender's sources.
    pub source: usize,
    /// UDP source and destination port.
    pub port: u16,
}

/// What was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Packets of the schedule that are gone: the first so many of it, in its order. The refused ones included.
    pub packets: u64,
    /// By stream: packets that the sender's own device did not take.
    pub refused: Vec<u32>,
    /// How late packets were handed to the kernel, in nanoseconds: what the sender itself is to blame for.
    pub lateness: Histogram<u64>,
    /// From the first packet's moment to after the last, in nanoseconds.
    pub took_ns: u64,
}

impl Sent {
    /// Packets that the sender's own devices did not take.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(|count| u64::from(*count)).sum()
    }
}

/// Keeps schedules. All the time of the core it runs on is its own.
#[derive(Debug)]
pub struct Sender {
    sources: Vec<Source>,
}

impl Sender {
    /// A sender with these sources, to be named by their place.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        Self { sources }
    }

    /// Sends the first `packets` packets of `schedule`, stream by stream as `streams` says. Ends early, after whole
    /// packets, when `stop` is set.
    ///
    /// # Errors
    ///
    /// When the kernel takes no packets at all.
    ///
    /// # Panics
    ///
    /// When `streams` has not as many streams as the schedule, or names a source that there is not.
    pub fn run(
        &mut self,
        schedule: &Schedule,
        streams: &[Stream],
        packets: u64,
        stop: &AtomicBool,
    ) -> Result<Sent> {
        assert_eq!(streams.len(), schedule.streams() as usize, "a source for each stream");
        let lateness = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that are in order");
        let mut sent = Sent { packets: 0, refused: vec![0; streams.len()], lateness, took_ns: 0 };
        let start = monotonic_ns() + LEAD_NS;
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut next = schedule.packet(0);
        let mut now = monotonic_ns();
        while sent.packets < packets && !stop.load(Ordering::Relaxed) {
            if start + next.due_ns > now {
                std::hint::spin_loop();
                now = monotonic_ns();
                continue;
            }
            let from = sent.packets;
            while sent.packets < packets && sent.packets - from < BATCH as u64 && start + next.due_ns <= now {
                self.stamp(start, next, streams[next.stream as usize]);
                sent.lateness.saturating_record(now - start - next.due_ns);
                sent.packets += 1;
                next = schedule.packet(sent.packets);
            }
            for source in &mut self.sources {
                if !source.waiting.is_empty() {
                    source.flush(&mut headers, &mut sent.refused)?;
                }
            }
            now = monotonic_ns();
        }
        sent.took_ns = monotonic_ns().saturating_sub(start);
        Ok(sent)
    }

    fn stamp(&mut self, start: u64, planned: Planned, stream: Stream) {
        let Planned { stream: number, sequence, due_ns } = planned;
        let source = &mut self.sources[stream.source];
        let frame = &mut source.frames[source.waiting.len()];
        frame.stamp(&Stamp { stream: number, port: stream.port, sequence, due_ns: start + due_ns });
        source.waiting.push(number);
    }
}
