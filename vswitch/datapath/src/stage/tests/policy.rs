//! What policy says of a packet beyond whether it passes: kinds of ICMP, what rules count, what is told.

use vswitch_model::{
    Action, DropReason, IdentityId, Policy, PolicyId, PortMatch, Rule, RuleId, Standing, TierDefault,
};

use crate::policy::Verdict;
use crate::tables::StagedVerdict;
use crate::testing::World;
use crate::testing::world::{A, B, C, RULE_SERVER, RULE_STRANGER, v4, v6};
use crate::{FlowRecord, FlowVerdict, RuleCounts, WalkConfig};

/// The server's only policy has these rules from now on.
fn serve(world: &mut World, rules: Vec<Rule>) {
    world.desired.policies.get_mut(&PolicyId(1)).unwrap().rules = rules;
    world.recompile();
}

fn rule(id: u32, action: Action, ports: Vec<PortMatch>) -> Rule {
    Rule { ports, ..Rule::new(RuleId(id), action, format!("rule {id}")) }
}

fn udp(first: u16, last: u16) -> PortMatch {
    PortMatch { protocol: 17, first, last }
}

fn told(world: &World) -> Vec<FlowRecord> {
    std::iter::from_fn(|| world.walk.counters().flow_log.take()).collect()
}

fn counts(world: &World, rule: RuleId) -> RuleCounts {
    world.walk.counters().rules.counts(rule)
}

/// The message with another type; its checksum is the receiver's business.
fn with_kind(mut frame: Vec<u8>, kind: u8) -> Vec<u8> {
    let header = if frame[12] == 8 { 20 } else { 40 };
    frame[14 + header] = kind;
    frame
}

#[test]
fn one_kind_of_icmp_opens_nothing_for_another() {
    for (server, protocol, echo, other) in [(v4(1, B), 1, 8, 13), (v6(1, B), 58, 128, 130)] {
        let mut world = World::node(1);
        let message = PortMatch::message(echo, 0);
        let ports = vec![PortMatch { protocol, first: message, last: message }];
        serve(&mut world, vec![rule(16, Action::Allow, ports)]);
        let client = world.ends(A, server);
        let ping = client.ping(9, &[]);
        assert_eq!(world.send(A, &ping).len(), 1);
        assert_eq!(world.send(A, &with_kind(ping.clone(), other)), [], "of the same identifier");
        assert_eq!(told(&world).len(), 1);
        let pong = world.ends(B, client.source).pong(9, &[]);
        assert_eq!(world.send(B, &pong).len(), 1);
        // By new tables the flow is judged by its kind, though the packet is a reply.
        world.recompile();
        assert_eq!(world.send(B, &pong).len(), 1);
        let all = vec![PortMatch { protocol, first: 0, last: message - 1 }];
        serve(&mut world, vec![rule(16, Action::Allow, all)]);
        assert_eq!(world.send(A, &ping), []);
        assert_eq!(world.walk.flows().map(|flow| flow.is_revoked).collect::<Vec<_>>(), [true]);
    }
}

#[test]
fn rules_count_flows_when_they_open_and_their_packets_when_they_end() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let frame = client.udp(9, 5000, b"1234");
    let answer = world.ends(B, v4(1, A)).udp(5000, 9, b"1");
    world.send_all([(A, frame.clone()), (A, frame.clone()), (B, answer)]);
    assert_eq!(counts(&world, RULE_SERVER), RuleCounts { flows: 1, ..RuleCounts::default() });
    let live = world.walk.flows().next().unwrap();
    let now = counts(&world, RULE_SERVER).plus_flow(&live);
    assert_eq!(now, RuleCounts { flows: 1, packets: 3, bytes: 32 + 32 + 29, ..RuleCounts::default() });
    world.wait_s(181);
    world.walk.tick(world.now, 2000);
    assert_eq!(counts(&world, RULE_SERVER), now);
    assert!(counts(&world, RuleId::NOT_ISOLATED).is_empty(), "no rule");
}

#[test]
fn what_is_denied_counts_for_what_denied_it() {
    let mut world = World::node(1);
    serve(&mut world, vec![rule(20, Action::Deny, vec![udp(7, 7)])]);
    let client = world.ends(A, v4(1, B));
    for port in [7, 7, 8] {
        assert_eq!(world.send(A, &client.udp(9, port, &[0; 100])), []);
    }
    let denied = |packets| RuleCounts {
        denied_packets: packets,
        denied_bytes: packets * 128,
        ..RuleCounts::default()
    };
    assert_eq!(counts(&world, RuleId(20)), denied(2));
    assert_eq!(counts(&world, RuleId::NO_RULE_MATCHED), denied(1));
}

#[test]
fn a_flow_that_another_rule_allows_counts_for_each_what_it_allowed() {
    let mut world = World::node(1);
    let frame = world.ends(A, v4(1, B)).udp(9, 5000, &[0; 72]);
    world.send_all([(A, frame.clone()), (A, frame.clone())]);
    serve(&mut world, vec![rule(21, Action::Allow, Vec::new())]);
    world.send_all([(A, frame.clone()), (A, frame.clone()), (A, frame.clone())]);
    let allowed =
        |flows, packets| RuleCounts { flows, packets, bytes: packets * 100, ..RuleCounts::default() };
    assert_eq!(counts(&world, RULE_SERVER), allowed(1, 2));
    let live = world.walk.flows().next().unwrap();
    assert_eq!(counts(&world, RuleId(21)).plus_flow(&live), allowed(0, 3));
    world.wait_s(31);
    world.walk.tick(world.now, 2000);
    assert_eq!(counts(&world, RuleId(21)), allowed(0, 3));
}

#[test]
fn flows_are_judged_again_where_the_policy_of_an_end_changed() {
    let mut world = World::node(1);
    let frame = |world: &World, from, to| (from, world.ends(from, v4(1, to)).udp(9, 5000, &[]));
    let (served, free) = (frame(&world, A, B), frame(&world, C, A));
    let all = vec![served.clone(), free.clone()];
    assert_eq!(world.send_all(all.clone()).len(), 2);
    let judged = |world: &mut World, passes: usize| {
        assert_eq!(world.send_all(all.clone()).len(), passes);
        let moved = world.moved();
        let told = moved.iter().find_map(|line| line.strip_prefix("stage revalidate ").map(str::to_owned));
        told.map_or(0, |count| count.parse().unwrap())
    };
    world.republish();
    assert_eq!(judged(&mut world, 2), 0, "nothing changed");
    assert!(world.walk.flows().all(|flow| flow.revision == world.tables.revision));
    // A route moves: adjacencies are others, verdicts are not.
    world.desired.routes.insert("10.9.0.0/16".parse().unwrap(), vswitch_model::NextHop::Unreachable);
    world.desired.policies.get_mut(&PolicyId(1)).unwrap().standing = Standing::StagedRemoval;
    world.republish();
    assert_eq!(judged(&mut world, 2), 1, "the server's is in force as before, but would not be");
    world.republish();
    assert_eq!(judged(&mut world, 2), 0, "so it was");
    world.desired.policies.get_mut(&PolicyId(1)).unwrap().rules[0].ports.push(udp(1, 2));
    world.republish();
    assert_eq!(judged(&mut world, 2), 1, "the server's policy is another");
    world.desired.sets.values_mut().next().unwrap().members = vec![IdentityId(16), IdentityId(18)];
    world.republish();
    assert_eq!(judged(&mut world, 2), 2, "both refer to the set");
    let policy = world.desired.policies.get_mut(&PolicyId(1)).unwrap();
    policy.standing = Standing::Staged;
    world.republish();
    assert_eq!(judged(&mut world, 2), 1, "nothing isolates the server");
    world.desired.policies.get_mut(&PolicyId(1)).unwrap().standing = Standing::Enforced;
    world.desired.policies.get_mut(&PolicyId(1)).unwrap().rules[0].ports = vec![udp(1, 2)];
    world.republish();
    assert_eq!(judged(&mut world, 1), 1, "it denies the flow now");
    // An end is somebody else.
    world.desired.prefixes.insert(v4(1, A).into(), IdentityId(18));
    world.republish();
    assert_eq!(judged(&mut world, 1), 2, "what is denied is asked about each time");
    let lives = world.walk.flows().find(|flow| !flow.is_revoked).unwrap();
    assert_eq!(lives.identities, [IdentityId(18), IdentityId(18)]);
}

#[test]
fn what_is_denied_is_told_once_in_a_while() {
    let mut world = World::node(1);
    let frame = world.ends(C, v4(1, B)).udp(9, 5000, &[]);
    world.send_all([(C, frame.clone()), (C, frame.clone())]);
    let [record] = told(&world)[..] else { panic!("one record") };
    let expected = FlowRecord {
        time: world.now,
        revision: world.tables.revision,
        in_port: C,
        source: v4(1, C),
        destination: v4(1, B),
        protocol: 17,
        ports: (9, 5000),
        identities: [IdentityId(18), IdentityId(17)],
        verdict: FlowVerdict::Denied { reason: DropReason::PolicyEgress, rule: RuleId::NO_RULE_MATCHED },
        marks: [None; 2],
        staged: None,
        suppressed: 0,
    };
    assert_eq!(record, expected);
    world.wait_s(10);
    world.send(C, &frame);
    assert_eq!(told(&world).iter().map(|record| record.suppressed).collect::<Vec<_>>(), [1]);
    world.send(A, &world.ends(A, v4(1, B)).udp(9, 5000, &[]));
    assert_eq!(told(&world), [], "allowed, and no rule marks it");
}

#[test]
fn a_flood_of_denied_flows_is_told_at_a_bounded_rate() {
    let config = WalkConfig { flow_records_per_second: 5, ..WalkConfig::default() };
    let mut world = World::with_config(1, &config);
    for port in 0..50 {
        world.send(C, &world.ends(C, v4(1, B)).udp(port, 5000, &[]));
    }
    assert_eq!(told(&world).len(), 5);
    assert_eq!(world.walk.counters().flow_log.suppressed.get(), 45);
}

#[test]
fn a_rule_that_logs_marks_the_flow_whatever_becomes_of_it() {
    let mut world = World::node(1);
    let log = rule(20, Action::Log, vec![udp(1, 2)]);
    serve(&mut world, vec![log, rule(21, Action::Allow, vec![udp(2, 3)])]);
    let client = world.ends(A, v4(1, B));
    for (port, passes) in [(1, 0), (2, 1), (3, 1), (2, 1)] {
        assert_eq!(world.send(A, &client.udp(9, port, &[])).len(), passes);
    }
    let told = told(&world);
    let said: Vec<_> = told.iter().map(|record| (record.ports.1, record.verdict, record.marks[1])).collect();
    let denied = FlowVerdict::Denied { reason: DropReason::PolicyIngress, rule: RuleId::NO_RULE_MATCHED };
    let allowed = FlowVerdict::Allowed { egress: RuleId::NOT_ISOLATED, ingress: RuleId(21) };
    assert_eq!(said, [(1, denied, Some(RuleId(20))), (2, allowed, Some(RuleId(20)))]);
    assert_eq!(counts(&world, RuleId(20)).marked, 2, "packets of a known flow are not marked again");
}

#[test]
fn what_is_staged_is_counted_and_told_where_it_differs_and_nothing_else() {
    let mut world = World::node(1);
    let stage = |world: &mut World, rules| {
        let policy = Policy {
            id: PolicyId(9),
            name: "staged".to_owned(),
            standing: Standing::Staged,
            rules,
            end: None,
        };
        world.desired.policies.insert(policy.id, policy);
        for subject in world.desired.subjects.values_mut() {
            for tier in subject.ingress.iter_mut().chain(&mut subject.egress) {
                tier.policies.insert(0, PolicyId(9));
                assert_eq!(tier.default, TierDefault::Deny);
            }
        }
        world.recompile();
    };
    stage(
        &mut world,
        vec![rule(30, Action::Deny, vec![udp(5001, 5001)]), rule(31, Action::Allow, vec![udp(7, 7)])],
    );
    let client = world.ends(A, v4(1, B));
    for (port, passes) in [(5000, 1), (5001, 1), (5001, 1), (7, 0), (8, 0)] {
        assert_eq!(world.send(A, &client.udp(9, port, &[])).len(), passes, "port {port}");
    }
    let staged = |allow, rule: RuleId| Some(Verdict::of(allow, rule));
    let said: Vec<_> = told(&world).iter().map(|record| (record.ports.1, record.staged)).collect();
    let ingress =
        |verdict| Some(StagedVerdict { egress: staged(true, RuleId::NOT_ISOLATED), ingress: verdict });
    assert_eq!(
        said,
        [(5001, ingress(staged(false, RuleId(30)))), (7, ingress(staged(true, RuleId(31)))), (8, None),]
    );
    assert_eq!(counts(&world, RuleId(30)), RuleCounts { staged_denied: 1, ..RuleCounts::default() });
    assert_eq!(counts(&world, RuleId(31)), RuleCounts { staged_allowed: 1, ..RuleCounts::default() });
    let stranger = world.ends(C, v4(1, B));
    assert_eq!(world.send(C, &stranger.udp(9, 7, &[])), []);
    assert_eq!(counts(&world, RuleId(31)).staged_allowed, 3, "by the sender's end and the receiver's");
    assert_eq!(counts(&world, RULE_STRANGER), RuleCounts::default());
}

#[test]
fn a_flow_that_lives_is_logged_and_staged_when_policy_changes() {
    let mut world = World::node(1);
    let allow = || rule(21, Action::Allow, Vec::new());
    serve(&mut world, vec![allow()]);
    let (frame, answer) =
        (world.ends(A, v4(1, B)).udp(9, 5000, &[]), world.ends(B, v4(1, A)).udp(5000, 9, &[]));
    assert_eq!(world.send_all([(A, frame.clone()), (B, answer.clone())]).len(), 2);
    assert_eq!(told(&world), []);
    // A rule that logs comes before the one that allows: told by whichever packet comes next, as the flow it is of.
    serve(&mut world, vec![rule(20, Action::Log, Vec::new()), allow()]);
    assert_eq!(world.send_all([(B, answer.clone()), (A, frame.clone()), (B, answer.clone())]).len(), 3);
    let [record] = told(&world)[..] else { panic!("one record") };
    let allowed = FlowVerdict::Allowed { egress: RuleId::NOT_ISOLATED, ingress: RuleId(21) };
    assert_eq!((record.verdict, record.marks), (allowed, [None, Some(RuleId(20))]));
    assert_eq!((record.source, record.destination, record.ports), (v4(1, A), v4(1, B), (9, 5000)));
    assert_eq!((record.in_port, record.identities), (A, [IdentityId(16), IdentityId(17)]));
    assert_eq!(counts(&world, RuleId(20)).marked, 1);
    assert_eq!(counts(&world, RuleId(21)).flows, 1, "it was opened once");
    // Tables that say the same of it say it no more.
    world.republish();
    assert_eq!(world.send(A, &frame).len(), 1);
    assert_eq!((told(&world), counts(&world, RuleId(20)).marked), (Vec::new(), 1));
    // What is staged would deny it.
    let deny = vec![rule(30, Action::Deny, Vec::new())];
    let staged =
        Policy { id: PolicyId(9), name: "staged".into(), standing: Standing::Staged, rules: deny, end: None };
    world.desired.policies.insert(staged.id, staged);
    for subject in world.desired.subjects.values_mut() {
        subject.ingress.iter_mut().for_each(|tier| tier.policies.insert(0, PolicyId(9)));
    }
    world.wait_s(10);
    serve(&mut world, vec![allow()]);
    assert_eq!(world.send(A, &frame).len(), 1);
    let [record] = told(&world)[..] else { panic!("one record") };
    assert_eq!(record.marks, [None; 2]);
    assert!(record.staged.is_some_and(|staged| !staged.allow()));
    assert_eq!(counts(&world, RuleId(30)), RuleCounts { staged_denied: 1, ..RuleCounts::default() });
}

#[test]
fn a_flow_that_lives_is_told_of_when_what_is_staged_alone_changes() {
    let mut world = World::node(1);
    let frame = |world: &World, from, to| (from, world.ends(from, v4(1, to)).udp(9, 5000, &[]));
    let all = vec![frame(&world, A, B), frame(&world, C, A)];
    assert_eq!(world.send_all(all.clone()).len(), 2);
    // For the server only: nothing is staged for the other flow's ends.
    let stage = |world: &mut World, rules: Option<Vec<Rule>>| {
        let id = PolicyId(9);
        let tiers = &mut world.desired.subjects.get_mut(&IdentityId(17)).unwrap().ingress;
        tiers.iter_mut().for_each(|tier| tier.policies.retain(|policy| *policy != id));
        world.desired.policies.remove(&id);
        if let Some(rules) = rules {
            tiers.iter_mut().for_each(|tier| tier.policies.insert(0, id));
            let policy =
                Policy { id, name: "staged".to_owned(), standing: Standing::Staged, rules, end: None };
            world.desired.policies.insert(id, policy);
        }
        world.wait_s(10);
        world.republish();
    };
    let said = |world: &mut World| {
        assert_eq!(world.send_all([all.clone(), all.clone()].concat()).len(), 4, "whatever is staged");
        let staged: Vec<_> = told(world).iter().map(|record| (record.destination, record.staged)).collect();
        let of = |id| counts(world, RuleId(id));
        (staged, [30, 31].map(|id| (of(id).staged_allowed, of(id).staged_denied)))
    };
    let denied = StagedVerdict {
        egress: Some(Verdict::of(true, RuleId::NOT_ISOLATED)),
        ingress: Some(Verdict::of(false, RuleId(30))),
    };
    let deny = || rule(30, Action::Deny, Vec::new());
    stage(&mut world, Some(vec![deny()]));
    assert_eq!(said(&mut world), (vec![(v4(1, B), Some(denied))], [(0, 1), (0, 0)]), "it came");
    world.republish();
    assert_eq!(said(&mut world), (vec![], [(0, 1), (0, 0)]), "it is as it was");
    stage(&mut world, Some(vec![rule(31, Action::Allow, Vec::new()), deny()]));
    assert_eq!(said(&mut world), (vec![], [(0, 1), (1, 0)]), "it would not be denied any more");
    stage(&mut world, None);
    assert_eq!(said(&mut world), (vec![], [(0, 1), (1, 0)]), "it is gone");
    stage(&mut world, Some(vec![deny()]));
    assert_eq!(said(&mut world).0, [(v4(1, B), Some(denied))], "it is back");
    assert_eq!(world.walk.flows().count(), 2);
    assert_eq!(world.walk.counters().flows_created.get(), 2);
    assert_eq!(world.walk.counters().flows_revoked.get(), 0);
}
