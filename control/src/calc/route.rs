//! Where packets go: ports, tunnels and routes, and what this node is to the others.
//!
//! | prefix | leads |
//! |---|---|
//! | everything | to the node's kernel |
//! | a pool, unless it is disabled or holds a node's address on the underlay | nowhere: what no node has taken of it exists nowhere |
//! | a block of this node | nowhere, beneath its pods |
//! | a block of another node | there, as the pool says: by tunnel, or directly |
//! | a pod of this node | to its port |
//! | a pod or tunnel address of another node outside that node's blocks | there |
//! | this node's own addresses | to its kernel |
//!
//! A node without a block of a family has its `podCIDRs` of that family in place of blocks.
//!
//! There is a tunnel to every node over each family of the underlay, though no route need lead by it: what comes from a node
//! is accepted in whatever encapsulation, so that nothing is lost while some nodes know of a pool's new mode and others do
//! not yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vswitch_model::{DesiredState, Encapsulation, Local, NextHop, Port, Tunnel, TunnelId, VxlanNetwork};

use super::cluster::{Cluster, NodeView};
use super::{CalcConfig, Inputs, Numbering};
use crate::object::{EncapsulationMode, Endpoint, Vxlan};

/// Names a tunnel: the node it leads to, the family of the underlay, and the encapsulation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TunnelKey {
    node: String,
    is_ipv4: bool,
    form: Form,
}

/// What packets to other nodes are put in, as a pool says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Vxlan,
    IpInIp,
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
    let pools = whole_pools(inputs, cluster, problems);
    let mut router =
        Router { pools: &pools, inputs, cluster, node, local, config, numbering, state, problems };
    router.add_pools();
    router.add_ranges();
    router.add_strays();
    router.add_peers();
    router.add_own();
    router.add_ports();
    state.local = local.map(|view| local_part(&pools, view, config, state));
}

struct Router<'a> {
    pools: &'a [IpNet],
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
        for range in self.pools {
            self.state.routes.insert(*range, NextHop::Unreachable);
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
        let nodes = nodes.flat_map(|node| node.all_tunnel_addresses().map(|address| (address, node.name)));
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
        let (mode, form) = self.mode_of(prefix);
        let way = match (mode, neighbour) {
            (EncapsulationMode::Never, _) => direct.map(NextHop::Direct),
            (EncapsulationMode::CrossSubnet, Some(address)) => Some(NextHop::Direct(address)),
            (EncapsulationMode::CrossSubnet | EncapsulationMode::Always, _) => {
                self.tunnel_to(local, remote, is_ipv4, form).map(NextHop::Tunnel)
            }
        };
        way.unwrap_or_else(|| {
            self.problems.insert(format!("{prefix} is unreachable: {}", self.why_not(local, remote)));
            NextHop::Unreachable
        })
    }

    /// Why there is no way to a node.
    fn why_not(&self, local: &NodeView<'_>, remote: &NodeView<'_>) -> String {
        let node = remote.name;
        match remote.flannel.as_ref().filter(|_| remote.is_flannels) {
            Some(flannel) if flannel.backend != "vxlan" => {
                format!("node {node} runs flannel's backend {:?}; vxlan is supported", flannel.backend)
            }
            Some(_) if flannel_network(local, self.config).is_none() => {
                format!("node {node} runs flannel, and this node is not announced to flannel's nodes yet")
            }
            _ => format!("nodes {} and {node} share no underlay family, or no VXLAN network", self.node),
        }
    }

    /// What the pool says that `prefix` is of. Ranges of no pool are tunnelled: that works on every underlay.
    fn mode_of(&self, prefix: IpNet) -> (EncapsulationMode, Form) {
        let pools = self.inputs.pools.values().filter(|pool| pool.spec.cidr.contains(&prefix));
        let pool = pools.max_by_key(|pool| pool.spec.cidr.prefix_len());
        pool.map_or((EncapsulationMode::Always, Form::Vxlan), |pool| {
            let form = if pool.is_ip_in_ip() { Form::IpInIp } else { Form::Vxlan };
            (pool.encapsulation_mode(), form)
        })
    }

    /// Tunnels by which no route leads: whom they lead to may send us tunnel packets.
    fn add_peers(&mut self) {
        let Some(local) = self.local else { return };
        let known: BTreeSet<IpAddr> = self.state.tunnels.values().map(|tunnel| tunnel.remote).collect();
        let (cluster, node) = (self.cluster, self.node);
        for remote in cluster.nodes.values().filter(|remote| remote.name != node) {
            for is_ipv4 in [true, false] {
                if underlay(remote, is_ipv4).is_some_and(|address| !known.contains(&address)) {
                    self.tunnel_over(local, remote, is_ipv4, Form::Vxlan);
                }
            }
        }
    }

    /// The tunnel for inner packets of a family: over the same family of the underlay when both nodes have it, else
    /// over the other.
    fn tunnel_to(
        &mut self,
        local: &NodeView<'_>,
        remote: &NodeView<'_>,
        inner_is_ipv4: bool,
        form: Form,
    ) -> Option<TunnelId> {
        let own = Vxlan { vni: self.config.vni, port: self.config.vxlan_port };
        let other = remote.vxlan.filter(|far| form == Form::Vxlan && !remote.is_flannels && *far != own);
        if let Some(far) = other {
            self.problems.insert(format!(
                "no VXLAN between this node and {}: this one's vni and vxlan_port (agent.toml) are {own}, that one's {far}",
                remote.name
            ));
        }
        let families = [inner_is_ipv4, !inner_is_ipv4];
        families.into_iter().find_map(|is_ipv4| self.tunnel_over(local, remote, is_ipv4, form))
    }

    /// The tunnel over one family of the underlay, when both nodes have that.
    fn tunnel_over(
        &mut self,
        local: &NodeView<'_>,
        remote: &NodeView<'_>,
        is_ipv4: bool,
        form: Form,
    ) -> Option<TunnelId> {
        underlay(local, is_ipv4)?;
        let address = underlay(remote, is_ipv4)?;
        let encapsulation = match (form, &remote.flannel) {
            (_, Some(flannel)) if remote.is_flannels => {
                let (own, far) = flannel_network(local, self.config).zip(flannel.over(is_ipv4))?;
                if own.vni != far.vni {
                    return None;
                }
                Encapsulation::Vxlan { vni: own.vni, port: own.port, remote_mac: far.mac }
            }
            (Form::Vxlan, _) => Encapsulation::Vxlan {
                vni: self.config.vni,
                port: self.config.vxlan_port,
                remote_mac: if is_ipv4 { remote.vtep_mac_v4 } else { remote.vtep_mac_v6 },
            },
            (Form::IpInIp, _) => Encapsulation::IpIp,
        };
        let key = TunnelKey { node: remote.name.into(), is_ipv4, form };
        let id = TunnelId(self.numbering.tunnels.number(&key));
        let tunnel = Tunnel { id, node: remote.name.into(), remote: address, encapsulation };
        self.state.tunnels.insert(id, tunnel);
        Some(id)
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

/// The ranges of pools that are ours as a whole. A disabled pool's addresses may be anybody's, but for those of its blocks; and of one
/// that holds nodes' addresses on the underlay the node would send what is for these to us.
fn whole_pools(inputs: &Inputs, cluster: &Cluster<'_>, problems: &mut BTreeSet<String>) -> Vec<IpNet> {
    let views = cluster.nodes.values();
    let addresses =
        views.flat_map(|view| [true, false].map(|is_ipv4| Some((underlay(view, is_ipv4)?, view.name))));
    let nodes: BTreeMap<IpAddr, &str> = addresses.flatten().collect();
    let mut whole = Vec::new();
    for pool in inputs.pools.values().filter(|pool| !pool.spec.disabled) {
        let range = pool.spec.cidr;
        match nodes.range(range.network()..=range.broadcast()).next() {
            None => whole.push(range),
            Some((address, node)) => {
                problems.insert(format!(
                    "IPPool {} ({range}) holds {address}, node {node}'s address on the underlay: only what nodes have taken of \
                     the pool is routed",
                    pool.metadata.name
                ));
            }
        }
    }
    whole
}

fn local_part(pools: &[IpNet], view: &NodeView<'_>, config: &CalcConfig, state: &DesiredState) -> Local {
    let mut host_routes: BTreeSet<IpNet> = pools.iter().copied().collect();
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
    let calico = VxlanNetwork {
        vni: config.vni,
        port: config.vxlan_port,
        mac_v4: view.vtep_mac_v4,
        mac_v6: view.vtep_mac_v6,
    };
    Local {
        node: view.name.to_owned(),
        underlay_v4: view.underlay_v4.map(|net| net.addr()),
        underlay_v6: view.underlay_v6.map(|net| net.addr()),
        networks: [calico].into_iter().chain(flannel_network(view, config)).collect(),
        dscp: config.dscp,
        pod_tunnels: config.pod_tunnels,
        host_addresses: view.tunnel_addresses().collect(),
        host_routes: host_routes.into_iter().collect(),
        host_mtu: config.host_mtu,
    }
}

/// A node's end of flannel's network, when it is announced to flannel's nodes. None, too, where that would be the cluster's
/// own network: a packet could be for either.
fn flannel_network(node: &NodeView<'_>, config: &CalcConfig) -> Option<VxlanNetwork> {
    let flannel = node.flannel.as_ref()?;
    let [v4, v6] = [flannel.v4.or(flannel.v6)?, flannel.v6.or(flannel.v4)?];
    let network = VxlanNetwork { vni: v4.vni, port: config.flannel_port, mac_v4: v4.mac, mac_v6: v6.mac };
    ((network.vni, network.port) != (config.vni, config.vxlan_port)).then_some(network)
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
