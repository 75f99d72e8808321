mod follow;
mod large;
mod random;
mod source_ports;

use std::collections::BTreeMap;

use vswitch_model::{
    Action, DesiredState, Identity, IdentityKind, IdentitySet, Policy, PolicyEnd, PolicyId, PortMatch, Rule,
    SetId, Standing, Subject, Tier, TierDefault,
};

use super::limits::Limits;
use super::*;
use random::check;

const IDENTITIES: u32 = 8;
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
    state.policies.insert(id, Policy { id, name: format!("policy {}", id.0), standing, rules, end: None });
}

fn by(rule: u32) -> Verdict {
    Verdict::of(true, RuleId(rule))
}

const fn to_port(protocol: u8, port: u16) -> FlowPorts {
    FlowPorts::to(protocol, port)
}

const fn from_to(source: u16, protocol: u8, destination: u16) -> FlowPorts {
    FlowPorts { protocol, destination, source }
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
        assert_eq!(tables.ingress(POD, peer, to_port(protocol, port)), verdict, "{peer} {protocol} {port}");
    }
    assert_eq!(tables.egress(POD, STRANGER, to_port(6, 1)), Verdict::NOT_ISOLATED);
    assert_eq!(tables.ingress(STRANGER, POD, to_port(6, 1)), Verdict::NOT_ISOLATED);
    assert_eq!(tables.ingress(IdentityId::UNKNOWN, LOCAL_NODE, to_port(6, 1)), Verdict::DENY);
    check(&state);
}

#[test]
fn a_range_over_all_ports_is_the_protocol() {
    let state = isolated(vec![allow(16, None, vec![range(6, 0, 100), range(6, 101, 65535)])]);
    check(&state);
    let tables = PolicyTables::build(&state).unwrap();
    assert!(
        tables.ingress(POD, STRANGER, to_port(6, 100)).allow
            && !tables.ingress(POD, STRANGER, to_port(17, 100)).allow
    );
    assert!(tables.memory_bytes() < 100_000, "no table of 65536 ports for it");
}

#[test]
fn equal_parts_of_rows_are_held_once() {
    let scattered: Vec<_> = (0..1000).map(|i| range(17, i * 64, i * 64)).collect();
    let state = isolated(vec![allow(16, Some(SetId(0)), scattered)]);
    let lines = PolicyTables::build(&state).unwrap().ingress.rows.lines();
    assert!(lines <= 10, "the ports repeat: {lines} lines");
    check(&state);
    check(&with_identities());
}

#[test]
fn equal_subjects_share_their_cells() {
    let mut state = isolated(vec![allow(16, Some(SetId(0)), Vec::new())]);
    let one = PolicyTables::build(&state).unwrap().ingress.blocks.len();
    let twin = Subject { identity: STRANGER, ..state.subjects[&POD].clone() };
    state.subjects.insert(STRANGER, twin);
    assert_eq!(PolicyTables::build(&state).unwrap().ingress.blocks.len(), one);
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
    assert_eq!(tables.ingress(POD, STRANGER, to_port(6, 80)), by(16));
    assert_eq!(tables.ingress(POD, IdentityId::UNKNOWN, to_port(6, 80)), by(16), "the unknown are in no set");
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 80)), Verdict::DENY);
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 81)), by(17));
    assert_eq!(tables.ingress(FRIEND, POD, to_port(6, 81)), Verdict::DENY);
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
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 80)), marked(16, by(17)));
    assert_eq!(
        tables.ingress(POD, FRIEND, to_port(6, 81)),
        marked(16, Verdict::DENY),
        "the first of two that log"
    );
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 91)), marked(18, Verdict::DENY));
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 99)), by(17), "what logs behind it is not asked");
    assert_eq!(tables.ingress(POD, STRANGER, to_port(6, 80)), by(17));
    check(&state);
}

#[test]
fn what_no_rule_matched_is_denied_by_the_last_policy_of_the_tier_that_is_in_the_view() {
    let mut state = isolated(vec![allow(16, None, vec![range(6, 80, 80)])]);
    insert(&mut state, 1, Standing::Enforced, Vec::new());
    insert(&mut state, 2, Standing::Staged, Vec::new());
    for (id, policy) in &mut state.policies {
        policy.end = Some(PolicyEnd { id: RuleId(30 + id.0), position: "ingress: no rule matched".into() });
    }
    let subject = state.subjects.get_mut(&POD).unwrap();
    subject.ingress[0].policies = [0, 1, 2].map(PolicyId).to_vec();
    let tables = PolicyTables::build(&state).unwrap();
    let denied_by = |rule| Verdict::of(false, RuleId(rule));
    assert_eq!(
        (tables.ingress(POD, FRIEND, to_port(6, 80)), tables.ingress(POD, FRIEND, to_port(6, 81))),
        (by(16), denied_by(31))
    );
    let staged = tables.staged().unwrap();
    assert_eq!(staged.verdict(PolicyDirection::Ingress, POD, FRIEND, to_port(6, 81)), denied_by(32));
    check(&state);
    state.policies.get_mut(&PolicyId(1)).unwrap().end = None;
    let tables = PolicyTables::build(&state).unwrap();
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 81)), Verdict::DENY, "it says nothing of what denies");
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
        staged.verdict(PolicyDirection::Ingress, subject, FRIEND, to_port(6, port))
    };
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 80)), by(16));
    assert_eq!(staged(POD, 80), Verdict::NOT_ISOLATED, "all that isolates it is to go");
    assert_eq!(tables.ingress(STRANGER, FRIEND, to_port(6, 80)), Verdict::NOT_ISOLATED);
    assert_eq!((staged(STRANGER, 80), staged(STRANGER, 81)), (Verdict::DENY, by(17)));
    assert_eq!(tables.ingress(POD, FRIEND, to_port(6, 81)), Verdict::DENY);
    check(&state);
}
