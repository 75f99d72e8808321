//! Several workers: who owns what, and how packets get from one to the other.
//!
//! ```text
//! worker 0                                      worker 1
//!   receive -> anchor -- its own --> walk         receive -> anchor -> ...
//!                 |                                  ^
//!                 +-- of worker 1: parcel --> lane --+--> walk -> its own port: transmit
//!                                                              -> a port of worker 0: parcel --> lane ...
//! ```
//!
//! - A port's number says whose it is: worker `number % workers`. An uplink with several queues is one port with a part for
//!   each of several workers, the first of which is that one; each part has its own queues, and sends by them.
//! - A flow is followed by the worker of the port it belongs to ([`vswitch_datapath::anchor()`]), whichever worker received.
//! - Each ordered pair of workers has a [lane](super::lane): packets travel in parcels of up to a batch, sent off when they are
//!   full, and at the end of a turn when the receiver has little to do. A lane has a fixed number of parcels, and the ports whose
//!   packets travel by it share them. When the receiver is behind, who has its share under way gets no more: the newcomer
//!   ends, counted ([`DropReason::HandoverFull`](vswitch_model::DropReason::HandoverFull) before the walk,
//!   [`DropReason::TransmitRingFull`](vswitch_model::DropReason::TransmitRingFull) after it).
//! - Packets of one direction of a flow come by one queue, so by one lane to its owner and by one lane on: they keep their order.
//!
//! With one worker there is none of this.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use nix::errno::Errno;
use vswitch_datapath::{BATCH, PortIndex};

use super::doze::Doze;
use super::lane::{Handed, Lane, Parcel, Sender};
use super::rest::Waker;

/// Where a worker is found when it sleeps.
#[derive(Debug)]
struct Bed {
    doze: CachePadded<Doze>,
    waker: Waker,
}

/// A worker's place among the others.
#[derive(Debug)]
pub struct Place {
    pub(super) waker: Waker,
    /// None: it is alone.
    pub(super) peers: Option<Box<Peers>>,
}

/// One worker's ends of the lanes to and from all others.
#[derive(Debug)]
pub(super) struct Peers {
    number: usize,
    /// By worker; the one to itself is never used.
    to: Box<[Sender]>,
    from: Box<[Arc<Lane>]>,
    /// Packets taken from each so far.
    taken: Box<[u64]>,
    beds: Arc<[Bed]>,
    /// Whose lane is looked at next.
    next: usize,
    /// Packets handed over less those taken: the sum over all workers is what is under way.
    ahead: i64,
}

/// Places for `count` workers that hand packets to each other; for one, a place without peers.
///
/// # Errors
///
/// The kernel has no more event descriptors.
pub fn places(count: usize) -> Result<Vec<Place>, Errno> {
    let wakers = (0..count).map(|_| Waker::new()).collect::<Result<Vec<_>, _>>()?;
    if count == 1 {
        return Ok(wakers.into_iter().map(|waker| Place { waker, peers: None }).collect());
    }
    let bed = |waker: &Waker| Bed { doze: CachePadded::new(Doze::new()), waker: waker.clone() };
    let beds: Arc<[Bed]> = wakers.iter().map(bed).collect();
    let lanes: Vec<Vec<Arc<Lane>>> =
        (0..count).map(|_| (0..count).map(|_| Arc::new(Lane::new())).collect()).collect();
    let place = |(number, waker)| {
        let peers = Peers {
            number,
            to: lanes[number].iter().map(Arc::clone).map(Sender::new).collect(),
            from: lanes.iter().map(|lanes| Arc::clone(&lanes[number])).collect(),
            taken: vec![0; count].into(),
            beds: Arc::clone(&beds),
            next: 0,
            ahead: 0,
        };
        Place { waker, peers: Some(Box::new(peers)) }
    };
    Ok(wakers.into_iter().enumerate().map(place).collect())
}

/// Whose port it is, of `workers`.
#[must_use]
pub fn owner(port: PortIndex, workers: usize) -> usize {
    usize::from(port.0) % workers.max(1)
}

impl Peers {
    /// The worker this is of.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Whose port it is.
    pub(super) fn owner(&self, port: PortIndex) -> usize {
        owner(port, self.to.len())
    }

    /// Puts a packet into the parcel for another worker. Gives it back when the port it came by has its share of the lane
    /// under way, that worker is behind, or nothing is to be handed over any more.
    pub(super) fn hand(&mut self, to: usize, handed: Handed) -> Result<(), Handed> {
        let Some(to) = self.to.get_mut(to) else { return Err(handed) };
        to.hand(handed)?;
        self.ahead += 1;
        Ok(())
    }

    /// Sends off what was handed over, and wakes who sleeps.
    pub(super) fn send_all(&mut self) {
        for (to, bed) in self.to.iter_mut().zip(self.beds.iter()) {
            if to.send() && bed.doze.is_to_be_woken() {
                bed.waker.wake();
            }
        }
    }

    /// The next parcel that came, from all workers in turn, and whom to give it back to.
    pub(super) fn take(&mut self) -> Option<(usize, Parcel)> {
        for _ in 0..self.from.len() {
            let from = self.next;
            self.next = (self.next + 1) % self.from.len();
            if let Some(parcel) = self.from[from].full.pop() {
                self.ahead -= parcel.len() as i64;
                self.taken[from] += parcel.len() as u64;
                return Some((from, parcel));
            }
        }
        None
    }

    /// Packets that others have sent off, or are about to, and that are still to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.from.iter().zip(&self.taken).map(|(lane, taken)| lane.sent.get() - taken).sum::<u64>() as usize
    }

    /// Gives back a parcel that is empty now.
    pub(super) fn give_back(&self, from: usize, parcel: Parcel) {
        debug_assert!(parcel.is_empty() && parcel.capacity() >= BATCH);
        // A lane has a place for each of its parcels.
        self.from[from].empty.push(parcel).ok();
    }

    /// Packets it has handed over so far less those it has taken.
    pub(super) fn ahead(&self) -> i64 {
        self.ahead
    }

    /// Says that the worker is about to sleep. False: something came or is still to go, it must not.
    pub(super) fn may_sleep(&self) -> bool {
        self.beds[self.number].doze.announce();
        let nothing_goes = self.to.iter().all(Sender::is_idle);
        let may = nothing_goes && self.from.iter().all(|lane| lane.full.is_empty());
        if !may {
            self.awake();
        }
        may
    }

    /// Says that the worker looks again.
    pub(super) fn awake(&self) {
        self.beds[self.number].doze.awake();
    }

    /// From now on nothing is handed over: the others are about to end.
    pub(super) fn retire(&mut self) {
        self.to.iter_mut().for_each(Sender::retire);
        self.send_all();
    }
}

#[cfg(test)]
mod tests {
    use vswitch_datapath::{Buffer, Offload, Packet};

    use super::*;
    use crate::io::{Frame, FramePool, Umem};
    use crate::worker::lane::ROOM;

    fn two() -> (Box<Peers>, Box<Peers>, FramePool) {
        let mut places = places(2).unwrap().into_iter().map(|place| place.peers.unwrap());
        let pool = FramePool::new(&Umem::plain(8192).unwrap(), 8192).unwrap();
        (places.next().unwrap(), places.next().unwrap(), pool)
    }

    fn packet(pool: &mut FramePool, mark: u16) -> Packet<Frame> {
        let mut buffer = pool.take().unwrap();
        assert!(buffer.fill(&mark.to_be_bytes()));
        buffer.set_origin(PortIndex(mark % 7));
        Packet { buffer, port: PortIndex(mark % 7), offload: Offload::default() }
    }

    fn mark(packet: &Packet<Frame>) -> u16 {
        u16::from_be_bytes(packet.buffer.bytes().try_into().unwrap())
    }

    #[test]
    fn one_worker_has_no_peers() {
        let places = places(1).unwrap();
        assert!(places.len() == 1 && places[0].peers.is_none());
    }

    #[test]
    fn packets_come_in_order_and_parcels_go_round() {
        let (mut one, mut two, mut pool) = two();
        let (mut handed, mut came) = (0, Vec::new());
        for turn in 0..200u16 {
            for _ in 0..turn % 130 {
                one.hand(1, Handed::Walk(packet(&mut pool, handed))).unwrap();
                handed += 1;
            }
            one.send_all();
            while let Some((from, mut parcel)) = two.take() {
                assert_eq!(from, 0);
                for handed in parcel.drain(..) {
                    let packet = handed.into_packet();
                    came.push(mark(&packet));
                    pool.put(packet.buffer);
                }
                two.give_back(from, parcel);
            }
        }
        assert!(came.iter().copied().eq(0..handed));
        assert_eq!(pool.free(), 8192);
    }

    #[test]
    fn a_worker_that_is_behind_gets_no_more_and_what_it_has_stays() {
        let (mut one, mut two, mut pool) = two();
        // Seven ports that send much have an eighth of the room each, and an eighth is left.
        let room = (ROOM / 8 * 7) as u16;
        for number in 0..room {
            one.hand(1, Handed::Send(packet(&mut pool, number))).unwrap();
        }
        let newcomer = one.hand(1, Handed::Send(packet(&mut pool, room))).unwrap_err().into_packet();
        assert_eq!(mark(&newcomer), room);
        assert_eq!(one.ahead() + two.ahead(), i64::from(room));
        // One parcel read makes room for more.
        let (from, mut parcel) = two.take().unwrap();
        pool.put_all(parcel.drain(..).map(|handed| handed.into_packet().buffer));
        two.give_back(from, parcel);
        one.hand(1, Handed::Send(newcomer)).unwrap();
        // Nothing after this, but what was open still goes.
        one.retire();
        let late = one.hand(1, Handed::Send(packet(&mut pool, 1))).unwrap_err().into_packet();
        pool.put(late.buffer);
        let mut left = 0;
        while let Some((_, mut parcel)) = two.take() {
            left += parcel.len();
            pool.put_all(parcel.drain(..).map(|handed| handed.into_packet().buffer));
        }
        assert_eq!((left, pool.free()), (usize::from(room) - BATCH + 1, 8192));
        assert_eq!(one.ahead() + two.ahead(), 0);
    }

    #[test]
    fn what_waits_is_counted_in_packets_not_in_parcels() {
        let mut places: Vec<_> = places(6).unwrap().into_iter().map(|place| place.peers.unwrap()).collect();
        let mut pool = FramePool::new(&Umem::plain(8192).unwrap(), 8192).unwrap();
        let (mut receiver, mut senders) = (places.remove(0), places);
        for mark in 0..4 {
            for sender in &mut senders {
                sender.hand(0, Handed::Walk(packet(&mut pool, mark))).unwrap();
                sender.send_all();
            }
        }
        assert_eq!(receiver.waiting(), 4 * 5);
        // A fifth parcel goes off once it is full.
        for more in 1..=BATCH {
            senders[0].hand(0, Handed::Walk(packet(&mut pool, 4))).unwrap();
            senders[0].send_all();
            assert_eq!(receiver.waiting(), 4 * 5 + if more == BATCH { more } else { 0 });
        }
        let mut left = receiver.waiting();
        while let Some((_, mut parcel)) = receiver.take() {
            left -= parcel.len();
            assert_eq!(receiver.waiting(), left);
            pool.put_all(parcel.drain(..).map(|handed| handed.into_packet().buffer));
        }
        assert_eq!(left, 0);
    }

    #[test]
    fn small_parcels_do_not_take_all_places() {
        let (mut one, mut two, mut pool) = two();
        for number in 0..1000 {
            one.hand(1, Handed::Walk(packet(&mut pool, number))).unwrap();
            one.send_all();
        }
        assert!(!one.may_sleep(), "something is still to go");
        let mut came = 0;
        while came < 1000 {
            while let Some((from, mut parcel)) = two.take() {
                for handed in parcel.drain(..) {
                    let packet = handed.into_packet();
                    assert_eq!(mark(&packet), came);
                    came += 1;
                    pool.put(packet.buffer);
                }
                two.give_back(from, parcel);
            }
            one.send_all();
        }
        assert!(one.may_sleep());
    }

    #[test]
    fn who_sleeps_is_woken_once_and_does_not_sleep_on_what_came() {
        let (mut one, two, mut pool) = two();
        assert!(two.may_sleep());
        one.hand(1, Handed::Walk(packet(&mut pool, 1))).unwrap();
        one.send_all();
        assert!(two.beds[1].waker.take(), "it was woken");
        assert!(!two.may_sleep(), "something waits");
        one.hand(1, Handed::Walk(packet(&mut pool, 2))).unwrap();
        one.send_all();
        assert!(!two.beds[1].waker.take(), "it is awake");
        let mut two = two;
        while let Some((_, mut parcel)) = two.take() {
            pool.put_all(parcel.drain(..).map(|handed| handed.into_packet().buffer));
        }
    }
}
