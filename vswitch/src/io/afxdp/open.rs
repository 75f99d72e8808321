//! Opening ports on AF_XDP.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use vswitch_datapath::PortIndex;
use vswitch_xdp::{Device, Mode, Role, Steering, SteeringError, TunnelEndpoint};
use xsk_rs::Socket;
use xsk_rs::config::Interface;

use super::AfXdpPort;
use super::queue::{Fill, Queue, Rings};
use crate::io::ethtool;
use crate::io::netns::{self, Identity};
use crate::io::rings::{RINGS, socket_config};
use crate::io::umem::{Umem, UmemError};

/// `XDP_MAX_TX_SKB_BUDGET` (include/uapi/linux/if_xdp.h): packets the kernel sends in one system call. Since 6.17.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// What one call may send: more only makes the calls longer.
const TX_BUDGET: i32 = 512;
/// Bytes a socket may have under way: its skbs are charged to it until their receiver takes them over.
const SEND_BUFFER: i32 = 8 << 20;
/// The kernel needs a moment to let go of a queue whose last socket was just closed.
const REBIND: Duration = Duration::from_secs(1);
const REBIND_STEP: Duration = Duration::from_millis(5);

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the device.
    pub interface: String,
    /// Path of the network namespace it is in. None: the calling thread's.
    pub netns: Option<PathBuf>,
    /// What it is for.
    pub role: Role,
    /// Frames each of its sockets is lent.
    pub fill: Fill,
}

impl Options {
    /// A pod's veth, by its host end.
    #[must_use]
    pub fn pod(interface: &str) -> Self {
        let fill = Fill { idle: 256, busy: 1024 };
        Self { interface: interface.to_owned(), netns: None, role: Role::Pod, fill }
    }

    /// An uplink.
    #[must_use]
    pub fn uplink(interface: &str) -> Self {
        let fill = Fill { idle: 1024, busy: RINGS as usize };
        Self { interface: interface.to_owned(), netns: None, role: Role::Uplink, fill }
    }

    /// The same in another network namespace.
    #[must_use]
    pub fn in_netns(mut self, netns: Option<PathBuf>) -> Self {
        self.netns = netns;
        self
    }
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The network namespace cannot be entered.
    #[error("interface {interface}: cannot enter the network namespace {}: {source}", netns.display())]
    Netns {
        /// The device's name.
        interface: String,
        /// The path named, or that of the thread's own.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The steering program cannot be put on it.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// Memory.
    #[error(transparent)]
    Umem(#[from] UmemError),
    /// No socket for one of its queues.
    #[error("interface {interface}, queue {queue}: no AF_XDP socket: {reason}")]
    Socket {
        /// The device's name.
        interface: String,
        /// The receive queue.
        queue: u32,
        /// What went wrong.
        reason: String,
    },
}

/// Opens ports on AF_XDP, and tells their steering programs what is ours.
#[derive(Debug)]
pub struct Devices {
    umem: Arc<Umem>,
    steering: HashMap<Identity, Steering>,
    prefixes: Vec<IpNet>,
    tunnels: Vec<TunnelEndpoint>,
}

impl Devices {
    /// Opens ports whose frames are of `umem`, which must be registered ([`Umem::registered`]).
    #[must_use]
    pub fn new(umem: &Arc<Umem>) -> Self {
        Self { umem: Arc::clone(umem), steering: HashMap::new(), prefixes: Vec::new(), tunnels: Vec::new() }
    }

    /// Opens a device. It receives once the port is first asked to.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is left behind then.
    pub fn open(&mut self, options: &Options, index: PortIndex) -> Result<AfXdpPort, OpenError> {
        let mut parts = self.open_parts(options, index, 1)?;
        let none = || no_queues(&options.interface);
        parts.pop().ok_or_else(none)
    }

    /// The same in 1 to `most` parts, each with some of the receive queues and their sockets, for as many workers: fewer when
    /// the device has fewer queues. A part sends by the first of its own.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is left behind then.
    pub fn open_parts(
        &mut self,
        options: &Options,
        index: PortIndex,
        most: usize,
    ) -> Result<Vec<AfXdpPort>, OpenError> {
        let failed = |source| OpenError::Netns {
            interface: options.interface.clone(),
            netns: options.netns.clone().unwrap_or_else(|| PathBuf::from("/proc/thread-self/ns/net")),
            source,
        };
        let netns = options.netns.as_deref();
        let steering = self.steering(netns::identity(netns).map_err(failed)?)?;
        let umem = &self.umem;
        let (device, queues) =
            netns::within(netns, || open_here(umem, &steering, options)).map_err(failed)??;
        let count = queues.len().min(most).max(1);
        let device = Arc::new(device);
        let mut shares: Vec<Vec<Queue>> = (0..count).map(|_| Vec::new()).collect();
        for (number, queue) in queues.into_iter().enumerate() {
            shares[number % count].push(queue);
        }
        let part = |queues: Vec<Queue>| {
            let (name, device) = (options.interface.clone(), Arc::clone(&device));
            AfXdpPort { name, index, device, queues, turn: 0, down_flushes: 0 }
        };
        Ok(shares.into_iter().map(part).collect())
    }

    /// Names the prefixes of this node's pods, see [`Steering::set_local_prefixes`].
    ///
    /// # Errors
    ///
    /// The first of a steering program's.
    pub fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), SteeringError> {
        prefixes.clone_into(&mut self.prefixes);
        self.steering.values().try_for_each(|steering| steering.set_local_prefixes(prefixes))
    }

    /// Names our tunnel ends, see [`Steering::set_tunnels`].
    ///
    /// # Errors
    ///
    /// The first of a steering program's.
    pub fn set_tunnels(&mut self, tunnels: &[TunnelEndpoint]) -> Result<(), SteeringError> {
        tunnels.clone_into(&mut self.tunnels);
        self.steering.values().try_for_each(|steering| steering.set_tunnels(tunnels))
    }

    /// The program of a network namespace, loaded when it is the first time.
    fn steering(&mut self, namespace: Identity) -> Result<Steering, SteeringError> {
        // Namespaces come and go with pods; a program on no device is not worth keeping.
        self.steering.retain(|known, steering| *known == namespace || steering.in_use());
        if let Some(steering) = self.steering.get(&namespace) {
            return Ok(steering.clone());
        }
        let steering = Steering::load()?;
        steering.set_local_prefixes(&self.prefixes)?;
        steering.set_tunnels(&self.tunnels)?;
        self.steering.insert(namespace, steering.clone());
        Ok(steering)
    }
}

/// Attaches the program and opens one socket a receive queue, in the calling thread's network namespace.
fn open_here(
    umem: &Arc<Umem>,
    steering: &Steering,
    options: &Options,
) -> Result<(Device, Vec<Queue>), OpenError> {
    let count = ethtool::receive_queues(&options.interface).unwrap_or(1);
    // The program first: of a pod, nothing may pass while its socket is being made.
    let device = attach(steering, options, count)?;
    match options.role {
        Role::Pod => close_kernel(&options.interface),
        Role::Uplink => {}
    }
    if device.mode() == Mode::Generic {
        tracing::warn!(
            interface = options.interface,
            "its driver runs no XDP program; the slower generic hook is used"
        );
    }
    let mut queues = Vec::with_capacity(count as usize);
    for number in 0..count {
        let queue = open_queue(umem, options, number)?;
        device.set_socket(number, queue.as_fd())?;
        queues.push(queue);
    }
    Ok((device, queues))
}

/// Attaches the program, waiting a moment for the one before us to be gone: that of an engine that is just ending.
fn attach(steering: &Steering, options: &Options, queues: u32) -> Result<Device, SteeringError> {
    let deadline = Instant::now() + REBIND;
    loop {
        match steering.attach(&options.interface, options.role, queues) {
            Err(SteeringError::Busy { .. }) if Instant::now() < deadline => std::thread::sleep(REBIND_STEP),
            result => return result,
        }
    }
}

/// What the kernel is to do with what a pod sends when the program is gone because the engine died: nothing. It must not
/// forward it, which would be without policy, nor take it for the node's own, nor answer for any address.
const CLOSED: [(&str, &str); 4] = [
    ("ipv4/conf/{}/forwarding", "0"),
    // The way back to a pod is never its host end: strict reverse path filtering refuses all it sends.
    ("ipv4/conf/{}/rp_filter", "1"),
    ("ipv4/conf/{}/arp_ignore", "8"),
    ("ipv6/conf/{}/disable_ipv6", "1"),
];

fn close_kernel(interface: &str) {
    for (setting, value) in CLOSED {
        let path = format!("/proc/sys/net/{}", setting.replace("{}", interface));
        match std::fs::write(&path, value) {
            Ok(()) => {}
            // A kernel without IPv6 has nothing to switch off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                path,
                value,
                %error,
                "cannot be set: with the engine dead, the kernel may forward what this pod sends"
            ),
        }
    }
}

fn open_queue(umem: &Arc<Umem>, options: &Options, number: u32) -> Result<Queue, OpenError> {
    let failed =
        |reason: String| OpenError::Socket { interface: options.interface.clone(), queue: number, reason };
    let interface: Interface =
        options.interface.parse().map_err(|_| failed("its name has a NUL byte".to_owned()))?;
    let rings = bind(umem, &interface, number, &failed)?;
    let slot = umem.slot()?;
    let queue = Queue::new(rings, RINGS, options.fill, slot)
        .map_err(|error| failed(format!("map its rings: {error}")))?;
    // Older kernels have no such option, and send 32 packets a call.
    let _ = set_option(queue.as_fd(), libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, TX_BUDGET);
    set_option(queue.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER)
        .map_err(|error| failed(format!("raise its send buffer: {error}; CAP_NET_ADMIN is needed")))?;
    Ok(queue)
}

fn bind(
    umem: &Umem,
    interface: &Interface,
    queue: u32,
    failed: &dyn Fn(String) -> OpenError,
) -> Result<Rings, OpenError> {
    let registered = umem.registration()?;
    let deadline = Instant::now() + REBIND;
    loop {
        // SAFETY: the program is loaded by us (INHIBIT_PROG_LOAD), as the contract asks.
        match unsafe { Socket::new(socket_config(), registered, interface, queue) } {
            Ok((tx, rx, Some((fill, completion)))) => return Ok(Rings { tx, rx, fill, completion }),
            Ok((_, _, None)) => return Err(failed("it is open already".to_owned())),
            Err(error) => {
                let source = std::error::Error::source(&error);
                let system = source.and_then(|source| source.downcast_ref::<io::Error>());
                let busy = system.is_some_and(|error| error.raw_os_error() == Some(libc::EBUSY));
                if !busy || Instant::now() >= deadline {
                    return Err(failed(system.map_or_else(|| error.to_string(), ToString::to_string)));
                }
                std::thread::sleep(REBIND_STEP);
            }
        }
    }
}

fn no_queues(interface: &str) -> OpenError {
    OpenError::Socket { interface: interface.to_owned(), queue: 0, reason: "it has no queues".to_owned() }
}

fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes at `value`, which is as long.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
