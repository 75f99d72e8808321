//! Veths between namespaces, and what their devices can be told and asked.

use std::collections::BTreeSet;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use vswitch_cni::kernel::{ethtool, napi};
use vswitch_model::Mac;

use super::Namespace;
use crate::machine::raise_thread;
use crate::{Error, Result};

/// A veth to be made.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// Where its near end is to be, under which name and Ethernet address.
    pub near: (&'a Namespace, &'a str, Mac),
    /// The same of its far end.
    pub far: (&'a Namespace, &'a str, Mac),
    /// MTU of both ends.
    pub mtu: u16,
    /// Queues of both ends.
    pub queues: u32,
}

/// What the kernel counts for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets it could not take, a full ring foremost.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets it could not send.
    pub tx_dropped: u64,
}

impl Veth<'_> {
    /// The line of `ip` that makes it, both ends up in their namespaces.
    fn lines(&self) -> (String, String) {
        let size = format!("mtu {} numtxqueues {} numrxqueues {}", self.mtu, self.queues, self.queues);
        let ((_, near, near_mac), (far_namespace, far, far_mac)) = (self.near, self.far);
        let add = format!(
            "link add {near} address {near_mac} {size} type veth peer name {far} address {far_mac} {size} \
             netns {}\nlink set {near} up",
            far_namespace.path().display()
        );
        (add, format!("link set {far} up"))
    }

    /// Makes it. Checksums are not left to the device at either end: behind AF_XDP nobody would write them.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`].
    pub fn make(&self) -> Result<()> {
        let (near, far) = self.lines();
        self.near.0.ip(&near)?;
        self.far.0.ip(&far)?;
        for (namespace, name, _) in [self.near, self.far] {
            for feature in ethtool::TX_CHECKSUMS {
                offload(namespace, name, feature, false)?;
            }
        }
        Ok(())
    }
}

/// Switches an offload, by the name `ethtool -k` has for it in the kernel: `rx-gro`, `tx-tcp-segmentation`.
///
/// # Errors
///
/// [`Error::Setup`].
pub fn offload(namespace: &Namespace, interface: &str, feature: &str, on: bool) -> Result<()> {
    let set = || -> std::io::Result<()> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        ethtool::Ethtool::open()?.set(index, feature, on)
    };
    let state = if on { "on" } else { "off" };
    namespace
        .enter(set)?
        .map_err(|error| Error::setup(format!("switch {feature} of {interface} {state}"), error))
}

/// Gives a device NAPI, which is what XDP frames can be redirected into: on a veth, switching GRO on does.
///
/// # Errors
///
/// [`Error::Setup`].
pub fn gro(namespace: &Namespace, interface: &str) -> Result<()> {
    offload(namespace, interface, ethtool::RX_GRO, true)
}

/// Moves a device's receive work to kernel threads of its own, on `core`. It has to have NAPI already. The threads, as
/// [`crate::machine::Watch::thread`] names them.
///
/// # Errors
///
/// [`Error::Setup`], also when no thread came of it.
pub fn threaded(namespace: &Namespace, interface: &str, core: usize) -> Result<Vec<String>> {
    let what = || format!("thread the receive work of {interface}");
    let before = napi_threads(interface);
    namespace.enter(|| napi::set_threaded(interface))?.map_err(|error| Error::setup(what(), error))?;
    let mut cores = CpuSet::new();
    cores.set(core).map_err(|errno| Error::setup(what(), errno))?;
    // Devices of other namespaces may have the same name: ours are those that were not there.
    let threads: Vec<i32> = napi_threads(interface).difference(&before).copied().collect();
    for thread in &threads {
        sched_setaffinity(Pid::from_raw(*thread), &cores).map_err(|errno| Error::setup(what(), errno))?;
        raise_thread(*thread)?;
    }
    if threads.is_empty() {
        return Err(Error::setup(what(), "the kernel made no thread: it has no NAPI yet"));
    }
    Ok(threads.iter().map(|thread| format!("{thread}/task/{thread}")).collect())
}

/// Kernel threads that receive for devices of this name: `napi/NAME-NUMBER`.
fn napi_threads(interface: &str) -> BTreeSet<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_ours = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let rest = name.trim().strip_prefix("napi/").and_then(|rest| rest.strip_prefix(interface));
        rest.is_some_and(|rest| rest.starts_with('-'))
    };
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

/// What the kernel counted for a device so far.
///
/// # Errors
///
/// [`Error::Setup`] when there is none of this name.
pub fn counts(namespace: &Namespace, interface: &str) -> Result<LinkCounts> {
    let read = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let text = read.map_err(|error| Error::setup("read counters of devices", error))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let numbers: Vec<u64> =
        line.unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect();
    // Eight figures of receiving, eight of sending: bytes, packets, errors, dropped and so on.
    let [_, rx_packets, _, rx_dropped, _, _, _, _, _, tx_packets, _, tx_dropped, ..] = numbers[..] else {
        return Err(Error::setup("read counters", format!("no interface {interface}")));
    };
    Ok(LinkCounts { rx_packets, rx_dropped, tx_packets, tx_dropped })
}
