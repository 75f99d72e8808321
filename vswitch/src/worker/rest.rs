//! What a worker does between two turns: nothing, or sleep until something happens.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vswitch_datapath::PortIndex;

use super::Status;
use super::peers::Peers;
use super::ports::WorkerPorts;
use crate::config::Poll;
use crate::io::Port;

/// How long a worker looks again and again before it sleeps. Longer than the gaps between the packets of a busy engine.
const AWAKE: Duration = Duration::from_micros(200);
/// Longest sleep: ports without a descriptor and expiring flows are looked at so often.
const SLEEP_MS: u16 = 100;
/// The same while a port could not hand over all it has, or cannot be watched, or something waits for its time.
const SLEEP_SHORT_MS: u16 = 1;
/// Empty turns between two looks at the clock.
const TURNS_PER_LOOK: u32 = 16;
/// What an event of the waker bears instead of a port's number.
const WAKER: u64 = u64::MAX;
/// Events taken at once; what is left is found by visiting.
const EVENTS: usize = 64;

/// Ends a worker's sleep, from any thread.
#[derive(Debug, Clone)]
pub(super) struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new() -> Result<Self, Errno> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(event)))
    }

    /// Takes what has woken so far; whether anything had.
    pub(super) fn take(&self) -> bool {
        self.0.read().is_ok()
    }

    pub(super) fn wake(&self) {
        // The only error is an overflowing counter, which wakes too.
        self.0.write(1).ok();
    }
}

pub(super) struct Rest {
    poll: Poll,
    epoll: Epoll,
    waker: Waker,
    events: [EpollEvent; EVENTS],
    /// Turns in a row without a packet.
    idle_turns: u32,
    /// Since when.
    idle_since: Option<Instant>,
}

impl Rest {
    pub(super) fn new(poll: Poll, waker: Waker) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*waker.0, EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        Ok(Self {
            poll,
            epoll,
            waker,
            events: [EpollEvent::empty(); EVENTS],
            idle_turns: 0,
            idle_since: None,
        })
    }

    /// Lets what a port receives end a sleep.
    pub(super) fn watch(&self, port: &dyn Port) -> Result<(), Errno> {
        let number = u64::from(port.index().0);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        let watched = fds(port).try_for_each(|fd| self.epoll.add(fd, event));
        // All or none, so that it can be tried again.
        watched.inspect_err(|_| self.forget(port))
    }

    pub(super) fn forget(&self, port: &dyn Port) {
        for fd in fds(port) {
            // An error means that it is not watched, which is what is wanted.
            self.epoll.delete(fd).ok();
        }
    }

    /// Called between two turns. `waits`: something is to be done soon although nothing comes.
    pub(super) fn rest(
        &mut self,
        worked: bool,
        waits: bool,
        ports: &mut WorkerPorts,
        peers: Option<&Peers>,
        status: &Status,
    ) {
        if worked {
            self.idle_turns = 0;
            self.idle_since = None;
            return;
        }
        self.idle_turns = self.idle_turns.wrapping_add(1);
        if self.poll == Poll::Adaptive && self.idle_turns.is_multiple_of(TURNS_PER_LOOK) {
            let since = *self.idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= AWAKE {
                if peers.is_none_or(Peers::may_sleep) {
                    self.sleep(waits, ports);
                    status.sleeps.add(1);
                    peers.into_iter().for_each(Peers::awake);
                }
                return;
            }
        }
        std::hint::spin_loop();
    }

    fn sleep(&mut self, waits: bool, ports: &mut WorkerPorts) {
        let watched = ports.watch(|port| self.watch(port).is_ok());
        let timeout = if waits || ports.unsent() || !watched { SLEEP_SHORT_MS } else { SLEEP_MS };
        // An error is a signal: the next turn is as good an answer as any.
        let count = self.epoll.wait(&mut self.events, EpollTimeout::from(timeout)).unwrap_or(0);
        for event in &self.events[..count] {
            match event.data() {
                WAKER => drop(self.waker.take()),
                number => ports.heat(PortIndex(number as u16)),
            }
        }
        if count > 0 {
            self.idle_since = None;
            self.idle_turns = 0;
        }
    }
}

/// All that are to be waited for. Each by itself: one that waited for them in their place would go on doing so when nobody
/// waits for it, at a cost to every packet.
fn fds(port: &dyn Port) -> impl Iterator<Item = BorrowedFd<'_>> {
    (0..).map_while(|number| port.fd(number))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use vswitch_datapath::Now;

    use super::*;
    use crate::io::afxdp::Options;
    use crate::io::testing::{Raw, frame, in_namespace, release, umem, veth};
    use crate::io::{Devices, memory};

    /// How many descriptors an epoll waits for, besides the worker's waker (proc_pid_fdinfo(5)).
    fn watched(rest: &Rest) -> usize {
        let told = format!("/proc/thread-self/fdinfo/{}", rest.epoll.0.as_raw_fd());
        let told = std::fs::read_to_string(told).unwrap();
        told.lines().filter(|line| line.starts_with("tfd:")).count() - 1
    }

    #[test]
    fn each_queue_of_a_port_is_watched_and_forgotten() {
        in_namespace(|| {
            veth("rest-a", "rest-b", 4);
            let far = Raw::on("rest-b");
            let mut pool = umem(4096);
            let mut devices = Devices::new(pool.umem());
            let port = devices.open(&Options::pod("rest-a"), PortIndex(0)).unwrap();
            let mut rest = Rest::new(Poll::Adaptive, Waker::new().unwrap()).unwrap();
            let mut ports = WorkerPorts::new();
            rest.watch(&port).unwrap();
            assert_eq!((port.queues(), watched(&rest)), (4, 4));
            assert!(ports.add(Box::new(port)).is_none());
            ports.visited(PortIndex(0), 500, 501, Now(0));
            ports.unwatch(|port| rest.forget(port));
            assert_eq!(watched(&rest), 0, "nobody waits for any");
            let mut packets = Vec::with_capacity(64);
            assert_eq!(ports.get(PortIndex(0)).unwrap().port.receive(&mut pool, &mut packets, 64), 0);
            assert!(far.send(&frame(1, 60)));
            rest.idle_turns = 1;
            rest.sleep(false, &mut ports);
            assert_eq!((rest.idle_turns, watched(&rest)), (0, 4), "it was woken");
            assert_eq!(ports.get(PortIndex(0)).unwrap().port.receive(&mut pool, &mut packets, 64), 1);
            release(&mut pool, packets);
        });
    }

    #[test]
    fn a_port_is_watched_whole_or_not_at_all() {
        in_namespace(|| {
            veth("rest-a", "rest-b", 4);
            let pool = umem(4096);
            let mut devices = Devices::new(pool.umem());
            let port = devices.open(&Options::pod("rest-a"), PortIndex(0)).unwrap();
            let rest = Rest::new(Poll::Adaptive, Waker::new().unwrap()).unwrap();
            rest.epoll.add(port.fd(2).unwrap(), EpollEvent::empty()).unwrap();
            assert_eq!((rest.watch(&port), watched(&rest)), (Err(Errno::EEXIST), 0));
            assert_eq!((rest.watch(&port), watched(&rest)), (Ok(()), 4));
        });
    }

    #[test]
    fn a_port_that_had_much_still_ends_a_sleep() {
        let mut rest = Rest::new(Poll::Adaptive, Waker::new().unwrap()).unwrap();
        let mut ports = WorkerPorts::new();
        let (port, peer) = memory::pair("mem", PortIndex(0), 1024).unwrap();
        rest.watch(&port).unwrap();
        assert!(ports.add(Box::new(port)).is_none());
        ports.visited(PortIndex(0), 500, 501, Now(0));
        assert!(ports.tired());
        ports.unwatch(|port| rest.forget(port));
        assert!(peer.send(&[0x5a; 60]));
        let events = |rest: &mut Rest| rest.epoll.wait(&mut rest.events, EpollTimeout::ZERO).unwrap();
        assert_eq!(events(&mut rest), 0, "nobody waits for it");
        rest.idle_turns = 1;
        rest.sleep(false, &mut ports);
        assert_eq!((rest.idle_turns, events(&mut rest)), (0, 1), "it was woken, and would be again");
    }
}
