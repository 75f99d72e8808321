//! What the engine asks of the kernel: devices, steering, routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_datapath::PortIndex;
use vswitch_datapath::tables::GATEWAY_V4;
use vswitch_model::{DesiredState, Encapsulation, Local, NextHop, PortName};
use vswitch_xdp::TunnelEndpoint;

use super::devices::{Device, DeviceError, Devices};
use super::ports::HOST_MTU;
use crate::config::Config;
use crate::io::afxdp::Options;
use crate::io::frame::CHUNK;
use crate::io::tun::{TunError, TunPort};
use crate::io::{self, Port, Umem, UmemError};
use crate::netlink::{HostDevice, TunnelKind, Wanted};

/// Bytes of a huge page, of the usual size: memory on them comes in whole ones.
const HUGE_PAGE: usize = 2 << 20;

/// Opens AF_XDP sockets on veths and uplinks, and a tun device towards the node's kernel.
#[derive(Debug)]
pub struct KernelDevices {
    umem: Arc<Umem>,
    sockets: io::Devices,
}

impl KernelDevices {
    /// Devices whose ports share `frames` frames. Needs root, or the capabilities that the error names.
    ///
    /// The frames are on huge pages where the node has enough of them set aside (`vm.nr_hugepages`).
    pub fn new(frames: u32) -> Result<Self, UmemError> {
        let frames = frames as usize;
        let huge = if (frames * CHUNK).is_multiple_of(HUGE_PAGE) {
            Umem::registered(frames, true).ok()
        } else {
            None
        };
        let on_huge_pages = huge.is_some();
        let umem = huge.map_or_else(|| Umem::registered(frames, false), Ok)?;
        tracing::info!(frames, on_huge_pages, "memory of the frames is there");
        let sockets = io::Devices::new(&umem);
        Ok(Self { umem, sockets })
    }

    fn socket(&mut self, options: &Options, index: PortIndex) -> Result<Box<dyn Port>, DeviceError> {
        match self.sockets.open(options, index) {
            Ok(port) => Ok(Box::new(port)),
            Err(error) => Err(DeviceError(error.to_string())),
        }
    }
}

impl Devices for KernelDevices {
    fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    fn kind(&self, device: &Device) -> &'static str {
        match device {
            Device::Host { .. } | Device::Tun { .. } => "tun",
            Device::Pod { .. } | Device::Uplink { .. } => "af_xdp",
        }
    }

    fn open(&mut self, device: &Device, index: PortIndex) -> Result<Box<dyn Port>, DeviceError> {
        match device {
            Device::Pod { interface, netns } => {
                let options = Options::pod(interface.as_str()).in_netns(netns.clone().map(PathBuf::from));
                self.socket(&options, index)
            }
            Device::Uplink { interface } => self.socket(&Options::uplink(interface.as_str()), index),
            Device::Tun { interface, netns, mtu } => {
                tun(TunPort::open_persistent(interface.as_str(), *mtu, Path::new(netns), index))
            }
            Device::Host { interface } => tun(TunPort::open(interface.as_str(), HOST_MTU, None, index)),
        }
    }

    fn open_parts(
        &mut self,
        device: &Device,
        index: PortIndex,
        parts: usize,
    ) -> Result<Vec<Box<dyn Port>>, DeviceError> {
        // A pod's queues are all its worker's: so is every flow of it.
        let Device::Uplink { interface } = device else { return Ok(vec![self.open(device, index)?]) };
        let opened = self.sockets.open_parts(&Options::uplink(interface.as_str()), index, parts);
        let opened = opened.map_err(|error| DeviceError(error.to_string()))?;
        Ok(opened.into_iter().map(|part| Box::new(part) as Box<dyn Port>).collect())
    }

    fn steer(&mut self, prefixes: &[IpNet], tunnels: &[TunnelEndpoint]) -> Result<(), DeviceError> {
        let prefixes = self.sockets.set_local_prefixes(prefixes);
        let tunnels = self.sockets.set_tunnels(tunnels);
        prefixes.and(tunnels).map_err(|error| DeviceError(error.to_string()))
    }
}

fn tun(opened: Result<TunPort, TunError>) -> Result<Box<dyn Port>, DeviceError> {
    match opened {
        Ok(port) => Ok(Box::new(port)),
        Err(error) => Err(DeviceError(error.to_string())),
    }
}

/// What is ours on the uplinks: the addresses of this node's pods, and tunnel packets.
pub(super) fn ours(
    desired: &DesiredState,
    wanted: &BTreeMap<PortName, Device>,
) -> (Vec<IpNet>, Vec<TunnelEndpoint>) {
    let pods = desired.ports.values().filter(|port| wanted.contains_key(&port.name));
    let prefixes = pods.flat_map(|port| &port.addresses).map(|address| IpNet::from(*address)).collect();
    let mut tunnels = Vec::new();
    let local = desired.local.as_ref();
    let addresses = local.map(|l| [l.underlay_v4.map(IpAddr::V4), l.underlay_v6.map(IpAddr::V6)]);
    for address in addresses.into_iter().flatten().flatten() {
        let networks = local.iter().flat_map(|local| &local.networks);
        tunnels.extend(networks.map(|network| TunnelEndpoint::Vxlan {
            address,
            port: network.port,
            vni: network.vni.get(),
        }));
        let remotes = desired.tunnels.values().map(|tunnel| tunnel.remote);
        let remotes = remotes.filter(|remote| remote.is_ipv4() == address.is_ipv4());
        tunnels.extend(remotes.map(|remote| TunnelEndpoint::IpIp { address, remote }));
    }
    // Whatever else is for the pools, though there is no such pod, is the engine's to drop.
    let pools = local.iter().flat_map(|local| local.host_routes.iter().copied());
    let own = local.iter().flat_map(|local| local.host_addresses.iter().copied().map(IpNet::from));
    tunnels.extend(pools.chain(own).map(|net| TunnelEndpoint::IpIpInner(net.trunc())));
    (prefixes, tunnels)
}

/// What is to be followed and kept in the kernel's routes.
pub(super) fn wanted(config: &Config, desired: &DesiredState) -> Wanted {
    let direct = desired.routes.values().filter_map(|next_hop| match next_hop {
        NextHop::Direct(address) => Some(*address),
        _ => None,
    });
    let remotes: BTreeSet<IpAddr> =
        desired.tunnels.values().map(|tunnel| tunnel.remote).chain(direct).collect();
    let mut tunnels: BTreeMap<IpAddr, BTreeSet<TunnelKind>> = BTreeMap::new();
    for tunnel in desired.tunnels.values() {
        tunnels.entry(tunnel.remote).or_default().insert(match tunnel.encapsulation {
            Encapsulation::Vxlan { port, vni, .. } => TunnelKind::Vxlan { port, vni },
            Encapsulation::IpIp => TunnelKind::IpIp,
        });
    }
    let leads_away = |next_hop: &NextHop| matches!(next_hop, NextHop::Tunnel(_) | NextHop::Direct(_));
    let elsewhere = desired.routes.iter().map(|(net, next_hop)| (*net, leads_away(next_hop))).collect();
    let host = desired.local.as_ref().map(|local| HostDevice {
        name: config.host_port.to_string(),
        mtu: u32::from(local.host_mtu),
        addresses: local.host_addresses.clone(),
        routes: host_routes(local),
    });
    let uplinks = config.uplinks.iter().map(ToString::to_string).collect();
    Wanted { remotes, tunnels, elsewhere, uplinks, host }
}

/// What the node's kernel sends to the host port: what the agent says, and the gateway's address, by which it is told of errors. It
/// takes nothing from an address that it has no way back to there (`rp_filter` 1).
fn host_routes(local: &Local) -> Vec<IpNet> {
    let gateway =
        local.host_addresses.iter().any(IpAddr::is_ipv4).then_some(IpNet::from(IpAddr::V4(GATEWAY_V4)));
    local.host_routes.iter().copied().chain(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::empty_node;

    #[test]
    fn ip_in_ip_is_ours_from_nodes_and_to_the_pools() {
        let mut state = empty_node();
        let remote: IpAddr = "192.0.2.2".parse().unwrap();
        let tunnel = |remote| vswitch_model::Tunnel {
            id: vswitch_model::TunnelId(1),
            node: "two".into(),
            remote,
            encapsulation: Encapsulation::IpIp,
        };
        state.tunnels.insert(vswitch_model::TunnelId(1), tunnel(remote));
        let (prefixes, tunnels) = ours(&state, &BTreeMap::new());
        let in_ip = tunnels.iter().filter(|one| !matches!(one, TunnelEndpoint::Vxlan { .. }));
        let address = "192.0.2.1".parse().unwrap();
        let inner = |net: &str| TunnelEndpoint::IpIpInner(net.parse().unwrap());
        let expected = [TunnelEndpoint::IpIp { address, remote }, inner("10.1.0.0/16"), inner("10.1.0.1/32")];
        assert_eq!(in_ip.copied().collect::<Vec<_>>(), expected);
        assert!(prefixes.is_empty(), "there are no pods");
    }
}
