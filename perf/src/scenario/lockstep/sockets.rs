//! Programs in pods: datagrams from a socket in one to a socket in another, through the pods' own IP stacks.
//!
//! What AF_XDP at a pod's end cannot show is counted here: what a pod's kernel does to give packets to its device, and to take
//! them from it. It is how pods with tuns and pods with veths can be compared.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use crate::net::{BATCH, Pod};
use crate::workload::ALLOWED_PORTS;
use crate::{Error, Result};

/// How long what the kernel has put off may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Room for a datagram, more than it has.
const ROOM: usize = 2048;

/// A socket that sends batches, and one that takes them.
pub(crate) struct Sockets {
    sender: UdpSocket,
    receiver: UdpSocket,
    sent: MultiHeaders<SockaddrStorage>,
    came: MultiHeaders<SockaddrStorage>,
    datagram: Vec<u8>,
    room: Vec<[u8; ROOM]>,
    /// Datagrams that came.
    pub(crate) taken: u64,
}

impl Sockets {
    /// From one pod to another, datagrams of so many bytes without headers.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub(crate) fn new(from: &Pod, to: &Pod, bytes: usize) -> Result<Self> {
        let port = *ALLOWED_PORTS.start();
        let address = SocketAddr::new(IpAddr::V4(to.ipv4()?), port);
        let failed = |error: std::io::Error| Error::setup(format!("open a socket for {address}"), error);
        let receiver = to.namespace.enter(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let own = SocketAddr::new(IpAddr::V4(from.ipv4()?), 0);
        let sender = from.namespace.enter(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(own)?;
            socket.connect(address)?;
            Ok(socket)
        })?;
        Ok(Self {
            sender: sender.map_err(failed)?,
            receiver: receiver.map_err(failed)?,
            sent: MultiHeaders::preallocate(BATCH, None),
            came: MultiHeaders::preallocate(BATCH, None),
            datagram: vec![0x5a; bytes],
            room: vec![[0; ROOM]; BATCH],
            taken: 0,
        })
    }

    /// Sends a batch. One system call.
    pub(crate) fn send(&mut self) -> Result<()> {
        let slices = [[IoSlice::new(&self.datagram)]; BATCH];
        let (nowhere, none): ([Option<SockaddrStorage>; BATCH], &[ControlMessage<'_>]) = ([None; BATCH], &[]);
        let sender = self.sender.as_raw_fd();
        let sent = sendmmsg(sender, &mut self.sent, &slices, nowhere, none, MsgFlags::empty());
        match sent.map(Iterator::count) {
            Ok(BATCH) => Ok(()),
            Ok(_) => Err(Error::setup("send a batch", "the kernel took only a part of it")),
            Err(errno) => Err(Error::setup("send a batch", errno)),
        }
    }

    /// Takes a batch that was sent and carried. One system call, unless the kernel has put off some of it.
    ///
    /// # Errors
    ///
    /// [`Error::Miscounted`] when it does not come.
    pub(crate) fn take(&mut self) -> Result<()> {
        let (mut taken, mut since) = (0, None);
        while taken < BATCH {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                self.room.iter_mut().skip(taken).map(|room| [IoSliceMut::new(room)]).collect();
            let receiver = self.receiver.as_raw_fd();
            let came = recvmmsg(receiver, &mut self.came, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
            match came.map(Iterator::count) {
                Ok(count) => taken += count,
                Err(Errno::EAGAIN) if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {
                    std::thread::yield_now();
                }
                Err(Errno::EAGAIN) => {
                    return Err(Error::Miscounted(format!(
                        "{taken} of a batch of {BATCH} came: the rest was lost on the way"
                    )));
                }
                Err(errno) => return Err(Error::setup("take a batch", errno)),
            }
        }
        self.taken += BATCH as u64;
        Ok(())
    }
}
