//! Bounds of an interface that only rtnetlink sets.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::net::if_::if_nametoindex;

/// Bytes of the request: `struct nlmsghdr`, `struct ifinfomsg`, and two attributes of 32 bits (rtnetlink(7)).
const REQUEST: usize = 16 + 16 + 2 * 8;

/// Bounds the large packets that an interface of the calling thread's network namespace is given to send: their bytes without
/// an Ethernet header, and their pieces.
pub(super) fn bound_large(name: &str, bytes: u32, pieces: u32) -> io::Result<()> {
    let index = if_nametoindex(name)?;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(index, bytes, pieces), 0)?;
    // The answer is `struct nlmsgerr` behind a header: first a negative error number, or zero, then the request.
    let mut answer = Vec::with_capacity(16 + 4 + REQUEST);
    socket.recv(&mut answer, 0)?;
    match answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}

fn request(index: u32, bytes: u32, pieces: u32) -> Vec<u8> {
    let flags = libc::NLM_F_REQUEST as u16 | libc::NLM_F_ACK as u16;
    let attribute = |kind: u16| u32::from_ne_bytes(pair(8, kind));
    let first = [u32::from_ne_bytes(pair(libc::RTM_SETLINK, flags)), 0, 0];
    let attributes = [attribute(libc::IFLA_GSO_MAX_SIZE), bytes, attribute(libc::IFLA_GSO_MAX_SEGS), pieces];
    let words = [REQUEST as u32].into_iter().chain(first).chain([0, index, 0, 0]).chain(attributes);
    words.flat_map(u32::to_ne_bytes).collect()
}

/// Two numbers of 16 bits, as they follow each other in memory.
fn pair(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d]
}
