//! Links, addresses and routes, by rtnetlink, in the namespace of the thread that opened the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use vswitch_model::Mac;

use super::netns::Netns;
use crate::error::{During, Failure};

/// A connection to the kernel's routing family.
pub struct Links {
    handle: Handle,
}

/// What we look at of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zeros for one that has none.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Number of the peer, for one end of a veth pair.
    pub peer: Option<u32>,
    /// Its alias.
    pub alias: Option<String>,
    /// Whether it is a tun or tap device.
    pub is_tun: bool,
}

/// The pair to make.
#[derive(Debug, Clone)]
pub struct VethPair<'a> {
    /// Name of the host end, here.
    pub host: &'a str,
    /// Its Ethernet address.
    pub host_mac: Mac,
    /// Its alias.
    pub host_alias: &'a str,
    /// Name of the pod's end.
    pub pod: &'a str,
    /// Its Ethernet address.
    pub pod_mac: Mac,
    /// MTU of both, bytes.
    pub mtu: u32,
}

/// A route out of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRoute {
    /// Destinations.
    pub destination: IpNet,
    /// Router; None: the destination itself is on the link.
    pub gateway: Option<IpAddr>,
}

impl Links {
    /// Opens a connection, served by a task of the current tokio runtime.
    pub fn open() -> Result<Self, Failure> {
        let (connection, handle, _) = rtnetlink::new_connection().during(|| "open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The interface of that name.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, Failure> {
        let found = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        match found.during(|| format!("look for interface {name}")) {
            Ok(message) => Ok(message.as_ref().map(Link::read)),
            Err(failure) if failure.is(Errno::ENODEV) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// All interfaces.
    pub async fn list(&self) -> Result<Vec<Link>, Failure> {
        let messages = self.handle.link().get().execute().map_ok(|message| Link::read(&message));
        messages.try_collect().await.during(|| "list interfaces")
    }

    /// Makes a veth pair: the host end here, the pod's end in `pod_netns`, both down.
    pub async fn add_veth(&self, pair: &VethPair<'_>, pod_netns: &Netns) -> Result<(), Failure> {
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(pair.pod)
            .address(pair.pod_mac.0.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pod_netns.raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(pair.host, pair.pod)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(pair.host_mac.0.to_vec())
            .mtu(pair.mtu)
            .build();
        let step = || format!("make the veth pair {} and {}", pair.host, pair.pod);
        self.handle.link().add(message).execute().await.during(step)?;
        let alias = LinkUnspec::new_with_name(pair.host).alias(pair.host_alias).build();
        self.handle.link().change(alias).execute().await.during(|| format!("set the alias of {}", pair.host))
    }

    /// Deletes the interface of that name. False: there was none.
    pub async fn delete(&self, name: &str) -> Result<bool, Failure> {
        let Some(link) = self.find(name).await? else { return Ok(false) };
        match self.handle.link().del(link.index).execute().await.during(|| format!("delete interface {name}"))
        {
            Ok(()) => Ok(true),
            // Its namespace went away in between, and it with it.
            Err(failure) if failure.is(Errno::ENODEV) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Sets the host end up: no ARP, no link-local address.
    pub async fn set_up_silent(&self, name: &str) -> Result<(), Failure> {
        let quiet = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]);
        let without_ipv6 = LinkUnspec::new_with_name(name).append_extra_attribute(quiet).build();
        match self.handle.link().change(without_ipv6).execute().await {
            // A kernel without IPv6 does not know the attribute and has nothing to keep quiet.
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -(Errno::EAFNOSUPPORT as i32) => {}
            set => set.during(|| format!("switch link-local addresses off on {name}"))?,
        }
        let up = LinkUnspec::new_with_name(name).arp(false).up().build();
        self.handle.link().change(up).execute().await.during(|| format!("set {name} up"))
    }

    /// Bounds the packets that the kernel leaves to an interface to be cut, in bytes.
    pub async fn set_large_max(&self, name: &str, bytes: u32) -> Result<(), Failure> {
        let bound = LinkAttribute::GsoMaxSize(bytes);
        let change = LinkUnspec::new_with_name(name).append_extra_attribute(bound).build();
        let step = || format!("bound the large packets of {name}");
        self.handle.link().change(change).execute().await.during(step)
    }

    /// Sets an interface up.
    pub async fn set_up(&self, name: &str) -> Result<(), Failure> {
        let up = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().change(up).execute().await.during(|| format!("set {name} up"))
    }

    /// Adds an address as a host route of its own, usable at once (no duplicate address detection).
    pub async fn add_address(&self, index: u32, address: IpAddr) -> Result<(), Failure> {
        let mut request = self.handle.address().add(index, address, host_prefix(address));
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.during(|| format!("add address {address}"))
    }

    /// The addresses of an interface, with their prefixes.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>, Failure> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> = request.execute().try_collect().await.during(|| "list addresses")?;
        let nets = messages.iter().filter_map(|message| {
            // IFA_LOCAL is the interface's own address; IPv6 has only IFA_ADDRESS.
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            IpNet::new(local.or(any)?, message.header.prefix_len).ok()
        });
        Ok(nets.collect())
    }

    /// Adds a route.
    pub async fn add_route(&self, index: u32, route: &LinkRoute) -> Result<(), Failure> {
        let message = route.message(index)?;
        let step = || format!("add route to {}", route.destination);
        self.handle.route().add(message).execute().await.during(step)
    }

    /// The routes of the main table that leave by an interface.
    pub async fn routes(&self, index: u32) -> Result<Vec<LinkRoute>, Failure> {
        let mut routes = Vec::new();
        let all =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for query in all {
            let found: Vec<_> =
                self.handle.route().get(query).execute().try_collect().await.during(|| "list routes")?;
            routes.extend(found.iter().filter_map(|message| LinkRoute::read(message, index)));
        }
        Ok(routes)
    }
}

impl Link {
    fn read(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: Mac::default(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            peer: None,
            alias: None,
            is_tun: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) => {
                    link.mac = address[..].try_into().map(Mac).unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::LinkInfo(infos) => {
                    link.is_tun = infos.contains(&LinkInfo::Kind(InfoKind::Tun));
                }
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                _ => {}
            }
        }
        link
    }
}

impl LinkRoute {
    fn message(&self, index: u32) -> Result<RouteMessage, Failure> {
        let mismatch = || Failure {
            step: format!("add route to {}", self.destination),
            cause: std::io::Error::other("destination and router are of different families"),
        };
        let scope = if self.gateway.is_none() { RouteScope::Link } else { RouteScope::Universe };
        Ok(match self.destination {
            IpNet::V4(net) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(net.addr(), net.prefix_len())
                    .output_interface(index)
                    .scope(scope);
                match self.gateway {
                    None => route.build(),
                    Some(IpAddr::V4(gateway)) => route.gateway(gateway).build(),
                    Some(IpAddr::V6(_)) => return Err(mismatch()),
                }
            }
            IpNet::V6(net) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(net.addr(), net.prefix_len())
                    .output_interface(index);
                match self.gateway {
                    None => route.build(),
                    Some(IpAddr::V6(gateway)) => route.gateway(gateway).build(),
                    Some(IpAddr::V4(_)) => return Err(mismatch()),
                }
            }
        })
    }

    /// The route of a message, when it leaves by this interface.
    fn read(message: &RouteMessage, index: u32) -> Option<Self> {
        let mut destination = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut gateway, mut leaves_here) = (None, false);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
                RouteAttribute::Oif(oif) => leaves_here = *oif == index,
                _ => {}
            }
        }
        let main = message.header.table == netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
        let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
        (leaves_here && main).then_some(Self { destination, gateway })
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The prefix length of one address alone.
#[must_use]
pub const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
