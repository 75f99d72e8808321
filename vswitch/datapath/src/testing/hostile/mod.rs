//! Traffic as bad as it comes, the same for the same seed: of every port, family and protocol, in no, one or several
//! tunnels, with options and extension headers, whole and in pieces that are tiny or overlap, with errors that quote what was
//! sent before, with checksums that are right, wrong, zero or unfinished, large packets to be cut and trains of segments to
//! be coalesced, and now and then with bytes that flipped.
//!
//! About half of it is well formed and allowed, so that it goes far: flows open, fragments meet, errors find whom they quote.

mod ip;
mod large;
mod transport;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr};

use vswitch_model::Mac;

use super::frames::{arp_request, solicitation};
use super::world::{A, B, C, HOST, KERNEL_MAC, UPLINK, pod_mac, uplink_mac, v4, v6};
use crate::neighbour::link_local;
use crate::parse::{IPV4, IPV6};
use crate::tables::{GATEWAY_V4, GATEWAY_V6};
use crate::{BATCH, Offload, Packet, PartialChecksum, PortIndex, VecBuffer};

/// IP packets kept to be quoted.
const RECENT: usize = 256;
/// A port that nobody gave out.
const STRANGE: PortIndex = PortIndex(99);

/// Makes packets for node 1 of [`super::World`].
#[derive(Debug)]
pub struct Hostile {
    random: Random,
    recent: Vec<Vec<u8>>,
    /// The number that the next segment of a train begins with.
    sequence: u32,
}

impl Hostile {
    /// The traffic of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), recent: Vec::new(), sequence: 0 }
    }

    /// 1 to [`BATCH`] packets, most of one port.
    pub fn batch(&mut self) -> Vec<Packet<VecBuffer>> {
        let count = 1 + self.random.below(BATCH as u64) as usize;
        let port = self.port();
        let mut packets = if self.random.chance(5) { self.train() } else { Vec::new() };
        while packets.len() < count {
            let port = if self.random.chance(80) { port } else { self.port() };
            packets.push(self.packet(port));
        }
        packets
    }

    /// Nanoseconds until the next batch: microseconds as a rule, seldom so long that flows expire.
    pub fn pause_ns(&mut self) -> u64 {
        match self.random.below(20_000) {
            0 => self.random.below(4_000_000_000_000),
            1..40 => self.random.below(2_000_000_000),
            _ => self.random.below(100_000),
        }
    }

    fn port(&mut self) -> PortIndex {
        if self.random.chance(1) {
            return STRANGE;
        }
        *self.random.pick(&[A, A, A, B, B, C, HOST, HOST, UPLINK, UPLINK, UPLINK, UPLINK])
    }

    fn packet(&mut self, port: PortIndex) -> Packet<VecBuffer> {
        if self.random.chance(1) {
            let junk = self.random.bytes(200);
            return Packet { buffer: VecBuffer::of(&junk), port, offload: Offload::default() };
        }
        if self.random.chance(2) {
            return Packet { buffer: VecBuffer::of(&self.question(port)), port, offload: Offload::default() };
        }
        let (ip, checksum) = if port == UPLINK { self.by_underlay() } else { self.ip_from(port) };
        let mut frame = self.ethernet(port, &ip);
        frame.extend(&ip);
        if self.random.chance(10) {
            let padding = self.random.below(47) as usize;
            frame.resize(frame.len() + padding, 0x5a);
        }
        let mended = self.damage(&mut frame);
        // Only the node's kernel leaves anything to us.
        let offload = match checksum.filter(|_| port == HOST && mended) {
            Some(checksum) => self.left_to_do(&frame, checksum),
            None => Offload::default(),
        };
        Packet { buffer: VecBuffer::of(&frame), port, offload }
    }

    /// What a station asks of its gateway, or of somebody else: ARP or neighbour discovery.
    fn question(&mut self, port: PortIndex) -> Vec<u8> {
        let mac = pod_mac(1, *self.random.pick(&[port, port, A]));
        let mut frame = match (v4(1, port), v6(1, port)) {
            (IpAddr::V4(sender), IpAddr::V6(_)) if self.random.chance(50) => arp_request(
                mac,
                sender,
                *self.random.pick(&[GATEWAY_V4, GATEWAY_V4, Ipv4Addr::new(10, 0, 1, 11)]),
            ),
            (_, IpAddr::V6(sender)) => {
                let sender = if self.random.chance(50) { sender } else { link_local(mac) };
                solicitation(mac, sender, *self.random.pick(&[GATEWAY_V6, GATEWAY_V6, sender]))
            }
            (..) => Vec::new(),
        };
        self.damage(&mut frame);
        frame
    }

    /// An Ethernet header, as a rule with the addresses that the port asks for.
    fn ethernet(&mut self, port: PortIndex, ip: &[u8]) -> Vec<u8> {
        let (mut destination, mut source) = match port {
            UPLINK => (uplink_mac(1), uplink_mac(2)),
            HOST => (Mac::GATEWAY, KERNEL_MAC),
            port => (Mac::GATEWAY, pod_mac(1, port)),
        };
        if self.random.chance(2) {
            destination = *self.random.pick(&[Mac::BROADCAST, Mac([0x33; 6]), pod_mac(1, B), source]);
        }
        if self.random.chance(2) {
            source = *self.random.pick(&[Mac::GATEWAY, Mac::BROADCAST, pod_mac(1, A), Mac([0; 6])]);
        }
        let family = if ip.first().is_some_and(|byte| byte >> 4 == 6) { IPV6 } else { IPV4 };
        let ethertype = if self.random.chance(1) {
            *self.random.pick(&[0x0806, 0x8100, 0x88a8, 0x05dc, IPV4, IPV6])
        } else {
            family
        };
        let mut header = destination.0.to_vec();
        header.extend(source.0);
        header.extend(ethertype.to_be_bytes());
        header
    }

    /// Flips bytes of some, and cuts some short. Whether it left the frame alone.
    fn damage(&mut self, frame: &mut Vec<u8>) -> bool {
        let mut whole = true;
        if self.random.chance(6) {
            for _ in 0..=self.random.below(3) {
                let at = self.random.below(frame.len().min(120) as u64) as usize;
                frame[at] ^= self.random.next() as u8;
            }
            whole = false;
        }
        if self.random.chance(3) {
            frame.truncate(self.random.below(frame.len() as u64 + 1) as usize);
            whole = false;
        }
        whole
    }

    /// Remembers an IP packet, so that an error may quote it.
    fn remember(&mut self, ip: &[u8]) {
        let quoted = &ip[..ip.len().min(600)];
        if self.recent.len() < RECENT {
            self.recent.push(quoted.to_vec());
        } else {
            let at = self.random.below(RECENT as u64) as usize;
            self.recent[at] = quoted.to_vec();
        }
    }
}

/// What a sender left to be finished, of the IP packet behind an Ethernet header.
type Unfinished = Option<PartialChecksum>;

/// Numbers that look random (SplitMix64, Steele et al. 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `limit - 1`; 0 when there is none.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// Up to `most` bytes.
    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.below(most + 1) as usize;
        self.exactly(length)
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 7);
        while bytes.len() < length {
            bytes.extend(self.next().to_be_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
