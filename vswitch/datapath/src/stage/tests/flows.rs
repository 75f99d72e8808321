use vswitch_model::{IdentityId, NextHop, RuleId};

use super::both;
use crate::WalkConfig;
use crate::flow::{Direction, FlowState};
use crate::testing::World;
use crate::testing::frames::{self, Ends};
use crate::testing::world::{A, B, C, RULE_SERVER, TUNNEL_V4, UPLINK, pod_mac, v4, v6};

/// The answer of the pod a frame was for.
pub(super) fn answered(world: &World, frame: Ends) -> Ends {
    let back = frame.answered();
    Ends { source_mac: pod_mac(world.node, B), ..back }
}

#[test]
fn policy_admits_clients_and_nobody_else() {
    for server in both(1, B) {
        let mut world = World::node(1);
        let client = world.ends(A, server);
        assert_eq!(world.send(A, &client.udp(9, 5999, &[])).len(), 1);
        assert_eq!(world.send(A, &client.tcp(9, 80, 2, &[])).len(), 1);
        assert_eq!(world.send(A, &client.ping(9, &[])).len(), 1);
        assert_eq!(world.moved_ports(), ["a rx 3", "b tx 3", "flows created 3"]);
        assert_eq!(world.send(A, &client.udp(9, 6000, &[])), []);
        assert_eq!(world.send(A, &client.tcp(9, 81, 2, &[])), []);
        assert_eq!(world.moved_ports(), ["a drop policy-ingress 2", "a rx 2"]);
        let stranger = world.ends(C, server);
        assert_eq!(world.send(C, &stranger.udp(9, 5000, &[])), []);
        assert_eq!(world.moved_ports(), ["c drop policy-egress 1", "c rx 1"]);
    }
}

#[test]
fn replies_belong_to_the_flow_they_answer() {
    for client in both(1, A) {
        let mut world = World::node(1);
        let server = if client.is_ipv4() { v4(1, C) } else { v6(1, C) };
        let back = world.ends(B, client);
        // The server may open flows to the client, and the answers pass though ingress would not admit them.
        assert_eq!(world.send(B, &back.udp(4444, 4445, b"xx")).len(), 1);
        let answer = Ends::of_pod(pod_mac(1, A), client, back.source);
        assert_eq!(world.send(A, &answer.udp(4445, 4444, b"yyyy")).len(), 1);
        let expected = ["a rx 1", "a tx 1", "b rx 1", "b tx 1", "flows created 1"];
        assert_eq!(world.moved_ports(), expected);
        let flow = world.walk.flows().next().unwrap();
        assert_eq!(flow.state, FlowState::Udp { replied: true });
        let header = if client.is_ipv4() { 28 } else { 48 };
        assert_eq!((flow.packets, flow.bytes), ([1, 1], [header + 2, header + 4]));
        assert_eq!(flow.end(Direction::Original), (back.source, 4444));
        assert_eq!(world.send(A, &Ends { destination: server, ..answer }.udp(4445, 4444, &[])).len(), 1);
        assert_eq!(world.walk.flows().count(), 2, "another server, another flow");
    }
}

#[test]
fn a_flow_remembers_who_allowed_it() {
    let mut world = World::node(1);
    let frame = world.ends(A, v4(1, B)).tcp(9, 80, 2, &[]);
    world.send(A, &frame);
    let flow = world.walk.flows().next().unwrap();
    assert_eq!((flow.egress, flow.ingress), (RuleId::NOT_ISOLATED, RULE_SERVER));
    assert_eq!(flow.identities, [IdentityId(16), IdentityId(17)]);
    assert_eq!(flow.packets, [1, 0]);
}

#[test]
fn one_batch_opens_a_flow_once() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let syn = client.tcp(9, 80, 2, &[]);
    let syn_ack = answered(&world, client).tcp(80, 9, 0x12, &[]);
    let ack = client.tcp(9, 80, 0x10, b"GET");
    let sent = world.send_all([(A, syn), (B, syn_ack), (A, ack)]);
    assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [B, A, B]);
    let expected =
        ["a rx 2", "a tx 1", "b rx 1", "b tx 2", "flows created 1", "stage flow-miss 3", "stage parse 3"];
    assert_eq!(world.moved(), expected);
    assert_eq!(world.send(A, &client.tcp(9, 80, 0x10, b"more")).len(), 1);
    assert_eq!(world.moved(), ["a rx 1", "b tx 1", "stage flow-hit 1", "stage parse 1"]);
}

#[test]
fn answers_to_nothing_are_refused() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    assert_eq!(world.send(A, &client.tcp(9, 80, 4, &[])), [], "a reset of nothing");
    assert_eq!(world.moved_ports(), ["a drop tcp-state-invalid 1", "a rx 1"]);
    assert_eq!(world.send(A, &client.pong(9, &[])), [], "an echo reply to nothing");
    assert_eq!(world.moved_ports(), ["a drop flow-unknown 1", "a rx 1"]);
}

#[test]
fn a_full_table_refuses_the_newcomer_only() {
    let mut world = World::with_config(1, &WalkConfig { flows: 2, ..WalkConfig::default() });
    let client = world.ends(A, v4(1, B));
    let frame = |port| client.udp(port, 5000, &[]);
    let answer = |world: &World, port| world.ends(B, v4(1, A)).udp(5000, port, &[]);
    let answers = [(B, answer(&world, 1)), (B, answer(&world, 2))];
    world.send_all([(A, frame(1)), (A, frame(2))]);
    assert_eq!(world.send_all(answers).len(), 2);
    world.moved_ports();
    assert_eq!(world.send_all([(A, frame(3)), (A, frame(1))]).len(), 1);
    assert_eq!(world.moved_ports(), ["a drop flow-table-full 1", "a rx 2", "b tx 1"]);
    world.wait_s(181);
    assert_eq!(world.walk.tick(world.now, 100), 2);
    assert_eq!(world.send(A, &frame(3)).len(), 1);
    assert_eq!(world.moved_ports(), ["a rx 1", "b tx 1", "flows created 1", "flows expired 2"]);
}

#[test]
fn a_full_table_forgets_what_was_never_answered() {
    let mut world = World::with_config(1, &WalkConfig { flows: 2, ..WalkConfig::default() });
    let client = world.ends(A, v4(1, B));
    world.send(A, &client.udp(1, 5000, &[]));
    world.wait_s(1);
    world.send(A, &client.udp(2, 5000, &[]));
    world.moved_ports();
    assert_eq!(world.send(A, &client.udp(3, 5000, &[])).len(), 1);
    assert_eq!(world.moved_ports(), ["a rx 1", "b tx 1", "flows created 1", "flows evicted 1"]);
    let answers = [2, 3].map(|port| (B, world.ends(B, v4(1, A)).udp(5000, port, &[])));
    assert_eq!(world.send_all(answers).len(), 2);
    assert_eq!(world.moved_ports(), ["a tx 2", "b rx 2"], "both are known");
}

#[test]
fn new_tables_judge_flows_anew_when_they_are_used() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let (kept, lost) = (client.tcp(9, 80, 2, &[]), client.udp(9, 5000, &[]));
    world.send_all([(A, kept.clone()), (A, lost.clone())]);
    // The policy loses its UDP ports.
    let policy = world.desired.policies.values_mut().next().unwrap();
    policy.rules[0].ports.retain(|ports| ports.protocol == 6);
    world.recompile();
    world.moved();
    assert_eq!(world.send(A, &client.tcp(9, 80, 0x10, &[])).len(), 1);
    assert_eq!(
        world.moved(),
        ["a rx 1", "b tx 1", "stage flow-hit 1", "stage parse 1", "stage revalidate 1"]
    );
    assert_eq!(world.send_all([(A, lost.clone()), (A, lost)]), []);
    assert_eq!(world.moved_ports(), ["a drop policy-ingress 2", "a rx 2", "flows revoked 1"]);
    assert_eq!(world.send(A, &kept).len(), 1, "still a flow");
    assert_eq!(world.moved(), ["a rx 1", "b tx 1", "stage flow-hit 1", "stage parse 1"]);
}

/// The world without what admits anybody to the server; with it again.
pub(super) fn without_rules(world: &mut World) -> Vec<vswitch_model::Rule> {
    let rules = std::mem::take(&mut world.desired.policies.values_mut().next().unwrap().rules);
    world.recompile();
    world.moved();
    rules
}

#[test]
fn a_revoked_flow_does_not_live_on_by_what_the_other_end_sends() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let server = answered(&world, client);
    let (to, from) = (client.udp(9, 5000, &[]), server.udp(5000, 9, &[]));
    let (up, down) = (client.tcp(9, 80, 0x10, &[]), server.tcp(80, 9, 0x18, b"news"));
    assert_eq!(world.send_all([(A, to.clone()), (B, from.clone()), (A, up.clone())]).len(), 3);
    assert_eq!(world.send(B, &down).len(), 1);
    // As flows of its own the server might send both: nothing isolates it from sending, nor the client.
    let rules = without_rules(&mut world);
    assert_eq!(world.send_all([(B, from.clone()), (A, to.clone()), (B, from.clone())]), []);
    assert_eq!(
        world.moved_ports(),
        ["a drop policy-ingress 1", "a rx 1", "b drop policy-ingress 2", "b rx 2", "flows revoked 1"]
    );
    assert_eq!(world.send_all([(A, up.clone()), (B, down.clone()), (A, up.clone())]), []);
    assert_eq!(
        world.moved_ports(),
        ["a drop policy-ingress 2", "a rx 2", "b drop policy-ingress 1", "b rx 1", "flows revoked 1"]
    );
    // Allowed again, they go on.
    world.desired.policies.values_mut().next().unwrap().rules = rules;
    world.recompile();
    assert_eq!(world.send_all([(B, from), (A, to), (A, up), (B, down)]).len(), 4);
    assert_eq!(world.moved_ports(), ["a rx 2", "a tx 2", "b rx 2", "b tx 2"]);
}

#[test]
fn a_revoked_flow_is_over_when_its_originator_has_been_silent() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let (to, from) = (client.udp(9, 5000, &[]), answered(&world, client).udp(5000, 9, &[]));
    assert_eq!(world.send_all([(A, to.clone()), (B, from.clone())]).len(), 2);
    without_rules(&mut world);
    for _ in 0..3 {
        world.wait_s(100);
        assert_eq!(world.send_all([(A, to.clone()), (B, from.clone())]), []);
    }
    world.wait_s(100);
    assert_eq!(world.send(B, &from), []);
    world.wait_s(81);
    world.moved();
    assert_eq!(world.send(B, &from).len(), 1, "its own, and the client admits everybody");
    assert_eq!(world.moved_ports(), ["a tx 1", "b rx 1", "flows created 1"]);
}

#[test]
fn revoked_flows_give_way_after_those_that_were_never_answered() {
    let mut world = World::with_config(1, &WalkConfig { flows: 2, ..WalkConfig::default() });
    let client = world.ends(A, v4(1, B));
    let server = answered(&world, client);
    let out = |port| client.udp(port, 5000, &[]);
    assert_eq!(world.send_all([(A, out(1)), (B, server.udp(5000, 1, &[]))]).len(), 2);
    let rules = without_rules(&mut world);
    assert_eq!(world.send(A, &out(1)), []);
    world.desired.policies.values_mut().next().unwrap().rules = rules;
    world.recompile();
    let revoked = |world: &World| world.walk.flows().filter(|flow| flow.is_revoked).count();
    for (port, left) in [(2, 1), (3, 1), (4, 0)] {
        world.wait_s(1);
        assert_eq!(world.send(A, &out(port)).len(), 1);
        assert_eq!(revoked(&world), left, "after {port}");
        // From the third on there is nobody else who was never answered.
        if port == 3 {
            assert_eq!(world.send(B, &server.udp(5000, port, &[])).len(), 1);
        }
    }
    assert_eq!(world.walk.flows().count(), 2);
}

#[test]
fn a_revoked_connection_is_not_kept_as_long_as_an_open_one() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let (out, back) = (client.tcp(9, 80, 0x10, &[]), answered(&world, client).tcp(80, 9, 0x10, &[]));
    assert_eq!(world.send_all([(A, out.clone()), (B, back)]).len(), 2);
    without_rules(&mut world);
    assert_eq!(world.send(A, &out), []);
    world.wait_s(1800);
    assert_eq!(world.walk.tick(world.now, 100_000), 0);
    world.wait_s(1);
    assert_eq!(world.walk.tick(world.now, 100_000), 1);
}

#[test]
fn the_other_end_of_a_revoked_connection_may_open_one_that_policy_allows() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let server = answered(&world, client);
    assert_eq!(world.send(A, &client.tcp(9, 80, 2, &[])).len(), 1);
    without_rules(&mut world);
    assert_eq!(world.send(B, &server.tcp(80, 9, 0x12, &[])), [], "an answer opens nothing");
    assert_eq!(world.send(A, &client.tcp(9, 80, 2, &[])), []);
    world.moved();
    assert_eq!(world.send(B, &server.tcp(80, 9, 2, &[])).len(), 1);
    assert_eq!(world.send(A, &client.tcp(9, 80, 0x12, &[])).len(), 1);
    assert_eq!(world.moved_ports(), ["a rx 1", "a tx 1", "b rx 1", "b tx 1", "flows created 1"]);
    assert_eq!(world.walk.flows().count(), 1);
}

#[test]
fn a_flow_is_over_when_its_time_is_and_not_when_it_is_swept() {
    let mut world = World::node(1);
    let out = world.ends(B, v4(1, A));
    world.send(B, &out.udp(4444, 4445, &[]));
    world.moved();
    world.wait_s(31);
    let answer = Ends::of_pod(pod_mac(1, A), v4(1, A), v4(1, B)).udp(4445, 4444, &[]);
    assert_eq!(world.send(A, &answer), [], "too late to be an answer, and not admitted as a new flow");
    assert_eq!(world.moved_ports(), ["a drop policy-ingress 1", "a rx 1"]);
}

#[test]
fn who_opened_a_connection_may_open_it_again_though_it_was_picked_up_from_the_other_end() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let server = answered(&world, client);
    // The engine was started anew in the middle; the server spoke first.
    assert_eq!(world.send(B, &server.tcp(80, 9, 0x18, b"news")).len(), 1);
    assert_eq!(world.send(A, &client.tcp(9, 80, 0x10, &[])).len(), 1);
    world.moved();
    // The client has lost it, and comes back by the same port (SIP, BGP).
    assert_eq!(world.send(A, &client.tcp(9, 80, 2, &[])).len(), 1);
    assert_eq!(world.moved_ports(), ["a rx 1", "b tx 1", "flows created 1"]);
    assert_eq!(world.walk.flows().count(), 1);
    assert_eq!(world.walk.flows().next().unwrap().ingress, RULE_SERVER, "policy was asked about the client");
}

#[test]
fn a_responder_may_open_nothing_that_policy_denies_and_ends_nothing_by_trying() {
    let mut world = World::node(1);
    // The server may open this to the client, and not the other way round.
    let (out, back) = (world.ends(B, v4(1, A)), world.ends(A, v4(1, B)));
    for frame in
        [(B, out.tcp(9, 81, 2, &[])), (A, back.tcp(81, 9, 0x12, &[])), (B, out.tcp(9, 81, 0x10, &[]))]
    {
        assert_eq!(world.send(frame.0, &frame.1).len(), 1);
    }
    world.moved();
    assert_eq!(world.send(A, &back.tcp(81, 9, 2, &[])), []);
    assert_eq!(world.moved_ports(), ["a drop policy-ingress 1", "a rx 1"]);
    assert_eq!(world.send(A, &back.tcp(81, 9, 0x10, b"more")).len(), 1, "the connection goes on");
    assert_eq!(world.moved_ports(), ["a rx 1", "b tx 1"]);
}

#[test]
fn a_flow_whose_responder_moved_to_another_node_is_not_led_back_there() {
    let mut world = World::node(1);
    let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, b"media");
    let frame = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner);
    assert_eq!(world.send(UPLINK, &frame).len(), 1);
    world.desired.routes.insert(v4(1, B).into(), NextHop::Tunnel(TUNNEL_V4));
    world.recompile();
    world.moved();
    assert_eq!(world.send(UPLINK, &frame), []);
    assert_eq!(world.moved_ports(), ["uplink drop route-loops 1", "uplink rx 1"]);
}
