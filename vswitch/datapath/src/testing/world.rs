//! Two nodes that could be real: pods, a host port, an uplink, tunnels of both families between them, and policy.
//!
//! | address on node n | who | identity | policy |
//! |---|---|---|---|
//! | 10.0.n.10, fd10:0:0:n::10 | pod A, a client | 16 | none |
//! | 10.0.n.11, fd10:0:0:n::11 | pod B, a server | 17 | ingress: only clients, TCP 80, UDP 5000-5999, ICMP |
//! | 10.0.n.12, fd10:0:0:n::12 | pod C, a stranger | 18 | egress: only to clients |
//! | 10.0.n.1, fd10:0:0:n::1 | the node | 19 there, 20 on the other | |
//! | 192.168.0.n, fd00::n | the node, on the underlay | | |
//! | 10.0.n.0/26, fd10:0:0:n::/122 | its block: unreachable but for its pods; a tunnel on the other node | | |
//! | 10.0.3.0/26 | a node reached directly, 192.168.0.3 | 21 | |
//! | 10.0.4.0/26 | a tunnel to 192.168.0.4, which is not resolved | 21 | |
//! | the rest | the world, by the host port | 21 | |
//!
//! MTUs: 1450 for pods and host ports, 1500 on the uplink: so 1450 through the IPv4 tunnel and 1430 through the IPv6 one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use vswitch_model::limits::LARGE_PACKET_MAX;
use vswitch_model::{
    Action, Attachment, DesiredState, DropReason, Dscp, Encapsulation, Generation, Identity, IdentityId,
    IdentityKind, IdentitySet, Local, Mac, NextHop, PodTunnels, Policy, PolicyId, Port, PortMatch, PortName,
    Rule, RuleId, SetId, Standing, Subject, Tier, TierDefault, Tunnel, TunnelId, Vni, VxlanNetwork,
};

use super::frames::Ends;
use crate::compile::{CompileInputs, Hop, PortFacts, PortMap, Underlay, compile};
use crate::tables::{Revision, Role, Tables};
use crate::{Buffer, Counters, Now, Offload, Output, Packet, PortIndex, Stage, VecBuffer, Walk, WalkConfig};

/// The uplink.
pub const UPLINK: PortIndex = PortIndex(0);
/// The host port.
pub const HOST: PortIndex = PortIndex(1);
/// The client.
pub const A: PortIndex = PortIndex(2);
/// The server.
pub const B: PortIndex = PortIndex(3);
/// The stranger.
pub const C: PortIndex = PortIndex(4);
/// All ports with their names.
pub const PORTS: [(PortIndex, &str); 5] = [(UPLINK, "uplink"), (HOST, "host"), (A, "a"), (B, "b"), (C, "c")];

/// Rule that lets clients reach the server.
pub const RULE_SERVER: RuleId = RuleId(16);
/// Rule that lets the stranger reach clients.
pub const RULE_STRANGER: RuleId = RuleId(17);
/// Tunnel to the other node over IPv4.
pub const TUNNEL_V4: TunnelId = TunnelId(1);
/// Tunnel to the other node over IPv6.
pub const TUNNEL_V6: TunnelId = TunnelId(2);

/// The Ethernet address of a pod.
#[must_use]
pub const fn pod_mac(node: u8, pod: PortIndex) -> Mac {
    Mac([0x0a, 0x58, 0, 0, node, 8 + pod.0 as u8])
}

/// The Ethernet address of a node's uplink.
#[must_use]
pub const fn uplink_mac(node: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 0xff, node])
}

/// A pod's IPv4 address, of [`HOST`] the node's own.
#[must_use]
pub const fn v4(node: u8, pod: PortIndex) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, node, low(pod)))
}

/// A pod's IPv6 address, of [`HOST`] the node's own.
#[must_use]
pub const fn v6(node: u8, pod: PortIndex) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(
        0xfd10,
        0,
        0,
        node as u16,
        0,
        0,
        0,
        if pod.0 == HOST.0 { 1 } else { 0xe + pod.0 },
    ))
}

const fn low(pod: PortIndex) -> u8 {
    if pod.0 == HOST.0 { 1 } else { 8 + pod.0 as u8 }
}

/// A node's IPv4 address on the underlay.
#[must_use]
pub const fn underlay_v4(node: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, node))
}

/// A node's IPv6 address on the underlay.
#[must_use]
pub const fn underlay_v6(node: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, node as u16))
}

/// The Ethernet source of what the node's kernel sends.
pub const KERNEL_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// What the two nodes begin with: compiled once, since tests make many.
static FIRST_TABLES: [OnceLock<Arc<Tables>>; 2] = [const { OnceLock::new() }; 2];

fn compiled(number: u64, desired: &DesiredState, ports: &PortMap, underlay: &Underlay) -> Tables {
    desired.check().expect("the test's desired state is valid");
    let (generation, revision) = (Generation(number), Revision(number));
    compile(&CompileInputs { generation, revision, desired, ports, underlay })
        .expect("the test's desired state compiles")
}

/// One node and a walk on it.
#[derive(Debug)]
pub struct World {
    /// 1 or 2.
    pub node: u8,
    /// What control wants.
    pub desired: DesiredState,
    /// The open ports.
    pub ports: PortMap,
    /// The underlay.
    pub underlay: Underlay,
    /// What these were compiled to.
    pub tables: Arc<Tables>,
    /// The walk.
    pub walk: Walk,
    /// Where packets went; emptied by [`World::send_all`].
    pub out: Output<VecBuffer>,
    /// Spare buffers at the start of each batch; and large ones, which nothing is coalesced without.
    pub spare: usize,
    /// As above.
    pub large: usize,
    /// The clock.
    pub now: Now,
    seen: BTreeMap<String, u64>,
    ended: usize,
}

impl World {
    /// Node 1 or 2, with room for 1024 flows and 64 fragmented packets, and 8 spare buffers.
    #[must_use]
    pub fn node(node: u8) -> Self {
        Self::with_config(node, &WalkConfig { flows: 1024, fragments: 64, ..WalkConfig::default() })
    }

    /// The same with other sizes.
    #[must_use]
    pub fn with_config(node: u8, config: &WalkConfig) -> Self {
        let counters = Arc::new(Counters::new(PORTS.len()));
        counters.rules.reserve(RuleId(1000));
        let (desired, ports, underlay) = (desired(node), ports(node), underlay(node));
        let first = || Arc::new(compiled(1, &desired, &ports, &underlay));
        let tables = FIRST_TABLES[usize::from(node - 1)].get_or_init(first);
        Self {
            node,
            tables: Arc::clone(tables),
            desired,
            ports,
            underlay,
            walk: Walk::new(config, counters),
            out: Output::new(8),
            spare: 8,
            large: 0,
            now: Now(1_000_000_000),
            seen: BTreeMap::new(),
            ended: 0,
        }
    }

    /// Compiles the tables anew, as another generation.
    ///
    /// # Panics
    /// When the desired state is not valid.
    pub fn recompile(&mut self) {
        let next = self.tables.generation.0 + 1;
        self.tables = Arc::new(compiled(next, &self.desired, &self.ports, &self.underlay));
    }

    /// The same as an engine does it: flows are judged again only where that may make a difference.
    ///
    /// # Panics
    /// When the desired state is not valid.
    pub fn republish(&mut self) {
        let next = self.tables.generation.0 + 1;
        let mut tables = compiled(next, &self.desired, &self.ports, &self.underlay);
        tables.follow(&self.tables);
        self.tables = Arc::new(tables);
    }

    /// Ends of a frame from one of this node's pods to any address.
    #[must_use]
    pub fn ends(&self, pod: PortIndex, destination: IpAddr) -> Ends {
        let source = if destination.is_ipv4() { v4(self.node, pod) } else { v6(self.node, pod) };
        Ends::of_pod(pod_mac(self.node, pod), source, destination)
    }

    /// Ends of a frame the node's kernel sends from its own address.
    #[must_use]
    pub fn host_ends(&self, destination: IpAddr) -> Ends {
        let source = if destination.is_ipv4() { v4(self.node, HOST) } else { v6(self.node, HOST) };
        Ends::of_pod(KERNEL_MAC, source, destination)
    }

    /// Ends of the outer header of what the other node sends to this one.
    #[must_use]
    pub fn tunnel_ends(&self, over_v6: bool) -> Ends {
        let other = 3 - self.node;
        let (source, destination) = if over_v6 {
            (underlay_v6(other), underlay_v6(self.node))
        } else {
            (underlay_v4(other), underlay_v4(self.node))
        };
        Ends {
            source_mac: uplink_mac(other),
            destination_mac: uplink_mac(self.node),
            source,
            destination,
            ttl: 64,
        }
    }

    /// Ends of an inner frame from a pod of the other node to an address here.
    #[must_use]
    pub fn inner_ends(&self, pod: PortIndex, destination: IpAddr) -> Ends {
        let other = 3 - self.node;
        let source = if destination.is_ipv4() { v4(other, pod) } else { v6(other, pod) };
        let [from, to] = [other, self.node].map(|node| vtep(node, destination.is_ipv6()));
        Ends { source_mac: from, destination_mac: to, source, destination, ttl: 63 }
    }

    /// Walks one frame; what left, and by which port.
    pub fn send(&mut self, port: PortIndex, frame: &[u8]) -> Vec<(PortIndex, Vec<u8>)> {
        self.send_all([(port, frame.to_vec())])
    }

    /// Walks a batch; what left, and by which port.
    pub fn send_all(
        &mut self,
        frames: impl IntoIterator<Item = (PortIndex, Vec<u8>)>,
    ) -> Vec<(PortIndex, Vec<u8>)> {
        let packet = |(port, frame): (_, Vec<u8>)| Packet {
            buffer: VecBuffer::of(&frame),
            port,
            offload: Offload::default(),
        };
        let packets = self.walk_packets(frames.into_iter().map(packet).collect());
        packets.into_iter().map(|packet| (packet.port, packet.buffer.bytes().to_vec())).collect()
    }

    /// Walks packets with whatever offload they bear; what left.
    ///
    /// # Panics
    /// When a buffer got lost or came out twice.
    pub fn walk_packets(&mut self, mut packets: Vec<Packet<VecBuffer>>) -> Vec<Packet<VecBuffer>> {
        self.out.spare.resize_with(self.spare, || VecBuffer::of(&[]));
        self.out.large.resize_with(self.large, || {
            let mut room = VecBuffer::of(&[0; LARGE_PACKET_MAX as usize]);
            room.set_len(0).then_some(room).expect("a buffer can be shorter than it is")
        });
        let before = packets.len() + self.out.spare.len() + self.out.large.len();
        let replaced = |world: &Self| {
            let count = |stage| world.walk.counters().stage(stage) as usize;
            count(Stage::Segment) + count(Stage::Coalesce) + world.large - world.out.large.len()
        };
        let replaced_before = replaced(self);
        self.walk.process(&self.tables, self.now, &mut packets, &mut self.out);
        let Output { tx, held, dropped, spare, large, .. } = &self.out;
        let after = packets.len() + spare.len() + large.len() + tx.len() + held.len() + dropped.len();
        assert_eq!(before, after, "every buffer comes out once");
        // The buffer of what was cut, or became part of another packet, comes back as those of packets that ended do.
        self.ended = dropped.len() - (replaced(self) - replaced_before);
        self.out.dropped.clear();
        self.out.tx.drain(..).collect()
    }

    /// How many packets of the last walk ended without anything leaving in their place.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.ended
    }

    /// Lets time pass.
    pub fn wait_s(&mut self, seconds: u64) {
        self.now = Now(self.now.0 + seconds * 1_000_000_000);
    }

    /// What was counted since this was asked last, as `a rx 1`, `c drop policy-egress 1`, `stage parse 1`, `flows
    /// created 1`: everything that moved, in alphabetical order.
    pub fn moved(&mut self) -> Vec<String> {
        let now = all(self.walk.counters());
        let moved = now.iter().filter_map(|(name, count)| {
            let before = self.seen.get(name).copied().unwrap_or(0);
            (*count != before).then(|| format!("{name} {}", count - before))
        });
        let moved = moved.collect();
        self.seen = now;
        moved
    }

    /// The same without the stages.
    pub fn moved_ports(&mut self) -> Vec<String> {
        self.moved().into_iter().filter(|line| !line.starts_with("stage")).collect()
    }
}

fn all(counters: &Counters) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (index, name) in PORTS {
        let port = counters.port(index);
        all.insert(format!("{name} rx"), port.rx_packets.get());
        all.insert(format!("{name} tx"), port.tx_packets.get());
        for reason in DropReason::ALL {
            all.insert(format!("{name} drop {reason}"), port.drops(*reason));
        }
    }
    for stage in Stage::ALL {
        all.insert(format!("stage {}", stage.key()), counters.stage(*stage));
    }
    all.insert("flows created".to_owned(), counters.flows_created.get());
    all.insert("flows expired".to_owned(), counters.flows_expired.get());
    all.insert("flows revoked".to_owned(), counters.flows_revoked.get());
    all.insert("flows evicted".to_owned(), counters.flows_evicted.get());
    all
}

fn name(name: &str) -> PortName {
    PortName::new(name).expect("the names of the test's ports are short")
}

fn node_name(node: u8) -> String {
    format!("node-{node}")
}

/// The address of a node's VTEP.
#[must_use]
pub fn vtep(node: u8, v6: bool) -> Mac {
    if v6 { Mac::vtep_v6(&node_name(node)) } else { Mac::vtep_v4(&node_name(node)) }
}

/// A node's end of flannel's network.
#[must_use]
pub fn flannel(node: u8) -> VxlanNetwork {
    let [mac_v4, mac_v6] = [4, 6].map(|family| Mac([0x72, 0, 0, 0, family, node]));
    VxlanNetwork { vni: Vni::FLANNEL, port: 8472, mac_v4, mac_v6 }
}

fn ports(node: u8) -> PortMap {
    let facts = |index, role, mac, mtu| PortFacts {
        index,
        role,
        mac,
        mtu,
        finishes_checksums: role == Role::Host,
        takes_large: false,
    };
    PORTS
        .into_iter()
        .map(|(index, port)| {
            let facts = match index {
                UPLINK => facts(index, Role::Uplink, uplink_mac(node), 1500),
                HOST => facts(index, Role::Host, Mac::GATEWAY, 1450),
                _ => facts(index, Role::Pod, Mac::GATEWAY, 1450),
            };
            (name(port), facts)
        })
        .collect()
}

fn underlay(node: u8) -> Underlay {
    let hop = |to| {
        let (dst_mac, src_mac) = (uplink_mac(to), uplink_mac(node));
        vec![Hop { port: UPLINK, dst_mac, src_mac, mtu: 1500, weight: 1, on_link: true }]
    };
    let other = 3 - node;
    Underlay {
        hops: BTreeMap::from([
            (underlay_v4(other), hop(other)),
            (underlay_v6(other), hop(other)),
            (underlay_v4(3), hop(3)),
        ]),
        local_addresses: BTreeSet::from([underlay_v4(node), underlay_v6(node)]),
        ..Underlay::default()
    }
}

fn desired(node: u8) -> DesiredState {
    let other = 3 - node;
    let mut state = DesiredState { local: Some(local(node)), ..DesiredState::default() };
    let identities = [
        (16, IdentityKind::Pod, "pod default {role=client}"),
        (17, IdentityKind::Pod, "pod default {role=server}"),
        (18, IdentityKind::Pod, "pod other {role=stranger}"),
        (19, IdentityKind::LocalNode, "this node"),
        (20, IdentityKind::Node, "the other node"),
        (21, IdentityKind::World, "the world"),
    ];
    for (id, kind, description) in identities {
        let id = IdentityId(id);
        state.identities.insert(id, Identity { id, kind, description: description.to_owned() });
    }
    policies(&mut state);
    for (id, remote, on) in
        [(1, underlay_v4(other), other), (2, underlay_v6(other), other), (4, underlay_v4(4), 4)]
    {
        let id = TunnelId(id);
        let remote_mac = vtep(on, remote.is_ipv6());
        let encapsulation = Encapsulation::Vxlan { vni: Vni::CALICO, port: 4789, remote_mac };
        state.tunnels.insert(id, Tunnel { id, node: node_name(on), remote, encapsulation });
    }
    for pod in [A, B, C] {
        add_pod(&mut state, node, pod);
        for address in [v4(other, pod), v6(other, pod)] {
            state.prefixes.insert(address.into(), IdentityId(14 + u32::from(pod.0)));
        }
    }
    for (address, identity) in [
        (v4(node, HOST), 19),
        (v6(node, HOST), 19),
        (underlay_v4(node), 19),
        (underlay_v6(node), 19),
        (v4(other, HOST), 20),
        (v6(other, HOST), 20),
    ] {
        state.prefixes.insert(address.into(), IdentityId(identity));
    }
    let net = |text: &str| text.parse::<ipnet::IpNet>().expect("the test's prefixes are valid");
    for world in ["0.0.0.0/0", "::/0"] {
        state.prefixes.insert(net(world), IdentityId(21));
        state.routes.insert(net(world), NextHop::Host);
    }
    for (prefix, next_hop) in [
        (format!("10.0.{node}.0/26"), NextHop::Unreachable),
        (format!("fd10:0:0:{node}::/122"), NextHop::Unreachable),
        (format!("10.0.{other}.0/26"), NextHop::Tunnel(TUNNEL_V4)),
        (format!("fd10:0:0:{other}::/122"), NextHop::Tunnel(TUNNEL_V6)),
        ("10.0.3.0/26".to_owned(), NextHop::Direct(underlay_v4(3))),
        ("10.0.4.0/26".to_owned(), NextHop::Tunnel(TunnelId(4))),
    ] {
        state.routes.insert(net(&prefix), next_hop);
    }
    state
}

fn add_pod(state: &mut DesiredState, node: u8, pod: PortIndex) {
    let addresses = vec![v4(node, pod), v6(node, pod)];
    let port_name = name(PORTS[usize::from(pod.0)].1);
    for address in &addresses {
        state.prefixes.insert((*address).into(), IdentityId(14 + u32::from(pod.0)));
        state.routes.insert((*address).into(), NextHop::Port(port_name.clone()));
    }
    let port = Port {
        attachment: Attachment::Veth { interface: port_name.clone(), netns: None },
        mac: pod_mac(node, pod),
        addresses,
        mtu: 1450,
        workload: format!("default/{port_name}"),
        name: port_name.clone(),
    };
    state.ports.insert(port_name, port);
}

fn policies(state: &mut DesiredState) {
    let set = IdentitySet { id: SetId(1), members: vec![IdentityId(16)] };
    state.sets.insert(set.id, set);
    let range = |protocol, first, last| PortMatch { protocol, first, last };
    let server = vec![range(6, 80, 80), range(17, 5000, 5999), range(1, 0, u16::MAX), range(58, 0, u16::MAX)];
    for (id, rule, ports) in [(1, RULE_SERVER, server), (2, RULE_STRANGER, Vec::new())] {
        let rule =
            Rule { peers: Some(SetId(1)), ports, ..Rule::new(rule, Action::Allow, "rule 1".to_owned()) };
        let policy = Policy {
            id: PolicyId(id),
            name: format!("NetworkPolicy default/{id}"),
            standing: Standing::Enforced,
            rules: vec![rule],
            end: None,
        };
        state.policies.insert(policy.id, policy);
    }
    let tier = |policy| {
        vec![Tier {
            name: "kubernetes".to_owned(),
            policies: vec![PolicyId(policy)],
            default: TierDefault::Deny,
        }]
    };
    for (identity, ingress, egress) in [(17, tier(1), Vec::new()), (18, Vec::new(), tier(2))] {
        let identity = IdentityId(identity);
        state.subjects.insert(identity, Subject { identity, ingress, egress });
    }
}

fn local(node: u8) -> Local {
    let (IpAddr::V4(underlay_v4), IpAddr::V6(underlay_v6)) = (underlay_v4(node), underlay_v6(node)) else {
        unreachable!("each has its family")
    };
    Local {
        node: node_name(node),
        underlay_v4: Some(underlay_v4),
        underlay_v6: Some(underlay_v6),
        networks: vec![VxlanNetwork::calico(&node_name(node)), flannel(node)],
        dscp: Dscp::Inherit,
        pod_tunnels: PodTunnels::default(),
        host_addresses: vec![v4(node, HOST), v6(node, HOST)],
        host_routes: Vec::new(),
        host_mtu: 1450,
    }
}
