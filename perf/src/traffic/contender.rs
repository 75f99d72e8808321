//! Who forwards, on which core, and how the kernel is told to.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::net::{Pod, Topology, link};
use crate::{Error, Result};

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The switch, policy and flow tracking on.
    Ours,
    /// The kernel, plain forwarding, which follows no flow and has no policy.
    Kernel,
    /// The kernel with nftables: conntrack, and a set of 1000 addresses. What most resembles ours.
    KernelConntrack,
}

impl Contender {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Kernel, Self::KernelConntrack];

    /// Its name in results.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Kernel => "kernel",
            Self::KernelConntrack => "kernel-conntrack",
        }
    }
}

/// Which core does what: the same for every contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// Sends, and does what the kernel hangs on that: the way into the host ends.
    pub sender: usize,
    /// Forwards: the switch's worker, or the kernel's receive work of the host ends.
    pub forwarder: usize,
}

impl Cores {
    /// The first two this process may use.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when there is only one.
    pub fn two() -> Result<Self> {
        match core_affinity::get_core_ids().unwrap_or_default()[..] {
            [sender, forwarder, ..] => Ok(Self { sender: sender.id, forwarder: forwarder.id }),
            _ => Err(Error::Unmet("two cores are needed: one that sends and one that forwards".to_owned())),
        }
    }
}

/// The node's kernel forwards. `cores`: with its receive work on the forwarder's core; None: where the packets come from.
/// `nft`: its rules.
///
/// # Errors
///
/// What could not be set up.
pub fn kernel(topology: &Topology, cores: Option<Cores>, nft: &str) -> Result<()> {
    let node = &topology.switch;
    let mut lines = String::new();
    for pod in &topology.pods {
        let (host, mac) = (&pod.host, pod.mac);
        for address in pod.addresses.iter().filter(|address| address.is_ipv4()) {
            let _ = writeln!(lines, "route replace {address} dev {host}");
            let _ = writeln!(lines, "neigh replace {address} lladdr {mac} dev {host} nud permanent");
        }
        if let Some(cores) = cores {
            link::gro(node, host)?;
            link::threaded(node, host, cores.forwarder)?;
        }
    }
    node.ip(&lines)?;
    node.sysctl("net.ipv4.ip_forward", "1")?;
    if !nft.is_empty() {
        node.with_input(&["nft", "-f", "-"], nft)?;
    }
    Ok(())
}

/// Flows are followed, and what opens one has to come from an address of a set of 1000.
pub(super) fn conntrack(topology: &Topology) -> Result<String> {
    let pods = topology.pods.iter().map(Pod::ipv4).collect::<Result<Vec<_>>>()?;
    let others = (0..1000 - pods.len().min(999)).map(|n| Ipv4Addr::from(0x0a40_0000 + n as u32 * 256));
    let set: Vec<String> = pods.iter().copied().chain(others).map(|address| address.to_string()).collect();
    Ok(format!(
        "table ip perf {{\n set known {{ type ipv4_addr; elements = {{ {} }} }}\n chain forward {{\n \
         type filter hook forward priority 0; policy drop;\n ct state established,related accept\n \
         ip saddr @known udp dport 1024-65535 accept\n ip saddr @known tcp dport 1024-65535 accept\n }}\n}}\n",
        set.join(", ")
    ))
}
