//! What the kernel says of the underlay, and how it is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use vswitch_datapath::HOPS_MAX;
use vswitch_model::Mac;

use super::kernel::{Kernel, Out, Way};
use super::pmtu::{PathMtu, PathMtus};
use super::{NetlinkError, Wanted, host};

/// An interface of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it; another one when it was made anew.
    pub index: u32,
    /// Its Ethernet address; all zero when it has none.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether there is anything at its other end: a cable, and who answers. False while it is down.
    pub carrier: bool,
}

impl Link {
    /// What keeps it from carrying anything.
    #[must_use]
    pub const fn hindrance(&self) -> Option<&'static str> {
        match (self.up, self.carrier) {
            (false, _) => Some("down"),
            (true, false) => Some("no carrier"),
            (true, true) => None,
        }
    }
}

/// A first hop towards a remote node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The uplink it is reached by.
    pub interface: String,
    /// The uplink's Ethernet address.
    pub source: Mac,
    /// The next hop's Ethernet address.
    pub destination: Mac,
    /// Largest IP packet the way takes, in bytes, as far as the kernel knows. What routers say is in [`Facts::paths`].
    pub mtu: u32,
    /// Its share of what goes there, in proportion to that of other hops; 1 to 256.
    pub weight: u16,
    /// Whether the next hop is the remote node itself, as far as can be seen: no router, and no other neighbour of the same
    /// uplink and family has its Ethernet address. Where others have it too, somebody may answer for all of them (proxy ARP,
    /// private VLANs, clouds).
    pub on_link: bool,
}

/// Why there is no first hop towards a remote node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// The kernel has no route to it.
    NoRoute,
    /// The address is this node's own.
    Local,
    /// The kernel's route leaves by an interface that is no uplink of the engine.
    NotUplink(String),
    /// The uplink is down.
    Down(String),
    /// The uplink is up, and nothing is at its other end.
    NoCarrier(String),
    /// The next hop does not answer, or has not yet.
    Silent(IpAddr),
    /// There are more than [`HOPS_MAX`] next hops.
    TooMany,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => write!(f, "the kernel has no route to it"),
            Self::Local => write!(f, "it is an address of this node"),
            Self::NotUplink(name) => {
                write!(f, "its route leaves by {name}, which is no uplink of the engine")
            }
            Self::Down(name) => write!(f, "its uplink {name} is down"),
            Self::NoCarrier(name) => write!(f, "its uplink {name} has no carrier"),
            Self::Silent(address) => write!(f, "the next hop {address} has not answered"),
            Self::TooMany => write!(f, "no more than {HOPS_MAX} next hops are used"),
        }
    }
}

/// What the kernel says of the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The interfaces of the engine's network namespace by name.
    pub links: BTreeMap<String, Link>,
    /// The node's own addresses, loopback and link-local ones left out.
    pub local_addresses: BTreeSet<IpAddr>,
    /// The ways to each remote that is wanted: at least one and no more than [`HOPS_MAX`], or why there is none.
    pub hops: BTreeMap<IpAddr, Result<Vec<Hop>, Unresolved>>,
    /// Next hops to remotes that are left out, while others to the same remote are used, and why.
    pub left_out: BTreeMap<IpAddr, Vec<Unresolved>>,
    /// What routers said of the paths that tunnels to remotes take.
    pub paths: BTreeMap<IpAddr, PathMtu>,
    /// What could not be set on the host port; None: all is as desired.
    pub host_problem: Option<String>,
}

impl Facts {
    /// Whether nothing is missing that may come by itself.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.hops.values().all(Result::is_ok) && self.left_out.is_empty() && self.host_problem.is_none()
    }
}

type Hops = BTreeMap<IpAddr, Result<Vec<Hop>, Unresolved>>;

/// Looks at the kernel, and remembers which neighbours it was asked to keep known.
pub(super) struct Looker {
    kernel: Kernel,
    managed: BTreeSet<(u32, IpAddr)>,
}

impl Looker {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self { kernel, managed: BTreeSet::new() }
    }

    /// Brings the host port to what is wanted, and gives the facts of now.
    pub(super) async fn look(&mut self, wanted: &Wanted, paths: &PathMtus) -> Result<Facts, NetlinkError> {
        let links = self.kernel.links().await?;
        let addresses = self.kernel.addresses().await?;
        let host_problem = match &wanted.host {
            Some(device) => host::keep(&self.kernel, device, &links, &addresses).await.err(),
            None => None,
        };
        let local_addresses =
            addresses.iter().map(|address| address.prefix.addr()).filter(is_global).collect();
        let (hops, left_out) = self.hops(wanted, &links).await?;
        let paths = paths.all().clone();
        Ok(Facts { links, local_addresses, hops, left_out, paths, host_problem })
    }

    /// Takes back what the kernel was asked to keep known.
    pub(super) async fn release(&mut self) {
        self.manage(BTreeSet::new(), &BTreeMap::new()).await;
    }

    async fn hops(
        &mut self,
        wanted: &Wanted,
        links: &BTreeMap<String, Link>,
    ) -> Result<(Hops, BTreeMap<IpAddr, Vec<Unresolved>>), NetlinkError> {
        let neighbours = self.kernel.neighbours().await?;
        let stations = stations(&neighbours);
        let mut needed = BTreeSet::new();
        let (mut hops, mut left_out) = (BTreeMap::new(), BTreeMap::new());
        for remote in &wanted.remotes {
            let ways = match self.kernel.way(*remote).await? {
                Way::None => Err(Unresolved::NoRoute),
                Way::Local => Err(Unresolved::Local),
                Way::Out { ways, mtu } => Ok((ways, mtu)),
            };
            let resolved = ways.and_then(|(ways, mtu)| {
                let first_hop = |out| {
                    let hop = first_hop(out, mtu, *remote, wanted, links, &neighbours, &mut needed)?;
                    let station = (out.interface, remote.is_ipv4(), hop.destination);
                    Ok(Hop {
                        on_link: hop.on_link && stations.get(&station).is_none_or(|count| *count == 1),
                        ..hop
                    })
                };
                let (usable, missing) = sort_out(ways.into_iter().map(first_hop));
                if usable.is_empty() {
                    return Err(missing.into_iter().next().unwrap_or(Unresolved::NoRoute));
                }
                if !missing.is_empty() {
                    left_out.insert(*remote, missing);
                }
                Ok(usable)
            });
            hops.insert(*remote, resolved);
        }
        self.manage(needed, &neighbours).await;
        Ok((hops, left_out))
    }

    /// Has the kernel keep the next hops in `needed` resolved, and no others on our account.
    async fn manage(&mut self, needed: BTreeSet<(u32, IpAddr)>, known: &BTreeMap<(u32, IpAddr), Mac>) {
        for next in &needed {
            if (!known.contains_key(next) || !self.managed.contains(next))
                && let Err(error) = self.kernel.resolve(next.0, next.1, true).await
            {
                tracing::debug!(address = %next.1, %error, "no managed neighbour; asking once");
                self.kernel.resolve(next.0, next.1, false).await.ok();
            }
        }
        for gone in self.managed.difference(&needed) {
            // It may be gone with its interface; then there is nothing to take back.
            self.kernel.resolve(gone.0, gone.1, false).await.ok();
        }
        self.managed = needed;
    }
}

/// How many neighbours have an Ethernet address, by interface and whether it is IPv4. Link-local addresses do not count: each
/// station has one beside its others.
fn stations(neighbours: &BTreeMap<(u32, IpAddr), Mac>) -> HashMap<(u32, bool, Mac), u32> {
    let mut stations = HashMap::new();
    for ((interface, address), mac) in neighbours {
        if is_global(address) {
            *stations.entry((*interface, address.is_ipv4(), *mac)).or_default() += 1;
        }
    }
    stations
}

/// Those that can be used, and why the others cannot.
fn sort_out(hops: impl Iterator<Item = Result<Hop, Unresolved>>) -> (Vec<Hop>, Vec<Unresolved>) {
    let (mut usable, mut missing) = (Vec::new(), Vec::new());
    for hop in hops {
        match hop {
            Ok(_) if usable.len() == HOPS_MAX => missing.push(Unresolved::TooMany),
            Ok(hop) => usable.push(hop),
            Err(why) => missing.push(why),
        }
    }
    (usable, missing)
}

fn first_hop(
    out: Out,
    route_mtu: Option<u32>,
    remote: IpAddr,
    wanted: &Wanted,
    links: &BTreeMap<String, Link>,
    neighbours: &BTreeMap<(u32, IpAddr), Mac>,
    needed: &mut BTreeSet<(u32, IpAddr)>,
) -> Result<Hop, Unresolved> {
    let Out { interface, gateway, weight } = out;
    let (name, link) = links.iter().find(|(_, link)| link.index == interface).ok_or(Unresolved::NoRoute)?;
    if !wanted.uplinks.contains(name) {
        return Err(Unresolved::NotUplink(name.clone()));
    }
    if !link.up {
        return Err(Unresolved::Down(name.clone()));
    }
    if !link.carrier {
        return Err(Unresolved::NoCarrier(name.clone()));
    }
    let next = gateway.unwrap_or(remote);
    needed.insert((interface, next));
    let destination = *neighbours.get(&(interface, next)).ok_or(Unresolved::Silent(next))?;
    let mtu = route_mtu.filter(|mtu| *mtu > 0).map_or(link.mtu, |mtu| mtu.min(link.mtu));
    let on_link = next == remote;
    Ok(Hop { interface: name.clone(), source: link.mac, destination, mtu, weight, on_link })
}

fn is_global(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local
}
