use std::collections::BTreeSet;

use vswitch_model::{Encapsulation, Mac, NextHop, PortName, Tunnel, Vni, VxlanNetwork};

use super::*;

/// Routes as text, tunnels by node and underlay address.
fn routes(state: &DesiredState) -> Vec<String> {
    let text = |way: &NextHop| match way {
        NextHop::Port(name) => format!("port {name}"),
        NextHop::Tunnel(id) => format!("tunnel {} {}", state.tunnels[id].node, state.tunnels[id].remote),
        NextHop::Direct(address) => format!("direct {address}"),
        NextHop::Host => "host".into(),
        NextHop::Unreachable => "unreachable".into(),
    };
    state.routes.iter().map(|(prefix, way)| format!("{prefix} {}", text(way))).collect()
}

fn two_nodes(mode: &str) -> String {
    [
        node("n0", "IPv4Address=192.0.2.1/24 IPv4VXLANTunnelAddr=10.0.0.1"),
        node("n1", "IPv4Address=192.0.2.2/24 IPv4VXLANTunnelAddr=10.0.1.1"),
        node("n2", "IPv4Address=198.51.100.2/24"),
        pool("pool", "10.0.0.0/16", mode),
        block("10.0.0.0/26", "n0"),
        block("10.0.1.0/26", "n1"),
        block("10.0.2.0/26", "n2"),
    ]
    .concat()
}

#[test]
fn a_pool_says_how_packets_travel() {
    for (mode, near, far) in [
        ("Never", "direct 192.0.2.2", "direct 198.51.100.2"),
        ("Always", "tunnel n1 192.0.2.2", "tunnel n2 198.51.100.2"),
        ("CrossSubnet", "direct 192.0.2.2", "tunnel n2 198.51.100.2"),
    ] {
        let cluster = two_nodes(mode) + &endpoint("v0", "n0", "x/a", "10.0.0.5");
        let expected = [
            "0.0.0.0/0 host".to_owned(),
            "10.0.0.0/16 unreachable".into(),
            "10.0.0.0/26 unreachable".into(),
            "10.0.0.1/32 host".into(),
            "10.0.0.5/32 port v0".into(),
            format!("10.0.1.0/26 {near}"),
            format!("10.0.2.0/26 {far}"),
            "192.0.2.1/32 host".into(),
            "::/0 host".into(),
        ];
        assert_eq!(routes(&state(&inputs(&cluster), "n0")), expected, "{mode}");
    }
}

#[test]
fn of_a_disabled_pool_only_what_nodes_have_taken_is_ours() {
    let cluster = two_nodes("Always").replace("vxlanMode: Always", "vxlanMode: Always, disabled: true");
    assert!(cluster.contains("disabled: true"), "{cluster}");
    let state = state(&inputs(&cluster), "n0");
    let expected = [
        "0.0.0.0/0 host",
        "10.0.0.0/26 unreachable",
        "10.0.0.1/32 host",
        "10.0.1.0/26 tunnel n1 192.0.2.2",
        "10.0.2.0/26 tunnel n2 198.51.100.2",
        "192.0.2.1/32 host",
        "::/0 host",
    ];
    assert_eq!(routes(&state), expected);
    let host_routes: Vec<_> = state.local.unwrap().host_routes.iter().map(ToString::to_string).collect();
    assert_eq!(host_routes, ["10.0.0.0/26", "10.0.1.0/26", "10.0.2.0/26"]);
}

#[test]
fn a_pool_takes_no_node_its_underlay() {
    let cluster = two_nodes("Always") + &pool("wide", "192.0.2.0/25", "Always");
    let Calculated { state, problems, .. } = calculated(&inputs(&cluster), "n0");
    assert_eq!(state.routes.get(&"192.0.2.0/25".parse().unwrap()), None);
    assert_eq!(state.local.unwrap().host_routes, ["10.0.0.0/16".parse().unwrap()]);
    let expected = "IPPool wide (192.0.2.0/25) holds 192.0.2.1, node n0's address on the underlay: only what";
    assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{problems:?}");
}

#[test]
fn pods_outside_their_nodes_blocks_have_routes_of_their_own() {
    let cluster = two_nodes("Always")
        // Borrowed from n0's block, and one from nowhere; the third is where the block leads already.
        + &endpoint("v1", "n1", "x/a", "10.0.0.6, 203.0.113.1, 10.0.1.6")
        + &endpoint("v2", "n0", "x/b", "10.0.1.7");
    let cluster = inputs(&cluster);
    let local = state(&cluster, "n0");
    let found = routes(&local);
    for expected in
        ["10.0.0.6/32 tunnel n1 192.0.2.2", "203.0.113.1/32 tunnel n1 192.0.2.2", "10.0.1.7/32 port v2"]
    {
        assert!(found.contains(&expected.to_owned()), "{expected}: {found:?}");
    }
    assert!(!found.iter().any(|route| route.starts_with("10.0.1.6/32")), "{found:?}");
    let host_routes: Vec<_> = local.local.unwrap().host_routes.iter().map(ToString::to_string).collect();
    assert_eq!(host_routes, ["10.0.0.0/16", "203.0.113.1/32"], "the node reaches pods outside pools as well");
    assert!(routes(&state(&cluster, "n1")).contains(&"10.0.0.6/32 port v1".to_owned()));
}

#[test]
fn a_node_without_blocks_has_its_pod_cidrs() {
    let with_cidrs = |name: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, annotations: \
             {{projectcalico.org/IPv4Address: 192.0.2.9/24}}}}, spec: {{podCIDRs: [10.9.0.0/24, 'fd00:9::/64']}}}}\n"
        )
    };
    let cluster = two_nodes("Never") + &with_cidrs("n9") + &block("fd00:1::/122", "n9");
    let found = routes(&state(&inputs(&cluster), "n0"));
    assert!(
        found.contains(&"10.9.0.0/24 tunnel n9 192.0.2.9".to_owned()),
        "of no pool, so tunnelled: {found:?}"
    );
    assert!(found.contains(&"fd00:1::/122 tunnel n9 192.0.2.9".to_owned()), "{found:?}");
    assert!(!found.iter().any(|route| route.starts_with("fd00:9::")), "it has a block of IPv6: {found:?}");
}

#[test]
fn a_node_with_an_end_of_another_network_is_named() {
    let cluster = |said: &str| {
        let far = node("n1", "IPv4Address=192.0.2.2/24 IPv6Address='2001:db8::2/64'");
        node("n0", "IPv4Address=192.0.2.1/24 IPv6Address='2001:db8::1/64'")
            + &far.replace("annotations: {", &format!("annotations: {{{said}"))
            + &pool("v4", "10.0.0.0/16", "Always")
            + &block("10.0.1.0/26", "n1")
    };
    let problems = |said: &str| calculated(&inputs(&cluster(said)), "n0").problems;
    assert_eq!(problems(""), [""; 0], "a node of Calico's says nothing of it");
    assert_eq!(problems("vswitch/vxlan: '4096:4789', "), [""; 0]);
    for far in ["4097:4789", "4096:8472"] {
        let expected = format!(
            "no VXLAN between this node and n1: this one's vni and vxlan_port (agent.toml) are 4096:4789, that one's {far}"
        );
        assert_eq!(problems(&format!("vswitch/vxlan: '{far}', ")), [expected]);
    }
    let unused = cluster("vswitch/vxlan: '4097:4789', ").replace("Always", "Never");
    assert_eq!(calculated(&inputs(&unused), "n0").problems, [""; 0], "nothing goes in it");
}

#[test]
fn tunnels_go_over_the_family_inside_when_both_nodes_have_it() {
    let cluster = [
        node("n0", "IPv4Address=192.0.2.1/24 IPv6Address='2001:db8::1/64'"),
        node(
            "n1",
            "IPv4Address=192.0.2.2/24 IPv6Address='2001:db8::2/64' VXLANTunnelMACAddr='66:01:02:03:04:05'",
        ),
        node("n2", "IPv4Address=192.0.2.3/24"),
        node("n3", "IPv6Address='2001:db8::4/64'"),
        pool("v4", "10.0.0.0/16", "Always"),
        pool("v6", "fd00::/64", "Always"),
    ]
    .concat();
    let blocks: String = (1..=3)
        .map(|n| {
            block(&format!("10.0.{n}.0/26"), &format!("n{n}"))
                + &block(&format!("fd00::{n}00/122"), &format!("n{n}"))
        })
        .collect();
    let state = state(&inputs(&(cluster + &blocks)), "n0");
    let found: Vec<_> = routes(&state).into_iter().filter(|route| route.contains("tunnel")).collect();
    assert_eq!(
        found,
        [
            "10.0.1.0/26 tunnel n1 192.0.2.2",
            "10.0.2.0/26 tunnel n2 192.0.2.3",
            "10.0.3.0/26 tunnel n3 2001:db8::4",
            "fd00::100/122 tunnel n1 2001:db8::2",
            "fd00::200/122 tunnel n2 192.0.2.3",
            "fd00::300/122 tunnel n3 2001:db8::4",
        ]
    );
    let macs: Vec<_> = state
        .tunnels
        .values()
        .map(|tunnel| {
            let Encapsulation::Vxlan { vni, port, remote_mac } = tunnel.encapsulation else {
                panic!("{tunnel:?}")
            };
            assert_eq!((vni, port), (Vni::CALICO, 4789));
            (tunnel.node.as_str(), tunnel.remote.is_ipv4(), remote_mac)
        })
        .collect();
    for expected in [
        ("n1", true, "66:01:02:03:04:05".parse().unwrap()),
        ("n1", false, Mac::vtep_v6("n1")),
        ("n2", true, Mac::vtep_v4("n2")),
        ("n3", false, Mac::vtep_v6("n3")),
    ] {
        assert!(macs.contains(&expected), "{expected:?}: {macs:?}");
    }
    assert_eq!(macs.len(), 4, "one for each node and family");
}

#[test]
fn what_is_encapsulated_is_in_what_the_pool_says() {
    let cluster = [
        node("n0", "IPv4Address=192.0.2.1/24 IPv6Address='2001:db8::1/64'"),
        node(
            "n1",
            "IPv4Address=192.0.2.2/24 IPv6Address='2001:db8::2/64' IPv4VXLANTunnelAddr=10.0.1.1 \
             IPv4IPIPTunnelAddr=10.9.9.9",
        ),
        node("n2", "IPv4Address=198.51.100.2/24 IPv4IPIPTunnelAddr=10.0.2.1"),
        pool("v4", "10.0.0.0/16", "Never, ipipMode: CrossSubnet"),
        pool("other", "10.1.0.0/16", "Always"),
        pool("v6", "fd00::/64", "Never, ipipMode: Always"),
        block("10.0.1.0/26", "n1"),
        block("10.1.1.0/26", "n1"),
        block("fd00::100/122", "n1"),
        block("10.0.2.0/26", "n2"),
    ]
    .concat();
    let state = state(&inputs(&cluster), "n0");
    let ways: Vec<_> = state
        .routes
        .iter()
        .filter_map(|(prefix, way)| match way {
            NextHop::Tunnel(id) => {
                let Tunnel { node, remote, encapsulation, .. } = &state.tunnels[id];
                Some(format!("{prefix} {node} {remote} {encapsulation}"))
            }
            NextHop::Direct(address) => Some(format!("{prefix} {address}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        ways,
        [
            "10.0.1.0/26 192.0.2.2",
            "10.0.2.0/26 n2 198.51.100.2 ipip",
            "10.1.1.0/26 n1 192.0.2.2 vxlan 4096 port 4789",
            // Of no pool.
            "10.9.9.9/32 n1 192.0.2.2 vxlan 4096 port 4789",
            "fd00::100/122 n1 2001:db8::2 ipip",
        ]
    );
}

/// A node that runs flannel, with the range of its pods.
fn flannel_node(name: &str, annotations: &str, cidrs: &str) -> String {
    let annotations: Vec<_> = annotations
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| format!("flannel.alpha.coreos.com/{name}: '{value}'"))
        .collect();
    format!(
        "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, annotations: {{{}}}}}, \
         spec: {{podCIDRs: [{cidrs}]}}}}\n",
        annotations.join(", ")
    )
}

const FAR: &str = "kube-subnet-manager=true backend-type=vxlan public-ip=192.0.2.7 public-ipv6=2001:db8::7 \
                   backend-data={\"VNI\":1,\"VtepMAC\":\"7e:42:00:00:00:01\"} \
                   backend-v6-data={\"VNI\":1,\"VtepMAC\":\"7e:42:00:00:00:02\"}";

/// This node, as its agent announces it to flannel's nodes, and one of Calico's.
fn announced() -> String {
    let own = "{name: n0, annotations: {projectcalico.org/IPv4Address: 192.0.2.1/24, \
               projectcalico.org/IPv6Address: '2001:db8::1/64', flannel.alpha.coreos.com/kube-subnet-manager: 'true', \
               flannel.alpha.coreos.com/backend-type: vxlan, flannel.alpha.coreos.com/public-ip: 192.0.2.1, \
               flannel.alpha.coreos.com/backend-data: '{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:09\"}'}}";
    format!("---\n{{apiVersion: v1, kind: Node, metadata: {own}}}\n")
        + &node("n1", "IPv4Address=192.0.2.2/24")
        + &block("10.0.1.0/26", "n1")
}

#[test]
fn nodes_that_run_flannel_are_reached_as_flannel_has_it_beside_calicos() {
    let cluster = announced() + &flannel_node("n7", FAR, "10.7.0.0/24, 'fd00:7::/64'");
    let state = state(&inputs(&cluster), "n0");
    let mac_v4 = "02:00:00:00:00:09".parse().unwrap();
    let flannel = VxlanNetwork { vni: Vni::FLANNEL, port: 8472, mac_v4, mac_v6: mac_v4 };
    assert_eq!(state.local.as_ref().unwrap().networks, [VxlanNetwork::calico("n0"), flannel]);
    for (prefix, remote, vni, port, mac) in [
        ("10.0.1.0/26", "192.0.2.2", Vni::CALICO, 4789, Mac::vtep_v4("n1")),
        ("10.7.0.0/24", "192.0.2.7", Vni::FLANNEL, 8472, "7e:42:00:00:00:01".parse().unwrap()),
        ("fd00:7::/64", "2001:db8::7", Vni::FLANNEL, 8472, "7e:42:00:00:00:02".parse().unwrap()),
    ] {
        let NextHop::Tunnel(id) = state.routes[&prefix.parse().unwrap()] else { panic!("{prefix}") };
        let Tunnel { remote: found, encapsulation, .. } = &state.tunnels[&id];
        assert_eq!(found.to_string(), remote);
        assert_eq!(*encapsulation, Encapsulation::Vxlan { vni, port, remote_mac: mac }, "{prefix}");
    }
}

#[test]
fn flannel_that_cannot_be_spoken_is_told() {
    let other_network = FAR.replace("\"VNI\":1", "\"VNI\":2");
    for (cluster, expected) in [
        (
            announced() + &flannel_node("n7", &FAR.replace("vxlan", "host-gw"), "10.7.0.0/24"),
            "10.7.0.0/24 is unreachable: node n7 runs flannel's backend \"host-gw\"; vxlan is supported",
        ),
        (
            announced() + &flannel_node("n7", &other_network, "10.7.0.0/24"),
            "10.7.0.0/24 is unreachable: nodes n0 and n7 share no underlay family, or no VXLAN network",
        ),
        (
            node("n0", "IPv4Address=192.0.2.1/24") + &flannel_node("n7", FAR, "10.7.0.0/24"),
            "10.7.0.0/24 is unreachable: node n7 runs flannel, and this node is not announced to flannel's nodes yet",
        ),
    ] {
        let Calculated { state, problems, .. } = calculated(&inputs(&cluster), "n0");
        assert_eq!(problems, [expected]);
        assert_eq!(state.routes[&"10.7.0.0/24".parse().unwrap()], NextHop::Unreachable);
    }
}

#[test]
fn every_node_may_send_to_us_whatever_its_mode() {
    for mode in ["Never", "Always", "CrossSubnet", "Never, ipipMode: Always"] {
        let state = state(&inputs(&two_nodes(mode)), "n0");
        let remotes: BTreeSet<_> = state.tunnels.values().map(|tunnel| tunnel.remote.to_string()).collect();
        assert_eq!(Vec::from_iter(remotes), ["192.0.2.2", "198.51.100.2"], "{mode}");
    }
}

#[test]
fn the_node_tells_the_engine_what_it_is() {
    let cluster =
        node("n0", "IPv4Address=192.0.2.1/24 IPv4VXLANTunnelAddr=10.0.0.1 IPv6VXLANTunnelAddr='fd00::1'")
            + &pool("a", "10.0.0.0/16", "Always")
            + &pool("b", "fd00::/64", "Always");
    let local = state(&inputs(&cluster), "n0").local.unwrap();
    assert_eq!(
        (local.node.as_str(), local.underlay_v4, local.underlay_v6),
        ("n0", "192.0.2.1".parse().ok(), None)
    );
    assert_eq!(local.networks, [VxlanNetwork::calico("n0")]);
    assert_eq!(local.host_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    assert_eq!(local.host_routes, ["10.0.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()]);
}

#[test]
fn two_sandboxes_of_one_pod_are_two_ports() {
    let cluster = two_nodes("Always")
        + &pod("x/a", "app: web", "spec: {nodeName: n0}")
        + &endpoint("old", "n0", "x/a", "10.0.0.5")
        + &endpoint("new", "n0", "x/a", "10.0.0.6");
    let state = state(&inputs(&cluster), "n0");
    assert_eq!(state.ports.len(), 2);
    assert_eq!(
        identity(&state, "10.0.0.5"),
        identity(&state, "10.0.0.6"),
        "one pod's labels, so one identity"
    );
    assert_eq!(state.routes[&"10.0.0.6/32".parse().unwrap()], NextHop::Port(PortName::new("new").unwrap()));
}

#[test]
fn what_two_claim_is_the_first_ones_and_told() {
    let cluster = two_nodes("Always")
        + &endpoint("v0", "n0", "x/a", "10.0.0.5")
        + &endpoint("v1", "n0", "x/b", "10.0.0.5, 10.0.0.6")
        + &endpoint("v2", "n0", "x/c", "192.0.2.2")
        + &pod("x/d", "", "spec: {nodeName: n1}, status: {podIP: 10.0.0.6}");
    let Calculated { state, problems, .. } = calculated(&inputs(&cluster), "n0");
    assert_eq!(
        problems,
        [
            "pod x/b goes without address 10.0.0.5: it is that of pod x/a",
            "pod x/c goes without address 192.0.2.2: it is that of node n1",
            "pod x/d goes without address 10.0.0.6: it is that of pod x/b",
            "x/c gets no port: it has no address of its own",
        ]
    );
    assert_eq!(state.ports.values().map(|port| port.workload.as_str()).collect::<Vec<_>>(), ["x/a", "x/b"]);
}

#[test]
fn without_a_way_there_is_no_route_but_a_problem() {
    let cluster = two_nodes("Always")
        + &node("n6", "IPv6Address='2001:db8::6/64'")
        + &block("10.0.6.0/26", "n6")
        + &block("10.0.7.0/26", "gone");
    let Calculated { state, problems, .. } = calculated(&inputs(&cluster), "n0");
    assert_eq!(
        problems,
        [
            "10.0.6.0/26 is unreachable: nodes n0 and n6 share no underlay family, or no VXLAN network",
            "10.0.7.0/26 is unreachable: there is no Node gone",
        ]
    );
    assert!(routes(&state).contains(&"10.0.6.0/26 unreachable".to_owned()));

    let Calculated { state, problems, .. } =
        calculated(&inputs(&endpoint("v0", "n0", "x/a", "10.0.0.5")), "n0");
    assert_eq!(problems, ["there is no Node n0: nothing leads to or from other nodes"]);
    assert_eq!((state.local, state.ports.len()), (None, 1));
}
