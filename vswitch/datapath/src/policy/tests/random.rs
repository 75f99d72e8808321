//! Random states: the tables agree with what reads the state rule by rule.

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

pub(super) const SETS: u32 = 5;
pub(super) const POLICIES: u32 = 5;
/// More are thinned out.
const MOST_PROBES: usize = 200;

fn ports() -> impl Strategy<Value = PortMatch> {
    let edges = prop_oneof![
        Just(0u16),
        Just(1),
        Just(80),
        Just(81),
        Just(443),
        Just(65534),
        Just(65535),
        any::<u16>()
    ];
    let protocol = prop_oneof![Just(6u8), Just(17), Just(132), Just(1), Just(58), Just(47)];
    let range = (edges.clone(), edges).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let range = prop_oneof![4 => range, 1 => Just((0, u16::MAX))];
    (protocol, range).prop_map(|(protocol, (first, last))| PortMatch { protocol, first, last })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Pass), Just(Action::Log)];
    let set = || proptest::option::of((0..SETS).prop_map(SetId));
    let seldom = || prop_oneof![3 => Just(None), 1 => set()];
    let sets = (set(), seldom(), seldom(), seldom());
    let some_ports = || proptest::collection::vec(ports(), 0..3);
    let source_ports = prop_oneof![2 => Just(Vec::new()), 1 => some_ports()];
    (action, sets, some_ports(), source_ports).prop_map(
        |(action, (peers, not_peers, subjects, not_subjects), ports, source_ports)| Rule {
            peers,
            not_peers,
            subjects,
            not_subjects,
            ports,
            source_ports,
            ..Rule::new(RuleId(0), action, String::new())
        },
    )
}

fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    let default = prop_oneof![Just(TierDefault::Deny), Just(TierDefault::Pass)];
    let policies = proptest::collection::vec((0..POLICIES).prop_map(PolicyId), 0..4);
    let tier =
        (policies, default).prop_map(|(policies, default)| Tier { name: String::new(), policies, default });
    proptest::collection::vec(tier, 0..3)
}

pub(super) fn states() -> impl Strategy<Value = DesiredState> {
    let mut members = identities();
    members.insert(0, IdentityId::UNKNOWN);
    let sets = proptest::collection::vec(subsequence(members, 0..=4), SETS as usize);
    let standing = prop_oneof![4 => Just(Standing::Enforced), 1 => Just(Standing::Staged), 1 => Just(Standing::StagedRemoval)];
    let policy = (standing, proptest::collection::vec(rule(), 0..5));
    let policies = proptest::collection::vec(policy, POLICIES as usize);
    let mut named = identities();
    named.push(IdentityId::UNKNOWN);
    let subjects = subsequence(named, 0..=6).prop_flat_map(|ids| {
        let count = ids.len();
        (Just(ids), proptest::collection::vec((tiers(), tiers()), count))
    });
    (sets, policies, subjects).prop_map(|(sets, policies, (subjects, tiers))| {
        let mut state = with_identities();
        for (id, members) in (0..).map(SetId).zip(sets) {
            state.sets.insert(id, IdentitySet { id, members });
        }
        let mut number = RuleId::FIRST_ASSIGNED;
        for (id, (standing, mut rules)) in (0..).map(PolicyId).zip(policies) {
            for rule in &mut rules {
                rule.id = RuleId(number);
                number += 1;
            }
            let name = format!("policy {}", id.0);
            let end =
                (id.0 % 3 != 0).then(|| PolicyEnd { id: RuleId(10_000_000 + id.0), position: String::new() });
            state.policies.insert(id, Policy { id, name, standing, rules, end });
        }
        for (identity, (ingress, egress)) in subjects.into_iter().zip(tiers) {
            state.subjects.insert(identity, Subject { identity, ingress, egress });
        }
        state
    })
}

/// Every protocol the rules know and two they do not, at every port at which something could change, from every port at
/// which something could.
pub(super) fn probes(state: &DesiredState) -> Vec<FlowPorts> {
    let mut probes: Vec<FlowPorts> = [6, 17, 132, 1, 47, 50, 58].map(|protocol| to_port(protocol, 0)).into();
    let rules = || state.policies.values().flat_map(|policy| &policy.rules);
    let edges = |range: &PortMatch| {
        [range.first.wrapping_sub(1), range.first, range.last, range.last.wrapping_add(1)]
    };
    for range in rules().flat_map(|rule| &rule.ports) {
        probes.extend(edges(range).map(|port| to_port(range.protocol, port)));
        probes.push(to_port(6, range.first));
    }
    probes.sort_unstable();
    probes.dedup();
    for range in rules().flat_map(|rule| &rule.source_ports) {
        let same: Vec<_> = probes.iter().filter(|probe| probe.protocol == range.protocol).copied().collect();
        probes
            .extend(same.iter().flat_map(|probe| edges(range).map(|source| FlowPorts { source, ..*probe })));
        probes.push(from_to(range.first, 6, range.first));
    }
    probes.sort_unstable();
    probes.dedup();
    // Each source port of one rule with each place of all others is more than is worth asking of everybody.
    let every = probes.len().div_ceil(MOST_PROBES) as u32;
    // Not each so many: that would leave out the same of what repeats.
    let is_taken = |number: u32| (number.wrapping_mul(0x9e37_79b1) >> 16).is_multiple_of(every);
    (0..).zip(probes).filter_map(|(number, probe)| is_taken(number).then_some(probe)).collect()
}

/// All identities, and some that are unknown.
pub(super) fn everybody() -> Vec<IdentityId> {
    let mut everybody = identities();
    everybody.extend([0, 1, IdentityId::FIRST_ASSIGNED + IDENTITIES, u32::MAX].map(IdentityId));
    everybody
}

pub(super) fn check(state: &DesiredState) {
    agree(&PolicyTables::build(state).unwrap(), state);
}

/// That a batch of flows gets what each gets alone.
fn batches_agree(tables: &PolicyTables, everybody: &[IdentityId], probes: &[FlowPorts]) {
    let ends = everybody.iter().flat_map(|subject| everybody.iter().map(move |peer| (*subject, *peer)));
    let asked = ends.flat_map(|(subject, peer)| {
        probes.iter().map(move |ports| PolicyQuestion { subject, peer, ports: *ports })
    });
    let asked: Vec<_> = asked.collect();
    for direction in DIRECTIONS {
        for batch in asked.chunks(BATCH) {
            let mut told = 0;
            tables.verdicts(direction, batch.iter().copied(), |number, verdict| {
                let PolicyQuestion { subject, peer, ports } = batch[number];
                assert_eq!(verdict, tables.verdict(direction, subject, peer, ports), "{:?}", batch[number]);
                told += 1;
            });
            assert_eq!(told, batch.len());
        }
    }
}

/// That the tables are those of `state`.
pub(super) fn agree(tables: &PolicyTables, state: &DesiredState) {
    state.check().unwrap();
    let everybody = everybody();
    let probes = probes(state);
    batches_agree(tables, &everybody, &probes);
    for subject in &everybody {
        for peer in &everybody {
            for ports in &probes {
                for direction in DIRECTIONS {
                    assert_eq!(
                        tables.verdict(direction, *subject, *peer, *ports),
                        oracle::verdict(state, direction, *subject, *peer, *ports),
                        "{direction:?} of {subject} with {peer}, {ports:?}"
                    );
                    let staged = oracle::verdict_in(View::Staged, state, direction, *subject, *peer, *ports);
                    let told = tables.staged().map(|it| it.verdict(direction, *subject, *peer, *ports));
                    let in_force = || tables.verdict(direction, *subject, *peer, *ports);
                    assert_eq!(
                        told.unwrap_or_else(in_force),
                        staged,
                        "staged {direction:?} of {subject} with {peer}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn class_tables_agree_with_the_oracle(state in states()) {
        check(&state);
    }

    #[test]
    fn whose_policy_did_not_change_gets_the_verdicts_it_got(
        from in states(),
        other in states(),
        taken in (0u32..SETS, 0u32..POLICIES, 0u32..IDENTITIES, 0u8..3),
    ) {
        let mut to = from.clone();
        let (set, policy, subject, what) = taken;
        match what {
            0 => drop(to.sets.insert(SetId(set), other.sets[&SetId(set)].clone())),
            1 => {
                // Its rules' numbers may be others' now: those of one state are unique.
                let mut policy = other.policies[&PolicyId(policy)].clone();
                policy.rules.iter_mut().for_each(|rule| rule.id.0 += 1000);
                to.policies.insert(policy.id, policy);
            }
            _ => {
                let id = IdentityId(IdentityId::FIRST_ASSIGNED + subject);
                match other.subjects.get(&id) {
                    Some(subject) => drop(to.subjects.insert(id, subject.clone())),
                    None => drop(to.subjects.remove(&id)),
                }
            }
        }
        let before = PolicyTables::build(&from).unwrap();
        let mut after = PolicyTables::build(&to).unwrap();
        after.follow((&before, Revision(7)), Revision(8));
        let (mut places, everybody) = (probes(&from), everybody());
        places.extend(probes(&to));
        for (direction, subject) in DIRECTIONS.iter().flat_map(|d| everybody.iter().map(|s| (*d, *s))) {
            if after.changed_since(direction, subject, Revision(7)) {
                continue;
            }
            for (peer, ports) in everybody.iter().flat_map(|p| places.iter().map(|at| (*p, *at))) {
                let told = |tables: &PolicyTables| tables.verdict(direction, subject, peer, ports);
                prop_assert_eq!(told(&before), told(&after), "{:?} of {} with {}", direction, subject, peer);
            }
        }
    }
}
