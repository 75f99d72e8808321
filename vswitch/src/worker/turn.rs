//! One turn of a worker.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use vswitch_datapath::segment::PIECES_MAX;
use vswitch_datapath::{
    BATCH, Buffer, Counters, Mark, NoProbe, Now, Output, Packet, PortIndex, Probe, Segment, Stage, Tables,
    Walk,
};
use vswitch_model::DropReason;

use super::{LARGE_SPARE, SPARE, SPARE_MIN, Stopped, Worker};
use crate::io::{Frame, FramePool, Port, Refused, Work, widest};

/// Batches walked in one turn at most, so that kicks, commands and new tables never wait long.
const BATCHES: usize = 4;
/// In this time every flow is looked at once for having expired, as far as the next limit allows.
const SWEEP_NS: u64 = 10_000_000_000;
/// Flows looked at for that between two turns, at most: when all of them have expired, that takes some 0.1 ms.
const TICK_BUDGET: u64 = 512;
/// Batches taken from a port that is about to be closed: what its rings hold at most.
const CLEAR_BATCHES: usize = 2048 / BATCH;
/// Least time between two such looks.
const TICK_NS: u64 = 100_000;

/// A batch that is to be walked.
struct Walking<'a, P> {
    walk: &'a mut Walk,
    tables: &'a Tables,
    now: Now,
    batch: &'a mut Vec<Packet<Frame>>,
    out: &'a mut Output<Frame>,
    probe: &'a mut P,
}

impl<P: Probe> Work for Walking<'_, P> {
    #[inline(always)]
    fn run(self) {
        self.walk.process_probed(self.tables, self.now, self.batch, self.out, self.probe);
    }
}

impl Worker {
    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let reply = loop {
            match self.step() {
                ControlFlow::Continue(worked) => {
                    let waits = !self.held.is_empty() || self.due > TICK_BUDGET;
                    self.rest.rest(worked, waits, &mut self.ports, self.peers.as_deref(), &self.status);
                }
                ControlFlow::Break(reply) => break reply,
            }
        };
        self.end(&reply);
    }

    /// One turn, whoever runs the worker: whether there was a packet; or whom to [tell](Worker::end) that it ends.
    pub fn step(&mut self) -> ControlFlow<Sender<Stopped>, bool> {
        self.step_with(Self::now, &mut NoProbe)
    }

    /// The same at a time that the caller says: for measurements that are to be the same every time.
    pub fn step_at(&mut self, now: Now) -> ControlFlow<Sender<Stopped>, bool> {
        self.step_with(|_| now, &mut NoProbe)
    }

    /// The same for a measurement, which is told after each stage. Generic, so that it is compiled where it is used.
    pub fn step_probed<P: Probe>(&mut self, probe: &mut P) -> ControlFlow<Sender<Stopped>, bool> {
        self.step_with(Self::now, probe)
    }

    #[inline]
    fn step_with<P: Probe>(
        &mut self,
        now: impl FnOnce(&Self) -> Now,
        probe: &mut P,
    ) -> ControlFlow<Sender<Stopped>, bool> {
        self.adopt();
        if let Some(reply) = self.obey() {
            return ControlFlow::Break(reply);
        }
        let now = now(self);
        probe.mark(Mark::Begin);
        let worked = self.turn(now, probe);
        self.tell(worked);
        probe.mark(Mark::End);
        ControlFlow::Continue(worked)
    }

    /// Sets its clock, which goes on from there: for measurements that turn it now and then, and between whose turns no
    /// flow is to expire.
    pub fn set_clock(&mut self, now: Now) {
        let started = Instant::now().checked_sub(Duration::from_nanos(now.0));
        self.start = started.unwrap_or(self.start);
    }

    /// The time by the worker's clock.
    pub(super) fn now(&self) -> Now {
        Now(self.start.elapsed().as_nanos() as u64)
    }

    /// Takes the newest tables. The compiler keeps the ones before until it has seen that we run these.
    fn adopt(&mut self) {
        let newest = self.published.revision.load(Ordering::Acquire);
        if newest != self.tables.revision.0 {
            self.tables = self.published.tables.load_full();
            self.status.revision.store(self.tables.revision.0, Ordering::Release);
        }
    }

    /// Visits ports, walks what they have and sends what comes of it. Whether there was anything.
    fn turn<P: Probe>(&mut self, now: Now, probe: &mut P) -> bool {
        let (mut batches, mut received) = (0, 0);
        let (walked, newcomers) = (self.walked, self.newcomers());
        if self.judged.most().is_some() && !self.is_behind() {
            self.ease(now);
        }
        if !self.held.is_empty() {
            self.release_answers(now);
        }
        if self.peers.is_some() {
            received += self.take_handed(now, probe);
        }
        let mut visits = self.ports.visits();
        loop {
            let mut left = false;
            for visit in 0..visits {
                let Some(index) = self.ports.next(visit) else { continue };
                let (count, more) = self.visit(index, now);
                (received, left) = (received + count, left || more);
                // The spare frames do for the large packets of one visit.
                if self.batch.len() == BATCH || self.pieces > 0 {
                    probe.mark(Mark::Receive);
                    self.walk_batch(now, probe);
                    batches += 1;
                    if batches == BATCHES {
                        break;
                    }
                }
            }
            // Shares come to little when few of the hot ports have something: kicks and look-ups pay by the batch.
            if !left || received >= BATCH || batches == BATCHES {
                break;
            }
            visits = self.ports.hot();
        }
        probe.mark(Mark::Receive);
        if !self.batch.is_empty() {
            self.walk_batch(now, probe);
        }
        // Before the system calls, so that others begin meanwhile.
        self.share();
        self.ports.flush();
        if self.ports.tired() {
            self.ports.unwatch(|port| self.rest.forget(port));
        }
        probe.mark(Mark::Flush);
        self.tick(now);
        if self.is_behind() || self.judged.most().is_some() {
            // Not what was received: others may have been given most of that.
            self.limit(now, self.walked - walked, self.newcomers() - newcomers);
        }
        received > 0
    }

    /// Packets that belonged to no known flow, so far.
    #[inline]
    fn newcomers(&self) -> u64 {
        self.counters.stage(Stage::FlowMiss)
    }

    /// Whether something has been left for long.
    #[inline]
    fn is_behind(&self) -> bool {
        self.ports.behind() || self.handed.stands()
    }

    /// Settles how many newcomers the next turn judges, after one that walked so many packets.
    #[cold]
    fn limit(&mut self, now: Now, walked: u64, newcomers: u64) {
        self.judged.turned(now, self.is_behind(), walked, newcomers);
        self.walk.limit_newcomers(self.judged.most());
    }

    /// Lets this turn judge what the time since the last one allows.
    #[cold]
    fn ease(&mut self, now: Now) {
        self.judged.passed(now);
        self.walk.limit_newcomers(self.judged.most());
    }

    /// Brings home what a port has sent and takes what it has received; how many packets, and whether it has more.
    fn visit(&mut self, index: PortIndex, now: Now) -> (usize, bool) {
        let budget = self.ports.budget().min(BATCH - self.batch.len());
        let Some(slot) = self.ports.get(index) else { return (0, false) };
        slot.port.reap(&mut self.pool);
        let before = self.batch.len();
        let into = if self.peers.is_none() { &mut self.batch } else { &mut self.arrived };
        let received = slot.port.receive(&mut self.pool, into, budget);
        let more = self.ports.visited(index, received, budget, now);
        if self.peers.is_some() {
            self.sort_arrived();
        }
        if self.tables.coalesces() {
            self.pieces += self.batch.iter().skip(before).map(pieces).sum::<usize>();
        }
        (received, more)
    }

    pub(super) fn walk_batch<P: Probe>(&mut self, now: Now, probe: &mut P) {
        self.pieces = 0;
        self.walked += self.batch.len() as u64;
        let Self { walk, tables, batch, out, .. } = self;
        widest(Walking { walk, tables, now, batch, out, probe });
        if self.out.told {
            self.hold_answers(now);
        }
        self.transmit();
        self.pool.put_all(self.out.dropped.drain(..));
        self.refill();
        probe.mark(Mark::Transmit);
    }

    /// Gives what is to leave to its ports.
    #[inline]
    fn transmit(&mut self) {
        // Packets to one port follow each other as a rule.
        let mut queued = None;
        for packet in self.out.tx.drain(..) {
            let index = packet.port;
            let refused = match self.ports.get(index) {
                Some(slot) => slot.port.transmit(&mut self.pool, packet).err(),
                None => match Self::hand_on(self.peers.as_deref_mut(), packet) {
                    Ok(()) => continue,
                    Err(refused) => Some(refused),
                },
            };
            match refused {
                None if queued == Some(index) => {}
                None => {
                    self.ports.queue(index);
                    queued = Some(index);
                }
                Some(Refused { packet, reason }) => {
                    self.counters.refused(&packet, index, reason);
                    self.pool.put(packet.buffer);
                }
            }
        }
    }

    /// Keeps answers of DNS that are to leave later, and wakes who reads them.
    #[cold]
    fn hold_answers(&mut self, now: Now) {
        self.out.told = false;
        let counted = self.out.tx.len();
        for (number, packet) in self.out.held.drain(..) {
            if let Some(packet) = self.held.add(number, now, packet) {
                self.counters.dns.unreleased.add(1);
                self.out.tx.push(packet);
            }
        }
        self.count_sent(counted);
        if self.counters.dns.wakes() {
            self.bell.ring();
        }
    }

    /// Sends those that may leave.
    #[cold]
    fn release_answers(&mut self, now: Now) {
        let counted = self.out.tx.len();
        self.held.release(now, &self.counters.dns, &mut self.out.tx);
        self.count_sent(counted);
        self.transmit();
    }

    /// Counts what was held and is to be transmitted: all but the first `counted`.
    fn count_sent(&self, counted: usize) {
        for packet in self.out.tx.iter().skip(counted) {
            self.counters.sent(packet.port, packet.buffer.bytes().len());
        }
    }

    /// Ends, and counts, answers that were to leave by a port that goes.
    pub(super) fn drop_answers(&mut self, port: PortIndex) {
        for packet in self.held.give_up(Some(port)) {
            self.counters.dropped(port, DropReason::Stopping);
            self.pool.put(packet.buffer);
        }
    }

    /// Holds empty frames ready for what the walk builds.
    pub(super) fn refill(&mut self) {
        let part = if self.tables.coalesces() { 8 } else { 16 };
        let wanted = SPARE.min((self.pool.share() / part).max(SPARE_MIN));
        let wanted_large = LARGE_SPARE.min(self.pool.large_aside());
        while self.out.spare.len() < wanted
            && let Some(frame) = self.pool.take()
        {
            debug_assert!(frame.bytes().is_empty());
            self.out.spare.push(frame);
        }
        while self.tables.coalesces()
            && self.out.large.len() < wanted_large
            && let Some(frame) = self.pool.take_large()
        {
            self.out.large.push(frame);
        }
    }

    /// Forgets flows that expired, a part of the table at a time.
    fn tick(&mut self, now: Now) {
        let elapsed = now.0.saturating_sub(self.ticked);
        if elapsed < TICK_NS {
            return;
        }
        self.ticked = now.0;
        let flows = self.walk.flow_table();
        self.status.flows.store(flows.len() as u64, Ordering::Relaxed);
        if flows.is_empty() {
            self.due = 0;
            return;
        }
        // What one turn has no time for the next ones do.
        let capacity = flows.capacity() as u64;
        let share = (u128::from(capacity) * u128::from(elapsed) / u128::from(SWEEP_NS)) as u64;
        self.due = (self.due + share.max(1)).min(capacity);
        let now_due = self.due.min(TICK_BUDGET);
        self.due -= now_due;
        self.walk.tick(now, now_due as usize);
    }

    fn tell(&self, worked: bool) {
        self.status.turns.add(1);
        self.status.turns_idle.add(u64::from(!worked));
        let ahead = self.peers.as_ref().map_or(0, |peers| peers.ahead());
        let held = (self.out.spare.len() + self.out.large.len() + self.held.len()) as i64 + ahead;
        self.status.held.store(held, Ordering::Relaxed);
    }

    /// Sends what can still be sent, and gives everything back.
    pub fn end(mut self, reply: &Sender<Stopped>) {
        let counted = self.out.tx.len();
        self.out.tx.extend(self.held.give_up(None));
        self.count_sent(counted);
        self.transmit();
        self.drop_handed();
        self.ports.flush();
        self.pool.put_all(self.out.spare.drain(..));
        self.pool.put_all(self.out.large.drain(..));
        let mut ports = self.ports.remove_all();
        for port in &mut ports {
            clear(port.as_mut(), &mut self.pool, &mut self.batch, &self.counters);
        }
        self.status.held.store(0, Ordering::Relaxed);
        // The pool first: whoever is told finds its frames in the UMEM.
        drop(self.pool);
        reply.send(Stopped { ports }).ok();
    }
}

/// Pieces that a packet may be cut into, at most: none unless it is a large one.
pub(super) fn pieces(packet: &Packet<Frame>) -> usize {
    let segment = packet.offload.segment;
    // The walk refuses those of more, and those of size zero.
    let count = |segment: Segment| packet.buffer.bytes().len().div_ceil(usize::from(segment.size).max(1));
    segment.map_or(0, |segment| count(segment).min(PIECES_MAX))
}

/// Ends, and counts, what a port that is about to be closed has received and nobody has walked. `batch` is empty before and
/// after. What comes while this runs may be left, as what comes later.
pub(super) fn clear(
    port: &mut dyn Port,
    pool: &mut FramePool,
    batch: &mut Vec<Packet<Frame>>,
    counters: &Counters,
) {
    let index = port.index();
    for _ in 0..CLEAR_BATCHES {
        if port.receive(pool, batch, BATCH) == 0 {
            break;
        }
        for packet in batch.drain(..) {
            counters.received(index, packet.buffer.bytes().len());
            counters.dropped(index, DropReason::Stopping);
            pool.put(packet.buffer);
        }
    }
    port.reap(pool);
}

#[cfg(test)]
mod tests {
    use vswitch_datapath::{Offload, SegmentKind};

    use super::*;
    use crate::io::{Umem, memory};

    #[test]
    fn spare_frames_do_for_the_large_packets_of_a_visit() {
        let mut pool = FramePool::new(&Umem::plain(256).unwrap(), 256).unwrap();
        let mut buffer = pool.take_large().unwrap();
        assert!(buffer.set_len(65_000));
        let mut packet = Packet { buffer, port: PortIndex(3), offload: Offload::default() };
        assert_eq!(pieces(&packet), 0);
        for (size, most) in [(1398, 47), (1, PIECES_MAX), (0, PIECES_MAX)] {
            packet.offload.segment = Some(Segment::new(SegmentKind::TcpV4, size));
            assert_eq!(pieces(&packet), most, "of {size} bytes");
            assert!(pieces(&packet) * crate::io::LARGE_BUDGET <= SPARE);
        }
        pool.put(packet.buffer);
    }

    #[test]
    fn what_a_closing_port_had_received_is_counted_and_its_frames_come_home() {
        let mut pool = FramePool::new(&Umem::plain(256).unwrap(), 256).unwrap();
        let counters = Counters::new(8);
        let (mut port, peer) = memory::pair("mem", PortIndex(3), 128).unwrap();
        assert!((0..100).all(|_| peer.send(&[0x5a; 60])));
        clear(&mut port, &mut pool, &mut Vec::with_capacity(BATCH), &counters);
        assert_eq!(peer.unreceived(), 0);
        let counted = counters.port(PortIndex(3));
        assert_eq!((counted.rx_packets.get(), counted.drops(DropReason::Stopping)), (100, 100));
        assert_eq!(pool.free(), 256);
    }
}
