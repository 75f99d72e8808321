//! The few questions and requests of rtnetlink that the engine has, in the engine's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::{Handle, LinkUnspec};
use vswitch_model::Mac;

use super::{Link, NetlinkError};

/// Marks the routes that are ours (`ip route show proto 118`); routes of any other origin are never touched.
pub(super) const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(118);

/// What the kernel answers when asked for the way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// None, or one that ends in an error.
    None,
    /// The address is this node's own.
    Local,
    /// Out by one of these.
    Out { ways: Vec<Out>, mtu: Option<u32> },
}

/// Out by an interface, to a gateway or, without one, to the address itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Out {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    /// Of several: its share in proportion to that of others, 1 to 256.
    pub(super) weight: u16,
}

/// A route of ours.
#[derive(Debug, Clone)]
pub(super) struct OwnRoute {
    pub(super) prefix: IpNet,
    pub(super) source: Option<IpAddr>,
    message: RouteMessage,
}

/// An address of an interface.
#[derive(Debug, Clone)]
pub(super) struct OwnAddress {
    pub(super) interface: u32,
    pub(super) prefix: IpNet,
    message: AddressMessage,
}

/// Asks the kernel.
pub(super) struct Kernel {
    handle: Handle,
}

fn refused(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |cause| NetlinkError::Refused { what, cause }
}

impl Kernel {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// All interfaces by name.
    pub(super) async fn links(&self) -> Result<BTreeMap<String, Link>, NetlinkError> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(refused("list interfaces"))?;
        let mut links = BTreeMap::new();
        for message in messages {
            let (index, flags) = (message.header.index, message.header.flags);
            let (up, carrier) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::LowerUp));
            let mut link = Link { index, mac: Mac::default(), mtu: 0, up, carrier };
            let mut name = None;
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = Some(text),
                    LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                    LinkAttribute::Address(bytes) => link.mac = as_mac(&bytes).unwrap_or_default(),
                    _ => {}
                }
            }
            if let Some(name) = name {
                links.insert(name, link);
            }
        }
        Ok(links)
    }

    /// All addresses of all interfaces.
    pub(super) async fn addresses(&self) -> Result<Vec<OwnAddress>, NetlinkError> {
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(refused("list addresses"))?;
        let mut addresses = Vec::new();
        for message in messages {
            let (mut own, mut peer) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => own = Some(*address),
                    AddressAttribute::Address(address) => peer = Some(*address),
                    _ => {}
                }
            }
            // IPv6 has only IFA_ADDRESS, which is then our own (if_addr.h).
            if let Some(address) = own.or(peer)
                && let Ok(prefix) = IpNet::new(address, message.header.prefix_len)
            {
                addresses.push(OwnAddress { interface: message.header.index, prefix, message });
            }
        }
        Ok(addresses)
    }

    /// Ethernet addresses of the neighbours that are reachable as far as the kernel knows, by interface and address.
    pub(super) async fn neighbours(&self) -> Result<BTreeMap<(u32, IpAddr), Mac>, NetlinkError> {
        let mut known = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let messages: Vec<_> =
                request.execute().try_collect().await.map_err(refused("list neighbours"))?;
            for message in messages {
                let usable = matches!(
                    message.header.state,
                    NeighbourState::Reachable
                        | NeighbourState::Stale
                        | NeighbourState::Delay
                        | NeighbourState::Probe
                        | NeighbourState::Permanent
                );
                let (mut address, mut mac) = (None, None);
                for attribute in message.attributes {
                    match attribute {
                        NeighbourAttribute::Destination(to) => address = as_neighbour(&to),
                        NeighbourAttribute::LinkLayerAddress(bytes) => mac = as_mac(&bytes),
                        _ => {}
                    }
                }
                if let (true, Some(address), Some(mac)) = (usable, address, mac) {
                    known.insert((message.header.ifindex, address), mac);
                }
            }
        }
        Ok(known)
    }

    /// The way to `remote` by the kernel's rules and tables, as its own packets would take.
    pub(super) async fn way(&self, remote: IpAddr) -> Result<Way, NetlinkError> {
        let Some(answer) = self.route_to(remote, RouteFlags::empty()).await? else { return Ok(Way::None) };
        let way = read_way(&answer);
        let Way::Out { mtu, .. } = way else { return Ok(way) };
        // That is the one next hop that the kernel would take now. The route it is of has them all.
        let route = self.route_to(remote, RouteFlags::FibMatch).await?;
        let ways = route.as_ref().map_or_else(Vec::new, read_multipath);
        Ok(if ways.is_empty() { way } else { Way::Out { ways, mtu } })
    }

    /// What the kernel says of the way to `remote`; None when there is none.
    async fn route_to(
        &self,
        remote: IpAddr,
        flags: RouteFlags,
    ) -> Result<Option<RouteMessage>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(remote);
        message.header.destination_prefix_length = if remote.is_ipv4() { 32 } else { 128 };
        message.header.flags = flags;
        message.attributes.push(RouteAttribute::Destination(remote.into()));
        let answers: Result<Vec<_>, _> = self.handle.route().get(message).execute().try_collect().await;
        match answers {
            Ok(answers) => Ok(answers.into_iter().next()),
            // ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL: unreachable, prohibit and blackhole routes, or none.
            Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
            Err(cause) => Err(NetlinkError::Refused { what: "find a route", cause }),
        }
    }

    /// Has the kernel find out `address`'s Ethernet address now, and keep it known while `managed`
    /// (NTF_EXT_MANAGED, Linux 5.16). Not managed also takes an earlier request to keep it known back.
    pub(super) async fn resolve(
        &self,
        interface: u32,
        address: IpAddr,
        managed: bool,
    ) -> Result<(), NetlinkError> {
        let mut request =
            self.handle.neighbours().add(interface, address).replace().state(NeighbourState::None);
        if managed {
            let flags = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
            request.message_mut().attributes.push(flags);
        } else {
            request = request.flags(NeighbourFlags::Use);
        }
        request.execute().await.map_err(refused("resolve a next hop"))
    }

    pub(super) async fn set_link(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        self.handle.link().set(message).execute().await.map_err(refused("set the host port's MTU"))
    }

    pub(super) async fn add_address(&self, interface: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(interface, address, length);
        // Nobody else is on this link: the address is usable at once (RFC 4862, section 5.4).
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request.execute().await.map_err(refused("set the host port's address"))
    }

    pub(super) async fn remove_address(&self, address: &OwnAddress) -> Result<(), NetlinkError> {
        let request = self.handle.address().del(address.message.clone());
        request.execute().await.map_err(refused("remove an address of the host port"))
    }

    /// Our own routes by an interface.
    pub(super) async fn own_routes(&self, interface: u32) -> Result<Vec<OwnRoute>, NetlinkError> {
        let mut own = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let routes = self.handle.route().get(message).execute();
            let messages: Vec<_> = routes.try_collect().await.map_err(refused("list routes"))?;
            own.extend(messages.into_iter().filter_map(|message| read_own_route(message, interface)));
        }
        Ok(own)
    }

    pub(super) async fn add_route(
        &self,
        interface: u32,
        prefix: IpNet,
        source: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(prefix.addr());
        message.header.destination_prefix_length = prefix.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = ROUTE_PROTOCOL;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if prefix.addr().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
        message.attributes.push(RouteAttribute::Oif(interface));
        message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
        self.handle.route().add(message).execute().await.map_err(refused("set a route to the host port"))
    }

    pub(super) async fn remove_route(&self, route: &OwnRoute) -> Result<(), NetlinkError> {
        let request = self.handle.route().del(route.message.clone());
        request.execute().await.map_err(refused("remove a route to the host port"))
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn as_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn as_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn as_neighbour(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some(IpAddr::V4(*address)),
        NeighbourAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn read_way(message: &RouteMessage) -> Way {
    match message.header.kind {
        RouteType::Local => return Way::Local,
        RouteType::Unicast => {}
        _ => return Way::None,
    }
    let (mut out, mut mtu) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => out = Some(*interface),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics
                    .iter()
                    .find_map(|one| if let RouteMetric::Mtu(mtu) = one { Some(*mtu) } else { None });
            }
            _ => {}
        }
    }
    let gateway = message.attributes.iter().find_map(as_gateway);
    out.map_or(Way::None, |interface| Way::Out { ways: vec![Out { interface, gateway, weight: 1 }], mtu })
}

/// The next hops of a route that has several, in an order of ours: the kernel's begins with whichever it would take.
fn read_multipath(message: &RouteMessage) -> Vec<Out> {
    let several = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops.as_slice()),
        _ => None,
    });
    let read = |hop: &RouteNextHop| Out {
        interface: hop.interface_index,
        gateway: hop.attributes.iter().find_map(as_gateway),
        // What rtnetlink calls hops is one less than the weight (rtnetlink.h).
        weight: u16::from(hop.hops) + 1,
    };
    let mut ways: Vec<Out> = several.unwrap_or_default().iter().map(read).collect();
    ways.sort_unstable();
    ways
}

fn as_gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => as_address(address),
        // Of the other family.
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn read_own_route(message: RouteMessage, interface: u32) -> Option<OwnRoute> {
    if message.header.protocol != ROUTE_PROTOCOL {
        return None;
    }
    let (mut destination, mut source, mut out) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = as_address(address),
            RouteAttribute::PrefSource(address) => source = as_address(address),
            RouteAttribute::Oif(index) => out = Some(*index),
            _ => {}
        }
    }
    let everything = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let prefix =
        IpNet::new(destination.unwrap_or(everything), message.header.destination_prefix_length).ok()?;
    (out == Some(interface)).then_some(OwnRoute { prefix, source, message })
}
