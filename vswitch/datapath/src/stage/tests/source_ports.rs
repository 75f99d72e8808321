//! Rules that ask for source ports, asked of packets: first ones, replies, pieces, and flows that live.

use vswitch_model::{Action, DropReason, Policy, PolicyId, PortMatch, Rule, RuleId, Standing};

use crate::FlowVerdict;
use crate::testing::World;
use crate::testing::frames;
use crate::testing::world::{A, B, C, v4, v6};

fn from(id: u32, action: Action, first: u16, last: u16) -> Rule {
    let source_ports = vec![PortMatch { protocol: 17, first, last }];
    Rule { source_ports, ..Rule::new(RuleId(id), action, format!("rule {id}")) }
}

/// The server's policy (1), or the stranger's (2), has these rules from now on.
fn put(world: &mut World, policy: u32, rules: Vec<Rule>) {
    world.desired.policies.get_mut(&PolicyId(policy)).unwrap().rules = rules;
    world.recompile();
}

#[test]
fn both_ends_look_at_where_a_packet_comes_from() {
    for server in [v4(1, B), v6(1, B)] {
        let mut world = World::node(1);
        put(&mut world, 1, vec![from(20, Action::Allow, 1000, 1999)]);
        put(&mut world, 2, vec![from(21, Action::Allow, 1500, 65_535)]);
        for (sender, port, passes) in
            [(A, 999, 0), (A, 1000, 1), (A, 1999, 1), (A, 2000, 0), (C, 1499, 0), (C, 1500, 1), (C, 2000, 0)]
        {
            let frame = world.ends(sender, server).udp(port, 5000, &[]);
            assert_eq!(world.send(sender, &frame).len(), passes, "from {port}");
        }
        // What answers comes from a port that no rule allows, and belongs to a flow.
        let answer = world.ends(B, if server.is_ipv4() { v4(1, A) } else { v6(1, A) }).udp(5000, 1000, &[]);
        assert_eq!(world.send(B, &answer).len(), 1);
        let tcp = world.ends(A, server).tcp(1000, 5000, 2, &[]);
        assert_eq!(world.send(A, &tcp), [], "of another protocol");
    }
}

#[test]
fn a_flow_that_lives_is_judged_by_the_port_of_the_end_that_opened_it() {
    let mut world = World::node(1);
    put(&mut world, 1, vec![from(20, Action::Allow, 1000, 1999)]);
    let opens = |world: &World, port| world.ends(A, v4(1, B)).udp(port, 5000, &[]);
    let answers = |world: &World, port| world.ends(B, v4(1, A)).udp(5000, port, &[]);
    let all: Vec<_> = [1000, 1999]
        .into_iter()
        .flat_map(|port| [(A, opens(&world, port)), (B, answers(&world, port))])
        .collect();
    assert_eq!(world.send_all(all).len(), 4);
    // It is the answer that has it judged again: its destination is where the flow comes from.
    put(&mut world, 1, vec![from(22, Action::Allow, 1000, 1000)]);
    let answer = answers(&world, 1000);
    assert_eq!(world.send(B, &answer).len(), 1);
    assert_eq!(world.walk.flows().filter(|flow| flow.ingress == RuleId(22)).count(), 1);
    let denied = opens(&world, 1999);
    assert_eq!(world.send(A, &denied), []);
    let told = std::iter::from_fn(|| world.walk.counters().flow_log.take()).last().unwrap();
    let verdict = FlowVerdict::Denied { reason: DropReason::PolicyIngress, rule: RuleId::NO_RULE_MATCHED };
    assert_eq!((told.ports, told.verdict), ((1999, 5000), verdict));
}

#[test]
fn what_is_staged_looks_at_it_too() {
    let mut world = World::node(1);
    let rules = vec![from(30, Action::Deny, 7, 7)];
    let policy =
        Policy { id: PolicyId(9), name: "staged".to_owned(), standing: Standing::Staged, rules, end: None };
    world.desired.policies.insert(policy.id, policy);
    for subject in world.desired.subjects.values_mut() {
        subject.ingress.iter_mut().for_each(|tier| tier.policies.insert(0, PolicyId(9)));
    }
    world.recompile();
    for port in [7, 8] {
        let frame = world.ends(A, v4(1, B)).udp(port, 5000, &[]);
        assert_eq!(world.send(A, &frame).len(), 1);
    }
    let told: Vec<_> = std::iter::from_fn(|| world.walk.counters().flow_log.take()).collect();
    let said: Vec<_> = told.iter().map(|it| (it.ports.0, it.staged.map(|staged| staged.allow()))).collect();
    assert_eq!(said, [(7, Some(false))]);
}

#[test]
fn pieces_follow_the_first_which_alone_has_ports() {
    let mut world = World::node(1);
    put(&mut world, 1, vec![from(20, Action::Allow, 1000, 1999)]);
    for (port, passes) in [(1000, 2), (2000, 0)] {
        let whole = world.ends(A, v4(1, B)).udp(port, 5000, &[5; 64]);
        let pieces = frames::cut_v4(&whole, 32).map(|piece| (A, piece));
        assert_eq!(world.send_all(pieces).len(), passes, "from {port}");
    }
}
