//! What this node is to the underlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_model::{Local, Mac, Vni, VxlanNetwork, limits};

use crate::parse::protocol;
use crate::policy::FlowPorts;

/// What this node is to the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEntry {
    /// Tunnel packets must be addressed to one of these: one of each family.
    pub underlay: [Option<IpAddr>; 2],
    /// The VXLAN networks we accept.
    pub networks: Networks,
    /// The bits of an outer traffic class that come out of a tunnel, besides what RFC 6040 says of ECN.
    pub kept_of_outer: u8,
    /// The tunnel packets that our pods may not send.
    pub refused: Refused,
    /// The node's own IPv4 address among the pods: source of the ICMP errors we send.
    pub host_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub host_v6: Option<Ipv6Addr>,
}

impl LocalEntry {
    pub(crate) fn new(local: &Local) -> Self {
        let mut addresses = local.host_addresses.iter();
        Self {
            underlay: [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)],
            networks: Networks::new(&local.networks),
            kept_of_outer: if local.dscp == vswitch_model::Dscp::Uniform { 0xfc } else { 0 },
            refused: Refused::new(local),
            host_v4: addresses
                .clone()
                .find_map(|address| if let IpAddr::V4(a) = address { Some(*a) } else { None }),
            host_v6: addresses.find_map(|address| if let IpAddr::V6(a) = address { Some(*a) } else { None }),
        }
    }
}

const NETWORKS: usize = limits::VXLAN_NETWORKS_MAX;

/// The tunnel packets that pods may not send, whomever they are for: a node would take some for its neighbour's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// UDP ports of VXLAN; 0 where there is none.
    ports: [u16; NETWORKS],
    ipip: bool,
}

impl Refused {
    fn new(local: &Local) -> Self {
        let mut ports = [0; NETWORKS];
        let refused = local.networks.iter().filter(|_| !local.pod_tunnels.vxlan);
        ports.iter_mut().zip(refused).for_each(|(port, network)| *port = network.port);
        Self { ports, ipip: !local.pod_tunnels.ipip }
    }

    /// Whether what a flow opens with is one of them.
    #[inline]
    #[must_use]
    pub fn has(&self, opened: FlowPorts) -> bool {
        let port = opened.destination;
        match opened.protocol {
            protocol::UDP => port != 0 && self.ports.iter().fold(false, |found, own| found | (*own == port)),
            protocol::IPV4 | protocol::IPV6 => self.ipip,
            _ => false,
        }
    }
}

/// The VXLAN networks we accept, in an array that is compared as a whole: how many of them are used makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Networks {
    /// 0 where there is none: no packet to port 0 is accepted.
    ports: [u16; NETWORKS],
    vnis: [u32; NETWORKS],
    /// Our Ethernet addresses in each.
    macs: [[Mac; 2]; NETWORKS],
}

impl Networks {
    /// The first [`limits::VXLAN_NETWORKS_MAX`] of them: a desired state has no more.
    #[must_use]
    pub fn new(networks: &[VxlanNetwork]) -> Self {
        let mut all =
            Self { ports: [0; NETWORKS], vnis: [0; NETWORKS], macs: [[Mac::default(); 2]; NETWORKS] };
        for (index, network) in networks.iter().take(NETWORKS).enumerate() {
            all.ports[index] = network.port;
            all.vnis[index] = network.vni.get();
            all.macs[index] = [network.mac_v4, network.mac_v6];
        }
        all
    }

    /// Whether a network is accepted at this UDP port.
    #[inline]
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        port != 0 && self.ports.iter().fold(false, |found, own| found | (*own == port))
    }

    /// Our Ethernet addresses in the network `vni` at `port`; None when we have no end of it.
    #[inline]
    #[must_use]
    pub fn macs(&self, port: u16, vni: u32) -> Option<[Mac; 2]> {
        let found = self.ports.iter().zip(&self.vnis).position(|(p, v)| (*p, *v) == (port, vni));
        self.macs.get(found.filter(|_| port != 0)?).copied()
    }

    /// The networks.
    pub fn iter(&self) -> impl Iterator<Item = VxlanNetwork> {
        let all = self.ports.into_iter().zip(self.vnis).zip(self.macs);
        all.filter(|((port, _), _)| *port != 0).filter_map(|((port, vni), [mac_v4, mac_v6])| {
            Some(VxlanNetwork { vni: Vni::new(vni).ok()?, port, mac_v4, mac_v6 })
        })
    }
}
