//! The kernel as the switch: it forwards between the pods' veths, into VXLAN, and filters with nftables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use vswitch_model::{DesiredState, Encapsulation, NextHop, Tunnel, TunnelId, VxlanNetwork};

use crate::net::topology::{UPLINK, WIRE_MTU, speak_ipv6};
use crate::net::{Namespace, Topology, link};
use crate::{Error, Result};

/// What the kernel filters with, all of it behind connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Nothing: neither filter nor connection tracking.
    None,
    /// New and established connections pass.
    Stateful,
    /// Established connections pass, and new ones to an element of a set of so many addresses.
    Set(usize),
    /// Established connections pass, and new ones that match the last of so many rules, one after the other.
    Linear(usize),
}

/// Room of the connection tracking tables, in connections.
const CONNECTIONS: u32 = 262_144;
const VXLAN_V4: &str = "vxlan0";

/// Makes the kernel forward what `desired` says, in the topology's switch namespace. `filter` lets UDP to `allowed` pass.
///
/// # Errors
///
/// [`Error::Unmet`] when the kernel has no VXLAN or nftables, or `nft` is not installed; [`Error::Setup`].
pub fn forward(
    topology: &Topology,
    desired: &DesiredState,
    filter: Filter,
    allowed: &[IpAddr],
) -> Result<()> {
    let switch = &topology.switch;
    let v6 = topology.pods.iter().flat_map(|pod| &pod.addresses).any(IpAddr::is_ipv6);
    for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"] {
        switch.sysctl(key, "0")?;
    }
    switch.sysctl("net.ipv4.ip_forward", "1")?;
    let mut lines = String::new();
    for pod in &topology.pods {
        if v6 {
            speak_ipv6(switch, &pod.host)?;
        }
        for address in &pod.addresses {
            let _ = writeln!(lines, "route replace {address} dev {}", pod.host);
            let _ =
                writeln!(lines, "neigh replace {address} lladdr {} dev {} nud permanent", pod.mac, pod.host);
        }
        // A device that was made before the default was changed keeps its own.
        switch.sysctl(&format!("net.ipv4.conf.{}.rp_filter", pod.host), "0")?;
    }
    if v6 {
        switch.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    switch.ip(&lines)?;
    if topology.remote.is_some() {
        tunnels(switch, desired)?;
    }
    match filter {
        Filter::None => Ok(()),
        filter => nftables(switch, &ruleset(filter, allowed)),
    }
}

/// VXLAN over IPv4, set up as Calico sets it up, and direct routes of IPv4.
fn tunnels(switch: &Namespace, desired: &DesiredState) -> Result<()> {
    let Some(local) = desired.local.as_ref() else { return Ok(()) };
    let Some(own) = local.underlay_v4 else { return Ok(()) };
    let tunnels: Vec<&Tunnel> = desired.tunnels.values().filter(|tunnel| tunnel.remote.is_ipv4()).collect();
    if tunnels.is_empty() {
        return Ok(());
    }
    let Some(VxlanNetwork { vni, port, mac_v4, .. }) = local.networks.first() else { return Ok(()) };
    let mtu = WIRE_MTU - 50;
    switch
        .ip(&format!(
            "link add {VXLAN_V4} address {mac_v4} mtu {mtu} type vxlan id {vni} local {own} dev {UPLINK} \
             dstport {port} nolearning\nlink set {VXLAN_V4} up"
        ))
        .map_err(|error| Error::Unmet(format!("peer kernel VXLAN is missing: {error}")))?;
    let (mut lines, mut entries, mut ways) = (String::new(), String::new(), BTreeMap::new());
    for (number, tunnel) in tunnels.into_iter().enumerate() {
        let way = way(number);
        let Encapsulation::Vxlan { remote_mac, .. } = &tunnel.encapsulation else { continue };
        let _ = writeln!(lines, "neigh replace {way} lladdr {remote_mac} dev {VXLAN_V4} nud permanent");
        let _ = writeln!(entries, "fdb replace {remote_mac} dev {VXLAN_V4} dst {}", tunnel.remote);
        ways.insert(tunnel.id, way);
    }
    for (prefix, next_hop) in desired.routes.iter().filter(|(prefix, _)| prefix.addr().is_ipv4()) {
        if let Some(way) = through(next_hop, &ways) {
            let _ = writeln!(lines, "route replace {prefix} via {way} dev {VXLAN_V4} onlink");
        }
    }
    switch.with_input(&["bridge", "-batch", "-"], &entries)?;
    switch.ip(&lines)?;
    // The kernel leaves the outer checksum to the device, and the wire's end would not see it.
    for feature in vswitch_cni::kernel::ethtool::TX_CHECKSUMS {
        link::offload(switch, UPLINK, feature, false)?;
    }
    Ok(())
}

/// The inner address of a remote VTEP that routes point to: any that nothing else has.
fn way(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(169, 254, 64, 0)) + number as u32)
}

fn through(next_hop: &NextHop, ways: &BTreeMap<TunnelId, Ipv4Addr>) -> Option<Ipv4Addr> {
    match next_hop {
        NextHop::Tunnel(id) => ways.get(id).copied(),
        _ => None,
    }
}

fn nftables(switch: &Namespace, ruleset: &str) -> Result<()> {
    // The room is the machine's, not the namespace's, and usually ample; what is there must do.
    let room = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap_or_default();
    if room.trim().parse().is_ok_and(|room: u32| room < 4096) {
        let room = room.trim();
        return Err(Error::Unmet(format!(
            "peer nftables: room for {room} connections only; net.netfilter.nf_conntrack_max = {CONNECTIONS} would do"
        )));
    }
    switch.with_input(&["nft", "-f", "-"], ruleset).map(drop).map_err(|error| {
        Error::Unmet(format!("peer nftables is missing (Debian: apt-get install nftables): {error}"))
    })
}

/// The rules in nft's language.
fn ruleset(filter: Filter, allowed: &[IpAddr]) -> String {
    let mut rules = String::from(
        "table inet perf {\n chain forward {\n  type filter hook forward priority 0; policy drop;\n  \
         ct state established,related accept\n  ct state invalid drop\n",
    );
    match filter {
        Filter::None => {}
        Filter::Stateful => rules += "  ct state new accept\n",
        Filter::Set(size) => rules += &set_rules(size, allowed),
        Filter::Linear(count) => {
            // Others' addresses and ports, of which none matches, and the one that does.
            for number in 0..count.saturating_sub(allowed.len()) {
                let [_, high, low, last] = (number as u32).to_be_bytes();
                let _ = writeln!(
                    rules,
                    "  ip saddr 172.{}.{low}.{last} udp dport {} accept",
                    16 + (high & 15),
                    8000 + number % 640
                );
            }
            for address in allowed {
                let family = if address.is_ipv6() { "ip6" } else { "ip" };
                let _ = writeln!(rules, "  {family} daddr {address} meta l4proto udp accept");
            }
        }
    }
    rules + " }\n}\n"
}

fn set_rules(size: usize, allowed: &[IpAddr]) -> String {
    let mut text = String::new();
    for (family, v6) in [("ip", false), ("ip6", true)] {
        let own: Vec<String> =
            allowed.iter().filter(|address| address.is_ipv6() == v6).map(ToString::to_string).collect();
        if own.is_empty() {
            continue;
        }
        let others = (0..size.saturating_sub(own.len()) as u32).map(|number| {
            let [_, high, low, last] = number.to_be_bytes();
            if v6 { format!("fd77::{number:x}") } else { format!("172.{}.{low}.{last}", 16 + (high & 15)) }
        });
        let elements: Vec<String> = others.chain(own).collect();
        let _ = writeln!(text, "  {family} daddr {{ {} }} meta l4proto udp accept", elements.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulesets_have_as_many_rules_as_they_say() {
        let allowed: Vec<IpAddr> = vec!["10.0.1.11".parse().unwrap()];
        let linear = ruleset(Filter::Linear(1000), &allowed);
        assert_eq!(linear.matches(" accept\n").count(), 1 + 1000, "{linear}");
        assert!(linear.contains("ip daddr 10.0.1.11 meta l4proto udp accept\n }\n}"), "it is the last");
        let set = ruleset(Filter::Set(1000), &allowed);
        assert_eq!(set.matches(',').count(), 1 + 999, "{set}");
    }
}
