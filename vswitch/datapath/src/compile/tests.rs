use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use vswitch_model::{
    Action, Attachment, DropReason, Dscp, Encapsulation, Identity, IdentityId, IdentityKind, Local, NextHop,
    PodTunnels, Policy, PolicyId, Port, Rule, RuleId, Standing, Subject, Tier, TierDefault, Tunnel, TunnelId,
    Vni, VxlanNetwork,
};

use super::*;
use crate::BATCH;
use crate::flow::{Direction, Flow, FlowKey, NewFlow, Now, TcpFlags};
use crate::policy::FlowPorts;
use crate::tables::{Adjacency, Leaf, NodeIndex, Question, TunnelTemplate};

const POD: PortIndex = PortIndex(2);
const HOST: PortIndex = PortIndex(1);
const UPLINK: PortIndex = PortIndex(0);
const POD_MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const REMOTE_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn name(name: &str) -> PortName {
    PortName::new(name).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

struct World {
    desired: DesiredState,
    ports: PortMap,
    underlay: Underlay,
}

impl World {
    /// Node-1 with one pod, node-2 behind a tunnel of each family, a host port, an uplink of 1500 bytes.
    fn new() -> Self {
        let local = Local {
            node: "node-1".into(),
            underlay_v4: Some(Ipv4Addr::new(192, 168, 0, 1)),
            underlay_v6: Some("2001:db8::1".parse().unwrap()),
            networks: vec![VxlanNetwork::calico("node-1")],
            dscp: Dscp::Inherit,
            pod_tunnels: PodTunnels::default(),
            host_addresses: vec![ip("10.244.1.0"), ip("fd00:1::")],
            host_routes: vec![net("10.244.0.0/16")],
            host_mtu: 1450,
        };
        let mut desired = DesiredState { local: Some(local), ..DesiredState::default() };
        for (id, kind) in [(16, IdentityKind::Pod), (17, IdentityKind::Pod), (18, IdentityKind::World)] {
            let id = IdentityId(id);
            desired.identities.insert(id, Identity { id, kind, description: String::new() });
        }
        for (id, remote) in [(4, ip("192.168.0.2")), (6, ip("2001:db8::2"))] {
            let id = TunnelId(id);
            let encapsulation =
                Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac: Mac::vtep_v4("node-2") };
            desired.tunnels.insert(id, Tunnel { id, node: "node-2".into(), remote, encapsulation });
        }
        desired.ports.insert(
            name("cali1"),
            Port {
                name: name("cali1"),
                attachment: Attachment::Veth { interface: name("cali1"), netns: None },
                mac: POD_MAC,
                addresses: vec![ip("10.244.1.5"), ip("fd00:1::5")],
                mtu: 1450,
                workload: "default/pod".into(),
            },
        );
        for (prefix, next_hop) in [
            ("0.0.0.0/0", NextHop::Host),
            ("10.244.1.0/26", NextHop::Unreachable),
            ("10.244.1.5/32", NextHop::Port(name("cali1"))),
            ("10.244.2.0/26", NextHop::Tunnel(TunnelId(4))),
            ("10.245.2.0/26", NextHop::Direct(ip("192.168.0.2"))),
            ("fd00:1::5/128", NextHop::Port(name("cali1"))),
            ("fd00:2::/122", NextHop::Tunnel(TunnelId(6))),
            ("fd00:3::/122", NextHop::Tunnel(TunnelId(4))),
        ] {
            desired.routes.insert(net(prefix), next_hop);
        }
        for (prefix, id) in
            [("10.244.1.5/32", 16), ("fd00:1::5/128", 16), ("10.244.2.9/32", 17), ("0.0.0.0/0", 18)]
        {
            desired.prefixes.insert(net(prefix), IdentityId(id));
        }
        let facts = |index, role, mac, mtu| PortFacts {
            index,
            role,
            mac,
            mtu,
            finishes_checksums: role == Role::Host,
            takes_large: false,
        };
        let ports = PortMap::from([
            (name("eth0"), facts(UPLINK, Role::Uplink, UPLINK_MAC, 1500)),
            (name("vswitch0"), facts(HOST, Role::Host, Mac::default(), 1450)),
            (name("cali1"), facts(POD, Role::Pod, Mac::default(), 0)),
        ]);
        let hop = Hop {
            port: UPLINK,
            dst_mac: REMOTE_MAC,
            src_mac: UPLINK_MAC,
            mtu: 1500,
            weight: 1,
            on_link: true,
        };
        let hops = BTreeMap::from([(ip("192.168.0.2"), vec![hop]), (ip("2001:db8::2"), vec![hop])]);
        Self {
            desired,
            ports,
            underlay: Underlay {
                hops,
                local_addresses: BTreeSet::from([ip("172.16.0.1")]),
                ..Underlay::default()
            },
        }
    }

    fn compile_as(&self, revision: u64) -> Result<Tables, CompileError> {
        self.desired.check().unwrap();
        compile(&CompileInputs {
            generation: Generation(5),
            revision: Revision(revision),
            desired: &self.desired,
            ports: &self.ports,
            underlay: &self.underlay,
        })
    }

    fn compile(&self) -> Tables {
        self.compile_as(1).unwrap()
    }
}

fn way<'a>(tables: &'a Tables, address: &str) -> &'a Adjacency {
    tables.adjacency(tables.lookup(ip(address)).adjacency)
}

#[test]
fn routes_and_identities_meet_in_one_leaf() {
    let tables = World::new().compile();
    let pod = Adjacency::Pod { port: POD, dst_mac: POD_MAC, src_mac: Mac::GATEWAY, mtu: 1450 };
    let host = Adjacency::Host { port: HOST, mtu: 1450 };
    for (address, adjacency, identity) in [
        ("10.244.1.5", &pod, 16),
        ("fd00:1::5", &pod, 16),
        ("10.244.1.6", &Adjacency::Drop(DropReason::RouteUnreachable), 18),
        ("10.244.1.0", &host, 18),
        ("192.168.0.1", &host, 18),
        ("172.16.0.1", &host, 18),
        ("8.8.8.8", &host, 18),
        ("2001:db8::1", &host, 0),
        ("fd00:9::1", &Adjacency::Drop(DropReason::NoRoute), 0),
    ] {
        assert_eq!(way(&tables, address), adjacency, "{address}");
        assert_eq!(tables.lookup(ip(address)).identity, IdentityId(identity), "{address}");
    }
    assert_eq!(tables.lookup(ip("10.244.2.9")).identity, IdentityId(17));
    assert_eq!(tables.lookup(ip("10.244.2.9")).adjacency, tables.lookup(ip("10.244.2.10")).adjacency);
    let local = tables.local().unwrap();
    assert_eq!((local.host_v4, local.host_v6), (Some(Ipv4Addr::new(10, 244, 1, 0)), "fd00:1::".parse().ok()));
}

#[test]
fn batches_find_what_single_lookups_find() {
    let tables = World::new().compile();
    let v4: Vec<u32> = (0..BATCH as u32).map(|i| 0x0af4_0100 + i * 16).collect();
    let v6: Vec<u128> = (0..BATCH as u128).map(|i| 0xfd00_0001 << 96 | i).collect();
    let (mut leaves_v4, mut leaves_v6) = ([Leaf::default(); BATCH], [Leaf::default(); BATCH]);
    tables.lookup_v4_batch(&v4, &mut leaves_v4);
    tables.lookup_v6_batch(&v6, &mut leaves_v6);
    assert_eq!(leaves_v4.to_vec(), v4.iter().map(|a| tables.lookup_v4(*a)).collect::<Vec<_>>());
    assert_eq!(leaves_v6.to_vec(), v6.iter().map(|a| tables.lookup_v6(*a)).collect::<Vec<_>>());
}

#[test]
fn however_narrow_the_path_ipv6_has_its_least_mtu() {
    let mut world = World::new();
    for (path, v4, v6) in [(1500, 1450, 1430), (1400, 1350, 1330), (1300, 1250, 1280), (576, 526, 1280)] {
        world.underlay.paths = world.underlay.hops.keys().map(|remote| (*remote, path)).collect();
        let tables = world.compile();
        let mtu = |address| template(&tables, address).1;
        assert_eq!((mtu("10.244.2.9"), mtu("fd00:2::9")), (v4, v6), "path of {path}");
        assert_eq!(mtu("fd00:3::9"), v4.max(1280), "over IPv4, path of {path}");
    }
    // What the uplink or a route of the kernel does not take does not go, whatever a router said.
    for path in [576, 1300, 9000] {
        world.underlay.paths.values_mut().for_each(|known| *known = path);
        world.underlay.hops.values_mut().flatten().for_each(|hop| hop.mtu = 1290);
        let tables = world.compile();
        let mtu = |address| template(&tables, address).1;
        assert_eq!((mtu("fd00:2::9"), mtu("fd00:3::9")), (1220, 1240), "path of {path}");
    }
}

fn template<'a>(tables: &'a Tables, address: &str) -> (&'a TunnelTemplate, u16) {
    match way(tables, address) {
        Adjacency::Tunnel { template, mtu, port: UPLINK, .. } => (template, *mtu),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ipv4_tunnel_is_a_template_of_64_bytes() {
    let tables = World::new().compile();
    let (template, mtu) = template(&tables, "10.244.2.9");
    assert_eq!((template.as_bytes().len(), template.overhead(), mtu), (64, 50, 1450));
    let mut bytes = template.as_bytes().to_vec();
    bytes[17] = 50;
    bytes[34 + 5] = 30;
    let packet = etherparse::SlicedPacket::from_ethernet(&bytes).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ipv4)) = &packet.net else { panic!("{packet:?}") };
    let mut header = ipv4.header().to_header();
    assert!(header.dont_fragment && header.time_to_live == 64 && header.protocol.0 == 17);
    assert_eq!((header.source, header.destination), ([192, 168, 0, 1], [192, 168, 0, 2]));
    header.total_len = 0;
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    let Some(etherparse::TransportSlice::Udp(udp)) = &packet.transport else { panic!("{packet:?}") };
    assert_eq!((udp.source_port(), udp.destination_port(), udp.checksum()), (0, 4789, 0));
    assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0x10, 0, 0]);
    let inner = [Mac::vtep_v4("node-2").0, Mac::vtep_v4("node-1").0].concat();
    assert_eq!(udp.payload()[8..], [inner.as_slice(), &[8, 0]].concat());
    assert_eq!(bytes[..14], [REMOTE_MAC.0.as_slice(), &UPLINK_MAC.0, &[8, 0]].concat());
}

#[test]
fn an_ipv6_tunnel_is_a_template_of_84_bytes() {
    let tables = World::new().compile();
    let (template, mtu) = template(&tables, "fd00:2::9");
    assert_eq!((template.as_bytes().len(), template.overhead(), mtu), (84, 70, 1430));
    let mut bytes = template.as_bytes().to_vec();
    bytes[19] = 30;
    bytes[54 + 5] = 30;
    let packet = etherparse::SlicedPacket::from_ethernet(&bytes).unwrap();
    let Some(etherparse::NetSlice::Ipv6(ipv6)) = &packet.net else { panic!("{packet:?}") };
    assert_eq!((ipv6.header().hop_limit(), ipv6.header().next_header().0), (64, 17));
    assert_eq!(ipv6.header().source_addr(), "2001:db8::1".parse::<Ipv6Addr>().unwrap());
    assert_eq!(ipv6.header().destination_addr(), "2001:db8::2".parse::<Ipv6Addr>().unwrap());
    assert_eq!(bytes[12..14], [0x86, 0xdd]);
    assert_eq!(bytes[76..], [Mac::vtep_v6("node-1").0.as_slice(), &[0x86, 0xdd]].concat());
    // IPv6 over the IPv4 underlay: another inner EtherType and source.
    let (mixed, mtu) = self::template(&tables, "fd00:3::9");
    assert_eq!((mixed.as_bytes().len(), mtu), (64, 1450));
    assert_eq!(mixed.as_bytes()[56..], [Mac::vtep_v6("node-1").0.as_slice(), &[0x86, 0xdd]].concat());
}

#[test]
fn an_ip_in_ip_tunnel_is_a_template_of_34_or_54_bytes() {
    let mut world = World::new();
    for tunnel in world.desired.tunnels.values_mut() {
        tunnel.encapsulation = Encapsulation::IpIp;
    }
    let tables = world.compile();
    for (address, carried, length, mtu) in
        [("10.244.2.9", 4, 34, 1480), ("fd00:2::9", 41, 54, 1460), ("fd00:3::9", 41, 34, 1480)]
    {
        let (template, found) = template(&tables, address);
        let bytes = template.as_bytes();
        assert_eq!((bytes.len(), found, usize::from(template.overhead())), (length, mtu, length - 14));
        let at = if length == 34 { 23 } else { 20 };
        assert_eq!(bytes[at], carried, "{address}");
        assert_eq!(template.station(), REMOTE_MAC);
    }
}

#[test]
fn a_tunnel_of_a_network_that_this_node_has_no_end_of_is_not_resolved() {
    let mut world = World::new();
    let local = world.desired.local.as_mut().unwrap();
    local.networks = vec![VxlanNetwork { vni: Vni::FLANNEL, ..VxlanNetwork::calico("node-1") }];
    assert!(world.desired.check().is_err());
    let inputs = CompileInputs {
        generation: Generation(5),
        revision: Revision(1),
        desired: &world.desired,
        ports: &world.ports,
        underlay: &world.underlay,
    };
    let tables = compile(&inputs).unwrap();
    assert_eq!(way(&tables, "10.244.2.9").drop_reason(), Some(DropReason::NextHopUnresolved));
}

#[test]
fn tunnel_sources_live_behind_their_node_whichever_way() {
    let mut world = World::new();
    let tables = world.compile();
    let (v4, v6) =
        (tables.tunnel_from(ip("192.168.0.2")).unwrap(), tables.tunnel_from(ip("2001:db8::2")).unwrap());
    assert_eq!((v4.tunnel, v6.tunnel, v4.node == v6.node), (TunnelId(4), TunnelId(6), true));
    assert!(tables.tunnel_from(ip("192.168.0.3")).is_none());
    for address in ["10.244.2.9", "fd00:2::9", "fd00:3::1", "10.245.2.1"] {
        assert!(tables.lives_behind(tables.lookup(ip(address)), v4), "{address}");
        assert!(tables.lives_behind(tables.lookup(ip(address)), v6), "{address}");
    }
    for address in ["10.244.1.5", "8.8.8.8", "fd00:9::1", "10.244.1.6"] {
        assert!(!tables.lives_behind(tables.lookup(ip(address)), v4), "{address}");
    }
    world.underlay.hops.clear();
    let tables = world.compile();
    assert_eq!(way(&tables, "10.244.2.9").drop_reason(), Some(DropReason::NextHopUnresolved));
    assert!(
        tables.lives_behind(tables.lookup(ip("10.244.2.9")), tables.tunnel_from(ip("192.168.0.2")).unwrap())
    );
}

#[test]
fn while_one_family_of_the_underlay_is_away_the_other_carries_all() {
    let mut world = World::new();
    let by = |world: &World, address: &str| match way(&world.compile(), address) {
        Adjacency::Tunnel { tunnel, .. } => Some(tunnel.0),
        other => {
            assert_eq!(other.drop_reason(), Some(DropReason::NextHopUnresolved));
            None
        }
    };
    let all = |world: &World| ["10.244.2.9", "fd00:2::9", "fd00:3::1"].map(|address| by(world, address));
    assert_eq!(all(&world), [Some(4), Some(6), Some(4)]);
    let v6 = world.underlay.hops.remove(&ip("2001:db8::2")).unwrap();
    assert_eq!(all(&world), [Some(4); 3]);
    let v4 = world.underlay.hops.remove(&ip("192.168.0.2")).unwrap();
    assert_eq!(all(&world), [None; 3]);
    // One in the same encapsulation comes first, and another is better than none.
    world.underlay.hops.insert(ip("2001:db8::2"), v6);
    let id = TunnelId(3);
    let other =
        Tunnel { id, encapsulation: Encapsulation::IpIp, ..world.desired.tunnels[&TunnelId(6)].clone() };
    world.desired.tunnels.insert(id, other);
    assert_eq!(all(&world), [Some(6); 3]);
    world.desired.local.as_mut().unwrap().underlay_v6 = None;
    assert_eq!(all(&world), [None; 3], "there is nothing to send from");
    world.underlay.hops.insert(ip("192.168.0.2"), v4);
    assert_eq!(all(&world), [Some(4); 3]);
}

#[test]
fn what_is_missing_drops_with_its_reason() {
    let mut world = World::new();
    world.ports.clear();
    let tables = world.compile();
    assert_eq!(way(&tables, "10.244.1.5").drop_reason(), Some(DropReason::PortGone));
    assert_eq!(way(&tables, "8.8.8.8").drop_reason(), Some(DropReason::PortGone));
    let mut world = World::new();
    world.desired.local = None;
    let tables = world.compile();
    assert_eq!(way(&tables, "fd00:9::1").drop_reason(), Some(DropReason::NotConfigured));
    assert_eq!(way(&tables, "10.244.2.9").drop_reason(), Some(DropReason::NextHopUnresolved));
    let mut world = World::new();
    world.desired.tunnels.clear();
    world.desired.routes.retain(|_, next_hop| !matches!(next_hop, NextHop::Tunnel(_)));
    assert_eq!(way(&world.compile(), "10.245.2.1").node(), NodeIndex::NONE);
}

#[test]
fn ports_have_the_roles_the_engine_gave_them() {
    let mut world = World::new();
    let tables = world.compile();
    let pod = tables.port(POD);
    assert_eq!((pod.role, pod.mac, pod.mtu, pod.owns_v4(0x0af4_0105)), (Role::Pod, POD_MAC, 1450, true));
    assert_eq!((tables.port(UPLINK).mac, tables.port(HOST).finishes_checksums), (UPLINK_MAC, true));
    assert_eq!(tables.port_named("cali1"), Some(POD));
    world.desired.routes.retain(|_, next_hop| !matches!(next_hop, NextHop::Port(_)));
    world.desired.ports.clear();
    assert_eq!(world.compile().port(POD).role, Role::None);
    let facts = world.ports[&name("cali1")];
    world.ports.insert(name("cali2"), facts);
    assert!(world.compile_as(1).unwrap_err().to_string().contains("cali2"));
    world.ports.insert(name("cali2"), PortFacts { index: PortIndex(1024), ..facts });
    assert!(matches!(world.compile_as(1), Err(CompileError::PortNumber { .. })));
}

/// About a flow to UDP port 53.
fn question(in_port: PortIndex, source: Leaf, destination: Leaf) -> Question {
    Question { in_port, source, destination, ports: FlowPorts::to(17, 53) }
}

/// A flow from the pod to `to`, as the walk makes it.
fn open(tables: &Tables, to: &str) -> Flow {
    let (source, destination) = (ip("10.244.1.5"), ip(to));
    let (key, orientation) = FlowKey::between((source, 1000), (destination, 53), 17).unwrap();
    let judgement = tables.judge(&question(POD, tables.lookup(source), tables.lookup(destination))).unwrap();
    let new = NewFlow {
        key,
        orientation,
        in_port: POD,
        judgement,
        revision: tables.revision,
        tcp_flags: TcpFlags::default(),
        now: Now(0),
    };
    Flow::new(&new).unwrap()
}

#[test]
fn a_flow_is_judged_again_by_new_tables() {
    let mut world = World::new();
    let before = world.compile();
    let mut flow = open(&before, "10.244.2.9");
    assert_eq!((flow.identities, flow.egress), ([IdentityId(16), IdentityId(17)], RuleId::NOT_ISOLATED));
    assert!(before.adjacency(flow.adjacencies[Direction::Reply as usize]).is_pod());

    // The destination moved to another route and identity: the record follows.
    world.desired.routes.insert(net("10.244.2.9/32"), NextHop::Host);
    world.desired.prefixes.remove(&net("10.244.2.9/32"));
    let moved = world.compile_as(2).unwrap();
    moved.revalidate(&mut flow, 0).unwrap();
    assert_eq!((flow.identities[1], flow.revision), (IdentityId(18), Revision(2)));
    assert_eq!(moved.adjacency(flow.adjacencies[0]).port(), Some(HOST));

    // A policy that denies it: the record stays as it was, to be removed.
    let rule = Rule::new(RuleId(30), Action::Deny, String::new());
    world.desired.policies.insert(
        PolicyId(1),
        Policy {
            id: PolicyId(1),
            name: "deny".into(),
            standing: Standing::Enforced,
            rules: vec![rule],
            end: None,
        },
    );
    let egress = vec![Tier { name: "t".into(), policies: vec![PolicyId(1)], default: TierDefault::Pass }];
    let identity = IdentityId(16);
    world.desired.subjects.insert(identity, Subject { identity, ingress: Vec::new(), egress });
    let denied = world.compile_as(3).unwrap().revalidate(&mut flow, 0).unwrap_err();
    assert_eq!((denied.reason, denied.rule), (DropReason::PolicyEgress, RuleId(30)));
    assert_eq!(flow.revision, Revision(2));

    // The same when the port it was opened by has another number by now.
    flow.in_port = PortIndex(9);
    assert!(world.compile_as(4).unwrap().revalidate(&mut flow, 0).is_err());
}

#[test]
fn the_receiving_pod_judges_too() {
    let mut world = World::new();
    let tier = Tier { name: "t".into(), policies: Vec::new(), default: TierDefault::Deny };
    let identity = IdentityId(16);
    world.desired.subjects.insert(identity, Subject { identity, ingress: vec![tier], egress: Vec::new() });
    let tables = world.compile();
    let (pod, peer) = (tables.lookup(ip("10.244.1.5")), tables.lookup(ip("10.244.2.9")));
    let denied = tables.judge(&question(UPLINK, peer, pod)).unwrap_err();
    assert_eq!((denied.reason, denied.rule), (DropReason::PolicyIngress, RuleId::NO_RULE_MATCHED));
    assert!(tables.judge(&question(POD, pod, peer)).is_ok());
}

fn nets() -> impl Strategy<Value = IpNet> {
    let v4 = (0u32..8, 0u32..8, 0u8..=32).prop_map(|(a, b, length)| {
        IpNet::new(Ipv4Addr::from_bits(a << 29 | b).into(), length).unwrap().trunc()
    });
    let v6 = (0u128..4, 0u128..4, 0u8..=128).prop_map(|(a, b, length)| {
        IpNet::new(Ipv6Addr::from_bits(a << 126 | b << 40 | b).into(), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

fn next_hops() -> impl Strategy<Value = NextHop> {
    prop_oneof![
        Just(NextHop::Host),
        Just(NextHop::Unreachable),
        Just(NextHop::Port(name("cali1"))),
        Just(NextHop::Tunnel(TunnelId(4))),
        Just(NextHop::Tunnel(TunnelId(6))),
        Just(NextHop::Direct(ip("192.168.0.9"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_routes_and_prefixes_are_found_by_longest_match(
        routes in proptest::collection::btree_map(nets(), next_hops(), 0..20),
        prefixes in proptest::collection::btree_map(nets(), (16u32..19).prop_map(IdentityId), 0..20),
        has_local in any::<bool>(),
        resolved in any::<bool>(),
    ) {
        let mut world = World::new();
        world.underlay.local_addresses.clear();
        if !resolved {
            world.underlay.hops.clear();
        }
        if !has_local {
            world.desired.local = None;
        }
        world.desired.routes = routes;
        world.desired.prefixes = prefixes;
        let tables = world.compile();
        let own = ["10.244.1.0", "fd00:1::", "192.168.0.1", "2001:db8::1"].map(ip);
        let best = |address: IpAddr| {
            let covering = world.desired.routes.iter().filter(|(net, _)| net.contains(&address));
            covering.max_by_key(|(net, _)| net.prefix_len()).map(|(_, next_hop)| next_hop)
        };
        for net in world.desired.routes.keys().chain(world.desired.prefixes.keys()) {
            for address in [net.network(), net.broadcast()] {
                let covering = world.desired.prefixes.iter().filter(|(net, _)| net.contains(&address));
                let identity = covering.max_by_key(|(net, _)| net.prefix_len()).map_or(IdentityId::UNKNOWN, |(_, id)| *id);
                prop_assert_eq!(tables.lookup(address).identity, identity);
                let adjacency = tables.adjacency(tables.lookup(address).adjacency);
                let right = match best(address) {
                    _ if has_local && own.contains(&address) => adjacency.port() == Some(HOST),
                    Some(NextHop::Host) => adjacency.port() == Some(HOST),
                    Some(NextHop::Port(_)) => adjacency.port() == Some(POD),
                    Some(NextHop::Tunnel(_)) if has_local && resolved => adjacency.port() == Some(UPLINK),
                    Some(NextHop::Tunnel(_) | NextHop::Direct(_)) => {
                        adjacency.drop_reason() == Some(DropReason::NextHopUnresolved)
                    }
                    Some(NextHop::Unreachable) => adjacency.drop_reason() == Some(DropReason::RouteUnreachable),
                    None if has_local => adjacency.drop_reason() == Some(DropReason::NoRoute),
                    None => adjacency.drop_reason() == Some(DropReason::NotConfigured),
                };
                prop_assert!(right, "{} goes {:?}, not {:?}", address, adjacency, best(address));
            }
        }
    }
}
