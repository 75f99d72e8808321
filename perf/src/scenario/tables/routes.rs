//! Look-ups in the FIB.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::{IpNet, Ipv6Net};
use vswitch_datapath::BATCH;
use vswitch_datapath::fib::{Address, Fib, ranges};

use super::turns::{Peer, take_turns, time_each};
use super::{NAME, note_of_peer};
use crate::peer::dpdk::{Code, Dpdk};
use crate::result::Measurement;
use crate::session::Session;
use crate::workload::{Family, Numbers, count, random_prefixes};
use crate::{Error, Result};

/// Addresses asked of all routes: none comes again before as many others have.
const ADDRESSES: usize = 1 << 18;
/// Look-ups of a round.
const LOOKUPS: usize = 1 << 21;
/// The same with `--quick`.
const LOOKUPS_QUICK: usize = 1 << 18;
/// Next hops that routes lead to.
const NEXT_HOPS: u64 = 64;

/// So many routes of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) family: Family,
    pub(super) routes: usize,
}

/// Which addresses are asked.
const SPREADS: [(&str, usize); 3] = [("of-all", ADDRESSES), ("of-4096", 4096), ("of-64", 64)];

impl Case {
    pub(super) fn name(self) -> String {
        format!("fib/{}/routes-{}", self.family.key(), count(self.routes as u64))
    }

    pub(super) fn is_wanted(self, session: &Session) -> bool {
        let name = self.name();
        let spreads = SPREADS.map(|(spread, _)| session.wants(&format!("{name}/{spread}")));
        session.wants(&name) || spreads.contains(&true)
    }
}

/// Measures one size, beside the peers.
pub(super) fn run(session: &mut Session, case: Case) -> Result<()> {
    session.step(&case.name())?;
    let routes = Routes::new(case);
    match case.family {
        Family::V4 => run_family(session, case, &routes, |address| (address >> 96) as u32),
        Family::V6 => run_family(session, case, &routes, |address| address),
    }
}

fn run_family<A: Address>(
    session: &mut Session,
    case: Case,
    routes: &Routes,
    of: impl Fn(u128) -> A,
) -> Result<()> {
    let name = case.name();
    let fib = build::<A>(session, &name, routes)?;
    let addresses: Vec<A> = routes.addresses.iter().map(|address| of(*address)).collect();
    let least = if session.config.quick { LOOKUPS_QUICK } else { LOOKUPS };
    for (spread, many) in SPREADS {
        let case_name = format!("{name}/{spread}");
        if !session.wants(&case_name) {
            continue;
        }
        let asked = &addresses[..many.min(addresses.len())];
        let mut leaves = [0; BATCH];
        let look_up = || {
            for chunk in asked.chunks(BATCH) {
                fib.lookup_batch(chunk, &mut leaves);
                std::hint::black_box(&leaves);
            }
        };
        let dpdk = if many == ADDRESSES { peer(session, case, routes) } else { None };
        let peers = dpdk.iter().flat_map(|dpdk| peers(case.family, dpdk)).collect();
        let mut look_up = look_up;
        take_turns(session, &case_name, "look-up", || time_each(asked.len(), least, &mut look_up), peers)?;
        session.advance();
    }
    Ok(())
}

/// The FIB, with what it takes to build it, and of memory.
fn build<A: Address>(session: &mut Session, name: &str, routes: &Routes) -> Result<Fib<A>> {
    let mut times = Vec::new();
    let mut built = Fib::default();
    for _ in 0..session.config.rounds.max(1) {
        session.check()?;
        let prefixes = routes.aligned();
        let start = Instant::now();
        built = Fib::build(&ranges(prefixes, 0)).map_err(|error| Error::setup("build a FIB", error))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    if session.wants(name) {
        let bytes = built.memory_bytes() as f64;
        session.record(Measurement::of_rounds(NAME, name, "build", "ms", &times));
        session.record(Measurement::of_rounds(NAME, name, "memory", "bytes", &[bytes]));
        let each = bytes / routes.prefixes.len() as f64;
        session.record(Measurement::of_rounds(NAME, name, "bytes-each", "bytes", &[each]));
    }
    Ok(built)
}

fn peer(session: &mut Session, case: Case, routes: &Routes) -> Option<Dpdk> {
    let name = format!("{}: without {}", case.name(), names(case.family)[0]);
    let addresses: Vec<IpAddr> = routes.addresses.iter().map(|bits| address(case.family, *bits)).collect();
    note_of_peer(session, &name, Dpdk::fib(super::core(), &routes.prefixes, &addresses))
}

const fn names(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["rte_fib", "rte_fib-avx512"],
        Family::V6 => ["rte_fib6", "rte_fib6-avx512"],
    }
}

fn peers(family: Family, dpdk: &Dpdk) -> impl Iterator<Item = Peer<'_>> {
    let codes = [Code::Scalar, Code::Avx512];
    let of = move |(name, code)| Peer { name, run: Box::new(move || dpdk.run(code)) };
    names(family).into_iter().zip(codes).map(of)
}

/// Routes and addresses behind them, aligned to the left.
struct Routes {
    prefixes: Vec<(IpNet, u32)>,
    addresses: Vec<u128>,
}

impl Routes {
    fn new(case: Case) -> Self {
        let mut numbers = Numbers::new(case.routes as u64);
        let nets = match case.family {
            Family::V4 => random_prefixes(Family::V4, case.routes),
            Family::V6 => of_providers(case.routes),
        };
        let hop = |numbers: &mut Numbers| 1 + numbers.below(NEXT_HOPS) as u32;
        let prefixes: Vec<_> = nets.into_iter().map(|net| (net, hop(&mut numbers))).collect();
        let behind = |_| {
            let (net, _) = prefixes[numbers.below(prefixes.len() as u64) as usize];
            let (start, length) = aligned(&net);
            let bits = u128::from(numbers.next_bits()) << 64 | u128::from(numbers.next_bits());
            start | bits.checked_shr(length.into()).unwrap_or(0)
        };
        let addresses = (0..ADDRESSES).map(behind).collect();
        Self { prefixes, addresses }
    }

    fn aligned(&self) -> Vec<(u128, u8, u32)> {
        let prefixes = self.prefixes.iter().map(|(net, hop)| (aligned(net), *hop));
        prefixes.map(|((start, length), hop)| (start, length, hop)).collect()
    }
}

fn aligned(net: &IpNet) -> (u128, u8) {
    match net {
        IpNet::V4(net) => (u128::from(net.network().to_bits()) << 96, net.prefix_len()),
        IpNet::V6(net) => (net.network().to_bits(), net.prefix_len()),
    }
}

fn address(family: Family, aligned: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits((aligned >> 96) as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(aligned).into(),
    }
}

/// What registries give addresses from (IANA, IPv6 Global Unicast Address Assignments): first 16 bits, length.
const REGISTRIES: [(u16, u32); 7] =
    [(0x2001, 16), (0x2400, 12), (0x2600, 12), (0x2800, 12), (0x2a00, 12), (0x2a10, 12), (0x2c00, 12)];

/// IPv6 prefixes of lengths as in the global table: each within the /32 of one of a sixth as many providers, of whom some
/// have many and most have few.
fn of_providers(count: usize) -> Vec<IpNet> {
    let mut numbers = Numbers::new(6);
    // The lengths, with the bits that follow the first 32.
    let mut lengths = random_prefixes(Family::V6, count).into_iter().cycle();
    let provider = |numbers: &mut Numbers| {
        let (first, length) = REGISTRIES[numbers.below(REGISTRIES.len() as u64) as usize];
        let within = (numbers.next_bits() as u32).checked_shr(length).unwrap_or(0);
        u128::from(u32::from(first) << 16 | within) << 96
    };
    let providers: Vec<u128> = (0..(count / 6).max(16)).map(|_| provider(&mut numbers)).collect();
    let mut seen = std::collections::HashSet::with_capacity(count);
    while seen.len() < count {
        let Some(length) = lengths.next().map(|net| net.prefix_len()) else { break };
        let [a, b] = [(); 2].map(|()| numbers.below(providers.len() as u64));
        let bits = providers[a.min(b) as usize] | u128::from(numbers.next_bits()) << 32;
        seen.extend(Ipv6Net::new(Ipv6Addr::from_bits(bits), length).map(|net| IpNet::V6(net.trunc())));
    }
    let mut nets: Vec<IpNet> = seen.into_iter().collect();
    // In an order that is the same every time, and sorted by nothing a table could profit from.
    nets.sort_unstable();
    for last in (1..nets.len()).rev() {
        nets.swap(last, numbers.below(last as u64 + 1) as usize);
    }
    nets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_behind_their_routes() {
        for family in [Family::V4, Family::V6] {
            let routes = Routes::new(Case { family, routes: 500 });
            assert_eq!(routes.prefixes.len(), 500);
            let is_behind = |address: &u128| {
                let address = super::address(family, *address);
                routes.prefixes.iter().any(|(net, _)| net.contains(&address))
            };
            assert!(routes.addresses.iter().take(1000).all(is_behind));
            let again = Routes::new(Case { family, routes: 500 });
            assert_eq!((again.prefixes, again.addresses), (routes.prefixes, routes.addresses));
        }
    }
}
