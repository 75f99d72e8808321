//! Class tables that follow a change of the state: what nothing of it concerns is shared with the tables before.
//!
//! | touched | what is made anew |
//! |---|---|
//! | the members of a set | who joined or left is of another peer class; a class that is new gets its cell in each subject class |
//! | a policy | the subject classes it applies to |
//! | a subject, or who a rule is narrowed to | its subject class, when there is none like it |
//! | who exists | the list of identities |
//!
//! What is not needed any more is left: rows, sets that tell nobody apart. When that is more than was needed at first,
//! when a limit would be reached, and whenever it is simpler, there are no tables ([`Rebuild`]), and all is made anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use vswitch_model::{DesiredState, IdentityId, IdentityKind, Touched};

use super::Classes;
use super::cells::Cells;
use super::direction::{Direction, UNKNOWN_CLASS, for_all, last_identity, symmetric_difference};
use super::limits::PolicyTooLarge;
use super::peers::{Moves, members, missing, tells_apart};
use super::subject::{SubjectKey, SubjectRules, policies_of, tiers_of};

/// From one state to the next.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) before: &'a DesiredState,
    pub(super) after: &'a DesiredState,
    pub(super) touched: &'a Touched,
}

/// All is to be made anew. What refused to follow is of no more use.
pub(super) struct Rebuild;

impl From<PolicyTooLarge> for Rebuild {
    fn from(_: PolicyTooLarge) -> Self {
        Self
    }
}

/// How much there was when all was made anew.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    lines: usize,
    sets: usize,
    peers: usize,
}

/// What may be there that nobody needs, besides as much as was needed.
const SPARE: usize = 4096;

impl Extent {
    pub(super) fn of(direction: &Direction) -> Self {
        Self { lines: direction.rows.lines(), sets: direction.peers.sets(), peers: direction.peers.count() }
    }

    fn is_outgrown(&self, direction: &Direction) -> bool {
        let now = Self::of(direction);
        [(now.lines, self.lines), (now.sets, self.sets), (now.peers, self.peers)]
            .into_iter()
            .any(|(now, then)| now > 2 * then + SPARE)
    }
}

impl Step<'_> {
    /// Whether anybody who is the local node to policy is touched.
    pub(super) fn touches_local_node(&self) -> bool {
        let kind = |state: &DesiredState, id: &IdentityId| state.identities.get(id).map(|it| it.kind);
        self.touched
            .identities
            .iter()
            .any(|id| [kind(self.before, id), kind(self.after, id)].contains(&Some(IdentityKind::LocalNode)))
    }

    /// Who is of other sets than before.
    fn moved(&self) -> BTreeSet<IdentityId> {
        let of_set = |set| {
            let (old, now) = (members(self.before, set), members(self.after, set));
            missing(old, now).chain(missing(now, old))
        };
        self.touched.sets.iter().flat_map(|set| of_set(*set)).collect()
    }
}

impl Direction {
    /// The tables of the state after `step`; those of the state before it were the last.
    pub(super) fn follow(&mut self, step: &Step<'_>, built: &Extent) -> Result<(), Rebuild> {
        self.limit_identities(step.after)?;
        let width = self.width();
        let subjects = self.touched_subjects(step);
        let stale = self.stale_classes(step);
        let moves = self.follow_peers(step)?;
        self.limit_cells(self.cells.iter().flatten().count())?;
        let count = self.peers.count();
        self.cells.iter_mut().flatten().for_each(|cells| cells.resize(count));
        if !moves.classes.is_empty() {
            self.set_columns(step.after, &moves.classes, &stale)?;
        }
        let subjects = self.follow_subjects(step.after, subjects, &stale)?;
        self.areas = HashMap::new();
        if built.is_outgrown(self) {
            return Err(Rebuild);
        }
        let identities = self.identities(step, width, &moves.identities, &subjects);
        self.table = self.table_of(identities);
        Ok(())
    }

    /// Those whose class may be another: who is touched, and who rules may be narrowed to.
    fn touched_subjects(&self, step: &Step<'_>) -> BTreeSet<IdentityId> {
        let mut subjects = step.touched.subjects.clone();
        subjects.extend(step.moved().into_iter().filter(|id| step.after.subjects.contains_key(id)));
        for subject in step.after.subjects.values() {
            let mut policies = tiers_of(subject, self.direction).iter().flat_map(|tier| &tier.policies);
            if policies.any(|policy| step.touched.policies.contains(policy)) {
                subjects.insert(subject.identity);
            }
        }
        subjects
    }

    /// The classes to which a policy applies that is touched: their cells are of no more use.
    fn stale_classes(&self, step: &Step<'_>) -> BTreeSet<u32> {
        let is_touched = |key: &SubjectKey| {
            let mut policies = key.tiers.iter().flat_map(|tier| &tier.policies);
            policies.any(|policy| step.touched.policies.contains(policy))
        };
        let stale = self.applied.iter().filter(|(_, applied)| is_touched(&applied.key));
        stale.map(|(number, _)| *number).collect()
    }

    fn follow_peers(&mut self, step: &Step<'_>) -> Result<Moves, Rebuild> {
        let mut policies = step.touched.policies.clone();
        for id in &step.touched.subjects {
            let tiers = step.after.subjects.get(id).map_or(&[][..], |it| tiers_of(it, self.direction));
            policies.extend(tiers.iter().flat_map(|tier| &tier.policies));
        }
        let rules = policies_of(step.after, self.view, &policies).flat_map(|policy| &policy.rules);
        let used = rules.flat_map(|rule| [rule.peers, rule.not_peers]).flatten().collect();
        let most = self.peers.count() / 4 + SPARE;
        self.peers.follow((step.before, step.after), &step.touched.sets, &used, most).ok_or(Rebuild)
    }

    /// Gives each subject class, but for stale ones, its cells of these peer classes.
    fn set_columns(
        &mut self,
        state: &DesiredState,
        peer_classes: &BTreeSet<u32>,
        stale: &BTreeSet<u32>,
    ) -> Result<(), Rebuild> {
        let columns: Vec<_> = peer_classes.iter().map(|class| (*class, self.peers.sets_of(*class))).collect();
        let classes: Vec<u32> =
            self.applied.keys().filter(|number| !stale.contains(number)).copied().collect();
        for number in classes {
            let Some(applied) = self.applied.get(&number) else { return Err(Rebuild) };
            let (key, named) = (Arc::clone(&applied.key), applied.named.clone());
            let Some(others) = self.cells[number as usize].as_ref().map(Cells::others) else {
                return Err(Rebuild);
            };
            let mut rules = None;
            for (column, sets) in &columns {
                let row = if sets.iter().any(|set| named.binary_search(set).is_ok()) {
                    let rules = rules.get_or_insert_with(|| SubjectRules::new(state, self.view, &key));
                    self.step(rules.rules.len())?;
                    let apart = (0..).zip(&rules.rules).filter(|(_, (_, rule))| tells_apart(rule, sets));
                    let orders: Vec<u32> = apart.map(|(order, _)| order).collect();
                    self.row(rules, &symmetric_difference(&for_all(rules), &orders))?
                } else {
                    others
                };
                if let Some(cells) = &mut self.cells[number as usize] {
                    cells.set(*column, row);
                }
            }
        }
        Ok(())
    }

    /// Gives `subjects` and those of stale classes their class, and gives their names.
    fn follow_subjects(
        &mut self,
        state: &DesiredState,
        mut subjects: BTreeSet<IdentityId>,
        stale: &BTreeSet<u32>,
    ) -> Result<BTreeSet<IdentityId>, Rebuild> {
        subjects.extend(self.of.iter().filter(|(_, class)| stale.contains(class)).map(|(id, _)| *id));
        // No class may be found that is stale, and none may lack who is still to come.
        stale.iter().for_each(|number| self.remove_class(*number));
        let mut left = BTreeSet::new();
        for identity in &subjects {
            if let Some(class) = self.of.remove(identity)
                && let Some(applied) = self.applied.get_mut(&class)
            {
                applied.subjects -= 1;
                left.insert(class);
            }
        }
        for identity in &subjects {
            let Some(key) = SubjectKey::of(state, self.view, self.direction, *identity) else { continue };
            let class = match self.numbers.get(&key) {
                Some(class) => *class,
                None => {
                    let matches = self.matches(&SubjectRules::new(state, self.view, &key));
                    self.add_class(state, &Arc::new(key), matches)?
                }
            };
            if let Some(applied) = self.applied.get_mut(&class) {
                applied.subjects += 1;
            }
            self.of.insert(*identity, class);
        }
        for class in left {
            if self.applied.get(&class).is_some_and(|applied| applied.subjects == 0) {
                self.remove_class(class);
            }
        }
        Ok(subjects)
    }

    fn remove_class(&mut self, number: u32) {
        if let Some(applied) = self.applied.remove(&number) {
            self.numbers.remove(&applied.key);
            self.cells[number as usize] = None;
        }
    }

    /// The classes of all identities; only these and those that are touched may have others than before.
    fn identities(
        &self,
        step: &Step<'_>,
        old_width: u32,
        moved: &[IdentityId],
        subjects: &BTreeSet<IdentityId>,
    ) -> Arc<[Classes]> {
        let (before, width) = (&self.table.identities, self.width());
        let nobody = Classes { subject: UNKNOWN_CLASS * width, peer: 0 };
        let rescaled =
            |classes: &Classes| Classes { subject: classes.subject / old_width * width, peer: classes.peer };
        let kept = before.iter().map(rescaled).chain(std::iter::repeat(nobody));
        let mut identities: Vec<Classes> = kept.take(last_identity(step.after) + 1).collect();
        for id in moved.iter().chain(subjects).chain(&step.touched.identities) {
            if let Some(classes) = identities.get_mut(id.0 as usize) {
                *classes = self.classes_of(step.after, *id);
            }
        }
        identities.into()
    }
}
