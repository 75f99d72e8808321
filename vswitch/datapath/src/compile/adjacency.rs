//! Adjacencies: next hops resolved by the ports and the underlay.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use vswitch_model::{DropReason, Mac, NextHop, PortName, Tunnel, TunnelId};

use super::{CompileInputs, HOPS_MAX, Hop, Tunnels, headers};
use crate::tables::{Adjacency, AdjacencyIndex, Buckets, Group, Member, NodeIndex, Role, TunnelPeer};

/// Least MTU of IPv6 (RFC 8200, section 5).
const LEAST_V6: u16 = 1280;

/// A next hop by reference, to be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way<'a> {
    Port(&'a PortName),
    Tunnel(TunnelId),
    Direct(IpAddr),
    Host,
    Unreachable,
}

impl<'a> Way<'a> {
    pub(super) fn of(next_hop: &'a NextHop) -> Self {
        match next_hop {
            NextHop::Port(name) => Self::Port(name),
            NextHop::Tunnel(id) => Self::Tunnel(*id),
            NextHop::Direct(address) => Self::Direct(*address),
            NextHop::Host => Self::Host,
            NextHop::Unreachable => Self::Unreachable,
        }
    }
}

/// The adjacencies so far. Number 0 is that of addresses without a route.
pub(super) struct Adjacencies<'a> {
    inputs: CompileInputs<'a>,
    nodes_by_name: BTreeMap<&'a str, NodeIndex>,
    nodes_by_remote: BTreeMap<IpAddr, NodeIndex>,
    tunnels: Tunnels<'a>,
    list: Vec<Adjacency>,
    /// By way and whether the packet is IPv6.
    known: BTreeMap<(Way<'a>, bool), AdjacencyIndex>,
    groups: HashMap<AdjacencyIndex, Group, FixedState>,
    /// Most groups have their members in common: those of many nodes behind a few routers.
    buckets: HashMap<Vec<Member>, Arc<Buckets>, FixedState>,
}

impl<'a> Adjacencies<'a> {
    pub(super) fn new(inputs: &CompileInputs<'a>, nothing: DropReason) -> Self {
        let mut nodes_by_name = BTreeMap::new();
        let mut nodes_by_remote = BTreeMap::new();
        for tunnel in inputs.desired.tunnels.values() {
            let next = NodeIndex(nodes_by_name.len() as u32);
            let node = *nodes_by_name.entry(tunnel.node.as_str()).or_insert(next);
            nodes_by_remote.insert(tunnel.remote, node);
        }
        let list = vec![Adjacency::Drop(nothing)];
        Self {
            inputs: *inputs,
            nodes_by_name,
            nodes_by_remote,
            tunnels: Tunnels::of(inputs.desired),
            list,
            known: BTreeMap::new(),
            groups: HashMap::default(),
            buckets: HashMap::default(),
        }
    }

    /// Who may send us tunnel packets. Should two tunnels have one remote address, the higher number counts.
    pub(super) fn tunnel_peers(&self) -> HashMap<IpAddr, TunnelPeer, FixedState> {
        let peer = |tunnel: &Tunnel| TunnelPeer { tunnel: tunnel.id, node: self.node(&tunnel.node) };
        self.inputs.desired.tunnels.values().map(|tunnel| (tunnel.remote, peer(tunnel))).collect()
    }

    pub(super) fn into_lists(self) -> (Vec<Adjacency>, HashMap<AdjacencyIndex, Group, FixedState>) {
        (self.list, self.groups)
    }

    /// The adjacency of packets of one family that go `way`; by several next hops, the first of their group.
    pub(super) fn of(&mut self, way: Way<'a>, inner_v6: bool) -> AdjacencyIndex {
        if let Some(known) = self.known.get(&(way, inner_v6)) {
            return *known;
        }
        let index = AdjacencyIndex(self.list.len() as u32);
        let taken = self.taken(way);
        match self.hops(taken) {
            hops @ [_, _, ..] => {
                let members = hops.iter().map(|hop| self.resolve(taken, Some(hop), inner_v6));
                let members: Vec<Adjacency> = members.collect();
                self.list.extend(members);
                self.group(index, hops);
            }
            hops => self.list.push(self.resolve(taken, hops.first(), inner_v6)),
        }
        self.known.insert((way, inner_v6), index);
        index
    }

    /// The way that is taken in place of `way`: of a tunnel without a way to its end another one, where there is one.
    fn taken(&self, way: Way<'a>) -> Way<'a> {
        let Way::Tunnel(id) = way else { return way };
        let is_resolved = |remote| !self.hops(Way::Direct(remote)).is_empty();
        Way::Tunnel(self.tunnels.carrier(id, is_resolved).map_or(id, |tunnel| tunnel.id))
    }

    /// The next hops on the underlay that lead `way`, as far as they are resolved.
    fn hops(&self, way: Way<'_>) -> &'a [Hop] {
        let tunnels = &self.inputs.desired.tunnels;
        let remote = match way {
            Way::Direct(address) => Some(address),
            Way::Tunnel(id) => tunnels.get(&id).map(|tunnel| tunnel.remote),
            Way::Port(_) | Way::Host | Way::Unreachable => None,
        };
        let hops = remote.and_then(|remote| self.inputs.underlay.hops.get(&remote));
        hops.map_or(&[], |hops| &hops[..hops.len().min(HOPS_MAX)])
    }

    /// Makes the adjacencies from `first` on, one for each of `hops`, a group.
    fn group(&mut self, first: AdjacencyIndex, hops: &[Hop]) {
        let members: Vec<Member> = hops.iter().map(member).collect();
        let buckets = self.buckets.entry(members).or_insert_with_key(|all| Arc::new(Buckets::of(all)));
        let group = Group { first, count: hops.len() as u8, buckets: Arc::clone(buckets) };
        self.groups.insert(first, group);
    }

    fn node(&self, name: &str) -> NodeIndex {
        self.nodes_by_name.get(name).copied().unwrap_or(NodeIndex::NONE)
    }

    fn resolve(&self, way: Way<'_>, hop: Option<&Hop>, inner_v6: bool) -> Adjacency {
        match way {
            Way::Port(name) => self.pod(name),
            Way::Host => self.host(),
            Way::Unreachable => Adjacency::Drop(DropReason::RouteUnreachable),
            Way::Direct(address) => {
                let node = self.nodes_by_remote.get(&address).copied().unwrap_or(NodeIndex::NONE);
                match hop {
                    Some(Hop { port, dst_mac, src_mac, mtu, .. }) => Adjacency::Direct {
                        port: *port,
                        dst_mac: *dst_mac,
                        src_mac: *src_mac,
                        mtu: *mtu,
                        node,
                    },
                    None => Adjacency::Unresolved { node, tunnelled: false },
                }
            }
            Way::Tunnel(id) => match self.inputs.desired.tunnels.get(&id) {
                Some(tunnel) => self.tunnel(tunnel, hop, inner_v6),
                None => Adjacency::Drop(DropReason::NoRoute),
            },
        }
    }

    fn pod(&self, name: &PortName) -> Adjacency {
        let facts = self.inputs.ports.get(name).filter(|facts| facts.role == Role::Pod);
        match (facts, self.inputs.desired.ports.get(name)) {
            (Some(facts), Some(pod)) => {
                Adjacency::Pod { port: facts.index, dst_mac: pod.mac, src_mac: Mac::GATEWAY, mtu: pod.mtu }
            }
            _ => Adjacency::Drop(DropReason::PortGone),
        }
    }

    fn host(&self) -> Adjacency {
        match self.inputs.ports.values().find(|facts| facts.role == Role::Host) {
            Some(facts) => Adjacency::Host { port: facts.index, mtu: facts.mtu },
            None => Adjacency::Drop(DropReason::PortGone),
        }
    }

    /// Unresolved, too, when this node has no address of the tunnel's family, or no end of its network: there is nothing to
    /// send from.
    fn tunnel(&self, tunnel: &Tunnel, hop: Option<&Hop>, inner_v6: bool) -> Adjacency {
        let node = self.node(&tunnel.node);
        let local = self.inputs.desired.local.as_ref();
        let template =
            local.zip(hop).and_then(|(local, hop)| headers::template(local, tunnel, hop, inner_v6));
        match (hop, template) {
            (Some(hop), Some(template)) => {
                let path = self.inputs.underlay.paths.get(&tunnel.remote).copied();
                let mtu = tunnel_mtu(hop.mtu, path, template.overhead(), inner_v6);
                let (port, on_link) = (hop.port, hop.on_link);
                Adjacency::Tunnel { port, template, mtu, tunnel: tunnel.id, node, on_link }
            }
            _ => Adjacency::Unresolved { node, tunnelled: true },
        }
    }
}

/// What fits into a tunnel, in bytes: of what the first hop takes and of what routers said of the path, the less. No word of a
/// router takes IPv6 its least MTU: no sender goes below that, so an error that says less tells nobody anything (RFC 8201,
/// section 4; RFC 2473, section 7.1). Outer fragments every node refuses, so where the path is in fact narrower the underlay
/// drops it; where a router only said so, or somebody in its name, it passes. What the uplink does not take is no mere word.
fn tunnel_mtu(hop: u16, path: Option<u16>, overhead: u16, inner_v6: bool) -> u16 {
    let least = if inner_v6 { LEAST_V6 + overhead } else { 0 };
    let way = path.map_or(hop, |path| hop.min(path.max(least)));
    way.saturating_sub(overhead)
}

/// A next hop to its group: it is the same while it is the same station by the same uplink.
fn member(hop: &Hop) -> Member {
    let [a, b, c, d, e, f] = hop.dst_mac.0;
    let id = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) | u64::from(hop.port.0) << 48;
    Member { id, weight: hop.weight }
}
