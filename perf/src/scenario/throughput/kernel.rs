//! The node's own kernel as the forwarder: routes, and a VXLAN device, as Calico sets them up. No policy, no tracking.

use std::fmt::Write;

use vswitch_model::NextHop;

use crate::net::topology::WIRE_MAC;
use crate::net::{Topology, link};
use crate::workload::{Family, Node};
use crate::{Error, Result};

const VXLAN: &str = "vxlan.calico";

/// Has the kernel forward between the pods of `node`, and into VXLAN to its peers. The device `from` receives in a kernel
/// thread on `core`: on a machine with a device that interrupts another core it would be there, too.
///
/// # Errors
///
/// [`Error::Setup`].
pub(super) fn start(topology: &Topology, node: &Node, from: &str, core: usize) -> Result<()> {
    let switch = &topology.switch;
    switch.sysctl("net.ipv4.ip_forward", "1")?;
    let mut lines = String::new();
    for pod in &node.pods {
        let _ = writeln!(lines, "route replace {} dev {}", pod.v4, pod.port);
        let _ = writeln!(lines, "neigh replace {} lladdr {} dev {} nud permanent", pod.v4, pod.mac, pod.port);
    }
    switch.ip(&lines)?;
    if topology.remote.is_some() {
        vxlan(topology, node)?;
    }
    link::gro(switch, from)?;
    link::threaded(switch, from, core)
}

fn vxlan(topology: &Topology, node: &Node) -> Result<()> {
    let uplink =
        node.uplink.as_ref().ok_or_else(|| Error::setup("make a VXLAN device", "the node has no uplink"))?;
    let state = node.desired();
    let local = state.local.as_ref().ok_or_else(|| Error::setup("make a VXLAN device", "no local node"))?;
    let mut lines = String::new();
    let _ = writeln!(
        lines,
        "link add {VXLAN} address {} type vxlan id {} local {} dstport {} nolearning noudpcsum\nlink set {VXLAN} up",
        local.vtep_mac_v4,
        local.vni.get(),
        uplink.v4,
        local.vxlan_port
    );
    let mut entries = String::new();
    for (number, peer) in uplink.peers.iter().enumerate() {
        // The VTEP's address in the pods' network, which only names it.
        let (vtep, gateway) = (peer.vtep(Family::V4), format!("169.254.200.{}", number + 1));
        let _ = writeln!(lines, "neigh replace {gateway} lladdr {vtep} dev {VXLAN} nud permanent");
        let _ = writeln!(entries, "fdb replace {vtep} dev {VXLAN} dst {}", peer.v4);
        let tunnelled = |(net, hop): (&ipnet::IpNet, &NextHop)| {
            let id = match hop {
                NextHop::Tunnel(id) => state.tunnels.get(id)?,
                _ => return None,
            };
            (id.remote == std::net::IpAddr::from(peer.v4) && net.addr().is_ipv4()).then_some(*net)
        };
        for net in state.routes.iter().filter_map(tunnelled) {
            let _ = writeln!(lines, "route replace {net} via {gateway} dev {VXLAN} onlink");
        }
        // The underlay itself was told when the topology was made: everybody is behind the wire.
        let _ = writeln!(lines, "neigh replace {} lladdr {WIRE_MAC} dev uplink nud permanent", peer.v4);
    }
    topology.switch.ip(&lines)?;
    topology.switch.with_input(&["bridge", "-batch", "-"], &entries).map(drop)
}
