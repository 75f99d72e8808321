//! Where packets go: ports, tunnels and routes, and what this node is to the others.
//!
//! | prefix | leads |
//! |---|---|
//! | everything | to the node's kernel |
//! | a pool | nowhere: what no node has taken of it exists nowhere |
//! | a block of this node | nowhere, beneath its pods |
//! | a block of another node | there, as the pool says: by tunnel, or directly |
//! | a pod of this node | to its port |
//! | a pod or tunnel address of another node outside that node's blocks | there |
//! | this node's own addresses | to its kernel |
//!
//! A node without a block of a family has its `podCIDRs` of that family in place of blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::{DesiredState, Encapsulation, Local, NextHop, Port, Tunnel, TunnelId};

use super::cluster::{Cluster, NodeView};
use super::{CalcConfig, Inputs, Numbering};
use crate::object::{EncapsulationMode, Endpoint};

/// Names a tunnel: the node it leads to and the family of the underlay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TunnelKey {
    node: String,
    is_ipv4: bool,
}

/// Puts ports, tunnels, routes and the local part into `state`.
pub(super) fn compile(
    inputs: &Inputs,
    cluster: &Cluster<'_>,
    node: &str,
    config: &CalcConfig,
    numbering: &mut Numbering,
    state: &mut DesiredState,
    problems: &mut BTreeSet<String>,
) {
    let local = cluster.nodes.get(node);
    if local.is_none() {
        problems.insert(format!("there is no Node {node}: nothing leads to or from other nodes"));
    }
    let mut router = Router { inputs, cluster, node, local, config, numbering, state, problems };
    router.add_pools();
    router.add_ranges();
    router.add_strays();
    router.add_own();
    router.add_ports();
    state.local = local.map(|view| local_part(inputs, view, config, state));
}

struct Router<'a> {
    inputs: &'a Inputs,
    cluster: &'a Cluster<'a>,
    node: &'a str,
    local: Option<&'a NodeView<'a>>,
    config: &'a CalcConfig,
    numbering: &'a mut Numbering,
    state: &'a mut DesiredState,
    problems: &'a mut BTreeSet<String>,
}

impl Router<'_> {
    fn add_pools(&mut self) {
        self.state.routes.insert(Ipv4Net::default().into(), NextHop::Host);
        self.state.routes.insert(Ipv6Net::default().into(), NextHop::Host);
        for pool in self.inputs.pools.values() {
            self.state.routes.insert(pool.spec.cidr, NextHop::Unreachable);
        }
    }

    /// Blocks, and `podCIDRs` of nodes without.
    fn add_ranges(&mut self) {
        for (prefix, node) in ranges(self.inputs) {
            let next_hop = if node == self.node { NextHop::Unreachable } else { self.way_to(node, prefix) };
            self.state.routes.insert(prefix, next_hop);
        }
    }

    /// Addresses of other nodes' pods, and those nodes' own, where no range leads there.
    fn add_strays(&mut self) {
        let pods = self.cluster.pods.iter().flat_map(|pod| &pod.addresses);
        let pods = pods.filter_map(|(address, node)| node.map(|node| (*address, node)));
        let nodes = self.cluster.nodes.values();
        let nodes = nodes.flat_map(|node| node.tunnel_addresses().map(|address| (address, node.name)));
        let elsewhere: Vec<_> = pods.chain(nodes).filter(|(_, node)| *node != self.node).collect();
        let owners: BTreeMap<IpNet, &str> = ranges(self.inputs);
        for (address, node) in elsewhere {
            if longest(&owners, address).is_some_and(|owner| *owner == node) {
                continue;
            }
            let prefix = IpNet::from(address);
            let next_hop = self.way_to(node, prefix);
            self.state.routes.insert(prefix, next_hop);
        }
    }

    fn add_own(&mut self) {
        for address in self.local.into_iter().flat_map(|local| &local.addresses) {
            self.state.routes.insert(IpNet::from(*address), NextHop::Host);
        }
    }

    fn add_ports(&mut self) {
        let cluster = self.cluster;
        let node = self.node;
        let endpoints = cluster.pods.iter().flat_map(|pod| &pod.endpoints);
        for (endpoint, addresses) in endpoints.filter(|(endpoint, _)| endpoint.spec.node == node) {
            let name = &endpoint.spec.port;
            if addresses.is_empty() {
                self.problems.insert(format!("{} gets no port: it has no address of its own", of(endpoint)));
            } else if let Some(other) = self.state.ports.get(name) {
                let problem = format!("{} gets no port: {name} is that of {}", of(endpoint), other.workload);
                self.problems.insert(problem);
            } else {
                self.add_port(endpoint, addresses);
            }
        }
    }

    fn add_port(&mut self, endpoint: &Endpoint, addresses: &[IpAddr]) {
        let spec = &endpoint.spec;
        let port = Port {
            name: spec.port.clone(),
            attachment: spec.attachment.clone(),
            mac: spec.mac,
            addresses: addresses.to_vec(),
            mtu: spec.mtu,
            workload: of(endpoint),
        };
        self.state.ports.insert(port.name.clone(), port);
        for address in addresses {
            self.state.routes.insert(IpNet::from(*address), NextHop::Port(spec.port.clone()));
        }
    }

    /// How packets for `prefix` get to another node.
    fn way_to(&mut self, node: &str, prefix: IpNet) -> NextHop {
        let is_ipv4 = prefix.addr().is_ipv4();
        let (Some(remote), Some(local)) = (self.cluster.nodes.get(node), self.local) else {
            self.problems.insert(format!("{prefix} is unreachable: there is no Node {node}"));
            return NextHop::Unreachable;
        };
        let direct = underlay(remote, is_ipv4);
        let neighbour = direct.filter(|address| is_in_subnet(local, *address));
        let way = match (self.mode_of(prefix), neighbour) {
            (EncapsulationMode::Never, _) => direct.map(NextHop::Direct),
            (EncapsulationMode::CrossSubnet, Some(address)) => Some(NextHop::Direct(address)),
            (EncapsulationMode::CrossSubnet | EncapsulationMode::Always, _) => {
                self.tunnel_to(local, remote, is_ipv4).map(NextHop::Tunnel)
            }
        };
        way.unwrap_or_else(|| {
            let problem =
                format!("{prefix} is unreachable: nodes {} and {node} share no underlay family", self.node);
            self.problems.insert(problem);
            NextHop::Unreachable
        })
    }

    /// What the pool says that `prefix` is of. Ranges of no pool are tunnelled: that works on every underlay.
    fn mode_of(&self, prefix: IpNet) -> EncapsulationMode {
        let pools = self.inputs.pools.values().filter(|pool| pool.spec.cidr.contains(&prefix));
        let pool = pools.max_by_key(|pool| pool.spec.cidr.prefix_len());
        pool.map_or(EncapsulationMode::Always, |pool| pool.spec.vxlan_mode)
    }

    /// The tunnel for inner packets of a family: over the same family of the underlay when both nodes have it, else
    /// over the other.
    fn tunnel_to(
        &mut self,
        local: &NodeView<'_>,
        remote: &NodeView<'_>,
        inner_is_ipv4: bool,
    ) -> Option<TunnelId> {
        [inner_is_ipv4, !inner_is_ipv4].into_iter().find_map(|is_ipv4| {
            underlay(local, is_ipv4)?;
            let address = underlay(remote, is_ipv4)?;
            let id =
                TunnelId(self.numbering.tunnels.number(&TunnelKey { node: remote.name.into(), is_ipv4 }));
            let remote_mac = if is_ipv4 { remote.vtep_mac_v4 } else { remote.vtep_mac_v6 };
            let encapsulation =
                Encapsulation::Vxlan { vni: self.config.vni, port: self.config.vxlan_port, remote_mac };
            let tunnel = Tunnel { id, node: remote.name.into(), remote: address, encapsulation };
            self.state.tunnels.insert(id, tunnel);
            Some(id)
        })
    }
}

/// The ranges of all nodes. A range two nodes claim is the first one's by name; blocks come before `podCIDRs`.
fn ranges(inputs: &Inputs) -> BTreeMap<IpNet, &str> {
    let mut ranges = BTreeMap::new();
    let mut with_block = BTreeSet::new();
    for block in inputs.blocks.values() {
        if let Some(node) = &block.spec.node {
            ranges.entry(block.spec.cidr).or_insert(node.as_str());
            with_block.insert((node.as_str(), block.spec.cidr.addr().is_ipv4()));
        }
    }
    for (name, node) in &inputs.nodes {
        for cidr in &node.spec.pod_cidrs {
            if !with_block.contains(&(name.as_str(), cidr.addr().is_ipv4())) {
                ranges.entry(*cidr).or_insert(name.as_str());
            }
        }
    }
    ranges
}

fn local_part(inputs: &Inputs, view: &NodeView<'_>, config: &CalcConfig, state: &DesiredState) -> Local {
    let mut host_routes: BTreeSet<IpNet> = inputs.pools.values().map(|pool| pool.spec.cidr).collect();
    // Pods outside every pool are to be reached from the node as well. Shorter prefixes first, so that they stand for
    // the longer ones within.
    let mut others: Vec<_> =
        state.routes.iter().filter(|(_, way)| **way != NextHop::Host).map(|(p, _)| *p).collect();
    others.sort_by_key(IpNet::prefix_len);
    for prefix in others {
        if !host_routes.iter().any(|route| route.contains(&prefix)) {
            host_routes.insert(prefix);
        }
    }
    Local {
        node: view.name.to_owned(),
        underlay_v4: view.underlay_v4.map(|net| net.addr()),
        underlay_v6: view.underlay_v6.map(|net| net.addr()),
        vtep_mac_v4: view.vtep_mac_v4,
        vtep_mac_v6: view.vtep_mac_v6,
        vni: config.vni,
        vxlan_port: config.vxlan_port,
        host_addresses: view.tunnel_addresses().collect(),
        host_routes: host_routes.into_iter().collect(),
        host_mtu: config.host_mtu,
    }
}

fn underlay(node: &NodeView<'_>, is_ipv4: bool) -> Option<IpAddr> {
    if is_ipv4 {
        node.underlay_v4.map(|net| net.addr().into())
    } else {
        node.underlay_v6.map(|net| net.addr().into())
    }
}

fn is_in_subnet(node: &NodeView<'_>, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => node.underlay_v4.is_some_and(|net| net.contains(&address)),
        IpAddr::V6(address) => node.underlay_v6.is_some_and(|net| net.contains(&address)),
    }
}

/// What the longest prefix around `address` holds.
fn longest<T>(prefixes: &BTreeMap<IpNet, T>, address: IpAddr) -> Option<&T> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    (0..=most).rev().find_map(|length| prefixes.get(&IpNet::new(address, length).ok()?.trunc()))
}

/// Whose endpoint it is, for people.
fn of(endpoint: &Endpoint) -> String {
    let spec = &endpoint.spec;
    if spec.pod.is_empty() {
        format!("container {}", spec.container_id)
    } else {
        format!("{}/{}", spec.namespace, spec.pod)
    }
}
