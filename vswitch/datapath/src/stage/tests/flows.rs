use std::net::IpAddr;

use vswitch_model::{IdentityId, NextHop, RuleId};

use super::both;
use crate::WalkConfig;
use crate::flow::{Direction, FlowState, TcpState};
use crate::icmp::{self, IcmpError};
use crate::parse::parse;
use crate::testing::World;
use crate::testing::frames::{self, Ends};
use crate::testing::world::{A, B, C, HOST, RULE_SERVER, TUNNEL_V4, UPLINK, pod_mac, v4, v6};
use crate::{Buffer, VecBuffer};

/// The answer of the pod a frame was for.
fn answered(world: &World, frame: Ends) -> Ends {
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
fn without_rules(world: &mut World) -> Vec<vswitch_model::Rule> {
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
fn an_icmp_error_does_not_belong_to_a_revoked_flow() {
    let mut world = World::node(1);
    let client = world.ends(A, v4(1, B));
    let out = client.udp(9, 5000, &[0; 100]);
    assert_eq!(world.send(A, &out).len(), 1);
    without_rules(&mut world);
    assert_eq!(world.send(A, &out), []);
    world.moved();
    let error = error_about(&out, v4(1, B), world.ends(B, v4(1, A)));
    assert_eq!(world.send(B, &error), []);
    assert_eq!(world.moved_ports(), ["b drop flow-unknown 1", "b rx 1"]);
}

/// An ICMP error about `frame` from `source`, as it would come by a port with these Ethernet addresses.
fn error_about(frame: &[u8], source: IpAddr, ends: Ends) -> Vec<u8> {
    let mut buffer = VecBuffer::of(frame);
    assert!(icmp::build(&mut buffer, &parse(frame).unwrap(), IcmpError::TooBig { mtu: 1300 }, source));
    let mut error = buffer.bytes().to_vec();
    error[..6].copy_from_slice(&ends.destination_mac.0);
    error[6..12].copy_from_slice(&ends.source_mac.0);
    error
}

#[test]
fn icmp_errors_follow_the_flow_they_speak_of() {
    for (world_address, router) in [("8.8.8.8", "9.9.9.9"), ("2001:db8::8", "2001:db8::9")] {
        let (destination, router) = (world_address.parse().unwrap(), router.parse().unwrap());
        let mut world = World::node(1);
        let out = world.ends(B, destination).udp(7, 53, &[0; 100]);
        let error = error_about(&out, router, world.host_ends(destination));
        assert_eq!(world.send(HOST, &error), [], "nothing was sent yet");
        assert_eq!(world.moved_ports(), ["host drop flow-unknown 1", "host rx 1"]);
        assert_eq!(world.send(B, &out).len(), 1);
        world.moved();
        let sent = world.send(HOST, &error);
        let [(B, told)] = &sent[..] else { panic!("{sent:?}") };
        assert!(parse(told).unwrap().is_icmp_error());
        assert_eq!(world.moved(), ["b tx 1", "host rx 1", "stage parse 1", "stage related-error 1"]);
        let flow = world.walk.flows().next().unwrap();
        assert_eq!(flow.packets, [1, 0], "it is no packet of the flow");
    }
}

#[test]
fn an_error_may_quote_no_more_than_names_the_flow() {
    for (destination, router) in [("8.8.8.8", "9.9.9.9"), ("2001:db8::8", "2001:db8::9")] {
        let (destination, router): (IpAddr, IpAddr) = (destination.parse().unwrap(), router.parse().unwrap());
        let mut world = World::node(1);
        let out = world.ends(B, destination).udp(7, 53, &[0; 100]);
        assert_eq!(world.send(B, &out).len(), 1);
        let headers = if destination.is_ipv4() { 20 } else { 40 };
        for (quoted, sent) in [(headers + 8, 1), (headers + 4, 1), (headers + 3, 0), (headers - 1, 0)] {
            let mut error = error_about(&out, router, world.host_ends(destination));
            error.truncate(14 + headers + 8 + quoted);
            let length = (error.len() - 14) as u16;
            if destination.is_ipv4() {
                error[16..18].copy_from_slice(&length.to_be_bytes());
                frames::mend_ipv4(&mut error);
            } else {
                error[18..20].copy_from_slice(&(length - 40).to_be_bytes());
            }
            assert_eq!(world.send(HOST, &error).len(), sent, "{destination}, {quoted} bytes");
        }
    }
}

#[test]
fn an_error_may_quote_a_first_fragment() {
    let (own, destination) = (v6(1, B), "2001:db8::8".parse().unwrap());
    let mut world = World::node(1);
    let out = world.ends(B, destination).udp(7, 53, &[0; 100]);
    for (number, piece) in frames::cut_v6(&out, 48, 77).into_iter().enumerate() {
        assert_eq!(world.send(B, &piece).len(), 1);
        let about = parse(&piece).unwrap();
        let mut buffer = VecBuffer::of(&piece);
        let router = "2001:db8::9".parse().unwrap();
        assert!(icmp::build(&mut buffer, &about, IcmpError::TooBig { mtu: 1280 }, router));
        let mut error = buffer.bytes().to_vec();
        let ends = world.host_ends(own);
        error[..6].copy_from_slice(&ends.destination_mac.0);
        error[6..12].copy_from_slice(&ends.source_mac.0);
        assert_eq!(world.send(HOST, &error).len(), 1 - number, "of a later one the ports are not known");
    }
}

#[test]
fn redirects_go_nowhere() {
    let mut world = World::node(1);
    let out = world.ends(B, [8, 8, 8, 8].into()).udp(7, 53, &[0; 100]);
    assert_eq!(world.send(B, &out).len(), 1);
    let mut redirect = error_about(&out, [9, 9, 9, 9].into(), world.host_ends([8, 8, 8, 8].into()));
    assert_eq!(world.send(HOST, &redirect).len(), 1);
    redirect[34] = 5;
    world.moved();
    assert_eq!(world.send(HOST, &redirect), []);
    assert_eq!(world.moved_ports(), ["host drop flow-unknown 1", "host rx 1"]);
}

#[test]
fn a_pod_speaks_of_its_own_flows_only() {
    let mut world = World::node(1);
    let flow = world.ends(A, v4(1, B)).udp(7, 5000, &[0; 100]);
    assert_eq!(world.send(A, &flow).len(), 1);
    world.moved();
    let meddling = error_about(&flow, v4(1, C), world.ends(C, v4(1, A)));
    assert_eq!(world.send(C, &meddling), []);
    assert_eq!(world.moved_ports(), ["c drop flow-unknown 1", "c rx 1"]);
    let honest = error_about(&flow, v4(1, B), world.ends(B, v4(1, A)));
    assert!(matches!(world.send(B, &honest)[..], [(A, _)]));
}

#[test]
fn an_error_goes_to_who_sent_what_it_quotes() {
    let mut world = World::node(1);
    let flow = world.ends(B, [8, 8, 8, 8].into()).udp(7, 53, &[0; 100]);
    world.send(B, &flow);
    world.moved();
    let mut astray = error_about(&flow, [9, 9, 9, 9].into(), world.host_ends([8, 8, 8, 8].into()));
    astray[33] = 10;
    frames::mend_ipv4(&mut astray);
    assert_eq!(world.send(HOST, &astray), [], "to another pod than the flow's");
    assert_eq!(world.moved_ports(), ["host drop flow-unknown 1", "host rx 1"]);
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
fn an_icmp_error_does_not_lead_a_flow_back_whose_responder_moved_to_another_node() {
    let mut world = World::node(1);
    let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, b"media");
    let frame = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner);
    assert_eq!(world.send(UPLINK, &frame).len(), 1);
    let error = error_about(&inner, [9, 9, 9, 9].into(), world.host_ends(v4(2, A)));
    assert_eq!(world.send(HOST, &error).len(), 1, "it belongs to the flow");
    world.desired.routes.insert(v4(1, B).into(), NextHop::Tunnel(TUNNEL_V4));
    world.recompile();
    world.moved();
    assert_eq!(world.send(HOST, &error), []);
    assert_eq!(world.send(UPLINK, &frame), []);
    let drops = ["host drop flow-unknown 1", "host rx 1", "uplink drop route-loops 1", "uplink rx 1"];
    assert_eq!(world.moved_ports(), drops);
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

/// A connection of A to B that is open.
fn connected(world: &mut World) -> (Ends, Ends) {
    let client = world.ends(A, v4(1, B));
    let server = answered(world, client);
    let opening = [
        (A, client.tcp(9, 80, 2, &[])),
        (B, server.tcp(80, 9, 0x12, &[])),
        (A, client.tcp(9, 80, 0x10, &[])),
    ];
    assert_eq!(world.send_all(opening).len(), 3);
    world.moved();
    (client, server)
}

#[test]
fn a_segment_outside_of_the_window_ends_nothing() {
    let mut world = World::node(1);
    let (client, server) = connected(&mut world);
    for flags in [0x10, 0x11, 0x04, 0x14] {
        let forged = server.tcp_at(80, 9, flags, (0x4000_0000, 2), &[]);
        assert_eq!(world.send(B, &forged), [], "flags {flags}");
        assert_eq!(world.moved_ports(), ["b drop tcp-out-of-window 1", "b rx 1"], "flags {flags}");
    }
    let unsent = client.tcp_at(9, 80, 0x10, (2, 5000), b"more");
    assert_eq!(world.send(A, &unsent), []);
    assert_eq!(world.moved_ports(), ["a drop tcp-out-of-window 1", "a rx 1"]);
    // Old ones are for the other end to judge; they do not end it either, nor does a reset that may be a guess.
    for (flags, sequence) in [(0x11, 0xa000_0000), (0x04, 100)] {
        let old = server.tcp_at(80, 9, flags, (sequence, 2), &[]);
        assert_eq!(world.send(B, &old).len(), 1, "flags {flags}");
    }
    let flow = world.walk.flows().next().unwrap();
    assert_eq!((flow.state, flow.packets), (FlowState::Tcp(TcpState::Established), [2, 3]));
    assert_eq!(world.send(A, &client.tcp(9, 80, 0x10, b"more")).len(), 1);
    assert_eq!(world.send(B, &server.tcp_at(80, 9, 0x04, (2, 0), &[])).len(), 1);
    let flow = world.walk.flows().next().unwrap();
    assert_eq!(flow.state, FlowState::Tcp(TcpState::Reset(Direction::Reply)));
}

#[test]
fn a_liberal_walk_leaves_windows_to_both_ends() {
    let mut world = World::with_config(1, &WalkConfig { tcp_windows: false, ..WalkConfig::default() });
    let (client, server) = connected(&mut world);
    assert_eq!(world.send(A, &client.tcp_at(9, 80, 0x10, (0x4000_0000, 0x4000_0000), b"?")).len(), 1);
    assert_eq!(world.send(B, &server.tcp_at(80, 9, 0x04, (0x4000_0000, 0), &[])).len(), 1);
    let flow = world.walk.flows().next().unwrap();
    assert_eq!(flow.state, FlowState::Tcp(TcpState::Reset(Direction::Reply)));
}

#[test]
fn of_a_connection_in_fragments_no_window_is_known() {
    let mut world = World::node(1);
    let (client, server) = connected(&mut world);
    let long = frames::may_fragment(client.tcp(9, 80, 0x10, &[0x5a; 800]), 7);
    for piece in frames::cut_v4(&long, 400) {
        assert_eq!(world.send(A, &piece).len(), 1);
    }
    assert_eq!(world.send(B, &server.tcp_at(80, 9, 0x10, (2, 802), &[])).len(), 1);
}
