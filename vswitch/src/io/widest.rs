//! Running what is hot with all that the processor has.
//!
//! Our programs are compiled for every x86-64 there is. Since 2013 (Haswell; AMD since 2015) nearly all have what is called
//! x86-64-v3 (the psABI's microarchitecture levels): moves of 32 bytes, loads that swap bytes, arithmetic that names its
//! target. The walk has a second body that uses these; which of both runs is asked before each batch, never for a packet.

/// What is to be run so. Only what is inlined into [`Work::run`] gains by it.
pub trait Work {
    /// Does it; to be marked `#[inline(always)]`, since it is compiled twice.
    fn run(self);
}

/// Runs it with the instructions of x86-64-v3 where the processor has them, else with those that every one has.
#[inline]
pub fn widest<W: Work>(work: W) {
    #[cfg(target_arch = "x86_64")]
    if has_v3() {
        // SAFETY: the processor has all that `with_v3` is compiled for: it was just asked.
        return unsafe { with_v3(work) };
    }
    work.run();
}

/// Which of both bodies runs here, by the psABI's name of its level: `x86-64-v3`, or `portable`.
#[must_use]
pub fn level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if has_v3() {
        return "x86-64-v3";
    }
    "portable"
}

/// The answers are kept by the standard library, so that asking is a load and a comparison each.
#[cfg(target_arch = "x86_64")]
#[inline]
fn has_v3() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("popcnt")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,movbe,popcnt")]
#[inline(never)]
fn with_v3<W: Work>(work: W) {
    work.run();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use vswitch_datapath::testing::world::{A, B, UPLINK, v4, v6};
    use vswitch_datapath::testing::{World, frames};
    use vswitch_datapath::{
        Buffer, Counters, NoProbe, Offload, Output, Packet, PortIndex, Stage, VecBuffer, Walk, WalkConfig,
    };
    use vswitch_model::DropReason;

    use super::*;

    struct Batch<'a> {
        world: &'a World,
        walk: &'a mut Walk,
        packets: Vec<Packet<VecBuffer>>,
        out: &'a mut Output<VecBuffer>,
    }

    impl Work for Batch<'_> {
        #[inline(always)]
        fn run(mut self) {
            let (tables, now) = (&self.world.tables, self.world.now);
            self.walk.process_probed(tables, now, &mut self.packets, self.out, &mut NoProbe);
        }
    }

    /// What became of frames.
    #[derive(Debug, PartialEq)]
    struct Became {
        left: Vec<(PortIndex, Vec<u8>)>,
        dropped: Vec<(PortIndex, DropReason, u64)>,
        stages: Vec<u64>,
        flows: BTreeSet<String>,
    }

    /// What becomes of frames that are walked three times over.
    fn became(world: &World, frames: &[(PortIndex, Vec<u8>)], run: fn(Batch<'_>)) -> Became {
        let counters = Arc::new(Counters::new(16));
        let mut walk = Walk::new(&WalkConfig::default(), Arc::clone(&counters));
        let mut out = Output::new(64);
        out.spare.extend((0..64).map(|_| VecBuffer::of(&[])));
        for _ in 0..3 {
            let packet = |(port, frame): &(PortIndex, Vec<u8>)| Packet {
                buffer: VecBuffer::of(frame),
                port: *port,
                offload: Offload::default(),
            };
            let packets = frames.iter().map(packet).collect();
            run(Batch { world, walk: &mut walk, packets, out: &mut out });
        }
        let reasons = |port| {
            let told = DropReason::ALL.iter().map(move |reason| (PortIndex(port), *reason));
            told.map(|(port, reason)| (port, reason, counters.port(port).drops(reason)))
        };
        Became {
            left: out.tx.iter().map(|packet| (packet.port, packet.buffer.bytes().to_vec())).collect(),
            dropped: (0..16).flat_map(reasons).filter(|(.., count)| *count > 0).collect(),
            stages: Stage::ALL.iter().map(|stage| counters.stage(*stage)).collect(),
            flows: walk.flows().map(|flow| format!("{flow:?}")).collect(),
        }
    }

    #[test]
    fn both_ways_give_the_same() {
        let world = World::node(1);
        let mut frames = Vec::new();
        for (source, destination) in [(v4(1, A), v4(2, A)), (v4(1, A), v4(1, B)), (v6(1, A), v6(2, A))] {
            for port in 0..20 {
                let ends = world.ends(A, destination);
                assert_eq!(ends.source, source);
                frames.push((A, ends.udp(1000 + port, 5000, &[port as u8; 40])));
                frames.push((A, ends.tcp(2000 + port, 5000, 0x02, &[])));
            }
        }
        // What comes by tunnels, and may be cut.
        for (source, over_v6) in [(v4(2, A), false), (v6(2, A), true)] {
            let destination = if source.is_ipv4() { v4(1, B) } else { v6(1, B) };
            let inner = world.inner_ends(A, destination).udp(7, 5000, b"media");
            frames.push((UPLINK, frames::vxlan(world.tunnel_ends(over_v6), 4096, 4789, &inner)));
        }
        let long = frames::may_fragment(world.ends(A, v4(2, A)).udp(7, 5000, &[7; 1460]), 7);
        frames.push((A, long));
        // And what dies.
        frames.push((A, world.ends(A, v4(2, A)).with_ttl(1).udp(7, 5001, b"late")));
        // And what is not right: each byte of the headers changed.
        for right in [0, frames.len() - 4, frames.len() - 3, frames.len() - 2, frames.len() - 1] {
            let (port, right) = frames[right].clone();
            for at in 0..right.len().min(120) {
                let mut frame = right.clone();
                frame[at] ^= 0x5a;
                frames.push((port, frame.clone()));
                frames.push((UPLINK, frame));
            }
        }
        let portable = became(&world, &frames, |batch| batch.run());
        assert!(portable.left.len() > 300, "{} leave", portable.left.len());
        let passed = |stage| portable.stages[Stage::ALL.iter().position(|one| *one == stage).unwrap()];
        for stage in [Stage::Decapsulate, Stage::Encapsulate, Stage::Split, Stage::FlowHit, Stage::IcmpError]
        {
            assert!(passed(stage) > 0, "{}", stage.key());
        }
        assert!(portable.dropped.len() > 10, "{:?}", portable.dropped);
        assert_eq!(became(&world, &frames, |batch| widest(batch)), portable);
    }
}
