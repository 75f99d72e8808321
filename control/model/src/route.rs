//! Routes and the tunnels they lead into.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Mac, PortName, Vni};

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
