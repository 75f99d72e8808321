//! What is measured with, as data: a node with its pods, peers, policy and routes, and the packets that cross it.
//!
//! ```text
//! Node    -> DesiredState, Facts, Config   what the engine is told
//! Traffic -> Stream                        frames by number, and the ports they enter and leave by
//! Case    -> name                          the axes of one measurement, in one stable name
//! Cluster -> Inputs                        objects, as an agent has them of a cluster
//! shape   -> Ruled, Asks                   policies of several shapes, and packets that ask each of their rules
//! ```
//!
//! In memory or over veth, and in tests: the same builders with other port names, MACs, addresses and MTUs. Nothing here
//! is random from run to run.

mod case;
mod cluster;
pub mod node;
pub mod policy;
mod routes;
pub mod shape;
mod traffic;

#[cfg(test)]
mod tests;

pub use case::{Case, Kind, count};
pub use cluster::Cluster;
pub use node::{Node, Peer, Pod, Uplink};
pub use policy::{ALLOWED, ALLOWED_PORTS, Rules};
pub use routes::{Routes, random_prefixes};
pub use traffic::{Endpoint, Frames, Size, Stream, Traffic, Transport, Way};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Its name in case names.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// Whether an address is of it.
    #[must_use]
    pub const fn has(self, address: std::net::IpAddr) -> bool {
        matches!(self, Self::V4) == address.is_ipv4()
    }
}

/// Numbers that look random and are the same in every run (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// Those that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of less than 2^-32 for any end used here does not matter.
        ((u128::from(self.next_bits()) * u128::from(end)) >> 64) as u64
    }
}
