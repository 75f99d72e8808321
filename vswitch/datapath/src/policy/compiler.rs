//! From desired states to class tables, one after the other.

use vswitch_model::{DesiredState, Standing, Touched};

use super::changes::Digests;
use super::direction::Direction;
use super::follow::{Extent, Rebuild, Step};
use super::limits::{Limits, PolicyTooLarge, RefusedPolicy};
use super::{DirectionTable, PolicyDirection, PolicyTables, StagedTables, View};

impl PolicyTables {
    /// The class tables of `state`, which has passed [`DesiredState::check`]. Pods whose policy is too large are named
    /// by [`PolicyTables::refused`]; an error is what concerns all pods.
    pub fn build(state: &DesiredState) -> Result<Self, PolicyTooLarge> {
        Self::build_within(state, &Limits::DEFAULT)
    }

    pub(super) fn build_within(state: &DesiredState, limits: &Limits) -> Result<Self, PolicyTooLarge> {
        Built::new(state, *limits).map(|built| built.tables())
    }
}

/// Makes class tables, and what a change touches of them only: about as much again as they take is held for it. Tables
/// that follow others say the same of every packet as those that [`PolicyTables::build`] makes.
pub(crate) struct PolicyCompiler {
    limits: Limits,
    /// What was made last.
    built: Option<Built>,
}

impl std::fmt::Debug for PolicyCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyCompiler").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl PolicyCompiler {
    pub(crate) fn new() -> Self {
        Self::within(Limits::DEFAULT)
    }

    pub(super) fn within(limits: Limits) -> Self {
        Self { limits, built: None }
    }

    /// The tables of `after`. With the state whose tables were made last, and what is touched since, only what that
    /// concerns is made anew.
    pub(crate) fn tables(
        &mut self,
        before: Option<(&DesiredState, &Touched)>,
        after: &DesiredState,
    ) -> Result<PolicyTables, PolicyTooLarge> {
        // Nothing is left of what failed to follow.
        let followed = match (self.built.take(), before) {
            (Some(built), Some((before, touched))) => built.follow(&Step { before, after, touched }).ok(),
            _ => None,
        };
        let built = match followed {
            Some(built) => built,
            None => Built::new(after, self.limits)?,
        };
        let tables = built.tables();
        self.built = Some(built);
        Ok(tables)
    }
}

/// All tables of a state, and how they were made.
struct Built {
    in_force: Both,
    staged: Option<Both>,
    digests: Digests,
    refused: Vec<RefusedPolicy>,
}

/// The tables of one view: ingress and egress, and how large they were when they were made anew.
struct Both([(Direction, Extent); 2]);

impl Both {
    fn new(
        state: &DesiredState,
        view: View,
        limits: Limits,
        refused: &mut Vec<RefusedPolicy>,
    ) -> Result<Self, PolicyTooLarge> {
        let mut build = |direction| {
            Direction::build(state, view, direction, limits).map(|(direction, mut too_large)| {
                refused.append(&mut too_large);
                let extent = Extent::of(&direction);
                (direction, extent)
            })
        };
        Ok(Self([build(PolicyDirection::Ingress)?, build(PolicyDirection::Egress)?]))
    }

    fn follow(&mut self, step: &Step<'_>) -> Result<(), Rebuild> {
        self.0.iter_mut().try_for_each(|(direction, extent)| direction.follow(step, extent))
    }

    fn tables(&self) -> [DirectionTable; 2] {
        [&self.0[0], &self.0[1]].map(|(direction, _)| direction.table.clone())
    }
}

impl Built {
    fn new(state: &DesiredState, limits: Limits) -> Result<Self, PolicyTooLarge> {
        let mut refused = Vec::new();
        let in_force = Both::new(state, View::InForce, limits, &mut refused)?;
        let staged = match is_staged(state) {
            true => Some(Both::new(state, View::Staged, limits, &mut refused)?),
            false => None,
        };
        let digests = Digests::new(state, &refused);
        Ok(Self { in_force, staged, digests, refused })
    }

    fn follow(mut self, step: &Step<'_>) -> Result<Self, Rebuild> {
        if step.touched.spares_policy() {
            return Ok(self);
        }
        if !self.refused.is_empty()
            || step.touches_local_node()
            || self.staged.is_some() != is_staged(step.after)
        {
            return Err(Rebuild);
        }
        self.in_force.follow(step)?;
        if let Some(staged) = &mut self.staged {
            staged.follow(step)?;
        }
        self.digests.follow(step);
        Ok(self)
    }

    fn tables(&self) -> PolicyTables {
        let [ingress, egress] = self.in_force.tables();
        let staged = self.staged.as_ref().map(|staged| {
            let [ingress, egress] = staged.tables();
            Box::new(StagedTables { ingress, egress })
        });
        PolicyTables {
            ingress,
            egress,
            staged,
            changes: self.digests.changes(),
            refused: self.refused.clone(),
        }
    }
}

fn is_staged(state: &DesiredState) -> bool {
    state.policies.values().any(|policy| policy.standing != Standing::Enforced)
}
