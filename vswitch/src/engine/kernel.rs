//! What the engine asks of the kernel: devices, steering, routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_model::{DesiredState, NextHop, PortName};
use vswitch_xdp::TunnelEndpoint;

use super::devices::Device;
use crate::config::Config;
use crate::netlink::{HostDevice, Wanted};

/// What is ours on the uplinks: the addresses of this node's pods, and our tunnel ends.
pub(super) fn ours(
    desired: &DesiredState,
    wanted: &BTreeMap<PortName, Device>,
) -> (Vec<IpNet>, Vec<TunnelEndpoint>) {
    let pods = desired.ports.values().filter(|port| wanted.contains_key(&port.name));
    let prefixes = pods.flat_map(|port| &port.addresses).map(|address| IpNet::from(*address)).collect();
    let tunnels = desired.local.iter().flat_map(|local| {
        let addresses = [local.underlay_v4.map(IpAddr::V4), local.underlay_v6.map(IpAddr::V6)];
        let end = |address| TunnelEndpoint { address, port: local.vxlan_port, vni: local.vni.get() };
        addresses.into_iter().flatten().map(end)
    });
    (prefixes, tunnels.collect())
}

/// What is to be followed and kept in the kernel's routes.
pub(super) fn wanted(config: &Config, desired: &DesiredState) -> Wanted {
    let direct = desired.routes.values().filter_map(|next_hop| match next_hop {
        NextHop::Direct(address) => Some(*address),
        _ => None,
    });
    let remotes: BTreeSet<IpAddr> =
        desired.tunnels.values().map(|tunnel| tunnel.remote).chain(direct).collect();
    let host = desired.local.as_ref().map(|local| HostDevice {
        name: config.host_port.to_string(),
        mtu: u32::from(local.host_mtu),
        addresses: local.host_addresses.clone(),
        routes: local.host_routes.clone(),
    });
    Wanted { remotes, uplinks: config.uplinks.iter().map(ToString::to_string).collect(), host }
}
