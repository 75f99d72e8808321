//! The stated limits of a desired state. Reaching one is an error that names it; the state before stays in force.

/// Ports of one engine, uplinks and the host port included.
pub const PORTS_MAX: usize = 1024;
/// Addresses of one pod port, both families together.
pub const ADDRESSES_PER_PORT_MAX: usize = 16;
/// Tunnels: one per remote node, family and encapsulation in use.
pub const TUNNELS_MAX: usize = 65_536;
/// VXLAN networks that one node has an end of: Calico's, flannel's, and two to come from or to go to.
pub const VXLAN_NETWORKS_MAX: usize = 4;
/// Routes, both families together.
pub const ROUTES_MAX: usize = 2_000_000;
/// Prefixes that carry an identity, both families together.
pub const PREFIXES_MAX: usize = 2_000_000;
/// Identities known at once.
pub const IDENTITIES_MAX: usize = 262_144;
/// Sets of identities.
pub const SETS_MAX: usize = 262_144;
/// Policies in force on one node.
pub const POLICIES_MAX: usize = 65_536;
/// Rules of all policies together, the policies' ends included.
pub const RULES_MAX: usize = 1_000_000;
/// Port matches of all rules together.
pub const PORT_MATCHES_MAX: usize = 4_000_000;
/// Largest packet that a sender may leave to be cut into segments, in bytes: what the engine has frames for.
pub const LARGE_PACKET_MAX: u32 = 65_000;
/// Smallest MTU a pod may have: what IPv6 asks of every link (RFC 8200, section 5).
pub const MTU_MIN: u16 = 1280;
/// Largest MTU a pod may have: a frame of 2048 bytes less headroom and the longest encapsulation.
pub const MTU_MAX: u16 = 1600;
