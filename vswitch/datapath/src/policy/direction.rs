//! The class tables of one direction, with what it takes to change them as the state changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use vswitch_model::{DesiredState, IdentityId, PolicyId, Rule, RuleId, SetId};

use super::cells::{Cells, blocks};
use super::limits::{Limits, PolicyTooLarge, RefusedPolicy};
use super::peers::PeerClasses;
use super::ports::Area;
use super::rows::RowsBuilder;
use super::subject::{SubjectKey, SubjectRules, policies_of, tiers_of};
use super::{Classes, DirectionTable, PolicyDirection, Verdict, View};

/// The class of the unknown identity, of those that no policy isolates, and of those whose policy is too large. Others
/// follow.
pub(super) const UNKNOWN_CLASS: u32 = 0;
pub(super) const NOT_ISOLATED_CLASS: u32 = 1;
pub(super) const TOO_LARGE_CLASS: u32 = 2;

pub(super) struct Direction {
    pub(super) view: View,
    pub(super) direction: PolicyDirection,
    pub(super) limits: Limits,
    pub(super) peers: PeerClasses,
    pub(super) rows: RowsBuilder,
    /// By number of a subject class; empty where there is none of that number.
    pub(super) cells: Vec<Option<Cells>>,
    /// By number: what applies to the pods of a class.
    pub(super) applied: BTreeMap<u32, Applied>,
    pub(super) numbers: HashMap<Arc<SubjectKey>, u32>,
    /// The classes of those that policy isolates.
    pub(super) of: BTreeMap<IdentityId, u32>,
    /// By rule, while tables are made: which ports it names.
    pub(super) areas: HashMap<RuleId, Vec<Area>>,
    pub(super) steps: usize,
    pub(super) table: DirectionTable,
}

/// What applies to the pods of a subject class.
pub(super) struct Applied {
    pub(super) key: Arc<SubjectKey>,
    /// The sets of peers that make a difference to a rule. Ascending.
    pub(super) named: Vec<SetId>,
    /// Who is of this class.
    pub(super) subjects: usize,
}

impl Direction {
    /// The tables of `state`, and whose policy does not fit into them.
    pub(super) fn build(
        state: &DesiredState,
        view: View,
        direction: PolicyDirection,
        limits: Limits,
    ) -> Result<(Self, Vec<RefusedPolicy>), PolicyTooLarge> {
        let sets = sets_in_use(state, view, direction);
        let mut this = Self {
            view,
            direction,
            limits,
            peers: PeerClasses::new(state, direction, sets),
            rows: RowsBuilder::new(),
            cells: Vec::new(),
            applied: BTreeMap::new(),
            numbers: HashMap::new(),
            of: BTreeMap::new(),
            areas: HashMap::new(),
            steps: 0,
            table: DirectionTable::deny_all(),
        };
        this.limit_identities(state)?;
        this.add_uniform_class(Verdict::DENY, Verdict::DENY);
        this.add_uniform_class(Verdict::NOT_ISOLATED, Verdict::LOCAL_NODE);
        this.add_uniform_class(Verdict::TOO_LARGE, Verdict::LOCAL_NODE);
        let refused = this.add_classes(state);
        this.rows.shrink();
        this.areas = HashMap::new();
        this.table = this.whole_table(state);
        Ok((this, refused))
    }

    fn add_classes(&mut self, state: &DesiredState) -> Vec<RefusedPolicy> {
        let mut subjects_of: HashMap<SubjectKey, Vec<IdentityId>> = HashMap::new();
        for identity in state.subjects.keys() {
            if let Some(key) = SubjectKey::of(state, self.view, self.direction, *identity) {
                subjects_of.entry(key).or_default().push(*identity);
            }
        }
        let mut classes: Vec<_> = subjects_of
            .into_iter()
            .map(|(key, identities)| {
                let rules = SubjectRules::new(state, self.view, &key);
                (self.matches(&rules), identities, key)
            })
            .collect();
        // The dearest last: what is too large must not take the room of what is not.
        classes.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut refused = Vec::new();
        for (matches, identities, key) in classes {
            let key = Arc::new(key);
            let class = match self.add_class(state, &key, matches) {
                Ok(class) => class,
                Err(error) => {
                    let policies = key.tiers.iter().flat_map(|tier| &tier.policies).copied().collect();
                    let (view, subjects) = (self.view, identities.clone());
                    refused.push(RefusedPolicy { view, error, subjects, policies });
                    TOO_LARGE_CLASS
                }
            };
            if let Some(applied) = self.applied.get_mut(&class) {
                applied.subjects = identities.len();
            }
            self.of.extend(identities.into_iter().map(|identity| (identity, class)));
        }
        refused
    }

    pub(super) fn limit(&self, what: &'static str, takes: usize, most: usize) -> Result<(), PolicyTooLarge> {
        let direction = self.direction;
        if takes > most { Err(PolicyTooLarge { direction, what, takes, most }) } else { Ok(()) }
    }

    pub(super) fn limit_identities(&self, state: &DesiredState) -> Result<(), PolicyTooLarge> {
        let what = "identities (their numbers are to be dense)";
        self.limit(what, last_identity(state), self.limits.identity_number)
    }

    /// That `classes` subject classes fit.
    pub(super) fn limit_cells(&self, classes: usize) -> Result<(), PolicyTooLarge> {
        let cells = classes.saturating_mul(self.peers.count());
        self.limit("pairs of subject and peer classes", cells, self.limits.cells)
    }

    pub(super) fn step(&mut self, steps: usize) -> Result<(), PolicyTooLarge> {
        self.steps = self.steps.saturating_add(steps);
        self.limit(
            "steps of compiling (a rule for a class of peers, a range of ports for a row)",
            self.steps,
            self.limits.steps,
        )
    }

    /// A subject class to which only the local node makes a difference.
    fn add_uniform_class(&mut self, verdict: Verdict, for_local_node: Verdict) {
        let mut cells = Cells::new(self.rows.verdict(verdict), self.peers.count());
        if let Some(local_node) = self.peers.local_node() {
            cells.set(local_node, self.rows.verdict(for_local_node));
        }
        self.cells.push(Some(cells));
    }

    /// Pairs of a rule and a peer class it names.
    pub(super) fn matches(&self, subject: &SubjectRules<'_>) -> usize {
        let told_apart = |(_, rule): &(usize, &Rule)| self.peers.told_apart(rule).count().max(1);
        subject.rules.iter().map(told_apart).sum()
    }

    /// Adds a subject class that nobody is of yet, or nothing.
    pub(super) fn add_class(
        &mut self,
        state: &DesiredState,
        key: &Arc<SubjectKey>,
        matches: usize,
    ) -> Result<u32, PolicyTooLarge> {
        let rules = SubjectRules::new(state, self.view, key);
        let mark = self.rows.mark();
        let cells = match self.cells_of(&rules, matches) {
            Ok(cells) => Some(cells),
            Err(error) => {
                self.rows.roll_back(mark);
                return Err(error);
            }
        };
        let free = self.cells.iter().position(Option::is_none);
        let number = free.unwrap_or(self.cells.len());
        match self.cells.get_mut(number) {
            Some(free) => *free = cells,
            None => self.cells.push(cells),
        }
        let number = number as u32;
        let applied = Applied { key: Arc::clone(key), named: rules.named_sets(), subjects: 0 };
        self.applied.insert(number, applied);
        self.numbers.insert(Arc::clone(key), number);
        Ok(number)
    }

    fn cells_of(&mut self, subject: &SubjectRules<'_>, matches: usize) -> Result<Cells, PolicyTooLarge> {
        self.limit_cells(self.cells.iter().flatten().count() + 1)?;
        self.limit("pairs of rule and peer class for one subject", matches, self.limits.matches)?;
        self.step(matches)?;
        let for_all = for_all(subject);
        let mut by_peer: Vec<(u32, u32)> = Vec::with_capacity(matches);
        for (order, (_, rule)) in (0..).zip(&subject.rules) {
            by_peer.extend(self.peers.told_apart(rule).map(|class| (class, order)));
        }
        by_peer.sort_unstable();
        let mut cells = Cells::new(self.row(subject, &for_all)?, self.peers.count());
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
            cells.set(of_class[0].0, row);
        }
        if let Some(local_node) = self.peers.local_node() {
            cells.set(local_node, self.rows.verdict(Verdict::LOCAL_NODE));
        }
        Ok(cells)
    }

    /// The classes of an identity, as the tables have them.
    pub(super) fn classes_of(&self, state: &DesiredState, identity: IdentityId) -> Classes {
        let width = self.width();
        if identity == IdentityId::UNKNOWN || !state.identities.contains_key(&identity) {
            return Classes { subject: UNKNOWN_CLASS * width, peer: 0 };
        }
        let class = self.of.get(&identity).copied().unwrap_or(NOT_ISOLATED_CLASS);
        Classes { subject: class * width, peer: self.peers.class_of(identity) }
    }

    /// Blocks of each subject class.
    pub(super) fn width(&self) -> u32 {
        blocks(self.peers.count()) as u32
    }

    fn whole_table(&self, state: &DesiredState) -> DirectionTable {
        let mut identities = vec![Classes::default(); last_identity(state) + 1];
        for id in state.identities.keys() {
            identities[id.0 as usize] = self.classes_of(state, *id);
        }
        self.table_of(identities.into())
    }

    /// The tables with these classes of identities.
    pub(super) fn table_of(&self, identities: Arc<[Classes]>) -> DirectionTable {
        let empty = self.cells[UNKNOWN_CLASS as usize].as_ref();
        let of_class =
            |cells: &Option<Cells>| cells.as_ref().or(empty).map_or_else(Vec::new, |c| c.blocks().to_vec());
        let blocks = self.cells.iter().flat_map(of_class).collect();
        let open = Some(NOT_ISOLATED_CLASS * self.width());
        DirectionTable { identities, blocks, rows: self.rows.rows(), open }
    }
}

/// The rules that name everybody. Ascending; where a peer class has one of these beside it, that one does not name it.
pub(super) fn for_all(subject: &SubjectRules<'_>) -> Vec<u32> {
    let named = (0..).zip(&subject.rules).filter(|(_, (_, rule))| rule.peers.is_none());
    named.map(|(order, _)| order).collect()
}

/// What is in one of two ascending lists and not in the other.
pub(super) fn symmetric_difference(one: &[u32], other: &[u32]) -> Vec<u32> {
    let not_in = |list: &[u32], item: &u32| list.binary_search(item).is_err();
    let only_one = one.iter().filter(|item| not_in(other, item));
    only_one.chain(other.iter().filter(|item| not_in(one, item))).copied().collect()
}

pub(super) fn last_identity(state: &DesiredState) -> usize {
    state.identities.last_key_value().map_or(0, |(id, _)| id.0 as usize)
}

/// The sets of peers that a rule of a policy that applies to somebody names.
fn sets_in_use(state: &DesiredState, view: View, direction: PolicyDirection) -> BTreeSet<SetId> {
    let tiers = state.subjects.values().flat_map(|subject| tiers_of(subject, direction));
    let policies: BTreeSet<PolicyId> = tiers.flat_map(|tier| &tier.policies).copied().collect();
    let rules = policies_of(state, view, &policies).flat_map(|policy| &policy.rules);
    rules.flat_map(|rule| [rule.peers, rule.not_peers]).flatten().collect()
}
