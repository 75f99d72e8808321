//! Ethernet frames by hand: what no honest program would send, and what exactly arrived.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Netns;
use crate::{Error, Result};

/// A packet socket on one interface.
#[derive(Debug)]
pub struct RawPort {
    socket: OwnedFd,
    interface: LinkAddr,
    /// The interface's own Ethernet address.
    pub mac: [u8; 6],
}

impl RawPort {
    /// Opens an interface of a namespace. From now on what arrives there is kept for [`RawPort::receive`].
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        let failed =
            |what: &str, errno| Error::other(format!("{what} on {interface} in {}: {errno}", netns.name()));
        netns.enter(|| {
            let addresses = getifaddrs().map_err(|errno| failed("listing addresses", errno))?;
            let link = addresses
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .ok_or_else(|| Error::other(format!("no interface {interface} in {}", netns.name())))?;
            let mac =
                link.addr().ok_or_else(|| Error::other(format!("{interface} has no Ethernet address")))?;
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                    .map_err(|errno| failed("a packet socket", errno))?;
            Ok(Self { socket, interface: link, mac })
        })?
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::empty())
            .map(drop)
            .map_err(|errno| Error::other(format!("sending a frame of {} bytes: {errno}", frame.len())))
    }

    /// The next frame that arrives on the interface within `limit` and for which `wanted` holds.
    pub fn receive(&self, limit: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let failed = |errno| Error::other(format!("receiving a frame: {errno}"));
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // At least a microsecond: zero would be "for ever".
            let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1);
            let timeout = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &timeout).map_err(failed)?;
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // Packet type 4 is what this machine sends itself (PACKET_OUTGOING).
                Ok((length, Some(from)))
                    if from.ifindex() == self.interface.ifindex()
                        && from.pkttype() != 4
                        && wanted(&buffer[..length]) =>
                {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}
