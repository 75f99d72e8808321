//! Loading the program, putting it on devices, and telling it what is ours.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, include_bytes_aligned};
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use crate::SteeringError;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steering.bpf.o"));

/// Slots of the map `sockets`: queues of all devices together.
pub(crate) const SLOTS_MAX: u32 = 4096;

/// What a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The host end of a pod's veth: everything goes to the engine, and nowhere else.
    Pod,
    /// The way to other nodes: what is ours goes to the engine, everything else to the kernel.
    Uplink,
}

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By the driver, before the kernel has built anything around the frame.
    Native,
    /// By the kernel's generic hook, for drivers that have none. Slower.
    Generic,
}

/// Tunnel packets of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelEndpoint {
    /// VXLAN to an end of ours, from whomever.
    Vxlan {
        /// Our underlay address.
        address: IpAddr,
        /// The UDP port.
        port: u16,
        /// The VXLAN network identifier, 24 bits.
        vni: u32,
    },
    /// IP-in-IP from another node, either family inside, for one of the node's local prefixes or of [`Self::IpIpInner`]. It has
    /// no network to be told by: what is for anybody else is of the host's own tunnels and stays the host's.
    IpIp {
        /// Our underlay address.
        address: IpAddr,
        /// The sender's, of the same family.
        remote: IpAddr,
    },
    /// Where IP-in-IP of ours may go, besides the local prefixes.
    IpIpInner(IpNet),
}

/// The program, loaded, with its maps. One for each network namespace in which devices are: devices are told apart by
/// their interface index, which is unique in one namespace only. A clone is another handle of the same program.
#[derive(Clone)]
pub struct Steering {
    inner: Arc<Mutex<Inner>>,
}

pub(crate) struct Inner {
    pub(crate) program: Ebpf,
    pub(crate) devices: HashMap<MapData, u32, [u32; 3]>,
    pub(crate) sockets: XskMap<MapData>,
    local_v4: LpmTrie<MapData, [u8; 4], u32>,
    local_v6: LpmTrie<MapData, [u8; 16], u32>,
    inner_v4: LpmTrie<MapData, [u8; 4], u32>,
    inner_v6: LpmTrie<MapData, [u8; 16], u32>,
    tunnels_v4: HashMap<MapData, [u8; 12], u32>,
    tunnels_v6: HashMap<MapData, [u8; 24], u32>,
    peers_v4: HashMap<MapData, [u8; 8], u32>,
    peers_v6: HashMap<MapData, [u8; 32], u32>,
    prefixes: BTreeSet<IpNet>,
    tunnels: BTreeSet<TunnelEndpoint>,
    slots: Vec<bool>,
}

impl Steering {
    /// Loads the program into the kernel.
    ///
    /// # Errors
    ///
    /// [`SteeringError::Privilege`], [`SteeringError::Load`].
    pub fn load() -> Result<Self, SteeringError> {
        let failed = |error: &(dyn Error + 'static)| SteeringError::load("load the steering program", error);
        let mut object = Ebpf::load(OBJECT).map_err(|error| failed(&error))?;
        xdp(&mut object)?.load().map_err(|error| failed(&error))?;
        let inner = Inner {
            devices: map(&mut object, "devices")?,
            sockets: map(&mut object, "sockets")?,
            local_v4: map(&mut object, "local_v4")?,
            local_v6: map(&mut object, "local_v6")?,
            inner_v4: map(&mut object, "inner_v4")?,
            inner_v6: map(&mut object, "inner_v6")?,
            tunnels_v4: map(&mut object, "tunnels_v4")?,
            tunnels_v6: map(&mut object, "tunnels_v6")?,
            peers_v4: map(&mut object, "peers_v4")?,
            peers_v6: map(&mut object, "peers_v6")?,
            program: object,
            prefixes: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            slots: vec![false; SLOTS_MAX as usize],
        };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Attaches the program to a device of the calling thread's network namespace, for its first `queues` receive
    /// queues: natively where the driver can, else generically. Frames reach a socket once [`Device::set_socket`] has
    /// named it; those of a pod are dropped until then.
    ///
    /// # Errors
    ///
    /// [`SteeringError::NoDevice`], [`SteeringError::Busy`], [`SteeringError::NoXdp`], [`SteeringError::NoLink`],
    /// [`SteeringError::Slots`], [`SteeringError::Privilege`].
    pub fn attach(&self, interface: &str, role: Role, queues: u32) -> Result<Device, SteeringError> {
        let ifindex = if_nametoindex(interface)
            .map_err(|_| SteeringError::NoDevice { interface: interface.to_owned() })?;
        let mut inner = self.lock();
        if inner.devices.get(&ifindex, 0).is_ok() {
            return Err(SteeringError::Busy { interface: interface.to_owned() });
        }
        let first_slot = inner.take_slots(queues).ok_or_else(|| SteeringError::Slots {
            interface: interface.to_owned(),
            queues,
            max: SLOTS_MAX,
        })?;
        // From here on, dropping the device undoes what was done.
        let mut device = Device {
            steering: self.clone(),
            interface: interface.to_owned(),
            ifindex,
            first_slot,
            queues,
            mode: Mode::Native,
            link: None,
        };
        let attached = inner.attach(interface, ifindex, [role.number(), first_slot, queues]);
        drop(inner);
        let (link, mode) = attached?;
        device.link = Some(link);
        device.mode = mode;
        Ok(device)
    }

    /// Names the prefixes of this node's pods: what is addressed to them is ours on an uplink. Only the difference to
    /// what was named before is written.
    ///
    /// # Errors
    ///
    /// [`SteeringError::Load`] when the kernel refuses an entry; what was written before it stays, and the next call
    /// goes on from there.
    pub fn set_local_prefixes(&self, prefixes: &[IpNet]) -> Result<(), SteeringError> {
        let wanted: BTreeSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        let mut inner = self.lock();
        let gone: Vec<IpNet> = inner.prefixes.difference(&wanted).copied().collect();
        let new: Vec<IpNet> = wanted.difference(&inner.prefixes).copied().collect();
        for prefix in new {
            inner.change_prefix(prefix, true)?;
        }
        for prefix in gone {
            inner.change_prefix(prefix, false)?;
        }
        Ok(())
    }

    /// Names the tunnel packets that are ours on an uplink. As with [`Steering::set_local_prefixes`], only the difference is
    /// written.
    ///
    /// # Errors
    ///
    /// [`SteeringError::Load`] when the kernel refuses an entry.
    pub fn set_tunnels(&self, tunnels: &[TunnelEndpoint]) -> Result<(), SteeringError> {
        let wanted: BTreeSet<TunnelEndpoint> = tunnels.iter().copied().collect();
        let mut inner = self.lock();
        let gone: Vec<TunnelEndpoint> = inner.tunnels.difference(&wanted).copied().collect();
        let new: Vec<TunnelEndpoint> = wanted.difference(&inner.tunnels).copied().collect();
        for tunnel in new {
            inner.change_tunnel(tunnel, true)?;
        }
        for tunnel in gone {
            inner.change_tunnel(tunnel, false)?;
        }
        Ok(())
    }

    /// Whether the program is on any device.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.lock().slots.contains(&true)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every step under the lock leaves maps and sets in agreement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.lock();
        let slots = inner.slots.iter().filter(|taken| **taken).count();
        f.debug_struct("Steering")
            .field("prefixes", &inner.prefixes)
            .field("tunnels", &inner.tunnels)
            .field("slots", &slots)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// A run of free slots, taken.
    fn take_slots(&mut self, count: u32) -> Option<u32> {
        let count = count as usize;
        let first = self.slots.windows(count.max(1)).position(|run| !run.contains(&true))?;
        self.slots[first..first + count].fill(true);
        Some(first as u32)
    }

    fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        entry: [u32; 3],
    ) -> Result<(FdLink, Mode), SteeringError> {
        let what = || format!("interface {interface}: enter it in the steering map");
        self.devices.insert(ifindex, entry, 0).map_err(|error| SteeringError::load(what(), &error))?;
        let program = xdp(&mut self.program)?;
        let (id, mode) = match program.attach_to_if_index(ifindex, XdpMode::Driver) {
            Ok(id) => (id, Mode::Native),
            Err(native) => match SteeringError::attach(interface, &native) {
                SteeringError::NoXdp { .. } => {
                    let id = program
                        .attach_to_if_index(ifindex, XdpMode::Skb)
                        .map_err(|error| SteeringError::attach(interface, &error))?;
                    (id, Mode::Generic)
                }
                refused => return Err(refused),
            },
        };
        let link = program.take_link(id).map_err(|error| SteeringError::attach(interface, &error))?;
        let link =
            FdLink::try_from(link).map_err(|_| SteeringError::NoLink { interface: interface.to_owned() })?;
        Ok((link, mode))
    }

    fn change_prefix(&mut self, prefix: IpNet, add: bool) -> Result<(), SteeringError> {
        let written = match prefix {
            IpNet::V4(net) => within(&mut self.local_v4, net.prefix_len(), net.network().octets(), add),
            IpNet::V6(net) => within(&mut self.local_v6, net.prefix_len(), net.network().octets(), add),
        };
        written.map_err(|error| SteeringError::load(format!("steer prefix {prefix}"), &error))?;
        if add {
            self.prefixes.insert(prefix)
        } else {
            self.prefixes.remove(&prefix)
        };
        Ok(())
    }

    fn change_tunnel(&mut self, tunnel: TunnelEndpoint, add: bool) -> Result<(), SteeringError> {
        let written = match tunnel {
            TunnelEndpoint::Vxlan { address: IpAddr::V4(address), port, vni } => {
                let key = vxlan_key::<4, 12>(address.octets(), port, vni);
                change(&mut self.tunnels_v4, key, add)
            }
            TunnelEndpoint::Vxlan { address: IpAddr::V6(address), port, vni } => {
                let key = vxlan_key::<16, 24>(address.octets(), port, vni);
                change(&mut self.tunnels_v6, key, add)
            }
            TunnelEndpoint::IpIp { address: IpAddr::V4(address), remote: IpAddr::V4(remote) } => {
                change(&mut self.peers_v4, peer_key(address.octets(), remote.octets()), add)
            }
            TunnelEndpoint::IpIp { address: IpAddr::V6(address), remote: IpAddr::V6(remote) } => {
                change(&mut self.peers_v6, peer_key(address.octets(), remote.octets()), add)
            }
            TunnelEndpoint::IpIpInner(IpNet::V4(net)) => {
                within(&mut self.inner_v4, net.prefix_len(), net.network().octets(), add)
            }
            TunnelEndpoint::IpIpInner(IpNet::V6(net)) => {
                within(&mut self.inner_v6, net.prefix_len(), net.network().octets(), add)
            }
            TunnelEndpoint::IpIp { address, remote } => {
                return Err(SteeringError::Load {
                    what: format!("steer {tunnel}"),
                    reason: format!("{address} and {remote} are of different families"),
                });
            }
        };
        written.map_err(|error| SteeringError::load(format!("steer {tunnel}"), &error))?;
        if add {
            self.tunnels.insert(tunnel)
        } else {
            self.tunnels.remove(&tunnel)
        };
        Ok(())
    }
}

impl std::fmt::Display for TunnelEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vxlan { address, port, vni } => write!(f, "VXLAN {vni} to {address} port {port}"),
            Self::IpIp { address, remote } => write!(f, "IP-in-IP from {remote} to {address}"),
            Self::IpIpInner(net) => write!(f, "IP-in-IP around what is for {net}"),
        }
    }
}

fn change<const KEY: usize>(
    map: &mut HashMap<MapData, [u8; KEY], u32>,
    key: [u8; KEY],
    add: bool,
) -> Result<(), MapError> {
    if add { map.insert(key, 1, 0) } else { map.remove(&key) }
}

/// Puts a prefix into a map, or takes it out.
fn within<const ADDRESS: usize>(
    map: &mut LpmTrie<MapData, [u8; ADDRESS], u32>,
    length: u8,
    network: [u8; ADDRESS],
    add: bool,
) -> Result<(), MapError> {
    let key = Key::new(length.into(), network);
    if add { map.insert(&key, 1, 0) } else { map.remove(&key) }
}

/// `struct tunnel_v4` and `struct tunnel_v6` of the program: address, port, two zero bytes, VNI, one zero byte.
fn vxlan_key<const ADDRESS: usize, const KEY: usize>(
    address: [u8; ADDRESS],
    port: u16,
    vni: u32,
) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..ADDRESS].copy_from_slice(&address);
    key[ADDRESS..ADDRESS + 2].copy_from_slice(&port.to_be_bytes());
    key[ADDRESS + 4..].copy_from_slice(&(vni << 8).to_be_bytes());
    key
}

/// `struct peer_v4` and `struct peer_v6` of the program: source, destination, as in an IP header.
fn peer_key<const ADDRESS: usize, const KEY: usize>(
    address: [u8; ADDRESS],
    remote: [u8; ADDRESS],
) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..ADDRESS].copy_from_slice(&remote);
    key[ADDRESS..].copy_from_slice(&address);
    key
}

impl Role {
    /// `enum role` of the program.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Pod => 1,
            Self::Uplink => 2,
        }
    }
}

/// The program on one device. Dropping it takes the program off.
#[derive(Debug)]
pub struct Device {
    steering: Steering,
    interface: String,
    ifindex: u32,
    first_slot: u32,
    queues: u32,
    mode: Mode,
    link: Option<FdLink>,
}

impl Device {
    /// How the program is attached.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The device's interface index.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Hands what is ours of receive queue `queue` to the AF_XDP socket, which must be bound to this device and queue.
    /// Closing the socket ends it.
    ///
    /// # Errors
    ///
    /// [`SteeringError::NoQueue`], [`SteeringError::Load`].
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        let Self { interface, queues, .. } = self;
        if queue >= *queues {
            return Err(SteeringError::NoQueue { interface: interface.clone(), queue, queues: *queues });
        }
        let mut inner = self.steering.lock();
        inner.sockets.set(self.first_slot + queue, socket.as_raw_fd(), 0).map_err(|error| {
            SteeringError::load(format!("interface {interface}: steer queue {queue} to its socket"), &error)
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The program first: with its entry gone and the program still there, the device would be nobody's.
        self.link = None;
        let mut inner = self.steering.lock();
        // An error means that there is none: the socket was closed, or none was set.
        let _ = inner.devices.remove(&self.ifindex);
        for slot in self.first_slot..self.first_slot + self.queues {
            let _ = inner.sockets.unset(slot);
            inner.slots[slot as usize] = false;
        }
    }
}

fn xdp(object: &mut Ebpf) -> Result<&mut Xdp, SteeringError> {
    let missing = || SteeringError::Load {
        what: "load the steering program".to_owned(),
        reason: "the object has no XDP program \"steer\"".to_owned(),
    };
    let program = object.program_mut("steer").ok_or_else(missing)?;
    program.try_into().map_err(|_| missing())
}

fn map<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> Result<T, SteeringError> {
    let what = || format!("open the steering map {name}");
    let map = object.take_map(name).ok_or_else(|| SteeringError::Load {
        what: what(),
        reason: "the object has no such map".to_owned(),
    })?;
    T::try_from(map).map_err(|error| SteeringError::load(what(), &error))
}
