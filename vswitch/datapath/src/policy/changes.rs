//! Whose policy is as it was, so that established flows need not be judged again.
//!
//! What decides about a pod in one direction is digested to a number: its tiers, the policies of them in force, the sets
//! these refer to. Where two tables have the same number for it, it gets the same verdicts from both, by the same rules.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use vswitch_model::{
    DesiredState, Identity, IdentityId, IdentityKind, Policy, SetId, Subject, Tier, TierDefault,
};

use super::{PolicyDirection, RefusedPolicy, View};
use crate::tables::Revision;

/// By direction and identity number.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    /// Digests; 0 for whom is unknown.
    digests: [Vec<u64>; 2],
    /// Since which tables it is so. Empty: since these, for all.
    since: [Vec<Revision>; 2],
}

const DIRECTIONS: [PolicyDirection; 2] = [PolicyDirection::Ingress, PolicyDirection::Egress];

impl Changes {
    pub(super) fn new(state: &DesiredState, refused: &[RefusedPolicy]) -> Self {
        let sets: BTreeMap<SetId, u64> =
            state.sets.iter().map(|(id, set)| (*id, digest(&set.members))).collect();
        let policies: BTreeMap<_, u64> = state
            .policies
            .values()
            .filter(|policy| View::InForce.holds(policy.standing))
            .map(|policy| (policy.id, of_policy(policy, &sets)))
            .collect();
        let local = |identity: &&Identity| identity.kind == IdentityKind::LocalNode;
        let local: Vec<IdentityId> = state.identities.values().filter(local).map(|node| node.id).collect();
        let count = state.identities.last_key_value().map_or(0, |(id, _)| id.0 as usize + 1);
        let digests = DIRECTIONS.map(|direction| {
            let too_large: BTreeSet<IdentityId> = refused
                .iter()
                .filter(|refused| refused.view == View::InForce && refused.error.direction == direction)
                .flat_map(|refused| refused.subjects.iter().copied())
                .collect();
            let mut digests = vec![0; count];
            for id in state.identities.keys() {
                let tiers = state.subjects.get(id).map(|subject| tiers(subject, direction));
                let known = |tier: &Tier| tier.policies.iter().filter_map(|id| policies.get(id)).collect();
                let in_force: Vec<(TierDefault, bool, Vec<&u64>)> = tiers
                    .into_iter()
                    .flatten()
                    .map(|tier| (tier.default, tier.policies.is_empty(), known(tier)))
                    .collect();
                digests[id.0 as usize] = digest(&(&local, too_large.contains(id), in_force));
            }
            digests
        });
        Self { digests, since: Default::default() }
    }

    /// Takes over since when what is as it was `before` is so.
    pub(super) fn follow(&mut self, before: &Self, before_since: Revision, now: Revision) {
        for (direction, since) in self.since.iter_mut().enumerate() {
            let old = |id: usize| before.since[direction].get(id).copied().unwrap_or(before_since);
            let same = |id: usize, digest: &u64| before.digests[direction].get(id) == Some(digest);
            let digests = self.digests[direction].iter().enumerate();
            *since = digests.map(|(id, digest)| if same(id, digest) { old(id) } else { now }).collect();
        }
    }

    /// Whether the policy of `subject` may be another than that of the tables `then`.
    pub(super) fn since(&self, direction: PolicyDirection, subject: IdentityId, then: Revision) -> bool {
        let since = self.since[direction as usize].get(subject.0 as usize);
        since.is_none_or(|since| *since > then)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let digests = self.digests.iter().map(|list| list.capacity() * 8);
        digests.chain(self.since.iter().map(|list| list.capacity() * 8)).sum()
    }
}

fn tiers(subject: &Subject, direction: PolicyDirection) -> &[Tier] {
    match direction {
        PolicyDirection::Ingress => &subject.ingress,
        PolicyDirection::Egress => &subject.egress,
    }
}

/// All of a policy, with what is in its sets; its name and its rules' places too, since counters go by them.
fn of_policy(policy: &Policy, sets: &BTreeMap<SetId, u64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    policy.name.hash(&mut hasher);
    for rule in &policy.rules {
        let within = [rule.peers, rule.not_peers, rule.subjects, rule.not_subjects];
        let within = within.map(|set| set.and_then(|set| sets.get(&set)));
        (rule.id, rule.action, within, &rule.ports, &rule.position).hash(&mut hasher);
    }
    hasher.finish()
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
