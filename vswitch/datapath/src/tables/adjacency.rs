//! What is done to a packet that leaves.

use vswitch_model::{DropReason, Mac, TunnelId};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adjacency {
    /// To a pod of this node.
    Pod {
        /// The pod's port.
        port: PortIndex,
        /// The pod's Ethernet address.
        dst_mac: Mac,
        /// [`Mac::GATEWAY`].
        src_mac: Mac,
        /// The pod's MTU.
        mtu: u16,
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
        /// The next hop's Ethernet address.
        dst_mac: Mac,
        /// The uplink's own.
        src_mac: Mac,
        /// The uplink's MTU.
        mtu: u16,
        /// Whose address the next hop is.
        node: NodeIndex,
    },
    /// Onto the underlay, in VXLAN.
    Vxlan {
        /// The uplink.
        port: PortIndex,
        /// What replaces the packet's Ethernet header.
        template: VxlanTemplate,
        /// The uplink's MTU less [`VxlanTemplate::overhead`].
        mtu: u16,
        /// The tunnel.
        tunnel: TunnelId,
        /// The node at its other end.
        node: NodeIndex,
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
            | Self::Vxlan { port, .. } => Some(*port),
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
            | Self::Vxlan { mtu, .. } => *mtu,
            Self::Unresolved { .. } | Self::Drop(_) => 0,
        }
    }

    /// The remote node it leads to; [`NodeIndex::NONE`] when it leads to none that a tunnel knows.
    #[inline]
    #[must_use]
    pub fn node(&self) -> NodeIndex {
        match self {
            Self::Direct { node, .. } | Self::Vxlan { node, .. } | Self::Unresolved { node, .. } => *node,
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
        matches!(self, Self::Vxlan { .. } | Self::Unresolved { tunnelled: true, .. })
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

/// The headers in front of an encapsulated packet, ready but for what differs from packet to packet.
///
/// ```text
///  0 Ethernet 14 | IPv4 20 | UDP 8 | VXLAN 8 | inner Ethernet 14   = 64 bytes
///  0 Ethernet 14 | IPv6 40 | UDP 8 | VXLAN 8 | inner Ethernet 14   = 84 bytes
/// ```
///
/// It goes where the packet's own Ethernet header was. Left at zero for the encapsulation to fill:
/// IPv4 total length (16..18), identification (18..20) and DSCP/ECN (15); IPv6 traffic class and flow label (14..18)
/// and payload length (18..20); UDP source port (0..2), length (4..6) and checksum (6..8) counted from
/// [`Self::udp_offset`]. The IPv4 header checksum (24..26) is that of the header with those fields at zero, to be
/// completed as RFC 1624 says. DF is set, the TTL or hop limit is 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanTemplate {
    pub(crate) bytes: [u8; Self::MAX],
    pub(crate) outer_v6: bool,
}

impl VxlanTemplate {
    /// Length with an IPv4 outer header.
    pub const LENGTH_V4: usize = 64;
    /// Length with an IPv6 outer header.
    pub const LENGTH_V6: usize = 84;
    /// The longer of the two.
    pub const MAX: usize = Self::LENGTH_V6;

    /// Whether the outer header is IPv6.
    #[inline]
    #[must_use]
    pub fn is_outer_v6(&self) -> bool {
        self.outer_v6
    }

    /// The headers.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        if self.outer_v6 { &self.bytes } else { self.as_v4() }
    }

    /// The headers of an IPv4 tunnel, as an array: a copy of constant length.
    #[inline]
    #[must_use]
    pub fn as_v4(&self) -> &[u8; Self::LENGTH_V4] {
        self.bytes.first_chunk().expect("LENGTH_V4 is less than MAX")
    }

    /// The headers of an IPv6 tunnel, as an array: a copy of constant length.
    #[inline]
    #[must_use]
    pub fn as_v6(&self) -> &[u8; Self::LENGTH_V6] {
        &self.bytes
    }

    /// Where the UDP header starts.
    #[inline]
    #[must_use]
    pub fn udp_offset(&self) -> usize {
        if self.outer_v6 { 54 } else { 34 }
    }

    /// By how much the underlay's IP packet is longer than the inner one: 50 or 70 bytes.
    #[inline]
    #[must_use]
    pub fn overhead(&self) -> u16 {
        Self::overhead_of(self.outer_v6)
    }

    pub(crate) const fn overhead_of(outer_v6: bool) -> u16 {
        if outer_v6 { 70 } else { 50 }
    }
}
