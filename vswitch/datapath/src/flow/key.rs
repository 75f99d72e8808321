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
    /// The last 32 bits of the lower address, then of the higher one: all of it for IPv4.
    pub(super) addresses: u64,
    /// What is before that in IPv6 addresses: the first 64 bits of the lower one, of the higher one, and the 32 bits that
    /// follow in each. Zeros for IPv4.
    pub(super) upper: [u64; 3],
    /// Port of the lower end, then of the higher end.
    pub(super) ports: u32,
    /// Protocol in the upper 8 bits, family in [`FlowKey::V6`], and [`FlowKey::USED`].
    pub(super) kind: u16,
}

impl FlowKey {
    /// In the kind of an IPv6 key.
    pub(super) const V6: u16 = 0x80;
    /// In the kind of every key, so that none is that of a line without a flow.
    pub(super) const USED: u16 = 0x40;

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
        let orientation = if source > destination { Orientation::FromHigh } else { Orientation::FromLow };
        let key = Self {
            addresses: (low >> 16) << 32 | high >> 16,
            upper: [0; 3],
            ports: (low as u32) << 16 | high as u32 & 0xffff,
            kind: u16::from(protocol) << 8 | Self::USED,
        };
        (key, orientation)
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
        let pair = |low: u32, high: u32| u64::from(low) << 32 | u64::from(high);
        let key = Self {
            addresses: pair(low.0 as u32, high.0 as u32),
            upper: [
                (low.0 >> 64) as u64,
                (high.0 >> 64) as u64,
                pair((low.0 >> 32) as u32, (high.0 >> 32) as u32),
            ],
            ports: u32::from(low.1) << 16 | u32::from(high.1),
            kind: u16::from(protocol) << 8 | Self::V6 | Self::USED,
        };
        (key, if from_high { Orientation::FromHigh } else { Orientation::FromLow })
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

    /// Address and port of the end that `orientation` says sends.
    #[must_use]
    pub fn source(&self, orientation: Orientation) -> (IpAddr, u16) {
        let (first, shift) = match orientation {
            Orientation::FromLow => (self.upper[0], 32),
            Orientation::FromHigh => (self.upper[1], 0),
        };
        let [middle, last] = [self.upper[2], self.addresses].map(|pair| (pair >> shift) as u32);
        let address = if self.is_v6() {
            let bits = u128::from(first) << 64 | u128::from(middle) << 32 | u128::from(last);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(last))
        };
        (address, (self.ports >> (shift / 2)) as u16)
    }

    /// IP protocol number.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.kind >> 8) as u8
    }

    /// Whether the addresses are IPv6.
    #[inline]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.kind & Self::V6 != 0
    }

    /// A hash that nobody who does not know `secret` can steer (folded multiplication, as in foldhash and wyhash). The
    /// words meet secrets before they meet each other, so no choice of addresses and ports cancels a factor.
    #[inline]
    #[must_use]
    pub(super) fn hash(&self, secret: &[u64; 6]) -> u64 {
        let rest = u64::from(self.ports) << 16 | u64::from(self.kind);
        let last = fold(self.addresses ^ secret[0], rest ^ secret[1]);
        let first = fold(self.upper[0] ^ secret[2], self.upper[1] ^ secret[3]);
        fold(last ^ self.upper[2] ^ secret[4], first.rotate_left(32) ^ secret[5])
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
