//! Desired states by the thousand: any state leads to any other, messages keep all of it, and what is not whole is
//! refused by name.

#![cfg(feature = "api")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use vswitch_model::api::engine as pb;
use vswitch_model::*;

fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0u8..=32)
        .prop_map(|(bits, len)| IpNet::new(Ipv4Addr::from(bits).into(), len).unwrap());
    let v6 = (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, len)| IpNet::new(Ipv6Addr::from(bits).into(), len).unwrap());
    prop_oneof![v4, v6].prop_map(|prefix| prefix.trunc())
}

fn tier() -> impl Strategy<Value = Tier> {
    (prop::collection::vec((1u32..6).prop_map(PolicyId), 0..3), any::<bool>()).prop_map(|(policies, deny)| {
        Tier {
            name: "kubernetes".into(),
            policies,
            default: if deny { TierDefault::Deny } else { TierDefault::Pass },
        }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Pass), Just(Action::Log)];
    let set = prop::option::of((1u32..5).prop_map(SetId));
    let range = (any::<u8>(), any::<u16>(), any::<u16>()).prop_map(|(protocol, a, b)| PortMatch {
        protocol,
        first: a.min(b),
        last: a.max(b),
    });
    let sets = (set.clone(), set.clone(), set.clone(), set);
    let ranges = || prop::collection::vec(range.clone(), 0..3);
    (action, sets, ranges(), ranges()).prop_map(
        |(action, (peers, not_peers, subjects, not_subjects), ports, source_ports)| Rule {
            id: RuleId(0),
            action,
            peers,
            not_peers,
            subjects,
            not_subjects,
            ports,
            source_ports,
            position: String::new(),
        },
    )
}

fn local() -> impl Strategy<Value = Local> {
    (any::<Option<Ipv4Addr>>(), any::<Option<Ipv6Addr>>(), any::<[u8; 6]>(), 0..=Vni::MAX, any::<u16>())
        .prop_map(|(underlay_v4, underlay_v6, mac, vni, port)| Local {
            node: "node-1".into(),
            underlay_v4,
            underlay_v6,
            networks: vec![
                VxlanNetwork::calico("node-1"),
                VxlanNetwork {
                    vni: Vni::new(vni).unwrap(),
                    // Another than Calico's.
                    port: port % 4000 + 1,
                    mac_v4: Mac(mac),
                    mac_v6: Mac::vtep_v6("node-1"),
                },
            ],
            dscp: match vni % 66 {
                64 => Dscp::Inherit,
                65 => Dscp::Uniform,
                dscp => Dscp::pipe(dscp).unwrap(),
            },
            pod_tunnels: PodTunnels { vxlan: vni % 2 == 1, ipip: vni % 3 == 1 },
            host_addresses: vec!["10.244.1.1".parse().unwrap()],
            host_routes: vec!["10.244.0.0/16".parse().unwrap()],
            host_mtu: 1450,
        })
}

/// A whole state: identities 16..22, sets 1..5, policies 1..6 always exist, everything else may.
fn state() -> impl Strategy<Value = DesiredState> {
    let identities = prop::collection::vec(0u8..4, 6);
    let sets = prop::collection::vec(prop::collection::btree_set(16u32..22, 0..6), 4);
    let standing =
        prop_oneof![Just(Standing::Enforced), Just(Standing::Staged), Just(Standing::StagedRemoval)];
    let policies = prop::collection::vec((standing, prop::collection::vec(rule(), 0..3)), 5);
    let subjects = prop::collection::btree_map(
        (16u32..22).prop_map(IdentityId),
        (prop::collection::vec(tier(), 0..2), prop::collection::vec(tier(), 0..2)),
        0..4,
    );
    let tunnels = prop::collection::btree_map(1u32..4, (any::<[u8; 6]>(), 1u8..250), 0..3);
    let ports = prop::collection::btree_map("[a-z]{1,8}", 1280u16..1600, 0..4);
    let prefixes = prop::collection::btree_map(prefix(), (16u32..22).prop_map(IdentityId), 0..6);
    let routes = prop::collection::btree_map(prefix(), any::<u8>(), 0..6);
    let local = prop::option::of(local());
    (local, identities, sets, policies, subjects, tunnels, ports, (prefixes, routes)).prop_map(
        |(local, identities, sets, policies, subjects, tunnels, ports, (prefixes, routes))| {
            let mut state = DesiredState { local, prefixes, ..DesiredState::default() };
            for (index, kind) in identities.into_iter().enumerate() {
                let id = IdentityId(16 + u32::try_from(index).unwrap());
                let kind =
                    [IdentityKind::World, IdentityKind::LocalNode, IdentityKind::Node, IdentityKind::Pod]
                        [usize::from(kind)];
                state.apply(Change::SetIdentity(Identity {
                    id,
                    kind,
                    description: format!("identity {id}"),
                }));
            }
            for (id, members) in (1..).zip(sets) {
                let members = members.into_iter().map(IdentityId).collect();
                state.apply(Change::SetSet(IdentitySet { id: SetId(id), members }));
            }
            let mut rule_id = RuleId::FIRST_ASSIGNED;
            for (id, (standing, rules)) in (1..).zip(policies) {
                let rules = rules.into_iter().map(|rule| {
                    rule_id += 1;
                    Rule { id: RuleId(rule_id), position: format!("rule {rule_id}"), ..rule }
                });
                let rules = rules.collect();
                state.apply(Change::SetPolicy(Policy {
                    id: PolicyId(id),
                    name: format!("policy {id}"),
                    standing,
                    rules,
                    end: (id % 2 == 0).then(|| PolicyEnd { id: RuleId(1000 + id), position: "end".into() }),
                }));
            }
            for (identity, (ingress, egress)) in subjects {
                state.apply(Change::SetSubject(Subject { identity, ingress, egress }));
            }
            for (id, (mac, host)) in tunnels {
                let encapsulation = match host % 3 {
                    0 => Encapsulation::IpIp,
                    _ => Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac: Mac(mac) },
                };
                let remote = IpAddr::from([192, 0, 2, host]);
                state.apply(Change::SetTunnel(Tunnel {
                    id: TunnelId(id),
                    node: "n".into(),
                    remote,
                    encapsulation,
                }));
            }
            for (index, (name, mtu)) in (1u8..).zip(ports) {
                let name = PortName::new(name).unwrap();
                state.apply(Change::SetPort(Port {
                    attachment: Attachment::Veth { interface: name.clone(), netns: None },
                    name,
                    mac: Mac([2, 0, 0, 0, 0, index]),
                    addresses: vec![IpAddr::from([10, 244, 1, index])],
                    mtu,
                    workload: "default/pod".into(),
                }));
            }
            let (port, tunnel) = (state.ports.keys().next().cloned(), state.tunnels.keys().next().copied());
            for (prefix, choice) in routes {
                let next_hop = match (choice % 5, &port, tunnel) {
                    (0, Some(port), _) => NextHop::Port(port.clone()),
                    (1, _, Some(tunnel)) => NextHop::Tunnel(tunnel),
                    (2, ..) => NextHop::Direct(IpAddr::from([192, 0, 2, choice.max(1)])),
                    (3, ..) => NextHop::Host,
                    _ => NextHop::Unreachable,
                };
                state.apply(Change::SetRoute(prefix, next_hop));
            }
            state
        },
    )
}

proptest! {
    #[test]
    fn any_state_leads_to_any_other(from in state(), to in state()) {
        prop_assert_eq!(from.check(), Ok(()));
        let mut reached = from.clone();
        for change in from.changes_to(&to) {
            reached.apply(change);
        }
        // What a node is to the others cannot be unsaid, only replaced.
        let local = to.local.clone().or(from.local);
        prop_assert_eq!(&reached, &DesiredState { local, ..to.clone() });
        prop_assert!(reached.changes_to(&to).is_empty());
    }

    #[test]
    fn no_step_of_a_delta_refers_to_what_is_not_there(from in state(), to in state()) {
        let mut reached = from.clone();
        for change in from.changes_to(&to) {
            let step = format!("{change:?}");
            reached.apply(change);
            // Uniqueness across a whole state (rule numbers, addresses) is judged at the end only.
            if let Err(error) = reached.check() {
                prop_assert!(!error.problem.contains("is not there"), "after {}: {}", step, error);
            }
        }
    }

    #[test]
    fn what_is_touched_is_all_that_can_have_broken(
        from in state(),
        to in state(),
        kept in prop::collection::vec(any::<bool>(), 64),
        kept_of in 0usize..8,
    ) {
        let mut reached = from.clone();
        // Some of what leads there, so that others may refer to what is not there, or say what others say.
        let changes = from.changes_to(&to).into_iter().zip(kept.into_iter().cycle());
        let changes = changes.enumerate().filter(|(at, (_, kept))| *kept || *at >= kept_of * 4);
        let changes: Vec<Change> = changes.map(|(_, (change, _))| change).collect();
        changes.iter().cloned().for_each(|change| reached.apply(change));
        let (whole, touched) = (reached.check(), reached.check_touched(&Touched::of(&changes)));
        prop_assert_eq!(whole.is_ok(), touched.is_ok(), "{:?}, {:?}", whole, touched);
    }

    #[test]
    fn messages_keep_all_of_a_state_and_a_delta(from in state(), to in state()) {
        prop_assert_eq!(DesiredState::try_from(pb::DesiredState::from(to.clone())), Ok(to.clone()));
        let delta = Delta { base: Generation(7), changes: from.changes_to(&to) };
        prop_assert_eq!(Delta::try_from(pb::Delta::from(delta.clone())), Ok(delta));
    }
}

/// A small whole state to be broken, one way a test.
fn whole() -> DesiredState {
    let name = PortName::new("vswpod1").unwrap();
    let identity = IdentityId(16);
    let mut state = DesiredState::default();
    for change in [
        Change::SetIdentity(Identity { id: identity, kind: IdentityKind::Pod, description: "pod".into() }),
        Change::SetSet(IdentitySet { id: SetId(1), members: vec![identity] }),
        Change::SetPort(Port {
            name: name.clone(),
            attachment: Attachment::Veth { interface: name.clone(), netns: None },
            mac: Mac([2, 0, 0, 0, 0, 1]),
            addresses: vec![IpAddr::from([10, 244, 1, 5])],
            mtu: 1450,
            workload: "default/pod".into(),
        }),
        Change::SetRoute("10.244.1.5/32".parse().unwrap(), NextHop::Port(name)),
    ] {
        state.apply(change);
    }
    assert_eq!(state.check(), Ok(()));
    state
}

#[test]
fn a_rule_saved_before_there_were_source_ports_has_none_and_is_saved_as_it_was() {
    use prost::Message;

    // id 20, allow, TCP 80, position "p".
    let saved = [8, 20, 16, 1, 42, 6, 8, 6, 16, 80, 24, 80, 50, 1, b'p'];
    let rule = Rule::try_from(pb::Rule::decode(&saved[..]).unwrap()).unwrap();
    let ports = vec![PortMatch { protocol: 6, first: 80, last: 80 }];
    assert_eq!(rule, Rule { ports, ..Rule::new(RuleId(20), Action::Allow, "p".into()) });
    assert_eq!(pb::Rule::from(rule).encode_to_vec(), saved);
}

#[test]
fn a_node_saved_before_there_were_several_networks_has_its_one() {
    let saved = pb::Local {
        node: "node-1".into(),
        vtep_mac_v4: "66:00:00:00:00:01".into(),
        vtep_mac_v6: "66:00:00:00:00:02".into(),
        vni: 4096,
        vxlan_port: 4789,
        host_mtu: 1450,
        ..pb::Local::default()
    };
    let local = Local::try_from(saved).unwrap();
    let (mac_v4, mac_v6) = (Mac([0x66, 0, 0, 0, 0, 1]), Mac([0x66, 0, 0, 0, 0, 2]));
    assert_eq!(local.networks, [VxlanNetwork { vni: Vni::CALICO, port: 4789, mac_v4, mac_v6 }]);
    assert_eq!((local.dscp, local.pod_tunnels), (Dscp::Inherit, PodTunnels::default()));
}

#[test]
fn what_a_node_is_to_the_underlay_is_checked() {
    let calico = VxlanNetwork::calico("node-1");
    let other = |vni: u32| VxlanNetwork { vni: Vni::new(vni).unwrap(), ..calico };
    let tunnel = |encapsulation| Tunnel {
        id: TunnelId(3),
        node: "node-2".into(),
        remote: IpAddr::from([192, 0, 2, 2]),
        encapsulation,
    };
    let flannel = Encapsulation::Vxlan { vni: Vni::FLANNEL, port: 8472, remote_mac: calico.mac_v4 };
    let judged = |networks: Vec<VxlanNetwork>, dscp, encapsulation| {
        let local = Local {
            node: "node-1".into(),
            underlay_v4: None,
            underlay_v6: None,
            networks,
            dscp,
            pod_tunnels: PodTunnels::default(),
            host_addresses: Vec::new(),
            host_routes: Vec::new(),
            host_mtu: 1450,
        };
        let before = DesiredState { local: Some(local.clone()), ..DesiredState::default() };
        let mut state = before.clone();
        state.apply(Change::SetTunnel(tunnel(encapsulation)));
        let whole = state.check();
        for (touched, what) in [
            (Touched::between(&DesiredState::default(), &state), "both"),
            (Touched::between(&before, &state), "the tunnel"),
        ] {
            if what == "both" || before.check().is_ok() {
                assert_eq!(state.check_touched(&touched).is_ok(), whole.is_ok(), "{what}: {whole:?}");
            }
        }
        whole.err().map(|error| error.to_string())
    };
    assert_eq!(judged(vec![], Dscp::Uniform, Encapsulation::IpIp), None);
    let both = vec![calico, VxlanNetwork { vni: Vni::FLANNEL, port: 8472, ..calico }];
    assert_eq!(judged(both, Dscp::Pipe(63), flannel), None);
    for (networks, dscp, encapsulation, expected) in [
        (vec![calico], Dscp::Inherit, flannel, "tunnels[3].encapsulation: this node has no end of vxlan 1"),
        (vec![calico, calico], Dscp::Inherit, Encapsulation::IpIp, "local.networks[1]: has the same VNI"),
        (
            vec![VxlanNetwork { port: 0, ..calico }],
            Dscp::Inherit,
            Encapsulation::IpIp,
            "local.networks[0]: nothing comes to UDP port 0",
        ),
        (
            (1..=5).map(other).collect(),
            Dscp::Inherit,
            Encapsulation::IpIp,
            "local.networks: 5 of them, but at most 4",
        ),
        (vec![calico], Dscp::Pipe(64), Encapsulation::IpIp, "local.dscp: 64 is not a code point: 0 to 63"),
    ] {
        let error = judged(networks, dscp, encapsulation).unwrap();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn what_is_not_whole_is_refused_by_name() {
    let rule = |id, peers, first, last| Rule {
        peers,
        ports: vec![PortMatch { protocol: 6, first, last }],
        ..Rule::new(RuleId(id), Action::Allow, String::new())
    };
    let upside_down = vec![PortMatch { protocol: 6, first: 9, last: 1 }];
    let policy = |rules| {
        Change::SetPolicy(Policy {
            id: PolicyId(1),
            name: "p".into(),
            standing: Standing::Enforced,
            rules,
            end: Some(PolicyEnd { id: RuleId(21), position: String::new() }),
        })
    };
    let port = |change: &dyn Fn(&mut Port)| {
        let mut port = whole().ports.into_values().next().unwrap();
        change(&mut port);
        Change::SetPort(port)
    };
    let cases: Vec<(Change, &str, &str)> = vec![
        (policy(vec![rule(3, None, 1, 1)]), "policies[p].rules[3]", "reserved"),
        (policy(vec![rule(20, None, 1, 1), rule(20, None, 1, 1)]), "policies[p].rules[20]", "twice"),
        (policy(vec![rule(21, None, 1, 1)]), "policies[p].rules[21]", "twice"),
        (policy(vec![rule(20, Some(SetId(9)), 1, 1)]), "policies[p].rules[20]", "set 9"),
        (policy(vec![Rule { not_peers: Some(SetId(8)), ..rule(20, None, 1, 1) }]), "rules[20]", "set 8"),
        (policy(vec![Rule { not_subjects: Some(SetId(7)), ..rule(20, None, 1, 1) }]), "rules[20]", "set 7"),
        (policy(vec![rule(20, None, 9, 1)]), "policies[p].rules[20]", "upside down"),
        (
            policy(vec![Rule { source_ports: upside_down.clone(), ..rule(20, None, 1, 1) }]),
            "policies[p].rules[20]",
            "source ports 9-1 are upside down",
        ),
        (port(&|p| p.mtu = 1279), "ports[vswpod1].mtu", "1280 to 1600"),
        (port(&|p| p.mac = Mac::BROADCAST), "ports[vswpod1].mac", "ff:ff"),
        (port(&|p| p.addresses.clear()), "ports[vswpod1].addresses", "1 to 16"),
        (
            port(&|p| p.addresses = vec![IpAddr::from([224, 0, 0, 1])]),
            "ports[vswpod1].addresses",
            "224.0.0.1",
        ),
        (port(&|p| p.name = PortName::new("other").unwrap()), "addresses", "already belongs to port other"),
        (Change::RemovePort(PortName::new("vswpod1").unwrap()), "routes[10.244.1.5/32]", "port vswpod1"),
        (Change::SetRoute("10.0.0.0/8".parse().unwrap(), NextHop::Tunnel(TunnelId(4))), "routes", "tunnel 4"),
        (
            Change::SetRoute("10.0.0.1/8".parse().unwrap(), NextHop::Host),
            "prefix",
            "10.0.0.0/8 would be right",
        ),
        (
            Change::SetPrefix("10.0.0.0/8".parse().unwrap(), IdentityId(99)),
            "prefixes[10.0.0.0/8]",
            "identity 99",
        ),
        (Change::RemoveIdentity(IdentityId(16)), "sets[1].members", "identity 16"),
    ];
    for (change, field, problem) in cases {
        let mut state = whole();
        let step = format!("{change:?}");
        state.apply(change);
        let error = state.check().expect_err(&step);
        assert!(error.field.contains(field), "{step}: {error}");
        assert!(error.problem.contains(problem), "{step}: {error}");
    }
}

#[test]
fn a_wrong_message_is_refused_with_the_path_of_its_field() {
    let route = |prefix: &str| pb::Route {
        prefix: prefix.into(),
        next_hop: Some(pb::route::NextHop::Host(pb::Host {})),
    };
    let good = pb::DesiredState { routes: vec![route("10.0.0.0/8")], ..Default::default() };
    assert!(DesiredState::try_from(good).is_ok());
    let with_port = |mac: &str, mtu| pb::DesiredState {
        ports: vec![pb::Port {
            name: "pod".into(),
            attachment: Some(pb::port::Attachment::Veth(pb::Veth {
                interface: "pod".into(),
                netns: String::new(),
            })),
            mac: mac.into(),
            addresses: vec!["10.0.0.1".into()],
            mtu,
            workload: String::new(),
        }],
        ..Default::default()
    };
    let cases = [
        (pb::DesiredState { routes: vec![route("10.0.0.0/33")], ..Default::default() }, "routes[0].prefix"),
        (
            pb::DesiredState { routes: vec![route("10.0.0.0/8"), route("10.0.0.0/8")], ..Default::default() },
            "routes[1]",
        ),
        (
            pb::DesiredState {
                routes: vec![pb::Route { prefix: "::/0".into(), next_hop: None }],
                ..Default::default()
            },
            "routes[0].next_hop",
        ),
        (with_port("02:00", 1450), "ports[0].mac"),
        (with_port("02:00:00:00:00:01", 70_000), "ports[0].mtu"),
        (
            pb::DesiredState {
                identities: vec![pb::Identity { id: 16, kind: 0, description: String::new() }],
                ..Default::default()
            },
            "identities[0].kind",
        ),
    ];
    for (message, field) in cases {
        let error = DesiredState::try_from(message).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
}
