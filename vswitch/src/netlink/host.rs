//! The host port's addresses and routes, kept as desired by difference.
//!
//! The device is the engine's own, so any address of it that is not desired goes, but for the kernel's link-local one.
//! Of routes only those with our protocol number are ever removed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Link;
use super::kernel::{Kernel, OwnAddress};

/// The host port as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Its interface.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// What the node's kernel sends to it, from its address of the same family.
    pub routes: Vec<IpNet>,
}

/// Brings the device to what is desired. An error says in words what could not be done; what could be, is.
pub(super) async fn keep(
    kernel: &Kernel,
    device: &HostDevice,
    links: &BTreeMap<String, Link>,
    addresses: &[OwnAddress],
) -> Result<(), String> {
    let link = links.get(&device.name).ok_or_else(|| format!("there is no interface {}", device.name))?;
    let mut problems = Vec::new();
    if (link.mtu != device.mtu || !link.up)
        && let Err(error) = kernel.set_link(link.index, device.mtu).await
    {
        problems.push(error.to_string());
    }
    let present: Vec<_> = addresses.iter().filter(|address| address.interface == link.index).collect();
    // New ones first: with its last address a device loses all its routes (fib_disable_ip, net/ipv4/fib_frontend.c).
    for wanted in &device.addresses {
        if !present.iter().any(|address| address.prefix == IpNet::from(*wanted))
            && let Err(error) = kernel.add_address(link.index, *wanted).await
        {
            problems.push(format!("{wanted}: {error}"));
        }
    }
    for address in &present {
        if !device.addresses.iter().any(|wanted| IpNet::from(*wanted) == address.prefix)
            && !is_link_local(address.prefix.addr())
            && let Err(error) = kernel.remove_address(address).await
        {
            problems.push(format!("{}: {error}", address.prefix));
        }
    }
    if let Err(error) = keep_routes(kernel, device, link.index, &mut problems).await {
        problems.push(error.to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

async fn keep_routes(
    kernel: &Kernel,
    device: &HostDevice,
    interface: u32,
    problems: &mut Vec<String>,
) -> Result<(), super::NetlinkError> {
    let source = |prefix: &IpNet| {
        let same_family = |address: &&IpAddr| address.is_ipv4() == prefix.addr().is_ipv4();
        device.addresses.iter().find(same_family).copied()
    };
    let present = kernel.own_routes(interface).await?;
    let is_wanted =
        |prefix: &IpNet, from: Option<IpAddr>| device.routes.contains(prefix) && source(prefix) == from;
    for route in present.iter().filter(|route| !is_wanted(&route.prefix, route.source)) {
        if let Err(error) = kernel.remove_route(route).await {
            problems.push(format!("{}: {error}", route.prefix));
        }
    }
    for prefix in &device.routes {
        let there = present.iter().any(|route| route.prefix == *prefix && route.source == source(prefix));
        if !there && let Err(error) = kernel.add_route(interface, *prefix, source(prefix)).await {
            problems.push(format!("{prefix}: {error}"));
        }
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
