//! Random sequences of changes: tables that follow agree with those that are made anew, and with the oracle.

use std::sync::Arc;

use proptest::prelude::*;
use vswitch_model::Touched;

use super::random::{POLICIES, SETS, agree, everybody, probes, states};
use super::*;

/// Somebody who is not always there.
const GUEST: u32 = IdentityId::FIRST_ASSIGNED + IDENTITIES;

/// What is taken over from another state.
#[derive(Debug, Clone)]
enum Edit {
    Set(u32),
    /// Without those it held.
    Member(u32, u32),
    Policy(u32),
    Standing(u32, Standing),
    Subject(u32),
    Guest(bool),
    LocalNode(bool),
}

fn edit() -> impl Strategy<Value = Edit> {
    let standing =
        prop_oneof![Just(Standing::Enforced), Just(Standing::Staged), Just(Standing::StagedRemoval)];
    prop_oneof![
        4 => (0..SETS).prop_map(Edit::Set),
        8 => (0..SETS, 0..=IDENTITIES).prop_map(|(set, who)| Edit::Member(set, who)),
        3 => (0..POLICIES).prop_map(Edit::Policy),
        1 => (0..POLICIES, standing).prop_map(|(policy, standing)| Edit::Standing(policy, standing)),
        4 => (0..=IDENTITIES).prop_map(Edit::Subject),
        2 => any::<bool>().prop_map(Edit::Guest),
        1 => any::<bool>().prop_map(Edit::LocalNode),
    ]
}

/// `number` is that of the step: rules that come get numbers that no others have.
fn make(edit: &Edit, state: &mut DesiredState, other: &DesiredState, number: u32) {
    let id = |who: u32| IdentityId(IdentityId::FIRST_ASSIGNED + who);
    match edit {
        Edit::Set(set) => drop(state.sets.insert(SetId(*set), other.sets[&SetId(*set)].clone())),
        Edit::Member(set, who) => {
            let members = &mut state.sets.get_mut(&SetId(*set)).unwrap().members;
            match members.binary_search(&id(*who)) {
                Ok(at) => drop(members.remove(at)),
                Err(at) if state.identities.contains_key(&id(*who)) => members.insert(at, id(*who)),
                Err(_) => {}
            }
        }
        Edit::Policy(policy) => {
            let mut policy = other.policies[&PolicyId(*policy)].clone();
            policy.rules.iter_mut().for_each(|rule| rule.id.0 += 1000 * number);
            policy.end.iter_mut().for_each(|end| end.id.0 += 1000 * number);
            state.policies.insert(policy.id, policy);
        }
        Edit::Standing(policy, standing) => {
            state.policies.get_mut(&PolicyId(*policy)).unwrap().standing = *standing;
        }
        Edit::Subject(who) => {
            let like = other.subjects.get(&id(who % IDENTITIES)).cloned();
            match like.filter(|_| state.identities.contains_key(&id(*who))) {
                Some(subject) => {
                    drop(state.subjects.insert(id(*who), Subject { identity: id(*who), ..subject }));
                }
                None => drop(state.subjects.remove(&id(*who))),
            }
        }
        Edit::Guest(true) => {
            let (id, kind) = (IdentityId(GUEST), IdentityKind::Pod);
            state.identities.insert(id, Identity { id, kind, description: String::new() });
        }
        Edit::Guest(false) => {
            state.identities.remove(&IdentityId(GUEST));
            state.subjects.remove(&IdentityId(GUEST));
            state.sets.values_mut().for_each(|set| set.members.retain(|id| id.0 != GUEST));
        }
        Edit::LocalNode(is_there) => {
            let kind = if *is_there { IdentityKind::LocalNode } else { IdentityKind::Node };
            state.identities.get_mut(&LOCAL_NODE).unwrap().kind = kind;
        }
    }
}

/// That flows judged by tables before are judged again where the verdict is another.
fn check_changed_since(
    history: &[(Revision, PolicyTables)],
    (now, state): (&PolicyTables, &DesiredState),
) -> Result<(), TestCaseError> {
    let (places, everybody) = (probes(state), everybody());
    for (then, before) in history {
        for (direction, subject) in DIRECTIONS.iter().flat_map(|d| everybody.iter().map(|s| (*d, *s))) {
            if now.changed_since(direction, subject, *then) {
                continue;
            }
            for (peer, ports) in everybody.iter().flat_map(|p| places.iter().map(|at| (*p, *at))) {
                let told = |tables: &PolicyTables| tables.verdict(direction, subject, peer, ports);
                prop_assert_eq!(told(before), told(now), "{:?} of {} with {}", direction, subject, peer);
                let staged = |tables: &PolicyTables| {
                    let staged = tables.staged();
                    staged.map(|staged| staged.verdict(direction, subject, peer, ports))
                };
                // Nothing is staged for it, or the same is.
                prop_assert!(
                    now.staged_changed_since(direction, subject, *then)
                        || staged(now).is_none_or(|staged| staged == told(now))
                        || staged(now) == staged(before),
                    "staged, {:?} of {} with {}",
                    direction,
                    subject,
                    peer
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tables_that_follow_agree_with_those_made_anew(
        first in states(),
        steps in proptest::collection::vec((states(), proptest::collection::vec(edit(), 1..4)), 1..9),
    ) {
        let mut compiler = PolicyCompiler::new();
        let mut state = first;
        let mut history = vec![(Revision(1), compiler.tables(None, &state).unwrap())];
        for (number, (other, edits)) in (1u32..).zip(steps) {
            let mut next = state.clone();
            edits.iter().for_each(|edit| make(edit, &mut next, &other, number));
            let mut touched = Touched::of(&state.changes_to(&next));
            // What is touched need not be another.
            touched.sets.insert(SetId(number % SETS));
            touched.subjects.insert(POD);
            let mut tables = compiler.tables(Some((&state, &touched)), &next).unwrap();
            let (then, before) = history.last().unwrap();
            let now = Revision(then.0 + 1);
            tables.follow((before, *then), now);
            agree(&tables, &next);
            let fresh = PolicyTables::build(&next).unwrap();
            for (direction, who) in DIRECTIONS.iter().flat_map(|d| everybody().into_iter().map(|s| (*d, s))) {
                prop_assert_eq!(tables.is_open(direction, who), fresh.is_open(direction, who));
            }
            check_changed_since(&history, (&tables, &next))?;
            history.push((now, tables));
            state = next;
        }
    }
}

/// 300 pods in a set each: as many peer classes, in two blocks; and two subjects of a policy.
fn many_peers() -> DesiredState {
    let mut state =
        isolated((0..300).map(|i| allow(16 + i, Some(SetId(i)), vec![range(6, 80, 80)])).collect());
    for i in 0..300 {
        let (id, kind) = (IdentityId(100 + i), IdentityKind::Pod);
        state.identities.insert(id, Identity { id, kind, description: String::new() });
        state.sets.insert(SetId(i), IdentitySet { id: SetId(i), members: vec![id] });
    }
    state
}

fn follow(compiler: &mut PolicyCompiler, from: &DesiredState, to: &DesiredState) -> PolicyTables {
    compiler.tables(Some((from, &Touched::of(&from.changes_to(to)))), to).unwrap()
}

#[test]
fn what_a_change_does_not_concern_is_shared() {
    let from = many_peers();
    let mut compiler = PolicyCompiler::new();
    let before = compiler.tables(None, &from).unwrap();
    let mut to = from.clone();
    to.sets.get_mut(&SetId(7)).unwrap().members = vec![IdentityId(107), IdentityId(390)];
    let after = follow(&mut compiler, &from, &to);
    agree(&after, &to);
    assert_eq!(after.ingress(POD, IdentityId(390), to_port(6, 80)), by(16 + 7));
    assert_eq!(before.ingress(POD, IdentityId(390), to_port(6, 80)), by(16 + 290), "as they were");
    let same = before.ingress.blocks.iter().zip(&*after.ingress.blocks).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert!(same.count() + 1 >= before.ingress.blocks.len(), "one cell of one block");
    assert!(Arc::ptr_eq(&before.egress.rows, &after.egress.rows));

    // Without its own set it is of a class that is there.
    let mut last = to.clone();
    last.sets.get_mut(&SetId(290)).unwrap().members.clear();
    let moved = follow(&mut compiler, &to, &last);
    agree(&moved, &last);
    assert!(Arc::ptr_eq(&moved.ingress.rows, &after.ingress.rows), "no row that was not there");
    assert!(moved.ingress.blocks.iter().zip(&*after.ingress.blocks).all(|(a, b)| Arc::ptr_eq(a, b)));
}

#[test]
fn a_limit_that_is_reached_by_steps_refuses_whom_it_would_at_once() {
    let limits = Limits { lines: 40, ..Limits::DEFAULT };
    let mut compiler = PolicyCompiler::within(limits);
    let ports =
        |count: u16| (0..count).map(|i| allow(16 + u32::from(i), None, vec![range(6, i * 64, i * 64)]));
    let mut state = isolated(ports(1).collect());
    let mut tables = compiler.tables(None, &state).unwrap();
    let mut refused = 0;
    for count in (2..200).chain((2..60).rev()) {
        let mut next = state.clone();
        insert(&mut next, 0, Standing::Enforced, ports(count).collect());
        tables = follow(&mut compiler, &state, &next);
        let fresh = PolicyTables::build_within(&next, &limits).unwrap();
        assert_eq!(tables.refused(), fresh.refused(), "{count} rules");
        assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 64)), fresh.ingress(POD, FRIEND, to_port(6, 64)));
        refused += tables.refused().len();
        state = next;
    }
    assert!(refused > 0 && tables.refused().is_empty());
}
