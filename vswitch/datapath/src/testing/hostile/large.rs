//! What is to be cut, and what is to be coalesced.

use super::super::frames::Ends;
use super::super::world::{A, HOST, pod_mac, v4, v6};
use super::Hostile;
use crate::parse::{ETHERNET, IPV6};
use crate::read::be16;
use crate::{Offload, Packet, PartialChecksum, Segment, SegmentKind, VecBuffer};

/// Where trains come from: ports of their own, so that no SYN of others says where their windows are.
const PORT: u16 = 50_000;

impl Hostile {
    /// What the node's kernel says is left to be done to a frame with this checksum; that it is to be cut at times, and
    /// seldom something that cannot be.
    pub(super) fn left_to_do(&mut self, frame: &[u8], checksum: PartialChecksum) -> Offload {
        if self.random.chance(50) {
            return Offload { checksum: Some(checksum), segment: None };
        }
        let kind = match (checksum.offset == 16, be16(frame, ETHERNET - 2) == Some(IPV6)) {
            (true, false) => SegmentKind::TcpV4,
            (true, true) => SegmentKind::TcpV6,
            (false, _) => SegmentKind::Udp,
        };
        let kind = if self.random.chance(97) {
            kind
        } else {
            *self.random.pick(&[SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp])
        };
        let size = match self.random.below(20) {
            0 => self.random.next() as u16,
            1 => 0,
            _ => *self.random.pick(&[8, 100, 536, 1000, 1000, 1390, 1400, 1410]),
        };
        let checksum = Some(checksum).filter(|_| self.random.chance(98));
        Offload { checksum, segment: Some(Segment::new(kind, size)) }
    }

    /// Segments of a stream that follow each other as a rule, from a pod to the node.
    pub(super) fn train(&mut self) -> Vec<Packet<VecBuffer>> {
        let of = if self.random.chance(40) { v6 } else { v4 };
        let ends = Ends::of_pod(pod_mac(1, A), of(1, A), of(1, HOST));
        let port = PORT + self.random.below(2) as u16;
        let size = *self.random.pick(&[1, 100, 536, 1390]);
        let count = 2 + self.random.below(20);
        (0..count)
            .map(|_| {
                let flags =
                    if self.random.chance(95) { 0x10 } else { *self.random.pick(&[0x18, 0x11, 0x50, 0x90]) };
                let length = if self.random.chance(95) { size } else { self.random.below(1400) };
                let payload = self.random.exactly(length as usize);
                let mut frame = ends.tcp_at(port, 80, flags, (self.sequence, 1), &payload);
                self.sequence = self.sequence.wrapping_add(length as u32);
                if self.random.chance(3) {
                    self.sequence = self.sequence.wrapping_add(self.random.below(3000) as u32);
                }
                self.damage(&mut frame);
                Packet { buffer: VecBuffer::of(&frame), port: A, offload: Offload::default() }
            })
            .collect()
    }
}
