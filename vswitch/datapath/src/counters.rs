//! What a worker counts. One thread writes, any thread reads: plain loads and stores, no locked operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vswitch_model::DropReason;

use crate::dns::DnsQueue;
use crate::flow_log::FlowLogQueue;
use crate::tally::RuleTallies;
use crate::{Packet, PortIndex};

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owner may: two adders would lose counts.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Begins anew. Only the owner may.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted for each port. Aligned so that no two ports share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct PortCounters {
    /// Packets that came by this port.
    pub rx_packets: Counter,
    /// Their bytes, Ethernet headers included.
    pub rx_bytes: Counter,
    /// Packets the walk sent out by this port.
    pub tx_packets: Counter,
    /// Their bytes, Ethernet headers included.
    pub tx_bytes: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl PortCounters {
    fn new() -> Self {
        Self {
            rx_packets: Counter::default(),
            rx_bytes: Counter::default(),
            tx_packets: Counter::default(),
            tx_bytes: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// Packets that came by this port and ended for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }
}

macro_rules! stages {
    ($($(#[doc = $text:literal])+ $name:ident = $key:literal,)+) => {
        /// What happens to packets on their way; each is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Stage {
            $($(#[doc = $text])+ $name,)+
        }

        impl Stage {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name in metrics: lower case, with hyphens.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key),+ }
            }
        }
    };
}

stages! {
    /// Packets read.
    Parse = "parse",
    /// ARP, neighbour discovery and pings of the gateway, answered.
    Answer = "answer",
    /// Tunnel headers taken off.
    Decapsulate = "decapsulate",
    /// Fragments given the ports of their first one.
    Fragment = "fragment",
    /// Packets of a known flow.
    FlowHit = "flow-hit",
    /// Packets that asked for a new flow.
    FlowMiss = "flow-miss",
    /// ICMP errors forwarded along the flow they speak of.
    RelatedError = "related-error",
    /// Flows judged anew because the tables, and the policy of one of their ends, changed.
    Revalidate = "revalidate",
    /// Checksums finished that a sender had left.
    Checksum = "checksum",
    /// Packets cut into IPv4 fragments.
    Split = "split",
    /// Large packets cut into segments.
    Segment = "segment",
    /// Segments that became part of a large packet.
    Coalesce = "coalesce",
    /// Tunnel headers put on.
    Encapsulate = "encapsulate",
    /// ICMP errors built.
    IcmpError = "icmp-error",
    /// ICMP errors not built: the rate limit was reached.
    IcmpErrorLimited = "icmp-error-limited",
    /// ICMP errors not built: the sender had as many as one gets.
    IcmpErrorLimitedSource = "icmp-error-limited-source",
}

/// Packets of one port that follow each other, to be counted together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Theirs.
    pub(crate) port: PortIndex,
    packets: u64,
    bytes: u64,
}

impl Run {
    /// None yet.
    pub(crate) const fn of(port: PortIndex) -> Self {
        Self { port, packets: 0, bytes: 0 }
    }

    /// One more of `length` bytes.
    #[inline]
    pub(crate) const fn add(&mut self, length: usize) {
        self.packets += 1;
        self.bytes += length as u64;
    }
}

/// All counters of one worker.
#[derive(Debug)]
pub struct Counters {
    ports: Box<[PortCounters]>,
    stages: Box<[Counter]>,
    /// Flows created.
    pub flows_created: Counter,
    /// Flows that ended by their timeout.
    pub flows_expired: Counter,
    /// Flows that newer tables deny.
    pub flows_revoked: Counter,
    /// Flows that were never answered, or revoked, and made room for newer ones.
    pub flows_evicted: Counter,
    /// What rules did, of those that room was made for.
    pub rules: Arc<RuleTallies>,
    /// What is told of new flows.
    pub flow_log: Arc<FlowLogQueue>,
    /// What is told of DNS.
    pub dns: DnsQueue,
}

impl Counters {
    /// Counters for ports 0 to `ports - 1`; what has a higher number is counted with the last one.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports.max(1)).map(|_| PortCounters::new()).collect(),
            stages: Stage::ALL.iter().map(|_| Counter::default()).collect(),
            flows_created: Counter::default(),
            flows_expired: Counter::default(),
            flows_revoked: Counter::default(),
            flows_evicted: Counter::default(),
            rules: Arc::default(),
            flow_log: Arc::default(),
            dns: DnsQueue::default(),
        }
    }

    /// The counters of one port.
    #[must_use]
    pub fn port(&self, port: PortIndex) -> &PortCounters {
        &self.ports[usize::from(port.0).min(self.ports.len() - 1)]
    }

    /// Packets a stage has handled.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> u64 {
        self.stages[stage as usize].get()
    }

    /// Packets that ended for `reason`, whichever port they came by.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.ports.iter().map(|port| port.drops(reason)).sum()
    }

    /// Counts a packet that came by `port` and ended for `reason`. The worker calls it too, for what ends outside the
    /// walk: rings that are full, ports that are gone.
    pub fn dropped(&self, port: PortIndex, reason: DropReason) {
        self.port(port).drops[reason as usize].add(1);
    }

    /// Counts a packet that the walk has sent and `port` did not take: as many as it was counted as when it was sent.
    pub fn refused<B>(&self, packet: &Packet<B>, port: PortIndex, reason: DropReason) {
        let packets = packet.offload.segment.map_or(1, |segment| segment.packets);
        self.port(port).drops[reason as usize].add(packets.into());
    }

    pub(crate) fn passed(&self, stage: Stage, count: usize) {
        if count > 0 {
            self.stages[stage as usize].add(count as u64);
        }
    }

    /// Counts a packet of `length` bytes that came by `port`. The walk does it itself; the worker calls it for what is not
    /// walked any more.
    pub fn received(&self, port: PortIndex, length: usize) {
        let counters = self.port(port);
        counters.rx_packets.add(1);
        counters.rx_bytes.add(length as u64);
    }

    /// The same of packets that followed each other.
    #[inline]
    pub(crate) fn received_all(&self, run: &Run) {
        let counters = self.port(run.port);
        counters.rx_packets.add(run.packets);
        counters.rx_bytes.add(run.bytes);
    }

    /// Counts packets that followed each other and leave by one port.
    #[inline]
    pub(crate) fn sent_all(&self, run: &Run) {
        let counters = self.port(run.port);
        counters.tx_packets.add(run.packets);
        counters.tx_bytes.add(run.bytes);
    }

    /// Counts a packet of `length` bytes that leaves by `port`. The walk does it itself; the worker calls it for what it
    /// held.
    pub fn sent(&self, port: PortIndex, length: usize) {
        let counters = self.port(port);
        counters.tx_packets.add(1);
        counters.tx_bytes.add(length as u64);
    }
}
