//! The headers of a tunnel. Layout: [`Headers`] and [`TunnelTemplate`].

use std::net::IpAddr;

use vswitch_model::{Encapsulation, Local, Mac, Tunnel};

use super::Hop;
use crate::checksum;
use crate::parse::{self, ETHERNET, protocol};
use crate::tables::{Headers, TunnelTemplate};

const TTL: u8 = 64;

/// Lays headers down one after the other.
struct Writer {
    bytes: [u8; TunnelTemplate::MAX],
    length: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn ethernet(&mut self, destination: Mac, source: Mac, v6: bool) {
        self.put(&destination.0);
        self.put(&source.0);
        self.put(&if v6 { parse::IPV6 } else { parse::IPV4 }.to_be_bytes());
    }

    /// The IP header in front of `protocol`; None when this node has no address of its family.
    fn ip(&mut self, local: &Local, remote: IpAddr, protocol: u8) -> Option<()> {
        match remote {
            IpAddr::V4(remote) => {
                // Version 4, five words; DF; DSCP, ECN and length are the packet's.
                self.put(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, protocol, 0, 0]);
                self.put(&local.underlay_v4?.octets());
                self.put(&remote.octets());
                let checksum = checksum::of(&self.bytes[ETHERNET..ETHERNET + 20]);
                self.bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
            }
            IpAddr::V6(remote) => {
                self.put(&[0x60, 0, 0, 0, 0, 0, protocol, TTL]);
                self.put(&local.underlay_v6?.octets());
                self.put(&remote.octets());
            }
        }
        Some(())
    }
}

/// The headers of a tunnel; None when this node has no address of its family, or no end of its network
/// ([`Tunnels::hindrance`](super::Tunnels::hindrance)).
pub(super) fn template(local: &Local, tunnel: &Tunnel, hop: &Hop, inner_v6: bool) -> Option<TunnelTemplate> {
    let outer_v6 = tunnel.remote.is_ipv6();
    let mut writer = Writer { bytes: [0; TunnelTemplate::MAX], length: 0 };
    writer.ethernet(hop.dst_mac, hop.src_mac, outer_v6);
    let headers = match tunnel.encapsulation {
        Encapsulation::Vxlan { vni, port, remote_mac } => {
            let own = local.network(vni, port)?;
            writer.ip(local, tunnel.remote, protocol::UDP)?;
            writer.put(&[0, 0]);
            writer.put(&port.to_be_bytes());
            writer.put(&[0; 4]);
            // RFC 7348, section 5: flags with the I bit, 24 bits reserved, the VNI, 8 bits reserved.
            writer.put(&[0x08, 0, 0, 0]);
            writer.put(&(vni.get() << 8).to_be_bytes());
            writer.ethernet(remote_mac, if inner_v6 { own.mac_v6 } else { own.mac_v4 }, inner_v6);
            if outer_v6 { Headers::VxlanV6 } else { Headers::VxlanV4 }
        }
        Encapsulation::IpIp => {
            let carried = if inner_v6 { protocol::IPV6 } else { protocol::IPV4 };
            writer.ip(local, tunnel.remote, carried)?;
            if outer_v6 { Headers::IpIpV6 } else { Headers::IpIpV4 }
        }
    };
    Some(TunnelTemplate::new(writer.bytes, headers, local.dscp))
}
