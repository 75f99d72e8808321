//! One node: its pods, its peers, and what the engine is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use vswitch::config::{Config, Poll};
use vswitch::netlink::{Facts, Hop, Link};
use vswitch_model::{
    Attachment, DesiredState, Dscp, Encapsulation, Identity, IdentityId, IdentityKind, Local, Mac, NextHop,
    PodTunnels, Port, PortName, Tunnel, TunnelId, Vni, VxlanNetwork,
};

use super::{Family, Routes, Rules};

/// Identity of the node's pods.
pub(super) const WORKLOAD: IdentityId = IdentityId(16);
/// Identity of everything that no CIDR of a policy covers.
pub(super) const WORLD: IdentityId = IdentityId(17);
const THIS_NODE: IdentityId = IdentityId(18);
/// The UDP port of VXLAN (RFC 7348, section 5).
pub const VXLAN_PORT: u16 = 4789;

/// A pod's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its port: the host end of its veth.
    pub port: PortName,
    /// Path of the network namespace the host end is in. None: the engine's own.
    pub netns: Option<String>,
    /// The Ethernet address of the pod's end.
    pub mac: Mac,
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// The underlay's port, and who is reached by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its port.
    pub port: PortName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// This node's address.
    pub v4: Ipv4Addr,
    /// This node's address.
    pub v6: Ipv6Addr,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Other nodes; at least one.
    pub peers: Vec<Peer>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, which its VTEP addresses follow from.
    pub name: String,
    /// Its address on the underlay.
    pub v4: Ipv4Addr,
    /// Its address on the underlay.
    pub v6: Ipv6Addr,
    /// The Ethernet address of the first hop to it.
    pub mac: Mac,
}

impl Peer {
    /// Its address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Its VTEP's Ethernet address in tunnels of a family.
    #[must_use]
    pub fn vtep(&self, family: Family) -> Mac {
        vtep(&self.name, family)
    }
}

/// The address of a node's VTEP, by Calico's rule.
pub(super) fn vtep(node: &str, family: Family) -> Mac {
    match family {
        Family::V4 => Mac::vtep_v4(node),
        Family::V6 => Mac::vtep_v6(node),
    }
}

/// One node, all that the engine is told of.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name, which its VTEP addresses follow from.
    pub name: String,
    /// The tun device to the node's kernel.
    pub host_port: PortName,
    /// The node's addresses on the host port.
    pub host: (Ipv4Addr, Ipv6Addr),
    /// Its pods.
    pub pods: Vec<Pod>,
    /// MTU of pods and of the host port, in bytes.
    pub pod_mtu: u16,
    /// None: a node alone.
    pub uplink: Option<Uplink>,
    /// Whether the routes to other nodes are tunnels (VXLAN over the family they carry); else the peers are reached
    /// directly.
    pub vxlan: bool,
    /// Routes to other nodes.
    pub routes: BTreeMap<Family, Routes>,
    /// Rules of policy.
    pub rules: Rules,
}

/// A name the kernel would take.
///
/// # Panics
/// When it would not.
#[must_use]
pub fn port_name(name: &str) -> PortName {
    PortName::new(name).unwrap_or_else(|error| panic!("port names here are short: {error}"))
}

impl Node {
    /// A node in memory: `pods` pods `pod-0`, `pod-1`, ... at 10.0.1.10 and up, `peers` other nodes behind the port
    /// `uplink`. No routes to them yet, no rules. MTUs 1500 for pods and 1600 for the uplink, so that a frame of any size
    /// fits every way.
    #[must_use]
    pub fn in_memory(pods: usize, peers: usize) -> Self {
        let pods = (0..pods as u16).map(|number| {
            let [high, low] = (number + 10).to_be_bytes();
            Pod {
                port: port_name(&format!("pod-{number}")),
                netns: None,
                mac: Mac([0x0a, 0x58, 10, 0, 1 + high, low]),
                v4: Ipv4Addr::new(10, 0, 1 + high, low),
                v6: Ipv6Addr::new(0xfd10, 0, 0, 1, 0, 0, 0, number + 10),
            }
        });
        let peers = (0..peers as u16).map(|number| {
            let [high, low] = (number + 2).to_be_bytes();
            Peer {
                name: format!("node-{}", number + 2),
                v4: Ipv4Addr::new(192, 168, high, low),
                v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number + 2),
                mac: Mac([2, 0, 0, 0xff, high, low]),
            }
        });
        Self {
            name: "node-1".to_owned(),
            host_port: port_name("vswitch0"),
            host: (Ipv4Addr::new(10, 0, 1, 1), Ipv6Addr::new(0xfd10, 0, 0, 1, 0, 0, 0, 1)),
            pods: pods.collect(),
            pod_mtu: 1500,
            uplink: Some(Uplink {
                port: port_name("uplink"),
                mac: Mac([2, 0, 0, 0xff, 0, 1]),
                v4: Ipv4Addr::new(192, 168, 0, 1),
                v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
                mtu: 1600,
                peers: peers.collect(),
            }),
            vxlan: true,
            routes: BTreeMap::new(),
            rules: Rules(0),
        }
    }

    /// The same with `count` random routes of `family` to its peers.
    #[must_use]
    pub fn with_routes(mut self, family: Family, count: usize) -> Self {
        let peers = self.uplink.as_ref().map_or(1, |uplink| uplink.peers.len());
        self.routes.insert(family, Routes::new(family, count, peers));
        self
    }

    /// The same with this many rules.
    #[must_use]
    pub fn with_rules(mut self, rules: usize) -> Self {
        self.rules = Rules(rules);
        self
    }

    /// The same with other nodes reached directly, without encapsulation.
    #[must_use]
    pub fn without_vxlan(mut self) -> Self {
        self.vxlan = false;
        self
    }

    /// How an engine for this node is configured: room for `flows` flows, a busy worker where the kernel puts it, its
    /// files in `folder`.
    #[must_use]
    pub fn config(&self, folder: &Path, flows: u64) -> Config {
        Config {
            uplinks: self.uplink.iter().map(|uplink| uplink.port.clone()).collect(),
            host_port: self.host_port.clone(),
            poll: Poll::Busy,
            flows: u32::try_from(flows).unwrap_or(u32::MAX).max(1024),
            api_socket: folder.join("engine.sock"),
            state_file: folder.join("engine.state"),
            ..Config::default()
        }
    }

    /// What control wants of it.
    #[must_use]
    pub fn desired(&self) -> DesiredState {
        let mut state = DesiredState { local: Some(self.local()), ..DesiredState::default() };
        for (id, kind, description) in [
            (WORKLOAD, IdentityKind::Pod, "pod default {app=workload}"),
            (WORLD, IdentityKind::World, "the world"),
            (THIS_NODE, IdentityKind::LocalNode, "this node"),
        ] {
            state.identities.insert(id, Identity { id, kind, description: description.to_owned() });
        }
        for everywhere in [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())] {
            state.prefixes.insert(everywhere, WORLD);
            state.routes.insert(everywhere, NextHop::Host);
        }
        for address in [IpAddr::V4(self.host.0), IpAddr::V6(self.host.1)] {
            state.prefixes.insert(address.into(), THIS_NODE);
        }
        self.pods.iter().for_each(|pod| self.add_pod(&mut state, pod));
        if let Some(uplink) = &self.uplink {
            self.add_peers(&mut state, uplink);
        }
        self.rules.add_to(&mut state);
        state
    }

    fn local(&self) -> Local {
        Local {
            node: self.name.clone(),
            underlay_v4: self.uplink.as_ref().map(|uplink| uplink.v4),
            underlay_v6: self.uplink.as_ref().map(|uplink| uplink.v6),
            networks: vec![VxlanNetwork::calico(&self.name)],
            dscp: Dscp::Inherit,
            pod_tunnels: PodTunnels::default(),
            host_addresses: vec![self.host.0.into(), self.host.1.into()],
            host_routes: Vec::new(),
            host_mtu: self.pod_mtu,
        }
    }

    fn add_pod(&self, state: &mut DesiredState, pod: &Pod) {
        let addresses = vec![IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)];
        for address in &addresses {
            state.prefixes.insert((*address).into(), WORKLOAD);
            state.routes.insert((*address).into(), NextHop::Port(pod.port.clone()));
        }
        let port = Port {
            name: pod.port.clone(),
            attachment: Attachment::Veth { interface: pod.port.clone(), netns: pod.netns.clone() },
            mac: pod.mac,
            addresses,
            mtu: self.pod_mtu,
            workload: format!("default/{}", pod.port),
        };
        state.ports.insert(port.name.clone(), port);
    }

    fn add_peers(&self, state: &mut DesiredState, uplink: &Uplink) {
        for family in [Family::V4, Family::V6] {
            for (number, peer) in uplink.peers.iter().enumerate().filter(|_| self.vxlan) {
                let encapsulation = Encapsulation::Vxlan {
                    vni: Vni::CALICO,
                    port: VXLAN_PORT,
                    remote_mac: peer.vtep(family),
                };
                let (id, remote) = (tunnel(number, family), peer.address(family));
                let tunnel = Tunnel { id, node: peer.name.clone(), remote, encapsulation };
                state.tunnels.insert(id, tunnel);
            }
            let routes = self.routes.get(&family).into_iter().flat_map(|routes| &routes.prefixes);
            state.routes.extend(routes.map(|(net, peer)| {
                let next_hop = if self.vxlan {
                    NextHop::Tunnel(tunnel(*peer, family))
                } else {
                    NextHop::Direct(uplink.peers[*peer].address(family))
                };
                (*net, next_hop)
            }));
        }
    }

    /// What the kernel would say of the underlay: for engines that do not follow it.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let Some(uplink) = &self.uplink else { return Facts::default() };
        let mtu = u32::from(uplink.mtu);
        let link = Link { index: 2, mac: uplink.mac, mtu, up: true, carrier: true };
        let hop = |peer: &Peer| Hop {
            interface: uplink.port.to_string(),
            source: uplink.mac,
            destination: peer.mac,
            mtu,
            weight: 1,
            on_link: true,
        };
        let both =
            |peer: &Peer| [Family::V4, Family::V6].map(|family| (peer.address(family), Ok(vec![hop(peer)])));
        Facts {
            links: BTreeMap::from([(uplink.port.to_string(), link)]),
            local_addresses: BTreeSet::from([uplink.v4.into(), uplink.v6.into()]),
            hops: uplink.peers.iter().flat_map(both).collect(),
            left_out: BTreeMap::new(),
            paths: BTreeMap::new(),
            host_problem: None,
        }
    }
}

fn tunnel(peer: usize, family: Family) -> TunnelId {
    TunnelId(peer as u32 * 2 + if family == Family::V4 { 1 } else { 2 })
}
