//! Whatever comes, from whatever kind of port: nothing panics, every buffer comes out once, and what leaves is well
//! formed. The fuzz target runs the same function for longer.

use std::sync::LazyLock;

use proptest::prelude::*;
use vswitch_datapath::testing::World;
use vswitch_datapath::testing::frames::{self, Ends};
use vswitch_datapath::testing::world::{A, B, C, HOST, UPLINK, v4, v6};
use vswitch_datapath::testing::{fuzz, fuzz_large};

/// Frames that go far into the walk before a mutation meets them.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds);

fn seeds() -> Vec<Vec<u8>> {
    let world = World::node(1);
    let mut seeds = Vec::new();
    for destination in [v4(1, B), v6(1, B), v4(2, A), v6(2, A), v4(1, HOST), v6(1, HOST)] {
        let ends = world.ends(A, destination);
        seeds.extend([
            ends.udp(7, 5000, &[5; 64]),
            ends.tcp(7, 80, 2, &[1; 8]),
            ends.ping(9, &[3; 32]),
            ends.with_ttl(1).udp(1, 5000, &[0; 4]),
            ends.udp(7, 5000, &[9; 1600]),
        ]);
        let cut = ends.udp(7, 5000, &[5; 64]);
        if destination.is_ipv4() {
            seeds.extend(frames::cut_v4(&cut, 32));
            seeds.push(frames::may_fragment(ends.udp(7, 5000, &[9; 3000]), 5));
        } else {
            seeds.extend(frames::cut_v6(&cut, 32, 77));
        }
    }
    let inner: Ends = world.inner_ends(C, v4(1, A));
    seeds.push(frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner.udp(1, 2, &[0; 20])));
    seeds.push(frames::vxlan(world.tunnel_ends(true), 4096, 4789, &inner.tcp(1, 2, 2, &[])));
    seeds.push(frames::arp_request(inner.source_mac, [10, 0, 1, 10].into(), [169, 254, 1, 1].into()));
    seeds.push(frames::solicitation_from(world.ends(A, v4(1, B)).source_mac, [0xfd; 16].into()));
    seeds
}

fn mutated(seed: &[u8], changes: &[(usize, u8)], length: usize, mend: bool) -> Vec<u8> {
    let mut frame = seed.to_vec();
    frame.truncate(length);
    for (at, value) in changes {
        let end = frame.len().clamp(1, 90);
        if let Some(byte) = frame.get_mut(at % end) {
            *byte ^= value;
        }
    }
    // A header whose checksum is right gets further.
    let header = frame.get(14).map_or(0, |byte| usize::from(byte & 0xf) * 4);
    if mend && header >= 20 && frame.len() >= 14 + header {
        frames::mend_ipv4(&mut frame);
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&bytes);
    }

    #[test]
    fn mutated_frames(
        choice: u8,
        seed in 0usize..1000,
        changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..6),
        length in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..200],
        mend: bool,
    ) {
        let mut data = vec![choice];
        data.extend(mutated(&SEEDS[seed % SEEDS.len()], &changes, length, mend));
        fuzz(&data);
    }

    #[test]
    fn large_packets(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
        fuzz_large(&bytes);
    }

    /// A mixed batch through one world, so that flows, fragments and replies of one packet meet those of another.
    #[test]
    fn mixed_batches(
        picks in proptest::collection::vec((0usize..1000, 0usize..5, proptest::collection::vec((0usize..90, any::<u8>()), 0..2)), 1..200),
    ) {
        let mut world = World::node(1);
        let ports = [A, B, C, HOST, UPLINK];
        let batch = picks.iter().map(|(seed, port, changes)| {
            (ports[*port], mutated(&SEEDS[seed % SEEDS.len()], changes, usize::MAX, true))
        });
        let batch: Vec<_> = batch.collect();
        let received = batch.len();
        let sent = world.send_all(batch);
        for (_, frame) in &sent {
            prop_assert!(vswitch_datapath::parse::parse(frame).is_ok());
        }
        let counters = world.walk.counters();
        let counted: u64 = ports.iter().map(|port| counters.port(*port).rx_packets.get()).sum();
        prop_assert_eq!(counted, received as u64);
    }
}

/// Without any mutation the seeds do what they were made for; otherwise the tests above would test less than they say.
#[test]
fn seeds_reach_far() {
    let mut world = World::node(1);
    let mut sent = 0;
    for seed in SEEDS.iter() {
        for port in [A, UPLINK] {
            sent += world.send(port, seed).len();
        }
    }
    assert!(sent > 35, "{sent} packets left");
    let stages: Vec<_> = world.moved().into_iter().filter(|line| line.starts_with("stage")).collect();
    assert!(stages.len() >= 9, "{stages:?}");
}
