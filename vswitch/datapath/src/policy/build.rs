//! From the desired state to class tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vswitch_model::{
    Action, DesiredState, IdentityId, Policy, PolicyId, Rule, RuleId, SetId, Standing, Tier, TierDefault,
};

use super::changes::Changes;
use super::peers::{PeerClasses, members};
use super::ports::{Stretch, stretches};
use super::rows::{Piece, RowsBuilder};
use super::{Classes, DirectionTable, PolicyDirection, PolicyTables, StagedTables, Verdict, View};

/// Policy that the class tables cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{direction:?} policy would take at least {takes} {what}, but at most {most} are supported")]
pub struct PolicyTooLarge {
    /// Of which direction.
    pub direction: PolicyDirection,
    /// What there are too many of.
    pub what: &'static str,
    /// How many it would take.
    pub takes: usize,
    /// How many are supported.
    pub most: usize,
}

/// Pods whose policy is too large. They are denied everything in that direction ([`RuleId::TOO_LARGE`]) but the local
/// node; everybody else's policy is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPolicy {
    /// Of which view: what is staged is refused apart, which denies nothing.
    pub view: View,
    /// What it would have taken.
    pub error: PolicyTooLarge,
    /// The pods.
    pub subjects: Vec<IdentityId>,
    /// The policies that apply to them in that direction.
    pub policies: Vec<PolicyId>,
}

/// How much policy of one direction may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest identity number: 8 bytes for each below it.
    pub(super) identity_number: usize,
    /// Pairs of a subject class and a peer class: 4 bytes each.
    pub(super) cells: usize,
    /// Distinct rows: 24 bytes each.
    pub(super) rows: usize,
    /// Distinct nodes of rows: 64 bytes each.
    pub(super) nodes: usize,
    /// Pairs of a rule of one subject class and a peer class it names, while compiling: 8 bytes each.
    pub(super) matches: usize,
    /// What bounds the time to compile: a rule looked at for a peer class, or a stretch of ports for a row.
    pub(super) steps: usize,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        identity_number: 1 << 22,
        cells: 1 << 25,
        rows: 1 << 22,
        nodes: 1 << 21,
        matches: 1 << 25,
        steps: 1 << 26,
    };
}

/// The class of the unknown identity, of those that no policy isolates, and of those whose policy is too large. Others
/// follow.
const UNKNOWN_CLASS: u32 = 0;
const NOT_ISOLATED_CLASS: u32 = 1;
const TOO_LARGE_CLASS: u32 = 2;

impl PolicyTables {
    /// The class tables of `state`, which has passed [`DesiredState::check`]. Pods whose policy is too large are named
    /// by [`PolicyTables::refused`]; an error is what concerns all pods.
    pub fn build(state: &DesiredState) -> Result<Self, PolicyTooLarge> {
        Self::build_within(state, &Limits::DEFAULT)
    }

    pub(super) fn build_within(state: &DesiredState, limits: &Limits) -> Result<Self, PolicyTooLarge> {
        let mut refused = Vec::new();
        let mut build = |view, direction| {
            Builder::new(state, view, direction, limits).build().map(|(table, mut too_large)| {
                refused.append(&mut too_large);
                table
            })
        };
        let ingress = build(View::InForce, PolicyDirection::Ingress)?;
        let egress = build(View::InForce, PolicyDirection::Egress)?;
        let staged = if state.policies.values().any(|policy| policy.standing != Standing::Enforced) {
            let ingress = build(View::Staged, PolicyDirection::Ingress)?;
            let egress = build(View::Staged, PolicyDirection::Egress)?;
            Some(Box::new(StagedTables { ingress, egress }))
        } else {
            None
        };
        let changes = Changes::new(state, &refused);
        Ok(Self { ingress, egress, staged, changes, refused })
    }
}

/// What makes two subjects of one class: their tiers in this direction, and the sets of rules narrowed to some
/// subjects that they are in.
type SubjectKey<'a> = (&'a [Tier], Vec<SetId>);

struct Builder<'a> {
    state: &'a DesiredState,
    view: View,
    direction: PolicyDirection,
    limits: &'a Limits,
    /// By rule in use: what it names of the line of ports.
    stretches: HashMap<RuleId, Vec<Stretch>>,
    peers: PeerClasses,
    rows: RowsBuilder,
    cells: Vec<u32>,
    steps: usize,
}

/// The rules of one subject class: number of the tier, the rule. In order.
struct SubjectRules<'a> {
    defaults: Vec<TierDefault>,
    rules: Vec<(usize, &'a Rule)>,
}

impl<'a> Builder<'a> {
    fn new(state: &'a DesiredState, view: View, direction: PolicyDirection, limits: &'a Limits) -> Self {
        let policies: BTreeSet<PolicyId> = state
            .subjects
            .values()
            .flat_map(|s| tiers_of(s, direction))
            .flat_map(|t| &t.policies)
            .copied()
            .collect();
        let rules: Vec<&Rule> =
            policies_of(state, view, &policies).flat_map(|policy| &policy.rules).collect();
        let stretches = rules.iter().map(|rule| (rule.id, stretches(&rule.ports))).collect();
        let peers = PeerClasses::new(state, direction, &rules);
        let (rows, cells) = (RowsBuilder::new(), Vec::new());
        Self { state, view, direction, limits, stretches, peers, rows, cells, steps: 0 }
    }

    fn build(mut self) -> Result<(DirectionTable, Vec<RefusedPolicy>), PolicyTooLarge> {
        let last = self.state.identities.last_key_value().map_or(0, |(id, _)| id.0 as usize);
        self.limit("identities (their numbers are to be dense)", last, self.limits.identity_number)?;
        self.add_uniform_class(Verdict::DENY, Verdict::DENY);
        self.add_uniform_class(Verdict::NOT_ISOLATED, Verdict::LOCAL_NODE);
        self.add_uniform_class(Verdict::TOO_LARGE, Verdict::LOCAL_NODE);
        let mut classes: HashMap<SubjectKey<'a>, Vec<IdentityId>> = HashMap::new();
        for subject in self.state.subjects.values() {
            let tiers = tiers_of(subject, self.direction);
            if tiers.iter().any(|tier| is_there(self.state, self.view, tier)) {
                let key = (tiers, self.narrowing_sets(tiers, subject.identity));
                classes.entry(key).or_default().push(subject.identity);
            }
        }
        let mut classes: Vec<_> = classes
            .into_iter()
            .map(|((tiers, within), identities)| {
                let rules = SubjectRules::new(self.state, self.view, tiers, &within);
                (self.matches(&rules), identities, tiers, rules)
            })
            .collect();
        // The dearest last: what is too large must not take the room of what is not.
        classes.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let width = self.peers.count as u32;
        let mut subjects: BTreeMap<IdentityId, u32> = BTreeMap::new();
        let mut refused = Vec::new();
        for (matches, identities, tiers, rules) in classes {
            let class = self.cells.len() as u32 / width;
            let class = match self.add_class(&rules, matches) {
                Ok(()) => class,
                Err(error) => {
                    let policies = tiers.iter().flat_map(|tier| &tier.policies).copied().collect();
                    let (view, subjects) = (self.view, identities.clone());
                    refused.push(RefusedPolicy { view, error, subjects, policies });
                    TOO_LARGE_CLASS
                }
            };
            subjects.extend(identities.into_iter().map(|identity| (identity, class)));
        }
        let mut identities = vec![Classes::default(); last + 1];
        for id in self.state.identities.keys().filter(|id| **id != IdentityId::UNKNOWN) {
            let class = subjects.get(id).copied().unwrap_or(NOT_ISOLATED_CLASS);
            let peer = self.peers.of.get(id).copied().unwrap_or(0);
            identities[id.0 as usize] = Classes { subject: class * width, peer };
        }
        identities[0] = Classes { subject: UNKNOWN_CLASS * width, peer: 0 };
        self.cells.shrink_to_fit();
        let (cells, rows, open) = (self.cells, self.rows.finish(), Some(NOT_ISOLATED_CLASS * width));
        Ok((DirectionTable { identities, cells, rows, open }, refused))
    }

    fn limit(&self, what: &'static str, takes: usize, most: usize) -> Result<(), PolicyTooLarge> {
        let direction = self.direction;
        if takes > most { Err(PolicyTooLarge { direction, what, takes, most }) } else { Ok(()) }
    }

    fn step(&mut self, steps: usize) -> Result<(), PolicyTooLarge> {
        self.steps = self.steps.saturating_add(steps);
        self.limit(
            "steps of compiling (a rule for a class of peers, a range of ports for a row)",
            self.steps,
            self.limits.steps,
        )
    }

    /// A subject class to which only the local node makes a difference.
    fn add_uniform_class(&mut self, verdict: Verdict, for_local_node: Verdict) {
        let first = self.cells.len();
        let row = self.rows.uniform(verdict);
        self.cells.resize(first + self.peers.count, row);
        if let Some(local_node) = self.peers.local_node {
            self.cells[first + local_node as usize] = self.rows.uniform(for_local_node);
        }
    }

    /// The sets that a rule of `tiers` is narrowed to and that hold `identity`.
    fn narrowing_sets(&self, tiers: &[Tier], identity: IdentityId) -> Vec<SetId> {
        let sets: BTreeSet<SetId> = tiers
            .iter()
            .flat_map(|tier| rules_of(self.state, self.view, tier))
            .flat_map(|rule| [rule.subjects, rule.not_subjects])
            .flatten()
            .collect();
        sets.into_iter().filter(|set| members(self.state, *set).binary_search(&identity).is_ok()).collect()
    }

    /// Pairs of a rule and a peer class it names.
    fn matches(&self, subject: &SubjectRules<'_>) -> usize {
        let told_apart = |(_, rule): &(usize, &Rule)| self.peers.told_apart(rule).count().max(1);
        subject.rules.iter().map(told_apart).sum()
    }

    /// Adds the cells of a subject class, or nothing.
    fn add_class(&mut self, subject: &SubjectRules<'a>, matches: usize) -> Result<(), PolicyTooLarge> {
        let (first, mark) = (self.cells.len(), self.rows.mark());
        let added = self.add_cells(subject, matches);
        if added.is_err() {
            self.cells.truncate(first);
            self.rows.roll_back(mark);
        }
        added
    }

    fn add_cells(&mut self, subject: &SubjectRules<'a>, matches: usize) -> Result<(), PolicyTooLarge> {
        let first = self.cells.len();
        self.limit("pairs of subject and peer classes", first + self.peers.count, self.limits.cells)?;
        self.limit("pairs of rule and peer class for one subject", matches, self.limits.matches)?;
        self.step(matches)?;
        // Ascending. Where a peer class has one of these beside it, that one does not name it.
        let mut for_all: Vec<u32> = Vec::new();
        let mut by_peer: Vec<(u32, u32)> = Vec::with_capacity(matches);
        for (order, (_, rule)) in (0..).zip(&subject.rules) {
            if rule.peers.is_none() {
                for_all.push(order);
            }
            by_peer.extend(self.peers.told_apart(rule).map(|class| (class, order)));
        }
        by_peer.sort_unstable();
        let others = self.row(subject, &for_all)?;
        self.cells.resize(first + self.peers.count, others);
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        for of_class in by_peer.chunk_by(|a, b| a.0 == b.0) {
            let orders: Vec<u32> = of_class.iter().map(|(_, order)| *order).collect();
            let row = match known.get(&orders) {
                Some(row) => *row,
                None => {
                    let row = self.row(subject, &symmetric_difference(&for_all, &orders))?;
                    known.insert(orders, row);
                    row
                }
            };
            self.cells[first + of_class[0].0 as usize] = row;
        }
        if let Some(local_node) = self.peers.local_node {
            self.cells[first + local_node as usize] = self.rows.uniform(Verdict::LOCAL_NODE);
        }
        Ok(())
    }

    /// The row of verdicts of the rules of these numbers.
    fn row(&mut self, subject: &SubjectRules<'_>, orders: &[u32]) -> Result<u32, PolicyTooLarge> {
        // Where a rule begins to match (true) and where it no more does.
        let mut edges: Vec<(u32, u32, bool)> = Vec::new();
        for order in orders {
            let (_, rule) = subject.rules[*order as usize];
            for stretch in self.stretches.get(&rule.id).into_iter().flatten() {
                edges.push((stretch.first, *order, true));
                edges.push((stretch.end, *order, false));
            }
        }
        self.step(edges.len() / 2)?;
        edges.sort_unstable();
        let mut open = OpenRules::default();
        let mut pieces: Vec<Piece> = vec![(0, self.rows.verdict(subject.verdict(&open)))];
        for at_place in edges.chunk_by(|a, b| a.0 == b.0).filter(|edges| edges[0].0 < super::ports::PLACES) {
            for (_, order, begins) in at_place {
                let (_, rule) = subject.rules[*order as usize];
                let open = if rule.action == Action::Log { &mut open.logging } else { &mut open.deciding };
                if *begins {
                    open.insert(*order)
                } else {
                    open.remove(order)
                };
            }
            let (place, verdict) = (at_place[0].0, self.rows.verdict(subject.verdict(&open)));
            pieces.pop_if(|last| last.0 == place);
            if pieces.last().is_none_or(|last| last.1 != verdict) {
                pieces.push((place, verdict));
            }
        }
        let row = self.rows.add(&pieces);
        let (rows, nodes) = self.rows.counts();
        self.limit("distinct rows of verdicts", rows, self.limits.rows)?;
        self.limit("nodes of rows of verdicts", nodes, self.limits.nodes)?;
        Ok(row)
    }
}

/// The rules that match somewhere, by number.
#[derive(Default)]
struct OpenRules {
    /// Those that end it, or lead to the next tier.
    deciding: BTreeSet<u32>,
    /// Those that only mark the flow.
    logging: BTreeSet<u32>,
}

impl<'a> SubjectRules<'a> {
    fn new(state: &'a DesiredState, view: View, tiers: &'a [Tier], within: &[SetId]) -> Self {
        let applies = |rule: &&Rule| {
            rule.subjects.is_none_or(|set| within.contains(&set))
                && rule.not_subjects.is_none_or(|set| !within.contains(&set))
        };
        let there = || tiers.iter().filter(|tier| is_there(state, view, tier));
        let rules_of_tier =
            |(number, tier)| rules_of(state, view, tier).filter(applies).map(move |rule| (number, rule));
        Self {
            defaults: there().map(|tier| tier.default).collect(),
            rules: there().enumerate().flat_map(rules_of_tier).collect(),
        }
    }

    /// What is decided where the rules of `open` match and no others.
    fn verdict(&self, open: &OpenRules) -> Verdict {
        let mut log = None;
        // The first rule and tier that are still to be asked.
        let (mut rule, mut tier) = (0, 0);
        loop {
            let next = open.deciding.range(rule..).next();
            let next = next.map(|order| (*order, self.rules[*order as usize]));
            let of = next.map_or(self.defaults.len(), |(_, (of, _))| of);
            let denying = (tier..of).find(|tier| self.defaults[*tier] == TierDefault::Deny);
            let asked = match (denying, next) {
                (Some(tier), _) => self.first_of(tier + 1),
                (None, Some((order, _))) => order,
                (None, None) => self.rules.len() as u32,
            };
            let marking = || open.logging.range(rule..asked).next();
            log = log.or_else(|| marking().map(|order| self.rules[*order as usize].1.id));
            if denying.is_some() {
                return Verdict { log, ..Verdict::DENY };
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

fn tiers_of(subject: &vswitch_model::Subject, direction: PolicyDirection) -> &[Tier] {
    match direction {
        PolicyDirection::Ingress => &subject.ingress,
        PolicyDirection::Egress => &subject.egress,
    }
}

/// Whether a view has this tier: not if all its policies are of the other.
fn is_there(state: &DesiredState, view: View, tier: &Tier) -> bool {
    tier.policies.is_empty() || policies_of(state, view, &tier.policies).next().is_some()
}

fn policies_of<'a>(
    state: &'a DesiredState,
    view: View,
    policies: impl IntoIterator<Item = &'a PolicyId>,
) -> impl Iterator<Item = &'a Policy> {
    let policies = policies.into_iter().filter_map(|id| state.policies.get(id));
    policies.filter(move |policy| view.holds(policy.standing))
}

fn rules_of<'a>(state: &'a DesiredState, view: View, tier: &'a Tier) -> impl Iterator<Item = &'a Rule> {
    policies_of(state, view, &tier.policies).flat_map(|policy| &policy.rules)
}

/// What is in one of two ascending lists and not in the other.
fn symmetric_difference(one: &[u32], other: &[u32]) -> Vec<u32> {
    let not_in = |list: &[u32], item: &u32| list.binary_search(item).is_err();
    let only_one = one.iter().filter(|item| not_in(other, item));
    only_one.chain(other.iter().filter(|item| not_in(one, item))).copied().collect()
}
