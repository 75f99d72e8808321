//! What is done to a packet that leaves.

use vswitch_model::{DropReason, Mac, TunnelId};

use super::TunnelTemplate;
use crate::PortIndex;

/// Dense number of an adjacency within one [`super::Tables`]; it means nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AdjacencyIndex(pub u32);

/// Dense number of a remote node within one [`super::Tables`]: what its tunnels of both families and the direct routes
/// to it have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// No node we know of.
    pub const NONE: Self = Self(u32::MAX);
}

/// What is done to a packet that leaves. MTUs are in bytes, of the IP packet before encapsulation.
///
/// Laid out as written, so that ports and MTUs lie in one place whatever kind it is, and in two cache lines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(u8, align(64))]
pub enum Adjacency {
    /// To a pod of this node.
    Pod {
        /// The pod's port.
        port: PortIndex,
        /// The pod's MTU.
        mtu: u16,
        /// The pod's Ethernet address.
        dst_mac: Mac,
        /// [`Mac::GATEWAY`].
        src_mac: Mac,
    },
    /// To the node's kernel.
    Host {
        /// The host port.
        port: PortIndex,
        /// The host port's MTU.
        mtu: u16,
    },
    /// Onto the underlay, as it is.
    Direct {
        /// The uplink.
        port: PortIndex,
        /// The uplink's MTU.
        mtu: u16,
        /// The next hop's Ethernet address.
        dst_mac: Mac,
        /// The uplink's own.
        src_mac: Mac,
        /// Whose address the next hop is.
        node: NodeIndex,
    },
    /// Onto the underlay, encapsulated.
    Tunnel {
        /// The uplink.
        port: PortIndex,
        /// The uplink's MTU, or what routers say of the path, less [`TunnelTemplate::overhead`]. Routers leave IPv6
        /// packets 1280.
        mtu: u16,
        /// What replaces the packet's Ethernet header.
        template: TunnelTemplate,
        /// The tunnel.
        tunnel: TunnelId,
        /// The node at its other end.
        node: NodeIndex,
        /// Whether the station the packets go to first is that node, and no router.
        on_link: bool,
    },
    /// Onto the underlay, but the next hop's Ethernet address is not known: [`DropReason::NextHopUnresolved`].
    Unresolved {
        /// The node it would reach.
        node: NodeIndex,
        /// Whether it would leave in a tunnel.
        tunnelled: bool,
    },
    /// Nowhere.
    Drop(DropReason),
}

impl Adjacency {
    /// The port it leaves by.
    #[inline]
    #[must_use]
    pub fn port(&self) -> Option<PortIndex> {
        match self {
            Self::Pod { port, .. }
            | Self::Host { port, .. }
            | Self::Direct { port, .. }
            | Self::Tunnel { port, .. } => Some(*port),
            Self::Unresolved { .. } | Self::Drop(_) => None,
        }
    }

    /// The largest IP packet, before encapsulation, that fits; 0 when nothing leaves.
    #[inline]
    #[must_use]
    pub fn mtu(&self) -> u16 {
        match self {
            Self::Pod { mtu, .. }
            | Self::Host { mtu, .. }
            | Self::Direct { mtu, .. }
            | Self::Tunnel { mtu, .. } => *mtu,
            Self::Unresolved { .. } | Self::Drop(_) => 0,
        }
    }

    /// The remote node it leads to; [`NodeIndex::NONE`] when it leads to none that a tunnel knows.
    #[inline]
    #[must_use]
    pub fn node(&self) -> NodeIndex {
        match self {
            Self::Direct { node, .. } | Self::Tunnel { node, .. } | Self::Unresolved { node, .. } => *node,
            Self::Pod { .. } | Self::Host { .. } | Self::Drop(_) => NodeIndex::NONE,
        }
    }

    /// Whether it leads to a pod of this node.
    #[inline]
    #[must_use]
    pub fn is_pod(&self) -> bool {
        matches!(self, Self::Pod { .. })
    }

    /// Whether it leads into a tunnel, be its next hop known or not.
    #[inline]
    #[must_use]
    pub fn is_tunnelled(&self) -> bool {
        matches!(self, Self::Tunnel { .. } | Self::Unresolved { tunnelled: true, .. })
    }

    /// The Ethernet address of the station on the underlay that it leads to.
    #[inline]
    #[must_use]
    pub fn station(&self) -> Option<Mac> {
        match self {
            Self::Direct { dst_mac, .. } => Some(*dst_mac),
            Self::Tunnel { template, .. } => Some(template.station()),
            _ => None,
        }
    }

    /// The Ethernet address of the node that its tunnel leads to, when no router stands between.
    #[inline]
    #[must_use]
    pub fn tunnel_end(&self) -> Option<Mac> {
        match self {
            Self::Tunnel { template, on_link: true, .. } => Some(template.station()),
            _ => None,
        }
    }

    /// Why nothing leaves by it, when nothing does.
    #[inline]
    #[must_use]
    pub fn drop_reason(&self) -> Option<DropReason> {
        match self {
            Self::Drop(reason) => Some(*reason),
            Self::Unresolved { .. } => Some(DropReason::NextHopUnresolved),
            _ => None,
        }
    }
}
