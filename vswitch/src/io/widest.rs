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
    use vswitch_datapath::testing::World;
    use vswitch_datapath::testing::world::{A, B, UPLINK, v4, v6};
    use vswitch_datapath::{
        Buffer, Counters, NoProbe, Offload, Output, Packet, PortIndex, VecBuffer, Walk, WalkConfig,
    };

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

    /// What leaves, by port, of frames that are walked three times over.
    fn left(world: &World, frames: &[(PortIndex, Vec<u8>)], run: fn(Batch<'_>)) -> Vec<(PortIndex, Vec<u8>)> {
        let counters = std::sync::Arc::new(Counters::new(16));
        let mut walk = Walk::new(&WalkConfig::default(), counters);
        let mut out = Output::new(0);
        for _ in 0..3 {
            let packet = |(port, frame): &(PortIndex, Vec<u8>)| Packet {
                buffer: VecBuffer::of(frame),
                port: *port,
                offload: Offload::default(),
            };
            let packets = frames.iter().map(packet).collect();
            run(Batch { world, walk: &mut walk, packets, out: &mut out });
        }
        out.tx.iter().map(|packet| (packet.port, packet.buffer.bytes().to_vec())).collect()
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
        // And what is not right: each byte of the headers changed.
        for at in 0..42 {
            let mut frame = frames[0].1.clone();
            frame[at] ^= 0x5a;
            frames.push((A, frame.clone()));
            frames.push((UPLINK, frame));
        }
        let portable = left(&world, &frames, |batch| batch.run());
        assert!(portable.len() > 300, "{} leave", portable.len());
        assert_eq!(left(&world, &frames, |batch| widest(batch)), portable);
    }
}
