//! Policy by the hundred thousand, and what does not fit.

use super::*;

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
        let verdict = |peer, port| tables.ingress(POD, IdentityId(1000 + peer), to_port(17, port));
        assert_eq!(verdict(i, port(i)), by(1_000_000 + i));
        assert_eq!(verdict(i, port(i).wrapping_add(1)), Verdict::DENY);
        assert_eq!(verdict((i + 1) % count, port(i)), Verdict::DENY);
        assert_eq!(tables.ingress(POD, IdentityId(1000 + i), to_port(6, port(i))), Verdict::DENY);
    }
    assert_eq!(tables.ingress(POD, STRANGER, to_port(17, port(0))), Verdict::DENY);
    assert_eq!(tables.ingress(POD, LOCAL_NODE, to_port(17, port(1))), Verdict::LOCAL_NODE);
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
    assert_eq!(tables.ingress(POD, FRIEND, to_port(17, 77)), by(16 + 77));
    assert_eq!(tables.ingress(POD, FRIEND, to_port(17, 500)), Verdict::DENY);
}

#[test]
fn each_port_of_two_protocols_may_have_its_own_rule() {
    let rules = (0..=65535u16).flat_map(|port| {
        let id = 16 + 2 * u32::from(port);
        [allow(id, None, vec![range(6, port, port)]), allow(id + 1, None, vec![range(17, port, port)])]
    });
    let tables = PolicyTables::build(&isolated(rules.collect())).unwrap();
    assert_eq!(tables.ingress(POD, STRANGER, to_port(6, 65535)), by(16 + 2 * 65535));
    assert_eq!(tables.ingress(POD, FRIEND, to_port(17, 300)), by(17 + 600));
    assert_eq!(tables.ingress(POD, FRIEND, to_port(132, 300)), Verdict::DENY);
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
        ("lines of verdicts", Limits { lines: 100, ..Limits::DEFAULT }),
        ("pairs of rule and peer class for one subject", Limits { matches: 100, ..Limits::DEFAULT }),
        ("steps of compiling", Limits { steps: 600, ..Limits::DEFAULT }),
        ("pairs of subject and peer classes", Limits { cells: 4 * 503, ..Limits::DEFAULT }),
    ];
    let small = PolicyTables::build(&state).unwrap().ingress(STRANGER, FRIEND, to_port(6, 80));
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
            assert_eq!(tables.ingress(POD, peer, to_port(17, port(0))), Verdict::TOO_LARGE, "{what}");
        }
        assert_eq!(tables.ingress(POD, LOCAL_NODE, to_port(17, 1)), Verdict::LOCAL_NODE);
        assert_eq!(tables.egress(POD, FRIEND, to_port(6, 80)), Verdict::NOT_ISOLATED);
        assert_eq!(tables.ingress(STRANGER, FRIEND, to_port(6, 80)), small, "{what}");
        assert_eq!(tables.ingress(STRANGER, FRIEND, to_port(6, 81)), Verdict::DENY);
    }
}

#[test]
fn deny_all_denies_all() {
    let tables = PolicyTables::deny_all();
    let known = BTreeMap::from([(POD, ()), (IdentityId::UNKNOWN, ()), (IdentityId(u32::MAX), ())]);
    for (subject, peer) in known.keys().zip(known.keys().rev()) {
        assert!(DIRECTIONS.iter().all(|d| !tables.verdict(*d, *subject, *peer, to_port(255, 65535)).allow));
    }
}
