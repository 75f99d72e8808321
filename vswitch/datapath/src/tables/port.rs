//! What the walk knows of a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_model::{Mac, PortName};

/// The address pods have as their IPv4 gateway (Calico's convention), on-link on every pod's port.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6: the link-local address of [`Mac::GATEWAY`] (RFC 4291, appendix A).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// What is at the other end of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// One pod.
    Pod,
    /// The underlay.
    Uplink,
    /// The node's kernel.
    Host,
    /// Nothing we know of: what comes from there is not for us yet, or no more.
    None,
}

/// A port as the walk sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEntry {
    /// What is at its other end.
    pub role: Role,
    /// The pod's Ethernet address, zeros where it has a tun, or the uplink's own.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Whether it takes packets whose checksum is still to be finished.
    pub finishes_checksums: bool,
    /// Whether it takes packets that are still to be cut into segments.
    pub takes_large: bool,
    /// Its name, for people.
    pub name: Option<PortName>,
    /// The first address of each family lies in the entry: most pods have no other. Zero is no address.
    first_v4: u32,
    /// The Ethernet addresses of what it sends to its gateway, as they stand in the frame.
    to_gateway: [u8; 12],
    first_v6: u128,
    more_v4: Vec<u32>,
    more_v6: Vec<u128>,
}

impl PortEntry {
    /// What a port number that nobody gave out stands for.
    pub const NONE: &'static Self = &Self::nothing();

    const fn nothing() -> Self {
        Self {
            role: Role::None,
            mac: Mac([0; 6]),
            mtu: 0,
            finishes_checksums: false,
            takes_large: false,
            name: None,
            first_v4: 0,
            to_gateway: [0; 12],
            first_v6: 0,
            more_v4: Vec::new(),
            more_v6: Vec::new(),
        }
    }

    /// A port with these addresses.
    #[must_use]
    pub fn new(role: Role, mac: Mac, mtu: u16, addresses: &[IpAddr]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(address.to_bits()),
                IpAddr::V6(address) => v6.push(address.to_bits()),
            }
        }
        Self {
            role,
            mac,
            mtu,
            to_gateway: to_gateway(mac),
            first_v4: v4.first().copied().unwrap_or(0),
            first_v6: v6.first().copied().unwrap_or(0),
            more_v4: v4.into_iter().skip(1).collect(),
            more_v6: v6.into_iter().skip(1).collect(),
            ..Self::nothing()
        }
    }

    /// Whether a frame is from its Ethernet address to the gateway's.
    #[inline(always)]
    #[must_use]
    pub(crate) fn sends_to_gateway(&self, frame: &[u8]) -> bool {
        frame.first_chunk() == Some(&self.to_gateway)
    }

    /// Whether `address` (host order) is one of the pod's.
    #[inline]
    #[must_use]
    pub fn owns_v4(&self, address: u32) -> bool {
        address != 0 && (address == self.first_v4 || self.more_v4.contains(&address))
    }

    /// Whether `address` is one of the pod's.
    #[inline]
    #[must_use]
    pub fn owns_v6(&self, address: u128) -> bool {
        address != 0 && (address == self.first_v6 || self.more_v6.contains(&address))
    }
}

fn to_gateway(mac: Mac) -> [u8; 12] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (Mac::GATEWAY.0, mac.0);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_owns_its_addresses_and_no_other() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"].map(|a| a.parse().unwrap()).into();
        let port = PortEntry::new(Role::Pod, Mac::default(), 1450, &addresses);
        assert!(port.owns_v4(0x0a00_0001) && port.owns_v4(0x0a00_0002) && !port.owns_v4(0x0a00_0003));
        let fd = 0xfd00u128 << 112;
        assert!(port.owns_v6(fd | 1) && port.owns_v6(fd | 2) && !port.owns_v6(fd | 3));
        assert!(!PortEntry::NONE.owns_v4(0) && !PortEntry::NONE.owns_v6(0));
    }

    #[test]
    fn a_port_knows_its_frames_to_the_gateway() {
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let port = PortEntry::new(Role::Pod, mac, 1450, &[]);
        let frame = [&Mac::GATEWAY.0[..], &mac.0, &[8, 0]].concat();
        assert!(port.sends_to_gateway(&frame) && !port.sends_to_gateway(&frame[..11]));
        for at in 0..12 {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert!(!port.sends_to_gateway(&other), "byte {at}");
        }
    }

    #[test]
    fn the_gateways_link_local_address_is_that_of_its_mac() {
        let mac = Mac::GATEWAY.0;
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0xfe, 0x80]);
        address[8..].copy_from_slice(&[mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]]);
        assert_eq!(GATEWAY_V6, Ipv6Addr::from(address));
    }
}
