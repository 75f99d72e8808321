//! ICMP errors, and the flows whose packets they quote.

use std::net::IpAddr;

use vswitch_model::NextHop;

use super::flows::without_rules;
use crate::icmp::{self, IcmpError};
use crate::parse::parse;
use crate::testing::World;
use crate::testing::frames::{self, Ends};
use crate::testing::world::{A, B, C, HOST, TUNNEL_V4, UPLINK, v4, v6};
use crate::{Buffer, VecBuffer};

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
