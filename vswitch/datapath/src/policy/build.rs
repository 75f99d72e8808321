//! From the desired state to class tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vswitch_model::{
    Action, DesiredState, IdentityId, IdentityKind, PolicyId, PortMatch, Rule, SetId, Tier, TierDefault,
};

use super::ports::{self, Partition, TooMany};
use super::{Classes, DirectionTable, PolicyDirection, PolicyTables, Verdict};

/// Policy that the class tables cannot hold. Nothing of it is in force: the tables before stay.
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

/// Largest identity number: 8 bytes for each below it, in each direction.
const IDENTITY_NUMBER_MAX: usize = 1 << 22;
/// Most pairs of a subject class and a peer class: 4 bytes each.
const CELLS_MAX: usize = 1 << 25;
/// Most pairs of a distinct row and a port class: 4 bytes each.
const ROW_CELLS_MAX: usize = 1 << 25;
/// Most pairs of a rule of one subject class and a peer class it names, while compiling.
const MATCHES_MAX: usize = 1 << 25;

const UNKNOWN_CLASS: u32 = 0;
const NOT_ISOLATED_CLASS: u32 = 1;
const UNDECIDED: u32 = u32::MAX;

impl PolicyTables {
    /// The class tables of `state`, which has passed [`DesiredState::check`].
    pub fn build(state: &DesiredState) -> Result<Self, PolicyTooLarge> {
        Ok(Self {
            ingress: Builder::new(state, PolicyDirection::Ingress)?.build()?,
            egress: Builder::new(state, PolicyDirection::Egress)?.build()?,
        })
    }
}

/// What makes two subjects of one class: their tiers in this direction, and the sets of rules narrowed to some
/// subjects that they are in.
type SubjectKey<'a> = (&'a [Tier], Vec<SetId>);

struct Builder<'a> {
    state: &'a DesiredState,
    direction: PolicyDirection,
    partition: Partition,
    /// By rule in use: its group of port matches; None for those that match all.
    groups: HashMap<vswitch_model::RuleId, Option<usize>>,
    peers: PeerClasses,
    rows: Rows,
}

/// The rules of one subject class: number of the tier, the rule. In order.
struct SubjectRules<'a> {
    defaults: Vec<TierDefault>,
    rules: Vec<(usize, &'a Rule)>,
}

impl<'a> Builder<'a> {
    fn new(state: &'a DesiredState, direction: PolicyDirection) -> Result<Self, PolicyTooLarge> {
        let policies: BTreeSet<PolicyId> = state
            .subjects
            .values()
            .flat_map(|s| tiers_of(s, direction))
            .flat_map(|t| &t.policies)
            .copied()
            .collect();
        let rules: Vec<&Rule> =
            policies.iter().filter_map(|id| state.policies.get(id)).flat_map(|p| &p.rules).collect();
        let mut numbers: HashMap<Vec<PortMatch>, usize> = HashMap::new();
        let mut groups = HashMap::new();
        for rule in &rules {
            let mut matches = rule.ports.clone();
            matches.sort_unstable();
            matches.dedup();
            let next = numbers.len();
            let group = (!matches.is_empty()).then(|| *numbers.entry(matches).or_insert(next));
            groups.insert(rule.id, group);
        }
        let mut lists = vec![[].as_slice(); numbers.len()];
        for (matches, group) in &numbers {
            lists[*group] = matches;
        }
        let partition = ports::partition(&lists).map_err(|too_many| {
            let TooMany { what, takes, most } = too_many;
            PolicyTooLarge { direction, what, takes, most }
        })?;
        let peers = PeerClasses::new(state, direction, &rules);
        let rows = Rows::new(partition.count);
        Ok(Self { state, direction, partition, groups, peers, rows })
    }

    fn build(mut self) -> Result<DirectionTable, PolicyTooLarge> {
        let last = self.state.identities.last_key_value().map_or(0, |(id, _)| id.0 as usize);
        self.limit("identities (their numbers are to be dense)", last, IDENTITY_NUMBER_MAX)?;
        let mut identities = vec![Classes::default(); last + 1];
        let mut subjects: BTreeMap<IdentityId, u32> = BTreeMap::new();
        let mut classes: HashMap<SubjectKey<'a>, u32> = HashMap::new();
        let mut keys: Vec<SubjectKey<'a>> = Vec::new();
        for subject in self.state.subjects.values() {
            let tiers = tiers_of(subject, self.direction);
            if !tiers.is_empty() {
                let key = (tiers, self.narrowing_sets(tiers, subject.identity));
                let class = *classes.entry(key.clone()).or_insert_with(|| {
                    keys.push(key);
                    keys.len() as u32 + NOT_ISOLATED_CLASS
                });
                subjects.insert(subject.identity, class);
            }
        }
        let width = self.peers.count;
        self.limit("pairs of subject and peer classes", (keys.len() + 2).saturating_mul(width), CELLS_MAX)?;
        let mut cells = self.uniform_cells(Verdict::DENY, Verdict::DENY);
        cells.extend(self.uniform_cells(Verdict::NOT_ISOLATED, Verdict::LOCAL_NODE));
        for key in &keys {
            cells.extend(self.subject_cells(key)?);
            self.limit("pairs of row and port class", self.rows.rows.len(), ROW_CELLS_MAX)?;
        }
        for id in self.state.identities.keys().filter(|id| **id != IdentityId::UNKNOWN) {
            let class = subjects.get(id).copied().unwrap_or(NOT_ISOLATED_CLASS);
            let peer = self.peers.of.get(id).copied().unwrap_or(0);
            identities[id.0 as usize] = Classes { subject: class * width as u32, peer };
        }
        identities[0] = Classes { subject: UNKNOWN_CLASS * width as u32, peer: 0 };
        Ok(DirectionTable {
            identities,
            cells,
            ports: self.partition.classes,
            rows: self.rows.rows,
            verdicts: self.rows.verdicts,
        })
    }

    fn limit(&self, what: &'static str, takes: usize, most: usize) -> Result<(), PolicyTooLarge> {
        let direction = self.direction;
        if takes > most { Err(PolicyTooLarge { direction, what, takes, most }) } else { Ok(()) }
    }

    /// The cells of a subject class to which only the local node makes a difference.
    fn uniform_cells(&mut self, verdict: Verdict, for_local_node: Verdict) -> Vec<u32> {
        let row = self.rows.uniform(verdict);
        let mut cells = vec![row; self.peers.count];
        if let Some(local_node) = self.peers.local_node {
            cells[local_node as usize] = self.rows.uniform(for_local_node);
        }
        cells
    }

    /// The sets that a rule of `tiers` is narrowed to and that hold `identity`.
    fn narrowing_sets(&self, tiers: &[Tier], identity: IdentityId) -> Vec<SetId> {
        let sets: BTreeSet<SetId> = tiers
            .iter()
            .flat_map(|tier| rules_of(self.state, tier))
            .filter_map(|rule| rule.subjects)
            .collect();
        sets.into_iter().filter(|set| members(self.state, *set).binary_search(&identity).is_ok()).collect()
    }

    fn subject_cells(&mut self, (tiers, within): &SubjectKey<'a>) -> Result<Vec<u32>, PolicyTooLarge> {
        let subject = SubjectRules::new(self.state, tiers, within);
        let mut for_all: Vec<u32> = Vec::new();
        let mut by_peer: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut matches = 0;
        for (order, (_, rule)) in (0..).zip(&subject.rules) {
            match rule.peers {
                None => for_all.push(order),
                Some(set) => {
                    let classes = self.peers.of_set.get(&set).map_or([].as_slice(), Vec::as_slice);
                    matches += classes.len();
                    self.limit("pairs of rule and peer class for one subject", matches, MATCHES_MAX)?;
                    for class in classes {
                        by_peer.entry(*class).or_default().push(order);
                    }
                }
            }
        }
        let others = self.row(&subject, &for_all);
        let mut cells = vec![others; self.peers.count];
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        for (class, mut orders) in by_peer {
            let row = match known.get(&orders) {
                Some(row) => *row,
                None => {
                    let key = orders.clone();
                    orders.extend(&for_all);
                    orders.sort_unstable();
                    let row = self.row(&subject, &orders);
                    known.insert(key, row);
                    row
                }
            };
            cells[class as usize] = row;
            self.limit("pairs of row and port class", self.rows.rows.len(), ROW_CELLS_MAX)?;
        }
        if let Some(local_node) = self.peers.local_node {
            cells[local_node as usize] = self.rows.uniform(Verdict::LOCAL_NODE);
        }
        Ok(cells)
    }

    /// The row of verdicts of the rules of these numbers, which ascend.
    fn row(&mut self, subject: &SubjectRules<'_>, orders: &[u32]) -> u32 {
        let mut row = vec![UNDECIDED; self.partition.count];
        let mut left = row.len();
        let mut rules = orders.iter().map(|order| subject.rules[*order as usize]).peekable();
        for (tier, default) in subject.defaults.iter().enumerate() {
            let mut passed = vec![false; row.len()];
            while let Some((_, rule)) = rules.next_if(|(of, _)| *of == tier) {
                if left == 0 {
                    break;
                }
                let verdict = match rule.action {
                    Action::Allow => Some(self.rows.verdict(Verdict { allow: true, rule: rule.id })),
                    Action::Deny => Some(self.rows.verdict(Verdict { allow: false, rule: rule.id })),
                    Action::Pass => None,
                };
                let mut decide = |class: usize| {
                    if row[class] == UNDECIDED && !passed[class] {
                        match verdict {
                            Some(verdict) => {
                                row[class] = verdict;
                                left -= 1;
                            }
                            None => passed[class] = true,
                        }
                    }
                };
                match self.groups.get(&rule.id).copied().flatten() {
                    None => (0..self.partition.count).for_each(&mut decide),
                    Some(group) => {
                        self.partition.groups[group].iter().for_each(|class| decide(usize::from(*class)));
                    }
                }
            }
            // After an early end of the loop above the rest of the tier's rules cannot decide anything.
            while rules.next_if(|(of, _)| *of == tier).is_some() {}
            if *default == TierDefault::Deny {
                let deny = self.rows.verdict(Verdict::DENY);
                for (verdict, passed) in row.iter_mut().zip(&passed) {
                    if *verdict == UNDECIDED && !passed {
                        *verdict = deny;
                        left -= 1;
                    }
                }
            }
        }
        let allow = self.rows.verdict(Verdict::NOT_ISOLATED);
        row.iter_mut().filter(|verdict| **verdict == UNDECIDED).for_each(|verdict| *verdict = allow);
        self.rows.add(row)
    }
}

impl<'a> SubjectRules<'a> {
    fn new(state: &'a DesiredState, tiers: &'a [Tier], within: &[SetId]) -> Self {
        let applies = |rule: &&Rule| rule.subjects.is_none_or(|set| within.contains(&set));
        let rules_of_tier =
            |(number, tier)| rules_of(state, tier).filter(applies).map(move |rule| (number, rule));
        Self {
            defaults: tiers.iter().map(|tier| tier.default).collect(),
            rules: tiers.iter().enumerate().flat_map(rules_of_tier).collect(),
        }
    }
}

/// Identities that are in the same sets of peers. Class 0: those that are in none, the unknown one among them.
struct PeerClasses {
    count: usize,
    of: BTreeMap<IdentityId, u32>,
    of_set: HashMap<SetId, Vec<u32>>,
    /// The class of the local node, where that is always allowed.
    local_node: Option<u32>,
}

impl PeerClasses {
    fn new(state: &DesiredState, direction: PolicyDirection, rules: &[&Rule]) -> Self {
        let sets: BTreeSet<SetId> = rules.iter().filter_map(|rule| rule.peers).collect();
        let mut sets_of: BTreeMap<IdentityId, Vec<SetId>> = BTreeMap::new();
        for set in &sets {
            for member in members(state, *set).iter().filter(|member| **member != IdentityId::UNKNOWN) {
                sets_of.entry(*member).or_default().push(*set);
            }
        }
        let exempt = |id: &IdentityId| {
            let kind = state.identities.get(id).map(|identity| identity.kind);
            direction == PolicyDirection::Ingress && kind == Some(IdentityKind::LocalNode)
        };
        let mut numbers: HashMap<Vec<SetId>, u32> = HashMap::from([(Vec::new(), 0)]);
        let mut of = BTreeMap::new();
        for (id, sets) in sets_of.into_iter().filter(|(id, _)| !exempt(id)) {
            let next = numbers.len() as u32;
            of.insert(id, *numbers.entry(sets).or_insert(next));
        }
        let mut of_set: HashMap<SetId, Vec<u32>> = HashMap::new();
        for (sets, class) in &numbers {
            sets.iter().for_each(|set| of_set.entry(*set).or_default().push(*class));
        }
        let mut count = numbers.len();
        let mut local_node = None;
        for id in state.identities.keys().filter(|id| **id != IdentityId::UNKNOWN && exempt(id)) {
            let class = *local_node.get_or_insert_with(|| {
                count += 1;
                count as u32 - 1
            });
            of.insert(*id, class);
        }
        Self { count, of, of_set, local_node }
    }
}

/// Rows of numbers of verdicts, equal ones once.
struct Rows {
    width: usize,
    rows: Vec<u32>,
    verdicts: Vec<Verdict>,
    known_rows: HashMap<Vec<u32>, u32>,
    known_verdicts: HashMap<Verdict, u32>,
}

impl Rows {
    fn new(width: usize) -> Self {
        let (known_rows, known_verdicts) = (HashMap::new(), HashMap::new());
        Self { width, rows: Vec::new(), verdicts: Vec::new(), known_rows, known_verdicts }
    }

    fn verdict(&mut self, verdict: Verdict) -> u32 {
        *self.known_verdicts.entry(verdict).or_insert_with(|| {
            self.verdicts.push(verdict);
            self.verdicts.len() as u32 - 1
        })
    }

    fn uniform(&mut self, verdict: Verdict) -> u32 {
        let verdict = self.verdict(verdict);
        self.add(vec![verdict; self.width])
    }

    fn add(&mut self, row: Vec<u32>) -> u32 {
        let start = self.rows.len() as u32;
        if let Some(known) = self.known_rows.get(&row) {
            return *known;
        }
        self.rows.extend_from_slice(&row);
        self.known_rows.insert(row, start);
        start
    }
}

fn tiers_of(subject: &vswitch_model::Subject, direction: PolicyDirection) -> &[Tier] {
    match direction {
        PolicyDirection::Ingress => &subject.ingress,
        PolicyDirection::Egress => &subject.egress,
    }
}

fn rules_of<'a>(state: &'a DesiredState, tier: &'a Tier) -> impl Iterator<Item = &'a Rule> + use<'a> {
    tier.policies.iter().filter_map(|id| state.policies.get(id)).flat_map(|policy| &policy.rules)
}

fn members(state: &DesiredState, set: SetId) -> &[IdentityId] {
    state.sets.get(&set).map_or(&[], |set| &set.members)
}
