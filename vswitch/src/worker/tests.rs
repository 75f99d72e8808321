//! A worker that is turned by hand, at times that are made up.

use std::sync::Arc;

use crossbeam::channel::bounded;
use vswitch_datapath::testing::World;
use vswitch_datapath::testing::frames::Ends;
use vswitch_datapath::testing::world::{A, B, v4};
use vswitch_datapath::{Now, PortIndex, WalkConfig};
use vswitch_model::DropReason;

use super::{Handle, Published, Worker, WorkerConfig};
use crate::config::Poll;
use crate::io::{FramePool, MemoryPeer, Umem, memory};

/// A port of the server that policy lets everybody use who is in these tests.
const SERVER: u16 = 5000;

/// A worker with the ports of two pods, and their far ends.
struct Bench {
    /// Until it is ended.
    worker: Option<Worker>,
    handle: Handle,
    peers: [MemoryPeer; 2],
    /// Frames from each pod to the other.
    ways: [Ends; 2],
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let (world, published, mut lent) = (World::node(1), Arc::new(Published::new()), None);
        published.publish(&world.tables);
        let config = WorkerConfig { number: 0, core: None, poll: Poll::Busy, walk: WalkConfig::default() };
        let pool = FramePool::new(&Umem::plain(8192).unwrap(), 8192).unwrap();
        let mut start = |worker| {
            lent = Some(worker);
            Ok(None)
        };
        let handle = Handle::start(config, published, pool, &mut start).unwrap();
        let mut worker = lent.unwrap();
        let peers = [(A, "a"), (B, "b")].map(|(index, name)| {
            let (port, peer) = memory::pair(name, index, 2048).unwrap();
            assert!(worker.ports.add(Box::new(port)).is_none());
            peer
        });
        let ways = [world.ends(A, v4(1, B)), world.ends(B, v4(1, A))];
        Self { worker: Some(worker), handle, peers, ways, now: 1_000_000_000 }
    }

    /// Sends a packet from pod 0 or 1 to the other.
    fn send(&self, pod: usize, source_port: u16) {
        assert!(self.peers[pod].send(&self.ways[pod].udp(source_port, SERVER, &[])), "the ring is full");
    }

    /// One turn, `us` later; the source ports of what reached each pod.
    fn turn(&mut self, us: u64) -> [Vec<u16>; 2] {
        self.now += us * 1000;
        assert!(self.worker.as_mut().unwrap().step_at(Now(self.now)).is_continue());
        self.peers.each_ref().map(|peer| {
            let source_port = |frame: Vec<u8>| u16::from_be_bytes([frame[34], frame[35]]);
            std::iter::from_fn(|| peer.receive()).map(source_port).collect()
        })
    }

    /// Of one pod's packets: those that came, those that ended because the worker is behind, and those that ended at all.
    fn counted(&self, port: PortIndex) -> [u64; 3] {
        let port = self.handle.counters.port(port);
        let drops = DropReason::ALL.iter().map(|reason| port.drops(*reason)).sum();
        [port.rx_packets.get(), port.drops(DropReason::WorkerBehind), drops]
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It gives all frames back.
        self.worker.take().unwrap().end(&bounded(1).0);
    }
}

/// The source port of the flow that was there before.
const KNOWN: u16 = 60_000;

#[test]
fn a_flood_of_new_flows_harms_neither_known_ones_nor_other_ports() {
    let mut bench = Bench::new();
    let mut new = (1..KNOWN).cycle();
    let (mut sent, mut arrived) = ([1, 1], [0, 0]);
    (0..2).for_each(|pod| bench.send(pod, KNOWN));
    bench.turn(1).iter().enumerate().for_each(|(pod, came)| arrived[pod] += came.len());
    assert_eq!(arrived, [1, 1]);

    // Pod 0 brings more than is taken from it, every other packet a newcomer; pod 1 opens a flow now and then.
    let (mut known, mut opened) = ([0, 0], [0, 0]);
    let mut waiting = 0;
    for turn in 0..400 {
        while waiting < 1000 {
            bench.send(0, if waiting % 2 == 0 { KNOWN } else { new.next().unwrap() });
            (waiting, sent[0]) = (waiting + 1, sent[0] + 1);
        }
        bench.send(1, KNOWN);
        bench.send(1, 1 + turn);
        sent[1] += 2;
        let came = bench.turn(100);
        waiting = bench.peers[0].unreceived();
        for (pod, came) in came.iter().enumerate() {
            let all = came.len();
            let kept = came.iter().filter(|port| **port == KNOWN).count();
            (known[pod], opened[pod]) = (known[pod] + kept, opened[pod] + all - kept);
            arrived[pod] += all;
        }
    }
    // What is for pod 1 comes from pod 0.
    let [[came, behind, drops], quiet] = [A, B].map(|port| bench.counted(port));
    assert_eq!(came, (sent[0] - waiting) as u64);
    assert_eq!(quiet, [sent[1] as u64, 0, 0], "pod 1 loses nothing");
    assert_eq!((known[0], opened[0]), (400, 400), "nor has what it opens to wait");
    assert!(behind > 0 && drops == behind, "{behind} of {drops}");
    assert_eq!(arrived[1] as u64 + drops, came, "what came and did not arrive is counted");
    assert_eq!(known[1] + 1, came as usize / 2 + 1, "no packet of a known flow ended");
    // Some get in while it lasts: at least one in each turn.
    assert!(opened[1] >= 400, "{opened:?}");

    // When it is over all are judged again.
    while bench.peers[0].unreceived() > 0 {
        bench.turn(100);
    }
    (0..100).for_each(|_| drop(bench.turn(1000)));
    let before = bench.counted(A);
    (0..500).for_each(|_| bench.send(0, new.next().unwrap()));
    let came: usize = (0..50).map(|_| bench.turn(100)[1].len()).sum();
    assert_eq!((came, bench.counted(A)[1]), (500, before[1]));
}

#[test]
fn a_burst_that_fills_a_ring_loses_nothing() {
    let mut bench = Bench::new();
    (0..2048).for_each(|at| bench.send(0, 1 + at));
    // A newcomer in 1.4 us.
    let arrived: usize = (0..100).map(|_| bench.turn(50)[1].len()).sum();
    assert_eq!((arrived, bench.counted(A)), (2048, [2048, 0, 0]));
}

#[test]
fn many_packets_of_known_flows_keep_no_newcomer_out() {
    let mut bench = Bench::new();
    bench.send(0, KNOWN);
    bench.turn(1);
    let mut opened = 0;
    for turn in 0..200 {
        while bench.peers[0].unreceived() < 500 {
            bench.send(0, KNOWN);
        }
        // Ten at once, a flow each.
        (0..if turn % 20 == 0 { 10 } else { 0 }).for_each(|at| bench.send(1, 1 + 20 * turn + at));
        opened += bench.turn(100)[0].len();
    }
    assert!(bench.worker.as_ref().unwrap().ports.behind());
    assert_eq!((opened, bench.counted(B)), (100, [100, 0, 0]));
}
