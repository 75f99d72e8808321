//! Prefixes as the Internet has them, and addresses behind them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Family, Numbers};

/// Prefix lengths of the global IPv4 table with their share in a thousand (rounded from what bgp.potaroo.net showed in
/// 2024).
const LENGTHS_V4: [(u8, u64); 12] = [
    (24, 590),
    (23, 100),
    (22, 112),
    (21, 52),
    (20, 46),
    (19, 26),
    (18, 15),
    (17, 9),
    (16, 40),
    (15, 4),
    (14, 3),
    (13, 3),
];
/// The same for IPv6.
const LENGTHS_V6: [(u8, u64); 9] =
    [(48, 470), (32, 130), (44, 100), (40, 90), (36, 50), (46, 50), (29, 40), (47, 40), (45, 30)];

/// `count` different prefixes of lengths as in the global table, in address ranges that nothing else here uses:
/// unicast, but 10/8, 127/8, 192/8; in IPv6 2000::/3.
#[must_use]
pub fn random_prefixes(family: Family, count: usize) -> Vec<IpNet> {
    let mut numbers = Numbers::new(match family {
        Family::V4 => 4,
        Family::V6 => 6,
    });
    let mut seen = std::collections::HashSet::with_capacity(count);
    let mut prefixes = Vec::with_capacity(count);
    while prefixes.len() < count {
        let (lengths, bits) = match family {
            Family::V4 => (LENGTHS_V4.as_slice(), numbers.next_bits()),
            Family::V6 => (LENGTHS_V6.as_slice(), numbers.next_bits()),
        };
        let length = pick(lengths, numbers.below(lengths.iter().map(|(_, share)| share).sum()));
        let net = match family {
            Family::V4 => {
                let address = Ipv4Addr::from_bits((bits >> 32) as u32);
                if !(1..224).contains(&address.octets()[0]) || [10, 127, 192].contains(&address.octets()[0]) {
                    continue;
                }
                Ipv4Net::new(address, length).map(|net| IpNet::V4(net.trunc()))
            }
            Family::V6 => {
                let bits = (u128::from(bits) << 64 >> 3) | (1 << 125);
                Ipv6Net::new(Ipv6Addr::from_bits(bits), length).map(|net| IpNet::V6(net.trunc()))
            }
        };
        if let Ok(net) = net
            && seen.insert(net)
        {
            prefixes.push(net);
        }
    }
    prefixes
}

fn pick(lengths: &[(u8, u64)], mut at: u64) -> u8 {
    for (length, share) in lengths {
        match at.checked_sub(*share) {
            Some(rest) => at = rest,
            None => return *length,
        }
    }
    lengths[0].0
}

/// Random prefixes, each leading to one of some peers, and addresses spread over them.
#[derive(Debug, Clone)]
pub struct Routes {
    /// Prefix and number of the peer it leads to.
    pub prefixes: BTreeMap<IpNet, usize>,
    /// Addresses behind them, in no order of meaning.
    pub remotes: Vec<Remote>,
}

/// An address behind a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The address.
    pub address: IpAddr,
    /// The peer the longest match leads to.
    pub peer: usize,
}

/// Most addresses packets go to.
const REMOTES_MAX: usize = 65_536;

impl Routes {
    /// `count` prefixes over `peers` peers, which are at least 1.
    #[must_use]
    pub fn new(family: Family, count: usize, peers: usize) -> Self {
        let list = random_prefixes(family, count);
        let prefixes: BTreeMap<IpNet, usize> = list.iter().copied().zip((0..peers).cycle()).collect();
        let mut numbers = Numbers::new(count as u64);
        let step = (list.len() / REMOTES_MAX).max(1);
        let remotes = list.iter().step_by(step).take(REMOTES_MAX).filter_map(|net| {
            let address = inside(net, numbers.next_bits());
            Some(Remote { address, peer: longest(&prefixes, address)? })
        });
        let remotes = remotes.collect();
        Self { prefixes, remotes }
    }
}

/// An address of a prefix, neither its first nor its last.
pub(super) fn inside(net: &IpNet, bits: u64) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let host = (bits as u32 & net.hostmask().to_bits()).clamp(1, net.hostmask().to_bits() - 1);
            Ipv4Addr::from_bits(net.network().to_bits() | host).into()
        }
        IpNet::V6(net) => {
            let host = ((u128::from(bits) << 60 | u128::from(bits)) & net.hostmask().to_bits()).max(1);
            Ipv6Addr::from_bits(net.network().to_bits() | host).into()
        }
    }
}

/// Where the longest matching prefix leads.
fn longest(prefixes: &BTreeMap<IpNet, usize>, address: IpAddr) -> Option<usize> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    (0..=most).rev().find_map(|length| {
        let net = IpNet::new(address, length).ok()?.trunc();
        prefixes.get(&net).copied()
    })
}
