//! The way from one worker to another: parcels that go round, and what one port may have in them.
//!
//! What a lane holds is for all ports of its sender, so that none may fill it: a port may have no more packets under way than
//! there is still room for. One alone has half of the room, two have a third each; whoever comes next finds some. (Dynamic
//! thresholds: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998, with a factor
//! of 1.) The sender keeps the account alone, and looks at the lane once a parcel, and before it refuses something.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use vswitch_datapath::counters::Counter;
use vswitch_datapath::{BATCH, Packet, PortIndex};
use vswitch_model::limits::PORTS_MAX;

use crate::io::Frame;

/// Parcels of a lane.
pub(super) const PARCELS: usize = 32;
/// Parcels that one works at for a while.
pub(super) const BACKLOG: usize = 4;
/// Packets that are shared out: those of all parcels but the ones that may go off before they are full, one that is being
/// filled, and one that is being unpacked.
pub(super) const ROOM: usize = (PARCELS - BACKLOG - 2) * BATCH;

/// A packet for another worker, and what that is to do with it.
#[derive(Debug)]
pub(super) enum Handed {
    /// It belongs to a flow of that worker: to be walked.
    Walk(Packet<Frame>),
    /// It was walked: to be transmitted by the port it bears.
    Send(Packet<Frame>),
}

impl Handed {
    pub(super) fn into_packet(self) -> Packet<Frame> {
        match self {
            Self::Walk(packet) | Self::Send(packet) => packet,
        }
    }

    /// The port it came by.
    fn origin(&self) -> PortIndex {
        let (Self::Walk(packet) | Self::Send(packet)) = self;
        packet.buffer.origin()
    }
}

/// Packets that travel together.
pub(super) type Parcel = Vec<Handed>;

/// Parcels, full and empty, as many as it was made with.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) full: ArrayQueue<Parcel>,
    pub(super) empty: ArrayQueue<Parcel>,
    /// Packets in all parcels that were sent off so far, counted before they are: the sender alone writes.
    pub(super) sent: CachePadded<Counter>,
}

impl Lane {
    pub(super) fn new() -> Self {
        let (full, empty) = (ArrayQueue::new(PARCELS), ArrayQueue::new(PARCELS));
        let lane = Self { full, empty, sent: CachePadded::default() };
        for _ in 0..PARCELS {
            lane.empty.push(Vec::with_capacity(BATCH)).expect("the queue has a place for each parcel");
        }
        lane
    }
}

/// The sender's end of a lane.
#[derive(Debug)]
pub(super) struct Sender {
    lane: Arc<Lane>,
    /// The parcel that is being filled.
    open: Option<Parcel>,
    shares: Shares,
    /// Something was sent since the receiver was last looked at.
    sent: bool,
    retired: bool,
}

impl Sender {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, open: None, shares: Shares::new(), sent: false, retired: false }
    }

    /// Puts a packet into the open parcel. Gives it back when the port it came by has its share under way, the receiver is
    /// behind, or nothing is to be handed over any more.
    pub(super) fn hand(&mut self, handed: Handed) -> Result<(), Handed> {
        let origin = handed.origin();
        if !self.shares.has_room(origin) {
            self.shares.settle(self.lane.full.len());
            if !self.shares.has_room(origin) {
                return Err(handed);
            }
        }
        if self.open.is_none() && !self.retired {
            self.shares.settle(self.lane.full.len());
            self.open = self.lane.empty.pop();
        }
        let Some(parcel) = &mut self.open else { return Err(handed) };
        parcel.push(handed);
        self.shares.add(origin);
        if parcel.len() == BATCH {
            self.send_off();
        }
        Ok(())
    }

    fn send_off(&mut self) {
        if let Some(parcel) = self.open.take() {
            self.shares.close(parcel.len());
            self.lane.sent.add(parcel.len() as u64);
            // A lane has a place for each of its parcels.
            if self.lane.full.push(parcel).is_err() {
                debug_assert!(false, "a lane has more parcels than places");
            }
            self.sent = true;
        }
    }

    /// Sends off what is open, unless the receiver has [`BACKLOG`] before it: it could do nothing with it yet, and small
    /// parcels would soon take all places. Whether anything was sent since this was asked last.
    pub(super) fn send(&mut self) -> bool {
        if self.open.is_some() && self.lane.full.len() < BACKLOG {
            self.send_off();
        }
        std::mem::take(&mut self.sent)
    }

    /// Sends off what is open; from now on nothing is taken.
    pub(super) fn retire(&mut self) {
        self.send_off();
        self.retired = true;
    }

    /// Whether nothing is left to be sent off.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none()
    }
}

/// What each port has under way in a lane.
#[derive(Debug)]
struct Shares {
    /// Packets, by the port they came by; the last number is for all that have none.
    of: Box<[u16]>,
    /// The ports of all packets under way, those of the oldest parcel first.
    origins: VecDeque<u16>,
    /// Packets of each parcel that was sent off, the oldest first.
    parcels: VecDeque<u8>,
}

impl Shares {
    fn new() -> Self {
        Self {
            of: vec![0; PORTS_MAX + 1].into(),
            origins: VecDeque::with_capacity((PARCELS + 1) * BATCH),
            parcels: VecDeque::with_capacity(PARCELS + 1),
        }
    }

    /// Whether one more packet of a port may go under way.
    fn has_room(&self, origin: PortIndex) -> bool {
        usize::from(self.of[place(origin)]) < ROOM.saturating_sub(self.origins.len())
    }

    /// One more packet of a port is in the open parcel.
    fn add(&mut self, origin: PortIndex) {
        let place = place(origin);
        self.of[place] += 1;
        self.origins.push_back(place as u16);
    }

    /// The open parcel goes off with so many packets.
    fn close(&mut self, packets: usize) {
        self.parcels.push_back(packets as u8);
    }

    /// No more than `left` of the parcels that were sent off are in the lane: the oldest were taken out.
    fn settle(&mut self, left: usize) {
        while self.parcels.len() > left
            && let Some(packets) = self.parcels.pop_front()
        {
            for place in self.origins.drain(..usize::from(packets)) {
                self.of[usize::from(place)] -= 1;
            }
        }
    }
}

fn place(origin: PortIndex) -> usize {
    usize::from(origin.0).min(PORTS_MAX)
}

const _: () = assert!(BATCH <= u8::MAX as usize && PORTS_MAX < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use vswitch_datapath::Offload;

    use super::*;
    use crate::io::{FramePool, Umem};

    fn lane() -> (Sender, Arc<Lane>, FramePool) {
        let lane = Arc::new(Lane::new());
        let pool = FramePool::new(&Umem::plain(8192).unwrap(), 8192).unwrap();
        (Sender::new(Arc::clone(&lane)), lane, pool)
    }

    /// A packet that came by `origin` and leaves by port 9, as all do.
    fn packet(pool: &mut FramePool, origin: u16) -> Packet<Frame> {
        let mut buffer = pool.take().unwrap();
        buffer.set_origin(PortIndex(origin));
        Packet { buffer, port: PortIndex(9), offload: Offload::default() }
    }

    /// Hands over packets of a port until one is refused, or `most`; how many went.
    fn flood(sender: &mut Sender, pool: &mut FramePool, origin: u16, most: usize) -> usize {
        for went in 0..most {
            if let Err(refused) = sender.hand(Handed::Send(packet(pool, origin))) {
                pool.put(refused.into_packet().buffer);
                return went;
            }
        }
        most
    }

    fn unpack(lane: &Lane, pool: &mut FramePool, parcels: usize) -> usize {
        let mut packets = 0;
        for _ in 0..parcels {
            let Some(mut parcel) = lane.full.pop() else { break };
            packets += parcel.len();
            pool.put_all(parcel.drain(..).map(|handed| handed.into_packet().buffer));
            lane.empty.push(parcel).unwrap();
        }
        packets
    }

    #[test]
    fn a_port_that_floods_leaves_room_for_the_others() {
        let (mut sender, lane, mut pool) = lane();
        assert_eq!(flood(&mut sender, &mut pool, 1, 10_000), ROOM / 2);
        assert_eq!(flood(&mut sender, &mut pool, 2, 10_000), ROOM / 4);
        // By now as much again is free as the newest has: those that say little lose nothing.
        for origin in 3..63 {
            assert_eq!(flood(&mut sender, &mut pool, origin, 5), 5, "port {origin}");
        }
        assert_eq!(flood(&mut sender, &mut pool, 1, 1), 0);
        // Packets that came by no port that is known share a place of their own.
        let unknown = flood(&mut sender, &mut pool, u16::MAX, 10_000);
        assert_eq!((unknown, flood(&mut sender, &mut pool, PORTS_MAX as u16, 1)), (58, 0));
        // What is taken out is free again: 8 parcels of the first, so that it has 320 under way, and 570 are free.
        assert_eq!(unpack(&lane, &mut pool, 8), 8 * BATCH);
        assert_eq!(flood(&mut sender, &mut pool, 1, 10_000), (570 - 320) / 2);
        sender.retire();
        unpack(&lane, &mut pool, PARCELS);
        assert_eq!(pool.free(), 8192);
    }

    #[test]
    fn what_was_taken_out_is_forgotten_whole() {
        let (mut sender, lane, mut pool) = lane();
        for turn in 0..500usize {
            let count = turn * 7 % 131;
            assert_eq!(flood(&mut sender, &mut pool, (turn % 5) as u16, count), count);
            sender.send();
            // Now and then more, now and then less than came.
            unpack(&lane, &mut pool, [1, 0, 4, 9][turn % 4]);
        }
        sender.retire();
        unpack(&lane, &mut pool, PARCELS);
        sender.shares.settle(0);
        assert!(sender.shares.of.iter().all(|packets| *packets == 0) && sender.shares.origins.is_empty());
        let late = sender.hand(Handed::Walk(packet(&mut pool, 1))).unwrap_err().into_packet();
        pool.put(late.buffer);
        assert_eq!(pool.free(), 8192);
    }
}
