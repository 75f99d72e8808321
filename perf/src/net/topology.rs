//! The devices a desired state speaks of: a veth for each pod, and an uplink with a wire behind it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use vswitch_model::{Attachment, DesiredState, Mac, NextHop, Port, PortName};

use super::{Namespace, Veth, link};
use crate::{Error, Result};

/// The uplink's name, in the switch's namespace.
pub const UPLINK: &str = "uplink";
/// The name of the wire's other end, in the remote namespace.
pub const WIRE: &str = "wire";
/// The uplink's Ethernet address.
pub const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0xff, 1]);
/// The Ethernet address of whoever is behind the wire.
pub const WIRE_MAC: Mac = Mac([2, 0, 0, 0, 0xff, 2]);
/// MTU of the wire: a tunnel fits around what pods send.
pub const WIRE_MTU: u16 = 1600;

/// What to build besides the pods' veths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// An uplink.
    pub uplink: bool,
    /// Each pod has a namespace of its own, with its addresses and a default route, so that programs can run in it.
    /// Otherwise all pods' ends are in one, and only frames by hand come from them.
    pub separate: bool,
    /// Queues of each device.
    pub queues: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self { uplink: false, separate: false, queues: 1 }
    }
}

/// A pod's veth, or its tun.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its port's name, which is that of the host end.
    pub host: String,
    /// Where its end is.
    pub namespace: Namespace,
    /// Its end's name.
    pub interface: String,
    /// Its end's Ethernet address. The host end has [`Mac::GATEWAY`].
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It is a tun, which the switch makes.
    pub tun: bool,
}

/// What is behind the uplink.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Where [`WIRE`] is.
    pub namespace: Namespace,
    /// The remote ends the desired state names: all are behind this wire.
    pub addresses: Vec<IpAddr>,
}

/// Devices without anything that forwards between them.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Where host ends and the uplink are: what forwards goes here.
    pub switch: Namespace,
    /// The pods, in the order of their ports' names.
    pub pods: Vec<Pod>,
    /// What is behind the uplink, if there is one.
    pub remote: Option<Remote>,
}

impl Topology {
    /// Makes the devices of `desired`.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn build(desired: &DesiredState, layout: Layout) -> Result<Self> {
        let (switch, outside) = (Namespace::new()?, Namespace::new()?);
        let mut pods = Vec::with_capacity(desired.ports.len());
        for (number, port) in desired.ports.values().enumerate() {
            let namespace = if layout.separate { Namespace::new()? } else { outside.clone() };
            let host = match &port.attachment {
                Attachment::Veth { interface, .. } => interface,
                Attachment::Tun { interface, .. } => {
                    let (host, interface) = (port.name.to_string(), interface.to_string());
                    let (mac, addresses, tun) = (port.mac, port.addresses.clone(), true);
                    pods.push(Pod { host, namespace, interface, mac, addresses, tun });
                    continue;
                }
            };
            let interface = if layout.separate { "eth0".to_owned() } else { format!("pod{number}") };
            let far = (&namespace, interface.as_str(), port.mac);
            let near = (&switch, host.as_str(), Mac::GATEWAY);
            Veth { near, far, mtu: port.mtu, queues: layout.queues }.make()?;
            let (host, mac, addresses) = (host.to_string(), port.mac, port.addresses.clone());
            let pod = Pod { host, namespace, interface, mac, addresses, tun: false };
            if layout.separate {
                pod.configure()?;
            }
            pods.push(pod);
        }
        let remote = if layout.uplink { Some(uplink(&switch, desired, layout.queues)?) } else { None };
        Ok(Self { switch, pods, remote })
    }

    /// Tells `desired` where pods with tuns are.
    pub fn place_tuns(&self, desired: &mut DesiredState) {
        for port in desired.ports.values_mut() {
            let pod = self.pods.iter().find(|pod| pod.host == port.name.as_str());
            if let (Attachment::Tun { netns, .. }, Some(pod)) = (&mut port.attachment, pod) {
                *netns = pod.namespace.path().display().to_string();
            }
        }
    }

    /// Gives tuns, which the switch has made, what a pod's has.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn configure_tuns(&self) -> Result<()> {
        self.pods.iter().filter(|pod| pod.tun).try_for_each(Pod::configure_tun)
    }

    /// The pod whose port has this name.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn pod(&self, host: &str) -> Result<&Pod> {
        let found = self.pods.iter().find(|pod| pod.host == host);
        found.ok_or_else(|| Error::Unknown(format!("no pod {host} in this topology")))
    }

    /// All its namespaces: its devices are there while these are.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        let others = self.pods.iter().map(|pod| &pod.namespace);
        let remote = self.remote.iter().map(|remote| &remote.namespace);
        std::iter::once(&self.switch).chain(others).chain(remote).cloned().collect()
    }

    /// Gives every host end, and the uplink, NAPI, for generators whose other end has no XDP program.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn gro(&self) -> Result<()> {
        let uplink = self.remote.iter().map(|_| UPLINK);
        self.pods
            .iter()
            .map(|pod| pod.host.as_str())
            .chain(uplink)
            .try_for_each(|name| link::gro(&self.switch, name))
    }
}

impl Pod {
    /// Its first IPv4 address.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] when it has none.
    pub fn ipv4(&self) -> Result<Ipv4Addr> {
        let found = self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        found.ok_or_else(|| Error::setup("send from a pod", format!("{} has no IPv4 address", self.host)))
    }

    /// Gives the pod its addresses, and a default route to the host end, as a CNI plugin does.
    fn configure_tun(&self) -> Result<()> {
        let dev = &self.interface;
        let mut lines = format!("link set {dev} up\n");
        for address in &self.addresses {
            let (length, family, nodad) =
                if address.is_ipv6() { (128, "::/0", "nodad") } else { (32, "0.0.0.0/0", "") };
            let _ = writeln!(
                lines,
                "addr add {address}/{length} dev {dev} {nodad}\nroute replace {family} dev {dev}"
            );
        }
        self.namespace.ip(&lines)
    }

    fn configure(&self) -> Result<()> {
        let (dev, gateway) = (&self.interface, Mac::GATEWAY);
        let mut lines = String::new();
        for address in &self.addresses {
            let (hop, length, nodad) = match address {
                IpAddr::V4(_) => ("169.254.1.1", 32, ""),
                IpAddr::V6(_) => ("fe80::ecee:eeff:feee:eeee", 128, "nodad"),
            };
            if address.is_ipv6() {
                speak_ipv6(&self.namespace, dev)?;
            }
            let _ = writeln!(lines, "addr add {address}/{length} dev {dev} {nodad}");
            let _ = writeln!(lines, "neigh replace {hop} lladdr {gateway} dev {dev} nud permanent");
            let _ = writeln!(lines, "route replace {hop}/{length} dev {dev}");
            let family = if address.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            let _ = writeln!(lines, "route replace {family} via {hop} dev {dev}");
        }
        self.namespace.ip(&lines)
    }
}

/// Makes the port of a pod a tun, of which [`Topology::place_tuns`] says where it is.
pub fn to_tun(port: &mut Port) {
    if let Attachment::Veth { .. } = port.attachment
        && let Ok(interface) = PortName::new("eth0")
    {
        (port.attachment, port.mac) = (Attachment::Tun { interface, netns: String::new() }, Mac::default());
    }
}

/// Lets a device have IPv6, and say nothing of its own.
///
/// # Errors
///
/// [`Error::Setup`].
pub fn speak_ipv6(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace.ip(&format!("link set {interface} addrgenmode none"))?;
    for (key, value) in [("accept_dad", "0"), ("router_solicitations", "0"), ("disable_ipv6", "0")] {
        namespace.sysctl(&format!("net.ipv6.conf.{interface}.{key}"), value)?;
    }
    Ok(())
}

fn uplink(switch: &Namespace, desired: &DesiredState, queues: u32) -> Result<Remote> {
    let namespace = Namespace::new()?;
    let (near, far) = ((switch, UPLINK, UPLINK_MAC), (&namespace, WIRE, WIRE_MAC));
    Veth { near, far, mtu: WIRE_MTU, queues }.make()?;
    let tunnels = desired.tunnels.values().map(|tunnel| tunnel.remote);
    let direct = desired.routes.values().filter_map(|next_hop| match next_hop {
        NextHop::Direct(address) => Some(*address),
        _ => None,
    });
    let remotes: BTreeSet<IpAddr> = tunnels.chain(direct).collect();
    let local = desired.local.as_ref();
    let own = local.and_then(|local| local.underlay_v4).map(IpAddr::from);
    let own_v6 = local.and_then(|local| local.underlay_v6).map(IpAddr::from);
    if own_v6.is_some() {
        speak_ipv6(switch, UPLINK)?;
        speak_ipv6(&namespace, WIRE)?;
    }
    let own: Vec<IpAddr> = [own, own_v6].into_iter().flatten().collect();
    let remotes: Vec<IpAddr> = remotes.into_iter().collect();
    switch.ip(&neighbours(UPLINK, &own, &remotes, WIRE_MAC))?;
    // It answers who asks for it, as the engine has the kernel do.
    namespace.ip(&neighbours(WIRE, &remotes, &own, UPLINK_MAC))?;
    Ok(Remote { namespace, addresses: remotes })
}

/// Lines that give `dev` its own addresses, and the way to others.
fn neighbours(dev: &str, own: &[IpAddr], others: &[IpAddr], others_mac: Mac) -> String {
    let mut lines = String::new();
    for address in own {
        let (length, nodad) = if address.is_ipv6() { (128, "nodad") } else { (32, "") };
        let _ = writeln!(lines, "addr add {address}/{length} dev {dev} {nodad}");
    }
    for other in others {
        let _ = writeln!(lines, "route replace {other} dev {dev}");
        let _ = writeln!(lines, "neigh replace {other} lladdr {others_mac} dev {dev} nud permanent");
    }
    lines
}
