//! The inside of one block: which of its addresses are held, by whom, and which were given back when. No I/O, no
//! clock: the caller says what time it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Handle;
use crate::object::Block;

/// One address in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Assignment {
    /// Whose it is.
    pub(super) handle: Handle,
    /// For people: `namespace/pod`; empty for a node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) workload: String,
    /// The CNI network it was assigned for; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) network: String,
    /// When it was assigned, in milliseconds since 1970.
    pub(super) since_ms: u64,
}

/// One address that was given back and not assigned since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Freed {
    address: IpAddr,
    /// When, in milliseconds since 1970.
    at_ms: u64,
}

/// What IPAM keeps in a [`Block`]. An address of the block is in use, freed, or was never used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Content {
    /// Addresses in use.
    #[serde(default)]
    assigned: BTreeMap<IpAddr, Assignment>,
    /// Addresses given back, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    freed: VecDeque<Freed>,
}

impl Content {
    /// What `block` holds; the error says what of it cannot be.
    pub(super) fn of(block: &Block) -> Result<Self, String> {
        let content: Self =
            serde_json::from_value(block.spec.content.clone().into()).map_err(|e| e.to_string())?;
        let mut seen = BTreeSet::new();
        for address in content.assigned.keys().copied().chain(content.freed.iter().map(|freed| freed.address))
        {
            if !block.spec.cidr.contains(&address) {
                return Err(format!("{address} is outside of {}", block.spec.cidr));
            }
            if !seen.insert(address) {
                return Err(format!("{address} is there twice"));
            }
        }
        Ok(content)
    }

    /// Puts this into `block`.
    pub(super) fn store_in(&self, block: &mut Block) {
        let value =
            serde_json::to_value(self).expect("text keys and whole numbers only, which JSON can hold");
        if let serde_json::Value::Object(content) = value {
            block.spec.content = content;
        }
    }

    /// Addresses in use, ascending.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (IpAddr, &Assignment)> {
        self.assigned.iter().map(|(address, assignment)| (*address, assignment))
    }

    /// How many addresses are in use.
    pub(super) fn used(&self) -> u64 {
        self.assigned.len() as u64
    }

    /// How many addresses were given back less than `cool_down_ms` ago.
    pub(super) fn cooling(&self, now_ms: u64, cool_down_ms: u64) -> u64 {
        self.freed.iter().filter(|freed| !freed.is_cool(now_ms, cool_down_ms)).count() as u64
    }

    /// Who has this address.
    pub(super) fn holder(&self, address: IpAddr) -> Option<&Assignment> {
        self.assigned.get(&address)
    }

    /// Addresses of this handle, ascending.
    pub(super) fn held_by(&self, handle: &Handle) -> Vec<IpAddr> {
        self.assigned()
            .filter(|(_, assignment)| assignment.handle == *handle)
            .map(|(address, _)| address)
            .collect()
    }

    /// Assigns some address of `cidr`, the block's range: one that was never used if there is one, else the one that
    /// was given back longest ago if that is at least `cool_down_ms` ago.
    pub(super) fn take(&mut self, cidr: IpNet, assignment: Assignment, cool_down_ms: u64) -> Option<IpAddr> {
        let address = self.never_used(cidr).or_else(|| {
            let oldest = self.freed.front()?;
            oldest.is_cool(assignment.since_ms, cool_down_ms).then_some(oldest.address)
        })?;
        self.claim(address, assignment).then_some(address)
    }

    /// Assigns this very address, cooled down or not. False when somebody has it.
    pub(super) fn claim(&mut self, address: IpAddr, assignment: Assignment) -> bool {
        if self.assigned.contains_key(&address) {
            return false;
        }
        self.freed.retain(|freed| freed.address != address);
        self.assigned.insert(address, assignment);
        true
    }

    /// Gives back what the handles that `goes` picks hold; returns the addresses.
    pub(super) fn release(&mut self, now_ms: u64, goes: impl Fn(&Handle, IpAddr) -> bool) -> Vec<IpAddr> {
        let released: Vec<IpAddr> = self
            .assigned
            .iter()
            .filter(|(address, a)| goes(&a.handle, **address))
            .map(|(address, _)| *address)
            .collect();
        for address in &released {
            self.assigned.remove(address);
            self.freed.push_back(Freed { address: *address, at_ms: now_ms });
        }
        released
    }

    /// Whether the block can go back to its pool: nothing is in use, and nothing was until just now.
    pub(super) fn is_idle(&self, now_ms: u64, cool_down_ms: u64) -> bool {
        self.assigned.is_empty() && self.cooling(now_ms, cool_down_ms) == 0
    }

    fn never_used(&self, cidr: IpNet) -> Option<IpAddr> {
        let freed: BTreeSet<IpAddr> = self.freed.iter().map(|freed| freed.address).collect();
        let (first, size) = (number(cidr.network()), size(cidr));
        // At most one more step than there are addresses known, whatever the size of the block.
        (0..size)
            .map(|offset| address_like(cidr, first + offset))
            .find(|address| !self.assigned.contains_key(address) && !freed.contains(address))
    }
}

impl Freed {
    /// A time of giving back that lies far ahead comes from a clock that has been set back since: it is over, too.
    const fn is_cool(&self, now_ms: u64, cool_down_ms: u64) -> bool {
        now_ms.abs_diff(self.at_ms) >= cool_down_ms
    }
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of `cidr`'s family that has this number.
#[allow(clippy::cast_possible_truncation, reason = "numbers of IPv4 addresses have 32 bits")]
pub(super) fn address_like(cidr: IpNet, number: u128) -> IpAddr {
    match cidr {
        IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// How many addresses a range has; the whole of IPv6 counts one too few.
pub(super) fn size(cidr: IpNet) -> u128 {
    1_u128.checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len())).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::{BlockSpec, ObjectMeta};

    const COOL_DOWN_MS: u64 = 100;

    fn block(cidr: &str) -> Block {
        let cidr = cidr.parse().unwrap();
        let content = serde_json::Map::new();
        let spec = BlockSpec { cidr, node: Some("n1".into()), content };
        Block { metadata: ObjectMeta::named(Block::name_of(cidr)), spec }
    }

    fn assignment(handle: &str, since_ms: u64) -> Assignment {
        Assignment {
            handle: Handle::attachment(handle, "eth0"),
            workload: String::new(),
            network: String::new(),
            since_ms,
        }
    }

    #[test]
    fn it_is_kept_as_it_is() {
        let mut block = block("10.0.0.0/30");
        let mut content = Content::of(&block).unwrap();
        content.take(block.spec.cidr, assignment("a", 1), 0).unwrap();
        content.take(block.spec.cidr, assignment("b", 1), 0).unwrap();
        content.release(2, |handle, _| *handle == Handle::attachment("a", "eth0"));
        content.store_in(&mut block);
        assert_eq!(Content::of(&block), Ok(content));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (json, problem) in [
            (r#"{"assigned": {"10.0.1.0": {"handle": "a", "sinceMs": 1}}}"#, "outside"),
            (
                r#"{"freed": [{"address": "10.0.0.1", "atMs": 1}, {"address": "10.0.0.1", "atMs": 2}]}"#,
                "twice",
            ),
            (r#"{"assigned": {"10.0.0.1": {"handle": "a"}}}"#, "sinceMs"),
            (r#"{"taken": 1}"#, "taken"),
        ] {
            let mut block = block("10.0.0.0/30");
            block.spec.content = serde_json::from_str(json).unwrap();
            let error = Content::of(&block).unwrap_err();
            assert!(error.contains(problem), "{json}: {error}");
        }
    }

    #[test]
    fn a_freed_address_waits_and_the_oldest_goes_first() {
        let cidr = "10.0.0.0/30".parse().unwrap();
        let mut content = Content::default();
        let taken: Vec<_> =
            (0..4).map(|i| content.take(cidr, assignment(&i.to_string(), 0), 100).unwrap()).collect();
        assert_eq!(content.take(cidr, assignment("more", 0), 100), None);
        for (now, gone) in [(10, "2"), (20, "0")] {
            content.release(now, |handle, _| handle.as_attachment().unwrap().0 == gone);
        }
        assert_eq!(content.take(cidr, assignment("x", 109), 100), None);
        assert_eq!(content.cooling(110, 100), 1);
        assert_eq!(content.take(cidr, assignment("x", 130), 100), Some(taken[2]));
        assert_eq!(content.take(cidr, assignment("y", 130), 100), Some(taken[0]));
    }

    #[test]
    fn one_asked_for_by_name_need_not_cool_down() {
        let mut content = Content::default();
        let address = "10.0.0.2".parse().unwrap();
        assert!(content.claim(address, assignment("a", 0)));
        assert!(!content.claim(address, assignment("b", 0)));
        content.release(1, |_, _| true);
        assert!(content.claim(address, assignment("b", 1)));
        assert!(content.freed.is_empty());
    }

    #[test]
    fn a_clock_set_back_blocks_nothing_for_long() {
        let cidr = "10.0.0.0/32".parse().unwrap();
        let mut content = Content::default();
        content.take(cidr, assignment("a", 1_000_000), 100).unwrap();
        content.release(1_000_000, |_, _| true);
        assert!(content.take(cidr, assignment("b", 5), 100).is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        Claim(u8, u8),
        Release(u8),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..24_u8).prop_map(Step::Take),
            1 => (0..24_u8, 0..16_u8).prop_map(|(handle, offset)| Step::Claim(handle, offset)),
            3 => (0..24_u8).prop_map(Step::Release),
            2 => (1..150_u8).prop_map(Step::Wait),
        ]
    }

    /// The slow oracle: for each address who has it, or since when nobody does.
    #[derive(Debug, Clone, PartialEq)]
    enum Fate {
        Fresh,
        Held(u8),
        Freed(u64),
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_table_of_all_addresses(steps in prop::collection::vec(step(), 1..200), v6: bool) {
            let cidr: IpNet = if v6 { "fd00::10/124" } else { "10.0.0.16/28" }.parse().unwrap();
            let mut content = Content::default();
            let mut oracle = vec![Fate::Fresh; 16];
            let mut now = 1_000;
            let offset = |address| usize::try_from(number(address) - number(cidr.network())).unwrap();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += u64::from(ms),
                    Step::Take(handle) => {
                        let taken = content.take(cidr, assignment(&handle.to_string(), now), COOL_DOWN_MS);
                        let oldest = oracle.iter().filter_map(|fate| match fate {
                            Fate::Freed(at) => Some(*at),
                            _ => None,
                        }).min();
                        match taken.map(offset) {
                            Some(i) if oracle.contains(&Fate::Fresh) => {
                                prop_assert_eq!(Some(i), oracle.iter().position(|fate| *fate == Fate::Fresh));
                                oracle[i] = Fate::Held(handle);
                            }
                            Some(i) => {
                                prop_assert_eq!(&oracle[i], &Fate::Freed(oldest.unwrap()));
                                prop_assert!(oldest.unwrap() + COOL_DOWN_MS <= now);
                                oracle[i] = Fate::Held(handle);
                            }
                            None => {
                                prop_assert!(!oracle.contains(&Fate::Fresh));
                                prop_assert!(oldest.is_none_or(|at| at + COOL_DOWN_MS > now));
                            }
                        }
                    }
                    Step::Claim(handle, i) => {
                        let i = usize::from(i);
                        let free = !matches!(oracle[i], Fate::Held(_));
                        let address = address_like(cidr, number(cidr.network()) + i as u128);
                        prop_assert_eq!(content.claim(address, assignment(&handle.to_string(), now)), free);
                        if free {
                            oracle[i] = Fate::Held(handle);
                        }
                    }
                    Step::Release(handle) => {
                        let name = Handle::attachment(&handle.to_string(), "eth0");
                        let mut released: Vec<_> = content.release(now, |h, _| *h == name).into_iter().map(offset).collect();
                        released.sort_unstable();
                        let expected: Vec<_> = (0..16).filter(|i| oracle[*i] == Fate::Held(handle)).collect();
                        prop_assert_eq!(&released, &expected);
                        expected.into_iter().for_each(|i| oracle[i] = Fate::Freed(now));
                    }
                }
                let used = oracle.iter().filter(|fate| matches!(fate, Fate::Held(_))).count();
                prop_assert_eq!(content.used(), used as u64);
                let mut kept = block(&cidr.to_string());
                content.store_in(&mut kept);
                prop_assert_eq!(Content::of(&kept), Ok(content.clone()));
            }
        }
    }
}
