//! Whose policy is as it was, so that established flows need not be judged again.
//!
//! What decides about a pod in one direction is digested to a number: its tiers, the policies of them in force, the sets
//! these refer to. Where two tables have the same number for it, it gets the same verdicts from both, by the same rules.
//! What is staged for it has a number of its own: another one changes no verdict, but its flows are to be told of anew.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use vswitch_model::{
    DesiredState, Identity, IdentityId, IdentityKind, IdentitySet, Policy, PolicyId, SetId, Standing,
    Subject, TierDefault,
};

use super::direction::last_identity;
use super::follow::Step;
use super::subject::tiers_of;
use super::{PolicyDirection, RefusedPolicy, View};
use crate::tables::Revision;

/// Since when policy is as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    in_force: Lasting,
    /// None: nothing is staged.
    staged: Option<Lasting>,
}

/// By direction and identity number.
type ByIdentity<T> = [Vec<T>; 2];

#[derive(Debug, Clone, Default)]
struct Lasting {
    /// Digests; 0 for whom is unknown, and for whom nothing staged is.
    digests: ByIdentity<u64>,
    /// Since which tables it is so. Empty: since these, for all.
    since: ByIdentity<Revision>,
}

const DIRECTIONS: [PolicyDirection; 2] = [PolicyDirection::Ingress, PolicyDirection::Egress];

impl Changes {
    /// Takes over since when what is as it was `before` is so.
    pub(super) fn follow(&mut self, before: &Self, before_since: Revision, now: Revision) {
        self.in_force.follow(&before.in_force, before_since, now);
        if let Some(staged) = &mut self.staged {
            let nothing = Lasting::default();
            staged.follow(before.staged.as_ref().unwrap_or(&nothing), before_since, now);
        }
    }

    /// Whether the policy of `subject` may be another than that of the tables `then`.
    pub(super) fn since(&self, direction: PolicyDirection, subject: IdentityId, then: Revision) -> bool {
        self.in_force.since(direction, subject, then)
    }

    /// Whether something is staged for `subject` that may be another than in the tables `then`.
    pub(super) fn staged_since(
        &self,
        direction: PolicyDirection,
        subject: IdentityId,
        then: Revision,
    ) -> bool {
        let is_for = |staged: &&Lasting| {
            staged.digests[direction as usize].get(subject.0 as usize).is_some_and(|digest| *digest != 0)
        };
        self.staged.as_ref().filter(is_for).is_some_and(|staged| staged.since(direction, subject, then))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.in_force.memory_bytes() + self.staged.as_ref().map_or(0, Lasting::memory_bytes)
    }
}

impl Lasting {
    fn follow(&mut self, before: &Self, before_since: Revision, now: Revision) {
        for (direction, since) in self.since.iter_mut().enumerate() {
            let old = |id: usize| before.since[direction].get(id).copied().unwrap_or(before_since);
            let same = |id: usize, digest: &u64| before.digests[direction].get(id) == Some(digest);
            let digests = self.digests[direction].iter().enumerate();
            *since = digests.map(|(id, digest)| if same(id, digest) { old(id) } else { now }).collect();
        }
    }

    fn since(&self, direction: PolicyDirection, subject: IdentityId, then: Revision) -> bool {
        let since = self.since[direction as usize].get(subject.0 as usize);
        since.is_none_or(|since| *since > then)
    }

    fn memory_bytes(&self) -> usize {
        let digests = self.digests.iter().map(|list| list.capacity() * 8);
        digests.chain(self.since.iter().map(|list| list.capacity() * 8)).sum()
    }
}

/// The digests of a state, and of what they are made.
pub(super) struct Digests {
    sets: HashMap<SetId, u64>,
    policies: HashMap<PolicyId, (Standing, u64)>,
    /// The policies that refer to a set.
    users: HashMap<SetId, BTreeSet<PolicyId>>,
    local: Vec<IdentityId>,
    in_force: ByIdentity<u64>,
    /// None: nothing is staged.
    staged: Option<ByIdentity<u64>>,
}

impl Digests {
    pub(super) fn new(state: &DesiredState, refused: &[RefusedPolicy]) -> Self {
        let local = |identity: &&Identity| identity.kind == IdentityKind::LocalNode;
        let nobody: ByIdentity<u64> = [0; 2].map(|_| vec![0; last_identity(state) + 1]);
        let is_staged = state.policies.values().any(|policy| policy.standing != Standing::Enforced);
        let mut digests = Self {
            sets: state.sets.iter().map(|(id, set)| (*id, of_set(set))).collect(),
            policies: HashMap::new(),
            users: HashMap::new(),
            local: state.identities.values().filter(local).map(|node| node.id).collect(),
            staged: is_staged.then(|| nobody.clone()),
            in_force: nobody,
        };
        state.policies.values().for_each(|policy| digests.add_policy(policy));
        for direction in DIRECTIONS {
            let too_large = |view: View| -> BTreeSet<IdentityId> {
                let here = |it: &&RefusedPolicy| it.view == view && it.error.direction == direction;
                refused.iter().filter(here).flat_map(|refused| refused.subjects.iter().copied()).collect()
            };
            let too_large = [too_large(View::InForce), too_large(View::Staged)];
            let nothing = digests.of_subject(View::InForce, None, direction, false);
            for id in state.identities.keys() {
                digests.in_force[direction as usize][id.0 as usize] = nothing;
            }
            for subject in state.subjects.values().filter(|it| state.identities.contains_key(&it.identity)) {
                let too_large = too_large.each_ref().map(|subjects| subjects.contains(&subject.identity));
                digests.set(direction, subject.identity, Some(subject), too_large);
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
                policies_for(Some(subject), direction).any(|policy| changed.contains(&policy))
            };
            whose.extend(step.after.subjects.values().filter(is_changed).map(|subject| subject.identity));
            for digests in [Some(&mut self.in_force), self.staged.as_mut()].into_iter().flatten() {
                digests[direction as usize].resize(last_identity(step.after) + 1, 0);
            }
            for id in whose {
                if step.after.identities.contains_key(&id) {
                    self.set(direction, id, step.after.subjects.get(&id), [false; 2]);
                } else {
                    self.put(direction, id, [0; 2]);
                }
            }
        }
    }

    pub(super) fn changes(&self) -> Changes {
        let lasting = |digests: &ByIdentity<u64>| Lasting { digests: digests.clone(), ..Lasting::default() };
        Changes { in_force: lasting(&self.in_force), staged: self.staged.as_ref().map(lasting) }
    }

    /// Notes what decides about an identity. `too_large`: whether that is too much, in force and as staged.
    fn set(
        &mut self,
        direction: PolicyDirection,
        id: IdentityId,
        subject: Option<&Subject>,
        too_large: [bool; 2],
    ) {
        let in_force = self.of_subject(View::InForce, subject, direction, too_large[0]);
        let staged = match self.is_staged_for(subject, direction) {
            true => self.of_subject(View::Staged, subject, direction, too_large[1]),
            false => 0,
        };
        self.put(direction, id, [in_force, staged]);
    }

    fn put(&mut self, direction: PolicyDirection, id: IdentityId, [in_force, staged]: [u64; 2]) {
        let place = |digests: &mut ByIdentity<u64>, digest: u64| {
            if let Some(place) = digests[direction as usize].get_mut(id.0 as usize) {
                *place = digest;
            }
        };
        place(&mut self.in_force, in_force);
        if let Some(digests) = &mut self.staged {
            place(digests, staged);
        }
    }

    fn is_staged_for(&self, subject: Option<&Subject>, direction: PolicyDirection) -> bool {
        let mut policies = policies_for(subject, direction).filter_map(|id| self.policies.get(&id));
        self.staged.is_some() && policies.any(|(standing, _)| *standing != Standing::Enforced)
    }

    fn add_policy(&mut self, policy: &Policy) {
        for set in sets_of(policy) {
            self.users.entry(set).or_default().insert(policy.id);
        }
        let digest = self.of_policy(policy);
        self.policies.insert(policy.id, (policy.standing, digest));
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
            (rule.id, rule.action, within, &rule.ports, &rule.source_ports, &rule.position).hash(&mut hasher);
        }
        policy.end.as_ref().map(|end| (end.id, &end.position)).hash(&mut hasher);
        hasher.finish()
    }

    fn of_subject(
        &self,
        view: View,
        subject: Option<&Subject>,
        direction: PolicyDirection,
        too_large: bool,
    ) -> u64 {
        let known = |id: &PolicyId| self.policies.get(id).filter(|(standing, _)| view.holds(*standing));
        let tiers = subject.map(|subject| tiers_of(subject, direction));
        let asked: Vec<(TierDefault, bool, Vec<u64>)> = tiers
            .into_iter()
            .flatten()
            .map(|tier| {
                let policies = tier.policies.iter().filter_map(known).map(|(_, digest)| *digest).collect();
                (tier.default, tier.policies.is_empty(), policies)
            })
            .collect();
        digest(&(&self.local, too_large, asked))
    }
}

/// The policies that apply to somebody.
fn policies_for(subject: Option<&Subject>, direction: PolicyDirection) -> impl Iterator<Item = PolicyId> {
    let tiers = subject.into_iter().flat_map(move |subject| tiers_of(subject, direction));
    tiers.flat_map(|tier| &tier.policies).copied()
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
