//! The stages of the walk. Each works on a whole batch: it reads the tables and what earlier stages learned, changes
//! packets in place, and says which of them go on. A packet that ends gets its [`Fate`]; all leave together at the end,
//! in the order they came.
//!
//! ```text
//! receive -> pod (answer, source check)      -+
//!         -> uplink (decapsulate, source check) -> flow -> forward -> leave -> transmit
//!         -> host (source check)             -+
//! ```

pub(crate) mod flow;
pub(crate) mod forward;
pub(crate) mod receive;
pub(crate) mod source;
pub(crate) mod transmit;
pub(crate) mod uplink;

use std::net::IpAddr;

use vswitch_model::{DropReason, RuleId, TunnelId};

use crate::counters::Counters;
use crate::encap::Carried;
use crate::flow::FlowIndex;
use crate::icmp::IcmpError;
use crate::parse::Parsed;
use crate::tables::{AdjacencyIndex, Tables};
use crate::{BATCH, Now, PortIndex};

/// What every stage may read.
pub(crate) struct Context<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) now: Now,
    pub(crate) counters: &'a Counters,
}

/// How a packet's walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has not ended yet.
    Walking,
    /// It goes out by the port it now bears.
    Sent,
    /// It goes out by the port it now bears once somebody releases it.
    Held,
    /// It is too long for its way and is cut into fragments as it leaves.
    Split,
    /// It is a large packet whose way does not take it, and is cut into segments as it leaves.
    Segmented,
    /// It ends.
    Dropped(DropReason),
    /// It ends, and its sender is to be told.
    Reported(DropReason, IcmpError),
}

impl Fate {
    /// No way leads on for `reason`, and the sender is to be told.
    pub(crate) fn unreachable(reason: DropReason) -> Self {
        let error = match reason {
            DropReason::NoRoute => IcmpError::NetworkUnreachable,
            _ => IcmpError::HostUnreachable,
        };
        Self::Reported(reason, error)
    }
}

/// Numbers of packets of a batch: a bit for each, so that they are ascending, whoever came first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Indices(u64);

const _: () = assert!(BATCH == u64::BITS as usize);

impl Indices {
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    /// Adds one.
    #[inline]
    pub(crate) const fn push(&mut self, index: usize) {
        self.0 |= 1 << (index % BATCH);
    }

    #[inline]
    pub(crate) const fn clear(&mut self) {
        self.0 = 0;
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.0.count_ones() as usize
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros() as usize;
            // Of zero nothing is left; the rest tells the compiler, so that no access checks bounds.
            left &= left.wrapping_sub(1);
            (first < BATCH).then_some(first)
        })
    }
}

/// What is known of the packets of a batch, one array for each property.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The port it came by.
    pub(crate) ingress: [PortIndex; BATCH],
    /// What its headers say: the inner ones, once outer ones are off. Empty when they could not be read.
    pub(crate) parsed: [Parsed; BATCH],
    /// How its walk ended.
    pub(crate) fate: [Fate; BATCH],
    /// Those that are [`Fate::Reported`].
    pub(crate) reports: Indices,
    /// The way it leaves.
    pub(crate) adjacency: [AdjacencyIndex; BATCH],
    /// The hash of its flow's key, which spreads tunnel packets over the underlay.
    pub(crate) entropy: [u64; BATCH],
    /// For the trace: a tunnel to the node it came from, and what it came in.
    pub(crate) tunnel: [Option<(TunnelId, Carried)>; BATCH],
    /// For the trace: its flow, and whether it opened it.
    pub(crate) flow: [Option<(FlowIndex, bool)>; BATCH],
    /// For the trace: the rule that denied it.
    pub(crate) denied: [Option<RuleId>; BATCH],
    /// For the trace: why it ended, when it left as an ICMP error about itself.
    pub(crate) reported: [Option<DropReason>; BATCH],
    /// For the trace: it left as the answer to itself.
    pub(crate) answered: [bool; BATCH],
    /// For the trace: the port it left by.
    pub(crate) egress: [PortIndex; BATCH],
    /// Packets from the port of DNS to whoever opened the flow.
    pub(crate) answers: Indices,
    /// Of those that are [`Fate::Held`]: the number they are released by.
    pub(crate) held: [u64; BATCH],
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            ingress: [PortIndex(0); BATCH],
            parsed: [Parsed::EMPTY; BATCH],
            fate: [Fate::Walking; BATCH],
            reports: Indices::new(),
            adjacency: [AdjacencyIndex(0); BATCH],
            entropy: [0; BATCH],
            tunnel: [None; BATCH],
            flow: [None; BATCH],
            denied: [None; BATCH],
            reported: [None; BATCH],
            answered: [false; BATCH],
            egress: [PortIndex(0); BATCH],
            answers: Indices::new(),
            held: [0; BATCH],
        }
    }

    /// Forgets the batch before: of what is for the trace, where it is `traced`.
    #[inline]
    pub(crate) fn reset(&mut self, count: usize, traced: bool) {
        self.fate[..count].fill(Fate::Walking);
        self.reports.clear();
        self.answers.clear();
        if traced {
            self.reset_traced(count);
        }
    }

    #[cold]
    fn reset_traced(&mut self, count: usize) {
        self.tunnel[..count].fill(None);
        self.flow[..count].fill(None);
        self.denied[..count].fill(None);
        self.reported[..count].fill(None);
        self.answered[..count].fill(false);
    }

    /// Whether a way was chosen for it: it belongs to a flow, or is an ICMP error about one that went on.
    pub(crate) fn routed(&self, index: usize) -> bool {
        let related = self.parsed[index].is_icmp_error() && self.fate[index] == Fate::Sent;
        self.flow[index].is_some() || related
    }

    /// Its walk ends so.
    #[inline]
    pub(crate) fn end(&mut self, index: usize, fate: Fate) {
        self.fate[index] = fate;
        if matches!(fate, Fate::Reported(..)) {
            self.reports.push(index);
        }
    }

    #[inline]
    pub(crate) fn drop(&mut self, index: usize, reason: DropReason) {
        self.fate[index] = Fate::Dropped(reason);
    }
}

/// Whether an address can be the source of a packet that is forwarded (RFC 1812, section 5.3.7; RFC 4291, section 2.5).
#[inline]
pub(crate) fn is_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => {
            let local = address.is_unicast_link_local() || address.is_loopback() || address.is_unspecified();
            !local && !address.is_multicast()
        }
    }
}

/// Whether a packet to an address is forwarded. Link-local IPv6 destinations are not (RFC 4291, section 2.5.6); the
/// gateway's is answered before this is asked.
#[inline]
pub(crate) fn is_destination(address: IpAddr) -> bool {
    is_source(address)
}

#[cfg(test)]
mod tests;
