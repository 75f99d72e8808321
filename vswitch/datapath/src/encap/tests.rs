use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use vswitch_model::{Dscp, Encapsulation, Local, Vni, VxlanNetwork};

use super::*;
use crate::VecBuffer;
use crate::parse::parse;
use crate::testing::frames::{self, transport_checksum_is_right};
use crate::testing::world::{A, B, TUNNEL_V4, TUNNEL_V6, UPLINK, World, flannel, underlay_v4, underlay_v6};
use crate::testing::world::{v4, v6, vtep};

/// How node 1 sends to node 2, and over what.
fn sender(encapsulation: &Encapsulation, over_v6: bool, dscp: Dscp) -> World {
    let mut world = World::node(1);
    for tunnel in world.desired.tunnels.values_mut() {
        tunnel.encapsulation = *encapsulation;
    }
    for next_hop in world.desired.routes.values_mut() {
        if let vswitch_model::NextHop::Tunnel(TUNNEL_V4 | TUNNEL_V6) = next_hop {
            *next_hop = vswitch_model::NextHop::Tunnel(if over_v6 { TUNNEL_V6 } else { TUNNEL_V4 });
        }
    }
    world.desired.local.as_mut().unwrap().dscp = dscp;
    world.recompile();
    world
}

fn encapsulations() -> [Encapsulation; 3] {
    [
        Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac: vtep(2, false) },
        Encapsulation::Vxlan { vni: Vni::FLANNEL, port: 8472, remote_mac: flannel(2).mac_v4 },
        Encapsulation::IpIp,
    ]
}

/// A local part with the networks of [`World`]'s node 1.
fn entry() -> LocalEntry {
    LocalEntry::new(World::node(1).desired.local.as_ref().unwrap())
}

/// Checks the outer headers as another program reads them; what is behind them.
fn outer_is_right(frame: &[u8], encapsulation: &Encapsulation, over_v6: bool, inner_v6: bool) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination) =
        if over_v6 { (underlay_v6(1), underlay_v6(2)) } else { (underlay_v4(1), underlay_v4(2)) };
    let next = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) if !over_v6 => {
            let header = ip.header();
            assert!(header.dont_fragment() && header.ttl() == 64);
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(usize::from(header.total_len()), frame.len() - ETHERNET);
            assert_eq!(
                (IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr())),
                (source, destination)
            );
            header.protocol().0
        }
        NetSlice::Ipv6(ip) if over_v6 => {
            let header = ip.header();
            assert_eq!(header.hop_limit(), 64);
            assert_eq!(usize::from(header.payload_length()), frame.len() - ETHERNET - 40);
            assert_eq!(
                (IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr())),
                (source, destination)
            );
            header.next_header().0
        }
        other => panic!("{other:?}"),
    };
    match encapsulation {
        Encapsulation::Vxlan { vni, port, remote_mac } => {
            let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("{packet:?}") };
            assert_eq!((next, udp.destination_port()), (17, *port));
            assert!(udp.source_port() >= 49_152, "{}", udp.source_port());
            if over_v6 {
                assert!(transport_checksum_is_right(frame), "over IPv6 the UDP checksum is computed");
            } else {
                assert_eq!(udp.checksum(), 0, "over IPv4 there is none");
            }
            let [header, inner] = [&udp.payload()[..8], &udp.payload()[8..]];
            let [_, a, b, c] = vni.get().to_be_bytes();
            assert_eq!(header, [8, 0, 0, 0, a, b, c, 0]);
            let local = World::node(1).desired.local.unwrap();
            let own = local.network(*vni, *port).unwrap();
            let source = if inner_v6 { own.mac_v6 } else { own.mac_v4 };
            assert_eq!(inner[..12], [remote_mac.0, source.0].concat());
            inner.to_vec()
        }
        Encapsulation::IpIp => {
            assert_eq!(next, if inner_v6 { 41 } else { 4 });
            let kind = if inner_v6 { [0x86, 0xdd] } else { [8, 0] };
            let start = ETHERNET + if over_v6 { 40 } else { 20 };
            [&[0; 12][..], &kind, &frame[start..]].concat()
        }
    }
}

#[test]
fn any_family_goes_in_any_family_in_any_encapsulation_and_comes_out_as_it_went_in() {
    for encapsulation in encapsulations() {
        for (over_v6, destination) in
            [(false, v4(2, B)), (false, v6(2, B)), (true, v4(2, B)), (true, v6(2, B))]
        {
            let mut world = sender(&encapsulation, over_v6, Dscp::Inherit);
            let frame = world.ends(A, destination).udp(7, 5000, b"media!");
            let sent = world.send(A, &frame);
            let [(UPLINK, outer)] = &sent[..] else { panic!("{sent:?}") };
            let inner = outer_is_right(outer, &encapsulation, over_v6, destination.is_ipv6());
            assert_eq!(parse(&inner).unwrap().ttl, 63);
            assert!(transport_checksum_is_right(&inner));
            // The other node's tunnels are all VXLAN of Calico's: whatever comes is accepted.
            let mut other = World::node(2);
            let arrived = other.send(UPLINK, outer);
            let [(B, arrived)] = &arrived[..] else { panic!("{arrived:?} {:?}", other.moved()) };
            let (parsed, first) = (parse(arrived).unwrap(), parse(&frame).unwrap());
            assert_eq!(
                (parsed.ttl, parsed.source, parsed.destination),
                (62, first.source, first.destination)
            );
            assert_eq!(arrived[usize::from(parsed.transport)..], frame[usize::from(first.transport)..]);
            assert!(other.moved().contains(&"stage decapsulate 1".to_owned()));
        }
    }
}

#[test]
fn mtus_follow_the_encapsulation() {
    let [calico, _, ip_ip] = encapsulations();
    for (encapsulation, over_v6, mtu) in
        [(&calico, false, 1450), (&calico, true, 1430), (&ip_ip, false, 1480), (&ip_ip, true, 1460)]
    {
        let mut world = sender(encapsulation, over_v6, Dscp::Inherit);
        world.desired.ports.values_mut().for_each(|port| port.mtu = 1500);
        world.recompile();
        let sized = |world: &World, bytes: usize| world.ends(A, v4(2, B)).udp(7, 5000, &vec![1; bytes - 28]);
        let (fits, too_long) = (sized(&world, mtu), sized(&world, mtu + 1));
        assert_eq!(world.send(A, &fits)[0].1.len(), 1514, "{encapsulation}");
        let sent = world.send(A, &too_long);
        let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((error[34], error[35], usize::from(be16(error, 40).unwrap())), (3, 4, mtu));
    }
}

#[test]
fn flags_network_and_length_are_checked() {
    let world = World::node(1);
    let inner = world.inner_ends(A, v4(1, A)).udp(1, 2, &[]);
    let judge = |frame: &[u8]| {
        decapsulate(&mut VecBuffer::of(frame), &parse(frame).unwrap(), Carrier::Vxlan, &entry())
    };
    for (vni, port, macs) in [(4096, 4789, VxlanNetwork::calico("node-1")), (1, 8472, flannel(1))] {
        let good = frames::vxlan(world.tunnel_ends(false), vni, port, &inner);
        assert_eq!(judge(&good), Ok((Carried::Vxlan(vni), [macs.mac_v4, macs.mac_v6])));
        for (at, value) in [(42, 0), (42, 0x88), (43, 1), (46, 1), (48, 2), (49, 1)] {
            let mut frame = good.clone();
            frame[at] = value;
            assert_eq!(judge(&frame), Err(DropReason::TunnelHeaderInvalid), "byte {at} = {value}");
        }
    }
    // Each network has its own port.
    for (vni, port) in [(1, 4789), (4096, 8472)] {
        let crossed = frames::vxlan(world.tunnel_ends(false), vni, port, &inner);
        assert_eq!(judge(&crossed), Err(DropReason::TunnelHeaderInvalid));
    }
    let short = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner[..13]);
    assert_eq!(judge(&short), Err(DropReason::Truncated));
}

#[test]
fn what_is_behind_an_ip_header_must_be_what_it_says() {
    let mut world = World::node(1);
    for over_v6 in [false, true] {
        let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, &[0; 40]);
        let good = frames::ip_in_ip(world.tunnel_ends(over_v6), &inner);
        assert_eq!(world.send(UPLINK, &good).len(), 1);
        world.moved();
        let mut lying = good.clone();
        lying[if over_v6 { 20 } else { 23 }] = 41;
        if !over_v6 {
            frames::mend_ipv4(&mut lying);
        }
        let empty = frames::ip_in_ip(world.tunnel_ends(over_v6), &inner[..14]);
        let cut = frames::ip_in_ip(world.tunnel_ends(over_v6), &inner[..40]);
        let stranger = frames::Ends { source: underlay_v4(9), ..world.tunnel_ends(false) };
        let inside = frames::Ends { source: v4(1, A), ..world.inner_ends(A, v4(1, B)) }.udp(7, 5000, &[]);
        for (frame, reason) in [
            (lying, "ipv6-header-invalid"),
            (empty, "truncated"),
            (cut, "truncated"),
            (frames::ip_in_ip(stranger, &inner), "tunnel-peer-unknown"),
            (frames::ip_in_ip(world.tunnel_ends(over_v6), &inside), "tunnel-source-invalid"),
        ] {
            assert_eq!(world.send(UPLINK, &frame), [], "{reason}");
            assert_eq!(world.moved_ports(), [format!("uplink drop {reason} 1"), "uplink rx 1".to_owned()]);
        }
    }
    // A fragment is refused, whichever.
    let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, &[0; 64]);
    let outer = frames::may_fragment(frames::ip_in_ip(world.tunnel_ends(false), &inner), 3);
    for piece in frames::cut_v4(&outer, 48) {
        assert_eq!(world.send(UPLINK, &piece), []);
        assert_eq!(world.moved_ports(), ["uplink drop tunnel-fragment 1", "uplink rx 1"]);
    }
}

#[test]
fn congestion_marks_come_out_of_the_tunnel() {
    // Inner before, outer, inner after; RFC 6040, figure 4, where 1 is ECT(1) and 2 is ECT(0).
    let table: [(u8, u8, Option<u8>); 16] = [
        (0, 0, Some(0)),
        (0, 1, Some(0)),
        (0, 2, Some(0)),
        (0, 3, None),
        (1, 0, Some(1)),
        (1, 1, Some(1)),
        (1, 2, Some(1)),
        (1, 3, Some(3)),
        (2, 0, Some(2)),
        (2, 1, Some(1)),
        (2, 2, Some(2)),
        (2, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
    ];
    for destination in [v4(1, A), v6(1, A)] {
        for (kept, dscp) in [(0, 0x28), (0xfc, 0xb8)] {
            for (inner, outer, after) in table {
                let mut frame =
                    marked(World::node(1).inner_ends(A, destination).udp(1, 2, &[]), 0x28 | inner);
                let mut parsed = parse(&frame).unwrap();
                let combined = combine_traffic_class(&mut frame, &mut parsed, 0xb8 | outer, kept);
                assert_eq!(combined.ok(), after.map(|_| ()), "{inner} in {outer}");
                if let Some(after) = after {
                    let found = parse(&frame).unwrap().traffic_class;
                    assert_eq!(
                        (found, parsed.traffic_class),
                        (dscp | after, dscp | after),
                        "{inner} in {outer}"
                    );
                }
            }
        }
    }
}

/// The same frame with another DSCP and ECN.
fn marked(mut frame: Vec<u8>, traffic_class: u8) -> Vec<u8> {
    if frame[12] == 8 {
        frame[15] = traffic_class;
        frames::mend_ipv4(&mut frame);
    } else {
        frame[14..16].copy_from_slice(&[0x60 | traffic_class >> 4, traffic_class << 4]);
    }
    frame
}

#[test]
fn the_dscp_goes_through_a_tunnel_as_the_node_is_told() {
    const ECT_0: u8 = 2;
    // What the underlay makes of it on its way.
    const REMARKED: u8 = 10 << 2;
    for (dscp, outer, inner) in
        [(Dscp::Inherit, 46, 46), (Dscp::Uniform, 46, 10), (Dscp::Pipe(24), 24, 46), (Dscp::Pipe(0), 0, 46)]
    {
        for encapsulation in encapsulations() {
            for (over_v6, destination) in [(false, v6(2, B)), (true, v4(2, B))] {
                let mut world = sender(&encapsulation, over_v6, dscp);
                let frame = marked(world.ends(A, destination).udp(7, 5000, b"media"), 46 << 2 | ECT_0);
                let sent = world.send(A, &frame).remove(0).1;
                let parsed = parse(&sent).unwrap();
                assert_eq!(parsed.traffic_class, outer << 2 | ECT_0, "{dscp:?}, {encapsulation}");
                let mut other = World::node(2);
                other.desired.local.as_mut().unwrap().dscp = dscp;
                other.recompile();
                let arrived = other.send(UPLINK, &marked(sent, REMARKED | ECT_0)).remove(0).1;
                assert_eq!(parse(&arrived).unwrap().traffic_class, inner << 2 | ECT_0, "{dscp:?}");
            }
        }
    }
}

#[test]
fn as_many_networks_are_accepted_as_a_state_may_have() {
    let networks: Vec<_> = (1..=4u8)
        .map(|n| VxlanNetwork {
            vni: Vni::new(u32::from(n)).unwrap(),
            port: 4000 + u16::from(n),
            mac_v4: Mac([2, 0, 0, 0, 4, n]),
            mac_v6: Mac([2, 0, 0, 0, 6, n]),
        })
        .collect();
    let mut world = World::node(1);
    world.desired.tunnels.values_mut().for_each(|tunnel| tunnel.encapsulation = Encapsulation::IpIp);
    world.desired.local = Some(Local { networks: networks.clone(), ..world.desired.local.unwrap() });
    world.recompile();
    assert!(world.tables.local().unwrap().networks.iter().eq(networks.iter().copied()));
    for (index, network) in networks.iter().enumerate() {
        for mac in [network.mac_v4, network.mac_v6, networks[(index + 1) % 4].mac_v4] {
            let ends = frames::Ends { destination_mac: mac, ..world.inner_ends(A, v4(1, B)) };
            let frame = frames::vxlan(
                world.tunnel_ends(false),
                network.vni.get(),
                network.port,
                &ends.udp(7, 5000, b"media"),
            );
            let own = mac == network.mac_v4 || mac == network.mac_v6;
            assert_eq!(world.send(UPLINK, &frame).len(), usize::from(own), "{network:?}");
        }
    }
    let frame =
        frames::vxlan(world.tunnel_ends(false), 0, 0, &world.inner_ends(A, v4(1, B)).udp(7, 5000, &[]));
    world.moved();
    assert_eq!(world.send(UPLINK, &frame), []);
    assert_eq!(world.moved_ports(), ["uplink drop uplink-not-ours 1", "uplink rx 1"]);
}
