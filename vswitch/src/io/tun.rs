//! A tun device: packets to and from a kernel's own stack. The host port is one, and so are pods' ports that ask for it.
//!
//! The device carries no Ethernet header, so the port puts one before what it reads and takes it off what it writes.
//! What the kernel left to be done passes as it is, both ways (virtio header): checksums to be finished, and large packets to
//! be cut into TCP segments or UDP datagrams. Each packet is a system call: the device has no batches, and a large packet is the
//! one way to spare some.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use vswitch_datapath::segment::PIECES_MAX;
use vswitch_datapath::{Buffer, Offload, Packet, PartialChecksum, PortIndex, Segment, SegmentKind};
use vswitch_model::limits::LARGE_PACKET_MAX;
use vswitch_model::{DropReason, Mac};

use super::ethtool::request;
use super::frame::{CHUNK, HEADROOM};
use super::large::{LARGE, LARGE_HEADROOM};
use super::link::bound_large;
use super::{Capabilities, Frame, FramePool, Port, PortState, PortStatistics, Refused, netns};

/// Destination of what comes in by a tun port: the gateway, as of what pods send.
pub const ENTRY_DESTINATION: Mac = Mac::GATEWAY;
/// Source of what comes in by a tun port: none, as [`vswitch_model::Port::mac`] of a pod with a tun.
pub const ENTRY_SOURCE: Mac = Mac([0; 6]);

const DEVICE: &str = "/dev/net/tun";
const ETHERNET: usize = 14;
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];
/// Largest packet, in bytes without an Ethernet header.
const MTU_MAX: u16 = (CHUNK - HEADROOM - ETHERNET) as u16;
/// Smallest an IPv4 device may have (RFC 791).
const MTU_MIN: u16 = 68;
/// Packets the kernel queues for us. The default of 500 is short for a burst of the node's own.
const QUEUE_LENGTH: i32 = 2048;

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), in the machine's byte order.
const VIRTIO: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const NO_SEGMENTS: u8 = 0;
const SEGMENTS_TCP_V4: u8 = 1;
const SEGMENTS_TCP_V6: u8 = 4;
/// Datagrams, `VIRTIO_NET_HDR_GSO_UDP_L4`.
const SEGMENTS_UDP: u8 = 5;

/// What we agree to be left with (include/uapi/linux/if_tun.h): `TUN_F_CSUM`, `TUN_F_TSO4` and `TUN_F_TSO6`.
const OFFLOADS: usize = 0x01 | 0x02 | 0x04;
/// `TUN_F_USO4` and `TUN_F_USO6`, since Linux 6.2. A kernel without them never leaves datagrams to us.
const OFFLOADS_UDP: usize = 0x20 | 0x40;

/// Bytes of a packet that an ordinary frame has room for.
const SMALL: usize = CHUNK - HEADROOM - ETHERNET;
/// Large packets taken at a visit, of whatever length: their frames are in the cache still when they are written, and the
/// segments they are cut into, some 46 each, fit a veth's ring of 256.
pub const LARGE_BUDGET: usize = 4;

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
enum Life {
    /// As long as its port.
    Port,
    /// Until somebody deletes it, or its network namespace.
    Persistent,
}

/// A tun device.
#[derive(Debug)]
pub struct TunPort {
    name: String,
    index: PortIndex,
    file: File,
    state: PortState,
    counted: PortStatistics,
}

impl TunPort {
    /// Makes the device `name` with an MTU of `mtu` bytes and sets it up, in the network namespace at `netns` or in the
    /// calling thread's. It has no address, not even a link-local one: that is for who makes it.
    ///
    /// # Errors
    ///
    /// [`TunError`]; nothing is left behind then.
    pub fn open(name: &str, mtu: u16, netns: Option<&Path>, index: PortIndex) -> Result<Self, TunError> {
        Self::open_for(Life::Port, name, mtu, netns, index)
    }

    /// The same with a device that stays when the port goes, with its addresses and routes; one that is there from before is
    /// taken up again.
    ///
    /// # Errors
    ///
    /// [`TunError`]; a device that is not set up as wanted may be left behind then.
    pub fn open_persistent(name: &str, mtu: u16, netns: &Path, index: PortIndex) -> Result<Self, TunError> {
        Self::open_for(Life::Persistent, name, mtu, Some(netns), index)
    }

    fn open_for(
        life: Life,
        name: &str,
        mtu: u16,
        netns: Option<&Path>,
        index: PortIndex,
    ) -> Result<Self, TunError> {
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            return Err(TunError::Mtu { name: name.to_owned(), mtu });
        }
        let file = netns::within(netns, || make(life, name, mtu)).map_err(|source| TunError::Netns {
            name: name.to_owned(),
            netns: netns.unwrap_or(Path::new("")).to_owned(),
            source,
        })??;
        let counted = PortStatistics::default();
        Ok(Self { name: name.to_owned(), index, file, state: PortState::Up, counted })
    }

    /// Reads one packet: into the large frame, as one piece with its virtio header, which is what costs the kernel least, and one
    /// that fits from there into the ordinary one. Without a large frame only what fits is taken.
    fn read(&mut self, frame: &mut Frame, large: Option<&mut Frame>) -> nix::Result<Read> {
        let mut header = [0; VIRTIO];
        let (count, room, area) = match large {
            Some(large) => {
                let area = &mut large.receive_area()[ETHERNET - VIRTIO..];
                let count = told(rustix::io::read(&self.file, &mut *area))?;
                header.copy_from_slice(&area[..VIRTIO]);
                (count, LENGTH_MAX, Some(&area[VIRTIO..]))
            }
            None => {
                let (packet, mut beyond) = (&mut frame.receive_area()[ETHERNET..], [0]);
                let mut areas =
                    [IoSliceMut::new(&mut header), IoSliceMut::new(packet), IoSliceMut::new(&mut beyond)];
                (told(rustix::io::readv(&self.file, &mut areas))?, SMALL + 1, None)
            }
        };
        self.state = PortState::Up;
        let length = count.saturating_sub(VIRTIO);
        // One that fills the room may have been longer: the kernel cuts it off.
        let Some(offload) = offload_of(&header, length).filter(|_| length > 0 && length < room) else {
            return Ok(if length > SMALL || header[1] != NO_SEGMENTS {
                Read::RefusedLarge
            } else {
                Read::Refused
            });
        };
        if length > SMALL {
            return Ok(Read::Large(length, offload));
        }
        if let Some(area) = area {
            frame.receive_area()[ETHERNET..][..length].copy_from_slice(&area[..length]);
        }
        Ok(Read::Small(length, offload))
    }

    /// Why a read or write failed, told by what it means for the port.
    fn failed(&mut self, error: Errno) -> DropReason {
        match error {
            Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => DropReason::TransmitRingFull,
            // The device is set down (tun_get_user).
            Errno::EIO => {
                self.state = PortState::Down;
                DropReason::TransmitRefused
            }
            // The device was deleted under us (tun_chr_write_iter).
            Errno::EBADFD => {
                self.state = PortState::Gone;
                DropReason::PortGone
            }
            _ => DropReason::TransmitRefused,
        }
    }
}

impl Port for TunPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> PortIndex {
        self.index
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { partial_checksum: true, large: true, frame_length_max: CHUNK - HEADROOM }
    }

    fn state(&self) -> PortState {
        self.state
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Packet<Frame>>, budget: usize) -> usize {
        let budget = budget.min(into.capacity() - into.len());
        let (mut tried, mut large_tried) = (0, 0);
        let mut large = pool.take_large();
        while tried < budget && large_tried < LARGE_BUDGET && self.state != PortState::Gone {
            let Some(mut frame) = pool.take() else {
                self.counted.frames_exhausted += 1;
                break;
            };
            let (read, offload) = match self.read(&mut frame, large.as_mut()) {
                Ok(Read::Small(length, offload)) => {
                    large_tried += usize::from(offload.segment.is_some());
                    (finish(frame, pool, length), offload)
                }
                Ok(Read::Large(length, offload)) => {
                    let read = large.take().and_then(|large| finish(large, pool, length));
                    pool.put(frame);
                    large_tried += 1;
                    large = pool.take_large();
                    (read, offload)
                }
                Ok(refused @ (Read::Refused | Read::RefusedLarge)) => {
                    large_tried += usize::from(matches!(refused, Read::RefusedLarge));
                    pool.put(frame);
                    (None, Offload::default())
                }
                Err(error) => {
                    pool.put(frame);
                    if error != Errno::EAGAIN {
                        self.failed(error);
                    }
                    break;
                }
            };
            tried += 1;
            match read {
                Some(buffer) => into.push(Packet { buffer, port: self.index, offload }),
                None => self.counted.receive_dropped += 1,
            }
        }
        pool.put_all(large);
        tried
    }

    fn transmit(&mut self, pool: &mut FramePool, mut packet: Packet<Frame>) -> Result<(), Refused> {
        let Some(header) = header_of(&packet) else {
            return Err(Refused::new(packet, DropReason::TransmitRefused));
        };
        self.counted.kicks += 1;
        // One piece, for what that spares: the virtio header stands where the Ethernet header ends.
        let written = packet.buffer.bytes_mut().split_at_mut_checked(ETHERNET - VIRTIO).map(|(_, piece)| {
            let ethernet: [u8; VIRTIO] =
                std::array::from_fn(|at| std::mem::replace(&mut piece[at], header[at]));
            let written = told(rustix::io::write(&self.file, piece));
            piece[..VIRTIO].copy_from_slice(&ethernet);
            written
        });
        match written {
            Some(Ok(_)) => {
                self.state = PortState::Up;
                pool.put(packet.buffer);
                Ok(())
            }
            Some(Err(error)) => Err(Refused::new(packet, self.failed(error))),
            None => Err(Refused::new(packet, DropReason::TransmitRefused)),
        }
    }

    fn flush(&mut self) {}

    fn reap(&mut self, _: &mut FramePool) {}

    fn unsent(&self) -> bool {
        false
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn statistics(&mut self) -> PortStatistics {
        // Fails with EBADFD once there is no device behind the descriptor.
        let asked = request(&self.name)
            .and_then(|mut answer| control(&self.file, libc::TUNGETIFF, (&raw mut answer).cast()));
        if asked.is_err_and(|error| error.raw_os_error() == Some(libc::EBADFD)) {
            self.state = PortState::Gone;
        }
        self.counted
    }

    fn close(self: Box<Self>, _: &mut FramePool) {}
}

/// A packet that was read, of so many bytes, and what is left to be done to it.
enum Read {
    /// It is in the frame.
    Small(usize, Offload),
    /// It is in the large one.
    Large(usize, Offload),
    /// It is none of ours to carry.
    Refused,
    /// The same of one that cost as much as a large one.
    RefusedLarge,
}

/// Largest packet, one less than the room there is.
const LENGTH_MAX: usize = LARGE - LARGE_HEADROOM - ETHERNET;

/// What a system call said. Made without glibc, which would make each a point where its thread can be cancelled.
fn told(result: rustix::io::Result<usize>) -> nix::Result<usize> {
    result.map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// Puts an Ethernet header before a packet of `length` bytes that was read into `frame`. None, and the frame is in the pool:
/// it is not IP.
fn finish(mut frame: Frame, pool: &mut FramePool, length: usize) -> Option<Frame> {
    let (ethernet, packet) = frame.receive_area().split_at_mut(ETHERNET);
    let ethertype = match packet[0] >> 4 {
        4 => ETHERTYPE_V4,
        6 => ETHERTYPE_V6,
        _ => {
            pool.put(frame);
            return None;
        }
    };
    ethernet[..6].copy_from_slice(&ENTRY_DESTINATION.0);
    ethernet[6..12].copy_from_slice(&ENTRY_SOURCE.0);
    ethernet[12..].copy_from_slice(&ethertype);
    frame.set_received(0, ETHERNET + length);
    Some(frame)
}

/// What the kernel left to be done, counted from the Ethernet header on. None: something we did not agree to.
fn offload_of(header: &[u8; VIRTIO], length: usize) -> Option<Offload> {
    let [flags, kind, _, _, size_low, size_high, start_low, start_high, offset_low, offset_high] = *header;
    let size = u16::from_ne_bytes([size_low, size_high]);
    let segment = match kind {
        NO_SEGMENTS => None,
        SEGMENTS_TCP_V4 => Some(Segment::new(SegmentKind::TcpV4, size)),
        SEGMENTS_TCP_V6 => Some(Segment::new(SegmentKind::TcpV6, size)),
        SEGMENTS_UDP => Some(Segment::new(SegmentKind::Udp, size)),
        _ => return None,
    };
    if flags & NEEDS_CHECKSUM == 0 {
        return segment.is_none().then(Offload::default);
    }
    let start = u16::from_ne_bytes([start_low, start_high]);
    let offset = u16::from_ne_bytes([offset_low, offset_high]);
    let inside = usize::from(start) + usize::from(offset) + 2 <= length;
    let checksum = PartialChecksum { start: start.checked_add(ETHERNET as u16)?, offset };
    inside.then_some(Offload { checksum: Some(checksum), segment })
}

/// The packet's virtio header. None: not IP, or something the device does not do.
fn header_of(packet: &Packet<Frame>) -> Option<[u8; VIRTIO]> {
    let ethernet = packet.buffer.bytes().get(..ETHERNET)?;
    let ip = ethernet[12..] == ETHERTYPE_V4 || ethernet[12..] == ETHERTYPE_V6;
    if !ip {
        return None;
    }
    let mut header = [0; VIRTIO];
    if let Some(Segment { kind, size, .. }) = packet.offload.segment {
        let transport = usize::from(packet.offload.checksum?.start);
        let length = match kind {
            SegmentKind::Udp => 8,
            _ => usize::from(*packet.buffer.bytes().get(transport + 12)? >> 4) * 4,
        };
        let headers = transport.checked_sub(ETHERNET)? + length;
        header[1] = kind_of(kind);
        header[2..4].copy_from_slice(&(headers as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
    }
    if let Some(partial) = packet.offload.checksum {
        header[0] = NEEDS_CHECKSUM;
        let start = partial.start.checked_sub(ETHERNET as u16)?;
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..].copy_from_slice(&partial.offset.to_ne_bytes());
    }
    Some(header)
}

fn kind_of(kind: SegmentKind) -> u8 {
    match kind {
        SegmentKind::TcpV4 => SEGMENTS_TCP_V4,
        SegmentKind::TcpV6 => SEGMENTS_TCP_V6,
        SegmentKind::Udp => SEGMENTS_UDP,
    }
}

/// Makes the device in the calling thread's network namespace.
fn make(life: Life, name: &str, mtu: u16) -> Result<File, TunError> {
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

/// One of the requests of this file, with its argument: a pointer to an `ifreq` of ours, or a number for those that set an offload, an owner or
/// persistence.
fn control(file: &impl AsRawFd, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: the callers, all in this file, give each request the kind of argument it takes, and an `ifreq` outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::io::Umem;
    use crate::io::testing::{
        PATIENCE, Raw, in_namespace, ip, ip_says, namespace, packet, receive, release, udp, wait_for,
    };

    const PORT: PortIndex = PortIndex(5);

    fn pool(frames: usize) -> FramePool {
        FramePool::new(&Umem::plain(frames).unwrap(), frames).unwrap()
    }

    fn open(name: &str) -> Box<TunPort> {
        let port = TunPort::open(name, 1450, None, PORT).unwrap();
        ip(&format!("addr add 10.9.0.1/32 dev {name}"));
        ip(&format!("route add 10.9.0.0/24 dev {name} src 10.9.0.1"));
        Box::new(port)
    }

    #[test]
    fn the_kernel_and_the_port_exchange_packets() {
        in_namespace(|| {
            let mut pool = pool(64);
            let mut port = open("io-tun");
            let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"from the kernel", "10.9.0.2:8000").unwrap();
            let mut packets = receive(&mut *port, &mut pool, 1);
            assert_eq!(packets[0].port, PORT);
            let partial = packets[0].offload.checksum.expect("the kernel leaves the checksum to us");
            assert_eq!((partial.start, partial.offset), (34, 6));
            assert!(super::super::offload::settle(&mut packets[0]));
            let bytes = packets[0].buffer.bytes().to_vec();
            let bytes = bytes.as_slice();
            release(&mut pool, packets);
            assert_eq!((&bytes[..6], &bytes[6..12]), (&ENTRY_DESTINATION.0[..], &ENTRY_SOURCE.0[..]));
            let sliced = etherparse::SlicedPacket::from_ethernet(bytes).unwrap();
            let Some(etherparse::TransportSlice::Udp(datagram)) = sliced.transport else {
                panic!("{sliced:?}")
            };
            assert_eq!(datagram.payload(), b"from the kernel");
            let header = etherparse::Ipv4HeaderSlice::from_slice(&bytes[14..]).unwrap().to_header();
            let checksum = datagram.to_header().calc_checksum_ipv4(&header, datagram.payload()).unwrap();
            assert_eq!(datagram.checksum(), checksum);

            let address = |text: &str| text.parse().unwrap();
            let answer = udp((address("10.9.0.2"), 8000), (address("10.9.0.1"), 7000), b"from the port");
            let answer = packet(&mut pool, &answer, PORT);
            port.transmit(&mut pool, answer).unwrap();
            let mut bytes = [0; 64];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            assert_eq!(
                (&bytes[..length], from.to_string()),
                (&b"from the port"[..], "10.9.0.2:8000".to_owned())
            );
            assert!(ip_says("-details link show dev io-tun").contains("gso_max_size 65000"));
            port.close(&mut pool);
            assert_eq!(pool.free(), 64);
        });
    }

    #[test]
    fn a_partial_checksum_is_finished_by_the_kernel() {
        in_namespace(|| {
            let mut pool = pool(64);
            let mut port = open("io-tun");
            let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"there and back", "10.9.0.2:7000").unwrap();
            let mut packet = receive(&mut *port, &mut pool, 1).remove(0);
            let bytes = packet.buffer.bytes_mut();
            // Both addresses and both ports change places: the pseudo-header's sum stays.
            let (source, rest) = bytes[26..].split_at_mut(4);
            source.swap_with_slice(&mut rest[..4]);
            assert!(packet.offload.checksum.is_some());
            port.transmit(&mut pool, packet).unwrap();
            let mut bytes = [0; 64];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            assert_eq!(
                (&bytes[..length], from.to_string()),
                (&b"there and back"[..], "10.9.0.2:7000".to_owned())
            );
            port.close(&mut pool);
        });
    }

    #[test]
    fn a_name_can_be_used_once_and_again_later() {
        in_namespace(|| {
            let first = open("io-tun");
            let error = TunPort::open("io-tun", 1450, None, PORT).unwrap_err();
            assert!(matches!(error, TunError::Taken { .. }), "{error}");
            assert!(matches!(TunPort::open("lo", 1450, None, PORT), Err(TunError::Taken { .. })));
            assert!(matches!(TunPort::open("io-x", 60, None, PORT), Err(TunError::Mtu { mtu: 60, .. })));
            assert!(matches!(TunPort::open("io-x", 1800, None, PORT), Err(TunError::Mtu { mtu: 1800, .. })));
            assert!(TunPort::open("a-name-that-is-too-long", 1450, None, PORT).is_err());
            drop(first);
            open("io-tun");
        });
    }

    #[test]
    fn a_deleted_device_ends_its_port() {
        in_namespace(|| {
            let mut pool = pool(4);
            let mut port = open("io-tun");
            ip("link del io-tun");
            wait_for("the port to notice", || {
                port.statistics();
                (port.state() == PortState::Gone).then_some(())
            });
            let address = |text: &str| text.parse().unwrap();
            let late = udp((address("10.9.0.2"), 1), (address("10.9.0.1"), 2), b"late");
            let packet = packet(&mut pool, &late, PORT);
            let refused = port.transmit(&mut pool, packet).unwrap_err();
            assert_eq!(refused.reason, DropReason::PortGone);
            pool.put(refused.packet.buffer);
            let mut none = Vec::with_capacity(4);
            assert_eq!(port.receive(&mut pool, &mut none, 4), 0);
            port.close(&mut pool);
            assert_eq!(pool.free(), 4);
        });
    }

    #[test]
    fn it_can_be_in_another_namespace() {
        in_namespace(|| {
            let other = namespace(|| ());
            let mut port = TunPort::open("io-tun", 1300, Some(&other.path), PORT).unwrap();
            let shown = netns::within(Some(&other.path), || {
                let output =
                    std::process::Command::new("ip").args(["link", "show", "io-tun"]).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            });
            assert!(shown.unwrap().contains("mtu 1300"));
            assert_eq!(port.statistics().frames_exhausted, 0);
            assert_eq!(port.state(), PortState::Up);
        });
    }

    #[test]
    fn a_persistent_device_outlives_its_port_with_its_address() {
        in_namespace(|| {
            let other = namespace(|| ());
            let mut pool = pool(16);
            let first = TunPort::open_persistent("io-tun", 1300, &other.path, PORT).unwrap();
            let inside = |work: &(dyn Fn() + Sync)| netns::within(Some(&other.path), work).unwrap();
            inside(&|| {
                let shown = ip_says("-details link show dev io-tun");
                for part in ["user 4294967294", "gso_max_size 65000", "gso_max_segs 128"] {
                    assert!(shown.contains(part), "{part}: {shown}");
                }
            });
            inside(&|| ip("addr add 10.9.0.1/32 dev io-tun"));
            inside(&|| ip("route add default dev io-tun"));
            drop(first);
            let mut second = TunPort::open_persistent("io-tun", 1300, &other.path, PORT).unwrap();
            inside(&|| {
                let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
                socket.send_to(b"still here", "10.8.0.2:8000").unwrap();
            });
            let packets = receive(&mut second, &mut pool, 1);
            assert_eq!(packets[0].buffer.bytes()[6..12], [0; 6], "it has no Ethernet address");
            release(&mut pool, packets);
            inside(&|| ip("link del io-tun"));
            wait_for("the port to notice", || {
                second.statistics();
                (second.state() == PortState::Gone).then_some(())
            });
        });
    }

    #[test]
    fn a_large_packet_goes_from_one_kernel_to_another_as_it_is() {
        use std::io::{Read as _, Write as _};
        use std::net::{TcpListener, TcpStream};

        in_namespace(|| {
            assert!(LARGE_PACKET_MAX < LENGTH_MAX as u32);
            let other = namespace(|| ());
            let mut pool = pool(1024);
            let mut near = open("io-tun");
            let mut far = Box::new(TunPort::open("io-tun", 1450, Some(&other.path), PORT).unwrap());
            let listener = netns::within(Some(&other.path), || {
                ip("addr add 10.9.0.2/32 dev io-tun");
                ip("route add default dev io-tun");
                TcpListener::bind("10.9.0.2:80").unwrap()
            });
            let listener = listener.unwrap();
            let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at / 3) as u8).collect();
            let arrived = std::thread::scope(|scope| {
                let client =
                    scope.spawn(|| TcpStream::connect("10.9.0.2:80").unwrap().write_all(&sent).unwrap());
                let server = scope.spawn(|| {
                    let mut arrived = Vec::new();
                    listener.accept().unwrap().0.read_to_end(&mut arrived).unwrap();
                    arrived
                });
                let (mut packets, mut large) = (Vec::with_capacity(64), 0);
                while !(client.is_finished() && server.is_finished()) {
                    near.receive(&mut pool, &mut packets, 64);
                    large += packets.iter().filter(|packet| packet.offload.segment.is_some()).count();
                    packets.drain(..).for_each(|packet| far.transmit(&mut pool, packet).unwrap());
                    far.receive(&mut pool, &mut packets, 64);
                    packets.drain(..).for_each(|packet| near.transmit(&mut pool, packet).unwrap());
                }
                assert!(large > 10, "{large} large packets");
                server.join().unwrap()
            });
            assert!(arrived == sent, "{} bytes", arrived.len());
            near.close(&mut pool);
            far.close(&mut pool);
            assert_eq!((pool.free(), pool.umem().account(0).leaked), (1024, 0));
        });
    }

    #[test]
    fn what_a_port_refuses_counts_as_what_it_takes() {
        in_namespace(|| {
            let mut pool = pool(64);
            let mut port = open("io-tun");
            let raw = Raw::on("io-tun");
            assert!((0..20).all(|_| raw.send(&[0x20; 60])), "neither IPv4 nor IPv6");
            let mut none = Vec::with_capacity(64);
            assert_eq!((port.receive(&mut pool, &mut none, 16), none.len()), (16, 0));
            assert_eq!((port.receive(&mut pool, &mut none, 16), none.len()), (4, 0));
            assert_eq!((port.statistics().receive_dropped, pool.free()), (20, 64));
        });
    }

    #[test]
    fn without_large_frames_ordinary_packets_are_received_still() {
        in_namespace(|| {
            let mut pool = pool(64);
            let mut port = TunPort::open("io-tun", MTU_MAX, None, PORT).unwrap();
            ip("addr add 10.9.0.1/32 dev io-tun");
            ip("route add 10.9.0.0/24 dev io-tun src 10.9.0.1");
            let held: Vec<Frame> = std::iter::from_fn(|| pool.take_large()).collect();
            assert!(held.len() >= 64, "however few frames there are");
            let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
            socket.send_to(&[7; SMALL - 28], "10.9.0.2:8000").unwrap();
            let packets = receive(&mut port, &mut pool, 1);
            assert_eq!(packets[0].buffer.bytes().len(), ETHERNET + SMALL);
            release(&mut pool, packets);
            pool.put_all(held);
        });
    }

    #[test]
    fn what_is_not_ip_is_refused() {
        in_namespace(|| {
            let mut pool = pool(4);
            let mut port = open("io-tun");
            for bytes in [&[0; 10][..], &[2; 60][..]] {
                let packet = packet(&mut pool, bytes, PORT);
                let refused = port.transmit(&mut pool, packet).unwrap_err();
                assert_eq!(refused.reason, DropReason::TransmitRefused);
                pool.put(refused.packet.buffer);
            }
            assert_eq!(pool.free(), 4);
        });
    }
}
