//! The stages of the walk. Each works on a whole batch: it reads the tables and what earlier stages learned, changes
//! packets in place, and says which of them go on. A packet that ends gets its [`Fate`]; all leave together at the end,
//! in the order they came.
//!
//! ```text
//! receive -> pod (answer, source check)      -+
//!         -> uplink (decapsulate, source check) -> flow -> forward -> leave -> transmit
//!         -> host (source check)             -+
//! ```
//!
//! What nearly all packets are goes further at once, while its headers are at hand: the pod's check and the flow's key are
//! made as a packet is received, outer headers of VXLAN come off, and a packet of a known flow is sent as its flow advances. The
//! stages between see the rest.

pub(crate) mod flow;
pub(crate) mod forward;
pub(crate) mod receive;
pub(crate) mod source;
pub(crate) mod transmit;
pub(crate) mod tunnelled;
pub(crate) mod uplink;

use std::net::{IpAddr, Ipv4Addr};

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
#[derive(Debug, Clone, Copy, Default)]
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
    pub(crate) const fn has(&self, index: usize) -> bool {
        self.0 >> (index % BATCH) & 1 != 0
    }

    #[inline]
    pub(crate) const fn remove(&mut self, index: usize) {
        self.0 &= !(1 << (index % BATCH));
    }

    /// Adds those of `others`.
    #[inline]
    pub(crate) const fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.0.count_ones() as usize
    }

    /// The number behind the last; 0 when there is none.
    #[inline]
    pub(crate) const fn end(&self) -> usize {
        BATCH - self.0.leading_zeros() as usize
    }

    /// Those that are not among `others`.
    #[inline]
    pub(crate) const fn without(&self, others: Self) -> Self {
        Self(self.0 & !others.0)
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

/// How the walks of a batch's packets ended.
#[derive(Debug)]
pub(crate) struct Fates {
    /// Those that are [`Fate::Sent`], as nearly all are.
    sent: Indices,
    /// Those that are neither that nor [`Fate::Walking`].
    others: Indices,
    /// What the others are; of no meaning for the rest.
    fates: [Fate; BATCH],
}

impl Fates {
    /// None has ended.
    #[inline]
    pub(crate) const fn clear(&mut self) {
        self.sent.clear();
        self.others.clear();
    }

    #[inline]
    pub(crate) fn of(&self, index: usize) -> Fate {
        if self.sent.has(index) {
            Fate::Sent
        } else if self.others.has(index) {
            self.fates[index % BATCH]
        } else {
            Fate::Walking
        }
    }

    /// Its walk ends so, or so after all.
    #[inline]
    pub(crate) fn set(&mut self, index: usize, fate: Fate) {
        self.sent.remove(index);
        self.others.remove(index);
        match fate {
            Fate::Sent => self.sent.push(index),
            Fate::Walking => {}
            _ => {
                self.others.push(index);
                self.fates[index % BATCH] = fate;
            }
        }
    }

    /// The walks of these, which have not ended, end with [`Fate::Sent`].
    #[inline]
    pub(crate) const fn sent_too(&mut self, indices: Indices) {
        self.sent.extend(indices);
    }

    /// Whether the first `count`, which are the batch, are all [`Fate::Sent`].
    #[inline]
    pub(crate) const fn all_sent(&self, count: usize) -> bool {
        self.sent.len() == count
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
    pub(crate) fates: Fates,
    /// Those that are [`Fate::Reported`].
    pub(crate) reports: Indices,
    /// The way it leaves.
    pub(crate) adjacency: [AdjacencyIndex; BATCH],
    /// The hash of its flow's key, by which the flow is looked up, and which spreads tunnel packets over the underlay.
    pub(crate) entropy: [u64; BATCH],
    /// Of those whose outer headers were taken off as they were received: what these said.
    pub(crate) outer: [tunnelled::Outer; BATCH],
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
            fates: Fates { sent: Indices::new(), others: Indices::new(), fates: [Fate::Walking; BATCH] },
            reports: Indices::new(),
            adjacency: [AdjacencyIndex(0); BATCH],
            entropy: [0; BATCH],
            outer: [tunnelled::Outer::EMPTY; BATCH],
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
        self.fates.clear();
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
        let related = self.parsed[index].is_icmp_error() && self.fates.of(index) == Fate::Sent;
        self.flow[index].is_some() || related
    }

    /// Its walk ends so.
    #[inline]
    pub(crate) fn end(&mut self, index: usize, fate: Fate) {
        self.fates.set(index, fate);
        if matches!(fate, Fate::Reported(..)) {
            self.reports.push(index);
        }
    }

    #[inline]
    pub(crate) fn drop(&mut self, index: usize, reason: DropReason) {
        self.fates.set(index, Fate::Dropped(reason));
    }
}

/// Whether an address can be the source of a packet that is forwarded (RFC 1812, section 5.3.7; RFC 4291, section 2.5).
#[inline]
pub(crate) fn is_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_source_v4(address),
        IpAddr::V6(address) => {
            let local = address.is_unicast_link_local() || address.is_loopback() || address.is_unspecified();
            !local && !address.is_multicast()
        }
    }
}

/// The same of an IPv4 address.
#[inline]
pub(crate) fn is_source_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    (1..224).contains(&first) && first != 127
}

/// Whether a packet to an address is forwarded. Link-local IPv6 destinations are not (RFC 4291, section 2.5.6); the
/// gateway's is answered before this is asked.
#[inline]
pub(crate) fn is_destination(address: IpAddr) -> bool {
    is_source(address)
}

#[cfg(test)]
mod tests;
