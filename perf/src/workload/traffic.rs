//! Packets by number: which flow, how long, and the ports of the node they cross.

use std::fmt;
use std::net::IpAddr;

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader, UdpHeader};
use vswitch_model::{Mac, PortName, Vni};

use super::node::{VXLAN_PORT, vtep};
use super::routes::Remote;
use super::{ALLOWED_PORTS, Family, Node, Numbers, Peer, Uplink};
use crate::{Error, Result};

/// From where to where a packet goes, seen from the node under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// From the first pod to the second.
    Local,
    /// From the first pod to other nodes, not encapsulated.
    Direct,
    /// From the first pod to other nodes, into VXLAN.
    IntoVxlan,
    /// From other nodes to the first pod, out of VXLAN.
    FromVxlan,
}

impl Way {
    /// Its name in case names.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Local => "plain",
            Self::Direct => "direct",
            Self::IntoVxlan => "vxlan",
            Self::FromVxlan => "from-vxlan",
        }
    }
}

/// Length of the frames pods see. Where headers need more, a frame is as long as they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All of this many bytes, the FCS of 4 bytes included, as RFC 2544 counts: 64 are 60 in memory.
    Frame(u16),
    /// All with an IP packet of this many bytes.
    Packet(u16),
    /// 64, 570 and 1518 bytes, FCS included, seven, four and one in twelve ("Simple IMIX").
    Imix,
    /// G.711 at 20 ms: 160 bytes of voice and 12 of RTP in UDP. Over IPv4 214 bytes without FCS.
    Voice,
}

impl Size {
    /// Bytes of the frame of packet number `number`, without FCS.
    #[must_use]
    pub fn bytes(self, family: Family, number: u64) -> usize {
        let least = if self == Self::Voice { headers(family) + 172 } else { headers(family) };
        let bytes = match self {
            Self::Frame(bytes) => usize::from(bytes).saturating_sub(4),
            Self::Packet(bytes) => 14 + usize::from(bytes),
            Self::Imix => match number % 12 {
                1 | 4 | 7 | 10 => 566,
                6 => 1514,
                _ => 60,
            },
            Self::Voice => 0,
        };
        bytes.max(least)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(bytes) | Self::Packet(bytes) => bytes.fmt(f),
            Self::Imix => f.write_str("imix"),
            Self::Voice => f.write_str("214"),
        }
    }
}

/// Bytes of Ethernet, IP and UDP headers.
const fn headers(family: Family) -> usize {
    match family {
        Family::V4 => 14 + 20 + 8,
        Family::V6 => 14 + 40 + 8,
    }
}

/// What the packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP segments that open connections: SYN alone.
    Syn,
}

/// Packets of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// From where to where.
    pub way: Way,
    /// Of what pods see.
    pub family: Family,
    /// What they carry.
    pub transport: Transport,
    /// How long they are.
    pub size: Size,
    /// Different 5-tuples; packet number n is of flow number `n % flows`, 1 to [`Traffic::FLOWS_MAX`].
    pub flows: u64,
    /// The first destination port; [`ALLOWED_PORTS`] where policy is to let them pass.
    pub first_port: u16,
    /// TTL or hop limit of what pods see.
    pub ttl: u8,
}

/// What Linux sends with.
pub(super) const TTL: u8 = 64;
/// Source ports of a flow: not the well-known ones.
const SOURCE_PORTS: u64 = 64_000;
pub(super) const FIRST_SOURCE_PORT: u16 = 1024;

impl Traffic {
    /// As many 5-tuples as there are within the allowed destination ports.
    pub const FLOWS_MAX: u64 = SOURCE_PORTS * (*ALLOWED_PORTS.end() - *ALLOWED_PORTS.start() + 1) as u64;

    /// UDP of the smallest frames, which policy lets pass.
    #[must_use]
    pub const fn new(way: Way, family: Family, flows: u64) -> Self {
        let (size, first_port) = (Size::Frame(64), *ALLOWED_PORTS.start());
        Self { way, family, transport: Transport::Udp, size, flows, first_port, ttl: TTL }
    }

    /// The packets on `node`.
    ///
    /// # Errors
    ///
    /// When the node has not what the way needs: pods, an uplink with peers, routes of the family.
    pub fn on(self, node: &Node) -> Result<Stream> {
        let pod = |number: usize| {
            node.pods.get(number).ok_or_else(|| Error::setup("make packets", format!("no pod {number} here")))
        };
        let first = pod(0)?;
        let local = address(self.family, (first.v4, first.v6));
        let near = Endpoint { port: first.port.clone(), mac: first.mac, address: local };
        let (far, remotes) = match self.way {
            Way::Local => {
                let other = pod(1)?;
                let address = address(self.family, (other.v4, other.v6));
                (other.port.clone(), vec![Remote { address, peer: 0 }])
            }
            _ => {
                let routes = node.routes.get(&self.family).filter(|routes| !routes.remotes.is_empty());
                let routes =
                    routes.ok_or_else(|| Error::setup("make packets", "no routes to other nodes"))?;
                (uplink(node)?.port.clone(), routes.remotes.clone())
            }
        };
        let tunnel = if self.way == Way::FromVxlan { Some(Outer::new(node, self.family)?) } else { None };
        let (enters, leaves) = match self.way {
            Way::FromVxlan => (far, near.port.clone()),
            _ => (near.port.clone(), far),
        };
        Ok(Stream { traffic: self, near, remotes, tunnel, enters, leaves })
    }
}

fn uplink(node: &Node) -> Result<&Uplink> {
    let there = node.uplink.as_ref().filter(|uplink| !uplink.peers.is_empty());
    there.ok_or_else(|| Error::setup("make packets", "no uplink with peers here"))
}

pub(super) fn address(family: Family, (v4, v6): (std::net::Ipv4Addr, std::net::Ipv6Addr)) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
    }
}

/// The pod the packets come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its port.
    pub port: PortName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its address.
    pub address: IpAddr,
}

/// The packets of a [`Traffic`] on one node.
#[derive(Debug, Clone)]
pub struct Stream {
    /// What they are like.
    pub traffic: Traffic,
    /// The pod.
    pub near: Endpoint,
    /// Who it talks with.
    remotes: Vec<Remote>,
    tunnel: Option<Outer>,
    /// The port they come by.
    pub enters: PortName,
    /// The port they go by.
    pub leaves: PortName,
}

/// What the outer headers of packets from other nodes say.
#[derive(Debug, Clone)]
struct Outer {
    uplink: Uplink,
    family: Family,
    vtep: Mac,
}

impl Outer {
    fn new(node: &Node, family: Family) -> Result<Self> {
        Ok(Self { uplink: uplink(node)?.clone(), family, vtep: vtep(&node.name, family) })
    }

    fn peer(&self, remote: Remote) -> &Peer {
        &self.uplink.peers[remote.peer % self.uplink.peers.len()]
    }

    /// Writes a VXLAN packet around `inner`. Over IPv4 its UDP checksum is zero, as the kernel's.
    fn write(&self, remote: Remote, entropy: u16, inner: &[u8], into: &mut Vec<u8>) {
        let (peer, own) = (self.peer(remote), address(self.family, (self.uplink.v4, self.uplink.v6)));
        let mut payload = Vec::with_capacity(8 + inner.len());
        payload.extend([8, 0, 0, 0]);
        payload.extend((Vni::CALICO.get() << 8).to_be_bytes());
        payload.extend(inner);
        let builder = builder(peer.mac, self.uplink.mac, peer.address(self.family), own, TTL);
        write(builder.udp(0xc000 | entropy, VXLAN_PORT).write(into, &payload));
        if self.family == Family::V4 {
            into[40..42].fill(0);
        }
    }
}

pub(super) fn builder(
    from: Mac,
    to: Mac,
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
) -> PacketBuilderStep<IpHeaders> {
    let step = PacketBuilder::ethernet2(from.0, to.0);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            step.ipv4(source.octets(), destination.octets(), ttl)
        }
        (source, destination) => step.ipv6(octets(source), octets(destination), ttl),
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

pub(super) fn write<E: fmt::Debug>(written: Result<(), E>) {
    // Of a packet shorter than its length fields can say, into memory.
    written.expect("a vector takes every packet of this size");
}

/// Frames by number, and the ports they cross the switch by.
pub trait Frames {
    /// Writes the frame of packet number `number` into `into`, which is emptied first.
    fn write(&self, number: u64, into: &mut Vec<u8>);

    /// The port they come by.
    fn enters(&self) -> &PortName;

    /// The ports they go by.
    fn leaves(&self) -> impl Iterator<Item = &PortName>;
}

impl Frames for Stream {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        into.clear();
        let Traffic { way: _, family, transport, size, flows, first_port, ttl } = self.traffic;
        let flow = number % flows.max(1);
        let remote = self.remotes[(flow % self.remotes.len() as u64) as usize];
        let source_port = FIRST_SOURCE_PORT + (flow % SOURCE_PORTS) as u16;
        let destination_port = first_port.wrapping_add((flow / SOURCE_PORTS) as u16);
        let builder = match &self.tunnel {
            Some(outer) => {
                let from = outer.peer(remote).vtep(family);
                builder(from, outer.vtep, remote.address, self.near.address, ttl)
            }
            None => builder(self.near.mac, Mac::GATEWAY, self.near.address, remote.address, ttl),
        };
        let bytes = size.bytes(family, number);
        let mut inner = Vec::new();
        let frame = if self.tunnel.is_some() { &mut inner } else { &mut *into };
        match transport {
            Transport::Udp => {
                let payload = vec![0x5a; bytes - headers(family)];
                write(builder.udp(source_port, destination_port).write(frame, &payload));
            }
            Transport::Syn => {
                let mut header = TcpHeader::new(source_port, destination_port, 1, 64_240);
                header.syn = true;
                let rest = UdpHeader::LEN + bytes - headers(family);
                let payload = vec![0; rest.saturating_sub(TcpHeader::MIN_LEN)];
                write(builder.tcp_header(header).write(frame, &payload));
            }
        }
        if let Some(outer) = &self.tunnel {
            outer.write(remote, (flow as u16).wrapping_mul(0x9e37) & 0x3fff, &inner, into);
        }
    }

    fn enters(&self) -> &PortName {
        &self.enters
    }

    fn leaves(&self) -> impl Iterator<Item = &PortName> {
        std::iter::once(&self.leaves)
    }
}

impl Stream {
    /// The frame of packet number `number`.
    #[must_use]
    pub fn frame(&self, number: u64) -> Vec<u8> {
        let mut frame = Vec::new();
        self.write(number, &mut frame);
        frame
    }

    /// Numbers of packets such that each flow comes once in `flows` packets, in no order of meaning: the same order every
    /// time it is asked for. Endless.
    pub fn order(&self) -> impl Iterator<Item = u64> + use<> {
        let flows = self.traffic.flows.max(1);
        // Steps of a number without a common factor reach every flow; about the golden ratio, they are far apart.
        let mut step = ((flows as f64 * 0.618) as u64).max(1) + Numbers::new(flows).below(64);
        while gcd(step, flows) != 1 {
            step += 1;
        }
        // A whole round of flows keeps `number % flows` in order; the number itself chooses the size.
        (0_u64..).scan(0, move |at, round| {
            *at = (*at + step) % flows;
            Some(*at + (round / flows) * flows)
        })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
