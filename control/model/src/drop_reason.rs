//! Why a packet ended. Every dropped packet has exactly one reason.

macro_rules! drop_reasons {
    ($($(#[doc = $text:literal])+ $name:ident = $key:literal,)+) => {
        /// Why a packet ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $text])+ $name,)+
        }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
            /// How many there are: the length of an array with one counter for each.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in metrics and output: lower case, with hyphens.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key),+ }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($text),+).trim_ascii()),+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than the headers it claims to hold.
    Truncated = "truncated",
    /// An EtherType other than ARP, IPv4 and IPv6.
    EtherTypeUnknown = "ethertype-unknown",
    /// Addressed to another station of the link.
    MacNotOurs = "mac-not-ours",
    /// An ARP packet that is malformed, or asks for nothing we answer.
    ArpInvalid = "arp-invalid",
    /// A neighbour discovery message that is malformed, or asks for nothing we answer (RFC 4861).
    NeighbourDiscoveryInvalid = "nd-invalid",
    /// An IPv4 header with a wrong version, header length, total length or checksum.
    Ipv4HeaderInvalid = "ipv4-header-invalid",
    /// A packet that names the routers it wants to pass: IPv4 options LSRR and SSRR, as Linux without
    /// accept_source_route, and IPv6 routing headers of type 0 (RFC 5095).
    SourceRouted = "source-routed",
    /// An IPv6 header or extension header chain that is malformed or too long.
    Ipv6HeaderInvalid = "ipv6-header-invalid",
    /// A TCP, UDP, SCTP or ICMP header that is malformed.
    TransportHeaderInvalid = "transport-header-invalid",
    /// A source that cannot be one: multicast, broadcast, loopback or unspecified.
    SourceInvalid = "source-invalid",
    /// A multicast, broadcast, loopback or unspecified destination, a link-local one of IPv6,
    /// or the pods' gateway, which answers pings only.
    DestinationInvalid = "destination-invalid",
    /// A pod sent from an Ethernet address that is not its own.
    SpoofedMac = "spoofed-mac",
    /// A pod sent from an address that is not its own, or somebody outside from one of a pod here or of this node.
    SpoofedAddress = "spoofed-address",
    /// A tunnel packet from an address that is no known VTEP.
    TunnelPeerUnknown = "tunnel-peer-unknown",
    /// A VXLAN header with wrong flags or another VNI (RFC 7348).
    TunnelHeaderInvalid = "tunnel-header-invalid",
    /// A tunnel packet whose inner source does not live behind the VTEP that sent it.
    TunnelSourceInvalid = "tunnel-source-invalid",
    /// A fragment of a tunnel packet: outer fragments are refused.
    TunnelFragment = "tunnel-fragment",
    /// On the uplink, neither a tunnel packet nor addressed to a pod.
    UplinkNotOurs = "uplink-not-ours",
    /// A fragment that came without, or before, the first one of its packet.
    FragmentUnknown = "fragment-unknown",
    /// No more fragmented packets can be followed at once.
    FragmentTableFull = "fragment-table-full",
    /// The sender's egress policy denies it.
    PolicyEgress = "policy-egress",
    /// The receiver's ingress policy denies it.
    PolicyIngress = "policy-ingress",
    /// A pod sent a tunnel packet of its own, VXLAN or IP-in-IP, and pods may not.
    TunnelFromPod = "tunnel-from-pod",
    /// A reply or an ICMP error that belongs to no flow, or a redirect, which nobody may send to a pod.
    FlowUnknown = "flow-unknown",
    /// A TCP segment that opens no connection and belongs to none.
    TcpStateInvalid = "tcp-state-invalid",
    /// A TCP segment that lies outside of its connection's window, or acknowledges what was never sent.
    TcpOutOfWindow = "tcp-out-of-window",
    /// The flow table is full, or has all it takes of one port; the newcomer is refused.
    FlowTableFull = "flow-table-full",
    /// It belongs to no known flow, and the worker is behind: more of these came by its port than there is time to judge.
    WorkerBehind = "worker-behind",
    /// No route leads to the destination.
    NoRoute = "no-route",
    /// The route leads nowhere: a free address of our own block.
    RouteUnreachable = "route-unreachable",
    /// No next hop is resolved: the underlay has no way there, its uplink has no carrier, or nobody answers.
    NextHopUnresolved = "next-hop-unresolved",
    /// It would leave by the way it came, or from the host to the host.
    RouteLoops = "route-loops",
    /// The TTL or hop limit ran out; the sender was told, within the rate limit.
    TtlExpired = "ttl-expired",
    /// Larger than the way allows; the sender was told, within the rate limit.
    TooBig = "too-big",
    /// Not enough headroom before the packet to encapsulate it.
    HeadroomExhausted = "headroom-exhausted",
    /// The port it was to leave by is gone.
    PortGone = "port-gone",
    /// The transmit ring of its port is full.
    TransmitRingFull = "transmit-ring-full",
    /// The kernel refused to transmit it.
    TransmitRefused = "transmit-refused",
    /// The worker that owns its flow is behind: the ring to it is full.
    HandoverFull = "handover-full",
    /// No free frame to receive or build it in.
    FramesExhausted = "frames-exhausted",
    /// The engine has no desired state yet.
    NotConfigured = "not-configured",
    /// It was still queued when the engine stopped or its port was removed.
    Stopping = "stopping",
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_in_one_style() {
        let mut keys: Vec<_> = DropReason::ALL.iter().map(|reason| reason.key()).collect();
        for key in &keys {
            assert!(key.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'), "{key}");
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), DropReason::COUNT);
    }

    #[test]
    fn numbers_index_the_list() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
