//! Answers of DNS that wait in a worker until what they say is in force, so that the pod's first packet to a new address
//! finds it allowed.

use vswitch_datapath::{DnsQueue, Now, Packet, PortIndex};

use crate::io::Frame;

/// Answers that wait at once, each in a frame of its own. One that comes then goes on at once.
pub(super) const HELD_MAX: usize = 64;
/// Of these, those to one port: a pod that asks for much does not take the places of all others.
const OF_PORT_MAX: usize = HELD_MAX / 4;
/// How long one waits at most: much longer than an agent at ease takes, and short for who asked.
const HOLD_NS: u64 = 100_000_000;

/// They, the oldest first.
pub(super) struct HeldAnswers(Vec<Waiting>);

struct Waiting {
    number: u64,
    since: Now,
    packet: Packet<Frame>,
}

impl HeldAnswers {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(HELD_MAX))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps one; gives it back when there are too many, or too many to its port.
    pub(super) fn add(&mut self, number: u64, since: Now, packet: Packet<Frame>) -> Option<Packet<Frame>> {
        let of_port = self.0.iter().filter(|waiting| waiting.packet.port == packet.port).count();
        if self.0.len() == HELD_MAX || of_port == OF_PORT_MAX {
            return Some(packet);
        }
        self.0.push(Waiting { number, since, packet });
        None
    }

    /// Moves to `out` those that were released or have waited for the longest time.
    pub(super) fn release(&mut self, now: Now, queue: &DnsQueue, out: &mut Vec<Packet<Frame>>) {
        while let Some(number) = queue.take_released() {
            // What is not here has not been held, or not until now.
            if let Some(at) = self.0.iter().position(|waiting| waiting.number == number) {
                out.push(self.0.remove(at).packet);
            }
        }
        let over =
            self.0.iter().take_while(|waiting| now.0.saturating_sub(waiting.since.0) >= HOLD_NS).count();
        queue.unreleased.add(over as u64);
        out.extend(self.0.drain(..over).map(|waiting| waiting.packet));
    }

    /// Gives back all, or those that would leave by a port that goes.
    pub(super) fn give_up(&mut self, port: Option<PortIndex>) -> impl Iterator<Item = Packet<Frame>> {
        let is_meant = move |waiting: &mut Waiting| port.is_none_or(|port| waiting.packet.port == port);
        self.0.extract_if(.., is_meant).map(|waiting| waiting.packet)
    }
}

#[cfg(test)]
mod tests {
    use vswitch_datapath::Offload;

    use super::*;
    use crate::io::{FramePool, Umem};

    fn numbers(packets: &[Packet<Frame>]) -> Vec<u16> {
        packets.iter().map(|packet| packet.port.0).collect()
    }

    #[test]
    fn they_go_when_released_or_late_and_never_too_many_wait() {
        let mut pool = FramePool::new(&Umem::plain(256).unwrap(), 256).unwrap();
        let (queue, mut held, mut out) = (DnsQueue::default(), HeldAnswers::new(), Vec::new());
        let mut packet = |port| {
            let buffer = pool.take().unwrap();
            Packet { buffer, port: PortIndex(port), offload: Offload::default() }
        };
        for number in 1..=HELD_MAX as u16 {
            assert!(held.add(number.into(), Now(number.into()), packet(number)).is_none());
        }
        let beyond = held.add(99, Now(99), packet(99)).unwrap();
        assert_eq!((beyond.port, held.len()), (PortIndex(99), HELD_MAX));
        out.push(beyond);
        [3, 99, 1].into_iter().for_each(|number| queue.release(number));
        held.release(Now(HOLD_NS), &queue, &mut out);
        assert_eq!(numbers(&out), [99, 3, 1]);
        held.release(Now(HOLD_NS + 4), &queue, &mut out);
        assert_eq!(numbers(&out), [99, 3, 1, 2, 4]);
        assert_eq!(queue.unreleased.get(), 2);
        out.extend(held.give_up(Some(PortIndex(7))));
        assert_eq!(numbers(&out)[5..], [7]);
        out.extend(held.give_up(None));
        assert!(held.is_empty() && out.len() == HELD_MAX + 1);
        pool.put_all(out.drain(..).map(|packet| packet.buffer));
        assert_eq!(pool.free(), 256);
    }

    #[test]
    fn one_port_leaves_room_for_others() {
        let mut pool = FramePool::new(&Umem::plain(256).unwrap(), 256).unwrap();
        let mut held = HeldAnswers::new();
        let mut beyond = Vec::new();
        for number in 1..=HELD_MAX as u64 {
            let packet =
                Packet { buffer: pool.take().unwrap(), port: PortIndex(1), offload: Offload::default() };
            beyond.extend(held.add(number, Now(0), packet));
        }
        assert_eq!((held.len(), beyond.len()), (OF_PORT_MAX, HELD_MAX - OF_PORT_MAX));
        let other = Packet { port: PortIndex(2), ..beyond.pop().unwrap() };
        assert!(held.add(99, Now(0), other).is_none());
        beyond.extend(held.give_up(None));
        pool.put_all(beyond.drain(..).map(|packet| packet.buffer));
        assert_eq!(pool.free(), 256);
    }
}
