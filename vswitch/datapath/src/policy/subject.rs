//! What applies to the pods of one subject class: its rules, in order, and what they decide together.

use std::collections::BTreeSet;

use vswitch_model::{
    Action, DesiredState, IdentityId, Policy, PolicyId, Rule, RuleId, SetId, Tier, TierDefault,
};

use super::peers::members;
use super::{PolicyDirection, Verdict, View};

/// What makes two subjects of one class: their tiers in this direction, and the sets of rules narrowed to some
/// subjects that they are in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SubjectKey {
    pub(super) tiers: Vec<Tier>,
    pub(super) within: Vec<SetId>,
}

impl SubjectKey {
    /// The key of `identity`; None: no policy of this view and direction isolates it.
    pub(super) fn of(
        state: &DesiredState,
        view: View,
        direction: PolicyDirection,
        identity: IdentityId,
    ) -> Option<Self> {
        let tiers = tiers_of(state.subjects.get(&identity)?, direction);
        if !tiers.iter().any(|tier| is_there(state, view, tier)) {
            return None;
        }
        Some(Self { tiers: tiers.to_vec(), within: narrowing_sets(state, view, tiers, identity) })
    }
}

/// The rules of one subject class: number of the tier, the rule. In order.
pub(super) struct SubjectRules<'a> {
    /// By number of the tier: what denies when no rule of it matched. None: the next one is asked.
    ends: Vec<Option<RuleId>>,
    pub(super) rules: Vec<(usize, &'a Rule)>,
}

/// The rules that match somewhere, by number.
#[derive(Default)]
pub(super) struct OpenRules {
    /// Those that end it, or lead to the next tier.
    deciding: BTreeSet<u32>,
    /// Those that only mark the flow.
    logging: BTreeSet<u32>,
}

impl OpenRules {
    /// From here on the rule of this number matches, or no more does.
    pub(super) fn turn(&mut self, order: u32, action: Action, begins: bool) {
        let open = if action == Action::Log { &mut self.logging } else { &mut self.deciding };
        if begins {
            open.insert(order)
        } else {
            open.remove(&order)
        };
    }
}

impl<'a> SubjectRules<'a> {
    pub(super) fn new(state: &'a DesiredState, view: View, key: &SubjectKey) -> Self {
        let SubjectKey { tiers, within } = key;
        let applies = |rule: &&Rule| {
            rule.subjects.is_none_or(|set| within.contains(&set))
                && rule.not_subjects.is_none_or(|set| !within.contains(&set))
        };
        let mut all = Self { ends: Vec::new(), rules: Vec::new() };
        for (number, tier) in tiers.iter().filter(|tier| is_there(state, view, tier)).enumerate() {
            let mut denies_by = RuleId::NO_RULE_MATCHED;
            for policy in policies_of(state, view, &tier.policies) {
                all.rules.extend(policy.rules.iter().filter(applies).map(|rule| (number, rule)));
                denies_by = policy.denies_by();
            }
            all.ends.push((tier.default == TierDefault::Deny).then_some(denies_by));
        }
        all
    }

    /// The sets of peers that make a difference to one of them. Ascending.
    pub(super) fn named_sets(&self) -> Vec<SetId> {
        let named = self.rules.iter().flat_map(|(_, rule)| [rule.peers, rule.not_peers]).flatten();
        let mut named: Vec<SetId> = named.collect();
        named.sort_unstable();
        named.dedup();
        named
    }

    /// What is decided where the rules of `open` match and no others.
    pub(super) fn verdict(&self, open: &OpenRules) -> Verdict {
        let mut log = None;
        // The first rule and tier that are still to be asked.
        let (mut rule, mut tier) = (0, 0);
        loop {
            let next = open.deciding.range(rule..).next();
            let next = next.map(|order| (*order, self.rules[*order as usize]));
            let of = next.map_or(self.ends.len(), |(_, (of, _))| of);
            let denying = (tier..of).find_map(|tier| Some((tier, self.ends[tier]?)));
            let asked = match (denying, next) {
                (Some((tier, _)), _) => self.first_of(tier + 1),
                (None, Some((order, _))) => order,
                (None, None) => self.rules.len() as u32,
            };
            let marking = || open.logging.range(rule..asked).next();
            log = log.or_else(|| marking().map(|order| self.rules[*order as usize].1.id));
            if let Some((_, rule)) = denying {
                return Verdict { allow: false, rule, log };
            }
            let Some((order, (_, first))) = next else { return Verdict { log, ..Verdict::NOT_ISOLATED } };
            match first.action {
                Action::Allow => return Verdict { allow: true, rule: first.id, log },
                Action::Deny => return Verdict { allow: false, rule: first.id, log },
                Action::Pass => (tier, rule) = (of + 1, self.first_of(of + 1)),
                Action::Log => (tier, rule) = (of, order + 1),
            }
        }
    }

    /// The first rule of the tiers from this one on.
    fn first_of(&self, tier: usize) -> u32 {
        self.rules.partition_point(|(number, _)| *number < tier) as u32
    }
}

/// The sets that a rule of `tiers` is narrowed to and that hold `identity`.
fn narrowing_sets(state: &DesiredState, view: View, tiers: &[Tier], identity: IdentityId) -> Vec<SetId> {
    let sets: BTreeSet<SetId> = tiers
        .iter()
        .flat_map(|tier| policies_of(state, view, &tier.policies))
        .flat_map(|policy| &policy.rules)
        .flat_map(|rule| [rule.subjects, rule.not_subjects])
        .flatten()
        .collect();
    sets.into_iter().filter(|set| members(state, *set).binary_search(&identity).is_ok()).collect()
}

pub(super) fn tiers_of(subject: &vswitch_model::Subject, direction: PolicyDirection) -> &[Tier] {
    match direction {
        PolicyDirection::Ingress => &subject.ingress,
        PolicyDirection::Egress => &subject.egress,
    }
}

/// Whether a view has this tier: not if all its policies are of the other.
fn is_there(state: &DesiredState, view: View, tier: &Tier) -> bool {
    tier.policies.is_empty() || policies_of(state, view, &tier.policies).next().is_some()
}

pub(super) fn policies_of<'a, 'p>(
    state: &'a DesiredState,
    view: View,
    policies: impl IntoIterator<Item = &'p PolicyId>,
) -> impl Iterator<Item = &'a Policy> {
    let policies = policies.into_iter().filter_map(|id| state.policies.get(id));
    policies.filter(move |policy| view.holds(policy.standing))
}
