//! Frames in, frames out: the one place that talks to devices, and the one place with `unsafe`.
//!
//! ```text
//!            FramePool <----------------- put ------------------+
//!                | take                                         |
//!                v                                              |
//!   fill ring -> receive -> Packet<Frame> -> walk -> transmit -> tx ring -> completion ring
//!   (kernel)                (worker)                             (kernel)
//! ```
//!
//! A [`Frame`] is the right to use one chunk of the [`Umem`]. It can be moved, not copied, and is always in exactly one
//! of the places above; the UMEM's ledger says in which, so that what comes back from a kernel ring is believed only
//! when it was lent, and every frame can be accounted for at any time ([`Umem::account`]).
//!
//! [`Port`] is the seam: the worker knows nothing of sockets. [`memory`] is for tests and measurements, [`afxdp`] for
//! veths and physical devices, [`tun`] for the node's own kernel, [`pcap`] for captures.
#![allow(
    unsafe_code,
    reason = "rings, mapped memory and sockets are the kernel's; nothing else here has any"
)]

pub mod afxdp;
pub mod frame;
pub mod large;
pub mod memory;
pub mod netns;
pub mod pcap;
pub mod pool;
pub mod port;
pub mod tun;
pub mod umem;

mod depot;
mod ethtool;
mod heap;
pub(crate) mod icmp;
mod link;
mod mapping;
mod offload;
mod rings;
mod widest;

#[cfg(test)]
pub(crate) mod testing;

pub use afxdp::{AfXdpPort, Devices};
pub use frame::Frame;
pub use heap::Heap;
pub use memory::{MemoryPeer, MemoryPort};
pub use pcap::PcapPort;
pub use pool::FramePool;
pub use port::{Capabilities, Port, PortState, PortStatistics, Refused};
pub use tun::{LARGE_BUDGET, TunPort};
pub use umem::{FrameAccount, Umem, UmemError};
pub use widest::{Work, level, widest};
