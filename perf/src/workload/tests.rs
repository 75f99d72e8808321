use std::collections::HashSet;

use ipnet::IpNet;
use vswitch_datapath::{
    PortFacts, PortIndex, PortMap, Underlay, parse,
    policy::{FlowPorts, PolicyTables},
    tables::Role,
};
use vswitch_model::{IdentityId, Mac, RuleId};

use super::*;

fn node(family: Family) -> Node {
    Node::in_memory(2, 4).with_routes(family, 500).with_rules(100)
}

fn every_way() -> impl Iterator<Item = Traffic> {
    let families = [Family::V4, Family::V6];
    families.into_iter().flat_map(|family| {
        [Way::Local, Way::Direct, Way::IntoVxlan, Way::FromVxlan].map(|way| Traffic::new(way, family, 1000))
    })
}

#[test]
fn desired_states_are_valid_and_compile() {
    for (rules, routes) in [(0, 0), (1, 10), (100, 1000), (1000, 5000)] {
        let node = Node::in_memory(3, 4)
            .with_routes(Family::V4, routes)
            .with_routes(Family::V6, routes)
            .with_rules(rules);
        let state = node.desired();
        state.check().unwrap();
        assert_eq!(
            state.policies.values().map(|p| p.rules.len()).sum::<usize>(),
            if rules == 1 { 2 } else { rules }
        );
        assert_eq!(state.routes.len(), 2 * routes + 6 + 2);
        let ports: PortMap =
            [("uplink", Role::Uplink), ("pod-0", Role::Pod), ("pod-1", Role::Pod), ("pod-2", Role::Pod)]
                .iter()
                .enumerate()
                .map(|(number, (name, role))| {
                    let facts = PortFacts {
                        index: PortIndex(number as u16),
                        role: *role,
                        mac: Mac::GATEWAY,
                        mtu: 1500,
                        finishes_checksums: false,
                        takes_large: false,
                    };
                    (node::port_name(name), facts)
                })
                .collect();
        let inputs = vswitch_datapath::CompileInputs {
            generation: vswitch_model::Generation(1),
            revision: vswitch_datapath::tables::Revision(1),
            desired: &state,
            ports: &ports,
            underlay: &Underlay::default(),
        };
        vswitch_datapath::compile(&inputs).unwrap();
    }
}

#[test]
fn the_traffic_matches_the_last_rule_and_no_other() {
    for rules in [2, 100, 1000] {
        let state = Node::in_memory(2, 1).with_rules(rules).desired();
        let tables = PolicyTables::build(&state).unwrap();
        let (pods, world) = (IdentityId(16), IdentityId(17));
        for peer in [pods, world] {
            for (verdict, last) in [
                (tables.ingress(pods, peer, FlowPorts::to(17, 5000)), rules - rules / 2 - 1),
                (tables.egress(pods, peer, FlowPorts::to(6, 5999)), rules + rules / 2 - 1),
            ] {
                assert!(verdict.allow);
                assert_eq!(verdict.rule, RuleId(RuleId::FIRST_ASSIGNED + last as u32), "{rules} rules");
            }
            assert!(!tables.ingress(pods, peer, FlowPorts::to(17, policy::DENIED_PORT)).allow);
        }
    }
    let open = PolicyTables::build(&Node::in_memory(2, 1).desired()).unwrap();
    assert!(open.ingress(IdentityId(16), IdentityId(17), FlowPorts::to(17, policy::DENIED_PORT)).allow);
}

#[test]
fn packets_are_real_and_as_long_as_is_said() {
    for traffic in every_way() {
        for (size, lengths) in [
            (Size::Frame(64), if traffic.family == Family::V4 { vec![60] } else { vec![62] }),
            (Size::Packet(1500), vec![1514]),
            (Size::Voice, if traffic.family == Family::V4 { vec![214] } else { vec![234] }),
        ] {
            for transport in [Transport::Udp, Transport::Syn] {
                let stream = Traffic { size, transport, ..traffic }.on(&node(traffic.family)).unwrap();
                let frame = stream.frame(17);
                let outer = match (traffic.way, traffic.family) {
                    (Way::FromVxlan, Family::V4) => 50,
                    (Way::FromVxlan, Family::V6) => 70,
                    _ => 0,
                };
                let expected = lengths[0]
                    .max(if transport == Transport::Syn && traffic.family == Family::V6 { 74 } else { 0 });
                assert_eq!(frame.len() - outer, expected, "{traffic:?} {size:?} {transport:?}");
                let parsed = parse::parse(&frame).unwrap();
                assert_eq!(usize::from(parsed.end), frame.len());
                etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            }
        }
    }
}

#[test]
fn imix_is_seven_four_one() {
    let lengths: Vec<usize> = (0..12).map(|number| Size::Imix.bytes(Family::V4, number)).collect();
    let count = |length| lengths.iter().filter(|other| **other == length).count();
    assert_eq!((count(60), count(566), count(1514)), (7, 4, 1));
}

#[test]
fn flows_are_different_5_tuples_in_a_scattered_order() {
    for traffic in every_way() {
        let stream = traffic.on(&node(traffic.family)).unwrap();
        let mut tuples = HashSet::new();
        let mut order: Vec<u64> = stream.order().take(1000).collect();
        for number in &order {
            let frame = stream.frame(*number);
            let inner = if traffic.way == Way::FromVxlan {
                frame[if traffic.family == Family::V4 { 50 } else { 70 }..].to_vec()
            } else {
                frame
            };
            let parsed = parse::parse(&inner).unwrap();
            assert!(ALLOWED_PORTS.contains(&parsed.destination_port));
            tuples.insert((parsed.source, parsed.source_port, parsed.destination, parsed.destination_port));
        }
        assert_eq!(tuples.len(), 1000, "{traffic:?}");
        assert!(order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > 100).count() > 900);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
        assert!(stream.order().skip(1000).take(1000).all(|number| (1000..2000).contains(&number)));
    }
}

#[test]
fn random_prefixes_are_many_different_and_the_same_every_time() {
    for family in [Family::V4, Family::V6] {
        let prefixes = random_prefixes(family, 20_000);
        assert_eq!(prefixes, random_prefixes(family, 20_000));
        assert_eq!(prefixes.iter().collect::<HashSet<_>>().len(), 20_000);
        let of = |length| prefixes.iter().filter(|net| net.prefix_len() == length).count();
        let most = if family == Family::V4 { 24 } else { 48 };
        assert!((8_000..13_000).contains(&of(most)), "{} of /{most}", of(most));
        let own: [IpNet; 2] = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert!(prefixes.iter().all(|net| *net == net.trunc() && own.iter().all(|own| !own.contains(net))));
    }
}

#[test]
fn names_of_cases_say_what_is_not_usual() {
    assert_eq!(Case::BASE.name(), "known-flow/v4/vxlan/flows-10k/rules-1k");
    let case = Case { kind: Kind::NewFlow, routes: 1_000_000, size: Size::Imix, batch: 1, ..Case::BASE };
    assert_eq!(case.name(), "new-flow/v4/vxlan/rules-1k/routes-1M/size-imix/batch-1");
    assert_eq!([1, 250, 1000, 1500, 10_000_000].map(count), ["1", "250", "1k", "1500", "10M"]);
}

#[test]
fn what_a_way_needs_and_a_node_has_not_is_said() {
    let alone = Node { uplink: None, ..Node::in_memory(1, 1) };
    for way in [Way::Local, Way::Direct, Way::FromVxlan] {
        assert!(Traffic::new(way, Family::V4, 1).on(&alone).is_err());
    }
}
