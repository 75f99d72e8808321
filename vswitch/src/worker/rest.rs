//! What a worker does between two turns: nothing, or sleep until something happens.

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
        port.fd().map_or(Ok(()), |fd| self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, number)))
    }

    pub(super) fn forget(&self, port: &dyn Port) {
        if let Some(fd) = port.fd() {
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

#[cfg(test)]
mod tests {
    use vswitch_datapath::Now;

    use super::*;
    use crate::io::memory;

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
