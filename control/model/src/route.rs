//! Routes and the tunnels they lead into.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Invalid, Mac, PortName, Vni};

/// Names a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TunnelId(pub u32);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is put around a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encapsulation {
    /// RFC 7348.
    Vxlan {
        /// The network both ends agree on.
        vni: Vni,
        /// UDP destination port, 4789 for Calico.
        port: u16,
        /// Destination of the inner Ethernet frame: the remote VTEP's address.
        remote_mac: Mac,
    },
    /// The packet itself behind an IP header of either family: RFC 2003, RFC 4213 (section 3), RFC 2473.
    IpIp,
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan { vni, port, .. } => write!(f, "vxlan {vni} port {port}"),
            Self::IpIp => f.write_str("ipip"),
        }
    }
}

/// A VXLAN network that a node has an end of: the packets of its tunnels that come to `port` with `vni`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VxlanNetwork {
    /// The network.
    pub vni: Vni,
    /// UDP port it is accepted at, not 0.
    pub port: u16,
    /// This node's Ethernet address in it: source of inner frames that carry IPv4, destination of those for it.
    pub mac_v4: Mac,
    /// The same for IPv6. Frames of either family are accepted at either address.
    pub mac_v6: Mac,
}

impl VxlanNetwork {
    /// Calico's network with the Ethernet addresses that Calico derives of a node's name, at UDP port 4789.
    #[must_use]
    pub fn calico(node: &str) -> Self {
        Self { vni: Vni::CALICO, port: 4789, mac_v4: Mac::vtep_v4(node), mac_v6: Mac::vtep_v6(node) }
    }
}

/// What becomes of the DSCP through a tunnel (RFC 2983). ECN always goes by RFC 6040.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Dscp {
    /// The outer header has the inner one's; the inner one comes out as it went in: what Linux calls `tos inherit`.
    #[default]
    Inherit,
    /// The uniform model (section 3.2): likewise, and what the underlay made of it comes out of the tunnel.
    Uniform,
    /// The pipe model (section 3.1): the outer header has this one, 0 to 63; the inner one comes out as it went in.
    Pipe(u8),
}

impl Dscp {
    /// Largest code point: they have six bits.
    pub const MAX: u8 = 63;

    /// The pipe model with this code point.
    pub fn pipe(value: u32) -> Result<Self, Invalid> {
        let fits = u8::try_from(value).ok().filter(|value| *value <= Self::MAX);
        fits.map(Self::Pipe)
            .ok_or_else(|| Invalid::new("", format!("{value} is not a code point: 0 to {}", Self::MAX)))
    }
}

/// Which tunnel packets pods may send of their own: none, unless somebody says so. Whoever may speaks past egress policy, which
/// sees the outer headers alone. Calico's names are `allowVXLANPacketsFromWorkloads` and `allowIPIPPacketsFromWorkloads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PodTunnels {
    /// VXLAN to a port at which nodes accept it, wherever it goes.
    pub vxlan: bool,
    /// IP-in-IP, either family inside.
    pub ipip: bool,
}

/// The way to one remote node, over one family of the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its number.
    pub id: TunnelId,
    /// The node's name.
    pub node: String,
    /// The node's underlay address: destination of what we send, and the only source we accept.
    pub remote: IpAddr,
    /// What is put around a packet.
    pub encapsulation: Encapsulation,
}

/// Where a prefix leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NextHop {
    /// A pod on this node.
    Port(PortName),
    /// A remote node, encapsulated.
    Tunnel(TunnelId),
    /// A remote node in our own subnet, not encapsulated: the underlay's route to this address is followed.
    Direct(IpAddr),
    /// The node's kernel, by the host port.
    Host,
    /// Nowhere: the sender gets an ICMP error. A node's own block has such a route beneath those of its pods.
    Unreachable,
}
