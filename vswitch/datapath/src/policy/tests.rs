use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::subsequence;
use vswitch_model::{
    Action, DesiredState, Identity, IdentityKind, IdentitySet, Policy, PolicyId, PortMatch, Rule, SetId,
    Standing, Subject, Tier, TierDefault,
};

use super::build::Limits;
use super::*;

const IDENTITIES: u32 = 8;
const SETS: u32 = 5;
const POLICIES: u32 = 5;
const DIRECTIONS: [PolicyDirection; 2] = [PolicyDirection::Ingress, PolicyDirection::Egress];

fn identities() -> Vec<IdentityId> {
    (0..IDENTITIES).map(|i| IdentityId(IdentityId::FIRST_ASSIGNED + i)).collect()
}

/// The first is the local node, the second another node, the rest pods.
fn with_identities() -> DesiredState {
    let mut state = DesiredState::default();
    for (at, id) in identities().into_iter().enumerate() {
        let kind =
            [IdentityKind::LocalNode, IdentityKind::Node].get(at).copied().unwrap_or(IdentityKind::Pod);
        state.identities.insert(id, Identity { id, kind, description: String::new() });
    }
    state
}

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
    (action, sets, proptest::collection::vec(ports(), 0..3)).prop_map(
        |(action, (peers, not_peers, subjects, not_subjects), ports)| Rule {
            peers,
            not_peers,
            subjects,
            not_subjects,
            ports,
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

fn states() -> impl Strategy<Value = DesiredState> {
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
            state.policies.insert(id, Policy { id, name, standing, rules });
        }
        for (identity, (ingress, egress)) in subjects.into_iter().zip(tiers) {
            state.subjects.insert(identity, Subject { identity, ingress, egress });
        }
        state
    })
}

/// Every protocol the rules know and two they do not, at every port at which something could change.
fn probes(state: &DesiredState) -> Vec<(u8, u16)> {
    let mut probes: Vec<(u8, u16)> = [6, 17, 132, 1, 47, 50, 58].map(|protocol| (protocol, 0)).into();
    for range in state.policies.values().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.ports) {
        for port in [range.first.wrapping_sub(1), range.first, range.last, range.last.wrapping_add(1)] {
            probes.push((range.protocol, port));
        }
        probes.push((6, range.first));
    }
    probes.sort_unstable();
    probes.dedup();
    probes
}

fn check(state: &DesiredState) {
    state.check().unwrap();
    let tables = PolicyTables::build(state).unwrap();
    let mut everybody = identities();
    everybody.extend([0, 1, IdentityId::FIRST_ASSIGNED + IDENTITIES, u32::MAX].map(IdentityId));
    let probes = probes(state);
    for subject in &everybody {
        for peer in &everybody {
            for (protocol, port) in &probes {
                for direction in DIRECTIONS {
                    assert_eq!(
                        tables.verdict(direction, *subject, *peer, *protocol, *port),
                        oracle::verdict(state, direction, *subject, *peer, *protocol, *port),
                        "{direction:?} of {subject} with {peer}, protocol {protocol}, port {port}"
                    );
                    let staged =
                        oracle::verdict_in(View::Staged, state, direction, *subject, *peer, *protocol, *port);
                    let told =
                        tables.staged().map(|it| it.verdict(direction, *subject, *peer, *protocol, *port));
                    let in_force = || tables.verdict(direction, *subject, *peer, *protocol, *port);
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
}

const POD: IdentityId = IdentityId(18);
const FRIEND: IdentityId = IdentityId(19);
const STRANGER: IdentityId = IdentityId(20);
const LOCAL_NODE: IdentityId = IdentityId(16);

/// A pod that FRIEND may reach as `rules` say, in one tier that denies what is left.
fn isolated(rules: Vec<Rule>) -> DesiredState {
    let mut state = with_identities();
    state.sets.insert(SetId(0), IdentitySet { id: SetId(0), members: vec![FRIEND] });
    insert(&mut state, 0, Standing::Enforced, rules);
    let ingress = vec![Tier { name: "tier".into(), policies: vec![PolicyId(0)], default: TierDefault::Deny }];
    state.subjects.insert(POD, Subject { identity: POD, ingress, egress: Vec::new() });
    state
}

fn allow(id: u32, peers: Option<SetId>, ports: Vec<PortMatch>) -> Rule {
    Rule { peers, ports, ..Rule::new(RuleId(id), Action::Allow, String::new()) }
}

fn insert(state: &mut DesiredState, id: u32, standing: Standing, rules: Vec<Rule>) {
    let id = PolicyId(id);
    state.policies.insert(id, Policy { id, name: format!("policy {}", id.0), standing, rules });
}

fn by(rule: u32) -> Verdict {
    Verdict::of(true, RuleId(rule))
}

fn range(protocol: u8, first: u16, last: u16) -> PortMatch {
    PortMatch { protocol, first, last }
}

#[test]
fn an_isolated_pod_is_reached_as_its_rules_say() {
    let state = isolated(vec![
        allow(16, Some(SetId(0)), vec![range(17, 10_000, 20_000)]),
        allow(17, None, vec![range(1, 0x0800, 0x08ff)]),
    ]);
    let tables = PolicyTables::build(&state).unwrap();
    for (peer, protocol, port, verdict) in [
        (FRIEND, 17, 10_000, by(16)),
        (FRIEND, 17, 20_000, by(16)),
        (FRIEND, 17, 9_999, Verdict::DENY),
        (FRIEND, 17, 20_001, Verdict::DENY),
        (FRIEND, 6, 10_000, Verdict::DENY),
        (STRANGER, 17, 10_000, Verdict::DENY),
        (STRANGER, 1, PortMatch::message(8, 0), by(17)),
        (STRANGER, 1, PortMatch::message(13, 0), Verdict::DENY),
        (IdentityId::UNKNOWN, 1, PortMatch::message(8, 9), by(17)),
        (IdentityId::UNKNOWN, 17, 10_000, Verdict::DENY),
        (LOCAL_NODE, 6, 1, Verdict::LOCAL_NODE),
    ] {
        assert_eq!(tables.ingress(POD, peer, protocol, port), verdict, "{peer} {protocol} {port}");
    }
    assert_eq!(tables.egress(POD, STRANGER, 6, 1), Verdict::NOT_ISOLATED);
    assert_eq!(tables.ingress(STRANGER, POD, 6, 1), Verdict::NOT_ISOLATED);
    assert_eq!(tables.ingress(IdentityId::UNKNOWN, LOCAL_NODE, 6, 1), Verdict::DENY);
    check(&state);
}

#[test]
fn a_range_over_all_ports_is_the_protocol() {
    let state = isolated(vec![allow(16, None, vec![range(6, 0, 100), range(6, 101, 65535)])]);
    check(&state);
    let tables = PolicyTables::build(&state).unwrap();
    assert!(tables.ingress(POD, STRANGER, 6, 100).allow && !tables.ingress(POD, STRANGER, 17, 100).allow);
    assert!(tables.memory_bytes() < 100_000, "no table of 65536 ports for it");
}

#[test]
fn equal_parts_of_rows_are_held_once() {
    let scattered: Vec<_> = (0..1000).map(|i| range(17, i * 64, i * 64)).collect();
    let state = isolated(vec![allow(16, Some(SetId(0)), scattered)]);
    let (rows, nodes) = PolicyTables::build(&state).unwrap().ingress.rows.counts();
    assert_eq!(rows, 5, "denied, not isolated, too large, the local node, the friend");
    assert!(nodes <= 10, "the ports repeat: {nodes} nodes");
    check(&state);
    check(&with_identities());
}

#[test]
fn equal_subjects_share_their_cells() {
    let mut state = isolated(vec![allow(16, Some(SetId(0)), Vec::new())]);
    let one = PolicyTables::build(&state).unwrap().ingress.cells.len();
    let twin = Subject { identity: STRANGER, ..state.subjects[&POD].clone() };
    state.subjects.insert(STRANGER, twin);
    assert_eq!(PolicyTables::build(&state).unwrap().ingress.cells.len(), one);
    check(&state);
}

#[test]
fn what_does_not_fit_says_what_it_would_take() {
    let mut state = with_identities();
    let far = IdentityId(1 << 30);
    state.identities.insert(far, Identity { id: far, kind: IdentityKind::World, description: String::new() });
    let error = PolicyTables::build(&state).unwrap_err();
    assert_eq!((error.takes, error.most), (1 << 30, 1 << 22));
    assert!(error.to_string().contains("1073741824 identities"), "{error}");
}

#[test]
fn an_exception_is_nobody_else() {
    let rules = vec![
        Rule { not_peers: Some(SetId(0)), ..allow(16, None, vec![range(6, 80, 80)]) },
        Rule { not_subjects: Some(SetId(0)), ..allow(17, None, vec![range(6, 81, 81)]) },
    ];
    let mut state = isolated(rules);
    state.subjects.insert(FRIEND, Subject { identity: FRIEND, ..state.subjects[&POD].clone() });
    let tables = PolicyTables::build(&state).unwrap();
    assert_eq!(tables.ingress(POD, STRANGER, 6, 80), by(16));
    assert_eq!(tables.ingress(POD, IdentityId::UNKNOWN, 6, 80), by(16), "the unknown are in no set");
    assert_eq!(tables.ingress(POD, FRIEND, 6, 80), Verdict::DENY);
    assert_eq!(tables.ingress(POD, FRIEND, 6, 81), by(17));
    assert_eq!(tables.ingress(FRIEND, POD, 6, 81), Verdict::DENY);
    check(&state);
}

#[test]
fn a_rule_that_logs_marks_what_the_next_decides() {
    let log = |id, ports| Rule { action: Action::Log, ..allow(id, Some(SetId(0)), ports) };
    let rules = vec![
        log(16, vec![range(6, 80, 90)]),
        allow(17, None, vec![range(6, 80, 80), range(6, 99, 99)]),
        log(18, Vec::new()),
    ];
    let state = isolated(rules);
    let tables = PolicyTables::build(&state).unwrap();
    let marked = |log, verdict| Verdict { log: Some(RuleId(log)), ..verdict };
    assert_eq!(tables.ingress(POD, FRIEND, 6, 80), marked(16, by(17)));
    assert_eq!(tables.ingress(POD, FRIEND, 6, 81), marked(16, Verdict::DENY), "the first of two that log");
    assert_eq!(tables.ingress(POD, FRIEND, 6, 91), marked(18, Verdict::DENY));
    assert_eq!(tables.ingress(POD, FRIEND, 6, 99), by(17), "what logs behind it is not asked");
    assert_eq!(tables.ingress(POD, STRANGER, 6, 80), by(17));
    check(&state);
}

#[test]
fn what_is_staged_decides_nothing() {
    let mut state = isolated(vec![allow(16, None, vec![range(6, 80, 80)])]);
    assert!(PolicyTables::build(&state).unwrap().staged().is_none());
    insert(&mut state, 1, Standing::Staged, vec![allow(17, None, vec![range(6, 81, 81)])]);
    let tier = Tier { name: "t".into(), policies: vec![PolicyId(1)], default: TierDefault::Deny };
    let subject = Subject { identity: STRANGER, ingress: vec![tier], egress: Vec::new() };
    state.subjects.insert(STRANGER, subject);
    if let Some(policy) = state.policies.get_mut(&PolicyId(0)) {
        policy.standing = Standing::StagedRemoval;
    }
    let tables = PolicyTables::build(&state).unwrap();
    let staged = |subject, port| {
        let staged = tables.staged().unwrap();
        staged.verdict(PolicyDirection::Ingress, subject, FRIEND, 6, port)
    };
    assert_eq!(tables.ingress(POD, FRIEND, 6, 80), by(16));
    assert_eq!(staged(POD, 80), Verdict::NOT_ISOLATED, "all that isolates it is to go");
    assert_eq!(tables.ingress(STRANGER, FRIEND, 6, 80), Verdict::NOT_ISOLATED);
    assert_eq!((staged(STRANGER, 80), staged(STRANGER, 81)), (Verdict::DENY, by(17)));
    assert_eq!(tables.ingress(POD, FRIEND, 6, 81), Verdict::DENY);
    check(&state);
}

/// `count` rules that allow one CIDR one port each, and an identity for each CIDR.
fn own_peer_and_port(count: u32) -> DesiredState {
    let rules =
        (0..count).map(|i| allow(1_000_000 + i, Some(SetId(100 + i)), vec![range(17, port(i), port(i))]));
    let mut state = isolated(rules.collect());
    for i in 0..count {
        let id = IdentityId(1000 + i);
        let description = format!("world in {i}");
        state.identities.insert(id, Identity { id, kind: IdentityKind::World, description });
        state.sets.insert(SetId(100 + i), IdentitySet { id: SetId(100 + i), members: vec![id] });
    }
    state
}

fn port(rule: u32) -> u16 {
    (rule * 7 % 65536) as u16
}

fn own_peer_and_port_compile(count: u32, most_bytes: usize) {
    let state = own_peer_and_port(count);
    let tables = PolicyTables::build(&state).unwrap();
    assert_eq!(tables.refused(), []);
    assert!(tables.memory_bytes() < most_bytes, "{} bytes", tables.memory_bytes());
    for i in (0..count).step_by(997) {
        let verdict = |peer, port| tables.ingress(POD, IdentityId(1000 + peer), 17, port);
        assert_eq!(verdict(i, port(i)), by(1_000_000 + i));
        assert_eq!(verdict(i, port(i).wrapping_add(1)), Verdict::DENY);
        assert_eq!(verdict((i + 1) % count, port(i)), Verdict::DENY);
        assert_eq!(tables.ingress(POD, IdentityId(1000 + i), 6, port(i)), Verdict::DENY);
    }
    assert_eq!(tables.ingress(POD, STRANGER, 17, port(0)), Verdict::DENY);
    assert_eq!(tables.ingress(POD, LOCAL_NODE, 17, port(1)), Verdict::LOCAL_NODE);
}

#[test]
fn ten_thousand_rules_of_a_peer_and_a_port_each_compile() {
    own_peer_and_port_compile(10_000, 5 << 20);
}

#[test]
fn a_hundred_thousand_rules_of_a_peer_and_a_port_each_compile() {
    own_peer_and_port_compile(100_000, 50 << 20);
}

#[test]
fn a_hundred_thousand_rules_for_one_peer_compile() {
    let rules = (0..100_000u32)
        .map(|i| allow(16 + i, Some(SetId(0)), vec![range(17, (i % 500) as u16, (i % 500) as u16)]));
    let tables = PolicyTables::build(&isolated(rules.collect())).unwrap();
    assert_eq!(tables.ingress(POD, FRIEND, 17, 77), by(16 + 77));
    assert_eq!(tables.ingress(POD, FRIEND, 17, 500), Verdict::DENY);
}

#[test]
fn each_port_of_two_protocols_may_have_its_own_rule() {
    let rules = (0..=65535u16).flat_map(|port| {
        let id = 16 + 2 * u32::from(port);
        [allow(id, None, vec![range(6, port, port)]), allow(id + 1, None, vec![range(17, port, port)])]
    });
    let tables = PolicyTables::build(&isolated(rules.collect())).unwrap();
    assert_eq!(tables.ingress(POD, STRANGER, 6, 65535), by(16 + 2 * 65535));
    assert_eq!(tables.ingress(POD, FRIEND, 17, 300), by(17 + 600));
    assert_eq!(tables.ingress(POD, FRIEND, 132, 300), Verdict::DENY);
}

/// A pod of a large policy and one of a small.
fn large_and_small() -> DesiredState {
    let mut state = own_peer_and_port(500);
    insert(&mut state, 1, Standing::Enforced, vec![allow(16, Some(SetId(0)), vec![range(6, 80, 80)])]);
    let ingress = vec![Tier { name: "tier".into(), policies: vec![PolicyId(1)], default: TierDefault::Deny }];
    state.subjects.insert(STRANGER, Subject { identity: STRANGER, ingress, egress: Vec::new() });
    state
}

#[test]
fn policy_that_is_too_large_denies_its_own_pods_and_no_others() {
    let state = large_and_small();
    let narrow = [
        ("nodes of rows of verdicts", Limits { nodes: 100, ..Limits::DEFAULT }),
        ("distinct rows of verdicts", Limits { rows: 100, ..Limits::DEFAULT }),
        ("pairs of rule and peer class for one subject", Limits { matches: 100, ..Limits::DEFAULT }),
        ("steps of compiling", Limits { steps: 600, ..Limits::DEFAULT }),
        ("pairs of subject and peer classes", Limits { cells: 4 * 503, ..Limits::DEFAULT }),
    ];
    let small = PolicyTables::build(&state).unwrap().ingress(STRANGER, FRIEND, 6, 80);
    assert!(small.allow);
    for (what, limits) in narrow {
        let tables = PolicyTables::build_within(&state, &limits).unwrap();
        let [refused] = tables.refused() else { panic!("{what}: {:?}", tables.refused()) };
        assert!(
            refused.error.what.starts_with(what) && refused.error.takes > refused.error.most,
            "{refused:?}"
        );
        assert_eq!((&*refused.subjects, &*refused.policies), (&[POD][..], &[PolicyId(0)][..]));
        for peer in [FRIEND, IdentityId::UNKNOWN, IdentityId(1000)] {
            assert_eq!(tables.ingress(POD, peer, 17, port(0)), Verdict::TOO_LARGE, "{what}");
        }
        assert_eq!(tables.ingress(POD, LOCAL_NODE, 17, 1), Verdict::LOCAL_NODE);
        assert_eq!(tables.egress(POD, FRIEND, 6, 80), Verdict::NOT_ISOLATED);
        assert_eq!(tables.ingress(STRANGER, FRIEND, 6, 80), small, "{what}");
        assert_eq!(tables.ingress(STRANGER, FRIEND, 6, 81), Verdict::DENY);
    }
}

#[test]
fn deny_all_denies_all() {
    let tables = PolicyTables::deny_all();
    let known = BTreeMap::from([(POD, ()), (IdentityId::UNKNOWN, ()), (IdentityId(u32::MAX), ())]);
    for (subject, peer) in known.keys().zip(known.keys().rev()) {
        assert!(DIRECTIONS.iter().all(|d| !tables.verdict(*d, *subject, *peer, 255, 65535).allow));
    }
}
