//! Raw sockets that get the ICMP errors by which routers tell of a path's MTU, and nothing else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `include/uapi/linux/icmp.h`.
const ICMP_FILTER: libc::c_int = 1;
/// `include/uapi/linux/icmpv6.h`.
const ICMPV6_FILTER: libc::c_int = 1;
/// Destination unreachable; "fragmentation needed" is one of its codes.
const UNREACHABLE: u32 = 3;
/// Packet too big.
const TOO_BIG: u32 = 2;

/// A socket of the network namespace this thread is in, to be read within a runtime; it does not block. IPv4 packets are read with their IP header, ICMPv6
/// without. Needs `CAP_NET_RAW`.
pub(crate) fn open(v6: bool) -> io::Result<AsyncFd<OwnedFd>> {
    let (family, protocol) = if v6 {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    } else {
        (AddressFamily::Inet, SockProtocol::Icmp)
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let opened = socket(family, SockType::Raw, flags, protocol)?;
    // A bit for each type that is not wanted.
    if v6 {
        let mut blocked = [u32::MAX; 8];
        blocked[TOO_BIG as usize / 32] = !(1 << (TOO_BIG % 32));
        set(&opened, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)?;
    } else {
        set(&opened, libc::SOL_RAW, ICMP_FILTER, &!(1u32 << UNREACHABLE))?;
    }
    readable(opened)
}

/// Waits for what a descriptor has to read, within a runtime.
pub(crate) fn readable(opened: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one file descriptor, open and the same for as long as it lives, and nothing takes it out.
    unsafe { AsyncFd::register_with_interest(opened, Interest::READABLE) }.map_err(io::Error::from)
}

fn set<T: Copy>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `value`, which lives through the call and is that long; nothing is kept.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
