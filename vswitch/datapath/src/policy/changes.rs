//! Whose policy is as it was, so that established flows need not be judged again.
//!
//! What decides about a pod in one direction is digested to a number: its tiers, the policies of them in force, the sets
//! these refer to. Where two tables have the same number for it, it gets the same verdicts from both, by the same rules.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use vswitch_model::{
    DesiredState, Identity, IdentityId, IdentityKind, IdentitySet, Policy, PolicyId, SetId, Subject,
    TierDefault,
};

use super::direction::last_identity;
use super::follow::Step;
use super::subject::tiers_of;
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

/// The digests of a state, and of what they are made.
pub(super) struct Digests {
    sets: HashMap<SetId, u64>,
    /// Of those in force.
    policies: HashMap<PolicyId, u64>,
    /// The policies that refer to a set.
    users: HashMap<SetId, BTreeSet<PolicyId>>,
    local: Vec<IdentityId>,
    digests: [Vec<u64>; 2],
}

impl Digests {
    pub(super) fn new(state: &DesiredState, refused: &[RefusedPolicy]) -> Self {
        let local = |identity: &&Identity| identity.kind == IdentityKind::LocalNode;
        let mut digests = Self {
            sets: state.sets.iter().map(|(id, set)| (*id, of_set(set))).collect(),
            policies: HashMap::new(),
            users: HashMap::new(),
            local: state.identities.values().filter(local).map(|node| node.id).collect(),
            digests: [0; 2].map(|_| vec![0; last_identity(state) + 1]),
        };
        state.policies.values().for_each(|policy| digests.add_policy(policy));
        for direction in DIRECTIONS {
            let too_large: BTreeSet<IdentityId> = refused
                .iter()
                .filter(|refused| refused.view == View::InForce && refused.error.direction == direction)
                .flat_map(|refused| refused.subjects.iter().copied())
                .collect();
            let nothing = digests.of_subject(None, direction, false);
            for id in state.identities.keys() {
                digests.digests[direction as usize][id.0 as usize] = nothing;
            }
            for subject in state.subjects.values().filter(|it| state.identities.contains_key(&it.identity)) {
                let id = subject.identity;
                let digest = digests.of_subject(Some(subject), direction, too_large.contains(&id));
                digests.digests[direction as usize][id.0 as usize] = digest;
            }
        }
        digests
    }

    /// Follows a step that does not touch the local node, and in which no policy is too large before or after.
    pub(super) fn follow(&mut self, step: &Step<'_>) {
        let touched = step.touched;
        for id in &touched.sets {
            match step.after.sets.get(id) {
                Some(set) => self.sets.insert(*id, of_set(set)),
                None => self.sets.remove(id),
            };
        }
        let users = touched.sets.iter().filter_map(|set| self.users.get(set)).flatten();
        let changed: BTreeSet<PolicyId> = users.chain(&touched.policies).copied().collect();
        for id in &changed {
            if let Some(policy) = step.before.policies.get(id) {
                self.remove_policy(policy);
            }
        }
        changed
            .iter()
            .filter_map(|id| step.after.policies.get(id))
            .for_each(|policy| self.add_policy(policy));
        for direction in DIRECTIONS {
            let mut whose: BTreeSet<IdentityId> =
                touched.identities.union(&touched.subjects).copied().collect();
            let is_changed = |subject: &&Subject| {
                let mut policies = tiers_of(subject, direction).iter().flat_map(|tier| &tier.policies);
                policies.any(|policy| changed.contains(policy))
            };
            whose.extend(step.after.subjects.values().filter(is_changed).map(|subject| subject.identity));
            self.digests[direction as usize].resize(last_identity(step.after) + 1, 0);
            for id in whose {
                let known = step.after.identities.contains_key(&id);
                let subject = step.after.subjects.get(&id);
                let digest = if known { self.of_subject(subject, direction, false) } else { 0 };
                if let Some(place) = self.digests[direction as usize].get_mut(id.0 as usize) {
                    *place = digest;
                }
            }
        }
    }

    pub(super) fn changes(&self) -> Changes {
        Changes { digests: self.digests.clone(), since: Default::default() }
    }

    fn add_policy(&mut self, policy: &Policy) {
        for set in sets_of(policy) {
            self.users.entry(set).or_default().insert(policy.id);
        }
        if View::InForce.holds(policy.standing) {
            let digest = self.of_policy(policy);
            self.policies.insert(policy.id, digest);
        }
    }

    fn remove_policy(&mut self, policy: &Policy) {
        self.policies.remove(&policy.id);
        for set in sets_of(policy) {
            if let Some(users) = self.users.get_mut(&set) {
                users.remove(&policy.id);
                if users.is_empty() {
                    self.users.remove(&set);
                }
            }
        }
    }

    /// All of a policy, with what is in its sets; its name and its rules' places too, since counters go by them.
    fn of_policy(&self, policy: &Policy) -> u64 {
        let mut hasher = DefaultHasher::new();
        policy.name.hash(&mut hasher);
        for rule in &policy.rules {
            let within = [rule.peers, rule.not_peers, rule.subjects, rule.not_subjects];
            let within = within.map(|set| set.and_then(|set| self.sets.get(&set)));
            (rule.id, rule.action, within, &rule.ports, &rule.position).hash(&mut hasher);
        }
        policy.end.as_ref().map(|end| (end.id, &end.position)).hash(&mut hasher);
        hasher.finish()
    }

    fn of_subject(&self, subject: Option<&Subject>, direction: PolicyDirection, too_large: bool) -> u64 {
        let tiers = subject.map(|subject| tiers_of(subject, direction));
        let in_force: Vec<(TierDefault, bool, Vec<&u64>)> = tiers
            .into_iter()
            .flatten()
            .map(|tier| {
                let known = tier.policies.iter().filter_map(|id| self.policies.get(id)).collect();
                (tier.default, tier.policies.is_empty(), known)
            })
            .collect();
        digest(&(&self.local, too_large, in_force))
    }
}

fn sets_of(policy: &Policy) -> impl Iterator<Item = SetId> {
    let sets = |rule: &vswitch_model::Rule| [rule.peers, rule.not_peers, rule.subjects, rule.not_subjects];
    policy.rules.iter().flat_map(sets).flatten()
}

fn of_set(set: &IdentitySet) -> u64 {
    digest(&set.members)
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
