//! The inside of the pod: its interface, addresses, routes and offloads, set up and looked at from within its
//! network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rscni_plugin::error::Error as CniError;
use vswitch_model::limits::LARGE_PACKET_MAX;
use vswitch_model::{Mac, PortKind};

use crate::error::{CODE_DIFFERS, During, Failure};
use crate::kernel::ethtool::{Ethtool, RX_GRO, TX_CHECKSUMS};
use crate::kernel::links::{LinkRoute, Links, host_prefix};
use crate::kernel::napi;
use crate::kernel::netns::Netns;
use crate::kernel::sysctl;
use crate::runtime;

/// Every pod's IPv4 router (Calico's convention). The engine answers for it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Every pod's IPv6 router: the link-local address that follows from [`Mac::GATEWAY`] (RFC 4291, appendix A).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// The pod's end as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Name of the interface.
    pub ifname: String,
    /// What it is.
    pub kind: PortKind,
    /// Its Ethernet address; zeros of a tun.
    pub mac: Mac,
    /// Its MTU in bytes; None: not looked at.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// The routes that follow from the addresses: each family's default, and how its router is reached.
    #[must_use]
    pub fn routes(&self) -> Vec<LinkRoute> {
        if self.kind == PortKind::Tun {
            return self.routes_of_tun();
        }
        let mut routes = Vec::new();
        if self.addresses.iter().any(IpAddr::is_ipv4) {
            let gateway = IpAddr::V4(GATEWAY_V4);
            routes.push(LinkRoute { destination: gateway.into(), gateway: None });
            routes.push(default_route(gateway));
        }
        if self.addresses.iter().any(IpAddr::is_ipv6) {
            // A link-local router is on the link by its nature.
            routes.push(default_route(IpAddr::V6(GATEWAY_V6)));
        }
        routes
    }

    /// There is no link to find a router on: everything goes into the device.
    fn routes_of_tun(&self) -> Vec<LinkRoute> {
        let has = |is: fn(&IpAddr) -> bool| self.addresses.iter().any(is);
        let v4 = has(IpAddr::is_ipv4).then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let v6 = has(IpAddr::is_ipv6).then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        v4.into_iter().chain(v6).map(|any| LinkRoute { destination: all(any), gateway: None }).collect()
    }

    /// Its Ethernet address as others are told: nothing of a tun.
    #[must_use]
    pub fn mac_text(&self) -> String {
        if self.kind == PortKind::Tun { String::new() } else { self.mac.to_string() }
    }

    /// Sets up the interface, which has to be in the namespace already.
    pub fn set_up(&self, netns: &Netns) -> Result<(), Failure> {
        netns.run(|| runtime().during(|| "start")?.block_on(self.set_up_inside()))??;
        if self.kind == PortKind::Tun {
            return Ok(());
        }
        // On a thread of its own, because that thread's mount namespace is spoilt afterwards.
        match netns.run(|| napi::set_threaded(&self.ifname))? {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                // Slower without, and right all the same.
                eprintln!("vswitch-cni: threaded NAPI on {}: {error}", self.ifname);
            }
            _ => {}
        }
        Ok(())
    }

    async fn set_up_inside(&self) -> Result<(), Failure> {
        let links = Links::open()?;
        links.set_up("lo").await?;
        let missing = || Failure { step: format!("find {}", self.ifname), cause: Errno::ENODEV.into() };
        let link = links.find(&self.ifname).await?.ok_or_else(missing)?;
        if self.addresses.iter().any(IpAddr::is_ipv6) {
            // Some runtimes make namespaces with IPv6 off. Nobody else is on this link: no duplicates to detect, and
            // no router that would advertise itself.
            for (key, value) in [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")] {
                sysctl::set("ipv6", &self.ifname, key, value)?;
            }
        }
        if self.kind == PortKind::Veth {
            self.set_offloads(link.index)?;
        } else {
            links.set_large_max(&self.ifname, LARGE_PACKET_MAX).await?;
        }
        links.set_up(&self.ifname).await?;
        for address in &self.addresses {
            links.add_address(link.index, *address).await?;
        }
        for route in self.routes() {
            links.add_route(link.index, &route).await?;
        }
        Ok(())
    }

    /// The engine reads packets off the other end as they are: a checksum that was left to the device would never be
    /// written. GRO gives the interface NAPI, without which each packet runs the pod's stack inside the engine's worker.
    fn set_offloads(&self, index: u32) -> Result<(), Failure> {
        let step = |what: &str, on: bool| {
            format!("switch {what} {} on {}", if on { "on" } else { "off" }, self.ifname)
        };
        let mut ethtool = Ethtool::open().during(|| "open ethtool's netlink family")?;
        for feature in TX_CHECKSUMS {
            ethtool.set(index, feature, false).during(|| step(feature, false))?;
        }
        let active = ethtool.active(index).during(|| format!("read the offloads of {}", self.ifname))?;
        if let Some(feature) = TX_CHECKSUMS.iter().find(|feature| active.contains(**feature)) {
            return Err(Failure {
                step: step(feature, false),
                cause: io::Error::other("the kernel left it on"),
            });
        }
        if let Err(error) = ethtool.set(index, RX_GRO, true) {
            eprintln!("vswitch-cni: {}: {error}", step(RX_GRO, true));
        }
        Ok(())
    }

    /// Compares the interface with what it should be. What differs first is the error.
    pub fn check(&self, netns: &Netns) -> Result<(), CniError> {
        netns.run(|| runtime().during(|| "start")?.block_on(self.differences()))??.into_iter().next().map_or(
            Ok(()),
            |difference| {
                let msg = "pod network differs from what was set up".to_owned();
                Err(CniError::Custom(CODE_DIFFERS, msg, difference))
            },
        )
    }

    async fn differences(&self) -> Result<Vec<String>, Failure> {
        let links = Links::open()?;
        let name = &self.ifname;
        let Some(link) = links.find(name).await? else {
            return Ok(vec![format!("{name} is not in the pod's network namespace")]);
        };
        let mut found = Vec::new();
        if link.mac != self.mac {
            found.push(format!("{name} has the address {} and should have {}", link.mac, self.mac));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu != link.mtu) {
            found.push(format!("{name} has MTU {} and should have {mtu}", link.mtu));
        }
        if !link.up {
            found.push(format!("{name} is down"));
        }
        let addresses = links.addresses(link.index).await?;
        for address in &self.addresses {
            if !addresses
                .iter()
                .any(|net| net.addr() == *address && net.prefix_len() == host_prefix(*address))
            {
                found.push(format!("{name} has not the address {address}/{}", host_prefix(*address)));
            }
        }
        let routes = links.routes(link.index).await?;
        for route in self.routes().into_iter().filter(|route| !routes.contains(route)) {
            let via =
                route.gateway.map_or_else(|| "on the link".to_owned(), |gateway| format!("by {gateway}"));
            found.push(format!("there is no route to {} {via} on {name}", route.destination));
        }
        if self.kind == PortKind::Tun {
            return Ok(found);
        }
        let active = Ethtool::open().and_then(|mut ethtool| ethtool.active(link.index));
        let active = active.during(|| format!("read the offloads of {name}"))?;
        for feature in TX_CHECKSUMS.iter().filter(|feature| active.contains(**feature)) {
            found.push(format!("{name} leaves checksums to the device: {feature} is on"));
        }
        Ok(found)
    }
}

/// The default route of the gateway's family.
fn default_route(gateway: IpAddr) -> LinkRoute {
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    LinkRoute { destination: all(any), gateway: Some(gateway) }
}

/// Everything of the family of `any`.
fn all(any: IpAddr) -> IpNet {
    IpNet::new(any, 0).expect("zero is a prefix length of both families")
}

/// The gateway of an address's family.
#[must_use]
pub const fn gateway_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(GATEWAY_V4),
        IpAddr::V6(_) => IpAddr::V6(GATEWAY_V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_gateway_follows_from_its_mac() {
        let [a, b, c, d, e, f] = Mac::GATEWAY.0;
        let eui64 = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        assert_eq!(GATEWAY_V6.octets()[8..], eui64);
    }

    #[test]
    fn each_family_has_its_routes() {
        let pod = |addresses: &[&str]| Pod {
            ifname: "eth0".into(),
            kind: PortKind::Veth,
            mac: Mac::default(),
            mtu: None,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let text =
            |pod: Pod| -> Vec<String> { pod.routes().iter().map(|r| r.destination.to_string()).collect() };
        assert_eq!(text(pod(&["10.0.0.1"])), ["169.254.1.1/32", "0.0.0.0/0"]);
        assert_eq!(text(pod(&["fd00::1"])), ["::/0"]);
        assert_eq!(text(pod(&["fd00::1", "10.0.0.1"])).len(), 3);
        let tun = Pod { kind: PortKind::Tun, ..pod(&["fd00::1", "10.0.0.1"]) };
        assert!(tun.routes().iter().all(|route| route.gateway.is_none()));
        assert_eq!(text(tun), ["0.0.0.0/0", "::/0"]);
    }
}
