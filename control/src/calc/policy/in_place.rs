//! A policy, and what it comes to on a node.

use std::collections::BTreeSet;
use std::sync::Arc;

use vswitch_model::{IdentityId, PolicyId};

use super::in_order::Placed;
use super::rules::{RULES_OF_ONE_MAX, TooManyRules};
use super::select::Candidate;
use super::sets::SetKey;
use super::view::{RuleView, Source};
use crate::calc::identity::PodKey;
use crate::calc::referred::Referred;
use crate::object::PolicyType;

/// A policy, and what it comes to on this node.
#[derive(Debug)]
pub(in crate::calc) struct InPlace {
    pub(super) placed: Placed,
    /// How many pods of this node it selects or may select.
    pub(super) pods: usize,
    /// Identities of this node's pods that it selects.
    pub(super) selected: BTreeSet<IdentityId>,
    /// And those of which that is not known.
    pub(super) unknown: BTreeSet<IdentityId>,
    /// By direction, in the order of [`PolicyType::ALL`].
    pub(super) made: [Option<Made>; 2],
    /// Why nothing is made of a direction that it speaks of, by direction like what is made.
    pub(super) too_many: [Option<TooManyRules>; 2],
    /// Whether it has not been asked yet whom it selects.
    pub(super) is_new: bool,
}

/// What was made of a policy in one direction.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: PolicyId,
    pub(super) used: BTreeSet<Arc<SetKey>>,
}

impl InPlace {
    /// `pods`: those of this node.
    pub(in crate::calc) fn new<'p>(
        placed: Placed,
        pods: impl Iterator<Item = &'p PodKey>,
        referred: &Referred,
    ) -> Self {
        let mut policy = Self {
            placed,
            pods: 0,
            selected: BTreeSet::new(),
            unknown: BTreeSet::new(),
            made: [None, None],
            too_many: [None, None],
            is_new: true,
        };
        policy.pods = pods.filter(|pod| policy.may_select(pod, referred)).count();
        policy
    }

    pub(super) fn may_select(&self, pod: &PodKey, referred: &Referred) -> bool {
        Candidate::identity(pod, referred).is_some_and(|pod| self.placed.selects(&pod) != Some(false))
    }

    pub(super) fn source(&self) -> &Source {
        &self.placed.view.source
    }

    /// The policy, if it selects or may select a pod of this node.
    pub(in crate::calc) fn in_force(&self) -> Option<&Placed> {
        (self.pods > 0).then_some(&self.placed)
    }

    /// Who is closed in a direction that the policy speaks of, given by its place in [`PolicyType::ALL`]: those of whom it
    /// is not known whether they are selected, and when there is no knowing what the policy allows, or it comes to too
    /// many rules, those selected.
    pub(super) fn closed(&self, direction: usize) -> impl Iterator<Item = IdentityId> {
        let is_without_rules = self.placed.tier.is_none() || self.too_many[direction].is_some();
        let selected = self.selected.iter().filter(move |_| is_without_rules);
        self.unknown.iter().chain(selected).copied().filter(|_| self.placed.is_enforced())
    }

    pub(super) fn has(&self, direction: PolicyType, is_such: impl Fn(&RuleView) -> bool) -> bool {
        self.placed.view.rules(direction).into_iter().flatten().any(is_such)
    }

    /// What of it could not be made, for people.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.too_many.iter().zip(PolicyType::ALL).filter_map(|(too_many, direction)| {
            let TooManyRules { position, rules } = too_many.as_ref()?;
            let so = match self.placed.is_enforced() {
                true => format!("the pods it selects are denied all {}", direction.text()),
                false => format!("nothing is counted of its {}", direction.text()),
            };
            Some(format!(
                "{}, {position}: it comes to {rules} rules by the numbers that names of its ports have, and may come to \
                 {RULES_OF_ONE_MAX}: {so} until there are fewer",
                self.source()
            ))
        })
    }
}
