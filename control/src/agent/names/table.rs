//! What is known of names: addresses, and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_model::DomainName;

use super::recent::Recent;
use crate::calc::LearnedNames;

/// Addresses of one name, at most: upstream asks for a hundred (network-policy-api, NPEP-133).
pub(crate) const OF_ONE_NAME_MAX: usize = 256;
/// Addresses of all names, at most; one that two names have counts twice.
pub(crate) const IN_ALL_MAX: usize = 16_384;
/// How long an address stays at least, in milliseconds, whatever its time to live: programs begin to use an answer later
/// than the moment it came.
pub(crate) const STAY_MIN_MS: u64 = 30_000;
/// How long it stays at most without being told again.
pub(crate) const STAY_MAX_MS: u64 = 24 * 3600 * 1000;
/// How often it is looked whether an address that is over is still in use.
const LOOK_MS: u64 = 10_000;

/// An address of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Until when, in milliseconds since 1970.
    expires_ms: u64,
    /// Who said it last.
    server: IpAddr,
    /// When flows were seen that need it although it is over; 0: it has not been looked for any.
    in_use_ms: u64,
}

/// An entry as it is kept in a file, and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    /// In milliseconds since 1970.
    pub(crate) expires_ms: u64,
    pub(crate) server: IpAddr,
}

/// What came of being told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It was not known.
    New,
    /// It was.
    Known,
    /// A limit is reached, or nothing can be sent to such an address.
    Refused,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    entries: BTreeMap<DomainName, BTreeMap<IpAddr, Entry>>,
    count: usize,
    /// Addresses that were not learned since a limit was reached, by what limit.
    pub(super) over_name_limit: Recent,
    pub(super) over_limit: Recent,
}

impl NameTable {
    /// Takes what was kept; what is of no form is left out, as is what is beyond a limit.
    pub(super) fn of(kept: &[Kept], now_ms: u64) -> Self {
        let mut table = Self::default();
        for Kept { name, address, expires_ms, server } in kept {
            if let Some(name) = DomainName::parse(name) {
                table.set(&name, *address, *expires_ms, *server, now_ms);
            }
        }
        table
    }

    pub(super) fn keep(&self) -> Vec<Kept> {
        let all =
            self.entries.iter().flat_map(|(name, of)| of.iter().map(move |(address, e)| (name, address, e)));
        all.map(|(name, address, entry)| Kept {
            name: name.to_string(),
            address: *address,
            expires_ms: entry.expires_ms,
            server: entry.server,
        })
        .collect()
    }

    /// A server says that a name has an address for so long.
    pub(super) fn learn(
        &mut self,
        name: &DomainName,
        address: IpAddr,
        ttl_s: u32,
        server: IpAddr,
        now_ms: u64,
    ) -> Told {
        let stay_ms = (u64::from(ttl_s) * 1000).clamp(STAY_MIN_MS, STAY_MAX_MS);
        self.set(name, address, now_ms + stay_ms, server, now_ms)
    }

    fn set(
        &mut self,
        name: &DomainName,
        address: IpAddr,
        expires_ms: u64,
        server: IpAddr,
        now_ms: u64,
    ) -> Told {
        if !is_of_somebody(address) {
            return Told::Refused;
        }
        let of_name = self.entries.get(name);
        if let Some(known) = of_name.and_then(|of| of.get(&address)) {
            // Another server may know less long; what the first said holds all the same.
            let entry = Entry { expires_ms: known.expires_ms.max(expires_ms), server, in_use_ms: 0 };
            self.entries.entry(name.clone()).or_default().insert(address, entry);
            return Told::Known;
        }
        if of_name.is_some_and(|of| of.len() >= OF_ONE_NAME_MAX) {
            self.over_name_limit.add(1, now_ms);
            return Told::Refused;
        }
        if self.count >= IN_ALL_MAX {
            self.over_limit.add(1, now_ms);
            return Told::Refused;
        }
        let entry = Entry { expires_ms, server, in_use_ms: 0 };
        self.entries.entry(name.clone()).or_default().insert(address, entry);
        self.count += 1;
        Told::New
    }

    /// The addresses whose time is over, and since when at the shortest, in milliseconds; not those that were seen in use
    /// a short while ago.
    pub(super) fn over(&self, now_ms: u64) -> BTreeMap<IpAddr, u64> {
        let mut over = BTreeMap::new();
        for (address, entry) in self.entries.values().flatten() {
            if entry.is_over(now_ms) && now_ms.saturating_sub(entry.in_use_ms) >= LOOK_MS {
                let since = now_ms - entry.expires_ms;
                let known: &mut u64 = over.entry(*address).or_insert(since);
                *known = since.min(*known);
            }
        }
        over
    }

    /// Forgets those of them that are not in use. Whether there was any.
    pub(super) fn settle(
        &mut self,
        over: &BTreeMap<IpAddr, u64>,
        in_use: &BTreeSet<IpAddr>,
        now_ms: u64,
    ) -> bool {
        self.retain(|_, address, entry| {
            if !entry.is_over(now_ms) || !over.contains_key(address) {
                return true;
            }
            entry.in_use_ms = now_ms;
            in_use.contains(address)
        })
    }

    /// Forgets the names nobody wants. Whether there was any.
    pub(super) fn forget_unless(&mut self, wanted: impl Fn(&DomainName) -> bool) -> bool {
        self.retain(|name, _, _| wanted(name))
    }

    fn retain(&mut self, mut keep: impl FnMut(&DomainName, &IpAddr, &mut Entry) -> bool) -> bool {
        let before = self.count;
        for (name, of) in &mut self.entries {
            of.retain(|address, entry| keep(name, address, entry));
        }
        self.entries.retain(|_, of| !of.is_empty());
        self.count = self.entries.values().map(BTreeMap::len).sum();
        self.count != before
    }

    /// As the calculation takes it.
    pub(super) fn learned(&self) -> LearnedNames {
        let addresses = |of: &BTreeMap<IpAddr, Entry>| of.keys().copied().collect();
        LearnedNames(self.entries.iter().map(|(name, of)| (name.clone(), addresses(of))).collect())
    }
}

impl Entry {
    const fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms <= now_ms
    }
}

/// Whether an address is of one host that others can reach.
fn is_of_somebody(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_link_local())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0xcb00_0000 + number).to_be_bytes())
    }

    fn addresses(table: &NameTable) -> Vec<String> {
        table.learned().0.values().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_stays_for_its_time_and_longer_when_told_again() {
        let mut table = NameTable::default();
        let www = name("www.example.org");
        assert_eq!(table.learn(&www, address(1), 60, SERVER, 1_000), Told::New);
        assert_eq!(table.learn(&www, address(2), 0, SERVER, 1_000), Told::New);
        assert_eq!(table.learn(&www, address(3), u32::MAX, SERVER, 1_000), Told::New);
        assert_eq!(table.over(1_000 + STAY_MIN_MS - 1), BTreeMap::new());
        let over = table.over(1_000 + STAY_MIN_MS);
        assert_eq!(over, BTreeMap::from([(address(2), 0)]), "its time was none, and it stays the least");
        assert!(table.settle(&over, &BTreeSet::new(), 1_000 + STAY_MIN_MS));
        assert_eq!(addresses(&table), ["203.0.0.1", "203.0.0.3"]);
        assert_eq!(table.learn(&www, address(1), 60, SERVER, 50_000), Told::Known);
        assert_eq!(table.learn(&www, address(1), 1, SERVER, 50_001), Told::Known, "which shortens nothing");
        assert!(table.over(109_999).is_empty());
        assert_eq!(table.over(110_000), BTreeMap::from([(address(1), 0)]));
        assert_eq!(table.over(1_000 + STAY_MAX_MS).len(), 2, "no time is for ever");
    }

    #[test]
    fn what_is_over_stays_while_flows_need_it() {
        let mut table = NameTable::default();
        table.learn(&name("a.example.org"), address(1), 60, SERVER, 0);
        table.learn(&name("b.example.org"), address(1), 70, SERVER, 0);
        table.learn(&name("c.example.org"), address(1), 600, SERVER, 0);
        let over = table.over(90_000);
        assert_eq!(over, BTreeMap::from([(address(1), 20_000)]));
        assert!(!table.settle(&over, &BTreeSet::from([address(1)]), 90_000));
        assert!(table.over(90_000 + LOOK_MS - 1).is_empty(), "it was looked a short while ago");
        let over = table.over(90_000 + LOOK_MS);
        assert_eq!(over, BTreeMap::from([(address(1), 30_000)]));
        assert!(table.settle(&over, &BTreeSet::new(), 90_000 + LOOK_MS));
        let left: Vec<_> = table.learned().0.into_keys().map(|name| name.to_string()).collect();
        assert_eq!(left, ["c.example.org"], "of which the time is not over");
    }

    #[test]
    fn limits_hurt_the_newcomer() {
        let mut table = NameTable::default();
        let of = |number: usize| name(&format!("n{}.example.org", number / OF_ONE_NAME_MAX));
        for number in 0..IN_ALL_MAX {
            assert_eq!(table.learn(&of(number), address(number as u32), 60, SERVER, 0), Told::New);
        }
        assert_eq!(table.learn(&of(0), address(99_999), 60, SERVER, 0), Told::Refused);
        assert_eq!(table.learn(&name("new.example.org"), address(1), 60, SERVER, 0), Told::Refused);
        for refused in [table.over_name_limit, table.over_limit] {
            assert_eq!(refused.told(0).unwrap(), "1 (0 s ago)");
        }
        assert_eq!(table.learn(&of(0), address(0), 60, SERVER, 9), Told::Known, "who is there stays");
        assert!(table.forget_unless(|name| *name != of(0)));
        assert_eq!(table.learn(&name("new.example.org"), address(1), 60, SERVER, 0), Told::New);
    }

    #[test]
    fn nobody_has_some_addresses() {
        let mut table = NameTable::default();
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "169.254.1.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            let told = table.learn(&name("a.example.org"), text.parse().unwrap(), 60, SERVER, 0);
            assert_eq!(told, Told::Refused, "{text}");
        }
        assert!(table.keep().is_empty());
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut table = NameTable::default();
        table.learn(&name("a.example.org"), address(1), 60, SERVER, 5);
        table.learn(&name("b.example.org"), address(2), 90, SERVER, 5);
        let mut kept = table.keep();
        assert_eq!(NameTable::of(&kept, 0).keep(), kept);
        kept.push(Kept { name: "no name".into(), ..kept[0].clone() });
        assert_eq!(NameTable::of(&kept, 0).keep(), table.keep());
    }
}
