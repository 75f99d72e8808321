//! A worker's ports, and which of them to visit next.
//!
//! A port that had packets lately is hot and visited every turn; the others are cold and visited a few each turn, so that
//! hundreds of silent pods cost a turn next to nothing. Every visit takes a bounded number of packets, and visits go
//! round: no port can keep the others waiting.

use vswitch_datapath::{BATCH, Now, PortIndex};
use vswitch_model::limits::PORTS_MAX;

use super::behind::Backlog;
use super::command::PortReport;
use crate::io::Port;

/// Cold ports visited in one turn.
const COLD_VISITS: usize = 8;
/// Visits without a packet after which a hot port is cold.
const COLD_AFTER: u16 = 1024;
/// Packets received, or kicks times [`KICK`], after which a port is not watched until the worker sleeps again: where somebody
/// waits for a descriptor the kernel looks for them at every packet, under a lock, which takes as long as our look-up.
const WATCHED: u32 = 64;
/// What a kick counts for: as many packets, at a guess.
const KICK: u32 = 8;
/// Least budget of a visit, however many ports are hot.
const BUDGET_MIN: usize = 16;

pub(super) struct Slot {
    pub(super) port: Box<dyn Port>,
    /// Visits in a row without a packet.
    empty_visits: u16,
    hot: bool,
    /// Packets were queued since the last flush.
    queued: bool,
    backlog: Backlog,
    /// What it receives ends a sleep.
    watched: bool,
    /// What it has had since it is watched, see [`WATCHED`].
    had: u32,
}

impl Slot {
    fn new(port: Box<dyn Port>) -> Self {
        Self {
            port,
            empty_visits: 0,
            hot: true,
            queued: false,
            backlog: Backlog::default(),
            watched: true,
            had: 0,
        }
    }

    /// Notes what it had; whether it is to be watched no longer.
    #[inline]
    fn tires_of_watching(&mut self, had: u32) -> bool {
        if !self.watched {
            return false;
        }
        self.had = self.had.saturating_add(had);
        self.watched = self.had < WATCHED;
        !self.watched
    }
}

/// The ports of one worker, by number.
pub(super) struct WorkerPorts {
    slots: Box<[Option<Slot>]>,
    hot: Vec<u16>,
    cold: Vec<u16>,
    /// Ports with packets to flush.
    queued: Vec<u16>,
    /// Ports that are to be watched no longer, and those that are not.
    tired: Vec<u16>,
    unwatched: Vec<u16>,
    hot_next: usize,
    cold_next: usize,
    /// Ports at which something has been left for long.
    standing: usize,
}

impl WorkerPorts {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..PORTS_MAX).map(|_| None).collect(),
            hot: Vec::with_capacity(PORTS_MAX),
            cold: Vec::with_capacity(PORTS_MAX),
            queued: Vec::with_capacity(PORTS_MAX),
            tired: Vec::with_capacity(PORTS_MAX),
            unwatched: Vec::with_capacity(PORTS_MAX),
            hot_next: 0,
            cold_next: 0,
            standing: 0,
        }
    }

    /// Takes a port, which is watched; gives it back when its number is taken or out of range.
    pub(super) fn add(&mut self, port: Box<dyn Port>) -> Option<Box<dyn Port>> {
        let number = port.index().0;
        match self.slots.get_mut(usize::from(number)) {
            Some(slot @ None) => {
                *slot = Some(Slot::new(port));
                self.hot.push(number);
                None
            }
            _ => Some(port),
        }
    }

    pub(super) fn remove(&mut self, index: PortIndex) -> Option<Box<dyn Port>> {
        let slot = self.slots.get_mut(usize::from(index.0))?.take()?;
        let (tired, unwatched) = (&mut self.tired, &mut self.unwatched);
        for list in [&mut self.hot, &mut self.cold, &mut self.queued, tired, unwatched] {
            list.retain(|number| *number != index.0);
        }
        self.standing -= usize::from(slot.backlog.stands());
        Some(slot.port)
    }

    pub(super) fn remove_all(&mut self) -> Vec<Box<dyn Port>> {
        self.hot.clear();
        self.cold.clear();
        self.queued.clear();
        self.tired.clear();
        self.unwatched.clear();
        self.standing = 0;
        self.slots.iter_mut().filter_map(Option::take).map(|slot| slot.port).collect()
    }

    pub(super) fn get(&mut self, index: PortIndex) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index.0))?.as_mut()
    }

    /// How many visits make a turn.
    pub(super) fn visits(&self) -> usize {
        self.hot.len() + self.cold.len().min(COLD_VISITS)
    }

    /// How many visits hot ports take.
    pub(super) fn hot(&self) -> usize {
        self.hot.len()
    }

    /// Packets to take at a visit: a batch of one port alone, a share of it when more are hot.
    pub(super) fn budget(&self) -> usize {
        (BATCH / self.hot.len().max(1)).max(BUDGET_MIN)
    }

    /// The port of the turn's visit number `visit`. Where a turn ends early the next one goes on.
    pub(super) fn next(&mut self, visit: usize) -> Option<PortIndex> {
        let (list, next) = if visit < self.hot.len() {
            (&self.hot, &mut self.hot_next)
        } else {
            (&self.cold, &mut self.cold_next)
        };
        *next = if *next + 1 < list.len() { *next + 1 } else { 0 };
        list.get(*next).map(|number| PortIndex(*number))
    }

    /// Notes what a visit brought that might have brought as many packets as `budget`; whether another one in the same turn would
    /// pay. Large packets have one visit a turn: what they are cut into has to fit the rings it leaves by.
    pub(super) fn visited(&mut self, index: PortIndex, received: usize, budget: usize, now: Now) -> bool {
        let Some(slot) = self.get(index) else { return false };
        // A visit that brought less has just found the port empty, unless large packets ended it.
        let full = received >= budget;
        let left = if full || slot.port.stopped_short() { slot.port.waiting() } else { 0 };
        match slot.backlog.visited(left, now) {
            None => {}
            Some(true) => self.standing += 1,
            Some(false) => self.standing -= 1,
        }
        let Some(slot) = self.get(index) else { return false };
        if received > 0 {
            slot.empty_visits = 0;
            let (hot, tired) = (slot.hot, slot.tires_of_watching(received as u32));
            if tired {
                self.tired.push(index.0);
            }
            if !hot {
                self.heat(index);
            }
        } else if slot.hot {
            slot.empty_visits += 1;
            if slot.empty_visits >= COLD_AFTER {
                slot.hot = false;
                move_to(index.0, &mut self.hot, &mut self.cold);
            }
        }
        full && left > 0
    }

    /// Whether something has been left at some port for long.
    #[inline]
    pub(super) const fn behind(&self) -> bool {
        self.standing > 0
    }

    /// Makes a port hot: it has something.
    pub(super) fn heat(&mut self, index: PortIndex) {
        let Some(slot) = self.get(index) else { return };
        slot.empty_visits = 0;
        if !slot.hot {
            slot.hot = true;
            move_to(index.0, &mut self.cold, &mut self.hot);
        }
    }

    /// Notes that a packet was queued on a port.
    pub(super) fn queue(&mut self, index: PortIndex) {
        let Some(slot) = self.get(index) else { return };
        if !slot.queued {
            slot.queued = true;
            self.queued.push(index.0);
        }
    }

    /// Hands to the kernel what was queued. Ports that could not hand over all are tried again next time.
    pub(super) fn flush(&mut self) {
        let Self { slots, tired, .. } = self;
        self.queued.retain(|number| {
            let Some(slot) = slots[usize::from(*number)].as_mut() else { return false };
            slot.port.flush();
            if slot.tires_of_watching(KICK) {
                tired.push(*number);
            }
            slot.queued = slot.port.unsent();
            slot.queued
        });
    }

    /// Whether there are ports for [`WorkerPorts::unwatch`].
    #[inline]
    pub(super) fn tired(&self) -> bool {
        !self.tired.is_empty()
    }

    /// Has ports watched no longer that have had much.
    #[cold]
    pub(super) fn unwatch(&mut self, forget: impl Fn(&dyn Port)) {
        let Self { slots, tired, unwatched, .. } = self;
        for number in tired.drain(..) {
            slots[usize::from(number)].iter().for_each(|slot| forget(slot.port.as_ref()));
            unwatched.push(number);
        }
    }

    /// Has all ports watched again, before a sleep. False: `watch` could not, of some.
    pub(super) fn watch(&mut self, watch: impl Fn(&dyn Port) -> bool) -> bool {
        let slots = &mut self.slots;
        self.unwatched.retain(|number| {
            let Some(slot) = slots[usize::from(*number)].as_mut() else { return false };
            (slot.watched, slot.had) = (watch(slot.port.as_ref()), 0);
            !slot.watched
        });
        self.unwatched.is_empty()
    }

    /// Whether some port could not hand over all it has.
    pub(super) fn unsent(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Appends what the next ports say of themselves, from the number `from` on and at most `most` of them; gives the number to
    /// go on with.
    pub(super) fn report(
        &mut self,
        from: PortIndex,
        reports: &mut Vec<PortReport>,
        most: usize,
    ) -> Option<PortIndex> {
        let most = most.min(reports.capacity() - reports.len());
        let slots = self.slots.iter_mut().skip(usize::from(from.0)).flatten();
        let mut left = most;
        for Slot { port, .. } in slots {
            if left == 0 {
                return Some(port.index());
            }
            left -= 1;
            let statistics = port.statistics();
            reports.push(PortReport { port: port.index(), statistics, state: port.state() });
        }
        None
    }
}

/// Both lists have room for all ports.
fn move_to(number: u16, from: &mut Vec<u16>, to: &mut Vec<u16>) {
    if let Some(at) = from.iter().position(|other| *other == number) {
        from.swap_remove(at);
        to.push(number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::io::testing::{in_namespace, ip, release};
    use crate::io::{FramePool, LARGE_BUDGET, TunPort, Umem, memory};

    fn ports(count: u16) -> WorkerPorts {
        let mut ports = WorkerPorts::new();
        for number in 0..count {
            let (port, _) = memory::pair(&format!("mem{number}"), PortIndex(number), 1).unwrap();
            assert!(ports.add(Box::new(port)).is_none());
        }
        ports
    }

    /// The ports one turn visits, none of which has anything, as many turns as said.
    fn turns(ports: &mut WorkerPorts, turns: usize) -> Vec<u16> {
        let mut visited = Vec::new();
        for _ in 0..turns {
            for visit in 0..ports.visits() {
                if let Some(index) = ports.next(visit) {
                    visited.push(index.0);
                    ports.visited(index, 0, 16, Now(0));
                }
            }
        }
        visited
    }

    #[test]
    fn a_number_is_one_ports_own() {
        let mut ports = ports(2);
        let (again, _) = memory::pair("again", PortIndex(1), 1).unwrap();
        assert!(ports.add(Box::new(again)).is_some());
        let (beyond, _) = memory::pair("beyond", PortIndex(PORTS_MAX as u16), 1).unwrap();
        assert!(ports.add(Box::new(beyond)).is_some());
        assert_eq!(ports.remove(PortIndex(1)).unwrap().name(), "mem1");
        assert!(ports.remove(PortIndex(1)).is_none());
        assert_eq!(turns(&mut ports, 2), [0, 0]);
    }

    #[test]
    fn reports_come_in_pieces_and_leave_none_out() {
        let mut ports = ports(40);
        ports.remove(PortIndex(20));
        let (mut from, mut seen, mut pieces) = (Some(PortIndex(0)), Vec::new(), 0);
        while let Some(first) = from {
            let mut reports = Vec::with_capacity(16);
            from = ports.report(first, &mut reports, 16);
            seen.extend(reports.iter().map(|report| report.port.0));
            pieces += 1;
        }
        assert!(seen.iter().copied().eq((0..40).filter(|number| *number != 20)), "{seen:?}");
        assert_eq!(pieces, 3);
    }

    #[test]
    fn every_hot_port_is_visited_every_turn_and_goes_on_where_a_turn_ended() {
        let mut ports = ports(5);
        let mut visited = turns(&mut ports, 1);
        visited.sort_unstable();
        assert_eq!(visited, [0, 1, 2, 3, 4]);
        // Turns that end after two visits still come round to everybody.
        let mut seen: Vec<u16> =
            (0..5).flat_map(|_| [0, 1].map(|visit| ports.next(visit).unwrap().0)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(ports.budget(), BUDGET_MIN);
    }

    #[test]
    fn one_port_that_is_not_emptied_is_enough_to_be_behind() {
        let mut ports = WorkerPorts::new();
        let full = |number: u16| {
            let (port, peer) = memory::pair(&format!("mem{number}"), PortIndex(number), 1024).unwrap();
            assert!((0..600).all(|_| peer.send(&[0x5a; 60])));
            port
        };
        for number in 0..2 {
            assert!(ports.add(Box::new(full(number))).is_none());
        }
        let ms = |ms: u64| Now(ms * 1_000_000);
        for at in [0, 4] {
            assert!(ports.visited(PortIndex(0), 16, 16, ms(at)), "it has more");
            assert!(!ports.visited(PortIndex(1), 15, 16, ms(at)), "it was empty");
            assert!(!ports.behind());
        }
        ports.visited(PortIndex(0), 16, 16, ms(5));
        ports.visited(PortIndex(1), 0, 16, ms(5));
        assert!(ports.behind());
        ports.visited(PortIndex(0), 3, 16, ms(6));
        assert!(!ports.behind());
        for at in [7, 17] {
            ports.visited(PortIndex(1), 16, 16, ms(at));
        }
        assert!(ports.behind());
        ports.remove(PortIndex(1));
        assert!(!ports.behind(), "what was left at a port that is gone is left no more");
    }

    #[test]
    fn what_large_packets_keep_waiting_is_left_too() {
        in_namespace(|| {
            let mut pool = FramePool::new(&Umem::plain(64).unwrap(), 64).unwrap();
            let port = TunPort::open("worker-tun", 1450, None, PortIndex(0)).unwrap();
            ip("addr add 10.9.0.1/32 dev worker-tun");
            ip("route add 10.9.0.0/24 dev worker-tun src 10.9.0.1");
            // More than an ordinary frame holds.
            ip("link set worker-tun mtu 3000");
            let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
            assert!((0..=LARGE_BUDGET).all(|_| socket.send_to(&[7; 2500], "10.9.0.2:8000").is_ok()));
            let mut ports = WorkerPorts::new();
            assert!(ports.add(Box::new(port)).is_none());
            let mut visit = || {
                let slot = ports.get(PortIndex(0)).unwrap();
                let mut packets = Vec::with_capacity(BATCH);
                let received = slot.port.receive(&mut pool, &mut packets, BATCH);
                release(&mut pool, packets);
                let again = ports.visited(PortIndex(0), received, BATCH, Now(0));
                (received, ports.get(PortIndex(0)).unwrap().backlog != Backlog::default(), again)
            };
            assert_eq!(visit(), (LARGE_BUDGET, true, false));
            assert_eq!(visit(), (1, false, false));
        });
    }

    #[test]
    fn ports_that_have_much_are_watched_again_before_a_sleep_only() {
        let mut ports = ports(3);
        let mut turn = |received: usize, sent: bool| {
            ports.visited(PortIndex(1), received, BATCH, Now(0));
            (0..if sent { WATCHED / KICK } else { 0 }).for_each(|_| {
                ports.queue(PortIndex(2));
                ports.flush();
            });
            let forgotten = std::cell::RefCell::new(Vec::new());
            ports.unwatch(|port| forgotten.borrow_mut().push(port.index().0));
            (ports.unwatched.clone(), forgotten.into_inner())
        };
        assert_eq!(turn(40, false), (vec![], vec![]));
        assert_eq!(turn(40, false), (vec![1], vec![1]));
        assert_eq!(turn(40, true), (vec![1, 2], vec![2]), "each once");
        assert!(!ports.watch(|port| port.index() == PortIndex(1)), "one could not be");
        assert_eq!(ports.unwatched, [2]);
        ports.remove(PortIndex(2));
        assert!(ports.watch(|_| false), "what is gone need not be");
        ports.visited(PortIndex(1), 40, BATCH, Now(0));
        assert!(!ports.tired(), "it is counted anew");
    }

    #[test]
    fn silent_ports_cool_and_are_still_visited_in_turn() {
        let mut ports = ports(20);
        turns(&mut ports, 2 * usize::from(COLD_AFTER));
        assert_eq!(ports.visits(), COLD_VISITS);
        let mut visited = turns(&mut ports, 5);
        visited.sort_unstable();
        let twice: Vec<u16> = (0..20).flat_map(|number| [number, number]).collect();
        assert_eq!(visited, twice);
        // One that has something is hot again, and alone takes whole batches.
        ports.visited(PortIndex(7), 3, 16, Now(0));
        assert_eq!(
            (ports.visits(), ports.next(0), ports.budget()),
            (1 + COLD_VISITS, Some(PortIndex(7)), BATCH)
        );
        ports.heat(PortIndex(8));
        assert_eq!(ports.hot, [7, 8]);
    }
}
