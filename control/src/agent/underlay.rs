//! Which addresses the other nodes reach this one by, and how large its packets may be.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};

/// What VXLAN over IPv4 adds: IPv4, UDP, VXLAN and the inner Ethernet header.
const OVERHEAD_V4: u32 = 20 + 8 + 8 + 14;
/// The same over IPv6.
const OVERHEAD_V6: u32 = 40 + 8 + 8 + 14;
/// MTU of pods on a node without an underlay: what everybody has.
const MTU_ALONE: u32 = 1500;

/// How the other nodes reach this one. Both None: a node alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Underlay {
    /// Its IPv4 address and subnet.
    pub ipv4: Option<Ipv4Net>,
    /// Its IPv6 address and subnet.
    pub ipv6: Option<Ipv6Net>,
}

/// What somebody said about the underlay; what is left open is found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// Take the addresses of this interface.
    pub interface: Option<String>,
    /// These addresses. With one given, a family that is not given is not used.
    pub addresses: Underlay,
}

/// An underlay that was found, and the MTU of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// The addresses.
    pub underlay: Underlay,
    /// The smallest MTU of the interfaces that have them. None: a node alone.
    pub mtu: Option<u32>,
}

/// Why there is no underlay.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// The interface asked for is not there.
    #[error("underlay.interface: no interface {0} here; there are: {1}")]
    NoInterface(String, String),
    /// The interface asked for has no address other nodes could use.
    #[error("underlay.interface: {0} has no address that other nodes could reach")]
    NoAddress(String),
    /// The address asked for is not this node's.
    #[error("underlay.{0}: no interface here has {1}; there are: {2}")]
    NotOurs(&'static str, IpAddr, String),
    /// The kernel did not tell.
    #[error("cannot ask the kernel for {0}: {1}")]
    Netlink(&'static str, String),
}

/// What the kernel knows of this node's links.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Index, name, MTU.
    pub links: Vec<(u32, String, u32)>,
    /// Addresses of global reach by index of their link, in the kernel's order.
    pub addresses: Vec<(u32, IpNet)>,
    /// Links of default routes, with their metrics.
    pub default_routes: Vec<(u32, u32)>,
}

/// Finds the underlay among `facts`: what was asked for, else the addresses of the interface that the best default
/// route goes by.
pub fn choose(wish: &Wish, facts: &Facts) -> Result<Found, UnderlayError> {
    let Underlay { ipv4, ipv6 } = wish.addresses;
    if ipv4.is_some() || ipv6.is_some() {
        let given = [("ipv4", ipv4.map(IpNet::V4)), ("ipv6", ipv6.map(IpNet::V6))];
        let mut mtu = None;
        for (field, address) in given {
            let Some(address) = address else { continue };
            let own = facts.addresses.iter().find(|(_, own)| own.addr() == address.addr());
            let Some((link, _)) = own else {
                let there =
                    facts.addresses.iter().map(|(_, own)| own.to_string()).collect::<Vec<_>>().join(", ");
                return Err(UnderlayError::NotOurs(field, address.addr(), there));
            };
            mtu = [mtu, facts.mtu(*link)].into_iter().flatten().min();
        }
        return Ok(Found { underlay: wish.addresses, mtu });
    }
    let link = match &wish.interface {
        Some(name) => {
            let link = facts.links.iter().find(|(_, link, _)| link == name);
            let there =
                || facts.links.iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            link.ok_or_else(|| UnderlayError::NoInterface(name.clone(), there()))?.0
        }
        None => match facts.default_routes.iter().min_by_key(|(_, metric)| *metric) {
            Some((link, _)) => *link,
            None => return Ok(Found::default()),
        },
    };
    let of_link = |ipv4: bool| {
        facts
            .addresses
            .iter()
            .find(|(at, own)| *at == link && own.addr().is_ipv4() == ipv4)
            .map(|(_, own)| *own)
    };
    let underlay = Underlay {
        ipv4: of_link(true).and_then(|own| if let IpNet::V4(own) = own { Some(own) } else { None }),
        ipv6: of_link(false).and_then(|own| if let IpNet::V6(own) = own { Some(own) } else { None }),
    };
    match &wish.interface {
        Some(name) if underlay == Underlay::default() => Err(UnderlayError::NoAddress(name.clone())),
        None if underlay == Underlay::default() => Ok(Found::default()),
        _ => Ok(Found { underlay, mtu: facts.mtu(link) }),
    }
}

impl Facts {
    fn mtu(&self, link: u32) -> Option<u32> {
        self.links.iter().find(|(index, _, _)| *index == link).map(|(_, _, mtu)| *mtu)
    }

    /// Asks the kernel.
    pub async fn read() -> Result<Self, UnderlayError> {
        let failed = |what| move |error: rtnetlink::Error| UnderlayError::Netlink(what, error.to_string());
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|e| UnderlayError::Netlink("a netlink socket", e.to_string()))?;
        let connection = tokio::spawn(connection);
        let links: Vec<_> =
            handle.link().get().execute().try_collect().await.map_err(failed("interfaces"))?;
        let addresses: Vec<_> =
            handle.address().get().execute().try_collect().await.map_err(failed("addresses"))?;
        let mut default_routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let routes: Vec<_> =
                handle.route().get(message).execute().try_collect().await.map_err(failed("routes"))?;
            default_routes.extend(routes.iter().filter_map(read_default_route));
            // IPv4 decides where there is one.
            if !default_routes.is_empty() {
                break;
            }
        }
        connection.abort();
        Ok(Self {
            links: links.iter().filter_map(read_link).collect(),
            addresses: addresses.iter().filter_map(read_address).collect(),
            default_routes,
        })
    }
}

fn read_link(message: &LinkMessage) -> Option<(u32, String, u32)> {
    let (mut name, mut mtu) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    Some((message.header.index, name?, mtu))
}

/// An address that other nodes can use for long: of global reach, and not a temporary one (RFC 8981).
fn read_address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let (mut own, mut peer, mut temporary) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            // IFA_F_TEMPORARY and IFA_F_SECONDARY are one bit: a secondary IPv4 address is as good as any.
            AddressAttribute::Flags(flags) => temporary = flags.contains(AddressFlags::Secondary),
            _ => {}
        }
    }
    let address = own.or(peer)?;
    let usable = message.header.scope == AddressScope::Universe && !(temporary && address.is_ipv6());
    let prefix = IpNet::new(address, message.header.prefix_len).ok()?;
    usable.then_some((message.header.index, prefix))
}

fn read_default_route(message: &RouteMessage) -> Option<(u32, u32)> {
    let header = &message.header;
    let is_default = header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast;
    let (mut out, mut metric) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(link) => out = Some(*link),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    is_default.then_some((out?, metric))
}

impl Found {
    /// The MTU that pods can have: what is left of the underlay's when a tunnel's headers are around it.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        let overhead = if self.underlay.ipv6.is_some() { OVERHEAD_V6 } else { OVERHEAD_V4 };
        self.mtu.map_or(MTU_ALONE, |mtu| {
            mtu.saturating_sub(overhead).min(u32::from(vswitch_model::limits::MTU_MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let net = |text: &str| text.parse().unwrap();
        Facts {
            links: vec![
                (1, "lo".into(), 65536),
                (2, "eth0".into(), 1500),
                (3, "eth1".into(), 9000),
                (4, "eth2".into(), 1400),
            ],
            addresses: vec![
                (2, net("192.0.2.1/24")),
                (2, net("192.0.2.9/24")),
                (2, net("2001:db8::1/64")),
                (3, net("198.51.100.1/25")),
            ],
            default_routes: vec![(3, 600), (2, 100)],
        }
    }

    fn wish(interface: &str, ipv4: &str, ipv6: &str) -> Wish {
        let addresses = Underlay { ipv4: ipv4.parse().ok(), ipv6: ipv6.parse().ok() };
        Wish { interface: (!interface.is_empty()).then(|| interface.to_owned()), addresses }
    }

    #[test]
    fn the_underlay_is_what_was_asked_for_or_the_best_default_routes() {
        for (wish, ipv4, ipv6, pod_mtu) in [
            (wish("", "", ""), "192.0.2.1/24", "2001:db8::1/64", 1430),
            (wish("eth1", "", ""), "198.51.100.1/25", "", 1600),
            (wish("", "192.0.2.9/24", ""), "192.0.2.9/24", "", 1450),
            (wish("", "198.51.100.1/25", "2001:db8::1/64"), "198.51.100.1/25", "2001:db8::1/64", 1430),
        ] {
            let found = choose(&wish, &facts()).unwrap();
            assert_eq!(
                found.underlay,
                Underlay { ipv4: ipv4.parse().ok(), ipv6: ipv6.parse().ok() },
                "{wish:?}"
            );
            assert_eq!(found.pod_mtu(), pod_mtu, "{wish:?}");
        }
    }

    #[test]
    fn a_node_without_a_default_route_is_alone() {
        let alone = Facts { default_routes: Vec::new(), ..facts() };
        let found = choose(&wish("", "", ""), &alone).unwrap();
        assert_eq!((found, found.pod_mtu()), (Found::default(), 1500));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (wish, expected) in [
            (
                wish("eth9", "", ""),
                "underlay.interface: no interface eth9 here; there are: lo, eth0, eth1, eth2",
            ),
            (wish("eth2", "", ""), "underlay.interface: eth2 has no address that other nodes could reach"),
            (
                wish("", "203.0.113.1/24", ""),
                "underlay.ipv4: no interface here has 203.0.113.1; there are: 192.0.2.1/24",
            ),
        ] {
            let error = choose(&wish, &facts()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_of_this_machine() {
        let facts = Facts::read().await.unwrap();
        assert!(facts.links.iter().any(|(_, name, mtu)| name == "lo" && *mtu >= 1280), "{facts:?}");
        for (link, _) in &facts.addresses {
            assert!(facts.mtu(*link).is_some(), "{facts:?}");
        }
    }
}
