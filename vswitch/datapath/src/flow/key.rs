//! What names a flow, the same for both directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which way a packet goes through a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the end that opened it.
    Original = 0,
    /// To the end that opened it.
    Reply = 1,
}

/// Which end of a key sent the packet it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Orientation {
    /// The lower of the two.
    FromLow = 0,
    /// The higher of the two.
    FromHigh = 1,
}

/// The two ends of a flow, the lower first, and its protocol: 40 bytes, equal for both directions.
///
/// An end is an address and a port; for ICMP queries the one that asks has the identifier as its port, the other the
/// query's type and code; for protocols without ports it is 0. IPv4 and IPv6 keys are never equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Lower address (high half, low half), higher address (the same), then from the top: lower end's port, higher
    /// end's port, protocol in 8 bits, family in 8 bits (4 or 6), 16 bits of zero.
    words: [u64; 5],
}

impl FlowKey {
    /// The key of a packet between IPv4 addresses in host order.
    #[inline]
    #[must_use]
    pub fn v4(
        source: u32,
        source_port: u16,
        destination: u32,
        destination_port: u16,
        protocol: u8,
    ) -> (Self, Orientation) {
        // Address and port in one number: one comparison, and no branch that depends on the packet.
        let [source, destination] = [(source, source_port), (destination, destination_port)]
            .map(|(address, port)| u64::from(address) << 16 | u64::from(port));
        let (low, high) = (source.min(destination), source.max(destination));
        let rest = (low & 0xffff) << 48 | (high & 0xffff) << 32 | u64::from(protocol) << 24 | 4 << 16;
        let orientation = if source > destination { Orientation::FromHigh } else { Orientation::FromLow };
        (Self { words: [0, low >> 16, 0, high >> 16, rest] }, orientation)
    }

    /// The key of a packet between IPv6 addresses.
    #[inline]
    #[must_use]
    pub fn v6(
        source: u128,
        source_port: u16,
        destination: u128,
        destination_port: u16,
        protocol: u8,
    ) -> (Self, Orientation) {
        let (source, destination) = ((source, source_port), (destination, destination_port));
        let from_high = source > destination;
        let (low, high) = if from_high { (destination, source) } else { (source, destination) };
        let rest = u64::from(low.1) << 48 | u64::from(high.1) << 32 | u64::from(protocol) << 24 | 6 << 16;
        let words = [(low.0 >> 64) as u64, low.0 as u64, (high.0 >> 64) as u64, high.0 as u64, rest];
        (Self { words }, if from_high { Orientation::FromHigh } else { Orientation::FromLow })
    }

    /// The key of a packet between addresses of one family; None when they are not.
    #[must_use]
    pub fn between(
        source: (IpAddr, u16),
        destination: (IpAddr, u16),
        protocol: u8,
    ) -> Option<(Self, Orientation)> {
        match (source.0, destination.0) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                Some(Self::v4(a.to_bits(), source.1, b.to_bits(), destination.1, protocol))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                Some(Self::v6(a.to_bits(), source.1, b.to_bits(), destination.1, protocol))
            }
            _ => None,
        }
    }

    /// Whether it is this key: `==` without the call of memcmp that comparing arrays compiles to.
    #[inline]
    pub(super) fn is(&self, other: &Self) -> bool {
        let [a, b, c, d, e] = self.words;
        let [v, w, x, y, z] = other.words;
        (a ^ v) | (b ^ w) | (c ^ x) | (d ^ y) | (e ^ z) == 0
    }

    /// Address and port of the end that `orientation` says sends.
    #[must_use]
    pub fn source(&self, orientation: Orientation) -> (IpAddr, u16) {
        let (at, shift) = match orientation {
            Orientation::FromLow => (0, 48),
            Orientation::FromHigh => (2, 32),
        };
        let bits = u128::from(self.words[at]) << 64 | u128::from(self.words[at + 1]);
        let address = if self.is_v6() {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        };
        (address, (self.words[4] >> shift) as u16)
    }

    /// IP protocol number.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.words[4] >> 24) as u8
    }

    /// Whether the addresses are IPv6.
    #[inline]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        (self.words[4] >> 16) as u8 == 6
    }

    /// A hash that nobody who does not know `secret` can steer (folded multiplication, as in foldhash and wyhash). The
    /// words meet secrets before they meet each other, so no choice of addresses and ports cancels a factor.
    #[inline]
    #[must_use]
    pub(super) fn hash(&self, secret: &[u64; 6]) -> u64 {
        let [a, b, c, d, e] = self.words;
        let low = fold(a ^ secret[0], b ^ secret[1]);
        let high = fold(c ^ secret[2], d ^ secret[3]);
        fold(low ^ e ^ secret[4], high.rotate_left(32) ^ secret[5])
    }
}

impl Orientation {
    /// The other end.
    #[inline]
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::FromLow => Self::FromHigh,
            Self::FromHigh => Self::FromLow,
        }
    }
}

impl Direction {
    /// The other way.
    #[inline]
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
