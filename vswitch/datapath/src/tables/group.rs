//! Ways over several next hops at once (ECMP): which of them a flow takes.
//!
//! A flow's hash names a bucket, and every bucket belongs to a member. To whom is said by the members alone, by weighted
//! rendezvous hashing (Mosko, "Weighted distributed hash tables"): with no history, a member that leaves gives away its own
//! buckets and no others, and one that comes takes its share and moves nothing besides.

use std::sync::Arc;

use super::AdjacencyIndex;

/// Buckets of a group: shares are exact to about 1.5 % of the traffic.
const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 10;

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A member of a group to its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    /// The same for the same next hop in all tables.
    pub(crate) id: u64,
    /// Its share, in proportion to that of others; 0 counts as 1.
    pub(crate) weight: u16,
}

/// By bucket the number of the member it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Buckets([u8; BUCKETS]);

impl Buckets {
    /// The buckets of up to [`Group::MEMBERS_MAX`] members; later ones have none.
    pub(crate) fn of(members: &[Member]) -> Self {
        let mut buckets = [0; BUCKETS];
        for (number, bucket) in buckets.iter_mut().enumerate() {
            let distances = members.iter().take(Group::MEMBERS_MAX).map(|member| distance(*member, number));
            let nearest = distances.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
            *bucket = nearest.map_or(0, |(member, _)| member as u8);
        }
        Self(buckets)
    }
}

/// Exponentially distributed with the member's weight for rate, so that the least of several is a member's in proportion
/// to its weight.
fn distance(member: Member, bucket: usize) -> f64 {
    let random = mix(member.id ^ mix(bucket as u64)) >> 11;
    // In (0, 1).
    let uniform = (random as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(member.weight.max(1))
}

/// The output function of SplitMix64.
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(GOLDEN);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Adjacencies to one place by several next hops, side by side in the list.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The adjacency of member 0.
    pub(crate) first: AdjacencyIndex,
    /// How many members there are, 2 to [`Self::MEMBERS_MAX`].
    pub(crate) count: u8,
    pub(crate) buckets: Arc<Buckets>,
}

impl Group {
    /// The most next hops there are to one place.
    pub(crate) const MEMBERS_MAX: usize = 32;

    /// The adjacency of a flow.
    #[inline]
    pub(crate) fn choose(&self, hash: u64) -> AdjacencyIndex {
        // The bits that say the outer source port say the bucket only together with all others: what routers on the way
        // spread by is not the same for all that leaves by one member.
        let bucket = (hash.wrapping_mul(GOLDEN) >> (u64::BITS - BUCKET_BITS)) as usize % BUCKETS;
        AdjacencyIndex(self.first.0 + u32::from(self.buckets.0[bucket]))
    }

    /// Its members, and the share of the flows each of them has, in percent.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (AdjacencyIndex, usize)> {
        (0..self.count).map(|member| {
            let own = self.buckets.0.iter().filter(|owner| **owner == member).count();
            (AdjacencyIndex(self.first.0 + u32::from(member)), (own * 100 + BUCKETS / 2) / BUCKETS)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let ids = proptest::collection::hash_set(any::<u64>(), 2..8);
        ids.prop_flat_map(|ids| {
            let weights = proptest::collection::vec(1..5_u16, ids.len());
            let members = |(ids, weights): (std::collections::HashSet<u64>, Vec<u16>)| {
                ids.into_iter().zip(weights).map(|(id, weight)| Member { id, weight }).collect()
            };
            (Just(ids), weights).prop_map(members)
        })
    }

    /// The id of the member that each bucket belongs to.
    fn owners(members: &[Member]) -> Vec<u64> {
        Buckets::of(members).0.iter().map(|member| members[usize::from(*member)].id).collect()
    }

    proptest! {
        #[test]
        fn every_member_has_its_share(members in members()) {
            let (owners, total) = (owners(&members), members.iter().map(|m| f64::from(m.weight)).sum::<f64>());
            for member in &members {
                let fair = f64::from(member.weight) / total;
                let share = owners.iter().filter(|owner| **owner == member.id).count() as f64 / BUCKETS as f64;
                // Six standard deviations at most.
                prop_assert!((share - fair).abs() < 0.095, "{share} of {fair}");
            }
        }

        #[test]
        fn only_the_flows_of_who_leaves_move(members in members(), leaver in any::<prop::sample::Index>()) {
            let gone = *leaver.get(&members);
            let rest: Vec<Member> = members.iter().copied().filter(|member| *member != gone).collect();
            for (before, after) in owners(&members).into_iter().zip(owners(&rest)) {
                prop_assert!(before == after || before == gone.id);
                prop_assert_ne!(after, gone.id);
            }
        }

        #[test]
        fn the_order_of_members_means_nothing(members in members()) {
            let reversed: Vec<Member> = members.iter().rev().copied().collect();
            prop_assert_eq!(owners(&members), owners(&reversed));
        }
    }

    #[test]
    fn flows_spread_by_weight_whatever_bits_of_their_hash_differ() {
        let members = [Member { id: 1, weight: 3 }, Member { id: 2, weight: 1 }];
        let group = Group { first: AdjacencyIndex(7), count: 2, buckets: Arc::new(Buckets::of(&members)) };
        for shift in [0, 14, 32, 50] {
            let hashes = (0..1_u64 << 14).map(|number| number << shift);
            let first = hashes.filter(|hash| group.choose(*hash) == AdjacencyIndex(7)).count();
            let share = first as f64 / f64::from(1 << 14);
            assert!((share - 0.75).abs() < 0.05, "bits from {shift}: {share}");
        }
        let shares: Vec<(AdjacencyIndex, usize)> = group.shares().collect();
        assert_eq!(shares.iter().map(|(index, _)| index.0).collect::<Vec<_>>(), [7, 8]);
        assert!(shares.first().unwrap().1.abs_diff(75) <= 5, "{shares:?}");
    }
}
