//! IP headers: addresses, options, extension headers, fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::world::{A, B, C, HOST, v4, v6};
use super::transport::Transport;
use super::{Hostile, Unfinished};
use crate::checksum;
use crate::parse::ETHERNET;
use crate::{PartialChecksum, PortIndex};

/// Identifications: few, so that pieces of one packet meet those of another.
const IDENTIFICATIONS: u64 = 8;

impl Hostile {
    /// A packet as one of this node's ports sends it: from its own addresses, as a rule.
    pub(super) fn ip_from(&mut self, port: PortIndex) -> (Vec<u8>, Unfinished) {
        let over_v6 = self.random.chance(40);
        let source = if self.random.chance(96) {
            if over_v6 { v6(1, port) } else { v4(1, port) }
        } else {
            self.address(over_v6)
        };
        let destination = self.address(over_v6);
        self.ip_or_error(source, destination)
    }

    /// A packet as it comes out of the other node's tunnel.
    pub(super) fn ip_from_tunnel(&mut self) -> (Vec<u8>, Unfinished) {
        let over_v6 = self.random.chance(40);
        let of = if over_v6 { v6 } else { v4 };
        let from = *self.random.pick(&[A, B, C, HOST]);
        let to = *self.random.pick(&[A, A, B, B, B, C, HOST]);
        let source = if self.random.chance(95) { of(2, from) } else { self.address(over_v6) };
        let destination = if self.random.chance(90) { of(1, to) } else { self.address(over_v6) };
        self.ip_or_error(source, destination)
    }

    /// The packet, or an error to whoever sent another.
    fn ip_or_error(&mut self, source: IpAddr, destination: IpAddr) -> (Vec<u8>, Unfinished) {
        if self.random.chance(8)
            && let Some((sender, quoted)) = self.quotable(source.is_ipv6())
        {
            let (protocol, message, _) = self.error_about(source.is_ipv6(), &quoted);
            return self.carrying(source, sender, (protocol, message, Some(2)));
        }
        self.ip(source, destination)
    }

    /// An IP packet between two addresses of one family.
    pub(super) fn ip(&mut self, source: IpAddr, destination: IpAddr) -> (Vec<u8>, Unfinished) {
        let transport = self.transport(source.is_ipv6());
        self.carrying(source, destination, transport)
    }

    fn carrying(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        transport: Transport,
    ) -> (Vec<u8>, Unfinished) {
        let (protocol, payload, unfinished) = self.summed(source, destination, transport);
        let (packet, header) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.v4(source, destination, protocol, &payload),
            (source, destination) => self.v6(mapped(source), mapped(destination), protocol, &payload),
        };
        self.remember(&packet);
        let unfinished = unfinished.and_then(|offset| {
            Some(PartialChecksum { start: u16::try_from(ETHERNET + header?).ok()?, offset })
        });
        (packet, unfinished)
    }

    fn address(&mut self, over_v6: bool) -> IpAddr {
        let (node, port) = (*self.random.pick(&[1, 1, 1, 2, 2]), *self.random.pick(&[A, B, B, C, HOST]));
        let rare: &[&str] = if over_v6 {
            &[
                "::",
                "::1",
                "ff02::1",
                "fe80::1",
                "fd10:0:0:1::3f",
                "2001:db8::1",
                "::ffff:10.0.1.10",
                "fd00::2",
            ]
        } else {
            &[
                "0.0.0.0",
                "127.0.0.1",
                "255.255.255.255",
                "224.0.0.1",
                "169.254.1.1",
                "10.0.1.63",
                "10.0.3.5",
                "10.0.4.5",
                "192.168.0.1",
                "8.8.8.8",
                "240.0.0.1",
            ]
        };
        if self.random.chance(85) {
            return if over_v6 { v6(node, port) } else { v4(node, port) };
        }
        let text = *self.random.pick(rare);
        text.parse().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// The packet, and how long its headers are when it is whole.
    fn v4(
        &mut self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        payload: &[u8],
    ) -> (Vec<u8>, Option<usize>) {
        let options = if self.random.chance(8) { self.options_v4() } else { Vec::new() };
        let (field, payload) = self.piece_v4(payload);
        let length = 20 + options.len();
        let mut header = vec![0x40 | (length / 4) as u8, self.random.next() as u8];
        let total =
            if self.random.chance(1) { self.random.next() as u16 } else { (length + payload.len()) as u16 };
        header.extend(total.to_be_bytes());
        header.extend((self.random.below(IDENTIFICATIONS) as u16).to_be_bytes());
        header.extend(field.to_be_bytes());
        header.extend([self.ttl(), protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(options);
        let sum = if self.random.chance(1) { self.random.next() as u16 } else { checksum::of(&header) };
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(payload);
        (header, (field & 0x3fff == 0).then_some(length))
    }

    fn v6(
        &mut self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        payload: &[u8],
    ) -> (Vec<u8>, Option<usize>) {
        let (first, chain, whole, payload) = self.chain(protocol, payload);
        let mut packet = vec![0x60 | (self.random.next() as u8 & 0xf)];
        packet.extend(self.random.exactly(3));
        let length = chain.len() + payload.len();
        let told = if self.random.chance(1) { self.random.next() as u16 } else { length as u16 };
        packet.extend(told.to_be_bytes());
        packet.extend([first, self.ttl()]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        let header = 40 + chain.len();
        packet.extend(chain);
        packet.extend(payload);
        (packet, whole.then_some(header))
    }

    fn ttl(&mut self) -> u8 {
        if self.random.chance(97) { 64 } else { self.random.below(3) as u8 }
    }

    /// Options of whole words: what real senders put there, and what nobody should.
    fn options_v4(&mut self) -> Vec<u8> {
        let mut options = match self.random.below(6) {
            0 => vec![1, 1, 1, 0],
            1 => vec![148, 4, 0, 0],
            // Record route; loose and strict source route.
            2..5 => {
                let kind = *self.random.pick(&[7, 131, 137]);
                let mut option = vec![kind, 11, self.random.below(16) as u8];
                option.extend(self.random.exactly(8));
                option
            }
            _ => self.random.bytes(40),
        };
        options.resize(options.len().div_ceil(4) * 4, 0);
        options.truncate(40);
        options
    }

    /// Flags and offset, and the part of the payload: most packets are whole. Offsets are small, so that pieces overlap.
    fn piece_v4<'a>(&mut self, payload: &'a [u8]) -> (u16, &'a [u8]) {
        match self.random.below(100) {
            0..70 => (0x4000, payload),
            70..90 => (0, payload),
            90..94 => {
                let at = self.cut(payload.len());
                (0x2000, &payload[..at])
            }
            94..99 => {
                let at = self.cut(payload.len());
                let more = if self.random.chance(30) { 0x2000 } else { 0 };
                (more | (at / 8) as u16, &payload[at..])
            }
            _ => (self.random.next() as u16, payload),
        }
    }

    /// Where a payload is cut: a multiple of 8, within the transport header at times.
    fn cut(&mut self, length: usize) -> usize {
        let limit = if self.random.chance(50) { 24 } else { length };
        (self.random.below(limit as u64 + 1) as usize / 8 * 8).min(length / 8 * 8)
    }

    /// The first next-header number, the extension headers, whether the packet is whole, and the part of the payload.
    fn chain<'a>(&mut self, protocol: u8, payload: &'a [u8]) -> (u8, Vec<u8>, bool, &'a [u8]) {
        let mut kinds: Vec<u8> = Vec::new();
        if self.random.chance(12) {
            let count = if self.random.chance(90) { 1 + self.random.below(3) } else { self.random.below(40) };
            kinds.extend((0..count).map(|_| *self.random.pick(&[0, 60, 60, 43, 51, 135, 139, 140, 59, 50])));
        }
        let (mut whole, mut part) = (true, payload);
        let mut fragment = None;
        if self.random.chance(8) {
            let at = self.cut(payload.len());
            let later = self.random.chance(50);
            let field = if later { at as u16 | u16::from(self.random.chance(30)) } else { 1 };
            part = if later { &payload[at..] } else { &payload[..at] };
            fragment = Some(if self.random.chance(10) { 0 } else { field });
            whole = false;
            kinds.push(44);
        }
        let mut chain = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            let next = kinds.get(at + 1).copied().unwrap_or(protocol);
            chain.extend(self.extension(*kind, next, fragment.unwrap_or(0)));
        }
        (kinds.first().copied().unwrap_or(protocol), chain, whole, part)
    }

    fn extension(&mut self, kind: u8, next: u8, fragment: u16) -> Vec<u8> {
        let mut header = vec![next];
        match kind {
            44 => {
                header.push(0);
                header.extend(fragment.to_be_bytes());
                header.extend((self.random.below(IDENTIFICATIONS) as u32).to_be_bytes());
            }
            // Its length counts in words of four bytes, less two.
            51 => {
                header.push(4);
                header.extend(self.random.exactly(22));
            }
            _ => {
                let units = self.random.below(3);
                header.push(if self.random.chance(3) { self.random.next() as u8 } else { units as u8 });
                let body = 6 + 8 * units as usize;
                let padded = self.random.chance(80) && kind != 43;
                header.extend(if padded { pad(body) } else { self.random.exactly(body) });
            }
        }
        header
    }
}

/// One option that pads (RFC 8200, section 4.2).
fn pad(length: usize) -> Vec<u8> {
    let mut option = vec![0; length];
    (option[0], option[1]) = (1, (length - 2) as u8);
    option
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
