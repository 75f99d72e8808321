//! A pool's mode changes while its pods talk, and the nodes come to know of it one after the other.

use vswitch_model::{Encapsulation, NextHop, Vni};

use crate::testing::World;
use crate::testing::frames::Ends;
use crate::testing::world::{
    A, B, TUNNEL_V4, TUNNEL_V6, UPLINK, flannel, pod_mac, underlay_v4, underlay_v6, v4, v6, vtep,
};

/// How a node sends to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Calico,
    Flannel,
    IpInIp,
    Direct,
}

const MODES: [Mode; 4] = [Mode::Calico, Mode::Flannel, Mode::IpInIp, Mode::Direct];

/// As an agent says it: the tunnels stay in any mode.
fn set(world: &mut World, mode: Mode) {
    let other = 3 - world.node;
    for id in [TUNNEL_V4, TUNNEL_V6] {
        let tunnel = world.desired.tunnels.get_mut(&id).unwrap();
        let over_v6 = tunnel.remote.is_ipv6();
        let end = flannel(other);
        tunnel.encapsulation = match mode {
            Mode::Calico | Mode::Direct => {
                let remote_mac = vtep(other, over_v6);
                Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac }
            }
            Mode::Flannel => {
                let remote_mac = if over_v6 { end.mac_v6 } else { end.mac_v4 };
                Encapsulation::Vxlan { vni: end.vni, port: end.port, remote_mac }
            }
            Mode::IpInIp => Encapsulation::IpIp,
        };
    }
    let direct = mode == Mode::Direct;
    for (prefix, tunnel, address) in [
        (format!("10.0.{other}.0/26"), TUNNEL_V4, underlay_v4(other)),
        (format!("fd10:0:0:{other}::/122"), TUNNEL_V6, underlay_v6(other)),
    ] {
        let way = if direct { NextHop::Direct(address) } else { NextHop::Tunnel(tunnel) };
        world.desired.routes.insert(prefix.parse().unwrap(), way);
    }
    world.republish();
}

/// A packet of one flow from the first node's pod to the second's, and one back, in either family.
fn both_ways(nodes: &mut [World; 2], what: &str) {
    let [one, two] = nodes;
    let (from, to) = (one.node, two.node);
    for (source, destination) in [(v4(from, A), v4(to, B)), (v6(from, A), v6(to, B))] {
        let there = Ends::of_pod(pod_mac(from, A), source, destination).udp(7, 5000, b"there");
        let back = Ends::of_pod(pod_mac(to, B), destination, source).udp(5000, 7, b"back");
        let sent = one.send(A, &there);
        let [(UPLINK, frame)] = &sent[..] else { panic!("{what}: {sent:?}") };
        let arrived = two.send(UPLINK, frame);
        assert!(matches!(arrived[..], [(B, _)]), "{what}, there: {:?}", two.moved_ports());
        let sent = two.send(B, &back);
        let [(UPLINK, frame)] = &sent[..] else { panic!("{what}: {sent:?}") };
        let arrived = one.send(UPLINK, frame);
        assert!(matches!(arrived[..], [(A, _)]), "{what}, back: {:?}", one.moved_ports());
    }
}

#[test]
fn a_change_of_mode_loses_no_packet_whoever_hears_of_it_first() {
    for before in MODES {
        for after in MODES.into_iter().filter(|after| *after != before) {
            for first in [0, 1] {
                let mut nodes = [World::node(1), World::node(2)];
                nodes.iter_mut().for_each(|node| set(node, before));
                both_ways(&mut nodes, &format!("{before:?}"));
                for changing in [first, 1 - first] {
                    set(&mut nodes[changing], after);
                    let what = format!("{before:?} to {after:?}, {} changed", nodes[changing].node);
                    both_ways(&mut nodes, &what);
                }
                for node in &nodes {
                    assert_eq!(node.walk.counters().flows_created.get(), 2, "{before:?} to {after:?}");
                }
            }
        }
    }
}
