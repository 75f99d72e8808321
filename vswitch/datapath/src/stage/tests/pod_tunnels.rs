//! Tunnel packets that pods send of their own.

use vswitch_model::{DropReason, PodTunnels, RuleId};

use crate::FlowVerdict;
use crate::explain::{Query, RuleVerdict, explain};
use crate::testing::World;
use crate::testing::frames;
use crate::testing::world::{A, B, HOST, UPLINK, underlay_v4, uplink_mac, v4, v6};

const REFUSED: &str = "a drop tunnel-from-pod 1";

/// Pods may send these from now on.
fn allow(world: &mut World, vxlan: bool, ipip: bool) {
    world.desired.local.as_mut().unwrap().pod_tunnels = PodTunnels { vxlan, ipip };
    world.republish();
}

/// What a pod could send: VXLAN to Calico's port and to flannel's, and IP-in-IP of both families, to a node, to a pod of
/// another node, to one of this and to the world. And whether they are VXLAN.
fn tunnel_packets(world: &World) -> Vec<(bool, Vec<u8>)> {
    let mut frames = Vec::new();
    let outside = [underlay_v4(2), v4(2, A), v4(1, B), [203, 0, 113, 9].into(), v6(2, A), v6(1, B)];
    for destination in outside {
        let outer = world.ends(A, destination);
        let inner = world.ends(A, v4(2, B)).udp(7, 5000, b"media");
        let inner_v6 = world.ends(A, v6(2, B)).udp(7, 5000, b"media");
        frames.push((true, frames::vxlan(outer, 4096, 4789, &inner)));
        frames.push((true, frames::vxlan(outer, 1, 8472, &inner)));
        frames.push((false, frames::ip_in_ip(outer, &inner)));
        frames.push((false, frames::ip_in_ip(outer, &inner_v6)));
    }
    frames
}

#[test]
fn pods_send_no_tunnel_packets_unless_they_may() {
    for (vxlan, ipip) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::node(1);
        allow(&mut world, vxlan, ipip);
        for (is_vxlan, frame) in tunnel_packets(&world) {
            world.send(A, &frame);
            let refused = world.moved_ports().contains(&REFUSED.to_owned());
            assert_eq!(refused, !(if is_vxlan { vxlan } else { ipip }), "{vxlan} {ipip}: {frame:02x?}");
        }
    }
}

#[test]
fn only_what_pods_open_is_refused() {
    let mut world = World::node(1);
    // Another port, and what only looks so.
    for frame in [world.ends(A, v4(2, A)).udp(4789, 4790, &[]), world.ends(A, v4(2, A)).tcp(7, 4789, 2, &[])]
    {
        assert_eq!(world.send(A, &frame).len(), 1);
    }
    // The node itself.
    let inner = world.ends(A, v4(2, B)).udp(7, 5000, b"media");
    for frame in [
        frames::vxlan(world.host_ends(v4(2, A)), 4096, 4789, &inner),
        frames::ip_in_ip(world.host_ends(v4(2, A)), &inner),
    ] {
        assert!(matches!(world.send(HOST, &frame)[..], [(UPLINK, _)]));
    }
    // An answer to whoever asked from that port.
    let outside = [10, 0, 3, 5].into();
    let mut asks = world.ends(A, v4(1, A));
    (asks.source_mac, asks.destination_mac, asks.source) = (uplink_mac(3), uplink_mac(1), outside);
    assert!(matches!(world.send(UPLINK, &asks.udp(4789, 5000, &[]))[..], [(A, _)]));
    assert!(matches!(world.send(A, &world.ends(A, outside).udp(5000, 4789, &[]))[..], [(UPLINK, _)]));
}

#[test]
fn flows_are_judged_again_when_it_changes() {
    let mut world = World::node(1);
    allow(&mut world, true, true);
    let outer = world.ends(A, v4(2, A));
    let inner = world.ends(A, v4(2, B)).udp(7, 5000, b"media");
    let frames = [frames::vxlan(outer, 4096, 4789, &inner), frames::ip_in_ip(outer, &inner)];
    let other = outer.udp(7, 5000, b"media");
    let passes = |world: &mut World, frame: &[u8]| !world.send(A, frame).is_empty();
    for allowed in [true, false, true] {
        allow(&mut world, allowed, allowed);
        for frame in &frames {
            assert_eq!(passes(&mut world, frame), allowed);
            assert_eq!(passes(&mut world, frame), allowed, "and again");
        }
        assert!(passes(&mut world, &other), "no tunnel packet");
    }
}

#[test]
fn people_are_told() {
    let mut world = World::node(1);
    let told = |world: &World, protocol, destination_port| {
        let (source, destination) = (v4(1, A), v4(2, A));
        let query = Query { source, destination, protocol, source_port: 7, destination_port };
        explain(&world.tables, &query)
    };
    for (protocol, port) in [(17, 4789), (17, 8472), (4, 0), (41, 0)] {
        let told = told(&world, protocol, port);
        assert_eq!(told.outcome, Err(DropReason::TunnelFromPod));
        assert_eq!(told.egress, Some(RuleVerdict { allowed: false, rule: RuleId::TUNNEL_FROM_POD }));
        let said = told.steps.iter().find(|step| step.stage == "policy-egress").unwrap();
        assert_eq!(said.detail, "denied: pods may not send tunnel packets of this kind");
    }
    assert_eq!(told(&world, 17, 4790).outcome, Ok(UPLINK));
    let inner = world.ends(A, v4(2, B)).udp(7, 5000, b"media");
    world.send(A, &frames::ip_in_ip(world.ends(A, v4(2, A)), &inner));
    let record = world.walk.counters().flow_log.take().unwrap();
    let denied = FlowVerdict::Denied { reason: DropReason::TunnelFromPod, rule: RuleId::TUNNEL_FROM_POD };
    assert_eq!(record.verdict, denied);
    assert_eq!(world.walk.counters().rules.counts(RuleId::TUNNEL_FROM_POD).denied_packets, 1);
    allow(&mut world, true, true);
    assert_eq!(told(&world, 41, 0).outcome, Ok(UPLINK));
}
