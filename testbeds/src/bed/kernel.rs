//! A node whose kernel forwards, set up as Calico sets one up: veth pods with host routes and proxy ARP, and VXLAN
//! devices with static forwarding entries between nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::json;
use vswitch_model::Mac;

use super::cni::{Container, POD_INTERFACE};
use crate::Result;
use crate::command::run;
use crate::netns::Netns;
use crate::topology::{self, Node};

const VXLAN_V4: &str = "vxlan.calico";
const VXLAN_V6: &str = "vxlan-v6.calico";
const MTU_V4: u16 = topology::UNDERLAY_MTU - 50;
const MTU_V6: u16 = topology::UNDERLAY_MTU - 70;

/// A node whose kernel forwards.
#[derive(Debug)]
pub struct KernelNode {
    /// Its network namespace.
    pub netns: Netns,
    node: Node,
    pod_mtu: u16,
    pods: u16,
}

/// What a kernel node must know of another node.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name: decides the addresses of its VTEPs.
    pub name: String,
    /// Its address on the underlay.
    pub underlay_v4: Ipv4Addr,
    /// Its IPv6 address on the underlay.
    pub underlay_v6: Ipv6Addr,
    /// The inner address of its VTEP, which routes point to.
    pub tunnel_v4: Ipv4Addr,
    /// The same for IPv6.
    pub tunnel_v6: Ipv6Addr,
    /// Its pods' prefixes.
    pub blocks: Vec<IpNet>,
}

impl Peer {
    /// A kernel node, as its peers see it.
    #[must_use]
    pub fn kernel(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            underlay_v4: node.underlay_v4(),
            underlay_v6: node.underlay_v6(),
            tunnel_v4: node.block_v4().network(),
            tunnel_v6: node.block_v6().network(),
            blocks: vec![node.block_v4().into(), node.block_v6().into()],
        }
    }
}

impl KernelNode {
    /// Sets the node's kernel up: forwarding and VXLAN devices, whose outer UDP headers have checksums or zero. Its uplink is
    /// there already.
    pub fn prepare(node: &Node, netns: Netns, pod_mtu: u16, checksums: bool) -> Result<Self> {
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
        ] {
            netns.sysctl(key, value)?;
        }
        let own = Peer::kernel(node);
        let checksums =
            if checksums { "udpcsum noudp6zerocsumtx" } else { "noudpcsum udp6zerocsumtx udp6zerocsumrx" };
        for (device, local, mac, mtu, address) in [
            (
                VXLAN_V4,
                own.underlay_v4.to_string(),
                Mac::vtep_v4(&node.name),
                MTU_V4,
                format!("{}/32", own.tunnel_v4),
            ),
            (
                VXLAN_V6,
                own.underlay_v6.to_string(),
                Mac::vtep_v6(&node.name),
                MTU_V6,
                format!("{}/128 nodad", own.tunnel_v6),
            ),
        ] {
            let (vni, port, uplink) = (topology::VNI, topology::VXLAN_PORT, topology::UPLINK);
            netns.ip(&format!(
                "link add {device} address {mac} mtu {mtu} type vxlan id {vni} local {local} dev {uplink} dstport {port} nolearning {checksums}"
            ))?;
            netns.ip(&format!("addr add {address} dev {device}"))?;
            netns.ip(&format!("link set {device} up"))?;
        }
        Ok(Self { netns, node: node.clone(), pod_mtu, pods: 0 })
    }

    /// Makes another node's pods reachable.
    pub fn add_peer(&self, peer: &Peer) -> Result<()> {
        let v4 =
            (VXLAN_V4, IpAddr::V4(peer.tunnel_v4), Mac::vtep_v4(&peer.name), IpAddr::V4(peer.underlay_v4));
        let v6 =
            (VXLAN_V6, IpAddr::V6(peer.tunnel_v6), Mac::vtep_v6(&peer.name), IpAddr::V6(peer.underlay_v6));
        for (device, tunnel, mac, underlay) in [v4, v6] {
            self.netns.run(&format!("bridge fdb replace {mac} dev {device} dst {underlay}"))?;
            self.netns.ip(&format!("neigh replace {tunnel} lladdr {mac} dev {device} nud permanent"))?;
            if tunnel.is_ipv6() {
                // The kernel takes no on-link flag for an IPv6 gateway; it must be reachable by a route.
                self.netns.ip(&format!("route replace {tunnel}/128 dev {device}"))?;
            }
            for block in peer.blocks.iter().filter(|block| block.addr().is_ipv4() == tunnel.is_ipv4()) {
                self.netns.ip(&format!("route replace {block} via {tunnel} dev {device} onlink"))?;
            }
        }
        Ok(())
    }

    /// Attaches a pod, as Calico's plugin does.
    pub fn attach(&mut self, container: &mut Container) -> Result<()> {
        self.pods += 1;
        let number = self.pods;
        let v4 = Ipv4Addr::from(u32::from(self.node.block_v4().network()) + u32::from(number));
        let v6 = Ipv6Addr::from(u128::from(self.node.block_v6().network()) + u128::from(number));
        let host = format!("cali{number}");
        let (pod, mtu) = (&container.netns, self.pod_mtu);
        run(std::process::Command::new("ip").args(["-n", self.netns.name(), "link", "add", &host]).args([
            "address",
            "ee:ee:ee:ee:ee:ee",
            "mtu",
            &mtu.to_string(),
            "type",
            "veth",
            "peer",
            "name",
            POD_INTERFACE,
            "mtu",
            &mtu.to_string(),
            "netns",
            pod.name(),
        ]))?;
        self.netns.ip(&format!("link set {host} up"))?;
        // Proxy ARP answers for the pods' gateway, since the node's default route leads elsewhere; at once, as Calico
        // has it.
        self.netns.sysctl(&format!("net.ipv4.conf.{host}.proxy_arp"), "1")?;
        self.netns.sysctl(&format!("net.ipv4.neigh.{host}.proxy_delay"), "0")?;
        // The link-local address of ee:ee:ee:ee:ee:ee, which the kernel gives by itself, is the pods' gateway.
        self.netns.ip(&format!("route add {v4}/32 dev {host}"))?;
        self.netns.ip(&format!("route add {v6}/128 dev {host}"))?;
        let dev = POD_INTERFACE;
        pod.ip(&format!("link set {dev} up"))?;
        pod.ip(&format!("addr add {v4}/32 dev {dev}"))?;
        pod.ip(&format!("addr add {v6}/128 dev {dev} nodad"))?;
        pod.ip(&format!("route add 169.254.1.1 dev {dev} scope link"))?;
        pod.ip(&format!("route add default via 169.254.1.1 dev {dev}"))?;
        pod.ip(&format!("-6 route add default via fe80::ecee:eeff:feee:eeee dev {dev}"))?;
        container.result = Some(json!({
            "interfaces": [{"name": host}, {"name": dev, "sandbox": pod.path()}],
            "ips": [{"address": format!("{v4}/32")}, {"address": format!("{v6}/128")}],
        }));
        Ok(())
    }
}
