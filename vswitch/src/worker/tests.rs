//! A worker that is turned by hand, at times that are made up.

use std::sync::Arc;

use crossbeam::channel::bounded;
use vswitch_datapath::testing::World;
use vswitch_datapath::testing::frames::{self, Ends};
use vswitch_datapath::testing::world::{A, B, C, HOST, UPLINK, v4};
use vswitch_datapath::{Now, PortIndex, WalkConfig};
use vswitch_model::DropReason;

use super::{Handle, Place, Published, Worker, WorkerConfig, places};
use crate::config::Poll;
use crate::io::{FramePool, MemoryPeer, Umem, memory};

/// A port of the server that policy lets everybody use who is in these tests.
const SERVER: u16 = 5000;

/// A worker at its place, that takes frames of `umem`, and what is known of it outside.
fn worker(number: usize, place: Place, published: &Arc<Published>, umem: &Arc<Umem>) -> (Worker, Handle) {
    let mut lent = None;
    let config = WorkerConfig { number, core: None, poll: Poll::Busy, walk: WalkConfig::default() };
    let pool = FramePool::new(umem, 8192).unwrap();
    let mut start = |worker| {
        lent = Some(worker);
        Ok(None)
    };
    let handle = Handle::start_at(config, Arc::clone(published), pool, place, &mut start).unwrap();
    (lent.unwrap(), handle)
}

/// Gives a worker a port, whose far end comes back.
fn add(worker: &mut Worker, index: PortIndex) -> MemoryPeer {
    let (port, peer) = memory::pair(&format!("port{}", index.0), index, 2048).unwrap();
    assert!(worker.ports.add(Box::new(port)).is_none());
    peer
}

/// Of a port's packets: those that came, those that ended because the worker is behind, and those that ended at all.
fn counted(handle: &Handle, port: PortIndex) -> [u64; 3] {
    let port = handle.counters.port(port);
    let drops = DropReason::ALL.iter().map(|reason| port.drops(*reason)).sum();
    [port.rx_packets.get(), port.drops(DropReason::WorkerBehind), drops]
}

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
        let (world, published) = (World::node(1), Arc::new(Published::new()));
        published.publish(&world.tables);
        let place = places(1).unwrap().remove(0);
        let (mut worker, handle) = worker(0, place, &published, &Umem::plain(8192).unwrap());
        let peers = [A, B].map(|index| add(&mut worker, index));
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

    /// See [`counted`].
    fn counted(&self, port: PortIndex) -> [u64; 3] {
        counted(&self.handle, port)
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
fn one_port_that_has_much_fills_a_batch_though_others_might_have_something() {
    let mut bench = Bench::new();
    (0..100).for_each(|flow| bench.send(0, 1 + flow));
    bench.send(1, 1);
    let came = [bench.turn(1), bench.turn(1), bench.turn(1)].map(|[at_0, at_1]| (at_0.len(), at_1.len()));
    // A share of each port first, then what the one has.
    assert_eq!(came, [(1, 63), (0, 37), (0, 0)]);
}

#[test]
fn after_a_flood_and_a_sleep_all_of_the_first_burst_are_judged() {
    let mut bench = Bench::new();
    let mut new = 1..KNOWN;
    for _ in 0..300 {
        while bench.peers[0].unreceived() < 1000 {
            bench.send(0, new.next().unwrap());
        }
        bench.turn(100);
    }
    while bench.peers[0].unreceived() > 0 {
        bench.turn(1);
    }
    (0..2).for_each(|_| drop(bench.turn(1)));
    let [came, behind, _] = bench.counted(A);
    // No time has passed: as few are judged as before.
    (0..20).for_each(|_| bench.send(0, new.next().unwrap()));
    assert!(bench.turn(1)[1].len() < 20);
    let [_, behind_awake, _] = bench.counted(A);
    assert!(behind_awake > behind && behind > 0);
    // It sleeps 100 ms, and a burst wakes it.
    (0..20).for_each(|_| bench.send(0, new.next().unwrap()));
    assert_eq!(bench.turn(100_000)[1].len(), 20);
    assert_eq!(bench.counted(A)[..2], [came + 40, behind_awake]);
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
        while bench.peers[0].unreceived() < 1000 {
            bench.send(0, KNOWN);
        }
        // Ten at once, a flow each.
        (0..if turn % 20 == 0 { 10 } else { 0 }).for_each(|at| bench.send(1, 1 + 20 * turn + at));
        opened += bench.turn(100)[0].len();
    }
    assert!(bench.worker.as_ref().unwrap().ports.behind());
    assert_eq!((opened, bench.counted(B)), (100, [100, 0, 0]));
}

/// Two workers that share frames, and whose turns are made by hand.
struct Pair {
    world: World,
    workers: Vec<Worker>,
    handles: Vec<Handle>,
    now: u64,
}

impl Pair {
    fn new() -> Self {
        let (world, published) = (World::node(1), Arc::new(Published::new()));
        published.publish(&world.tables);
        let umem = Umem::plain(16_384).unwrap();
        let made = places(2).unwrap().into_iter().enumerate();
        let (workers, handles) = made.map(|(number, place)| worker(number, place, &published, &umem)).unzip();
        Self { world, workers, handles, now: 1_000_000_000 }
    }

    /// One turn of one of them, `us` later.
    fn turn(&mut self, number: usize, us: u64) {
        self.now += us * 1000;
        assert!(self.workers[number].step_at(Now(self.now)).is_continue());
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // What is not sent off yet is taken by the other one, too.
        self.workers.iter_mut().filter_map(|worker| worker.peers.as_mut()).for_each(|peers| peers.retire());
        self.workers.drain(..).for_each(|worker| worker.end(&bounded(1).0));
    }
}

#[test]
fn what_others_are_given_does_not_hide_that_newcomers_are_many() {
    let mut pair = Pair::new();
    let from = add(&mut pair.workers[0], A);
    // One of 16 opens a flow that is followed here; the others are for the other worker.
    let [handed, own] = [B, C].map(|to| pair.world.ends(A, v4(1, to)));
    let mut sent = 0;
    for _ in 0..200 {
        while from.unreceived() < 1000 {
            sent += 1;
            let ends = if sent % 16 == 0 { own } else { handed };
            assert!(from.send(&ends.udp(sent % KNOWN, SERVER, &[])));
        }
        pair.turn(0, 100);
    }
    assert!(pair.workers[0].ports.behind());
    assert!(counted(&pair.handles[0], A)[1] > 0);
}

#[test]
fn a_flood_at_one_pod_leaves_room_for_what_an_uplink_brings_for_others() {
    let mut pair = Pair::new();
    let uplink = add(&mut pair.workers[0], UPLINK);
    // Both are followed by the other worker, which takes nothing.
    let [flood, other] = [B, HOST].map(|to| {
        let inner = pair.world.inner_ends(A, v4(1, to)).udp(7, SERVER, &[]);
        frames::vxlan(pair.world.tunnel_ends(false), 4096, 4789, &inner)
    });
    let drops = |pair: &mut Pair, frame: &[u8], count: usize| {
        let [.., before] = counted(&pair.handles[0], UPLINK);
        (0..count).for_each(|_| assert!(uplink.send(frame)));
        while uplink.unreceived() > 0 {
            pair.turn(0, 10);
        }
        counted(&pair.handles[0], UPLINK)[2] - before
    };
    assert!(drops(&mut pair, &flood, 2000) > 0);
    assert_eq!((drops(&mut pair, &flood, 10), drops(&mut pair, &other, 10)), (10, 0));
}
