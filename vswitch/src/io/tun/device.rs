//! The device: made, given an MTU and offloads, set up, in the calling thread's network namespace.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use vswitch_datapath::segment::PIECES_MAX;
use vswitch_model::limits::LARGE_PACKET_MAX;

use super::ETHERNET;
use crate::io::ethtool::request;
use crate::io::frame::{CHUNK, HEADROOM};
use crate::io::link::bound_large;

const DEVICE: &str = "/dev/net/tun";
/// Largest packet, in bytes without an Ethernet header.
pub(super) const MTU_MAX: u16 = (CHUNK - HEADROOM - ETHERNET) as u16;
/// Smallest an IPv4 device may have (RFC 791).
pub(super) const MTU_MIN: u16 = 68;
/// Packets the kernel queues for us. The default of 500 is short for a burst of the node's own.
const QUEUE_LENGTH: i32 = 2048;

/// What we agree to be left with (include/uapi/linux/if_tun.h): `TUN_F_CSUM`, `TUN_F_TSO4` and `TUN_F_TSO6`.
const OFFLOADS: usize = 0x01 | 0x02 | 0x04;
/// `TUN_F_USO4` and `TUN_F_USO6`, since Linux 6.2. A kernel without them never leaves datagrams to us.
const OFFLOADS_UDP: usize = 0x20 | 0x40;

/// A user that nobody is: the highest there can be (the one above it means none).
const NOBODY: usize = u32::MAX as usize - 1;

/// Why there is no tun device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The machine has none.
    #[error("tun device {name}: cannot open {DEVICE}: {source}; the module tun and CAP_NET_ADMIN are needed")]
    Open {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An MTU that cannot be.
    #[error("tun device {name}: an MTU of {mtu}: {MTU_MIN} to {MTU_MAX} are possible")]
    Mtu {
        /// Its name.
        name: String,
        /// The MTU wanted.
        mtu: u16,
    },
    /// The name is taken.
    #[error("tun device {name}: an interface of this name is in use by another program, or is no tun device")]
    Taken {
        /// Its name.
        name: String,
    },
    /// It could not be set up.
    #[error("tun device {name}: cannot {step}: {source}")]
    Setup {
        /// Its name.
        name: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network namespace cannot be entered.
    #[error("tun device {name}: cannot enter the network namespace {}: {source}", netns.display())]
    Netns {
        /// Its name.
        name: String,
        /// Its path.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How long a device lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// As long as its port.
    Port,
    /// Until somebody deletes it, or its network namespace.
    Persistent,
}

/// Makes the device in the calling thread's network namespace.
pub(super) fn make(life: Life, name: &str, mtu: u16) -> Result<File, TunError> {
    let setup = |step| move |source| TunError::Setup { name: name.to_owned(), step, source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)
        .map_err(|source| TunError::Open { name: name.to_owned(), source })?;

    let mut wanted = request(name).map_err(setup("use the name"))?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    wanted.ifr_ifru.ifru_flags = flags as libc::c_short;
    control(&file, libc::TUNSETIFF, (&raw mut wanted).cast()).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EBUSY | libc::EINVAL) => TunError::Taken { name: name.to_owned() },
            _ => TunError::Setup { name: name.to_owned(), step: "make it", source },
        }
    })?;
    let agree = |offloads| control(&file, libc::TUNSETOFFLOAD, std::ptr::without_provenance_mut(offloads));
    agree(OFFLOADS | OFFLOADS_UDP).or_else(|_| agree(OFFLOADS)).map_err(setup("agree on offloads"))?;
    // No link-local address: nobody could reach it. Fails where the kernel has no IPv6, and then there is none anyway.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");

    let inet = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|error| setup("open a socket")(error.into()))?;
    let mut change = request(name).map_err(setup("use the name"))?;
    change.ifr_ifru.ifru_mtu = i32::from(mtu);
    control(&inet, libc::SIOCSIFMTU, (&raw mut change).cast()).map_err(setup("set its MTU"))?;
    change.ifr_ifru.ifru_metric = QUEUE_LENGTH;
    control(&inet, libc::SIOCSIFTXQLEN, (&raw mut change).cast()).map_err(setup("set its queue"))?;
    bound_large(name, LARGE_PACKET_MAX, PIECES_MAX as u32).map_err(setup("bound its large packets"))?;
    if life == Life::Persistent {
        // Whoever else opens the device while no engine has it needs CAP_NET_ADMIN in its network namespace (tun_not_capable).
        control(&file, libc::TUNSETOWNER, std::ptr::without_provenance_mut(NOBODY))
            .map_err(setup("give it an owner"))?;
        let yes = std::ptr::without_provenance_mut(1);
        control(&file, libc::TUNSETPERSIST, yes).map_err(setup("make it stay"))?;
    }
    change.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    control(&inet, libc::SIOCSIFFLAGS, (&raw mut change).cast()).map_err(setup("set it up"))?;
    Ok(file)
}

/// One of the requests of this folder, with its argument: a pointer to an `ifreq` of ours, or a number for those that set an offload, an owner or
/// persistence.
pub(super) fn control(
    file: &impl AsRawFd,
    request: libc::Ioctl,
    argument: *mut libc::c_void,
) -> io::Result<()> {
    // SAFETY: the callers, all in this folder, give each request the kind of argument it takes, and an `ifreq` outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
