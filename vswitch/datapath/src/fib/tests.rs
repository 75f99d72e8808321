use proptest::prelude::*;

use super::*;

/// Longest match by looking at every prefix.
fn oracle(prefixes: &[(u128, u8, u32)], address: u128) -> u32 {
    let covers = |start: u128, length: u8| (address ^ start).leading_zeros() >= u32::from(length);
    let best = prefixes.iter().filter(|(start, length, _)| covers(*start, *length));
    best.max_by_key(|(_, length, _)| *length).map_or(0, |(_, _, value)| *value)
}

/// Every address at which something could change, and its neighbours.
fn probes(prefixes: &[(u128, u8, u32)], one: u128) -> Vec<u128> {
    let mut probes = vec![0, u128::MAX];
    for (start, length, _) in prefixes {
        let last = start | u128::MAX.checked_shr(u32::from(*length)).unwrap_or(0);
        probes.extend([*start, last, start.wrapping_sub(one), last.wrapping_add(one)]);
    }
    probes
}

/// One prefix a place and length; the last one counts, as in a map.
fn unique(prefixes: Vec<(u128, u8, u32)>) -> Vec<(u128, u8, u32)> {
    let map: std::collections::BTreeMap<_, _> = prefixes.into_iter().map(|(s, l, v)| ((s, l), v)).collect();
    map.into_iter().map(|((s, l), v)| (s, l, v)).collect()
}

fn truncated(address: u128, length: u8) -> u128 {
    address & !u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

fn check_v4(prefixes: Vec<(u128, u8, u32)>, more: &[u32]) {
    let prefixes = unique(prefixes);
    let fib = Fib::<u32>::build(&ranges(prefixes.clone(), 0)).unwrap();
    let addresses =
        probes(&prefixes, 1 << 96).into_iter().map(|a| (a >> 96) as u32).chain(more.iter().copied());
    let addresses: Vec<u32> = addresses.collect();
    let mut batch = vec![u32::MAX; addresses.len()];
    fib.lookup_batch(&addresses, &mut batch);
    for (address, found) in addresses.into_iter().zip(batch) {
        assert_eq!(found, oracle(&prefixes, u128::from(address) << 96), "{address:#x} in {prefixes:x?}");
        assert_eq!(fib.lookup(address), found);
    }
}

fn check_v6(prefixes: Vec<(u128, u8, u32)>, more: &[u128]) {
    let prefixes = unique(prefixes);
    let fib = Fib::<u128>::build(&ranges(prefixes.clone(), 0)).unwrap();
    let addresses: Vec<u128> = probes(&prefixes, 1).into_iter().chain(more.iter().copied()).collect();
    let mut batch = vec![u32::MAX; addresses.len()];
    fib.lookup_batch(&addresses, &mut batch);
    for (address, found) in addresses.into_iter().zip(batch) {
        assert_eq!(found, oracle(&prefixes, address), "{address:#x} in {prefixes:x?}");
        assert_eq!(fib.lookup(address), found);
    }
}

#[test]
fn an_empty_fib_gives_leaf_0() {
    check_v4(Vec::new(), &[0, 1, u32::MAX]);
    check_v6(Vec::new(), &[0, 1, u128::MAX]);
    assert_eq!(Fib::<u32>::default().lookup(7), 0);
}

#[test]
fn the_whole_space_and_single_addresses() {
    let host = |a: u32, v| (u128::from(a) << 96, 32, v);
    check_v4(vec![(0, 0, 9), host(0, 1), host(u32::MAX, 2), host(0x0a00_0001, 3), host(0x0a00_0002, 4)], &[]);
    check_v6(
        vec![(0, 0, 9), (0, 128, 1), (u128::MAX, 128, 2), (5 << 100, 128, 3), (5 << 100 | 1, 128, 4)],
        &[],
    );
}

#[test]
fn every_length_nested_in_the_one_before() {
    for address in [0u128, u128::MAX, 0x2001_0db8_1234_5678_9abc_def0_1357_9bdf, 0xaaaa << 112 | 0xff << 56] {
        let nested =
            |most: u8| (0..=most).map(|l| (truncated(address, l), l, u32::from(l) + 1)).collect::<Vec<_>>();
        check_v4(nested(32), &[]);
        check_v6(nested(128), &[]);
    }
}

#[test]
fn what_leaves_a_long_chain_is_not_lost() {
    let base = 0xfd00_0010_0244_0000u128 << 64;
    let prefixes =
        vec![(0, 0, 1), (base, 64, 2), (base | 0x40, 122, 3), (base | 0x41, 128, 4), (base | 0x7f, 128, 5)];
    check_v6(prefixes.clone(), &[base | 1 << 63, base ^ 1 << 100, base ^ 1 << 70]);
    let fib = Fib::<u128>::build(&ranges(prefixes, 0)).unwrap();
    let lines = fib.levels.lines.len();
    assert!(lines <= 4, "{lines} lines");
}

#[test]
fn a_chain_ends_where_another_value_begins() {
    // One value up to the middle of a byte two levels down: what is before that byte is not aside.
    let base = 0x2001_0db8u128 << 96;
    check_v6(
        vec![(base, 33, 2), (base | 0x8000 << 80, 41, 2)],
        &[base | 1 << 80, base | 0x7fff << 80, base | 0x8080 << 80],
    );
}

#[test]
fn a_line_is_one_of_the_cache() {
    assert_eq!((size_of::<Line>(), align_of::<Line>()), (64, 64));
}

/// As many neighbours as the lines of one window take three levels for, and one more for hosts behind some of them.
#[test]
fn many_pieces_in_one_window_are_found_through_branches() {
    let base = 0x2001_0dbcu128 << 96;
    let mut prefixes: Vec<(u128, u8, u32)> =
        (0..3000).map(|number| (base | number << 72, 56, 1 + number as u32 % 7)).collect();
    let hosts = (0..3000).step_by(100);
    prefixes.extend(hosts.map(|number| (base | number << 72 | 0xabcd, 128, 9)));
    check_v6(prefixes, &[base | 0xabce, base | 5 << 72 | 0xabcd]);
    let hosts = |many: u128| (0..many).map(|host| ((0x0a01_0200 + host) << 96, 32, 1 + host as u32 % 5));
    for many in [8, 9, 128, 129, 256] {
        check_v4(hosts(many).collect(), &[0x0a01_0300, 0x0a01_01ff]);
    }
}

#[test]
fn an_empty_group_costs_nothing_and_is_that_of_the_first_value() {
    let fib = Fib::<u32>::build(&ranges(vec![(0, 0, 7), (0x0a00_0000 << 96, 24, 8)], 0)).unwrap();
    assert_eq!((fib.levels.runs.len(), fib.levels.lines.len()), (3, 0));
    assert_eq!(fib.levels.groups.iter().filter(|group| **group != 0).count(), 1);
    assert_eq!([0x0a00_00ff, 0x0a00_0100, 0x0900_0000].map(|it| fib.lookup(it)), [8, 7, 7]);
}

#[test]
fn few_addresses_and_many_are_found_alike() {
    let fib = Fib::<u32>::build(&ranges(vec![(0, 1, 3), (0x0a00_0001 << 96, 32, 4)], 1)).unwrap();
    let addresses: Vec<u32> = (0..200).map(|number| 0x0a00_0000 | (number % 3)).collect();
    for count in [0, 1, 3, 4, 63, 64, 65, 200] {
        let mut found = vec![u32::MAX; count];
        fib.lookup_batch(&addresses, &mut found);
        assert!(found.iter().zip(&addresses).all(|(found, address)| *found == fib.lookup(*address)));
    }
    let mut less = [u32::MAX; 5];
    fib.lookup_batch(&addresses[..4], &mut less);
    assert_eq!(less, [3, 4, 3, 3, u32::MAX]);
}

#[test]
fn merged_ranges_hold_both_values() {
    let a = ranges(vec![(0, 1, 1)], 0);
    let b = ranges(vec![(0, 2, 5), (u128::MAX, 128, 6)], 4);
    let merged = merge(&a, &b, |a, b| a * 10 + b);
    let at = |address| merged.iter().rev().find(|range| range.start <= address).unwrap().value;
    assert_eq!([at(0), at(1 << 126), at(1 << 127), at(u128::MAX)], [15, 14, 4, 6]);
}

#[test]
fn the_oracle_agrees_with_prefix_trie() {
    let mut trie = prefix_trie::PrefixMap::new();
    let mut prefixes = Vec::new();
    let mut random = 7u64;
    for value in 1..200u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let length = (random >> 58) as u8 % 33;
        let start = truncated(u128::from((random >> 20) as u32) << 96, length);
        trie.insert(((start >> 96) as u32, length), value);
        prefixes.push((start, length, value));
    }
    let prefixes = unique(prefixes);
    for address in probes(&prefixes, 1 << 96) {
        let found = trie.get_lpm(&((address >> 96) as u32, 32)).map_or(0, |(_, value)| *value);
        assert_eq!(found, oracle(&prefixes, address));
    }
}

/// Addresses that share long beginnings, so that prefixes nest and touch.
fn close_addresses() -> impl Strategy<Value = u128> {
    prop_oneof![
        any::<u128>(),
        (0u128..4, 0u128..4, 0u128..4).prop_map(|(a, b, c)| a << 120 | b << 100 | c << 96),
        (0u128..3, 0u128..256).prop_map(|(a, b)| 0xfd00 << 112 | a << 64 | b),
    ]
}

fn prefixes(most: u8) -> impl Strategy<Value = Vec<(u128, u8, u32)>> {
    let prefix = (close_addresses(), 0..=most, 0u32..6).prop_map(|(a, l, v)| (truncated(a, l), l, v));
    proptest::collection::vec(prefix, 0..40)
}

proptest! {
    #[test]
    fn ipv4_agrees_with_the_oracle(prefixes in prefixes(32), more in proptest::collection::vec(any::<u32>(), 20)) {
        check_v4(prefixes, &more);
    }

    #[test]
    fn ipv6_agrees_with_the_oracle(prefixes in prefixes(128), more in proptest::collection::vec(close_addresses(), 20)) {
        check_v6(prefixes, &more);
    }
}
