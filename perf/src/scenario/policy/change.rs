//! How large tables are, and what it takes to make and to change them.

use std::time::Duration;

use vswitch_datapath::tables::Revision;
use vswitch_datapath::{CompileInputs, compile};
use vswitch_model::{Change, DesiredState, Generation, IdentityId};

use super::NAME;
use super::cpu::{ms, repeat, time_of};
use crate::result::Measurement;
use crate::scenario::engine::bench::Held;
use crate::scenario::instructions::counted::{ports, underlay};
use crate::session::Session;
use crate::workload::shape::{Policies, Ruled};
use crate::{Error, Result};

/// What the engine's tables came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compiled {
    /// Bytes of the policy's tables.
    pub(super) policy: usize,
    /// Bytes of all tables.
    pub(super) tables: usize,
    /// What the engine's compiler thread took of a core for them.
    pub(super) load: Duration,
}

impl Compiled {
    pub(super) fn record(&self, session: &mut Session, policies: Policies) {
        if !session.wants(&policies.name()) {
            return;
        }
        let of_each = if policies.shape.counted() == "rules" { self.policy } else { self.tables };
        for (metric, unit, value) in [
            ("policy-tables", "bytes", self.policy as f64),
            ("tables", "bytes", self.tables as f64),
            ("bytes-each", "bytes", of_each as f64 / policies.count as f64),
            ("load", "ms", ms(self.load)),
        ] {
            session.record(Measurement::of_rounds(NAME, &policies.name(), metric, unit, &[value]));
        }
    }
}

/// Measures what the compiler takes; `changes`: for changes, too.
pub(super) fn run(
    session: &mut Session,
    policies: Policies,
    ruled: &Ruled,
    held: &mut Held,
    changes: bool,
) -> Result<()> {
    let (case, rounds) = (policies.name(), session.config.rounds);
    if !session.wants(&case) {
        return Ok(());
    }
    let interrupt = session.interrupt.clone();
    session.step(&format!("{case}: compile"))?;
    let mut record = |metric: &str, times: Vec<Duration>| {
        let times: Vec<f64> = times.into_iter().map(ms).collect();
        session.record(Measurement::of_rounds(NAME, &case, metric, "ms", &times));
    };
    record("compile", repeat(rounds, &interrupt, || compile_all(ruled))?);
    if changes {
        for (metric, change) in [("change-rule", of_rule as Changes), ("change-member", of_member)] {
            let (there, back) = change(&ruled.desired)?;
            let mut turn = 0;
            // An even number of times: everything is as it was then.
            let times = repeat(rounds.next_multiple_of(2), &interrupt, || {
                turn += 1;
                held.change(vec![if turn % 2 == 1 { there.clone() } else { back.clone() }])
            })?;
            if turn % 2 == 1 {
                held.change(vec![back])?;
            }
            record(metric, times);
        }
    }
    Ok(())
}

/// The engine's own compiler, in this thread.
fn compile_all(ruled: &Ruled) -> Result<Duration> {
    let ports = ports(&ruled.node);
    let underlay = underlay(&ruled.node, &ports);
    let (generation, revision) = (Generation(1), Revision(1));
    let inputs =
        CompileInputs { generation, revision, desired: &ruled.desired, ports: &ports, underlay: &underlay };
    let (tables, time) = time_of(|| compile(&inputs))?;
    tables.map(|_| time).map_err(|error| Error::setup("compile", error))
}

/// A change and what takes it back.
type Changes = fn(&DesiredState) -> Result<(Change, Change)>;

fn nothing(what: &str) -> Error {
    Error::setup("change policy", format!("there is no {what}"))
}

/// The last rule of a policy in the middle speaks of the next port.
fn of_rule(state: &DesiredState) -> Result<(Change, Change)> {
    let middle = state.policies.len() / 2;
    let policy = state.policies.values().nth(middle).ok_or_else(|| nothing("policy"))?;
    let mut other = policy.clone();
    let port =
        other.rules.last_mut().and_then(|rule| rule.ports.last_mut()).ok_or_else(|| nothing("port"))?;
    (port.first, port.last) = (port.first + 1, port.last + 1);
    Ok((Change::SetPolicy(other), Change::SetPolicy(policy.clone())))
}

/// The last identity enters a set in the middle.
fn of_member(state: &DesiredState) -> Result<(Change, Change)> {
    let middle = state.sets.len() / 2;
    let set = state.sets.values().nth(middle).ok_or_else(|| nothing("set"))?;
    let outside = |id: &&IdentityId| set.members.binary_search(id).is_err();
    let id = state.identities.keys().rev().find(outside).ok_or_else(|| nothing("identity"))?;
    let mut other = set.clone();
    other.members.push(*id);
    other.members.sort_unstable();
    Ok((Change::SetSet(other), Change::SetSet(set.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Family;
    use crate::workload::shape::Shape;

    #[test]
    fn a_change_leads_to_another_whole_state_and_back() {
        let state = Policies { shape: Shape::Policies, family: Family::V4, count: 100 }.make().desired;
        for change in [of_rule as Changes, of_member] {
            let (there, back) = change(&state).unwrap();
            let mut changed = state.clone();
            changed.apply(there);
            changed.check().unwrap();
            assert_eq!(state.changes_to(&changed).len(), 1);
            changed.apply(back);
            assert!(changed == state);
        }
    }
}
