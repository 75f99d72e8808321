//! A long run of [`Hostile`] traffic through one node whose policy, routes and clock change: nothing panics, every buffer comes
//! out once, every packet that ends is counted once with its reason, and what leaves is well formed.
//!
//! `VSWITCH_PACKETS` says how many packets (200,000 by default), `VSWITCH_SEED` which ones:
//!
//! ```text
//! VSWITCH_PACKETS=100000000 cargo test --release -p vswitch-datapath --test long_run -- --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_datapath::parse::parse;
use vswitch_datapath::testing::Hostile;
use vswitch_datapath::testing::world::{HOST, PORTS, UPLINK, World};
use vswitch_datapath::{
    Buffer, Counters, Now, Packet, PortIndex, Stage, Tables, VecBuffer, WalkConfig, segment,
};
use vswitch_model::{DropReason, IdentityId, NextHop};

/// Batches between two sets of tables.
const TABLES_LAST: usize = 5000;

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.replace('_', "").parse().unwrap())
}

/// Tables that follow one another: policy is lost and comes back, a route goes elsewhere and back.
fn tables(world: &mut World) -> Vec<Arc<Tables>> {
    let mut list = vec![Arc::clone(&world.tables)];
    let server = world.desired.subjects.remove(&IdentityId(17)).unwrap();
    let mut publish = |world: &mut World| {
        world.republish();
        list.push(Arc::clone(&world.tables));
    };
    publish(world);
    world.desired.subjects.insert(IdentityId(17), server);
    let prefix = "10.0.2.0/26".parse().unwrap();
    let way = world.desired.routes.insert(prefix, NextHop::Unreachable).unwrap();
    publish(world);
    world.desired.routes.insert(prefix, way);
    publish(world);
    list
}

fn dropped(counters: &Counters) -> BTreeMap<&'static str, u64> {
    let count = |reason: &DropReason| (reason.key(), counters.drops(*reason));
    DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
}

/// That what leaves is well formed, leaves by a port there is, and fits it.
fn check(packet: &Packet<VecBuffer>, which: &str) {
    let (port, frame) = (packet.port, packet.buffer.bytes());
    let parsed = match parse(frame) {
        Ok(parsed) => parsed,
        Err(reason) => panic!("{which}: left by port {}, {reason}: {frame:02x?}", port.0),
    };
    assert!(usize::from(port.0) < PORTS.len(), "{which}: a packet left by no port");
    let mtu = if port == UPLINK { 1500 } else { 1450 };
    let length = match packet.offload.segment {
        None => usize::from(parsed.ip_length()),
        Some(segment) => {
            let whole = port == HOST && segment::fits(frame, &parsed, &packet.offload);
            assert!(whole, "{which}: left by port {}, {:?}: {frame:02x?}", port.0, packet.offload);
            segment::headers(frame, &parsed) - 14 + usize::from(segment.size)
        }
    };
    assert!(length <= mtu, "{which}: {length} bytes left by port {}: {frame:02x?}", port.0);
}

#[test]
fn hostile_traffic_is_walked_to_its_end() {
    let (packets, seed) = (asked("VSWITCH_PACKETS", 200_000), asked("VSWITCH_SEED", 1));
    let config = WalkConfig { flows: 4096, fragments: 64, seed, ..WalkConfig::default() };
    let mut world = World::with_config(1, &config);
    // The node's kernel takes large packets, as that behind a tun does.
    let host = world.ports.values_mut().find(|facts| facts.index == HOST).unwrap();
    host.takes_large = true;
    world.recompile();
    (world.spare, world.large) = (256, 8);
    let tables = tables(&mut world);
    let mut traffic = Hostile::new(seed);
    let (mut sent, mut received, mut left, mut ended, mut errors) = (0, 0, 0, 0, 0);
    for batch in 0.. {
        if sent >= packets {
            break;
        }
        world.tables = Arc::clone(&tables[batch / TABLES_LAST % tables.len()]);
        let packets = traffic.batch();
        sent += packets.len() as u64;
        let came = packets.len();
        for packet in world.walk_packets(packets) {
            check(&packet, &format!("batch {batch} of seed {seed}"));
            left += 1;
        }
        world.now = Now(world.now.0 + traffic.pause_ns());
        world.walk.tick(world.now, 64);
        // Each packet that came is counted, and each that ended without being turned into an error has one reason.
        let counters = world.walk.counters();
        let total: u64 =
            (0..PORTS.len()).map(|port| counters.port(PortIndex(port as u16)).rx_packets.get()).sum();
        assert_eq!(total - received, came as u64, "in batch {batch} of seed {seed}");
        received = total;
        let (drops, told) = (dropped(counters).values().sum::<u64>(), counters.stage(Stage::IcmpError));
        assert_eq!(
            (drops - ended) - (told - errors),
            world.ended() as u64,
            "in batch {batch} of seed {seed} a packet ended uncounted, or was counted twice"
        );
        (ended, errors) = (drops, told);
    }
    let counters = world.walk.counters();
    println!("{sent} packets, {left} left, {errors} became errors; {} flows", counters.flows_created.get());
    for stage in Stage::ALL {
        println!("{:>12} {}", counters.stage(*stage), stage.key());
    }
    for (reason, count) in dropped(counters) {
        println!("{count:>12} {reason}");
    }
    for stage in [Stage::Segment, Stage::Coalesce, Stage::Split] {
        assert!(counters.stage(stage) * 4000 > sent, "{}", stage.key());
    }
    assert!(left * 5 > sent, "most traffic is to go far: {left} of {sent} left");
}
