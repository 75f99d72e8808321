//! What comes by the uplink: tunnels of every kind, tunnels in tunnels, and packets as they are.

use std::net::IpAddr;

use super::super::world::{A, B, underlay_v4, underlay_v6, v4, vtep};
use super::{Hostile, Unfinished};
use crate::checksum;
use crate::parse::{IPV4, IPV6, protocol};

/// Tunnels within a tunnel, at most.
const NESTED: usize = 3;

impl Hostile {
    pub(super) fn by_underlay(&mut self) -> (Vec<u8>, Unfinished) {
        if self.random.chance(12) {
            // As it is, from somewhere to one of our pods, as a rule.
            let to = *self.random.pick(&[A, B, B]);
            let from = *self.random.pick(&["10.0.3.5", "10.0.2.10", "10.0.1.10", "8.8.8.8", "192.168.0.2"]);
            let from = from.parse().unwrap_or(underlay_v4(2));
            return self.ip(from, v4(1, to));
        }
        let mut inner = self.ip_from_tunnel().0;
        let nested = if self.random.chance(95) { 1 } else { 1 + self.random.below(NESTED as u64) };
        for _ in 0..nested {
            inner = self.tunnel(&inner);
        }
        (inner, None)
    }

    /// One tunnel packet around an IP packet.
    fn tunnel(&mut self, inner: &[u8]) -> Vec<u8> {
        let over_v6 = self.random.chance(40);
        let of = if over_v6 { underlay_v6 } else { underlay_v4 };
        let from = if self.random.chance(97) { of(2) } else { of(*self.random.pick(&[1, 3, 4, 9])) };
        let to = if self.random.chance(98) { of(1) } else { of(2) };
        let is_v6 = inner.first().is_some_and(|byte| byte >> 4 == 6);
        if self.random.chance(40) {
            let number = match (is_v6, self.random.chance(97)) {
                (false, true) => 4,
                (true, true) => 41,
                _ => *self.random.pick(&[4, 41, 47, 137]),
            };
            return self.outer(from, to, number, inner);
        }
        let mut datagram = vec![0xc0, self.random.next() as u8];
        let (vni, port): (u32, u16) =
            *self.random.pick(&[(4096, 4789), (4096, 4789), (4096, 4789), (1, 8472), (1, 4789), (7, 4789)]);
        datagram.extend(port.to_be_bytes());
        datagram.extend((30 + inner.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        let flags = if self.random.chance(98) { 8 } else { self.random.next() as u8 };
        datagram.extend([flags, 0, 0, 0]);
        datagram.extend((vni << 8).to_be_bytes());
        let to_mac = if self.random.chance(97) { vtep(1, is_v6) } else { vtep(2, is_v6) };
        datagram.extend(to_mac.0);
        datagram.extend(vtep(2, is_v6).0);
        datagram.extend(if is_v6 { IPV6 } else { IPV4 }.to_be_bytes());
        datagram.extend(inner);
        if over_v6 || self.random.chance(30) {
            let sum =
                checksum::Sum::ZERO.pseudo(from, to, protocol::UDP, datagram.len()).bytes(&datagram).finish();
            let sum = if self.random.chance(3) { self.random.next() as u16 } else { sum };
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        self.outer(from, to, protocol::UDP, &datagram)
    }

    /// An outer header: plain as a rule, in pieces or with options seldom.
    fn outer(&mut self, from: IpAddr, to: IpAddr, number: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(40 + payload.len());
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let field: u16 =
                    if self.random.chance(98) { 0x4000 } else { *self.random.pick(&[0x2000, 1, 0x2003]) };
                packet.extend([0x45, self.random.next() as u8]);
                packet.extend((20 + payload.len() as u16).to_be_bytes());
                packet.extend([0, self.random.below(8) as u8]);
                packet.extend(field.to_be_bytes());
                packet.extend([64, number, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                let sum = checksum::of(&packet);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend([0x60, self.random.next() as u8, 0, 0]);
                packet.extend((payload.len() as u16).to_be_bytes());
                packet.extend([number, 64]);
                packet.extend(from.octets());
                packet.extend(to.octets());
            }
            _ => {}
        }
        packet.extend(payload);
        packet
    }
}
