//! Large packets as bytes choose them, into every encapsulation: what leaves fits its way, is right by another parser, and
//! adds up to what was sent; and what cannot be cut ends.

mod check;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_model::{Encapsulation, NextHop};

use super::world::{A, HOST, TUNNEL_V4, TUNNEL_V6, UPLINK, World, underlay_v4, v4, v6};
use crate::checksum::Sum;
use crate::parse::{ETHERNET, protocol};
use crate::segment::PIECES_MAX;
use crate::{Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind, VecBuffer, Walk, WalkConfig};

/// Most bytes of payload: with all headers there are it is a packet still.
const PAYLOAD_MAX: u16 = 65_000;

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Pod,
    /// A pod that takes large packets.
    Tun,
    Direct,
    /// VXLAN; over IPv6 or not.
    Vxlan(bool),
    IpIp(bool),
}

const WAYS: [Way; 7] =
    [Way::Pod, Way::Tun, Way::Direct, Way::Vxlan(false), Way::Vxlan(true), Way::IpIp(false), Way::IpIp(true)];

impl Way {
    /// Bytes of the IP packet that the device takes, and of what is put before the inner one.
    const fn sizes(self) -> (usize, usize) {
        match self {
            Self::Pod | Self::Tun => (1450, 0),
            Self::Direct => (1500, 0),
            Self::Vxlan(false) => (1500, 50),
            Self::Vxlan(true) => (1500, 70),
            Self::IpIp(false) => (1500, 20),
            Self::IpIp(true) => (1500, 40),
        }
    }

    /// The largest inner packet.
    const fn mtu(self) -> usize {
        let (device, outer) = self.sizes();
        device - outer
    }

    const fn port(self) -> PortIndex {
        match self {
            Self::Pod | Self::Tun => A,
            _ => UPLINK,
        }
    }

    /// A world whose packets to the other node, or to pod A, leave so: both families.
    fn world(self) -> World {
        let mut world = World::node(1);
        let over_v6 = matches!(self, Self::Vxlan(true) | Self::IpIp(true));
        let tunnel = if over_v6 { TUNNEL_V6 } else { TUNNEL_V4 };
        if matches!(self, Self::IpIp(_)) {
            for tunnel in world.desired.tunnels.values_mut() {
                tunnel.encapsulation = Encapsulation::IpIp;
            }
        }
        let next =
            if self == Self::Direct { NextHop::Direct(underlay_v4(2)) } else { NextHop::Tunnel(tunnel) };
        for prefix in ["10.0.2.0/26", "fd10:0:0:2::/122"] {
            world.desired.routes.insert(prefix.parse().expect("a prefix"), next.clone());
        }
        if self == Self::Tun {
            for facts in world.ports.values_mut().filter(|facts| facts.index == A) {
                (facts.takes_large, facts.finishes_checksums) = (true, true);
            }
        }
        world.recompile();
        world
    }
}

/// Numbers of an input; 0 where it has ended.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
}

/// What is sent.
#[derive(Debug)]
struct Sent {
    way: Way,
    six: bool,
    tcp: bool,
    ttl: u8,
    dont_fragment: bool,
    identification: u16,
    /// Words of options or extension headers behind the IP header, of 4 or 8 bytes.
    ip_options: usize,
    /// Words of TCP options.
    tcp_options: usize,
    sequence: u32,
    flags: u8,
    payload: Vec<u8>,
    size: u16,
    /// What is wrong with what is said to be left to do; 0: nothing.
    lie: u8,
}

impl Sent {
    fn read(data: &[u8]) -> Self {
        let mut from = Numbers(data);
        let what = from.byte();
        let (way, length) = (WAYS[usize::from(from.byte()) % WAYS.len()], from.word() % (PAYLOAD_MAX + 1));
        let (size, options) = (from.word(), from.byte());
        let (ttl, identification) = (from.byte(), from.word());
        let sequence = u32::from(from.word()) << 16 | u32::from(from.word());
        // Of an open connection: FIN, PSH, ACK, URG, ECE, CWR.
        let (flags, lie, first) = (from.byte() & 0xf9 | 0x10, from.byte(), from.byte());
        let (six, tcp) = (what & 1 != 0, what & 2 != 0);
        let mut sent = Self {
            way,
            six,
            tcp,
            ttl: if ttl == 0 { 64 } else { ttl },
            dont_fragment: six || what & 4 != 0,
            identification,
            ip_options: usize::from(options & 0xf) % if six { 3 } else { 11 },
            tcp_options: if tcp { usize::from(options >> 4) % 11 } else { 0 },
            sequence,
            flags,
            payload: (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(first)).collect(),
            size,
            lie: if what & 0xe0 == 0 { lie } else { 0 },
        };
        // Sizes about as large as the way takes, those that are likely, and any.
        sent.size = match what & 0x18 {
            0x18 => sent.room() as u16 - 2 + size % 5,
            0x10 => size,
            _ => size % 1500,
        };
        sent
    }

    /// Bytes of payload that fit the way.
    fn room(&self) -> usize {
        self.way.mtu() - self.headers()
    }

    fn ip_header(&self) -> usize {
        if self.six { 40 + self.ip_options * 8 } else { 20 + self.ip_options * 4 }
    }

    fn headers(&self) -> usize {
        self.ip_header() + if self.tcp { 20 + self.tcp_options * 4 } else { 8 }
    }

    fn packet(&self, source: IpAddr, destination: IpAddr, ethernet: &[u8]) -> Packet<VecBuffer> {
        let mut frame = ethernet.to_vec();
        let upper = self.headers() - self.ip_header() + self.payload.len();
        let number = if self.tcp { protocol::TCP } else { protocol::UDP };
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x45 + self.ip_options as u8, 0]);
                frame.extend(((self.ip_header() + upper) as u16).to_be_bytes());
                frame.extend(self.identification.to_be_bytes());
                frame.extend([u8::from(self.dont_fragment) << 6, 0, self.ttl, number, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.resize(ETHERNET + self.ip_header(), 1);
                super::frames::mend_ipv4(&mut frame);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let first = if self.ip_options > 0 { 60 } else { number };
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(((self.ip_options * 8 + upper) as u16).to_be_bytes());
                frame.extend([first, self.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                for left in (0..self.ip_options).rev() {
                    frame.extend([if left > 0 { 60 } else { number }, 0, 1, 4, 0, 0, 0, 0]);
                }
            }
            _ => {}
        }
        let sum = Sum::ZERO.pseudo(source, destination, number, upper).fold().to_be_bytes();
        frame.extend([0x1f, 0x40, 0x13, 0x88]);
        if self.tcp {
            frame.extend(self.sequence.to_be_bytes());
            frame.extend([0, 0, 0, 1, (5 + self.tcp_options as u8) << 4, self.flags, 1, 0]);
            frame.extend([sum[0], sum[1], 0, 0]);
            frame.resize(ETHERNET + self.headers(), 1);
        } else {
            frame.extend((upper as u16).to_be_bytes());
            frame.extend(sum);
        }
        frame.extend(&self.payload);
        Packet { buffer: VecBuffer::of(&frame), port: HOST, offload: self.offload() }
    }

    fn offload(&self) -> Offload {
        let start = (ETHERNET + self.ip_header()) as u16;
        let offset = if self.tcp { 16 } else { 6 };
        let kind = match (self.tcp, self.six) {
            (true, false) => SegmentKind::TcpV4,
            (true, true) => SegmentKind::TcpV6,
            (false, _) => SegmentKind::Udp,
        };
        let kinds = [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp]
            .map(|other| Segment::new(other, self.size));
        let right = PartialChecksum { start, offset };
        let (checksum, segment) = match self.lie {
            0 => (Some(right), Some(Segment::new(kind, self.size))),
            lie @ 1..64 => {
                let other = kinds.into_iter().filter(|other| other.kind != kind).nth(usize::from(lie % 2));
                (Some(right), other)
            }
            64..96 => (None, Some(Segment::new(kind, self.size))),
            lie @ 96..160 => {
                let wrong = PartialChecksum { start: u16::from(lie) * 2 + 1, ..right };
                (Some(wrong), Some(Segment::new(kind, self.size)))
            }
            lie => {
                let wrong = PartialChecksum { offset: offset + 1 + u16::from(lie), ..right };
                (Some(wrong), Some(Segment::new(kind, self.size)))
            }
        };
        Offload { checksum, segment }
    }

    /// The payload of each piece, when it is to be cut; None when it is to end.
    fn piece(&self) -> Option<usize> {
        let size = usize::from(self.size);
        if self.lie != 0 || size == 0 || self.payload.len() > size * PIECES_MAX || self.ttl == 1 {
            return None;
        }
        let room = self.room();
        (size <= room || (self.tcp && !self.dont_fragment)).then_some(size.min(room))
    }
}

thread_local! {
    /// Compiled once; only their tables are used again.
    static WORLDS: RefCell<BTreeMap<Way, World>> = const { RefCell::new(BTreeMap::new()) };
}

/// Walks the large packet that `data` chooses, from the node's kernel.
///
/// # Panics
/// When a buffer is lost or doubled, when something leaves that is not right or does not fit, when the pieces are not what was
/// sent, and when a packet ends that should not, or the other way round.
pub fn fuzz_large(data: &[u8]) {
    let sent = Sent::read(data);
    WORLDS.with_borrow_mut(|worlds| {
        let world = worlds.entry(sent.way).or_insert_with(|| sent.way.world());
        let config = WalkConfig { flows: 64, fragments: 16, ..WalkConfig::default() };
        world.walk = Walk::new(&config, world.walk.counters().clone());
        world.spare = PIECES_MAX;
        let node = if sent.way.port() == A { 1 } else { 2 };
        let destination = if sent.six { v6(node, A) } else { v4(node, A) };
        let ends = world.host_ends(destination);
        let ethernet = &ends.udp(1, 2, &[])[..ETHERNET];
        let left = world.walk_packets(vec![sent.packet(ends.source, destination, ethernet)]);
        check::check(&sent, &left);
    });
}
