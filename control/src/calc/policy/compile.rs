//! Which policies apply to which pods of a node, tier by tier.
//!
//! A [`Compiler`] keeps what it has made, and makes anew what a change concerns: from nothing everything is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vswitch_model::{IdentityId, Policy, PolicyEnd, PolicyId, RuleId, TierDefault};

use super::cases::has_names;
use super::in_order::Placed;
use super::in_place::{InPlace, Made};
use super::members::Members;
use super::rules::{RuleKey, RuleMaker, plan};
use super::sets::{SetKey, Sets};
use super::subjects::Subjects;
use super::view::{FlowEnd, RuleAction, Source};
use crate::calc::identity::{IdentityKey, PodKey};
use crate::calc::output::Output;
use crate::calc::{NamespacedName, Numbering};
use crate::object::PolicyType;

/// Names a policy of one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::calc) struct PolicyKey {
    pub(super) source: Source,
    pub(super) direction: PolicyType,
}

/// What became of policies.
#[derive(Debug)]
pub(in crate::calc) struct Compiler {
    pub(in crate::calc) members: Members,
    /// All there are, in order.
    policies: Vec<InPlace>,
    sets: Sets,
    /// Sets that some policy uses no more; looked at once all policies are made.
    unused: BTreeSet<Arc<SetKey>>,
    /// The identities of this node's pods.
    local: BTreeSet<IdentityId>,
}

/// Identities that came and went.
#[derive(Debug, Default)]
pub(in crate::calc) struct Moves {
    pub(in crate::calc) added: BTreeSet<IdentityId>,
    pub(in crate::calc) removed: BTreeMap<IdentityId, IdentityKey>,
    /// The identities of this node's pods now.
    pub(in crate::calc) local: BTreeSet<IdentityId>,
}

impl Compiler {
    /// Nothing is made yet.
    pub(in crate::calc) fn new(policies: Vec<InPlace>, members: Members) -> Self {
        let (sets, unused, local) = (Sets::default(), BTreeSet::new(), BTreeSet::new());
        Self { members, policies, sets, unused, local }
    }

    /// Those in force.
    pub(in crate::calc) fn in_force(&self) -> impl Iterator<Item = &Placed> {
        self.policies.iter().filter_map(InPlace::in_force)
    }

    /// What of policies could not be made, for people.
    pub(in crate::calc) fn problems(&self) -> impl Iterator<Item = String> {
        self.policies.iter().flat_map(InPlace::problems)
    }

    /// Counts a pod of this node that became another, came or went. Whether other policies are in force then.
    pub(in crate::calc) fn recount(&mut self, before: Option<&PodKey>, now: Option<&PodKey>) -> bool {
        let referred = &self.members.referred;
        let mut turned = false;
        for policy in &mut self.policies {
            let may_select = |pod: Option<&PodKey>| pod.is_some_and(|pod| policy.may_select(pod, referred));
            let pods = policy.pods + usize::from(may_select(now)) - usize::from(may_select(before));
            turned |= (pods > 0) != (policy.pods > 0);
            policy.pods = pods;
        }
        turned
    }

    /// Puts other policies in the place of all; those that stay as they are keep what was made of them. `pods`: those of
    /// this node. Gives the identities whose policies may be others.
    pub(in crate::calc) fn replace(
        &mut self,
        all: Vec<Placed>,
        pods: &BTreeMap<NamespacedName, PodKey>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) -> BTreeSet<IdentityId> {
        let before = std::mem::take(&mut self.policies);
        let mut before: BTreeMap<Source, InPlace> =
            before.into_iter().map(|policy| (policy.source().clone(), policy)).collect();
        let mut concerned = BTreeSet::new();
        let mut policies = Vec::new();
        for placed in all {
            let policy = match before.remove(&placed.view.source) {
                Some(same) if same.placed == placed => same,
                other => {
                    let mut new = InPlace::new(placed, pods.values(), &self.members.referred);
                    if let Some(other) = other {
                        concerned.extend(other.selected.iter().chain(&other.unknown));
                        new.made = other.made;
                    }
                    new
                }
            };
            policies.push(policy);
        }
        for mut gone in before.into_values() {
            concerned.extend(gone.selected.iter().chain(&gone.unknown));
            for (made, direction) in gone.made.iter_mut().zip(PolicyType::ALL) {
                let key = PolicyKey { source: gone.placed.view.source.clone(), direction };
                if let Some(made) = made.take() {
                    self.unmake(&key, &made, numbering, output);
                }
            }
        }
        self.policies = policies;
        concerned
    }

    /// Goes over to other identities, and to whatever policies are new. `concerned`: identities whose policies may be
    /// others.
    pub(in crate::calc) fn follow(
        &mut self,
        moves: &Moves,
        mut concerned: BTreeSet<IdentityId>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) {
        let had_unknown = self.members.has_unknown();
        moves.removed.iter().for_each(|(id, key)| self.members.remove(*id, key));
        moves.added.iter().for_each(|id| self.members.add(*id));
        let removed: Vec<_> = moves.removed.keys().copied().collect();
        let turned = self.sets.follow(&self.members, (&moves.added, &removed), numbering, output);
        let unknown_turned = had_unknown != self.members.has_unknown();
        let moved = !moves.added.is_empty() || !moves.removed.is_empty();

        let came: BTreeSet<_> = moves.local.difference(&self.local).copied().collect();
        let went: BTreeSet<_> = self.local.difference(&moves.local).copied().collect();
        self.local.clone_from(&moves.local);
        for place in 0..self.policies.len() {
            let policy = &self.policies[place];
            let (is_new, selected_any) = (policy.is_new, !policy.selected.is_empty());
            let has_other_pods = self.select(place, &came, &went);
            let policy = &self.policies[place];
            if is_new {
                concerned.extend(policy.selected.iter().chain(&policy.unknown));
            }
            let is_turned = is_new || selected_any == policy.selected.is_empty();
            for (index, direction) in PolicyType::ALL.into_iter().enumerate() {
                let policy = &self.policies[place];
                let uses_turned =
                    policy.made[index].as_ref().is_some_and(|made| !made.used.is_disjoint(&turned));
                let (own, peer) = FlowEnd::own_and_peer(direction);
                if is_turned
                    || uses_turned
                    || (unknown_turned && policy.has(direction, |rule| rule.action == RuleAction::Pass))
                    || (has_other_pods && policy.has(direction, |rule| has_names(rule, own)))
                    || (moved && policy.has(direction, |rule| has_names(rule, peer)))
                {
                    let was_closed = policy.too_many[index].is_some();
                    self.make(place, (index, direction), numbering, output);
                    let policy = &self.policies[place];
                    if was_closed != policy.too_many[index].is_some() {
                        concerned.extend(&policy.selected);
                    }
                }
            }
        }
        self.sets.sweep(&std::mem::take(&mut self.unused), numbering, output);
        concerned.extend(came.iter().chain(&went));
        self.apply(&concerned, output);
    }

    /// Asks whom a policy selects of those it has not been asked of. Whether the answer is another than before.
    fn select(&mut self, place: usize, came: &BTreeSet<IdentityId>, went: &BTreeSet<IdentityId>) -> bool {
        let Self { members, policies, local, .. } = self;
        let policy = &mut policies[place];
        let mut is_other = false;
        for id in went {
            is_other |= policy.selected.remove(id);
            policy.unknown.remove(id);
        }
        let asked = if std::mem::take(&mut policy.is_new) { &*local } else { came };
        for id in asked {
            let key = members.identities.by_number.get(id);
            let candidate = key.and_then(|key| members.candidate(key));
            match candidate.map_or(Some(false), |pod| policy.placed.selects(&pod)) {
                Some(true) => is_other |= policy.selected.insert(*id),
                None => {
                    policy.unknown.insert(*id);
                }
                Some(false) => {}
            }
        }
        is_other
    }

    /// Makes a policy of one direction, anew or for the first time, or unmakes it when it selects nobody any more, or has
    /// come to too many rules.
    fn make(
        &mut self,
        place: usize,
        (index, direction): (usize, PolicyType),
        numbering: &mut Numbering,
        output: &mut Output,
    ) {
        let policy = &mut self.policies[place];
        let key = PolicyKey { source: policy.source().clone(), direction };
        let before = policy.made[index].take();
        policy.too_many[index] = None;
        let views = policy.placed.view.rules(direction).filter(|_| policy.placed.tier.is_some());
        let selected: Vec<_> = policy.selected.iter().copied().collect();
        let planned = views.filter(|_| !selected.is_empty()).and_then(|views| {
            let planned = views.iter().map(|view| plan(&self.members, &key, view, &selected));
            planned.collect::<Result<Vec<_>, _>>().map_err(|error| policy.too_many[index] = Some(error)).ok()
        });
        let Some(planned) = planned else {
            if let Some(before) = before {
                self.unmake(&key, &before, numbering, output);
            }
            return;
        };
        let mut maker = RuleMaker {
            members: &self.members,
            sets: &mut self.sets,
            numbering,
            output,
            used: BTreeSet::new(),
        };
        let rules = planned.iter().flatten().flat_map(|planned| maker.rules(planned)).collect();
        let used = std::mem::take(&mut maker.used);
        let id = PolicyId(numbering.policies.number(&key));
        let denies = policy.placed.tier.as_ref().is_some_and(|tier| tier.default() == TierDefault::Deny);
        let end = denies.then(|| end(&key, numbering));
        let made = Policy { id, name: key.source.to_string(), standing: policy.placed.standing, rules, end };
        self.sets.hold(&used);
        if let Some(before) = before {
            self.sets.let_go(&before.used, &mut self.unused);
        }
        self.policies[place].made[index] = Some(Made { id, used });
        put(made, &key, numbering, output);
    }

    fn unmake(&mut self, key: &PolicyKey, made: &Made, numbering: &mut Numbering, output: &mut Output) {
        self.sets.let_go(&made.used, &mut self.unused);
        numbering.policies.release(key);
        for (_, position) in output.remove_policy(made.id).iter().flat_map(Policy::places) {
            numbering.rules.release(&RuleKey { policy: key.clone(), position: position.to_owned() });
        }
    }

    /// Works out what applies to some identities.
    fn apply(&self, identities: &BTreeSet<IdentityId>, output: &mut Output) {
        let mut subjects = Subjects::default();
        for policy in &self.policies {
            for (index, (made, direction)) in policy.made.iter().zip(PolicyType::ALL).enumerate() {
                if policy.placed.view.rules(direction).is_some() {
                    let closed = policy.closed(index).filter(|id| identities.contains(id));
                    subjects.closed.extend(closed.map(|id| (id, direction)));
                }
                let (Some(made), Some(tier)) = (made, &policy.placed.tier) else { continue };
                for id in policy.selected.iter().filter(|id| identities.contains(id)) {
                    subjects.add(*id, direction, tier, made.id);
                }
            }
        }
        let mut subjects = subjects.into_model();
        for id in identities {
            let subject = subjects.remove(id);
            if output.state().subjects.get(id) != subject.as_ref() {
                output.set_subject(*id, subject);
            }
        }
    }
}

/// What denies what no rule of the policy's tier matched.
fn end(key: &PolicyKey, numbering: &mut Numbering) -> PolicyEnd {
    let position = format!("{}: no rule matched", key.direction.text());
    let rule = RuleKey { policy: key.clone(), position: position.clone() };
    PolicyEnd { id: RuleId(numbering.rules.number(&rule)), position }
}

/// Puts a policy in the place of what it was, and releases the numbers of the rules that it has no more.
fn put(policy: Policy, key: &PolicyKey, numbering: &mut Numbering, output: &mut Output) {
    if let Some(before) = output.state().policies.get(&policy.id) {
        if *before == policy {
            return;
        }
        let now: BTreeSet<_> = policy.places().map(|(_, position)| position).collect();
        for (_, position) in before.places().filter(|(_, position)| !now.contains(position)) {
            numbering.rules.release(&RuleKey { policy: key.clone(), position: position.to_owned() });
        }
    }
    output.set_policy(policy);
}
