//! Pods that programs can run in: two on one node, or one on each of two.

use std::net::IpAddr;

use vswitch_cni::kernel::ethtool;
use vswitch_model::{DesiredState, Mac, NextHop, PortKind, TunnelId};

use crate::net::topology::{Layout, Remote, UPLINK, UPLINK_MAC, WIRE, to_tun};
use crate::net::{Namespace, Switch, SwitchOptions, Topology, link};
use crate::traffic::contender::kernel;
use crate::traffic::{Contender, Cores};
use crate::workload::{Node, Rules};
use crate::{Error, Result};

/// A pod to send from or to.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    pub(super) address: IpAddr,
}

/// Two pods and what is between them.
#[derive(Debug)]
pub(super) struct Pair {
    // Dropped first: engines end before their devices do.
    _switches: Vec<Switch>,
    _topologies: Vec<Topology>,
    pub(super) client: Place,
    pub(super) server: Place,
}

/// MTU of pods whose packets are encapsulated in 1500 bytes: 50 are VXLAN's.
const INNER_MTU: u16 = 1450;
const TUNNEL: TunnelId = TunnelId(1);
const LAYOUT: Layout = Layout { uplink: false, separate: true, queues: 1 };

impl Pair {
    /// Two pods of one node.
    pub(super) fn on_a_node(contender: Contender, cores: Cores, port: PortKind) -> Result<Self> {
        let mut node = Node::in_memory(2, 1);
        (node.uplink, node.rules) = (None, Rules(100));
        let mut desired = v4_only(node.desired());
        choose(&mut desired, contender, port);
        let topology = Topology::build(&desired, LAYOUT)?;
        let mut switches = Vec::new();
        match contender {
            Contender::Ours => switches.push(start(&topology, desired, cores.forwarder)?),
            _ => {
                kernel(&topology, &desired, None, "")?;
                offloads(&topology)?;
            }
        }
        let (client, server) = (place(&topology, 0)?, place(&topology, 1)?);
        Ok(Self { _switches: switches, _topologies: vec![topology], client, server })
    }

    /// A pod on each of two nodes that are joined by a wire; VXLAN between them.
    pub(super) fn across_nodes(contender: Contender, cores: Cores, port: PortKind) -> Result<Self> {
        let [one, two] = [node(1, 2), node(2, 1)].map(|node| {
            let mut desired = across(&node);
            choose(&mut desired, contender, port);
            desired
        });
        let near = Topology::build(&one, Layout { uplink: true, ..LAYOUT })?;
        let far = join(&near, Topology::build(&two, LAYOUT)?)?;
        let mut switches = Vec::new();
        if contender == Contender::Ours {
            switches.push(start(&near, one, cores.forwarder)?);
            switches.push(start(&far, two, cores.sender)?);
        } else {
            // Its VXLAN with the offloads it ships with, last: without them is how others are set up.
            for (topology, desired) in [(&near, &one), (&far, &two)] {
                kernel(topology, desired, None, "")?;
                offloads(topology)?;
                if contender == Contender::KernelCut {
                    cut(topology)?;
                }
            }
        }
        let (client, server) = (place(&near, 0)?, place(&far, 0)?);
        Ok(Self { _switches: switches, _topologies: vec![near, far], client, server })
    }
}

/// Node `own` of two, with one pod, 10.0.OWN.10, and the other node as its peer.
fn node(own: u8, other: u8) -> Node {
    let mut node = Node::in_memory(1, 1);
    node.name = format!("node-{own}");
    node.rules = Rules(100);
    node.pod_mtu = INNER_MTU;
    node.host.0 = [10, 0, own, 1].into();
    let pod = &mut node.pods[0];
    (pod.v4, pod.mac) = ([10, 0, own, 10].into(), Mac([0x0a, 0x58, 10, 0, own, 10]));
    if let Some(uplink) = &mut node.uplink {
        (uplink.v4, uplink.mtu) = (underlay(own).into(), 1500);
        let peer = &mut uplink.peers[0];
        (peer.name, peer.v4) = (format!("node-{other}"), underlay(other).into());
    }
    node
}

const fn underlay(node: u8) -> [u8; 4] {
    [192, 168, 0, node]
}

/// What an engine is told of a node whose other node has the pod of the same number.
fn across(node: &Node) -> DesiredState {
    let mut desired = v4_only(node.desired());
    let [.., own, _] = node.pods[0].v4.octets();
    let other: IpAddr = [10, 0, 3 - own, 10].into();
    desired.routes.insert(other.into(), NextHop::Tunnel(TUNNEL));
    desired
}

/// Without IPv6 in the underlay and in pods: nothing here speaks it.
fn v4_only(mut desired: DesiredState) -> DesiredState {
    desired.tunnels.retain(|_, tunnel| tunnel.remote.is_ipv4());
    if let Some(local) = &mut desired.local {
        local.underlay_v6 = None;
        local.host_addresses.retain(IpAddr::is_ipv4);
    }
    for port in desired.ports.values_mut() {
        port.addresses.retain(IpAddr::is_ipv4);
    }
    let v4 = |prefix: &ipnet::IpNet| prefix.addr().is_ipv4() || prefix.prefix_len() == 0;
    desired.routes.retain(|prefix, _| v4(prefix));
    desired.prefixes.retain(|prefix, _| v4(prefix));
    desired
}

/// Gives `far` the other end of the wire as its uplink.
fn join(near: &Topology, mut far: Topology) -> Result<Topology> {
    let wire = near.remote.as_ref().ok_or_else(|| Error::setup("join two nodes", "there is no wire"))?;
    let to = far.switch.path();
    wire.namespace.ip(&format!("link set {WIRE} netns {} name {UPLINK}", to.display()))?;
    let ([a, b, c, d], [e, f, g, h]) = (underlay(2), underlay(1));
    far.switch.ip(&format!(
        "link set {UPLINK} up\naddr add {a}.{b}.{c}.{d}/32 dev {UPLINK}\nroute replace {e}.{f}.{g}.{h} dev {UPLINK}\n\
         neigh replace {e}.{f}.{g}.{h} lladdr {UPLINK_MAC} dev {UPLINK} nud permanent"
    ))?;
    far.remote = Some(Remote { namespace: near.switch.clone(), addresses: vec![underlay(1).into()] });
    Ok(far)
}

/// Gives our pods the ports that were asked for.
fn choose(desired: &mut DesiredState, contender: Contender, port: PortKind) {
    if contender == Contender::Ours && port == PortKind::Tun {
        desired.ports.values_mut().for_each(to_tun);
    }
}

fn start(topology: &Topology, mut desired: DesiredState, core: usize) -> Result<Switch> {
    topology.place_tuns(&mut desired);
    let options = SwitchOptions { core: Some(core), ..SwitchOptions::default() };
    let switch = Switch::start(topology, &desired, options)?;
    topology.configure_tuns()?;
    Ok(switch)
}

/// What the switch needs switched off, the kernel does with: checksums and segments left to the device.
fn offloads(topology: &Topology) -> Result<()> {
    let mut devices: Vec<(&Namespace, &str)> = Vec::new();
    for pod in &topology.pods {
        devices.extend([(&pod.namespace, pod.interface.as_str()), (&topology.switch, pod.host.as_str())]);
    }
    if topology.remote.is_some() {
        devices.push((&topology.switch, UPLINK));
    }
    for (namespace, interface) in devices {
        for feature in ethtool::TX_CHECKSUMS {
            link::offload(namespace, interface, feature, true)?;
        }
    }
    Ok(())
}

/// Has what goes onto the wire in a tunnel cut first, and joined again where it arrives.
fn cut(topology: &Topology) -> Result<()> {
    for feature in ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"] {
        link::offload(&topology.switch, UPLINK, feature, false)?;
    }
    link::gro(&topology.switch, UPLINK)
}

fn place(topology: &Topology, pod: usize) -> Result<Place> {
    let pod = &topology.pods[pod];
    let address = pod.addresses.iter().copied().find(IpAddr::is_ipv4);
    let address = address.ok_or_else(|| Error::setup("reach a pod", "it has no IPv4 address"))?;
    Ok(Place { namespace: pod.namespace.clone(), address })
}
