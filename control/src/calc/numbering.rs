//! Numbers for things, kept from one calculation to the next.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_model::{IdentityId, RuleId};

use super::address_list::AddressList;
use super::identity::IdentityKey;
use super::policy::{PolicyKey, RuleKey, SetKey};
use super::route::TunnelKey;

/// Which numbers stand for what. A thing that a calculation mentions keeps its number; the number of one that it does
/// not mention is free from the next calculation on, not before: so no number changes its meaning from one state to
/// the next. Lowest free numbers come first, which keeps them dense.
#[derive(Debug, Clone)]
pub struct Numbering {
    pub(super) lists: Allocator<AddressList>,
    pub(super) identities: Allocator<IdentityKey>,
    pub(super) sets: Allocator<SetKey>,
    pub(super) policies: Allocator<PolicyKey>,
    pub(super) rules: Allocator<RuleKey>,
    pub(super) tunnels: Allocator<TunnelKey>,
}

impl Default for Numbering {
    fn default() -> Self {
        Self {
            lists: Allocator::from(1),
            identities: Allocator::from(IdentityId::FIRST_ASSIGNED),
            sets: Allocator::from(1),
            policies: Allocator::from(1),
            rules: Allocator::from(RuleId::FIRST_ASSIGNED),
            tunnels: Allocator::from(1),
        }
    }
}

impl Numbering {
    pub(super) fn end_of_calculation(&mut self) {
        self.lists.forget_unmentioned();
        self.identities.forget_unmentioned();
        self.sets.forget_unmentioned();
        self.policies.forget_unmentioned();
        self.rules.forget_unmentioned();
        self.tunnels.forget_unmentioned();
    }
}

#[derive(Debug, Clone)]
pub(super) struct Allocator<K> {
    /// Number, and whether this calculation has mentioned it.
    numbers: BTreeMap<K, (u32, bool)>,
    free: BTreeSet<u32>,
    next: u32,
}

impl<K: Ord + Clone> Allocator<K> {
    fn from(first: u32) -> Self {
        Self { numbers: BTreeMap::new(), free: BTreeSet::new(), next: first }
    }

    /// The number of `key`.
    pub(super) fn number(&mut self, key: &K) -> u32 {
        if let Some((number, mentioned)) = self.numbers.get_mut(key) {
            *mentioned = true;
            return *number;
        }
        let number = self.free.pop_first().unwrap_or_else(|| {
            let number = self.next;
            // Each number stands for an object in memory, which ends long before 32 bits do.
            self.next += 1;
            number
        });
        self.numbers.insert(key.clone(), (number, true));
        number
    }

    fn forget_unmentioned(&mut self) {
        self.numbers.retain(|_, (number, mentioned)| {
            if !*mentioned {
                self.free.insert(*number);
            }
            std::mem::take(mentioned)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_last_as_long_as_they_are_mentioned_and_rest_a_turn() {
        let mut allocator = Allocator::from(5);
        assert_eq!(["a", "b", "c", "a"].map(|key| allocator.number(&key)), [5, 6, 7, 5]);
        allocator.forget_unmentioned();
        assert_eq!(["c", "d"].map(|key| allocator.number(&key)), [7, 8], "5 and 6 are not free yet");
        allocator.forget_unmentioned();
        assert_eq!(["e", "b", "f", "d", "c"].map(|key| allocator.number(&key)), [5, 6, 9, 8, 7]);
    }
}
