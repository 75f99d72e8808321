//! Who forwards, on which core, and how the kernel is told to.

use std::net::Ipv4Addr;

use vswitch_model::DesiredState;

use crate::net::{Pod, Topology, link};
use crate::peer::Filter;
use crate::peer::kernel::forward;
use crate::session::Session;
use crate::{Error, Result};

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The switch, policy and flow tracking on.
    Ours,
    /// The kernel as it comes: it forwards where a packet is made, on the sender's core. It follows no flow and has no
    /// policy.
    Kernel,
    /// The same with its receive work in threads on the forwarder's core: what divides the work most as ours does. But the
    /// way from the sender to that core is a veth's ring of 256 entries, not a socket's of 2048.
    KernelThreaded,
    /// The kernel as it comes with nftables: conntrack, and a set of 1000 addresses. What most resembles ours in what it
    /// does.
    KernelConntrack,
    /// The kernel as it comes, but what goes onto a wire between nodes is cut to its MTU first, as on a network card that
    /// cannot cut what is in a tunnel. A veth takes 64 KB in one piece, which no wire does.
    KernelCut,
}

impl Contender {
    /// All of them but the one of wires between nodes.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Kernel, Self::KernelThreaded, Self::KernelConntrack];
    /// Those there is time for with `--quick`.
    pub const QUICK: [Self; 3] = [Self::Ours, Self::Kernel, Self::KernelConntrack];

    /// Those that this run has time for.
    #[must_use]
    pub fn of(session: &Session) -> &'static [Self] {
        if session.config.quick { &Self::QUICK } else { &Self::ALL }
    }

    /// Its name in results.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Kernel => "kernel",
            Self::KernelThreaded => "kernel-threaded",
            Self::KernelConntrack => "kernel-conntrack",
            Self::KernelCut => "kernel-cut",
        }
    }

    /// Whether it forwards on the sender's core, so that the sender is late when it is slow.
    #[must_use]
    pub const fn is_where_the_sender_is(self) -> bool {
        matches!(self, Self::Kernel | Self::KernelConntrack | Self::KernelCut)
    }
}

/// Which core does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// Sends, and does what the kernel hangs on that: for our switch the way into its sockets, for the kernel as it comes
    /// all of the way to the other pod.
    pub sender: usize,
    /// Forwards: the switch's worker, or the kernel's threads.
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

/// The node's kernel forwards what `desired` says. `core`: with its receive work in threads on this core; None: where the
/// packets come from. `nft`: its rules. The threads it forwards in.
///
/// # Errors
///
/// What could not be set up.
pub fn kernel(
    topology: &Topology,
    desired: &DesiredState,
    core: Option<usize>,
    nft: &str,
) -> Result<Vec<String>> {
    let node = &topology.switch;
    let mut threads = Vec::new();
    if let Some(core) = core {
        for pod in &topology.pods {
            link::gro(node, &pod.host)?;
            threads.extend(link::threaded(node, &pod.host, core)?);
        }
    }
    forward(topology, desired, Filter::None, &[])?;
    if !nft.is_empty() {
        crate::peer::find("kernel-conntrack", "nft", "nftables")?;
        node.with_input(&["nft", "-f", "-"], nft)?;
    }
    Ok(threads)
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
