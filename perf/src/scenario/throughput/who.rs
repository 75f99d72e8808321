//! Who forwards, and on which cores.

use crate::workload::Way;
use crate::{Error, Result};

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The engine as it ships, policy and flow tracking on.
    Ours,
    /// The kernel as it comes: routes, and VXLAN where it is asked for. It forwards where frames are received, which is where
    /// they are generated: one core does all.
    Kernel,
    /// The same, receiving in threads on the core that forwards (threaded NAPI): generated on one core, all else on the other.
    KernelThreaded,
    /// Open vSwitch, userspace datapath, AF_XDP.
    Ovs,
    /// DPDK testpmd, `io`, net_af_xdp.
    Testpmd,
    /// AF_XDP in, AF_XDP out, no decision.
    Bare,
}

impl Who {
    /// Everybody that carries frames this way, ours first.
    #[must_use]
    pub fn of(way: Way) -> &'static [Self] {
        match way {
            Way::Local => {
                &[Self::Ours, Self::Kernel, Self::KernelThreaded, Self::Bare, Self::Ovs, Self::Testpmd]
            }
            _ => &[Self::Ours, Self::Kernel, Self::KernelThreaded],
        }
    }

    /// Its name among peers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Kernel => "kernel",
            Self::KernelThreaded => "kernel-threaded",
            Self::Ovs => "ovs",
            Self::Testpmd => "testpmd",
            Self::Bare => "bare",
        }
    }
}

/// The two cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// Where frames are generated. What the forwarder's device does to receive them is done there too, up to the ring of a
    /// socket, or, by the kernel as it comes, all the rest; but not for the kernel with threads.
    pub generator: usize,
    /// Where frames are forwarded; what the sink's device does to receive them is done there too.
    pub forwarder: usize,
}

impl Cores {
    /// The first two this process may use.
    ///
    /// # Errors
    ///
    /// [`Error::Unmet`] when there is one only.
    pub fn choose() -> Result<Self> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        match cores[..] {
            [first, second, ..] => Ok(Self { generator: first.id, forwarder: second.id }),
            _ => Err(Error::Unmet("two cores are needed: one generates, one forwards".to_owned())),
        }
    }
}
