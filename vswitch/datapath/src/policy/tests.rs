use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::subsequence;
use vswitch_model::{
    Action, DesiredState, Identity, IdentityKind, IdentitySet, Policy, PolicyId, PortMatch, Rule, SetId,
    Subject, Tier, TierDefault,
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
    let protocol = prop_oneof![Just(6u8), Just(17), Just(132), Just(1), Just(47)];
    let range = (edges.clone(), edges).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let range = prop_oneof![4 => range, 1 => Just((0, u16::MAX))];
    (protocol, range).prop_map(|(protocol, (first, last))| PortMatch { protocol, first, last })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Pass)];
    let set = || proptest::option::of((0..SETS).prop_map(SetId));
    let subjects = prop_oneof![3 => Just(None), 1 => set()];
    (action, set(), subjects, proptest::collection::vec(ports(), 0..3)).prop_map(
        |(action, peers, subjects, ports)| Rule {
            id: RuleId(0),
            action,
            peers,
            subjects,
            ports,
            position: String::new(),
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
    let policies = proptest::collection::vec(proptest::collection::vec(rule(), 0..5), POLICIES as usize);
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
        for (id, mut rules) in (0..).map(PolicyId).zip(policies) {
            for rule in &mut rules {
                rule.id = RuleId(number);
                number += 1;
            }
            state.policies.insert(id, Policy { id, name: format!("policy {}", id.0), rules });
        }
        for (identity, (ingress, egress)) in subjects.into_iter().zip(tiers) {
            state.subjects.insert(identity, Subject { identity, ingress, egress });
        }
        state
    })
}

/// Every protocol the rules know and two they do not, at every port at which something could change.
fn probes(state: &DesiredState) -> Vec<(u8, u16)> {
    let mut probes: Vec<(u8, u16)> = [6, 17, 132, 1, 47, 58].map(|protocol| (protocol, 0)).into();
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
    state.policies.insert(PolicyId(0), Policy { id: PolicyId(0), name: "policy".into(), rules });
    let ingress = vec![Tier { name: "tier".into(), policies: vec![PolicyId(0)], default: TierDefault::Deny }];
    state.subjects.insert(POD, Subject { identity: POD, ingress, egress: Vec::new() });
    state
}

fn allow(id: u32, peers: Option<SetId>, ports: Vec<PortMatch>) -> Rule {
    Rule { id: RuleId(id), action: Action::Allow, peers, subjects: None, ports, position: String::new() }
}

fn range(protocol: u8, first: u16, last: u16) -> PortMatch {
    PortMatch { protocol, first, last }
}

#[test]
fn an_isolated_pod_is_reached_as_its_rules_say() {
    let state = isolated(vec![
        allow(16, Some(SetId(0)), vec![range(17, 10_000, 20_000)]),
        allow(17, None, vec![range(1, 0, 0)]),
    ]);
    let tables = PolicyTables::build(&state).unwrap();
    let by = |rule| Verdict { allow: true, rule: RuleId(rule) };
    for (peer, protocol, port, verdict) in [
        (FRIEND, 17, 10_000, by(16)),
        (FRIEND, 17, 20_000, by(16)),
        (FRIEND, 17, 9_999, Verdict::DENY),
        (FRIEND, 17, 20_001, Verdict::DENY),
        (FRIEND, 6, 10_000, Verdict::DENY),
        (STRANGER, 17, 10_000, Verdict::DENY),
        (STRANGER, 1, 0, by(17)),
        (IdentityId::UNKNOWN, 1, 0, by(17)),
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
        assert_eq!(verdict(i, port(i)), Verdict { allow: true, rule: RuleId(1_000_000 + i) });
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
    let first = Verdict { allow: true, rule: RuleId(16 + 77) };
    assert_eq!(tables.ingress(POD, FRIEND, 17, 77), first);
    assert_eq!(tables.ingress(POD, FRIEND, 17, 500), Verdict::DENY);
}

#[test]
fn each_port_of_two_protocols_may_have_its_own_rule() {
    let rules = (0..=65535u16).flat_map(|port| {
        let id = 16 + 2 * u32::from(port);
        [allow(id, None, vec![range(6, port, port)]), allow(id + 1, None, vec![range(17, port, port)])]
    });
    let tables = PolicyTables::build(&isolated(rules.collect())).unwrap();
    let by = |rule| Verdict { allow: true, rule: RuleId(rule) };
    assert_eq!(tables.ingress(POD, STRANGER, 6, 65535), by(16 + 2 * 65535));
    assert_eq!(tables.ingress(POD, FRIEND, 17, 300), by(17 + 600));
    assert_eq!(tables.ingress(POD, FRIEND, 132, 300), Verdict::DENY);
}

/// A pod of a large policy and one of a small.
fn large_and_small() -> DesiredState {
    let mut state = own_peer_and_port(500);
    let rules = vec![allow(16, Some(SetId(0)), vec![range(6, 80, 80)])];
    state.policies.insert(PolicyId(1), Policy { id: PolicyId(1), name: "small".into(), rules });
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
