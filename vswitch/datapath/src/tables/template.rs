//! The headers in front of an encapsulated packet, ready but for what differs from packet to packet.

use std::net::IpAddr;

use vswitch_model::{Dscp, Mac};

use crate::parse::ETHERNET;
use crate::read::chunk;

/// What stands in front of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// Ethernet 14, IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14.
    VxlanV4,
    /// Ethernet 14, IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14.
    VxlanV6,
    /// Ethernet 14, IPv4 20.
    IpIpV4,
    /// Ethernet 14, IPv6 40.
    IpIpV6,
}

impl Headers {
    /// Their length in bytes.
    #[inline]
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::VxlanV4 => 64,
            Self::VxlanV6 => 84,
            Self::IpIpV4 => 34,
            Self::IpIpV6 => 54,
        }
    }

    /// By how much the underlay's IP packet is longer than the inner one: 20 to 70 bytes.
    #[inline]
    #[must_use]
    pub const fn overhead(self) -> u16 {
        (self.length() - ETHERNET) as u16
    }

    /// Whether the outer header is IPv6.
    #[inline]
    #[must_use]
    pub const fn is_outer_v6(self) -> bool {
        matches!(self, Self::VxlanV6 | Self::IpIpV6)
    }

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VxlanV4 | Self::VxlanV6 => "VXLAN",
            Self::IpIpV4 | Self::IpIpV6 => "IPIP",
        }
    }
}

/// The headers in front of an encapsulated packet. They go where the packet's own Ethernet header was; in VXLAN that is
/// the template's last part.
///
/// Left at zero for the encapsulation to fill: IPv4 DSCP/ECN (15) and total length (16..18); IPv6 traffic class and flow
/// label (14..18) and payload length (18..20); UDP source port, length and checksum. The IPv4 identification is zero, as
/// RFC 6864 (section 4.1) lets it be where DF is set, and it is. The IPv4 header checksum (24..26) is that of the header
/// with those fields at zero, to be completed as RFC 1624 says. The TTL or hop limit is 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelTemplate {
    pub(crate) bytes: [u8; Self::MAX],
    pub(crate) headers: Headers,
    /// What the outer traffic class has of the inner one, and what it has besides.
    inherited: u8,
    fixed: u8,
}

impl TunnelTemplate {
    /// Length of the longest.
    pub const MAX: usize = Headers::VxlanV6.length();

    /// One with these headers.
    #[must_use]
    pub fn new(bytes: [u8; Self::MAX], headers: Headers, dscp: Dscp) -> Self {
        const ECN: u8 = 3;
        let (inherited, fixed) = match dscp {
            Dscp::Inherit | Dscp::Uniform => (0xff, 0),
            Dscp::Pipe(dscp) => (ECN, dscp << 2),
        };
        Self { bytes, headers, inherited, fixed }
    }

    /// Which headers they are.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> Headers {
        self.headers
    }

    /// The headers.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.headers.length()).unwrap_or(&self.bytes)
    }

    /// By how much the underlay's IP packet is longer than the inner one.
    #[inline]
    #[must_use]
    pub fn overhead(&self) -> u16 {
        self.headers.overhead()
    }

    /// The outer header's DSCP and ECN for those of the inner one (RFC 2983; RFC 6040, section 4.1, normal mode).
    #[inline]
    #[must_use]
    pub fn traffic_class(&self, inner: u8) -> u8 {
        inner & self.inherited | self.fixed
    }

    /// Whether the other end of the tunnel has this address.
    #[inline]
    #[must_use]
    pub(crate) fn leads_to(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                !self.headers.is_outer_v6() && chunk(&self.bytes, ETHERNET + 16) == Some(&address.octets())
            }
            IpAddr::V6(address) => {
                self.headers.is_outer_v6() && chunk(&self.bytes, ETHERNET + 24) == Some(&address.octets())
            }
        }
    }

    /// The Ethernet address it is sent to.
    #[inline]
    #[must_use]
    pub fn station(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.bytes;
        Mac([a, b, c, d, e, f])
    }
}
