//! Policy of several shapes and sizes: what the verdict of a new flow costs, how large tables are, and what it takes to
//! make them and to change them.

mod change;
mod cpu;
mod label;
#[cfg(test)]
mod tests;
mod verdict;

use super::{About, Scenario};
use crate::machine::has_tsc;
use crate::session::Session;
use crate::workload::Family;
use crate::workload::shape::Shape;
use crate::{Error, Result};

const NAME: &str = "policy";

/// The scenario.
#[derive(Debug)]
pub struct Policy;

impl Scenario for Policy {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "what the verdict of a new flow costs with few and many rules, how large the tables are, and what the \
                       compiler takes for them: from nothing, for a change, and for one label of a pod",
            cases: "SHAPE/FAMILY/{rules,cidrs}-N[/SPREAD], every packet a flow's first, from the uplink to one of 200 pods, \
                    64 bytes, batch 32. SHAPE: policies (of ten rules, on four pods each), ranges (one policy, a range of \
                    ports a rule), overlaps (ranges at random), blocks (a CIDR and a port of its own a rule), list (one rule \
                    of N CIDRs). SPREAD: of-64 (packets ask 64 of the rules, however many there are: what is read stays in \
                    the caches), of-all (they ask all of them in turn: what is read grows with the tables, rules, peers and \
                    counters of rules together). label/pods-N/policies-N/{local,remote}: a pod of this node, or of another",
            sets: "--quick: policies/v4 with 100 and 100k rules, label. By default: policies, ranges and overlaps with 100 to \
                   100k rules, blocks and list with 100, 1k and 100k CIDRs, all v4; policies/v6 with 100 and 100k. --full: \
                   all of them in both families",
            metrics: &[
                ("packet", "cycles (ns without a time stamp counter): the worker's turn, as in engine"),
                ("walk", "cycles: of it the stages parse to leave"),
                (
                    "miss",
                    "cycles: of it the stage that looks both ends up, asks policy, and makes the record of the flow",
                ),
                (
                    "turn-growth, walk-growth, miss-growth",
                    "1: by that of the smallest table of the same shape and spread, in the same round; 1.1 is what may be",
                ),
                (
                    "asked",
                    "flows: different ends and ports among the packets; they come again by other source ports",
                ),
                ("policy-tables", "bytes: of the policy in force, in memory"),
                ("tables", "bytes: all that the workers read, with routes and identities of addresses"),
                ("bytes-each", "bytes: of policy-tables for each rule, or of tables for each CIDR"),
                (
                    "load",
                    "ms of a core: the engine's compiler thread, from its start until all is in force and saved",
                ),
                ("compile", "ms of a core: from the desired state to tables, alone"),
                (
                    "change-rule",
                    "ms of a core: the compiler thread, for another port of one rule, until it is in force and saved",
                ),
                ("change-member", "ms of a core: the same, for one identity that enters or leaves a set"),
                (
                    "agent",
                    "ms of a core: the agent's part of a label change: part/picture (the pod among the objects), part/calculate (from objects to state, and whether it is whole), part/send (what differs, as bytes)",
                ),
                (
                    "engine",
                    "ms of a core: the engine's: part/receive (from bytes to changes), part/apply (its compiler thread, until the worker runs them and they are saved)",
                ),
                ("part/NAME", "ms of a core: see agent and engine"),
                ("label", "ms of a core: agent and engine together"),
                ("calculate-all", "ms of a core: the agent's first calculation, with nothing to go by"),
            ],
            peers: "none",
            root: false,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let groups: Vec<Group> =
            groups(session).into_iter().filter_map(|group| group.wanted(session)).collect();
        let label = label::cases(session);
        let rounds = u64::from(session.config.rounds);
        let sizes: usize = groups.iter().map(|group| group.counts.len()).sum();
        session.begin(NAME, sizes as u64 * (rounds + 1) + label.len() as u64);
        if !has_tsc() {
            session.note(format!("{NAME}: there is no time stamp counter: ns instead of cycles"));
        }
        let mut failed = None;
        for group in groups {
            match verdict::run(session, &group) {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                outcome => failed = failed.or(outcome.err()),
            }
        }
        label::run(session, &label)?;
        failed.map_or(Ok(()), Err)
    }
}

/// Tables of one shape, which take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    shape: Shape,
    family: Family,
    /// Ascending; the others are compared with the first.
    counts: Vec<usize>,
    /// Whether changes are measured, too.
    changes: bool,
}

impl Group {
    /// The same without the sizes of which nothing is wanted, but with the first when any is: it is compared with. None:
    /// nothing is.
    fn wanted(mut self, session: &Session) -> Option<Self> {
        let smallest = *self.counts.first()?;
        let (shape, family) = (self.shape, self.family);
        self.counts.retain(|count| verdict::wants(session, shape, family, *count));
        let &first = self.counts.first()?;
        if first != smallest {
            self.counts.insert(0, smallest);
        }
        Some(self)
    }
}

/// What is measured.
fn groups(session: &Session) -> Vec<Group> {
    let group = |shape, family, counts: &[usize]| Group {
        shape,
        family,
        counts: counts.to_vec(),
        changes: shape == Shape::Policies && family == Family::V4,
    };
    let (ends, all) = ([100, 100_000], [100, 1000, 10_000, 100_000]);
    if session.config.quick {
        return vec![group(Shape::Policies, Family::V4, &ends)];
    }
    if session.config.full {
        let both = |shape| [Family::V4, Family::V6].map(|family| group(shape, family, &all));
        return Shape::ALL.into_iter().flat_map(both).collect();
    }
    let cidrs = [100, 1000, 100_000];
    vec![
        group(Shape::Policies, Family::V4, &all),
        group(Shape::Ranges, Family::V4, &all),
        group(Shape::Overlaps, Family::V4, &all),
        group(Shape::Blocks, Family::V4, &cidrs),
        group(Shape::List, Family::V4, &cidrs),
        group(Shape::Policies, Family::V6, &ends),
    ]
}
