//! Several next hops to one place: every flow has its own, and keeps it while it is there.

use std::collections::BTreeMap;

use vswitch_model::{Mac, NextHop};

use crate::compile::Hop;
use crate::explain::{Query, explain};
use crate::testing::World;
use crate::testing::frames::{self, Ends};
use crate::testing::world::{A, B, TUNNEL_V4, UPLINK, underlay_v4, uplink_mac, v4, v6};

const FIRST: Mac = Mac([2, 0, 0, 0, 0xee, 1]);
const SECOND: Mac = Mac([2, 0, 0, 0, 0xee, 2]);
const THIRD: Mac = Mac([2, 0, 0, 0, 0xee, 3]);
const FLOWS: u16 = 400;

/// The other node is reached by these from now on.
fn reach_by(world: &mut World, hops: &[(Mac, u16, u16)]) {
    let hop = |(dst_mac, weight, mtu): &(Mac, u16, u16)| Hop {
        port: UPLINK,
        dst_mac: *dst_mac,
        src_mac: uplink_mac(1),
        mtu: *mtu,
        weight: *weight,
        on_link: true,
    };
    world.underlay.hops.insert(underlay_v4(2), hops.iter().map(hop).collect());
    world.republish();
}

/// The next hop that each flow's packet left by, by its source port.
fn ways(world: &mut World) -> BTreeMap<u16, Mac> {
    let ports = (0..FLOWS).map(|number| 1000 + number);
    let one = |port| {
        let frame = world.ends(A, v4(2, B)).udp(port, 5000, b"media");
        let [(UPLINK, sent)] = &world.send(A, &frame)[..] else { panic!("one packet by the uplink") };
        (port, Mac(sent[..6].try_into().expect("six bytes")))
    };
    ports.map(one).collect()
}

fn share(ways: &BTreeMap<u16, Mac>, mac: Mac) -> f64 {
    ways.values().filter(|way| **way == mac).count() as f64 / f64::from(FLOWS)
}

/// Node 1 with the IPv4 addresses of the other node's pods in a tunnel, or directly behind its address.
fn world(direct: bool) -> World {
    let mut world = World::node(1);
    let way = if direct { NextHop::Direct(underlay_v4(2)) } else { NextHop::Tunnel(TUNNEL_V4) };
    let routes = world.desired.routes.iter_mut();
    routes.filter(|(net, _)| net.contains(&v4(2, B))).for_each(|(_, next_hop)| *next_hop = way.clone());
    world
}

#[test]
fn flows_spread_by_weight_and_only_those_move_that_must() {
    for direct in [false, true] {
        let mut world = world(direct);
        let all = [(FIRST, 2, 1500), (SECOND, 1, 1500), (THIRD, 1, 1500)];
        reach_by(&mut world, &all);
        let before = ways(&mut world);
        for (mac, fair) in [(FIRST, 0.5), (SECOND, 0.25), (THIRD, 0.25)] {
            assert!((share(&before, mac) - fair).abs() < 0.1, "{mac}: {} of {fair}", share(&before, mac));
        }
        assert_eq!(ways(&mut world), before, "a known flow keeps its way");
        world.republish();
        assert_eq!(ways(&mut world), before, "by other tables, too");

        // One leaves: its flows take the others, and come back with it.
        reach_by(&mut world, &[all[0], all[2]]);
        let without = ways(&mut world);
        for (port, way) in &before {
            assert!(without[port] == *way || *way == SECOND, "{port} moved without need");
        }
        assert_eq!(share(&without, SECOND), 0.0);
        reach_by(&mut world, &[all[2], all[0], all[1]]);
        assert_eq!(ways(&mut world), before, "whatever their order");
        reach_by(&mut world, &all[2..]);
        assert_eq!(share(&ways(&mut world), THIRD), 1.0);
        // Over neither family.
        world.underlay.hops.clear();
        reach_by(&mut world, &[]);
        let frame = world.ends(A, v4(2, B)).udp(1000, 5000, b"media");
        assert!(world.send(A, &frame).iter().all(|(port, _)| *port == A), "nothing but an error leaves");
    }
}

#[test]
fn answers_of_pods_spread_too_and_keep_to_the_mtu_of_their_way() {
    let mut world = world(true);
    reach_by(&mut world, &[(FIRST, 1, 1500), (SECOND, 1, 1400)]);
    // Without the right to be cut, one of 1450 bytes goes by the first and is answered by an error at the second.
    let (mut sent, mut refused) = (0, 0);
    for number in 0..FLOWS {
        let port = 1000 + number;
        let opening = world.ends(A, v4(2, B)).udp(port, 5000, b"media");
        let [(UPLINK, small)] = &world.send(A, &opening)[..] else { panic!("one packet by the uplink") };
        let by_first = small[..6] == FIRST.0;
        let frame = world.ends(A, v4(2, B)).udp(port, 5000, &[0; 1422]);
        let [(out, large)] = &world.send(A, &frame)[..] else { panic!("one packet") };
        assert_eq!(*out == UPLINK && large[..6] == FIRST.0, by_first);
        assert_eq!(*out == A, !by_first);
        sent += u16::from(by_first);
        refused += u16::from(!by_first);
        world.wait_s(1);
    }
    assert!(sent > FLOWS / 3 && refused > FLOWS / 3, "{sent} and {refused}");
}

#[test]
fn only_the_node_behind_a_tunnel_may_send_what_is_not_encapsulated_and_no_router_before_it() {
    let mut world = world(false);
    reach_by(&mut world, &[(FIRST, 1, 1500), (SECOND, 1, 1500), (THIRD, 1, 1500)]);
    let is_router = |hop: &mut Hop| hop.on_link = hop.dst_mac != THIRD;
    world.underlay.hops.values_mut().flatten().for_each(is_router);
    world.republish();
    let mut ends = world.inner_ends(A, v4(1, B));
    ends.destination_mac = uplink_mac(1);
    let stranger = Mac([2, 0, 0, 0, 0xee, 4]);
    for (station, passes) in [(FIRST, true), (SECOND, true), (THIRD, false), (stranger, false)] {
        ends.source_mac = station;
        let frame = ends.udp(7, 5000, b"media");
        assert_eq!(world.send(UPLINK, &frame).len(), usize::from(passes), "from {station}");
        let dropped = world.moved_ports().contains(&"uplink drop spoofed-address 1".to_owned());
        assert_eq!(dropped, !passes, "from {station}");
    }
    // By the tunnel it comes through the router as well.
    let inner = world.inner_ends(A, v4(1, B)).udp(8, 5000, b"media");
    let outer = Ends { source_mac: THIRD, ..world.tunnel_ends(false) };
    assert_eq!(world.send(UPLINK, &frames::vxlan(outer, 4096, 4789, &inner)).len(), 1);
}

#[test]
fn what_is_never_encapsulated_comes_by_whichever_router() {
    let mut world = world(true);
    reach_by(&mut world, &[(FIRST, 1, 1500)]);
    world.underlay.hops.values_mut().flatten().for_each(|hop| hop.on_link = false);
    world.republish();
    let mut ends = world.inner_ends(A, v4(1, B));
    ends.destination_mac = uplink_mac(1);
    for station in [FIRST, SECOND] {
        ends.source_mac = station;
        assert_eq!(world.send(UPLINK, &ends.udp(7, 5000, b"media")).len(), 1, "from {station}");
    }
}

#[test]
fn people_are_told_of_every_next_hop() {
    let mut world = world(false);
    reach_by(&mut world, &[(FIRST, 1, 1500), (SECOND, 1, 1400)]);
    let query = Query {
        source: v4(1, A),
        destination: v4(2, B),
        protocol: 17,
        source_port: 9,
        destination_port: 5000,
    };
    let told = explain(&world.tables, &query);
    let said = |stage| told.steps.iter().find(|step| step.stage == stage).map(|step| step.detail.clone());
    let hops = said("next-hop").expect("there are several");
    assert!(hops.starts_with("one of 2, by the flow's hash: 02:00:00:00:ee:01 by port "), "{hops}");
    assert_eq!(said("forward").expect("it goes on"), "fits up to 1350 bytes");
    // One next hop is no choice.
    let query = Query { source: v6(1, A), destination: v6(2, B), ..query };
    assert!(explain(&world.tables, &query).steps.iter().all(|step| step.stage != "next-hop"));
}
