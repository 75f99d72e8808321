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
    /// Begins a calculation from nothing.
    pub(super) fn begin_calculation(&mut self) {
        self.lists.forget_mentions();
        self.identities.forget_mentions();
        self.sets.forget_mentions();
        self.policies.forget_mentions();
        self.rules.forget_mentions();
        self.tunnels.forget_mentions();
    }

    /// Ends a calculation from nothing, which has mentioned all there is.
    pub(super) fn end_of_calculation(&mut self) {
        self.lists.forget_unmentioned();
        self.identities.forget_unmentioned();
        self.sets.forget_unmentioned();
        self.policies.forget_unmentioned();
        self.rules.forget_unmentioned();
        self.tunnels.forget_unmentioned();
    }

    /// Ends a calculation that went on from the one before, and released what is not there any more.
    pub(super) fn end_of_change(&mut self) {
        self.lists.end_of_change();
        self.identities.end_of_change();
        self.sets.end_of_change();
        self.policies.end_of_change();
        self.rules.end_of_change();
        self.tunnels.end_of_change();
    }
}

#[derive(Debug, Clone)]
pub(super) struct Allocator<K> {
    /// Number, and the last calculation from nothing that mentioned it or what followed from it.
    numbers: BTreeMap<K, (u32, u64)>,
    free: BTreeSet<u32>,
    /// Free from the next calculation on.
    resting: Vec<u32>,
    next: u32,
    calculation: u64,
}

impl<K: Ord + Clone> Allocator<K> {
    fn from(first: u32) -> Self {
        Self {
            numbers: BTreeMap::new(),
            free: BTreeSet::new(),
            resting: Vec::new(),
            next: first,
            calculation: 0,
        }
    }

    /// The number of `key`.
    pub(super) fn number(&mut self, key: &K) -> u32 {
        if let Some((number, mentioned)) = self.numbers.get_mut(key) {
            *mentioned = self.calculation;
            return *number;
        }
        let number = self.free.pop_first().unwrap_or_else(|| {
            let number = self.next;
            // Each number stands for an object in memory, which ends long before 32 bits do.
            self.next += 1;
            number
        });
        self.numbers.insert(key.clone(), (number, self.calculation));
        number
    }

    /// Takes the number of what is not there any more.
    pub(super) fn release(&mut self, key: &K) {
        self.resting.extend(self.numbers.remove(key).map(|(number, _)| number));
    }

    /// Begins a calculation from nothing: from now on nothing has been mentioned.
    pub(super) fn forget_mentions(&mut self) {
        self.calculation += 1;
    }

    /// Ends a calculation from nothing: what it has not mentioned is not there any more.
    pub(super) fn forget_unmentioned(&mut self) {
        self.numbers.retain(|_, (number, mentioned)| {
            let is_there = *mentioned == self.calculation;
            if !is_there {
                self.free.insert(*number);
            }
            is_there
        });
        self.end_of_change();
    }

    /// Ends a calculation that told what is not there any more.
    fn end_of_change(&mut self) {
        self.free.extend(self.resting.drain(..));
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
        allocator.forget_mentions();
        assert_eq!(["c", "d"].map(|key| allocator.number(&key)), [7, 8], "5 and 6 are not free yet");
        allocator.forget_unmentioned();
        allocator.forget_mentions();
        assert_eq!(["e", "b", "f", "d", "c"].map(|key| allocator.number(&key)), [5, 6, 9, 8, 7]);
    }

    #[test]
    fn what_is_released_rests_too() {
        let mut allocator = Allocator::from(5);
        assert_eq!(["a", "b"].map(|key| allocator.number(&key)), [5, 6]);
        allocator.forget_unmentioned();
        allocator.release(&"a");
        assert_eq!(allocator.number(&"c"), 7, "5 is not free yet");
        allocator.end_of_change();
        assert_eq!(["d", "b"].map(|key| allocator.number(&key)), [5, 6]);
        allocator.forget_mentions();
        assert_eq!(["a", "b"].map(|key| allocator.number(&key)), [8, 6]);
        allocator.forget_unmentioned();
        assert_eq!(
            ["e", "f", "a"].map(|key| allocator.number(&key)),
            [5, 7, 8],
            "c and d were not mentioned"
        );
    }
}
