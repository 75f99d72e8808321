//! What tests of devices share: network namespaces of their own, veths, and raw sockets at their far ends.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vswitch_datapath::{Offload, Packet, PortIndex};

use super::{Frame, FramePool, Port, Umem, netns};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` in a network namespace of its own, without IPv6 so that devices are silent. Where that is not permitted it
/// says so and is skipped, unless `CI` is set, which promises the privilege.
pub(crate) fn in_namespace(test: impl FnOnce() + Send) {
    let result = netns::in_new(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        ip("link set lo up");
        test();
    });
    if let Err(error) = result {
        assert!(std::env::var_os("CI").is_none(), "no network namespace: {error}");
        eprintln!("SKIPPED: no network namespace ({error}); run as root");
    }
}

/// Runs `ip` in the calling thread's network namespace.
pub(crate) fn ip(arguments: &str) {
    ip_says(arguments);
}

/// The same, and what it prints.
pub(crate) fn ip_says(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A veth whose ends are up and have `queues` queues.
pub(crate) fn veth(near: &str, far: &str, queues: u32) {
    let count = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!("link add {near} {count} type veth peer name {far} {count}"));
    ip(&format!("link set {near} up"));
    ip(&format!("link set {far} up"));
}

/// Another network namespace, alive while this is.
pub(crate) struct Namespace {
    pub(crate) path: PathBuf,
    _alive: mpsc::Sender<()>,
}

/// A new namespace in which `prepare` has run.
pub(crate) fn namespace(prepare: impl FnOnce() + Send + 'static) -> Namespace {
    let (path_sender, path) = mpsc::channel();
    let (alive, ended) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        netns::in_new(move || {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            prepare();
            path_sender.send(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap();
            assert!(ended.recv().is_err(), "nothing is ever sent");
        })
    });
    Namespace { path: path.recv_timeout(PATIENCE).unwrap().into(), _alive: alive }
}

/// Tries until `attempt` gives something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::yield_now();
    }
}

/// A raw socket on a device: every frame of it, Ethernet header included.
pub(crate) struct Raw(OwnedFd);

impl Raw {
    /// On a device of the calling thread's network namespace.
    pub(crate) fn on(interface: &str) -> Self {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: makes a descriptor, from integers.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, all.into()) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a structure of integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = if_nametoindex(interface).unwrap() as i32;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of the address.
        let bound = unsafe { libc::bind(socket, (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made, and nothing else owns it.
        Self(unsafe { OwnedFd::from_raw_fd(socket) })
    }

    /// Sends a frame. False: the device has no room.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        nix::unistd::write(&self.0, frame).is_ok()
    }

    /// The next frame that came in by the device, within [`PATIENCE`]; frames it sent itself are passed over.
    pub(crate) fn receive(&self) -> Vec<u8> {
        self.receive_within(PATIENCE).expect("a frame arrives")
    }

    pub(crate) fn receive_within(&self, patience: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        loop {
            let mut bytes = vec![0; 4096];
            // SAFETY: structures of integers, for which zero is a value.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut length = size_of_val(&from) as libc::socklen_t;
            // SAFETY: the kernel writes at most as many bytes as the lengths say.
            let count = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    bytes.as_mut_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            if count >= 0 && from.sll_pkttype != libc::PACKET_OUTGOING {
                bytes.truncate(count as usize);
                return Some(bytes);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if count < 0 {
                let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
            }
        }
    }
}

/// A UMEM that sockets can use, and a pool with all of it.
pub(crate) fn umem(frames: usize) -> FramePool {
    FramePool::new(&Umem::registered(frames, false).unwrap(), frames).unwrap()
}

/// A packet that holds `bytes` and leaves by `port`.
pub(crate) fn packet(pool: &mut FramePool, bytes: &[u8], port: PortIndex) -> Packet<Frame> {
    let mut buffer = pool.take().unwrap();
    assert!(buffer.fill(bytes));
    Packet { buffer, port, offload: Offload::default() }
}

/// Receives until there are `count` packets.
#[track_caller]
pub(crate) fn receive(port: &mut dyn Port, pool: &mut FramePool, count: usize) -> Vec<Packet<Frame>> {
    let mut packets = Vec::with_capacity(count);
    wait_for("packets", || {
        port.receive(pool, &mut packets, count);
        (packets.len() == count).then_some(())
    });
    packets
}

/// Puts the packets' frames back.
pub(crate) fn release(pool: &mut FramePool, packets: Vec<Packet<Frame>>) {
    pool.put_all(packets.into_iter().map(|packet| packet.buffer));
}

/// An Ethernet frame of `length` bytes from and to unicast addresses, of a local experimental EtherType, marked `mark`.
pub(crate) fn frame(mark: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x88, 0xb5];
    frame.extend(mark.to_be_bytes());
    frame.extend((frame.len()..length).map(|at| at as u8));
    frame
}

/// The mark of [`frame`], wherever it begins.
pub(crate) fn mark(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// An Ethernet frame with a UDP packet in it, checksums right, as a kernel would accept it.
pub(crate) fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xbb], [2, 0, 0, 0, 0, 0xaa]);
    let mut bytes = Vec::new();
    match (from.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let builder = ethernet.ipv4(source.octets(), target.octets(), 64).udp(from.1, to.1);
            builder.write(&mut bytes, payload).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let builder = ethernet.ipv6(source.octets(), target.octets(), 64).udp(from.1, to.1);
            builder.write(&mut bytes, payload).unwrap();
        }
        _ => panic!("two families in one packet"),
    }
    bytes
}
