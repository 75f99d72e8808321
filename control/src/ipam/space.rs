//! Which part of a pool is free: where the next block can go. Pure.

use ipnet::IpNet;

use super::content::{address_like, number, size};

/// The first range of `prefix_len` in `pool` that overlaps none of `taken`, searched from the `start`-th one on and
/// round, so that nodes that start apart seldom meet. `start` counts modulo the number of such ranges.
///
/// Takes steps in proportion to the number of taken ranges, not to the size of the pool.
pub(super) fn free_range(pool: IpNet, prefix_len: u8, taken: &[IpNet], start: u64) -> Option<IpNet> {
    let bits = prefix_len.checked_sub(pool.prefix_len())?;
    let count = 1_u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX);
    let range_at = |index: u128| {
        let shift = u32::from(pool.max_prefix_len() - prefix_len);
        let offset = index.checked_shl(shift).unwrap_or(0);
        IpNet::new(address_like(pool, number(pool.network()) + offset), prefix_len).ok()
    };
    let mut taken: Vec<IpNet> = taken.iter().copied().filter(|range| overlaps(*range, pool)).collect();
    taken.sort_unstable_by_key(|range| number(range.network()));
    let (mut index, mut passed) = (u128::from(start) % count, 0);
    while passed < count {
        let range = range_at(index)?;
        let Some(obstacle) = last_overlapping(&taken, range) else { return Some(range) };
        // Go on behind the obstacle, which may be larger than one range.
        let end = number(obstacle.network()) + (size(obstacle) - 1);
        let last = number(range.network()) + (size(range) - 1);
        let step = 1 + end.saturating_sub(last) / size(range);
        passed = passed.saturating_add(step);
        index = index.saturating_add(step);
        if index >= count {
            index = 0;
        }
    }
    None
}

/// Whether two ranges have an address in common. Of two prefixes that do, one holds the other.
pub(super) fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Of ranges that are sorted and do not overlap each other: the last one that overlaps `range`.
fn last_overlapping(sorted: &[IpNet], range: IpNet) -> Option<IpNet> {
    let last = number(range.network()) + (size(range) - 1);
    let after = sorted.partition_point(|other| number(other.network()) <= last);
    sorted[..after].last().copied().filter(|other| overlaps(*other, range))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_largest_pools_are_searched_too() {
        assert_eq!(free_range(net("::/0"), 128, &[], 5), Some(net("::5/128")));
        assert_eq!(
            free_range(net("fd00::/48"), 122, &[net("fd00::/49")], 0),
            Some(net("fd00:0:0:8000::/122"))
        );
        assert_eq!(free_range(net("0.0.0.0/0"), 26, &[net("0.0.0.0/0")], 9), None);
        assert_eq!(free_range(net("10.0.0.0/26"), 24, &[], 0), None);
    }

    proptest! {
        /// Against a list of all addresses of a small pool.
        #[test]
        fn it_finds_the_first_free_range(
            prefix_len in 26..=30_u8,
            taken in prop::collection::vec((27..=32_u8, any::<u8>()), 0..20),
            start in 0..64_u64,
        ) {
            let pool = net("10.0.0.0/25");
            let mut ranges: Vec<IpNet> = Vec::new();
            for (len, at) in taken {
                let range = IpNet::new(address_like(pool, number(pool.network()) + u128::from(at % 128)), len).unwrap().trunc();
                if !ranges.iter().any(|other| overlaps(*other, range)) {
                    ranges.push(range);
                }
            }
            let used: BTreeSet<_> = ranges.iter().flat_map(IpNet::hosts_and_ends).collect();
            let all: Vec<IpNet> = pool.subnets(prefix_len).unwrap().collect();
            let first = usize::try_from(start).unwrap() % all.len();
            let expected = all[first..].iter().chain(&all[..first])
                .find(|range| range.hosts_and_ends().iter().all(|address| !used.contains(address)));
            prop_assert_eq!(free_range(pool, prefix_len, &ranges, start), expected.copied());
        }
    }

    trait Whole {
        fn hosts_and_ends(&self) -> Vec<std::net::IpAddr>;
    }

    impl Whole for IpNet {
        /// Every address, network and broadcast addresses included.
        fn hosts_and_ends(&self) -> Vec<std::net::IpAddr> {
            (0..size(*self)).map(|offset| address_like(*self, number(self.network()) + offset)).collect()
        }
    }
}
